"""`alrun ui`: the MLflow page of the local runs, light, on loopback."""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote


def serve(words: list[str]) -> int:
    """Starts MLflow's server on the database of the output folder and prints where to look."""
    parser = argparse.ArgumentParser("alrun ui", description="Open the MLflow page of the runs in a folder.")
    parser.add_argument("--output-dir", default="outputs", help="the folder that holds mlflow.db")
    parser.add_argument("--uri", default=None, help="a tracking server or database in its place")
    parser.add_argument("--port", type=int, default=5000, help="port on 127.0.0.1 (default 5000)")
    asked = parser.parse_args(words)
    folder = Path(asked.output_dir)
    if asked.uri is None and not (folder / "mlflow.db").exists():
        print(f"{folder / 'mlflow.db'}: no such database; run `alrun` first", file=sys.stderr)  # noqa: T201
        return 2
    from alrun.track import address  # takes seconds: MLflow

    for line in links(asked.uri, folder, asked.port):
        print(line)  # noqa: T201
    print("The page answers in about 15 seconds; stop it with ctrl-C.", flush=True)  # noqa: T201
    # The job runners of MLflow's server would take 2 GB and do nothing here.
    own = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    server = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", address(asked.uri, folder)]
    try:
        return subprocess.call(
            [*server, "--host", "127.0.0.1", "--port", str(asked.port), "--workers", "1"], env=own
        )
    except KeyboardInterrupt:
        return 0


def links(uri: str | None, folder: Path, port: int) -> list[str]:
    """One address a data set: its charts, grouped by strategy with a band over seeds."""
    from alrun.track import connected

    client = connected(uri, folder)
    view = "workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey=alrun"
    return [
        f"{experiment.name}: http://127.0.0.1:{port}/#/experiments/{quote(experiment.experiment_id)}/runs?{view}"
        for experiment in client.search_experiments()
        if experiment.name != "Default"
    ]
