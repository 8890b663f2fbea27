"""The cache: made once, shared, whole or not there, and never mistaken for something else."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from alrun.cache import LISTED, Cache

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
