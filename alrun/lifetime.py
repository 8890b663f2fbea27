"""What lives longer than a round: fixed features and their graph, and what strategies keep."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy import ndarray

from alrun.cache import Artifact, Cache, Key, Making, Watch, scratch
from alrun.clock import Clock
from alrun.code import code_version
from alrun.data.data import array_digest
from alrun.features.encoding import encoded
from alrun.features.featurizer import Encoding, Featurizer
from alrun.graph.knn import Graph, Knn
from alrun.models.encoded import Encoder
from alrun.pool import Inputs, Pool

log = logging.getLogger(__name__)

DEVICES = ("cpu", "cuda")  # kinds of devices that `alrun.environment.chosen_device` gives

Stream = Callable[..., np.random.Generator]


def name_of(part: object) -> str:
    """The word for a part in streams, tables and messages: its class in snake case."""
    letters = type(part).__name__
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(letters))


class Deaf:
    """Is told everything and shows nothing."""

    def epoch(self, done: int, total: int) -> None:
        """Nothing."""

    def say(self, news: str) -> None:
        """Nothing."""

    def tell(self, news: str) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Shelf:
    """Where a run's artifacts are kept.

    Attributes:
        fingerprint: of the pool's inputs, 64 hex digits.
        source: of the data set's source, its labels among it, 64 hex digits; None if there is none.
        show: called with the folder of each artifact that is used, to bring its pictures and tables out.
    """

    cache: Cache
    fingerprint: str
    source: str | None
    watch: Watch
    show: Callable[[str, Path], None]


NO_SHELF = Shelf(Cache(None), "", None, Deaf(), lambda kind, folder: None)


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
    ) -> None:
        self.stream, self.featurizer, self.knn = stream, featurizer, knn
        self.device, self.shelf, self.made_on = device, shelf, device.type
        self.clock = Clock(device)
        self.purchases: list[Int64[ndarray, " b"]] = []
        self.once: dict[str, Any] = {}
        self.kept: dict[str, tuple[Any, int]] = {}

    @property
    def fixed(self) -> bool:
        """Whether features and graph are made once, before round 0."""
        return self.featurizer is not None and not self.featurizer.depends_on_model

    @property
    def has_features(self) -> bool:
        """Whether fixed features lie on the shelf, or cost too little to be kept there."""
        cached = self.featurizer is not None and _is_cached(self.featurizer)
        return not cached or self.shelf.cache.look("features", self._features_key()) is not None

    def take_up(self, digest: str | None) -> None:
        """Goes on with the features of this digest if they lie on the shelf, whichever device made them.

        A run that was begun on a GPU is so continued, or opened, on a CPU in the space in which it chose.
        """
        if digest is None or not self.fixed:
            return
        for kind in sorted(DEVICES, key=lambda kind: kind == self.device.type):  # its own last, to be taken
            found = self.shelf.cache.look("features", self._features_key(kind))
            if found is not None and found.listing["facts"].get("digest") == digest:
                self.made_on = kind

    def features(self, pool: Pool) -> Float32[ndarray, "n d"]:
        """Features that do not depend on a model, made on first use or read from the shelf."""
        if "features" not in self.once:
            featurizer = self.featurizer
            assert featurizer is not None
            if not _is_cached(featurizer):
                with self.clock.part("features"), TemporaryDirectory() as folder:
                    rng = self._chance("features", featurizer)
                    made = featurizer.make(_seen(featurizer, pool), _no_model, rng, scratch(Path(folder)))
                self.once["features"] = made
            else:
                self.once["features"] = self._shelved_features(pool, _read_features)
        return self.once["features"]

    def encoder(self, pool: Pool) -> Encoder:
        """The encoder of features that do not depend on a model; it is made, kept and read with them."""
        if "encoder" not in self.once:
            featurizer = self.featurizer
            assert isinstance(featurizer, Encoding)  # settings are checked for it
            self.once["features"], self.once["encoder"] = self._shelved_features(
                pool, lambda folder: (_read_features(folder), featurizer.encoder(folder, pool.inputs))
            )
        return self.once["encoder"]

    def encoded(self, pool: Pool, others: Inputs) -> Float32[ndarray, "m d"]:
        """What the encoder of the pool's features gives for other inputs; `clock` does not count it."""
        encoder = self.encoder(pool)
        # the encoder's own features: one that is made anew may be another
        digests = {"features": self.once["features_digest"], "inputs": array_digest(others.array)}
        key = {**self._features_key(), **digests, "encoded_on": self.device.type}

        def make(making: Making) -> None:
            made = encoded(encoder, others, making.epoch)
            np.save(making.folder / "features.npy", made, allow_pickle=False)
            making.facts |= {"rows": len(made), "width": made.shape[1]}

        return self.shelf.cache.kept("encoded", key, make, _read_features, self.shelf.watch).value

    def graph(self, pool: Pool) -> Graph:
        """The neighbor graph of the fixed features, made on first use or read from the shelf."""
        if "graph" not in self.once:
            features, knn = self.features(pool), self.knn
            assert knn is not None
            digest = self.once.get("features_digest") or array_digest(features)

            def load(folder: Path) -> Graph:
                neighbors = np.load(folder / "neighbors.npy", allow_pickle=False).astype(np.int64)
                distances = np.load(folder / "distances.npy", allow_pickle=False)
                recall = float(np.load(folder / "recall.npy", allow_pickle=False))
                return Graph(neighbors, distances, knn.symmetrize, recall)

            self.once["graph"] = self._shelved(
                "graph", self._graph_key(digest), lambda making: self._make_graph(features, making), load
            )
        return self.once["graph"]

    def plan(self, pool: Pool, graph: bool) -> Iterator[str]:
        """A line for each artifact that is kept: what of it there is and what must be made."""
        if self.featurizer is None or not self.fixed:
            return
        digest = None
        if _is_cached(self.featurizer):
            found = self.shelf.cache.look("features", self._features_key())
            digest = found.listing["facts"].get("digest") if found else None
            yield f"features ({name_of(self.featurizer)}): {_told(found)}"
        elif graph:
            digest = array_digest(self.features(pool))
        if graph and self.knn is not None:
            found = self.shelf.cache.look("graph", self._graph_key(digest)) if digest else None
            yield f"graph (k={self.knn.k}): {_told(found)}"

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
        key = self._features_key()
        return self._shelved("features", key, lambda making: self._make_features(pool, making), load)

    def _make_features(self, pool: Pool, making: Making) -> None:
        featurizer = self.featurizer
        assert featurizer is not None
        if self.made_on != self.device.type and not _on_any_device(featurizer):
            raise ValueError(
                f"features made on {self.made_on} are damaged, and {self.device.type} makes others; use "
                f"device={self.made_on}, or begin anew in another output_dir"
            )
        rng = self._chance("features", featurizer)
        features = featurizer.make(_seen(featurizer, pool), _no_model, rng, making)
        np.save(making.folder / "features.npy", features, allow_pickle=False)
        making.facts |= {"digest": array_digest(features), "rows": len(features), "width": features.shape[1]}

    def _make_graph(self, features: Float32[ndarray, "n d"], making: Making) -> None:
        assert self.knn is not None
        graph = self.knn.build(features, self.device)
        narrow = np.int32 if len(graph) < 2**31 else np.int64
        np.save(making.folder / "neighbors.npy", graph.neighbors.astype(narrow), allow_pickle=False)
        np.save(making.folder / "distances.npy", graph.distances, allow_pickle=False)
        np.save(making.folder / "recall.npy", np.float64(graph.recall), allow_pickle=False)
        making.facts |= {"rows": len(graph), "recall": graph.recall}

    def _features_key(self, made_on: str | None = None) -> Key:
        featurizer = self.featurizer
        assert featurizer is not None
        chance = int(self._chance("features", featurizer).integers(2**63))
        source = {"source": self.shelf.source} if reads_source(featurizer) else {}
        device = {} if _on_any_device(featurizer) else {"device": made_on or self.made_on}
        pool = {"pool": self.shelf.fingerprint, **source, "chance": f"{chance:x}"}
        return {**identity(featurizer), **pool, **device}

    def _graph_key(self, digest: str) -> Key:
        assert self.knn is not None
        # kernels read `symmetrize`, the search does not; what `auto` means differs between devices
        settings = {name: value for name, value in identity(self.knn).items() if name != "symmetrize"}
        return {**settings, "features": digest, "device": self.device.type}

    def _chance(self, *names: object) -> np.random.Generator:
        kind, part = names
        return self.stream("artifacts", str(kind), name_of(part))


