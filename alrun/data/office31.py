"""Office-31: pictures of 31 kinds of office objects in three domains."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge

from alrun.data.data import Data, Items
from alrun.data.domains import Domains
from alrun.data.image_files import decoded, images_in

Domain = Literal["amazon", "dslr", "webcam"]

FOLDER = "office31"
COUNTS = {"amazon": 2817, "dslr": 498, "webcam": 795}
CLASSES = 31
LAYOUT = (
    "put there amazon/, dslr/ and webcam/, each with a folder of images for each class, directly or under "
    "images/, as the public archive has them (K. Saenko et al. 2010; domain_adaptation_images.tar.gz, "
    "https://faculty.cc.gatech.edu/~judy/domainadapt); there is no download"
)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Office31(Domains):
    """Office-31, (3, s, s) uint8 with s = `image_size`, read from `path`, or `data_dir`/office31.

    The source domain is labeled, of the target domain `pool_share` is the pool and the rest the test set,
    divided at random by the run's `split` stream, classes as they fall. Classes are the folders of the
    source, in alphabetical order; the target must have the same. The decoded images are kept once in
    `data_dir`/office31/.alrun (0.2 GB for 1,000 images of side 256); nothing is written into `path`.

    Source: Saenko et al. 2010; the split of the target (70 to 30, random) S2, appendix E.1. Departs: of
    images that are not square the middle square is resized; public f-DAL code squeezes them.
    """

    source: Domain
    target: Domain
    path: str | None
    image_size: Annotated[int, Ge(1)]

    def load(self, data_dir: Path, chance: np.random.Generator) -> Data:
        """Both domains, with the file of each image.

        Raises:
            FileNotFoundError: no such folder; says what must be in it and where that is to be had.
            ValueError: domains with other classes, or a file that is no image.
        """
        own = data_dir / FOLDER
        root = own if self.path is None else Path(self.path).expanduser()
        try:
            listed = {domain: _listed(root, domain) for domain in (self.source, self.target)}
            names = _same_classes(listed)
            source, target = (self._items(root, files, own / ".alrun") for files in listed.values())
            return self.adapted(source, target, dict(enumerate(names)), chance)
        except ValueError as error:
            raise ValueError(f"data set office31: {error}") from None

    def _items(self, root: Path, files: dict[str, list[str]], kept: Path) -> Items:
        listing = [file for each in files.values() for file in each]
        images = decoded(root, listing, self.image_size, kept)
        labels = np.repeat(np.arange(len(files)), [*map(len, files.values())]).astype(np.int64)
        return Items(images, labels, np.array(listing))


def _listed(root: Path, domain: Domain) -> dict[str, list[str]]:
    """Files of each class, relative to `root`; classes and files in alphabetical order."""
    home = root / domain
    home = home / "images" if (home / "images").is_dir() else home
    if not home.is_dir():
        raise FileNotFoundError(f"data set office31: there is no folder {home.absolute()}; {LAYOUT}")
    folders = sorted(each for each in home.iterdir() if each.is_dir() and not each.name.startswith("."))
    found = {folder.name: sorted(images_in(root, folder)) for folder in folders}
    if len(found) < 2:
        raise ValueError(f"{len(found)} class(es) of images in {home.absolute()}; {LAYOUT}")
    if empty := [name for name, files in found.items() if not files]:
        raise ValueError(f"no image in {home / empty[0]}; complete or remove the folder")
    count = sum(map(len, found.values()))
    if (len(found), count) != (CLASSES, COUNTS[domain]):
        log.warning(
            "office31 has %d classes and %d images in %s, found %d and %d",
            *(CLASSES, COUNTS[domain], domain, len(found), count),
        )
    return found


def _same_classes(listed: dict[str, dict[str, list[str]]]) -> list[str]:
    (source, ours), (target, theirs) = listed.items()
    for here, there, names, others in ((source, target, ours, theirs), (target, source, theirs, ours)):
        if alone := [name for name in names if name not in others]:
            raise ValueError(f"class {alone[0]} is in {here} and not in {there}; both need the same folders")
    return list(ours)
