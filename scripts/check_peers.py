"""Choices against those that peers' own code makes on the same inputs.

    uv run --group peers python scripts/check_peers.py

Prints a line a comparison: what, whose code, how many of so many steps agree, and where they do not, why not.
Ends with status 1 if one that should agree does not. Peers that are not installed are left out.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy import ndarray
from rich.console import Console
from rich.table import Table
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression

from alrun.coverage.ball_cover import Balls, pure_radius
from alrun.coverage.gradients import gradient_sampling
from alrun.coverage.k_center import k_center
from alrun.coverage.typicality import most_typical

ROWS, CLASSES, LABELED, SIZE = 2000, 10, 40, 60
K_MEANS = {"random_state": 3, "n_init": 1}


@dataclass(frozen=True)
class Comparison:
    """`agree` of `steps` are the same; `why_not` says why fewer may be, empty where all must."""

    item: str
    peer: str
    agree: int
    steps: int
    why_not: str = ""

    @property
    def fails(self) -> bool:
        """Whether they differ without a reason."""
        return self.agree < self.steps and not self.why_not


@dataclass(frozen=True)
class Scene:
    """Float32 points in overlapping clusters, their classes, and the labeled rows."""

    points: ndarray
    classes: ndarray
    labeled: ndarray

    @property
    def rest(self) -> ndarray:
        """Rows without a label."""
        return np.setdiff1d(np.arange(len(self.points)), self.labeled)

    @property
    def answers(self) -> ndarray:
        """Classes of labeled rows, NaN elsewhere."""
        answers = np.full(len(self.points), np.nan)
        answers[self.labeled] = self.classes[self.labeled]
        return answers


def main() -> int:
    """All comparisons with what is installed."""
    scene, found = scene_of(np.random.default_rng(0)), []
    for peer, checks in PEERS.items():
        if find_spec(peer) is None:
            print(f"{peer} is not installed; uv sync --group peers brings it")
            continue
        for check in checks:
            found += check(scene)
    shown = Table(title=f"{ROWS} rows, {LABELED} labeled, {SIZE} choices")
    for name in ("item", "peer", "steps that agree", "verdict"):
        shown.add_column(name)
    for each in found:
        verdict = "DIFFERS" if each.fails else "same" if each.agree == each.steps else each.why_not
        shown.add_row(each.item, each.peer, f"{each.agree} of {each.steps}", verdict)
    Console(width=150).print(shown)
    return int(any(each.fails for each in found))


def scene_of(rng: np.random.Generator) -> Scene:
    """Normal clusters of unequal sizes."""
    classes = rng.choice(CLASSES, ROWS, p=np.arange(1, CLASSES + 1) / 55)
    points = 2 * rng.normal(size=(CLASSES, 12))[classes] + rng.normal(size=(ROWS, 12))
    return Scene(points.astype(np.float32), classes, np.sort(rng.choice(ROWS, LABELED, replace=False)))


def clusters_of(scene: Scene, count: int) -> ndarray:
    """The clusters that peers make with `K_MEANS`."""
    means = KMeans(count, random_state=K_MEANS["random_state"], n_init=1)  # pyright: ignore[reportArgumentType]
    return means.fit_predict(scene.points).astype(np.int64)


def agreeing(ours: ndarray, theirs: ndarray) -> int:
    """Steps before the first that differs; later ones follow from it."""
    same = np.asarray(ours) == np.asarray(theirs)
    return len(same) if same.all() else int(same.argmin())


def gradients_of(chances: ndarray, points: ndarray) -> ndarray:
    """What BADGE draws among, whole."""
    errors = chances - np.eye(CLASSES)[chances.argmax(axis=1)]
    return (errors[:, :, None] * points[:, None, :]).reshape(len(points), -1)


def k_center_of_scikit_activeml(scene: Scene) -> Iterator[Comparison]:
    """Greedy k-center from labeled rows."""
    from skactiveml.pool import k_greedy_center  # pyright: ignore[reportMissingImports]

    ours, _ = k_center(scene.points, scene.labeled, scene.rest, SIZE)
    theirs, _ = k_greedy_center(scene.points, scene.answers, SIZE, random_state=0)
    yield Comparison("k-center", "scikit-activeml", agreeing(ours, theirs), SIZE)


def badge_of_scikit_activeml(scene: Scene) -> Iterator[Comparison]:
    """BADGE with the same uniform numbers: theirs whole, and k-means++ with their distances."""
    from skactiveml.classifier import SklearnClassifier  # pyright: ignore[reportMissingImports]
    from skactiveml.pool import Badge  # pyright: ignore[reportMissingImports]
    from skactiveml.pool._badge import _d_2  # pyright: ignore[reportMissingImports]

    model = SklearnClassifier(LogisticRegression(C=0.05), classes=np.arange(CLASSES), random_state=0)
    model.fit(scene.points, scene.answers)
    points = scene.points[scene.rest]
    chances = np.asarray(model.predict_proba(points))
    draws = np.random.Generator(np.random.MT19937(7))
    ours, _ = gradient_sampling(chances.astype(np.float32), points, SIZE, draws)

    peer = Badge(random_state=np.random.RandomState(np.random.MT19937(7)))
    theirs = peer.query(scene.points, scene.answers, model, fit_clf=False, batch_size=SIZE)
    reason = "theirs starts from squared lengths as distances, as if a gradient of 0 were chosen already"
    agree = agreeing(scene.rest[ours], np.array(theirs))
    yield Comparison("BADGE, same draws", "scikit-activeml", agree, SIZE, reason)

    gradients, draws = gradients_of(chances, points), np.random.Generator(np.random.MT19937(7))
    picks, gaps = [int((gradients**2).sum(axis=1).argmax())], np.full(len(points), np.inf)
    while len(picks) < SIZE:
        gaps = _d_2(gradients, [picks[-1]], gaps)
        shares = np.cumsum(gaps)
        picks.append(int(np.searchsorted(shares, draws.random() * shares[-1], side="right")))
    agree = agreeing(ours, np.array(picks))
    yield Comparison("BADGE, same draws, distances alone", "scikit-activeml", agree, SIZE)


def typiclust_of_scikit_activeml(scene: Scene) -> Iterator[Comparison]:
    """TypiClust on the same clusters, as they see it: 5 neighbors, no cluster too small."""
    from skactiveml.pool import TypiClust  # pyright: ignore[reportMissingImports]

    clusters = clusters_of(scene, LABELED + SIZE)
    ours, _ = most_typical(scene.points, clusters, scene.labeled, scene.rest, SIZE, neighbors=5, smallest=1)
    peer = TypiClust(random_state=0, cluster_algo_dict=K_MEANS, k=5)
    theirs = peer.query(scene.points, scene.answers, batch_size=SIZE)
    # They break ties of cluster sizes by chance: per cluster the choice must be the same.
    both = dict(zip(clusters[ours], ours, strict=True)), dict(zip(clusters[theirs], theirs, strict=True))
    agree = sum(both[0].get(cluster) == row for cluster, row in both[1].items())
    yield Comparison("TypiClust, choice of a cluster", "scikit-activeml", agree, len(both[1]))
    sizes = np.bincount(clusters)
    yield Comparison(
        "TypiClust, size of the next cluster",
        "scikit-activeml",
        agreeing(sizes[clusters[ours]], sizes[clusters[theirs]]),
        SIZE,
    )


def probcover_of_scikit_activeml(scene: Scene) -> Iterator[Comparison]:
    """ProbCover along their own path, as they break ties by chance; and the choice of delta."""
    from skactiveml.pool import ProbCover  # pyright: ignore[reportMissingImports]

    grid = np.arange(0.2, 8, 0.2)
    peer = ProbCover(n_classes=CLASSES, deltas=grid, cluster_algo_dict=K_MEANS, random_state=0)
    peer.query(scene.points, scene.answers, batch_size=1)
    clusters = clusters_of(scene, CLASSES)
    radius = pure_radius(scene.points, clusters, 0.95)
    ours = grid[grid <= radius].max(initial=grid[0])
    yield Comparison("ProbCover, delta of their grid", "scikit-activeml", int(ours == peer.delta_max_), 1)

    peer = ProbCover(n_classes=CLASSES, deltas=[2.5], random_state=0)
    theirs, gains = peer.query(scene.points, scene.answers, batch_size=SIZE, return_utilities=True)
    balls, rest, same = Balls.of(scene.points, 2.5), scene.rest, 0
    cover = balls.covering(balls.nothing_covered(), scene.labeled)
    for row, gain in zip(theirs, gains, strict=True):
        same += (gain[rest] == cover.gains[rest]).all() and gain[row] == cover.gains[rest].max()
        cover, rest = balls.covering(cover, np.array([row])), np.setdiff1d(rest, [row])
    yield Comparison("ProbCover, gains of all candidates", "scikit-activeml", int(same), SIZE)


def k_center_of_small_text(scene: Scene) -> Iterator[Comparison]:
    """Greedy k-center: with the labeled rows behind all others, and where they are."""
    from small_text.query_strategies.coresets import greedy_coreset  # pyright: ignore[reportMissingImports]

    order = np.append(scene.rest, scene.labeled)
    behind = Scene(scene.points[order], scene.classes[order], np.arange(ROWS - LABELED, ROWS))
    reason = "theirs takes positions among unlabeled rows for rows, so its new centers are others"
    for item, here, why_not in (("labeled rows last", behind, ""), ("labeled rows anywhere", scene, reason)):
        ours, _ = k_center(here.points, here.labeled, here.rest, SIZE)
        positions = greedy_coreset(here.points, here.rest, here.labeled, SIZE, distance_metric="euclidean")
        agree = agreeing(ours, here.rest[positions])
        yield Comparison(f"k-center, {item}", "small-text", agree, SIZE, why_not)


def badge_of_small_text(scene: Scene) -> Iterator[Comparison]:
    """The gradients BADGE draws among, row by row."""
    from small_text.integrations.pytorch.query_strategies.strategies import (  # pyright: ignore[reportMissingImports]
        BADGE,
    )

    chances = np.random.default_rng(0).dirichlet(np.ones(CLASSES), ROWS)
    gradients = gradients_of(chances, scene.points)
    theirs = BADGE(CLASSES).get_badge_embeddings(scene.points, chances.copy())
    agree = np.isclose(np.abs(theirs), np.abs(gradients)).all(axis=1).sum()
    reason = "theirs indexes rows, not classes, by the likeliest class: no 1 is taken off its probability"
    yield Comparison("BADGE, gradients", "small-text", int(agree), ROWS, reason)


PEERS: dict[str, tuple[Callable[[Scene], Iterator[Comparison]], ...]] = {
    "skactiveml": (
        k_center_of_scikit_activeml,
        badge_of_scikit_activeml,
        typiclust_of_scikit_activeml,
        probcover_of_scikit_activeml,
    ),
    "small_text": (k_center_of_small_text, badge_of_small_text),
}

if __name__ == "__main__":
    sys.exit(main())
