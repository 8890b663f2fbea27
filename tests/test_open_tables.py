"""Lines that a strategy writes are in the run folder while its round goes on, and never twice."""

import csv
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import CPU
from test_run import played

from alrun.clock import Clock
from alrun.report.searches import read_searches
from alrun.rounds import Batch, Round, Work
from alrun.state import RunFolder, Saved, read_records
from alrun.work import OpenTables

LINES = 4


class BrokenOffError(RuntimeError):
    """Ends a run in the middle of a round."""


@dataclass
class Telling:
    """Buys the first candidates and writes lines, the third with a column more, until it breaks off."""

    stop: tuple[int, int] = (-1, -1)
    needs = frozenset()

    def select(self, current: Round, size: int) -> Batch:
        for line in range(LINES):
            if (current.number, line) == self.stop:
                raise BrokenOffError
            more = {"note": "a, b"} if line == 2 else {}
            current.write("told", {"line": line, "square": line**2, **more})
        return Batch(current.candidates[:size], np.zeros(size))


def broken(folder: Path, number: int, line: int) -> None:
    with pytest.raises(BrokenOffError):
        played(folder, strategy=Telling((number, line)))


def told(folder: Path) -> list[tuple[int, int]]:
    file = folder / "told.csv"
    lines = read_records(file) if file.exists() else []
    return [(int(line["round"]), int(line["line"])) for line in lines]


def marks(folder: Path) -> list[str]:
    return [path.name for path in (folder / "checkpoint").glob("open-*")]


@pytest.fixture
def opened(tmp_path) -> OpenTables:
    """Of a folder with two lines of whole rounds."""
    (tmp_path / "checkpoint").mkdir()
    saved = Saved(tables={"told": [{"round": 0, "a": 1}, {"round": 1, "b": 2.5}]})
    return RunFolder(tmp_path).open_tables(saved)


def test_lines_are_there_when_a_round_breaks_off_and_once_when_the_run_went_on(tmp_path):
    played(tmp_path / "whole", strategy=Telling())
    path, every = tmp_path / "broken", list(itertools.product((1, 2), range(LINES)))
    for number, line in ((1, 2), (1, 0), (2, 3), (2, 0)):
        broken(path, number, line)
        before = [each for each in every if each < (number, line)]
        assert told(path) == before
        assert marks(path) == (["open-told"] if line else [])
        assert (path / "told.csv").exists() == bool(before)
    _, saved = played(path, strategy=Telling())
    assert told(path) == every
    assert (path / "told.csv").read_bytes() == (tmp_path / "whole" / "told.csv").read_bytes()
    assert marks(path) == []
    assert ["watch_seconds" in record for record in saved.records] == [False, True, True]


def test_after_every_line_the_file_is_what_the_whole_table_would_be(opened, tmp_path):
    chance, own = np.random.default_rng(0), []
    for _ in range(30):
        names = chance.choice(list("abcdefg"), 2, replace=False).tolist()
        own.append({"round": 2, **{name: chance.choice(['"', "x\ny", "", 0.1]) for name in names}})
        opened.add("told", own)
        RunFolder(tmp_path).write_table("expected", [*opened.whole["told"], *own])
        assert (tmp_path / "told.csv").read_bytes() == (tmp_path / "expected.csv").read_bytes()


def test_a_line_without_a_new_column_is_appended(opened, tmp_path):
    own = []
    files = [
        (own.append({"round": 2, **more}), opened.add("told", own), (tmp_path / "told.csv").stat().st_ino)[-1]
        for more in ({"a": 1}, {"b": 2}, {}, {"c": 3}, {"a": 4})
    ]
    assert files[0] == files[1] == files[2] != files[3] == files[4]


def test_a_disk_that_fails_is_said_and_the_next_line_brings_out_what_is_missing(opened, tmp_path):
    work = Work(Clock(CPU), lambda rows: rows, 1)
    work.opened = opened
    work.write("told", {"round": 2, "a": 1})
    file = tmp_path / "told.csv"
    file.rename(tmp_path / "aside")
    file.mkdir()
    with pytest.raises(OSError, match=r"told\.csv"):
        work.write("told", {"round": 2, "a": 2})
    file.rmdir()
    work.write("told", {"round": 2, "a": 3})
    assert [line["a"] for line in read_records(file)] == ["1", "", "1", "2", "3"]


SEARCH = [
    *("tracker=none", "budget.initial=5", "budget.rounds=2", "budget.per_round=3", "trainer.epochs=1"),
    *("dataset.pool_size=40", "strategy=wasserstein", "featurizer=pixels", "strategy.iterations=2"),
    *("strategy.gap=0.0", "strategy.root=false"),
]
KILL = """
import alrun.work
deadly(alrun.work.OpenTables, 'add', {}, False)
"""


def searched(folder: Path) -> tuple[Path, list[dict[str, str]]]:
    """The run, and `wasserstein.csv` but for seconds."""
    (file,) = folder.glob("outputs/*/*/*/wasserstein.csv")
    with file.open() as lines:
        found = list(csv.DictReader(lines))
    return file.parent, [{key: value for key, value in line.items() if key != "seconds"} for line in found]


def test_a_search_that_is_killed_leaves_its_iterations_and_goes_on_as_if_it_never_was(nursery, tmp_path):
    homes = [tmp_path / name for name in ("whole", "killed")]
    for home in homes:
        home.mkdir()
    done = nursery.run(homes[0], *SEARCH)
    assert done.returncode == 0, done.output
    _, whole = searched(homes[0])
    first = sum(line["round"] == "1" for line in whole)
    assert 2 <= first < len(whole) - 1
    killed = nursery.run(homes[1], *SEARCH, code=KILL.format(first + 2))
    assert killed.returncode == -9, killed.output
    path, lines = searched(homes[1])
    assert lines == whole[: first + 2]
    assert [len(each.seconds) for each in read_searches(path).values()] == [first, 2]
    assert nursery.run(homes[1], *SEARCH).returncode == 0
    assert searched(homes[1])[1] == whole
