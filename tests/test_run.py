"""Whole runs in one process: budgets, shared first labels, poisoned labels, records."""

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import settings

from alrun.assembly import assemble
from alrun.cache import Cache
from alrun.config import ConfigError
from alrun.data.data import Data
from alrun.features.simple import Pca
from alrun.run import run
from alrun.state import RunFolder

FAST = ["tracker=none", "budget.rounds=2", "trainer.epochs=2", "dataset.pool_size=200"]


class Unwatched:
    """A screen nobody looks at."""

    def already(self, folder):
        self.found = folder

    def say(self, news):
        self.news = news

    def tell(self, news): ...

    def begin(self, rounds, done):
        self.done = done

    def epoch(self, done, total):
        self.epochs = done

    def round(self, record):
        self.record = record


@dataclass(frozen=True)
class Replaced:
    """The data set of another, with other hidden labels."""

    data: Data

    def load(self, data_dir, chance):
        return self.data


def played(folder: Path, *words: str, **parts):
    shared = f"cache.dir={folder.parent / 'cache'}"
    found = {**settings(*FAST, shared, *words), "choices": {"dataset": "digits", "strategy": "any"}}
    experiment = replace(assemble(found), **parts)
    saved = run(experiment, RunFolder(folder), found, Unwatched())
    return experiment, saved


def rows_of(saved) -> list[list[int]]:
    return [batch["rows"] for batch in saved.purchases]