def identity(part: object) -> dict[str, Any]:
    """What a part's products follow from: its maker, the version of its code, its settings.

    A part may have a property `identity` with the settings that matter, files by their content; without one
    all fields of the dataclass count.
    """
    own = getattr(part, "identity", None)
    if own is None:
        own = asdict(part) if is_dataclass(part) and fields(part) else {}  # type: ignore[call-overload]
    kind = type(part)
    return {"maker": f"{kind.__module__}.{kind.__qualname__}", "code": code_version(kind.__module__), **own}


def reads_source(featurizer: Featurizer | None) -> bool:
    """Whether it learns from the data set's source; `reads_source = True` on the class says so."""
    return bool(getattr(featurizer, "reads_source", False))


def _seen(featurizer: Featurizer, pool: Pool) -> Pool:
    """What fixed features may follow from: no purchase, and a source only where the key names it."""
    return pool.blank if reads_source(featurizer) else replace(pool.blank, source=None)


def _is_cached(featurizer: Featurizer) -> bool:
    """Whether its features are worth a place on disk; `cached = False` on the class says they are not."""
    return bool(getattr(featurizer, "cached", True))


def _on_any_device(featurizer: Featurizer) -> bool:
    """Whether the run's device makes no difference; `any_device = True` on the class says so."""
    return bool(getattr(featurizer, "any_device", False))


def _read_features(folder: Path) -> Float32[ndarray, "n d"]:
    return np.load(folder / "features.npy", allow_pickle=False)


def _told(found: Artifact | None) -> str:
    return f"reused, made {found.listing['made'][:10]} in {found.seconds:.0f} s" if found else "to be made"


def _no_model(rows: ndarray) -> ndarray:
    raise ValueError("a featurizer that does not depend on the model asked for embeddings")
