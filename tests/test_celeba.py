"""CelebA from a small folder of real JPEG files in torchvision's layout."""

import numpy as np
import pytest
from PIL import Image
from test_data import chance
from test_mini_imagenet import picture
from test_prepared import Told

from alrun.data.celeba import CelebA
from alrun.data.data import Preparing

NAMES = [f"{number:06}.jpg" for number in range(1, 13)]
# Of the twelve faces, eight are for training, two for validation, two to test.
PARTS = [0] * 8 + [1] * 2 + [2] * 2
WEARING = [1, -1, -1, 1, -1, -1, -1, 1, 1, 1, -1, 1]
SIDE = 8


@pytest.fixture
def faces(tmp_path):
    """A folder `celeba` with images of 20 x 30 pixels and the two lists."""
    root = tmp_path / "celeba"
    for place, name in enumerate(NAMES):
        picture(root / "img_align_celeba" / name, place, (20, 30))
    (root / "list_eval_partition.txt").write_text(
        "".join(f"{name} {part}\n" for name, part in zip(NAMES, PARTS, strict=True))
    )
    lines = "".join(f"{name}  {sign} {-sign}\n" for name, sign in zip(NAMES, WEARING, strict=True))
    (root / "list_attr_celeba.txt").write_text(f"{len(NAMES)}\nWearing_Hat Bangs \n{lines}")
    return tmp_path


def celeba(attribute="Wearing_Hat", **settings) -> CelebA:
    given = {"path": None, "image_size": SIDE, "crop": None, "pool_size": None, "balanced": False}
    return CelebA(attribute=attribute, **{**given, **settings})


def test_the_official_parts_are_pool_and_test_set_and_classes_are_absence_and_presence(faces):
    data = celeba().load(faces, chance())
    assert data.labels.tolist() == [1, 0, 0, 1, 0, 0, 0, 1]
    assert data.test_labels.tolist() == [0, 1]
    assert data.class_names == ("without Wearing_Hat", "Wearing_Hat")
    assert (data.inputs.shape, data.test_inputs.shape) == ((8, 3, SIDE, SIDE), (2, 3, SIDE, SIDE))
    assert celeba("Bangs").load(faces, chance()).labels.tolist() == [0, 1, 1, 0, 1, 1, 1, 0]


@pytest.mark.parametrize("crop", [None, 10])
def test_every_row_is_the_middle_square_of_its_face_and_stays_on_disk(faces, crop):
    data = celeba(crop=crop).load(faces, chance())
    assert isinstance(data.inputs, np.memmap)
    side = crop or 20
    box = ((20 - side) // 2, (30 - side) // 2, (20 + side) // 2, (30 + side) // 2)
    for row, name in enumerate(NAMES[:8]):
        with Image.open(faces / "celeba" / "img_align_celeba" / name) as stored:
            fitted = stored.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box)
        assert np.array_equal(data.inputs[row], np.asarray(fitted).transpose(2, 0, 1))


def test_all_attributes_share_images_that_are_prepared_once_and_told(faces):
    data_set, told = celeba(), Told()
    assert isinstance(data_set, Preparing)
    data_set.prepare(faces, told)
    assert "preparing 10 images of 3 x 8 x 8 once" in told.news[0]
    again = Told()
    celeba("Bangs").prepare(faces, again)
    assert again.news == []
    picture(faces / "celeba" / "img_align_celeba" / NAMES[0], 0, (40, 30))  # another file
    celeba().prepare(faces, again)
    assert again.news != []


def test_a_pool_size_is_drawn_and_the_test_set_stays_whole(faces):
    data = celeba(pool_size=4, balanced=True).load(faces, chance())
    assert np.bincount(data.labels).tolist() == [2, 2]
    assert len(data.test_labels) == 2


@pytest.mark.parametrize("lost", ["img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"])
def test_what_is_missing_is_named_with_where_it_goes_and_comes_from(faces, lost):
    (faces / "celeba" / lost).rename(faces / lost)
    with pytest.raises(FileNotFoundError, match=rf"{lost} missing in .*/celeba; put there .*mmlab"):
        celeba().load(faces, chance())


def test_a_missing_image_is_named(faces):
    (faces / "celeba" / "img_align_celeba" / NAMES[3]).unlink()
    with pytest.raises(FileNotFoundError, match="000004.jpg is listed and missing"):
        celeba().load(faces, chance())


def test_an_unknown_attribute_lists_those_that_there_are(faces):
    with pytest.raises(ValueError, match="attribute must be one of Wearing_Hat, Bangs, got 'Hat'"):
        celeba("Hat").load(faces, chance())


@pytest.mark.parametrize("file", ["list_attr_celeba.txt", "list_eval_partition.txt"])
def test_a_list_that_was_cut_off_is_refused(faces, file):
    path = faces / "celeba" / file
    path.write_text(path.read_text()[:-3])
    with pytest.raises(ValueError, match=f"data set celeba: .*{file}, line .*: cannot be read"):
        celeba("Bangs").load(faces, chance())


def test_a_damaged_image_and_too_small_a_one_are_named(faces):
    with pytest.raises(ValueError, match="000001.jpg has 20 x 30 pixels, below crop=25"):
        celeba(crop=25).load(faces, chance())
    (faces / "celeba" / "img_align_celeba" / NAMES[0]).write_bytes(b"no image")
    with pytest.raises(ValueError, match="000001.jpg is no readable image"):
        celeba().load(faces, chance())
