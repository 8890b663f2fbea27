"""The command `alrun`: compose, check, instantiate, run."""

import hashlib
import logging
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from alrun.config import ConfigError, settings_id

if TYPE_CHECKING:
    from alrun.state import Saved

BAD_SETTINGS, BUSY = 2, 3
# Functions of the words that follow the verb, imported when it is asked for; they give the exit code.
VERBS = {
    "ui": "alrun.ui:serve",
    "report": "alrun.report.command:report",
    "objective": "alrun.objective:objective",
    "agreement": "alrun.agreement:agreement",
    "bounds": "alrun.report.bounds:bounds",
    "picture": "alrun.picture:picture",
    "cache": "alrun.stock:take",
}
GROUPS = (
    *("dataset", "model", "trainer", "featurizer", "generator", "graph", "strategy", "oracle", "budget"),
    "tracker",
)


def main() -> None:
    """The entry point: a verb (`VERBS`), or Hydra's command line."""
    # Idle OpenMP threads that spin make searches several times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    if (verb := "".join(sys.argv[1:2])) in VERBS:
        module, _, name = VERBS[verb].partition(":")
        sys.exit(getattr(import_module(module), name)(sys.argv[2:]))
    asked = get_args_parser().parse_args()
    if not (asked.help or asked.hydra_help or asked.shell_completion or asked.info):
        _stop_at_mistakes(asked)
    if asked.multirun and asked.overrides and not any(word.startswith("sweep=") for word in asked.overrides):
        digest = hashlib.sha256(" ".join(sorted(asked.overrides)).encode()).hexdigest()[:8]
        # A letter first: 12e34567 would be a number.
        asked.overrides.append(f"sweep=s{digest}")
    if asked.multirun and asked.overrides:
        _respell(asked)
    codes: list[int] = []

    def job(config: DictConfig) -> None:
        codes.append(_attempted(config))

    hydra.main(version_base="1.3", config_path="conf", config_name="config")(job)()
    sys.exit(max(codes, default=0))


def _stop_at_mistakes(asked: Any) -> None:
    """Prints one line a mistake and exits, before any data is read."""
    from alrun.assembly import assemble
    from alrun.overrides import mistakes

    if lines := mistakes(asked.overrides, asked.config_dir, asked.multirun, assemble):
        print("\n".join(lines), file=sys.stderr)  # noqa: T201
        sys.exit(BAD_SETTINGS)


def _respell(asked: Any) -> None:
    """Puts a sweep's overrides into the command line as Hydra takes them, where the first one stood."""
    from alrun.overrides import for_a_sweep

    place = next(i for i, word in enumerate(sys.argv) if i and word == asked.overrides[0])
    others = [word for word in sys.argv[place:] if word not in asked.overrides]
    sys.argv[place:] = for_a_sweep(asked.overrides, asked.config_dir) + others


def _attempted(config: DictConfig) -> int:
    """One run and its exit code; bad input is one line, and in a sweep the others go on."""
    from alrun.state import BusyError

    _warn_on_stderr(logging.getLogger("alrun"))
    try:
        _run(config)
    except (ConfigError, ValueError, OSError) as error:
        print(f"{error}" if isinstance(error, ConfigError) else f"alrun: {error}", file=sys.stderr)  # noqa: T201
        return BUSY if isinstance(error, BusyError) else BAD_SETTINGS
    return 0


def _warn_on_stderr(logger: logging.Logger) -> None:
    """Everything goes to the run's own log; warnings are shown as well."""
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        shown = logging.StreamHandler()
        shown.setLevel(logging.WARNING)
        shown.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        logger.addHandler(shown)


def _run(config: DictConfig) -> None:
    from rich.console import Console

    from alrun.assembly import assemble
    from alrun.run import run
    from alrun.screen import Bars
    from alrun.state import RunFolder

    settings = resolved(config)
    experiment = assemble(settings)
    folder = RunFolder(run_path(settings))
    console = Console()
    with Bars(console, experiment.progress) as bars:
        saved = run(experiment, folder, settings, bars)
    _show(console, folder.path, settings, saved)


def resolved(config: DictConfig) -> dict[str, Any]:
    """Plain settings without Hydra's own, with the name of each group's choice under `choices`.

    A choice of one group may bring that of another, and says so there (`trainer=frozen_head`).
    """
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    assert isinstance(plain, dict)
    picked = HydraConfig.get().runtime.choices
    settings = {str(key): value for key, value in plain.items()}
    choices = {group: picked.get(group) or "none" for group in GROUPS} | settings.get("choices", {})
    return {**settings, "choices": choices}


def run_path(settings: dict[str, Any]) -> Path:
    """`<output_dir>/<dataset>/<strategy>/seed<seed>-<id>`."""
    choices = settings["choices"]
    name = f"seed{settings['seed']}-{settings_id(settings)}"
    return Path(settings["output_dir"]) / choices["dataset"] / choices["strategy"] / name


def _show(console: Any, path: Path, settings: dict[str, Any], saved: "Saved") -> None:
    from alrun.screen import summary

    choices = settings["choices"]
    title = f"{choices['strategy']} on {choices['dataset']}, seed {settings['seed']}"
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        last = saved.records[-1]
        news = f"{title}: {last['labeled']} labels, accuracy {100 * last['accuracy']:.2f} %, {path}"
        console.print(news, soft_wrap=True, highlight=False)
        return
    console.print(f"\n{title}", summary(saved.records))
    console.print(f"figure:  {path / 'figures' / 'accuracy.png'}", soft_wrap=True, highlight=False)
    console.print(f"records: {path / 'rounds.csv'}", soft_wrap=True, highlight=False)
    if settings.get("tracker"):
        console.print("MLflow:  uv run alrun ui", highlight=False)


if __name__ == "__main__":
    main()
