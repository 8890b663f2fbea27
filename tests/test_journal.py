"""What is written down of the epochs of a fit: truths, ends of stages, kills, and no influence on the fit."""

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import settings
from test_run import FAST, Unwatched

from alrun.assembly import assemble
from alrun.clock import Clock
from alrun.graph.pseudo_labels import Pseudo
from alrun.journal import EPOCHS, Journal, Page, Truth, Watched, judged
from alrun.picture import picture
from alrun.pool import Inputs
from alrun.run import run
from alrun.state import RunFolder
from alrun.training.model import Model
from alrun.training.progress import Phase, Sight, Silent
from alrun.training.supervised import Fit, Supervised

CPU = torch.device("cpu")
EPOCHS_OF_STAGES = (2, 6)  # supervised, then semi-supervised


def pseudo(labels, weights, zero=None, **facts) -> Pseudo:
    labels = np.asarray(labels, np.int64)
    zero = np.zeros(len(labels), bool) if zero is None else np.asarray(zero, bool)
    return Pseudo(labels, np.asarray(weights, np.float32), np.ones(3, np.float32), zero, facts)


def truth(labels=(0, 1, 2, 0), unbought=(1, 2, 3)) -> Truth:
    test = Inputs(np.zeros((2, 3), np.float32))
    return Truth(np.array(labels), np.array(unbought, np.int64), test, np.zeros(2, np.int64))


def test_pseudo_labels_are_judged_over_unbought_rows_alone():
    made = pseudo([0, 1, 1, 2], [1.0, 0.5, 0.25, 0.0], [False, False, False, True], unconverged=2.0)
    assert judged(made, truth()) == {
        "pseudo_unconverged": 2,
        "pseudo_accuracy": 1 / 3,
        "pseudo_weighted_accuracy": pytest.approx(0.5 / 0.75),
        "pseudo_right_weight": 0.5,
        "pseudo_wrong_weight": 0.125,
        "pseudo_zero_share": 1 / 3,
        "pseudo_right_weights": "0 0 0 0 0 1 0 0 0 0",
        "pseudo_wrong_weights": "1 0 1 0 0 0 0 0 0 0",
    }


def test_a_mean_over_nothing_is_left_out():
    all_right = judged(pseudo([0, 1, 2, 0], [1.0, 0.0, 0.0, 0.0]), truth())
    histograms = {"pseudo_right_weights": "3 0 0 0 0 0 0 0 0 0", "pseudo_wrong_weights": " ".join(10 * "0")}
    means = {"pseudo_accuracy": 1, "pseudo_right_weight": 0, "pseudo_zero_share": 0}
    assert all_right == means | histograms
    assert judged(pseudo([0, 1, 2, 0], np.ones(4)), truth(unbought=())) == {}


def test_a_phase_hands_on_what_is_seen_with_the_epoch_of_the_whole_fit():
    class Ears(Silent):
        def watch(self, sight: Sight) -> None:
            self.heard = sight

    ears = Ears()
    sight = Sight("supervised", 2, {"loss": 1.0}, None, lambda: pytest.fail("nobody asked"))
    Phase(ears, "late", None, before=10, after=0, beside={}).watch(sight)
    assert (ears.heard.epoch, ears.heard.numbers) == (12, {"loss": 1.0})


@dataclass(frozen=True)
class Showing(Supervised):
    """A supervised fit that calls itself semi-supervised after two epochs, with made-up pseudo-labels."""

    def begun(self, network, pool, rows, held, chance) -> "ShowingFit":
        return ShowingFit(self, network, pool, rows, held)


class ShowingFit(Fit):
    """Looks whether it is left as it was when it is watched."""

    def run(self, chance, progress):
        return super().run(chance, Honest(progress, self.network))

    def sight(self) -> Sight:
        seen, before = super().sight(), EPOCHS_OF_STAGES[0]
        made = self._pseudo(seen.epoch) if before <= seen.epoch < self.total else None
        stage = "supervised" if seen.epoch <= before else "semi_supervised"
        model = lambda: Model(self.network, self.pool.inputs, {})  # noqa: E731
        return Sight(stage, seen.epoch, {**seen.numbers, "odd": float(np.float64(0.1))}, made, model)

    def _pseudo(self, epoch) -> Pseudo:
        rng, n = np.random.default_rng(epoch), len(self.pool)
        weights = rng.random(n, np.float32)
        return pseudo(rng.integers(0, 10, n), weights, weights < 0.1, iterations=20.0)


