"""What runs share on the shelf, and what they do not: by data, purchases, device."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from adaptation import fdal, turned
from conftest import CPU, part

from alrun.data.data import array_digest
from alrun.features.encoding import encoded
from alrun.features.fdal import Fdal
from alrun.lifetime import NO_SHELF, Lifetime, identity
from alrun.pool import Inputs, stream


class Spy:
    """A featurizer that remembers the pool it was given."""

    depends_on_model = False
    cached = False

    def __init__(self, reads_source: bool) -> None:
        self.reads_source = reads_source

    def make(self, pool, embed, rng, making):
        self.pool = pool
        return pool.inputs.pixels(np.arange(len(pool)))


@pytest.mark.parametrize("reads", [True, False])
def test_fixed_features_see_no_purchase_and_the_source_only_if_they_say_so(reads):
    pool, truth = turned()
    spy = Spy(reads)
    Lifetime(lambda *names: stream(0, *names), spy, None, CPU).features(pool.reveal(np.arange(9), truth[:9]))
    assert len(spy.pool.labeled) == 0
    assert (spy.pool.source is pool.source) == reads


def test_features_follow_the_source_and_the_weights_file_by_content(tmp_path):
    def key(source: str, featurizer) -> dict:
        shelf = replace(NO_SHELF, source=source)
        return Lifetime(lambda *names: stream(0, *names), featurizer, None, CPU, shelf)._features_key()

    assert key("a", fdal()) != key("b", fdal())
    assert key("a", part("featurizer", "featurizer=pca")) == key("b", part("featurizer", "featurizer=pca"))
    for name, content in (("one", b"1"), ("same", b"1"), ("other", b"2")):
        (tmp_path / name).write_bytes(content)
    one, same, other = (
        identity(fdal(f"backbone.pretrained={tmp_path / name}"))["backbone"]["pretrained"]
        for name in ("one", "same", "other")
    )
    assert one == same != other
    assert identity(fdal("backbone.pretrained=true"))["backbone"]["pretrained"].startswith("resnet50-")


def key(featurizer, device: torch.device) -> dict:
    return Lifetime(lambda *names: stream(0, *names), featurizer, None, device)._features_key()


@pytest.mark.parametrize("kind", ["simclr", "vae", "autoencoder", "pretrained", "fdal"])
def test_features_of_a_network_are_those_of_one_kind_of_device(kind):
    featurizer = part("featurizer", f"featurizer={kind}")
    assert key(featurizer, CPU) != key(featurizer, torch.device("cuda", 0))
    assert key(featurizer, torch.device("cuda", 0)) == key(featurizer, torch.device("cuda", 1))


def test_features_that_the_processor_makes_anyway_are_those_of_any_device():
    pca = part("featurizer", "featurizer=pca")
    assert key(pca, CPU) == key(pca, torch.device("cuda"))


@dataclass(frozen=True)
class Marked:
    """Features that say where they were made."""

    number: float
    depends_on_model = False
    identity = {}

    def make(self, pool, embed, rng, making):
        return np.full((len(pool), 2), self.number, np.float32)


@pytest.fixture
def shelved(cache, monkeypatch):
    """What lives as long as a run, on this device; `meta` stands for another kind."""
    monkeypatch.setattr("alrun.lifetime.DEVICES", ("cpu", "meta"))
    shelf = replace(NO_SHELF, cache=cache, fingerprint="same")

    def on(kind: str) -> Lifetime:
        marked = Marked(0.0 if kind == "cpu" else 1.0)
        return Lifetime(lambda *names: stream(0, *names), marked, None, torch.device(kind), shelf)

    return on


def test_a_run_takes_what_another_device_made_only_if_it_had_begun_with_it(shelved):
    pool, _ = turned()
    theirs = shelved("meta")
    assert (theirs.features(pool) == 1).all()
    assert not shelved("cpu").has_features
    own = shelved("cpu")
    own.take_up("of no features on the shelf")
    assert (own.features(pool) == 0).all()
    begun = shelved("cpu")
    begun.take_up(theirs.once["features_digest"])
    assert begun.has_features
    assert (begun.features(pool) == 1).all()
    kept = shelved("cpu")
    kept.take_up(own.once["features_digest"])
    assert (kept.features(pool) == 0).all()


def test_damaged_features_of_another_device_are_not_made_anew_on_this_one(shelved, cache):
    pool, _ = turned()
    theirs = shelved("meta")
    theirs.features(pool)
    (artifact,) = cache.artifacts()
    (artifact.folder / "features.npy").write_bytes(b"")
    begun = shelved("cpu")
    begun.take_up(theirs.once["features_digest"])
    with pytest.raises(ValueError, match="made on meta are damaged, and cpu makes others; use device=meta"):
        begun.features(pool)


def test_what_an_encoder_gives_for_a_test_set_is_made_once(cache, monkeypatch):
    pool, truth = turned()
    others = [Inputs(pool.inputs.array[:7]), Inputs(pool.inputs.array[:7] + 1)]

    def life() -> Lifetime:
        shelf = replace(NO_SHELF, cache=cache, fingerprint="of the pool", source="of the source")
        return Lifetime(lambda *names: stream(0, *names), fdal(), None, CPU, shelf)

    first = [life().encoded(pool, each) for each in others]
    encoder = life().encoder(pool)
    for found, inputs in zip(first, others, strict=True):
        np.testing.assert_array_equal(found, encoded(encoder, inputs))
    assert not np.array_equal(*first)
    monkeypatch.setattr("alrun.lifetime.encoded", lambda *given: 1 / 0)
    np.testing.assert_array_equal(life().encoded(pool, others[0]), first[0])
    with pytest.raises(ZeroDivisionError):
        life().encoded(pool, Inputs(pool.inputs.array[:6]))


def test_what_an_encoder_gave_is_not_taken_for_that_of_one_made_anew(cache, monkeypatch):
    pool, _ = turned()
    others = Inputs(pool.inputs.array[:7])

    def life() -> Lifetime:
        shelf = replace(NO_SHELF, cache=cache, fingerprint="of the pool", source="of the source")
        return Lifetime(lambda *names: stream(0, *names), fdal(), None, CPU, shelf)

    first = life().encoded(pool, others)
    (features,) = (each for each in cache.artifacts() if each.listing["kind"] == "features")
    assert cache.delete(features)
    make = Fdal.make

    def elsewhere(self, pool, embed, rng, making):
        """Another GPU, which trains to other weights by the same key."""
        return make(self, pool, embed, np.random.default_rng(9), making)

    monkeypatch.setattr(Fdal, "make", elsewhere)
    again = life()
    found = again.encoded(pool, others)
    np.testing.assert_array_equal(found, encoded(again.encoder(pool), others))
    assert not np.array_equal(found, first)


def test_of_equal_features_on_the_shelf_those_of_the_own_device_are_taken(shelved):
    pool, _ = turned()
    digest = array_digest(np.zeros((len(pool), 2), np.float32))
    for kind in ("meta", "cpu"):
        theirs = shelved(kind)
        theirs.featurizer = Marked(0.0)
        theirs.features(pool)
        assert theirs.once["features_digest"] == digest
    for kind in ("meta", "cpu"):
        begun = shelved(kind)
        begun.take_up(digest)
        assert begun.made_on == kind
