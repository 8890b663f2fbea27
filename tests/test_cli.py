"""The command as a person uses it, in real processes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

FAST = ["tracker=none", "budget.rounds=1", "trainer.epochs=1"]


def alrun(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess:
    """A process of its own from the start, for what imports or the environment decide; others are forks."""
    return subprocess.run(
        [sys.executable, "-m", "alrun.cli", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **variables},
    )


def refused(run: Callable, folder: Path, *words: str) -> list[str]:
    """The lines of a command that must end with exit code 2, no traceback, and nothing half-written."""
    done = run(folder, *words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not list(folder.glob("outputs/**/*.csv"))
    return done.stderr.strip().splitlines()


def test_five_mistakes_give_five_lines_each_beginning_with_the_full_key(tmp_path):
    lines = refused(
        alrun, tmp_path, "seed=abc", "+bugdet=5", "+strategy.temprature=2", "budget.rounds=-3", "graph.k=0"
    )
    keys = ["seed:", "bugdet:", "strategy.temprature:", "budget.rounds:", "graph.k:"]
    assert sorted(line.split(" ")[0] for line in lines) == sorted(keys)
    assert "did you mean budget?" in next(line for line in lines if line.startswith("bugdet"))
    assert not list(tmp_path.iterdir())


def test_wrong_choices_and_a_sweep_without_m_are_told_together(nursery, tmp_path):
    lines = refused(nursery.run, tmp_path, "strategy=marginn", "dataset=cifar", "seed=0,1", "model.hidden=3")
    assert [line.split(":")[0] for line in lines] == ["strategy", "dataset", "seed", "model.hidden"]
    assert "did you mean margin?" in lines[0]
    assert "add -m" in lines[2]


def test_every_value_of_a_sweep_is_checked_before_the_first_run(nursery, tmp_path):
    lines = refused(nursery.run, tmp_path, "-m", "seed=0,x", "strategy=random,bold", "budget.per_round=10,0")
    assert [line.split(":")[0] for line in lines] == ["strategy", "seed", "budget.per_round"]


def test_parts_that_do_not_fit_are_told_before_data_are_read(nursery, tmp_path):
    assert refused(nursery.run, tmp_path, "strategy=diffusion", "graph=none")[0].startswith(
        "graph: diffusion needs"
    )
    assert refused(nursery.run, tmp_path, "strategy=bald", "model.dropout=0.0")[0].startswith(
        "model.dropout: bald needs"
    )
    assert refused(nursery.run, tmp_path, "strategy=two_stage", "strategy.first_size=5")[0].startswith(
        "strategy.first_size"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["budget.rounds=1000"], "budget: wants 10020 labels"),
        (["dataset=arrays", "dataset.path=none.npz"], "dataset.path: no such file"),
        (["dataset=arrays", "dataset.path=broken.npz"], "broken.npz"),
        (["dataset=arrays", "dataset.path=nan.npz"], "holds NaN"),
        (["dataset=arrays", "dataset.path=one.npz"], "one class only"),
        (["dataset.pool_size=-5"], "dataset.pool_size: must be"),
        (["output_dir=broken.npz"], "output_dir: cannot write"),
        (["device=cuda:77"], "device:"),
        (["budget.initial_rows=rows.txt"], "budget.initial_rows"),
        (["trainer.learning_rate=1e30", "trainer.optimizer=sgd"], "lower trainer.learning_rate"),
    ],
)
def test_bad_input_is_one_clear_line_and_nothing_is_half_written(nursery, words, message, tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 not a zip")
    (tmp_path / "rows.txt").write_text("3\n3\n")
    x, y = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32), np.arange(40) % 2
    arrays = {"x_test": x, "y_test": y}
    np.savez(tmp_path / "one.npz", x_train=x, y_train=np.zeros(40, int), **arrays)
    x = x.copy()
    x[4, 1] = np.nan
    np.savez(tmp_path / "nan.npz", x_train=x, y_train=y, **arrays)
    (line,) = refused(nursery.run, tmp_path, "tracker=none", *words)
    assert message in line


def test_a_settings_file_changed_by_hand_is_refused_with_both_values(nursery, tmp_path):
    assert nursery.run(tmp_path, *FAST, "strategy=random").returncode == 0
    (file,) = tmp_path.glob("outputs/digits/random/*/settings.yaml")
    file.write_text(file.read_text().replace("per_round: 10", "per_round: 11"))
    records = (file.parent / "rounds.csv").read_bytes()
    done = nursery.run(tmp_path, *FAST, "strategy=random")
    assert done.returncode == 2
    assert "budget.per_round: 11 there, 10 here" in done.stderr
    assert (file.parent / "rounds.csv").read_bytes() == records


def test_help_answers_without_heavy_imports(tmp_path):
    code = (
        "import sys; sys.argv = ['alrun', '--help']\n"
        "from alrun.cli import main\n"
        "try: main()\n"
        "finally: print([n for n in ('torch', 'mlflow', 'sklearn', 'faiss', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip().endswith("[]")
    assert "strategy: adba, asal, asal_generate" in done.stdout


def test_the_resolved_settings_are_shown_and_nothing_is_run(nursery, tmp_path):
    done = nursery.run(tmp_path, "dataset=mnist", "strategy=two_stage", "--cfg", "job", "--resolve")
    assert done.returncode == 0
    assert "_target_: alrun.strategies.margin.Margin" in done.stdout
    assert not list(tmp_path.iterdir())


def test_completion_knows_choices_and_keys(tmp_path):
    for typed, expected in (("strategy=dropout_", "dropout_entropy"), ("budget.per", "budget.per_round=")):
        words = {"COMP_LINE": f"alrun {typed}", "COMP_POINT": str(len(typed) + 6), "_TYPER_COMPLETE": ""}
        done = alrun(tmp_path, "-sc", "query=bash", **words)
        assert expected in done.stdout


def test_a_strategy_from_outside_the_repository_runs_by_its_own_settings(nursery, tmp_path):
    (tmp_path / "my" / "strategy").mkdir(parents=True)
    (tmp_path / "my" / "strategy" / "mine.yaml").write_text("_target_: mine.Mine\noffset: 3\n")
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "import numpy as np\n"
        "from alrun.rounds import Batch, Round\n"
        "@dataclass(frozen=True)\n"
        "class Mine:\n"
        "    offset: int\n"
        "    needs = frozenset()\n"
        "    def select(self, current: Round, size: int) -> Batch:\n"
        "        rows = current.candidates[self.offset : self.offset + size]\n"
        "        return Batch(rows, np.zeros(size))\n"
    )
    words = ["--config-dir", "my", "strategy=mine", *FAST]
    done = alrun(tmp_path, *words, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("outputs/digits/mine/seed0-*/rounds.csv"))
    found = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    wrong = nursery.run(tmp_path, *words, "strategy.ofset=1", code=found)
    assert (wrong.returncode, "did you mean offset?" in wrong.stderr) == (2, True)


def test_a_sweep_runs_every_combination_in_folders_of_its_own(nursery, tmp_path):
    done = nursery.run(tmp_path, "-m", "seed=0,1", "strategy=random,margin", *FAST)
    assert done.returncode == 0, done.stderr
    sweeps = {path.read_text().split("sweep: ")[1].split()[0] for path in tmp_path.rglob("settings.yaml")}
    assert len(sweeps) == 1
    assert sweeps.pop().startswith("s")
    assert len(list(tmp_path.glob("outputs/digits/*/seed[01]-*/rounds.csv"))) == 4


def test_a_sweep_takes_flags_anywhere_and_settings_of_the_choices_swept_over(nursery, tmp_path):
    words = ["strategy=bald,dropout_entropy", "strategy.passes=2", "dataset.pool_size=100"]
    done = nursery.run(tmp_path, *words, *FAST, "-m")
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("outputs/digits/*/seed0-*/rounds.csv"))) == 2


def test_in_a_sweep_one_bad_run_is_one_line_and_the_others_go_on(nursery, tmp_path):
    done = nursery.run(tmp_path, "-m", "budget.per_round=99999,10", "strategy=random", *FAST)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.count("budget: wants") == 1
    assert len(list(tmp_path.glob("outputs/digits/random/seed0-*/rounds.csv"))) == 1


@pytest.mark.parametrize(
    "words", [["seed=interval(0,1)"], ["strategy=glob(zz*)", "seed=0,1"], ["seed=glob(*)"]]
)
def test_a_sweep_over_nothing_is_a_mistake(nursery, words, tmp_path):
    (line,) = refused(nursery.run, tmp_path, "-m", *words)
    assert line.startswith(words[0].split("=")[0])


def test_without_a_tracker_nothing_of_mlflow_is_made(nursery, tmp_path):
    done = nursery.run(tmp_path, *FAST[1:], "~tracker", "strategy=random")
    assert done.returncode == 0, done.stderr
    assert "MLflow" not in done.stdout
    assert not (tmp_path / "outputs" / "mlflow.db").exists()


def test_the_wheel_holds_the_settings_and_runs_away_from_the_tree(tmp_path):
    uv = [sys.executable, "-m", "uv"]
    subprocess.run(
        [*uv, "build", "--wheel", "--out-dir", tmp_path / "dist", ROOT], check=True, capture_output=True
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    place = tmp_path / "installed"
    subprocess.run(
        [*uv, "pip", "install", "--no-deps", "--target", place, wheel], check=True, capture_output=True
    )
    code = "import alrun; print(alrun.__file__)"
    own = {"PYTHONPATH": str(place)}
    where = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **own},
    )
    assert where.stdout.startswith(str(place))
    done = alrun(tmp_path, *FAST, "strategy=random", **own)
    assert done.returncode == 0, done.stderr
    assert "figure:" in done.stdout
    assert (place / "bin" / "alrun").exists()