class Honest:
    """Checks that watching changes neither modes nor chance."""

    def __init__(self, progress, network) -> None:
        self.network = network
        self.progress = progress
        self.epoch, self.keep, self.load = progress.epoch, progress.keep, progress.load

    def watch(self, sight) -> None:
        modes, draws = [each.training for each in self.network.modules()], torch.get_rng_state()
        self.progress.watch(sight)
        assert [each.training for each in self.network.modules()] == modes
        assert torch.equal(torch.get_rng_state(), draws)


WORDS = [
    *FAST,
    "budget.rounds=1",
    f"trainer.epochs={sum(EPOCHS_OF_STAGES)}",
    "strategy=margin",
    "journal.test_every=4",
]
ALSO = "journal.supervised=true"


def played(folder: Path, *words: str, trainer: type[Supervised] = Showing, every: float = 0.0):
    """A run with this trainer; its state is kept after each epoch."""
    target = {} if trainer is Supervised else {"_target_": f"{trainer.__module__}.{trainer.__name__}"}
    found = settings(*WORDS, ALSO, f"cache.dir={folder.parent / 'cache'}", *words)
    found = {**found, "trainer": {**found["trainer"], **target}}
    found["choices"] = {"dataset": "digits", "strategy": "margin", "trainer": "showing"}
    where = RunFolder(folder)
    where.progress = functools.partial(where.progress, every=every)
    return run(assemble(found), where, found, Unwatched())


def lines(folder: Path) -> list[dict[str, str]]:
    """epochs.csv but for seconds."""
    with (folder / "epochs.csv").open() as file:
        found = list(csv.DictReader(file))
    return [{name: text for name, text in line.items() if not name.endswith("_seconds")} for line in found]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An unbroken run of two rounds, each of two supervised and six semi-supervised epochs."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    played(folder)
    return folder


def test_each_epoch_has_its_line_and_tests_stand_at_the_ends_and_where_a_stage_begins(whole):
    found = lines(whole)
    assert [(line["round"], line["epoch"]) for line in found] == [
        (str(number), str(epoch)) for number in range(2) for epoch in range(1, 9)
    ]
    first = found[:8]
    assert [line["stage"] for line in first] == ["supervised"] * 2 + ["semi_supervised"] * 6
    assert [bool(line["pseudo_accuracy"]) for line in first] == [False, *[True] * 6, False]
    # the end of stage 1, its four next epochs, and the end; the fourth epoch is due anyway
    assert [bool(line["test_accuracy"]) for line in first] == [False, *[True] * 5, False, True]
    assert {line["test_accuracy"] != "" for line in first} == {
        line["network_accuracy"] != "" for line in first
    }


def test_the_last_test_of_a_fit_is_the_one_of_its_round(whole):
    with (whole / "rounds.csv").open() as file:
        rounds = list(csv.DictReader(file))
    assert [line["test_accuracy"] for line in lines(whole)[7::8]] == [line["accuracy"] for line in rounds]
    assert all(float(line["watch_seconds"]) > 0 for line in rounds)


def test_rows_are_kept_of_the_first_middle_and_last_pseudo_labels(whole):
    names = [f"round{number:03d}_epoch{epoch:04d}.npz" for number in range(2) for epoch in (2, 5, 7)]
    assert [file.name for file in sorted((whole / "pseudo").iterdir())] == names
    line = lines(whole)[8 + 4]
    with np.load(whole / "pseudo" / "round001_epoch0005.npz", allow_pickle=False) as kept:
        assert len(kept["rows"]) == 200 - 30
        right = kept["labels"] == kept["truth"]
        assert float(line["pseudo_accuracy"]) == pytest.approx(right.mean())
        assert float(line["pseudo_right_weight"]) == pytest.approx(kept["weights"][right].mean(), abs=1e-6)


def test_the_run_can_be_pictured(whole, capsys):
    for kind in ("epochs", "weights", "wrong"):
        assert picture([str(whole), "--kind", kind, "--round", "1", "--device", "cpu"]) == 0
        assert capsys.readouterr().out.strip() == str(whole / "figures" / f"{kind}.png")
        assert (whole / "figures" / f"{kind}.png").stat().st_size > 5000


