"""What lives longer than a round: fixed features and their graph, and what strategies keep."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy import ndarray

from alrun.cache import Key, Making, scratch
from alrun.clock import Clock
from alrun.data.data import array_digest
from alrun.features import matrices
from alrun.features.encoding import encoded
from alrun.features.featurizer import Encoding, Featurizer, is_cached, on_any_device, reads_source
from alrun.features.on_generator import OnGenerator
from alrun.generative.gan import Gan
from alrun.generative.generator import Generator
from alrun.graph.kept import keep_graph, read_graph
from alrun.graph.knn import Graph, Knn
from alrun.models.encoded import Encoder
from alrun.pool import Inputs, Pool
from alrun.shelf import NO_SHELF, Shelf, identity, name_of, told

log = logging.getLogger(__name__)

DEVICES = ("cpu", "cuda")  # kinds of devices that `alrun.environment.chosen_device` gives

Stream = Callable[..., np.random.Generator]


class Lifetime:
    """What lives as long as a run: fixed features and graph, and what strategies keep from round to round.

    All of it is a pure function of the settings and of the purchases in order, so a continued run makes the
    same again. What does not depend on purchases is kept on disk and shared by runs; `clock` says what making
    it took, whenever that was.

    Features of a network differ between a GPU, which trains in bfloat16, and a CPU: runs share those that
    their own kind of device made (`made_on`), and only `take_up` brings those of another.
    """

    def __init__(
        self,
        stream: Stream,
        featurizer: Featurizer | None,
        knn: Knn | None,
        device: torch.device,
        shelf: Shelf = NO_SHELF,
        gan: Gan | None = None,
    ) -> None:
        self.stream, self.featurizer, self.knn, self.gan = stream, featurizer, knn, gan
        self.device, self.shelf, self.made_on = device, shelf, device.type
        self.clock = Clock(device)
        self.purchases: list[Int64[ndarray, " b"]] = []
        self.once: dict[str, Any] = {}
        self.kept: dict[str, tuple[Any, int]] = {}
        self.written: dict[str, list[dict[str, Any]]] = {}

    @property
    def fixed(self) -> bool:
        """Whether features and graph are made once, before round 0."""
        return self.featurizer is not None and not self.featurizer.depends_on_model

    @property
    def keeps_features(self) -> bool:
        """Whether features, once made, lie on the shelf: some cost too little for that."""
        return self.featurizer is not None and is_cached(self.featurizer)

    @property
    def has_features(self) -> bool:
        """Whether fixed features lie on the shelf, or cost too little to be kept there."""
        return not self.keeps_features or self.shelf.cache.look("features", self._features_key()) is not None

    def generator_ahead(self, pool: Pool) -> float:
        """Seconds that training the generator may take; 0 where it is kept, or there is none."""
        kept = self.gan is None or self.shelf.cache.look("generator", self._generator_key()) is not None
        return 0.0 if kept or self.gan is None else self.gan.seconds(pool.inputs.originals)

    def take_up(self, features: str | None, generator: str | None = None) -> None:
        """Goes on with features and generator of these digests if they are kept, whichever device made them.

        A run that was begun on a GPU is so continued, or opened, on a CPU in the space in which it chose.
        """
        for kind in sorted(DEVICES, key=lambda kind: kind == self.device.type):  # its own last, to be taken
            begun = []
            if features is not None and self.fixed:
                begun.append(("features", self._features_key(kind), features))
            if generator is not None and self.gan is not None:
                begun.append(("generator", self._generator_key(kind), generator))
            if begun and all(self._is_kept(*each) for each in begun):
                self.made_on = kind

    def features(self, pool: Pool) -> Float32[ndarray, "n d"]:
        """Features that do not depend on a model, made on first use or read from the shelf."""
        if "features" not in self.once:
            featurizer = self.featurizer
            assert featurizer is not None
            if not is_cached(featurizer):
                bound = self._bound(pool)
                with self.clock.part("features"), TemporaryDirectory() as folder:
                    rng = self._chance("features", featurizer)
                    made = bound.make(_seen(featurizer, pool), _no_model, rng, scratch(Path(folder)))
                self.once["features"] = made
            else:
                self.once["features"] = self._shelved_features(pool, matrices.read)
        return self.once["features"]

    def encoder(self, pool: Pool) -> Encoder:
        """The encoder of features that do not depend on a model; it is made, kept and read with them."""
        if "encoder" not in self.once:
            featurizer = self._bound(pool)
            assert isinstance(featurizer, Encoding)  # settings are checked for it
            self.once["features"], self.once["encoder"] = self._shelved_features(
                pool,
                lambda folder: (matrices.read(folder), featurizer.encoder(folder, pool.inputs.originals)),
            )
        return self.once["encoder"]

    def encoded(self, pool: Pool, others: Inputs) -> Float32[ndarray, "m d"]:
        """What the encoder of the pool's features gives for other inputs; `clock` does not count it."""
        encoder = self.encoder(pool)
        # the encoder's own features: one that is made anew may be another
        digests = {"features": self.once["features_digest"], "inputs": array_digest(others.array)}
        key = {**self._features_key(), **digests, "encoded_on": self.device.type}

        def make(making: Making) -> None:
            made = encoded(encoder, others, making.epoch, making.folder)
            matrices.keep(making.folder, made)
            making.facts |= {"rows": len(made), "width": made.shape[1]}

        return self.shelf.cache.kept("encoded", key, make, matrices.read, self.shelf.watch).value

    def generator(self, pool: Pool) -> Generator:
        """The generator, trained on the pool's inputs on first use or read from the shelf.

        Raises:
            ValueError: there is none among the settings, or one that cannot draw such items.
        """
        if "generator" not in self.once:
            if (gan := self.gan) is None:
                raise ValueError("this needs a generator and got none; choose e.g. generator=wgan_gp")
            self.once["generator"] = self._shelved(
                "generator",
                self._generator_key(),
                lambda making: self._make_generator(gan, pool, making),
                lambda folder: gan.load(folder, pool.inputs.originals),
            )
        return self.once["generator"]

    def graph(self, pool: Pool) -> Graph:
        """The neighbor graph of the fixed features, made on first use or read from the shelf."""
        if "graph" not in self.once:
            features, knn = self.features(pool), self.knn
            assert knn is not None
            digest = self.once.get("features_digest") or array_digest(features)
            self.once["graph"] = self._shelved(
                "graph",
                self._graph_key(digest),
                lambda making: self._make_graph(features, making),
                lambda folder: read_graph(folder, knn),
            )
        return self.once["graph"]

    def with_generator(self, needs: frozenset[str]) -> frozenset[str]:
        """What is needed of what is made once, with the generator if features are and stand on it."""
        stands = isinstance(self.featurizer, OnGenerator) and needs - {"generator"}
        return needs | {"generator"} if stands else needs

    def plan(self, pool: Pool, needs: frozenset[str]) -> Iterator[str]:
        """A line for each needed artifact that is kept: what of it there is and what must be made."""
        if self.gan is not None and "generator" in needs:
            yield f"generator: {told(self.shelf.cache.look('generator', self._generator_key()))}"
        if self.featurizer is None or not self.fixed or not needs - {"generator"}:
            return
        graph = "graph" in needs
        digest = None
        if is_cached(self.featurizer):
            found = self.shelf.cache.look("features", self._features_key())
            digest = found.listing["facts"].get("digest") if found else None
            yield f"features ({name_of(self.featurizer)}): {told(found)}"
        elif graph:
            digest = array_digest(self.features(pool))
        if graph and self.knn is not None:
            found = self.shelf.cache.look("graph", self._graph_key(digest)) if digest else None
            yield f"graph (k={self.knn.k}): {told(found)}"

    def _is_kept(self, kind: str, key: Key, digest: str) -> bool:
        found = self.shelf.cache.look(kind, key)
        return found is not None and found.listing["facts"].get("digest") == digest

    def _shelved(
        self, kind: str, key: Key, make: Callable[[Making], None], load: Callable[[Path], Any]
    ) -> Any:
        """From the shelf; the clock says what making it took, also where that was long ago."""

        def timed(making: Making) -> None:
            with self.clock.part(kind):
                make(making)
            making.spent = self.clock.seconds[kind] + making.before

        def shown(folder: Path) -> Any:
            self.shelf.show(kind, folder)
            return load(folder)

        kept = self.shelf.cache.kept(kind, key, timed, shown, self.shelf.watch)
        self.clock.seconds[kind] = kept.artifact.seconds
        self.once[f"{kind}_digest"] = kept.artifact.listing["facts"].get("digest")
        if kept.reused:
            log.info("%s: reused %s, made in %.1f s", kind, kept.artifact.folder, kept.artifact.seconds)
        return kept.value

    def _shelved_features(self, pool: Pool, load: Callable[[Path], Any]) -> Any:
        if isinstance(self.featurizer, OnGenerator):
            self.generator(pool)  # before the key, which names its digest
        key = self._features_key()
        return self._shelved("features", key, lambda making: self._make_features(pool, making), load)

    def _make_features(self, pool: Pool, making: Making) -> None:
        featurizer = self._bound(pool)
        if not on_any_device(featurizer):
            self._require_own_device("features")
        rng = self._chance("features", self.featurizer)
        features = featurizer.make(_seen(featurizer, pool), _no_model, rng, making)
        matrices.keep(making.folder, features)
        making.facts |= {"digest": array_digest(features), "rows": len(features), "width": features.shape[1]}

    def _make_generator(self, gan: Gan, pool: Pool, making: Making) -> None:
        self._require_own_device("generators")
        gan.make(pool.inputs.originals, self._chance("generator", gan), making)

    def _require_own_device(self, what: str) -> None:
        """Refuses to make for a run what it began with and another kind of device had made."""
        if self.made_on != self.device.type:
            raise ValueError(
                f"{what} made on {self.made_on} are damaged, and {self.device.type} makes others; use "
                f"device={self.made_on}, or begin anew in another output_dir"
            )

    def _make_graph(self, features: Float32[ndarray, "n d"], making: Making) -> None:
        assert self.knn is not None
        graph = self.knn.build(features, self.device)
        keep_graph(making.folder, graph)
        making.facts |= {"rows": len(graph), "recall": graph.recall}

    def _features_key(self, made_on: str | None = None) -> Key:
        featurizer = self.featurizer
        assert featurizer is not None
        chance = int(self._chance("features", featurizer).integers(2**63))
        made_on = made_on or self.made_on
        source = {"source": self.shelf.source} if reads_source(featurizer) else {}
        device = {} if on_any_device(featurizer) else {"device": made_on}
        pool = {"pool": self.shelf.fingerprint, **source, "chance": f"{chance:x}"}
        generator = (
            {"generator": self._generator_digest(made_on)} if isinstance(featurizer, OnGenerator) else {}
        )
        return {**identity(featurizer), **pool, **generator, **device}

    def _generator_key(self, made_on: str | None = None) -> Key:
        assert self.gan is not None
        chance = int(self._chance("generator", self.gan).integers(2**63))
        pool = {"pool": self.shelf.fingerprint, "chance": f"{chance:x}"}
        return {**identity(self.gan), **pool, "device": made_on or self.made_on}

    def _generator_digest(self, made_on: str) -> str | None:
        """Of the generator that such a device made; None while there is none."""
        if self.gan is None:
            return None
        if made_on == self.made_on and "generator_digest" in self.once:
            return self.once["generator_digest"]
        found = self.shelf.cache.look("generator", self._generator_key(made_on))
        return found.listing["facts"].get("digest") if found else None

    def _bound(self, pool: Pool) -> Featurizer:
        """The featurizer, on its generator if it stands on one."""
        featurizer = self.featurizer
        assert featurizer is not None
        return featurizer.on(self.generator(pool)) if isinstance(featurizer, OnGenerator) else featurizer

    def _graph_key(self, digest: str) -> Key:
        assert self.knn is not None
        # kernels read `symmetrize`, the search does not; what `auto` means differs between devices
        settings = {name: value for name, value in identity(self.knn).items() if name != "symmetrize"}
        return {**settings, "features": digest, "device": self.device.type}

    def _chance(self, *names: object) -> np.random.Generator:
        kind, part = names
        return self.stream("artifacts", str(kind), name_of(part))


def _seen(featurizer: Featurizer, pool: Pool) -> Pool:
    """What fixed features may follow from: no purchase, and a source only where the key names it."""
    return pool.blank if reads_source(featurizer) else replace(pool.blank, source=None)


def _no_model(rows: ndarray) -> ndarray:
    raise ValueError("a featurizer that does not depend on the model asked for embeddings")
