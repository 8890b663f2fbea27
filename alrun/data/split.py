"""Which file each row is, for data sets that draw their own pool and test set from files."""

import csv
import io
from pathlib import Path

from alrun.data.data import Data
from alrun.files import write_text

COLUMNS = ("part", "row", "class", "file")


def write_split(path: Path, data: Data) -> None:
    """A table of pool and test rows at `path`, or nothing for data that name no files."""
    if data.files is None or data.test_files is None:
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    parts = (("pool", data.labels, data.files), ("test", data.test_labels, data.test_files))
    for part, labels, files in parts:
        pairs = zip(labels.tolist(), files.tolist(), strict=True)
        writer.writerows(
            (part, row, data.class_names[label], file) for row, (label, file) in enumerate(pairs)
        )
    write_text(path, text.getvalue())