def test_watching_changes_nothing_of_the_result(whole, tmp_path):
    def selections(folder: Path) -> bytes:
        return (folder / "selections.csv").read_bytes()

    unseen = played(tmp_path / "unseen", "journal=null")
    plain = played(tmp_path / "plain", "journal.supervised=false", trainer=Supervised)
    assert selections(tmp_path / "unseen") == selections(tmp_path / "plain") == selections(whole)
    assert [record["accuracy"] for record in unseen.records] == [
        record["accuracy"] for record in plain.records
    ]
    for folder in ("unseen", "plain"):
        assert not (tmp_path / folder / "epochs.csv").exists()
        assert not (tmp_path / folder / "pseudo").exists()
    assert "watch_seconds" not in plain.records[0]


class KilledError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize(("where", "count"), [("before", 3), ("after", 11), ("before", 16)])
def test_a_run_broken_off_and_continued_has_the_epochs_of_an_unbroken_one(
    where, count, whole, tmp_path, monkeypatch
):
    from alrun import files

    original, calls = files.Progress.keep, [0]

    def keep(self, epoch, make):
        calls[0] += 1
        if (where, calls[0]) == ("before", count):
            raise KilledError
        original(self, epoch, make)
        if (where, calls[0]) == ("after", count):
            raise KilledError

    monkeypatch.setattr(files.Progress, "keep", keep)
    with pytest.raises(KilledError):
        played(tmp_path / "run")
    assert len(lines(tmp_path / "run")) < 16
    played(tmp_path / "run")
    assert lines(tmp_path / "run") == lines(whole)
    for file in (whole / "pseudo").iterdir():
        assert (tmp_path / "run" / "pseudo" / file.name).read_bytes() == file.read_bytes()


def test_a_fit_whose_state_is_never_kept_begins_its_lines_anew(whole, tmp_path, monkeypatch):
    original, calls = Watched.watch, [0]

    def watch(self, sight):
        calls[0] += 1
        if calls[0] == 13:
            raise KilledError
        original(self, sight)

    monkeypatch.setattr(Watched, "watch", watch)
    with pytest.raises(KilledError):
        played(tmp_path / "run", every=60.0)
    played(tmp_path / "run", every=60.0)
    assert lines(tmp_path / "run") == lines(whole)


def watched(tmp_path: Path, journal: Journal, total: int, unbought=(1, 2, 3)) -> Watched:
    folder = RunFolder(tmp_path)
    progress = folder.progress(0, lambda done, total: None)
    found = Watched(progress, journal, truth(unbought=unbought), Page(0, folder, {}, Clock(CPU)))
    found.epoch(0, total)
    return found


@pytest.mark.parametrize("unbought", [(1, 2, 3), ()])
def test_without_a_step_tests_stand_at_the_ends_of_stages_only(unbought, tmp_path, monkeypatch):
    tested = []
    monkeypatch.setattr("alrun.journal._tested", lambda model, truth, rows: tested.append(model) or {})
    for every, expected in ((None, [2, 6]), (1, [1, 2, 3, 4, 5, 6]), (3, [2, 3, 4, 5, 6])):
        tested.clear()
        book = watched(tmp_path, Journal(True, every, 0), 6, unbought)
        for epoch in range(1, 7):
            made = pseudo([0, 1, 1, 2], np.ones(4), zero_share=0.0) if epoch >= 2 else None
            stage = "supervised" if epoch < 3 else "semi_supervised"
            book.watch(Sight(stage, epoch, {}, made, lambda epoch=epoch: epoch))
        assert tested == expected
    assert (tmp_path / "pseudo").exists() == bool(unbought)


def test_lines_of_a_fit_join_the_tables_when_it_is_over(tmp_path):
    book = watched(tmp_path, Journal(True, None, 0), 9)
    book.close()
    assert book.page.tables == {}
    book.watch(Sight("supervised", 1, {"loss": 2.0}, None, lambda: pytest.fail("nobody asked")))
    book.close()
    assert book.page.tables == {EPOCHS: [{"round": 0, "epoch": 1, "stage": "supervised", "loss": 2}]}


def test_where_all_rows_are_bought_no_rows_are_asked(tmp_path):
    saved = played(tmp_path / "run", "budget.initial=all", "budget.rounds=0")
    found = lines(tmp_path / "run")
    assert "network_accuracy" not in found[-1]
    assert found[-1]["test_accuracy"] == str(saved.records[-1]["accuracy"])
