"""The cache: made once, shared, whole or not there, and never mistaken for something else."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from alrun.cache import LISTED, Cache
from alrun.code import _closure
from alrun.stock import take

KEY = {"maker": "some.Maker", "code": "1", "size": 3}


class Told:
    def __init__(self):
        self.epochs, self.news = [], []

    def epoch(self, done, total):
        self.epochs.append((done, total))

    def say(self, news):
        self.news.append(news)

    def tell(self, news): ...


def five(making):
    np.save(making.folder / "x.npy", np.full(3, 5.0))
    making.facts["mean"] = 5.0


def value(folder: Path):
    return np.load(folder / "x.npy").tolist()


def never(making):
    raise AssertionError("made again")


def home(cache: Cache) -> Path:
    return next(cache.artifacts()).folder


@pytest.fixture
def cache(tmp_path):
    return Cache(str(tmp_path / "cache"))


def test_an_artifact_is_made_once_and_read_afterwards(cache):
    first = cache.kept("features", KEY, five, value, Told())
    second = cache.kept("features", KEY, never, value, Told())
    assert (first.value, second.value) == ([5, 5, 5], [5, 5, 5])
    assert (first.reused, second.reused) == (False, True)
    assert second.artifact.listing["facts"] == {"mean": 5.0}
    assert second.artifact.seconds == first.artifact.seconds


@pytest.mark.parametrize("other", [{"size": 4}, {"code": "2"}, {"maker": "other.Maker"}, {"new": None}])
def test_another_key_is_another_artifact(cache, other):
    cache.kept("features", KEY, five, value, Told())
    assert cache.look("features", KEY | other) is None
    assert cache.look("graph", KEY) is None
    assert not cache.kept("features", KEY | other, five, value, Told()).reused


def test_settings_that_print_alike_are_told_apart(cache):
    long = np.zeros(5000)
    keys = [{"x": long}, {"x": np.where(np.arange(5000) == 2500, 1, long)}, {"x": long.astype(np.float32)}]
    keys += [{"x": long[:, None]}, {"x": np.float64(0.5)}, {"x": Path("a")}]
    for key in keys:
        assert not cache.kept("features", key, five, value, Told()).reused
    for key in ({"x": long.copy()}, {"x": 0.5}, {"x": "a"}):
        assert cache.kept("features", key, never, value, Told()).reused


@pytest.mark.parametrize("what", [object(), {1}, np.array([object()]), torch.zeros(2)], ids=lambda x: type(x))
def test_a_setting_that_cannot_be_written_down_is_refused(cache, what):
    with pytest.raises(ValueError, match="numbers, text, lists or arrays, got a .*property `identity`"):
        cache.kept("features", {"x": what}, five, value, Told())


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = Cache(None)
    kept = cache.kept("features", KEY, five, value, Told())
    assert kept.value == [5, 5, 5]
    assert not kept.artifact.folder.exists()
    assert list(tmp_path.iterdir()) == []
    assert cache.look("features", KEY) is None
    assert list(cache.artifacts()) == []


def flip(folder):
    file = folder / "x.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")


DAMAGES = {
    "a flipped byte": flip,
    "a short file": lambda folder: (folder / "x.npy").write_bytes(b""),
    "a missing file": lambda folder: (folder / "x.npy").unlink(),
    "a missing listing": lambda folder: (folder / LISTED).unlink(),
    "a broken listing": lambda folder: (folder / LISTED).write_text("{"),
    "a listing of something else": lambda folder: (folder / LISTED).write_text("[]"),
    "another key": lambda folder: (folder / LISTED).write_text(
        json.dumps(json.loads((folder / LISTED).read_text()) | {"key": {"size": 9}})
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_artifact_is_made_anew_with_a_warning(cache, damage, caplog):
    cache.kept("features", KEY, five, value, Told())
    DAMAGES[damage](home(cache) if damage != "" else None)
    kept = cache.kept("features", KEY, five, value, Told())
    assert not kept.reused
    assert kept.value == [5, 5, 5]
    assert "damaged" in caplog.text
    assert cache.kept("features", KEY, never, value, Told()).reused


def test_a_maker_that_fails_leaves_nothing_to_read(cache, tmp_path):
    def half(making):
        five(making)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.kept("features", KEY, half, value, Told())
    assert cache.look("features", KEY) is None
    assert cache.kept("features", KEY, five, value, Told()).value == [5, 5, 5]
    assert not list(Path(cache.dir).rglob("*.part"))


WORKER = """
import os, time
import numpy as np
import torch
import alrun.cache
from alrun.cache import Cache

alrun.cache.STATE_SECONDS, alrun.cache.PATIENCE = 0.0, 0.1
KILL = {kill!r}

