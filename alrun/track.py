"""MLflow: each round's record, read from the run folder, so that what a lost tracker missed is sent later."""

import logging
import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from filelock import FileLock

from alrun.config import PLACE, flat
from alrun.files import write_text
from alrun.state import read_records

log = logging.getLogger(__name__)

SENT = "checkpoint/sent"

SECTIONS = {
    "accuracy": "test/accuracy",
    "nll": "test/nll",
    "ece": "test/ece",
    "top5_accuracy": "test/top5_accuracy",
    "loss": "train/loss",
    "train_seconds": "train/seconds",
    "train_epochs": "train/epochs",
    "train_images": "train/images",
    "query_seconds": "query/seconds",
    "predict_seconds": "query/predict_seconds",
    "features_seconds": "query/features_seconds",
    "graph_seconds": "query/graph_seconds",
    "select_seconds": "query/select_seconds",
    "candidates": "query/candidates",
    "predicted": "query/predicted",
    "batch_entropy": "query/batch_entropy",
    "oracle_seconds": "oracle/seconds",
    "peak_rss_mb": "usage/peak_rss_mb",
    "peak_gpu_mb": "usage/peak_gpu_mb",
    "evaluate_seconds": "usage/evaluate_seconds",
    "watch_seconds": "usage/watch_seconds",
}
GROUPED = (
    '{"groupBy": {"aggregateFunction": "average", '
    '"groupByKeys": [{"mode": "tag", "groupByData": "strategy"}]}, "runsHiddenMode": "SHOWALL"}'
)


@runtime_checkable
class Tracker(Protocol):
    """Receives a run's records; losing it never loses the run."""

    def sync(self, folder: Path, settings: Mapping[str, Any], finished: bool) -> bool:
        """Sends what the run folder holds and the tracker has not got yet; whether it was within reach."""
        ...


@dataclass(frozen=True)
class Mlflow:
    """One experiment a data set, one flat run a (strategy, seed, settings id), by number of labels.

    Attributes:
        uri: a tracking server or database; null is the file `mlflow.db` in `output_dir`, without a server.
        figures: whether figures and CSV files are stored as artifacts when the run is finished.
    """

    uri: str | None
    figures: bool

    def sync(self, folder: Path, settings: Mapping[str, Any], finished: bool) -> bool:
        """Sends the rounds that are not logged yet; a tracker out of reach is a warning, not an error."""
        if self._sent(folder, Path(settings["output_dir"])):
            return True
        failure = self._attempt(lambda: self._send(folder, settings, finished))
        if failure is not None:
            reason = f"{type(failure).__name__}: {failure}".splitlines()[0]
            log.warning(
                "MLflow is out of reach (%s); the run goes on, the same command sends what is missing", reason
            )
        return failure is None

    def _sent(self, folder: Path, output_dir: Path) -> bool:
        """Whether this tracker has got all of a finished run; a database that was deleted has not."""
        where, note = address(self.uri, output_dir), folder / SENT
        database = Path(where.removeprefix("sqlite:///"))
        there = not where.startswith("sqlite:///") or database.exists()
        return there and note.exists() and note.read_text() == where

    def _attempt(self, work: Callable[[], None]) -> Exception | None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            work()
        except (MlflowException, RequestException, SQLAlchemyError, sqlite3.Error, OSError) as error:
            return error
        return None

    def _send(self, folder: Path, settings: Mapping[str, Any], finished: bool) -> None:
        from mlflow.entities import Metric

        client = connected(self.uri, Path(settings["output_dir"]))
        run_id = self._run(client, folder, settings)
        logged = {point.step for point in client.get_metric_history(run_id, "query/total_seconds")}
        total = 0.0
        for record in read_records(folder / "rounds.csv"):
            total += float(record["query_seconds"])
            step = int(record["labeled"])
            if step not in logged:
                values = {**_metrics(record), "query/total_seconds": total}
                stamp = int((folder / "rounds.csv").stat().st_mtime * 1000)
                client.log_batch(run_id, [Metric(key, value, stamp, step) for key, value in values.items()])
        if finished:
            if self.figures:
                for file in [*sorted(folder.glob("*.csv")), *sorted(folder.glob("figures/*.png"))]:
                    client.log_artifact(
                        run_id, str(file), file.parent.name if file.suffix == ".png" else None
                    )
            client.set_terminated(run_id, "FINISHED")
            write_text(folder / SENT, address(self.uri, Path(settings["output_dir"])))

    def _run(self, client: Any, folder: Path, settings: Mapping[str, Any]) -> str:
        """The id of this folder's MLflow run, made once for a tracker and kept beside the records."""
        from mlflow.entities import Param, RunTag

        note, where = folder / "mlflow_run_id.txt", address(self.uri, Path(settings["output_dir"]))
        if (known := _continued(client, note, where)) is not None:
            return known
        choices = settings["choices"]
        experiment = experiment_id(client, choices["dataset"], self.uri, Path(settings["output_dir"]))
        plain = {key: value for key, value in flat(settings).items() if key.split(".")[0] not in PLACE}
        tags = {f"setting.{key}": settings[key] for key in ("device", "data_dir", "output_dir")}
        tags |= {"strategy": choices["strategy"], "dataset": choices["dataset"], "seed": settings["seed"]}
        tags |= {"sweep": settings["sweep"] or "", "id": folder.name, "folder": str(folder)}
        tags |= {f"choice.{group}": name for group, name in choices.items()}
        name = f"{choices['strategy']}-s{settings['seed']}"
        run_id = client.create_run(
            experiment, run_name=name, tags={key: str(value) for key, value in tags.items()}
        ).info.run_id
        client.log_batch(
            run_id,
            params=[Param(key, str(value)[:6000]) for key, value in plain.items()],
            tags=[RunTag("mlflow.note.content", f"run folder: {folder}")],
        )
        write_text(note, f"{run_id}\n{where}\n")
        return run_id


