"""Real kills: a process dies by SIGKILL at a chosen point, the same command goes on, nothing differs."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

SMALL = [
    *("tracker=none", "budget.initial=10", "budget.rounds=3", "trainer.epochs=6", "trainer.patience=4"),
    *("model.dropout=0.2", "dataset.pool_size=300"),
]
COMMAND = ["strategy=diffusion", "strategy.mini_batch=5", *SMALL]

# One process imports everything once; each run is a fork of it, so that many real kills stay affordable.
# In the fork the n-th call of a function kills the process, as kill -9 would.
NURSERY = """
import functools, json, os, signal, sys
import torch._dynamo  # what torch's optimizers import on first use
import alrun.assembly, alrun.files, alrun.overrides, alrun.run, alrun.screen, alrun.state
import alrun.training.supervised
from alrun.cli import main
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
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        os.chdir(job["folder"])
        output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        exec(job["kill"])
        sys.argv = ["alrun", *job["command"]]
        main()
        sys.stdout.flush()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

KILLS = {
    "before the first round is whole": "deadly(alrun.state.RunFolder, 'commit', 1, True)",
    "in the middle of training": "deadly(alrun.files.Progress, 'keep', 9, False)",
    "during selection": "deadly(Diffusion, '_clamped', 1, True)",
    "while the checkpoint is written": "deadly(alrun.state.torch, 'save', 8, False)",
    "between checkpoint and tables": "deadly(alrun.state.RunFolder, 'write_tables', 2, True)",
    "between the two tables": "deadly(alrun.state.RunFolder, '_table', 2, True)",
    "before a rename": "deadly(alrun.files.os, 'replace', 5, True)",
    "between the last round and the figure": "deadly(alrun.run, 'draw_run', 1, True)",
}


class Ended(NamedTuple):
    code: int
    output: str


class Nursery:
    """Runs `alrun` in forks of one prepared process."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, folder: Path, kill: str = "", *words: str, base: Sequence[str] = COMMAND) -> Ended:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(
            json.dumps({"folder": str(folder), "kill": kill, "command": [*base, *words]}),
            file=self.process.stdin,
        )
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        return Ended(code, (folder / "output.txt").read_text())


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.process.kill()
    made.process.wait()


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
def unbroken(nursery, tmp_path_factory) -> tuple[bytes, list[dict[str, str]]]:
    folder = tmp_path_factory.mktemp("unbroken")
    done = nursery.run(folder)
    assert done.code == 0, done.output
    return results(folder)


@pytest.mark.parametrize("where", KILLS)
def test_a_run_killed_once_ends_as_if_it_never_was(where, nursery, unbroken, tmp_path):
    killed = nursery.run(tmp_path, KILLS[where])
    assert killed.code == -9, killed.output
    done = nursery.run(tmp_path)
    assert done.code == 0, done.output
    assert results(tmp_path) == unbroken
    assert len(unbroken[1]) == 4
    assert not list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.rglob("fit.pt"))


def test_a_run_killed_again_and_again_ends_as_if_it_never_was(nursery, unbroken, tmp_path):
    codes = [nursery.run(tmp_path, kill).code for kill in KILLS.values()]
    assert codes.count(-9) >= 6
    assert nursery.run(tmp_path).code == 0
    assert results(tmp_path) == unbroken


@pytest.mark.parametrize(
    "words", [("model=lenet", "trainer.start=previous"), ("model=s0_cnn", "trainer.loss=hinge")]
)
def test_convolutional_networks_and_warm_starts_resume_to_the_same_bits(words, nursery, tmp_path):
    (tmp_path / "whole").mkdir()
    assert nursery.run(tmp_path / "whole", "", *words).code == 0
    (tmp_path / "killed").mkdir()
    for kill in ("in the middle of training", "between checkpoint and tables", "during selection"):
        nursery.run(tmp_path / "killed", KILLS[kill], *words)
    assert nursery.run(tmp_path / "killed", "", *words).code == 0
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


@pytest.mark.parametrize("strategy", ["dgal", "vae_seals", "probcover"])
def test_what_is_kept_across_rounds_is_the_same_after_a_kill(strategy, nursery, tmp_path):
    words = (f"strategy={strategy}", "featurizer=pca", "budget.rounds=4")
    for name, kills in (("whole", ()), ("killed", ("in the middle of training", "between the two tables"))):
        (tmp_path / name).mkdir()
        codes = [nursery.run(tmp_path / name, KILLS[kill], *words, base=SMALL).code for kill in kills]
        assert codes == [-9] * len(kills)
        done = nursery.run(tmp_path / name, "", *words, base=SMALL)
        assert done.code == 0, done.output
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


def test_a_finished_run_is_recognized_and_not_repeated(nursery, tmp_path):
    assert nursery.run(tmp_path).code == 0
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*.csv")}
    again = nursery.run(tmp_path, "deadly(alrun.training.supervised.Supervised, 'fit', 1, True)")
    assert again.code == 0, again.output
    assert "finished already" in again.output
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*.csv")}
    assert len(list((tmp_path / "outputs" / "digits" / "diffusion").iterdir())) == 1