class Told:
    def epoch(self, done, total): pass
    def say(self, news): print(news, flush=True)
    def tell(self, news): ...

def kill():
    os.kill(os.getpid(), 9)

def half_saved(state, part):
    part.write_bytes(b"half")
    kill()

def make(making):
    with open("made", "a") as file:
        file.write(f"{{os.getpid()}}\\n")
    saved = making.load()
    first = saved["step"] if saved else 0
    with open("steps", "a") as file:
        for step in range(first, 6):
            file.write(f"{{step}}\\n"); file.flush()
            time.sleep(0.1)
            if KILL == f"state {{step}}":
                torch.save = half_saved
            making.keep(step, lambda: {{"step": step + 1}})
            if KILL == f"step {{step}}":
                kill()
    np.save(making.folder / "x.npy", np.arange(3.0))
    if KILL == "write":
        kill()

kept = Cache("cache").kept("features", {{"a": 1}}, make, lambda folder: np.load(folder / "x.npy"), Told())
print(kept.value.tolist(), kept.reused)
"""


def test_eight_processes_make_it_once(nursery, tmp_path):
    code = WORKER.format(kill=None)
    workers = [nursery.start(tmp_path, code=code, verb=False) for _ in range(8)]
    ends = [nursery.wait(worker) for worker in workers]
    assert all(end.returncode == 0 for end in ends), ends
    assert len((tmp_path / "made").read_text().split()) == 1
    assert sum("False" in end.stdout for end in ends) == 1
    assert all("[0.0, 1.0, 2.0]" in end.stdout for end in ends)


@pytest.mark.parametrize(
    ("kill", "again"), [("step 3", ["4", "5"]), ("state 3", ["3", "4", "5"]), ("write", [])]
)
def test_a_killed_making_goes_on_and_leaves_no_half_artifact(nursery, tmp_path, kill, again):
    killed = nursery.run(tmp_path, code=WORKER.format(kill=kill), verb=False)
    assert killed.returncode == -signal.SIGKILL
    assert list(Cache(str(tmp_path / "cache")).artifacts()) == []
    before = len((tmp_path / "steps").read_text().split())
    ended = nursery.run(tmp_path, code=WORKER.format(kill=None), verb=False)
    assert "[0.0, 1.0, 2.0] False" in ended.stdout
    assert (tmp_path / "steps").read_text().split()[before:] == again
    assert {
        path.name.split(".")[-1] for path in (tmp_path / "cache" / "features").iterdir() if path.is_file()
    } == {"lock"}


def test_a_state_of_other_work_is_not_taken(cache):
    def broken(making):
        making._every = 0.0
        making.keep(1, lambda: {"weights": torch.ones(2)})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.kept("features", KEY, broken, value, Told())
    states = list(Path(cache.dir).glob("features/*.state"))
    assert len(states) == 1
    other = cache._home("features", KEY | {"size": 4})
    states[0].rename(other.with_name(f"{other.name}.state"))

    def fresh(making):
        assert making.load() is None
        five(making)

    cache.kept("features", KEY | {"size": 4}, fresh, value, Told())


def test_seconds_before_a_kill_count(cache):
    def broken(making):
        making._every, making.before = 0.0, 100.0
        making.keep(1, dict)
        raise KeyboardInterrupt

    def rest(making):
        making.load()
        five(making)

    with pytest.raises(KeyboardInterrupt):
        cache.kept("features", KEY, broken, value, Told())
    assert cache.kept("features", KEY, rest, value, Told()).artifact.seconds >= 100


def package(folder: Path, **files: str) -> None:
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine" / "__init__.py").write_text("")
    for name, text in files.items():
        (folder / "mine" / f"{name}.py").write_text(text)


def version_of(folder: Path, **files: str) -> str:
    package(folder, **files)
    return asked_version(folder)


def asked_version(folder: Path, module: str = "mine.maker") -> str:
    code = f"import {module}; from alrun.code import code_version; print(code_version('{module}'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip
    return done.stdout.strip()


def test_the_code_version_follows_what_the_code_does_and_what_it_imports(tmp_path):
    maker = "from mine.part import f\n\ndef make():\n    return f()\n"
    first = version_of(tmp_path, maker=maker, part="def f():\n    return 1\n")
    documented = (
        "from mine.part import f\n\n\ndef make():\n    '''Makes.'''\n    # as it is\n    return f()\n"
    )
    assert version_of(tmp_path, maker=documented) == first
    assert version_of(tmp_path, part="def f():\n    return 2\n") != first


def test_the_code_version_follows_relative_imports_of_a_package(tmp_path):
    def version(number: int) -> str:
        package(tmp_path, maker="from mine import f\n", part=f"def f():\n    return {number}\n")
        (tmp_path / "mine" / "__init__.py").write_text("from .part import f as f\n")
        return asked_version(tmp_path)

    assert version(1) != version(2)


def test_the_code_version_of_a_lone_module_follows_those_beside_it(tmp_path):
    def version(**texts: str) -> str:
        for name, text in texts.items():
            (tmp_path / f"{name}.py").write_text(text)
        return asked_version(tmp_path, "lone")

    lone = "import early\n\ndef make():\n    from late import f\n    return f()\n"
    first = version(lone=lone, early="x = 1\n", late="def f():\n    return 1\n", other="")
    assert version(other="x = 2\n") == first
    assert version(early="x = 2\n") != first
    assert version(early="x = 1\n", late="def f():\n    return 2\n") != first


def test_the_code_version_of_an_installed_module_is_its_own():
    assert _closure("pylab") == {"pylab"}  # imports matplotlib, which lies beside it


def test_a_graphs_code_version_follows_its_search():
    parts = {f"alrun.graph.{name}" for name in ("exact", "cells", "tiles", "points", "approximate")}
    assert parts <= _closure("alrun.graph.knn")
    assert "alrun.graph.diffusion" not in _closure("alrun.graph.knn")


def test_the_verb_lists_verifies_and_prunes(cache, capsys):
    cache.kept("features", KEY, five, value, Told())
    cache.kept("graph", KEY, five, value, Told())
    where = ["--dir", str(cache.dir)]
    assert take(["list", *where]) == 0
    assert "2 artifacts" in capsys.readouterr().out
    assert take(["verify", *where]) == 0
    flip(home(cache))
    assert take(["verify", *where]) == 1
    assert "x.npy is not as it was written" in capsys.readouterr().out.replace("\n", " ")
    assert take(["prune", *where]) == 0
    assert len(list(cache.artifacts())) == 2
    assert take(["prune", "--unused", "1", *where]) == 0
    assert len(list(cache.artifacts())) == 2
    listed = next(cache.artifacts()).folder / LISTED
    os.utime(listed, (0, 0))
    assert take(["prune", "--unused", "1", *where]) == 0
    assert [each.folder.parent.name for each in cache.artifacts()] == ["graph"]
    assert take(["prune", "graph", "--dry-run", *where]) == 0
    assert len(list(cache.artifacts())) == 1
    assert take(["prune", "--all", *where]) == 0
    assert list(cache.artifacts()) == []


def test_what_a_process_is_at_work_with_is_not_deleted(cache):
    artifact = cache.kept("features", KEY, five, value, Told()).artifact

    def load(folder):
        assert not cache.delete(artifact)
        return value(folder)

    assert cache.kept("features", KEY, never, load, Told()).value == [5, 5, 5]
    assert cache.delete(artifact)


def test_the_verb_says_where_no_cache_is(tmp_path, capsys):
    assert take(["--dir", str(tmp_path / "none")]) == 2
    assert "no cache in" in capsys.readouterr().out


def test_pruning_deletes_the_state_of_a_broken_making_only_where_it_is_meant(cache, capsys):
    def broken(making):
        making._every = 0.0
        making.keep(1, lambda: {"weights": torch.ones(2)})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.kept("features", KEY, broken, value, Told())
    cache.kept("graph", KEY, five, value, Told())
    assert len(list(Path(cache.dir).rglob("*.state"))) == 1
    where, states = ["--dir", str(cache.dir)], lambda: list(Path(cache.dir).rglob("*.state"))
    for words in (["graph", "--dry-run"], ["--unused", "9"], [], ["--all", "--dry-run"]):
        assert take(["prune", *words, *where]) == 0
        assert len(states()) == 1
    os.utime(states()[0], (0, 0))
    assert take(["prune", "--unused", "9", *where]) == 0
    assert states() == []
    assert len(list(cache.artifacts())) == 1


def test_a_kill_while_the_state_is_written_leaves_nothing_for_good(cache):
    part = Path(cache.dir) / "features" / f".{cache._home('features', KEY).name}.state.123.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half")
    cache.kept("features", KEY, five, value, Told())
    assert not part.exists()
    part.write_bytes(b"half")
    assert take(["prune", "--all", "--dir", str(cache.dir)]) == 0
    assert not part.exists()


def test_an_artifact_without_a_listing_can_be_pruned(cache):
    cache.kept("features", KEY, five, value, Told())
    (home(cache) / LISTED).unlink()
    assert take(["verify", "--dir", str(cache.dir)]) == 1
    assert take(["prune", "--dir", str(cache.dir)]) == 0
    assert list(cache.artifacts()) == []
