"""MLflow with real database files, real processes, and real losses."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from nursery import Nursery

WORDS = [
    *("strategy=random", "budget.rounds=1", "budget.initial=5", "budget.per_round=5", "trainer.epochs=1"),
    *("dataset.pool_size=100", "tracker.figures=false"),
]


@pytest.fixture(scope="module")
def tracking(nursery) -> Nursery:
    """Where processes are started that need not import MLflow anew."""
    nursery.prepare("mlflow", "mlflow.store.tracking.sqlalchemy_store")
    return nursery


@pytest.fixture
def ran(tracking, tmp_path) -> Callable[[], str]:
    """What a run writes that ends well."""

    def ran() -> str:
        done = tracking.run(tmp_path, *WORDS)
        assert done.returncode == 0, done.stderr
        return done.output

    return ran


def runs(folder: Path):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'outputs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("digits")
    return client, client.search_runs([experiment.experiment_id])


def points(client, run, metric: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric)]


@pytest.fixture(scope="module")
def tracked(tracking, tmp_path_factory) -> Path:
    """Four processes that start at once on a fresh database."""
    folder = tmp_path_factory.mktemp("parallel")
    processes = [tracking.start(folder, *WORDS, f"seed={seed}") for seed in range(4)]
    ends = [tracking.wait(process) for process in processes]
    assert [end.returncode for end in ends] == [0, 0, 0, 0], ends
    assert not any("out of reach" in end.stderr for end in ends)
    return folder


def test_processes_that_start_at_once_on_a_fresh_database_all_log_every_point(tracked):
    client, found = runs(tracked)
    assert sorted(run.data.tags["seed"] for run in found) == ["0", "1", "2", "3"]
    for run in found:
        assert [step for step, _ in points(client, run, "test/accuracy")] == [5, 10]
        assert run.info.status == "FINISHED"


def test_names_follow_the_contract_and_total_seconds_add_up(tracked):
    client, (run, *_) = runs(tracked)
    assert run.info.run_name == f"random-s{run.data.tags['seed']}"
    assert (run.data.tags["strategy"], run.data.tags["dataset"]) == ("random", "digits")
    assert run.data.params["budget.per_round"] == "5"
    assert "output_dir" not in run.data.params
    for metric in ("query/seconds", "query/select_seconds", "train/seconds", "train/images_per_second"):
        assert len(points(client, run, metric)) == 2
    seconds = [value for _, value in points(client, run, "query/seconds")]
    totals = [value for _, value in points(client, run, "query/total_seconds")]
    assert totals == pytest.approx([seconds[0], sum(seconds)])


def test_a_run_killed_after_a_round_goes_on_in_the_same_mlflow_run_without_doubles(tracking, ran, tmp_path):
    kill = "import alrun.track; deadly(alrun.track.Mlflow, 'sync', 1, False)"
    assert tracking.run(tmp_path, *WORDS, code=kill).returncode == -signal.SIGKILL
    ran()
    client, (run,) = runs(tmp_path)
    assert [step for step, _ in points(client, run, "test/accuracy")] == [5, 10]
    assert run.info.status == "FINISHED"


def test_losing_the_tracker_does_not_lose_the_run_and_what_was_missed_is_sent_later(ran, tmp_path):
    (tmp_path / "outputs" / "mlflow.db").mkdir(parents=True)  # no database can be opened here
    output = ran()
    assert "MLflow is out of reach" in output
    (records,) = tmp_path.glob("outputs/digits/random/*/rounds.csv")
    before = records.read_bytes()
    (tmp_path / "outputs" / "mlflow.db").rmdir()
    ran()
    assert records.read_bytes() == before
    client, (run,) = runs(tmp_path)
    assert [step for step, _ in points(client, run, "test/accuracy")] == [5, 10]


def test_a_database_that_was_deleted_is_filled_again_from_the_run_folder(ran, tmp_path):
    ran()
    (tmp_path / "outputs" / "mlflow.db").unlink()
    assert "finished already" in ran()
    client, (run,) = runs(tmp_path)
    assert [step for step, _ in points(client, run, "test/accuracy")] == [5, 10]


def test_the_ui_answers_on_loopback_and_prints_the_link_to_the_comparison(tracked):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "alrun.cli", "ui", "--port", str(port)]
    server = subprocess.Popen(command, cwd=tracked, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        line = server.stdout.readline()
        assert line.startswith(f"digits: http://127.0.0.1:{port}/#/experiments/1/runs?")
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                    assert answer.read() == b"OK"
                    break
            except OSError:
                time.sleep(1)
        else:
            pytest.fail("the page did not answer within 120 seconds")
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_the_ui_without_a_database_says_what_to_do(nursery, tmp_path):
    done = nursery.run(tmp_path, "ui")
    assert done.returncode == 2
    assert "run `alrun` first" in done.stderr
