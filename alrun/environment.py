"""What a run ran on: device, versions, machine, data, state of the code."""

import os
import platform
import resource
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alrun.compiled import described
from alrun.config import ConfigError
from alrun.data.data import Data

PEAK_RESET, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")

PACKAGES = (
    *("alrun", "torch", "torchvision", "numpy", "scipy", "scikit-learn", "faiss-gpu", "faiss-cpu"),
    *("pot", "pulp", "hydra-core", "omegaconf", "mlflow"),
)


def chosen_device(name: str) -> torch.device:
    """The device of a setting: `auto` is a GPU when there is one, else the CPU.

    Raises:
        ConfigError: an unknown device, or a GPU that is not there (there is no silent fallback).
    """
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError([f"device: must be auto, cpu, cuda or cuda:<n>, got {name!r}"]) from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError([f"device: must be auto, cpu, cuda or cuda:<n>, got {name!r}"])
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            [f"device: {torch.cuda.device_count()} GPUs here, got {name!r}; use device=auto or cpu"]
        )
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def forget_peak_memory(device: torch.device) -> None:
    """Starts the peaks of memory anew, so that a sweep's runs do not inherit them from each other."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    if PEAK_RESET.exists() and os.access(PEAK_RESET, os.W_OK):
        PEAK_RESET.write_text("5")


def peak_memory() -> float:
    """Peak resident memory in MiB: since `forget_peak_memory` on Linux, of the process elsewhere."""
    if STATUS.exists():
        lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
        return round(int(lines["VmHWM"].split()[0]) / 1024, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def environment(device: torch.device, data: Data, seed: int) -> dict[str, Any]:
    """Versions, device, seed, data fingerprint, pool items a class and git state, for environment.json."""
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "kernels": described(),
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "seed": seed,
        "data": {
            "pool": list(data.inputs.shape),
            "test": list(data.test_inputs.shape),
            "classes": data.classes,
            "inputs": data.fingerprint(),
            "labels": data.label_fingerprint(),
            **({} if data.source is None else {"source": data.source_fingerprint()}),
        },
        "classes": dict(zip(data.class_names, _counts(data), strict=True)),
        "git": _git(Path(__file__).resolve().parent),
    }


def _counts(data: Data) -> list[int]:
    return np.bincount(data.labels, minlength=data.classes).tolist()


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git(folder: Path) -> dict[str, Any] | None:
    """Commit and whether files differ from it; None where the code is no git checkout."""
    try:
        commit = _asked(folder, "rev-parse", "HEAD")
        tracked = _asked(folder, "ls-files", "--error-unmatch", "environment.py")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed": bool(_asked(folder, "status", "--porcelain"))} if tracked else None


def _asked(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
