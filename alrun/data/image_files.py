"""Image files as one array: decoded by several threads, once, and kept on disk."""

import hashlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from filelock import FileLock
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageOps

from alrun.files import atomic

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
BLOCK = 1000  # images decoded before they are written
SAMPLE = 16  # images decoded again to see that a kept array is still theirs
# What Pillow raises for files that are no images, damaged, or absurdly large.
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
DAMAGED = (OSError, ValueError, EOFError)
log = logging.getLogger(__name__)


def decoded(root: Path, files: list[str], side: int, kept: Path) -> UInt8[ndarray, "n 3 side side"]:
    """The images of `files`, relative to `root`, in their order, as a memory map of an array in `kept`.

    RGB without transparency; not square: the middle square, resized to `side` pixels (bilinear, antialiased).
    The array is made on first use and found again by names, sizes and times of the files; it is made anew if
    it is damaged or some of its images no longer agree with the files. A new array takes the place of those
    of the same folder, before its files changed. Nothing is written under `root`.

    Raises:
        ValueError: a file that is no image; names it.
        OSError: the array cannot be written, e.g. for want of space.
    """
    place = _place_digest(root, files, side)
    target = kept / f"{place}-{_listing_digest(root, files, side)}.npy"
    read = partial(_image, root, side)
    if (images := _whole(target, files, read)) is not None:
        return images
    try:
        kept.mkdir(parents=True, exist_ok=True)
        with FileLock(kept / f".{place}.lock"):
            if (images := _whole(target, files, read)) is not None:  # another process made it meanwhile
                return images
            for left in kept.glob(f".{target.name}.*.part"):  # of a process that was killed
                left.unlink()
            log.info("decoding %d images of %s into %s", len(files), root, target)
            _write(target, files, side, read)
            for old in {*kept.glob(f"{place}-*.npy")} - {target}:
                log.info("removing %s: its image files have changed since", old)
                old.unlink()
    except OSError as error:
        gigabytes = 3 * side * side * len(files) / 1e9
        raise OSError(
            f"cannot keep {len(files)} decoded images ({gigabytes:.1f} GB) in {kept} "
            f"({error.strerror or error}); make room there or choose another data_dir"
        ) from error
    return np.load(target, mmap_mode="r", allow_pickle=False)


def images_in(root: Path, folder: Path) -> list[str]:
    """Names, relative to `root`, of the image files that lie in this folder, in any order; no hidden ones."""
    images = [each for each in folder.iterdir() if each.suffix.lower() in SUFFIXES]
    return [each.relative_to(root).as_posix() for each in images if not each.name.startswith(".")]


def _write(target: Path, files: list[str], side: int, read: partial) -> None:
    layout = {"descr": "|u1", "fortran_order": False, "shape": (len(files), 3, side, side)}
    with atomic(target) as part, part.open("wb") as file, ThreadPoolExecutor() as threads:
        np.lib.format.write_array_header_1_0(file, layout)
        for start in range(0, len(files), BLOCK):
            for image in threads.map(read, files[start : start + BLOCK]):
                file.write(image.data)
            log.info("%d of %d images decoded", min(start + BLOCK, len(files)), len(files))


def _whole(target: Path, files: list[str], read: partial) -> ndarray | None:
    """The kept array, if there is one and it is of these files as they are now."""
    if not target.is_file():
        return None
    try:
        images = np.load(target, mmap_mode="r", allow_pickle=False)
    except DAMAGED as error:
        log.warning("%s is damaged (%s); decoding the images again", target, error)
        return None
    rows = np.unique(np.linspace(0, len(files) - 1, SAMPLE).astype(int))
    if len(images) == len(files) and all(np.array_equal(images[row], read(files[row])) for row in rows):
        return images
    log.warning("%s does not agree with its image files; decoding them again", target)
    return None


def square(
    source: Path | BytesIO, name: str | Path, side: int, crop: int | None
) -> UInt8[ndarray, "3 side side"]:
    """An image in RGB, of which the middle square of `crop` pixels (None: the largest) has `side` pixels.

    Resized bilinearly and antialiased; `name` tells the image in messages.

    Raises:
        ValueError: it cannot be read, or is smaller than `crop`.
    """
    try:
        with Image.open(source) as stored:
            image = stored.convert("RGB")
    except UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{name} is no readable image ({reason}); replace it") from None
    if crop is not None and crop > min(image.size):
        raise ValueError(f"{name} has {image.width} x {image.height} pixels, below crop={crop}; lower it")
    if crop is None:
        fitted = ImageOps.fit(image, (side, side), Image.Resampling.BILINEAR)
    else:
        left, top = (image.width - crop) // 2, (image.height - crop) // 2
        box = (left, top, left + crop, top + crop)
        fitted = image.resize((side, side), Image.Resampling.BILINEAR, box)
    return np.ascontiguousarray(np.asarray(fitted).transpose(2, 0, 1))


def _image(root: Path, side: int, file: str) -> UInt8[ndarray, "3 side side"]:
    return square(root / file, root / file, side, None)


def _place_digest(root: Path, files: list[str], side: int) -> str:
    """8 hex digits of the folder that holds all these files, and of the side."""
    shared = os.path.commonpath([os.path.dirname(file) for file in files])
    return hashlib.sha256(f"{side}\n{(root / shared).resolve()}".encode()).hexdigest()[:8]


def _listing_digest(root: Path, files: list[str], side: int) -> str:
    """16 hex digits that change with any file's name, size or time of change, and with the side."""
    digest = hashlib.sha256(f"{side}\n".encode())
    for file in files:
        state = os.stat(root / file)
        digest.update(f"{file}\t{state.st_size}\t{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
