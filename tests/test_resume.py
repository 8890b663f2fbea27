"""Real kills: a process dies by SIGKILL at a chosen point, the same command goes on, nothing differs."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from nursery import Ended

SMALL = [
    *("tracker=none", "budget.initial=10", "budget.rounds=3", "trainer.epochs=6", "trainer.patience=4"),
    *("model.dropout=0.2", "dataset.pool_size=300"),
]
COMMAND = ["strategy=diffusion", "strategy.mini_batch=5", *SMALL]

# The n-th call of a function kills the process, as kill -9 would.
PATIENT = """
import functools, alrun.files, alrun.run, alrun.state
from alrun.strategies.diffusion import Diffusion
alrun.state.RunFolder.progress = functools.partialmethod(alrun.state.RunFolder.progress, every=0.0)
"""
KILLS = {
    "before the first round is whole": "deadly(alrun.state.RunFolder, 'commit', 1, True)",
    "in the middle of training": "deadly(alrun.files.Progress, 'keep', 9, False)",
    "during selection": "deadly(Diffusion, '_clamped', 1, True)",
    "while the checkpoint is written": "deadly(alrun.state.torch, 'save', 8, False)",
    "between checkpoint and tables": "deadly(alrun.state.RunFolder, 'write_tables', 2, True)",
    "between the two tables": "deadly(alrun.state.RunFolder, 'write_table', 2, True)",
    "before a rename": "deadly(alrun.files.os, 'replace', 5, True)",
    "between the last round and the figure": "deadly(alrun.run, 'draw_run', 1, True)",
}


@pytest.fixture(scope="module")
def started(nursery) -> Callable[..., Ended]:
    """The end of a process that is killed by a line of code, or is not."""

    def started(folder: Path, kill: str = "", *words: str, base: Sequence[str] = COMMAND) -> Ended:
        return nursery.run(folder, *base, *words, code=PATIENT + kill)

    return started


def results(folder: Path) -> tuple[bytes, list[dict[str, str]]]:
    """selections.csv to the byte, and rounds.csv but for seconds and memory."""
    (path,) = folder.glob("outputs/digits/*/*")
    with (path / "rounds.csv").open() as file:
        lines = [
            {key: value for key, value in line.items() if not key.endswith(("_seconds", "_mb"))}
            for line in csv.DictReader(file)
        ]
    return (path / "selections.csv").read_bytes(), lines


@pytest.fixture(scope="module")
def unbroken(started, tmp_path_factory) -> tuple[bytes, list[dict[str, str]]]:
    folder = tmp_path_factory.mktemp("unbroken")
    done = started(folder)
    assert done.returncode == 0, done.output
    return results(folder)


@pytest.mark.parametrize("where", KILLS)
def test_a_run_killed_once_ends_as_if_it_never_was(where, started, unbroken, tmp_path):
    killed = started(tmp_path, KILLS[where])
    assert killed.returncode == -9, killed.output
    done = started(tmp_path)
    assert done.returncode == 0, done.output
    assert results(tmp_path) == unbroken
    assert len(unbroken[1]) == 4
    assert not list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.rglob("fit.pt"))


def test_a_run_killed_again_and_again_ends_as_if_it_never_was(started, unbroken, tmp_path):
    codes = [started(tmp_path, kill).returncode for kill in KILLS.values()]
    assert codes.count(-9) >= 6
    assert started(tmp_path).returncode == 0
    assert results(tmp_path) == unbroken


@pytest.mark.parametrize(
    "words", [("model=lenet", "trainer.start=previous"), ("model=s0_cnn", "trainer.loss=hinge")]
)
def test_convolutional_networks_and_warm_starts_resume_to_the_same_bits(words, started, tmp_path):
    (tmp_path / "whole").mkdir()
    assert started(tmp_path / "whole", "", *words).returncode == 0
    (tmp_path / "killed").mkdir()
    for kill in ("in the middle of training", "between checkpoint and tables", "during selection"):
        started(tmp_path / "killed", KILLS[kill], *words)
    assert started(tmp_path / "killed", "", *words).returncode == 0
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


@pytest.mark.parametrize("strategy", ["dgal", "vae_seals", "probcover"])
def test_what_is_kept_across_rounds_is_the_same_after_a_kill(strategy, started, tmp_path):
    words = (f"strategy={strategy}", "featurizer=pca", "budget.rounds=4")
    for name, kills in (("whole", ()), ("killed", ("in the middle of training", "between the two tables"))):
        (tmp_path / name).mkdir()
        codes = [started(tmp_path / name, KILLS[kill], *words, base=SMALL).returncode for kill in kills]
        assert codes == [-9] * len(kills)
        done = started(tmp_path / name, "", *words, base=SMALL)
        assert done.returncode == 0, done.output
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


def test_a_finished_run_is_recognized_and_not_repeated(started, tmp_path):
    assert started(tmp_path).returncode == 0
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*.csv")}
    again = started(tmp_path, "deadly(alrun.training.supervised.Supervised, 'fit', 1, True)")
    assert again.returncode == 0, again.output
    assert "finished already" in again.output
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*.csv")}
    assert len(list((tmp_path / "outputs" / "digits" / "diffusion").iterdir())) == 1