def lines(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("words", [("strategy=margin",), ("strategy=diffusion", "strategy.clamp=oracle")])
def test_hidden_labels_of_the_rest_of_the_pool_change_nothing(words, tmp_path):
    experiment, clean = played(tmp_path / "clean", *words)
    data = experiment.dataset.load(tmp_path, experiment.stream("split"))
    bought = np.concatenate(rows_of(clean))
    poisoned = (data.labels + 1) % 10
    poisoned[bought] = data.labels[bought]
    _, again = played(tmp_path / "poisoned", *words, dataset=Replaced(replace(data, labels=poisoned)))
    assert rows_of(again) == rows_of(clean)
    assert [r["accuracy"] for r in again.records] == [r["accuracy"] for r in clean.records]


def test_all_strategies_of_a_seed_share_the_first_labels_and_another_seed_has_others(tmp_path):
    firsts = {}
    for words in (["strategy=random"], ["strategy=margin"], ["strategy=coreset", "model=linear"], ["seed=1"]):
        _, saved = played(tmp_path / "-".join(words), *words, "budget.rounds=0")
        firsts[words[0]] = rows_of(saved)[0]
    assert firsts["strategy=random"] == firsts["strategy=margin"] == firsts["strategy=coreset"]
    assert firsts["seed=1"] != firsts["strategy=random"]


def test_no_rounds_is_a_plain_training_run_and_all_is_the_supervised_reference(tmp_path):
    _, plain = played(tmp_path / "plain", "budget.rounds=0")
    assert [record["labeled"] for record in plain.records] == [20]
    _, full = played(tmp_path / "full", "budget.initial=all")
    assert [record["labeled"] for record in full.records] == [200]


def test_sizes_give_the_batches_one_by_one(tmp_path):
    _, saved = played(tmp_path, "budget.sizes=[3,5,1]", "strategy=random")
    assert [record["labeled"] for record in saved.records] == [20, 23, 28, 29]
    assert [record["candidates"] for record in saved.records] == [0, 180, 177, 172]


def test_a_cold_start_is_bought_by_first_where_the_strategy_needs_a_model(tmp_path):
    _, saved = played(tmp_path, "budget.initial=0", "strategy=margin")
    assert rows_of(saved)[0] == []
    assert [(r["round"], r["labeled"]) for r in saved.records] == [(1, 10), (2, 20)]
    assert [r.get("chosen_by_first") for r in saved.records] == [1, None]
    assert len(lines(tmp_path / "rounds.csv")) == 2
    assert len(lines(tmp_path / "selections.csv")) == 20


@pytest.mark.parametrize("strategy", ["coreset", "diffusion"])
def test_from_fixed_features_a_cold_start_is_the_strategy_s_own(strategy, tmp_path):
    _, saved = played(tmp_path, "budget.initial=0", f"strategy={strategy}", "featurizer=pixels")
    assert "chosen_by_first" not in saved.records[0]
    assert "once_features_seconds" in saved.records[0]
    assert saved.records[0]["features_seconds"] == saved.records[0]["graph_seconds"] == 0


def test_fixed_features_and_graph_are_made_once_for_all_seeds_and_strategies(tmp_path):
    words = ("featurizer=pca", "strategy=diffusion")
    _, first = played(tmp_path / "first", *words)
    _, second = played(tmp_path / "second", *words, "seed=1", "seeds.split=0")
    _, other = played(tmp_path / "other", "featurizer=pca", "strategy=coreset")
    seconds = [saved.records[1]["once_features_seconds"] for saved in (first, second, other)]
    assert seconds[0] == seconds[1] == seconds[2] > 0
    assert first.records[1]["once_graph_seconds"] == second.records[1]["once_graph_seconds"] > 0
    kinds = [each.folder.parent.name for each in Cache(str(tmp_path / "cache")).artifacts()]
    assert kinds == ["features", "graph"]


@pytest.mark.parametrize("word", ["featurizer.components=20", "graph.k=7", "dataset.pool_size=150"])
def test_other_features_graphs_and_pools_are_other_artifacts(word, tmp_path):
    words = ("featurizer=pca", "strategy=diffusion")
    played(tmp_path / "first", *words)
    played(tmp_path / "second", *words, word)
    kinds = [each.folder.parent.name for each in Cache(str(tmp_path / "cache")).artifacts()]
    assert kinds.count("graph") == 2
    assert kinds.count("features") == (1 if word.startswith("graph") else 2)


def test_a_run_that_reuses_artifacts_chooses_what_one_that_makes_them_chooses(tmp_path):
    words = ("featurizer=pca", "strategy=diffusion")
    runs = [played(tmp_path / name / "run", *words)[1] for name in ("a", "b")]
    runs.append(played(tmp_path / "a" / "again", *words)[1])
    runs.append(played(tmp_path / "c" / "run", *words, "cache.dir=null")[1])
    assert all(rows_of(saved) == rows_of(runs[0]) for saved in runs)
    assert not (tmp_path / "c" / "cache").exists()


def test_first_rows_come_from_a_file(tmp_path):
    (tmp_path / "rows.txt").write_text("7\n3\n150\n")
    word = f"budget.initial_rows={tmp_path / 'rows.txt'}"
    _, saved = played(tmp_path / "run", word, "strategy=random", "budget.rounds=1")
    assert rows_of(saved)[0] == [7, 3, 150]


def test_balanced_and_proportional_first_labels_follow_the_classes_and_say_so(tmp_path):
    for sampling in ("balanced", "proportional"):
        word = f"budget.initial_sampling={sampling}"
        experiment, saved = played(tmp_path / sampling, word, "budget.rounds=0", "strategy=random")
        labels = np.bincount(saved.purchases[0]["labels"], minlength=10)
        pool = experiment.dataset.load(tmp_path, experiment.stream("split")).labels
        share = np.full(10, 0.1) if sampling == "balanced" else np.bincount(pool, minlength=10) / len(pool)
        assert np.abs(labels - 20 * share).max() < 1
        assert saved.records[0]["initial_reads_labels"] == 1


def test_the_oracle_s_answers_inside_a_batch_are_counted_and_stay_within_it(tmp_path):
    words = ("strategy=diffusion", "strategy.clamp=oracle", "strategy.mini_batch=3")
    _, saved = played(tmp_path, *words)
    assert [record.get("asked_inside") for record in saved.records] == [None, 9, 9]


def test_records_hold_the_contract_s_columns_and_random_costs_no_query_time(tmp_path):
    _, saved = played(tmp_path, "strategy=random")
    first = [
        *("round", "labeled", "accuracy", "loss", "nll", "ece", "query_seconds", "predict_seconds"),
        *(
            "features_seconds",
            "graph_seconds",
            "select_seconds",
            "train_seconds",
            "candidates",
            "peak_rss_mb",
        ),
    ]
    found = lines(tmp_path / "rounds.csv")
    assert list(found[0])[: len(first)] == first
    assert all(float(line["query_seconds"]) < 0.01 and line["predicted"] == "0" for line in found)
    assert 0 < float(found[1]["batch_entropy"]) <= np.log(10)
    assert {"settings.yaml", "environment.json", "run.log", "selections.csv"} <= {
        path.name for path in tmp_path.iterdir()
    }
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["kernels"].startswith(("numba ", "plain ("))
    assert (tmp_path / "figures" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    selected = lines(tmp_path / "selections.csv")
    assert list(selected[0]) == ["round", "rank", "row", "label", "score"]
    assert len(selected) == len({line["row"] for line in selected}) == saved.records[-1]["labeled"]


def test_query_parts_add_up_and_a_forward_pass_counts_as_predict(tmp_path):
    _, saved = played(tmp_path, "strategy=diffusion")
    for record in saved.records[1:]:
        parts = [record[f"{name}_seconds"] for name in ("predict", "features", "graph", "select")]
        assert record["query_seconds"] == pytest.approx(sum(parts), abs=1e-5)
        assert record["predict_seconds"] > record["features_seconds"]
        assert record["graph_seconds"] > 0
        assert record["graph_recall"] == 1
        assert record["predicted"] == 200


def test_a_budget_beyond_the_pool_makes_no_folder(tmp_path):
    with pytest.raises(ValueError, match="budget: wants 520 labels .* but the pool has 200"):
        played(tmp_path / "run", "budget.rounds=50")
    assert not (tmp_path / "run").exists()


def test_a_labeled_set_of_one_class_trains(tmp_path):
    experiment, _ = played(tmp_path / "a", "budget.rounds=0", "budget.initial=1", "strategy=random")
    data = experiment.dataset.load(tmp_path, experiment.stream("split"))
    same = np.flatnonzero(data.labels == 3)[:6]
    (tmp_path / "rows.txt").write_text("\n".join(map(str, same)))
    _, saved = played(
        tmp_path / "b",
        f"budget.initial_rows={tmp_path / 'rows.txt'}",
        "strategy=diffusion",
        "budget.rounds=1",
    )
    assert np.isfinite(saved.records[0]["loss"])


def test_a_missing_gpu_is_said_and_not_replaced(tmp_path):
    with pytest.raises(ConfigError, match="device: .* use device=auto or cpu"):
        played(tmp_path, "device=cuda:93")


def test_a_run_does_not_go_on_with_other_data(tmp_path):
    words = ("strategy=random",)
    experiment, _ = played(tmp_path / "run", *words)
    (tmp_path / "run" / "checkpoint" / "finished").unlink()
    data = experiment.dataset.load(tmp_path, experiment.stream("split"))
    other = Replaced(replace(data, inputs=data.inputs[::-1].copy()))
    with pytest.raises(ConfigError, match="not the data that"):
        played(tmp_path / "run", *words, dataset=other)


def test_a_run_does_not_go_on_with_other_fixed_features(tmp_path):
    words = ("strategy=diffusion", "featurizer=pca")
    played(tmp_path / "run", *words)
    (tmp_path / "run" / "checkpoint" / "finished").unlink()
    played(tmp_path / "run", *words)
    (tmp_path / "run" / "checkpoint" / "finished").unlink()
    with pytest.raises(ConfigError, match="chosen with other features"):
        played(tmp_path / "run", *words, featurizer=Pca(3))