def _continued(client: Any, note: Path, where: str) -> str | None:
    """The run that the note names, running again; None if this tracker never had it or lost it."""
    from mlflow.exceptions import MlflowException

    run_id, place = [*note.read_text().split(), "", ""][:2] if note.exists() else ("", "")
    if place != where:
        return None
    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run_id


def address(uri: str | None, output_dir: Path) -> str:
    """The tracking address: `uri`, or the database file in the output folder."""
    return uri or f"sqlite:///{(output_dir / 'mlflow.db').resolve()}"


def connected(uri: str | None, output_dir: Path) -> Any:
    """An MLflow client; a local database is made under a file lock, once.

    Parallel first writers would break a fresh database for good, and the client's first act is to make it.
    """
    from mlflow import MlflowClient

    output_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(output_dir / ".mlflow.lock"):
        if uri is None:
            # MLflow itself would try for minutes to open what is no database.
            with closing(sqlite3.connect(output_dir / "mlflow.db", timeout=20)) as database:
                database.execute("PRAGMA schema_version")
        return MlflowClient(tracking_uri=address(uri, output_dir))


def experiment_id(client: Any, name: str, uri: str | None, output_dir: Path) -> str:
    """The id of the experiment, made if need be; its charts open grouped by strategy."""
    with FileLock(output_dir / ".mlflow.lock"):
        found = client.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        place = None if uri else (output_dir / "mlflow-artifacts" / name).resolve().as_uri()
        made = client.create_experiment(name, artifact_location=place)
        client.set_experiment_tag(made, "mlflow.sharedViewState.alrun", GROUPED)
        return made


def _metrics(record: Mapping[str, str]) -> dict[str, float]:
    """A record's numbers under their names in MLflow; notes of the strategy stand under `strategy/`."""
    out = {}
    for key, text in record.items():
        if text == "" or key in ("round", "labeled"):
            continue
        kind, _, rest = key.partition("_")
        section = f"{kind}/{rest}" if kind in ("once", "train", "pseudo") else f"strategy/{key}"
        out[SECTIONS.get(key, section)] = float(text)
    if float(record["train_seconds"]) > 0:
        out["train/images_per_second"] = float(record["train_images"]) / float(record["train_seconds"])
    return out
