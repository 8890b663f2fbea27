"""Real kills: a process dies by SIGKILL at a chosen point, the same command goes on, nothing differs."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [
    "strategy=diffusion",
    "tracker=none",
    "budget.initial=10",
    "budget.rounds=3",
    "trainer.epochs=6",
    "trainer.patience=4",
    "strategy.mini_batch=5",
    "model.dropout=0.2",
    "dataset.pool_size=300",
]

# Stands before the program in the child: the n-th call of a function kills the process, as kill -9 would.
CHILD = """
import functools, os, signal, sys
import alrun.run, alrun.state, alrun.training.supervised
from alrun.strategies.diffusion import Diffusion

def deadly(owner, name, count, before):
    original, calls = getattr(owner, name), [0]
    @functools.wraps(original)
    def call(*arguments, **named):
        calls[0] += 1
        if before and calls[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **named)
        if not before and calls[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(owner, name, call)

alrun.state.RunFolder.progress = functools.partialmethod(alrun.state.RunFolder.progress, every=0.0)
{kill}
from alrun.cli import main
sys.argv = ["alrun", *sys.argv[1:]]
main()
"""

KILLS = {
    "before the first round is whole": "deadly(alrun.state.RunFolder, 'commit', 1, True)",
    "in the middle of training": "deadly(alrun.state.FitProgress, 'keep', 9, False)",
    "during selection": "deadly(Diffusion, '_clamped', 2, True)",
    "while the checkpoint is written": "deadly(alrun.state.torch, 'save', 8, False)",
    "between checkpoint and tables": "deadly(alrun.state.RunFolder, 'write_tables', 2, True)",
    "between the two tables": "deadly(alrun.state.RunFolder, '_table', 2, True)",
    "before a rename": "deadly(alrun.state.os, 'replace', 5, True)",
    "between the last round and the figure": "deadly(alrun.run, 'draw_run', 1, True)",
}


def run(folder: Path, kill: str = "") -> subprocess.CompletedProcess:
    child = [sys.executable, "-c", CHILD.replace("{kill}", kill), *COMMAND]
    return subprocess.run(child, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def results(folder: Path) -> tuple[bytes, list[dict[str, str]]]:
    """selections.csv to the byte, and rounds.csv but for seconds and memory."""
    (path,) = folder.glob("outputs/digits/diffusion/*")
    with (path / "rounds.csv").open() as file:
        lines = [
            {key: value for key, value in line.items() if not key.endswith(("_seconds", "_mb"))}
            for line in csv.DictReader(file)
        ]
    return (path / "selections.csv").read_bytes(), lines


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> tuple[bytes, list[dict[str, str]]]:
    folder = tmp_path_factory.mktemp("unbroken")
    done = run(folder)
    assert done.returncode == 0, done.stderr
    return results(folder)


@pytest.mark.parametrize("where", KILLS)
def test_a_run_killed_once_ends_as_if_it_never_was(where, unbroken, tmp_path):
    killed = run(tmp_path, KILLS[where])
    assert killed.returncode == -9, killed.stdout + killed.stderr
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path) == unbroken
    assert not list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.rglob("fit.pt"))


def test_a_finished_run_is_recognized_and_not_repeated(tmp_path):
    assert run(tmp_path).returncode == 0
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*.csv")}
    again = run(tmp_path, "deadly(alrun.training.supervised.Supervised, 'fit', 1, True)")
    assert again.returncode == 0, again.stderr
    assert "finished already" in again.stdout
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*.csv")}
    assert os.listdir(tmp_path / "outputs" / "digits" / "diffusion") == [next(iter(before)).parent.name]
