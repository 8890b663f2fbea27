"""The verb `cache`: what it lists, verifies and deletes."""

import os
from pathlib import Path

import pytest
import torch
from test_cache import KEY, Told, five, flip, home, never, value

from alrun.cache import LISTED
from alrun.stock import take


def test_the_verb_lists_verifies_and_prunes(cache, capsys):
    cache.kept("features", KEY, five, value, Told())
    cache.kept("graph", KEY, five, value, Told())
    where = ["--dir", str(cache.dir)]
    assert take(["list", *where]) == 0
    told = capsys.readouterr().out
    assert "2 artifacts" in told
    assert told.count(f"{home(cache).name[:8]}  size=3\n") == 1
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
