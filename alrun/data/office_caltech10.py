"""Office-Caltech-10: SURF features of ten classes of objects in four domains."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64
from numpy import ndarray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from alrun.data.data import Data, Items
from alrun.data.domains import Domains

Domain = Literal["amazon", "caltech", "dslr", "webcam"]

FOLDER = "office_caltech10_surf"
FILES = {
    "amazon": "amazon_SURF_L10.mat",
    "caltech": "Caltech10_SURF_L10.mat",
    "dslr": "dslr_SURF_L10.mat",
    "webcam": "webcam_SURF_L10.mat",
}
NAMES = (
    *("backpack", "bike", "calculator", "headphones", "keyboard"),
    *("laptop", "monitor", "mouse", "mug", "projector"),
)
WORDS = 800
ORIGIN = (
    f"put there {', '.join(FILES.values())}, which B. Gong, F. Sha and K. Grauman published with their "
    "Geodesic Flow Kernel (CVPR 2012) and many domain-adaptation toolboxes carry"
)
# What SciPy raises for bytes that are no MATLAB file.
BROKEN = (
    *(OSError, ValueError, TypeError, LookupError, EOFError, NotImplementedError),
    *(MatReadError, zlib.error),
)


@dataclass(frozen=True)
class OfficeCaltech10(Domains):
    """800 numbers an item: histograms of visual words (SURF), divided by their sum, then standardized.

    The source domain is labeled, of the target domain `pool_share` is the pool and the rest the test set,
    divided at random by the run's `split` stream. Read from `data_dir`/office_caltech10_surf.

    Attributes:
        standardized_by: `domain` gives columns mean 0 and std 1 in each domain by itself; `source` by the
            moments of the source. Constant columns become 0.

    `domain` is transductive: the target's moments are of its pool and its test items together (no label is
    read), so that training has seen the test inputs' means. Where a test item must not count before it is
    tested, use `source`.

    Source: Gong et al. 2012, section 4, and the protocol of the authors' public code (each domain by itself).
    """

    source: Domain
    target: Domain
    standardized_by: Literal["domain", "source"]

    def load(self, data_dir: Path, chance: np.random.Generator) -> Data:
        """Both domains; `Data.files` names the file and row (from 0) of each item.

        Raises:
            FileNotFoundError: a file is not there; says where it is to be had.
            ValueError: a file that holds something else.
        """
        source, target = (_read(data_dir / FOLDER, domain) for domain in (self.source, self.target))
        moments = _moments(source.inputs)
        theirs = moments if self.standardized_by == "source" else _moments(target.inputs)
        try:
            return self.adapted(
                source._replace(inputs=_standardized(source.inputs, *moments)),
                target._replace(inputs=_standardized(target.inputs, *theirs)),
                dict(enumerate(NAMES)),
                chance,
            )
        except ValueError as error:
            raise ValueError(f"data set office_caltech10: {error}") from None


def _read(folder: Path, domain: Domain) -> Items:
    """Histograms as shares of their sum in float64, labels from 0, and names of rows."""
    file = folder / FILES[domain]
    if not file.is_file():
        raise FileNotFoundError(f"data set office_caltech10: there is no file {file.absolute()}; {ORIGIN}")
    try:
        held = loadmat(file)
        counts, labels = np.asarray(held["fts"]), np.asarray(held["labels"])
    except BROKEN as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{file} cannot be read as SURF features ({reason}); {ORIGIN}") from None
    labels = labels.reshape(-1).astype(np.int64) - 1
    if counts.ndim != 2 or counts.shape != (len(labels), WORDS) or counts.dtype.kind not in "iuf":
        raise ValueError(
            f"{file} must hold fts (n, {WORDS}) and labels (n, 1), got {counts.shape} {counts.dtype} and "
            f"{labels.shape}; {ORIGIN}"
        )
    sums = counts.sum(axis=1, dtype=np.float64)
    if not (sums > 0).all():
        raise ValueError(f"{file}: row {int((sums > 0).argmin())} is empty; {ORIGIN}")
    rows = np.array([f"{file.name}:{row}" for row in range(len(labels))])
    return Items(counts / sums[:, None], labels, rows)


def _moments(shares: Float64[ndarray, "n w"]) -> tuple[Float64[ndarray, " w"], Float64[ndarray, " w"]]:
    """Mean and standard deviation (over n) of each column; 1 where a column is constant."""
    std = shares.std(axis=0)
    return shares.mean(axis=0), np.where(std > 0, std, 1.0)


def _standardized(
    shares: Float64[ndarray, "n w"], mean: Float64[ndarray, " w"], std: Float64[ndarray, " w"]
) -> Float32[ndarray, "n w"]:
    return ((shares - mean) / std).astype(np.float32)
