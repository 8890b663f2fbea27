"""ASAL: images that the model is unsure of, asked of a generator, and the pool rows most like them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from jaxtyping import Bool, Float32, Float64, Int64
from numpy import ndarray

from alrun.generative.matches import SHOWN, Pairs, draw_pairs
from alrun.generative.search import Found, LatentSearch, Score
from alrun.retrieval.nearest_free import NearestFree, Retrieval
from alrun.retrieval.projection import Projection
from alrun.rounds import Batch, Round, name_of
from alrun.strategies.synthesis import asked_model, synthesized
from alrun.strategies.two_classes import needed_by


@dataclass(frozen=True)
class Asal:
    """The nearest free pool row of each synthetic image that a latent search has found.

    Features of the pool and their index are made once where they depend on no model, and each round where
    they do. A round pays for the search (`predict` and the note `search_seconds`), for the features of the
    synthetic images (`features`, `encode_seconds`) and for the matching (`graph`, `match_seconds`); of
    these only the last grows with the pool. Synthetic images take their matches in the order of generation,
    without replacement.

    As the first stage of `two_stage` it leaves what `neighbors` and `images` say; alone it then takes the
    rows of these that are nearest to a synthetic image.

    Attributes:
        score, steps, learning_rate, latents: see `alrun.generative.search.LatentSearch`.
        dims: leading principal components of the features, at most as many as there are; null keeps all.
        retrieval: how their neighbors are found.
        neighbors: nearest candidates that each synthetic image leaves, its own match among them.
        images: synthetic images for each row of the batch.

    Scores are distances in feature space to the synthetic image that a row matches, or is nearest to.
    Source: S4 (Mayer and Timofte 2020), algorithm 1 and section 3.2; `neighbors` and `images` figure 16.
    """

    score: Score
    steps: Annotated[int, Ge(1)]
    learning_rate: Annotated[float, Gt(0)]
    latents: Annotated[int, Ge(1)]
    dims: Annotated[int, Ge(1)] | None
    retrieval: Retrieval
    neighbors: Annotated[int, Ge(1)]
    images: Annotated[int, Ge(1)]

    @property
    def needs(self) -> frozenset[str]:
        """A model, of two classes for their distance; a generator, and features of what it draws.

        The pool's features are projected block by block; only where they are not must they be whole.
        """
        whole = {"features"} if self.dims is None else set[str]()
        return frozenset({"labels", "encoded", "generator"} | whole) | needed_by(self.score)

    def select(self, current: Round, size: int) -> Batch:
        """A match of each synthetic image, in the order of generation; of more rows the nearest."""
        left = self.restrict(current, size)
        if len(left.rows) == size:
            return left
        chosen = np.lexsort((left.rows, left.scores))[:size]
        return Batch(left.rows[chosen], left.scores[chosen], left.notes)

    def restrict(self, current: Round, size: int) -> Batch:
        """The matches in the order of generation, then other neighbors, the nearest first.

        Raises:
            ValueError: no model, or scores or features that are no numbers.
        """
        notes: dict[str, float] = {}
        rng = current.stage(name_of(self), "latents").rng  # the same as a stage and alone
        with _metered(current, "predict", notes, "search"):
            found = synthesized(current, self._search, self._count(current, size), rng)
        space = self._space(current)
        with _metered(current, "features", notes, "encode"):
            places = space.places(current.encoded(found.images))
        free = np.zeros(space.total, np.bool_)
        free[current.candidates] = True
        with _metered(current, "graph", notes, "match"):
            rows = space.index.take(places, free)
            distances = space.distances(rows, places)
            more, their = self._more(space, places, free, rows)
        self._tell(current, found, rows, distances)
        told = {
            "synthetic": float(len(rows)),
            "synthetic_before": float(found.before.mean()),
            "synthetic_after": float(found.after.mean()),
            "match_distance": float(distances.mean()),
        }
        notes |= told | {f"match_{name}": value for name, value in space.index.notes.items()}
        return Batch(np.concatenate([rows, more]), np.concatenate([distances, their]), notes)

    @property
    def _search(self) -> LatentSearch:
        return LatentSearch(self.score, self.steps, self.learning_rate, self.latents)

    def _count(self, current: Round, size: int) -> int:
        """How many images are asked for; there must be a candidate for each."""
        return min(self.images * size, len(current.candidates))

    def _space(self, current: Round) -> "_Space":
        """Where pool and synthetic images are compared."""
        if current.life.fixed:
            return current.once(f"asal_index_{self.dims}", lambda _: self._made(current))
        with current.timed("features", 0):
            return self._made(current)

    def _made(self, current: Round) -> "_Space":
        if self.dims is None:
            projection, points = None, current.features
        else:
            rows = current.feature_rows
            projection = Projection.of(rows, self.dims)
            points = projection.apply(rows)
        return _Space(projection, points, self.retrieval.over(points, current.life.device))

    def _more(
        self, space: "_Space", places: Float32[ndarray, "q k"], free: Bool[ndarray, " n"], matches: ndarray
    ) -> tuple[Int64[ndarray, " m"], Float64[ndarray, " m"]]:
        """The further rows among the nearest free ones of each image, and their least distances."""
        if self.neighbors == 1:  # they are matches all
            return np.empty(0, np.int64), np.empty(0)
        near, gaps = space.index.nearest(places, free, min(self.neighbors, int(free.sum())))
        rows, back = np.unique(near, return_inverse=True)
        least = np.full(len(rows), np.inf)
        np.minimum.at(least, back.ravel(), gaps.ravel())
        others = ~np.isin(rows, matches)
        rows, least = rows[others], least[others]
        order = np.lexsort((rows, least))
        return rows[order], least[order]

    def _tell(
        self, current: Round, found: Found, rows: Int64[ndarray, " q"], distances: Float64[ndarray, " q"]
    ) -> None:
        """Writes down each synthetic image with its match, keeps the images, draws the best of them."""
        inputs = current.pool.inputs
        with current.work.clock.part("watch"):
            logits = torch.from_numpy(asked_model(current).logits(rows))
            matched = self._search.worth(logits).numpy().astype(np.float64)
            columns = {"before": found.before, "after": found.after, "row": rows, "distance": distances}
            columns |= {"matched": matched}
            lists = {name: column.tolist() for name, column in columns.items()}
            for image in range(len(rows)):
                told = {name: column[image] for name, column in lists.items()}
                current.write("asal", {"image": image, **told})
            arrays = {"images": inputs.stored(found.images), "rows": rows, "history": found.history}
            current.store("asal", arrays)
            if inputs.is_image:
                best = self._search.best_first(found.after)[:SHOWN]
                real = inputs.take(rows[best]).cpu()
                pairs = Pairs(found.images[best].cpu(), real, rows[best], found.after[best], matched[best])
                current.figure("asal", lambda figure: draw_pairs(figure, pairs, found.history, self.score))


@dataclass(frozen=True, eq=False)
class _Space:
    """The pool's features, projected, and their index."""

    projection: Projection | None
    points: Float32[ndarray, "n k"]
    index: NearestFree

    @property
    def total(self) -> int:
        """Number of points."""
        return len(self.points)

    def places(self, features: Float32[ndarray, "q d"]) -> Float32[ndarray, "q k"]:
        """Where synthetic images with these features are."""
        return features if self.projection is None else self.projection.apply(features)

    def distances(
        self, rows: Int64[ndarray, " m"], places: Float32[ndarray, "m k"]
    ) -> Float64[ndarray, " m"]:
        """From each of these rows to its place."""
        return np.linalg.norm(self.points[rows].astype(np.float64) - places, axis=1)


@contextmanager
def _metered(current: Round, part: str, notes: dict[str, float], name: str) -> Iterator[None]:
    """Charges to a part of the query time, and notes the seconds under a name of their own."""
    seconds = current.work.clock.seconds
    before = seconds.get(part, 0.0)
    with current.timed(part, 0):
        yield
    notes[f"{name}_seconds"] = seconds[part] - before
