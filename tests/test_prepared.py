"""Images in a file that grows block by block: what is in it, and what a kill or damage leaves of it."""

import json
import shutil
from collections import namedtuple

import numpy as np
import pytest

from alrun.data.prepared import Prepared

SHAPE = (3, 2, 2)
EACH = 12


class Told:
    """Keeps what it is told."""

    def __init__(self):
        self.steps, self.news = [], []

    def epoch(self, done, total):
        self.steps.append((done, total))

    def say(self, news):
        self.news.append(news)

    def tell(self, news): ...


def image(row: int) -> np.ndarray:
    return np.full(SHAPE, row, np.uint8)


def blocks(*, fails_at: int | None = None, until: int = 40, asked: list[int] | None = None):
    """Images that hold their row, three a block; `asked` keeps the rows that were begun with."""

    def made(start):
        if asked is not None:
            asked.append(start)
        for begin in range(start, until, 3):
            if fails_at is not None and begin >= fails_at:
                raise KeyboardInterrupt
            yield np.stack([image(row) for row in range(begin, min(begin + 3, until))])

    return made


@pytest.fixture
def store(tmp_path, monkeypatch) -> Prepared:
    monkeypatch.setattr("alrun.data.prepared.KEEP_SECONDS", 0.0)
    return Prepared(tmp_path / "kept", {"of": "a test"}, SHAPE)


def file_of(store: Prepared):
    (file,) = store.folder.glob("*.images")
    return file


def test_the_map_holds_every_image_and_cannot_be_written(store):
    told = Told()
    images = store.images(20, blocks(), told)
    assert isinstance(images, np.memmap)
    assert np.array_equal(images, np.stack([image(row) for row in range(20)]))
    assert not images.flags.writeable
    assert told.steps[-1] == (20, 20)
    assert "preparing 20 images of 3 x 2 x 2 once" in told.news[0]


def test_what_is_whole_is_mapped_without_being_made_again(store):
    store.images(20, blocks(), Told())
    asked, told = [], Told()
    assert np.array_equal(store.images(20, blocks(asked=asked), told)[19], image(19))
    assert (asked, told.news) == ([], [])


def test_a_kill_in_the_middle_loses_no_block_that_was_recorded(store):
    with pytest.raises(KeyboardInterrupt):
        store.images(20, blocks(fails_at=9), Told())
    with file_of(store).open("ab") as file:
        file.write(b"half a block")  # written, and not yet recorded when the process died
    asked, told = [], Told()
    images = store.images(20, blocks(asked=asked), told)
    assert asked == [9]
    assert "going on after 9" in told.news[0]
    assert np.array_equal(images[:, 0, 0, 0], np.arange(20))


def test_more_images_than_before_are_added_and_fewer_are_a_part(store):
    store.images(9, blocks(), Told())
    asked = []
    assert np.array_equal(store.images(30, blocks(asked=asked), Told())[:, 0, 0, 0], np.arange(30))
    assert asked == [9]
    assert len(store.images(4, blocks(asked=asked), Told())) == 4
    assert asked == [9]


def test_a_file_cut_off_is_said_and_completed(store, caplog):
    store.images(20, blocks(), Told())
    with file_of(store).open("r+b") as file:
        file.truncate(7 * EACH + 5)
    asked = []
    assert np.array_equal(store.images(20, blocks(asked=asked), Told())[:, 0, 0, 0], np.arange(20))
    assert asked == [7]
    assert "was cut off, it had 21 images; going on after 7" in caplog.text


def test_a_damaged_record_is_said_and_all_is_made_anew(store, caplog):
    store.images(20, blocks(), Told())
    (listing,) = store.folder.glob("*.json")
    listing.write_text("{")
    asked = []
    store.images(20, blocks(asked=asked), Told())
    assert asked == [0]
    assert "damaged" in caplog.text
    assert json.loads(listing.read_text())["images"] == 21  # whole blocks are written


def test_another_key_or_shape_is_another_file(store, tmp_path):
    store.images(6, blocks(), Told())
    for other in (
        Prepared(store.folder, {"of": "another"}, SHAPE),
        Prepared(store.folder, store.key, (3, 4, 1)),
    ):
        asked = []
        with pytest.raises(KeyboardInterrupt):
            other.images(6, blocks(asked=asked, fails_at=0), Told())
        assert asked == [0]


def test_too_little_space_is_known_before_anything_is_made(store, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(100, 0, 100))
    asked = []
    with pytest.raises(OSError, match=r"needs 0.0 GB for 20 prepared images .* make room there"):
        store.images(20, blocks(asked=asked), Told())
    assert asked == []


def test_fewer_images_than_listed_are_refused(store):
    with pytest.raises(ValueError, match="there were 10 images where 20 were listed"):
        store.images(20, blocks(until=10), Told())
