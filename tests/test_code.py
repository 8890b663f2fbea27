"""The version of a piece of code: what it follows, and what it does not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from alrun.code import _closure, _imports


def package(folder: Path, **files: str) -> None:
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine" / "__init__.py").write_text("")
    for name, text in files.items():
        (folder / "mine" / f"{name}.py").write_text(text)


def version_of(folder: Path, **files: str) -> str:
    package(folder, **files)
    return asked_version(folder)


def asked_version(folder: Path, module: str = "mine.maker") -> str:
    code = f"import {module}; from alrun.code import code_version; print(code_version('{module}'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip
    return done.stdout.strip()


def test_the_code_version_follows_what_the_code_does_and_what_it_imports(tmp_path):
    maker = "from mine.part import f\n\ndef make():\n    return f()\n"
    first = version_of(tmp_path, maker=maker, part="def f():\n    return 1\n")
    documented = (
        "from mine.part import f\n\n\ndef make():\n    '''Makes.'''\n    # as it is\n    return f()\n"
    )
    assert version_of(tmp_path, maker=documented) == first
    assert version_of(tmp_path, part="def f():\n    return 2\n") != first


def test_a_module_that_only_draws_says_so_and_does_not_count(tmp_path):
    maker = "from mine.drawing import draw\n\ndef make():\n    draw()\n    return 1\n"
    drawing, silent = "from mine import ink\n\ndef draw():\n    {}\n", "VERSIONED = False  # draws\n"
    first = version_of(tmp_path, maker=maker, drawing=silent + drawing.format("red"), ink="x = 1\n")
    assert version_of(tmp_path, drawing=silent + drawing.format("blue"), ink="x = 2\n") == first
    assert version_of(tmp_path, drawing=drawing.format("blue")) != first
    silent_maker = f"VERSIONED = False\n{maker}"  # what makes counts itself, whatever it says
    first = version_of(tmp_path, maker=silent_maker)
    assert version_of(tmp_path, maker=silent_maker.replace("return 1", "return 2")) != first


MAKERS = ("simple", "pretrained", "vae", "autoencoder", "simclr", "fdal")


@pytest.mark.parametrize("maker", MAKERS)
def test_no_features_follow_code_that_draws_keeps_checks_or_trains_other_networks(maker):
    followed = _closure(f"alrun.features.{maker}")
    assert f"alrun.features.{maker}" in followed
    assert "alrun.pool" in followed
    others = {f"alrun.{name}" for name in ("cache", "config", "files", "training.model", "training.batches")}
    assert not followed & others
    assert not [name for name in followed if any("matplotlib" in each for each in _imports(name))]


def test_features_of_an_encoder_follow_its_layers_its_loss_and_its_loop():
    own = {"models.trunk", "models.resnet", "training.views", "training.parts", "features.fitting"}
    assert {f"alrun.{name}" for name in own} <= _closure("alrun.features.simclr")


def test_the_code_version_follows_relative_imports_of_a_package(tmp_path):
    def version(number: int) -> str:
        package(tmp_path, maker="from mine import f\n", part=f"def f():\n    return {number}\n")
        (tmp_path / "mine" / "__init__.py").write_text("from .part import f as f\n")
        return asked_version(tmp_path)

    assert version(1) != version(2)


def test_the_code_version_of_a_lone_module_follows_those_beside_it(tmp_path):
    def version(**texts: str) -> str:
        for name, text in texts.items():
            (tmp_path / f"{name}.py").write_text(text)
        return asked_version(tmp_path, "lone")

    lone = "import early\n\ndef make():\n    from late import f\n    return f()\n"
    first = version(lone=lone, early="x = 1\n", late="def f():\n    return 1\n", other="")
    assert version(other="x = 2\n") == first
    assert version(early="x = 2\n") != first
    assert version(early="x = 1\n", late="def f():\n    return 2\n") != first


def test_the_code_version_of_an_installed_module_is_its_own():
    assert _closure("pylab") == {"pylab"}  # imports matplotlib, which lies beside it


def test_a_graphs_code_version_follows_its_search():
    parts = {f"alrun.graph.{name}" for name in ("exact", "cells", "tiles", "points", "approximate")}
    assert parts <= _closure("alrun.graph.knn")
    assert "alrun.graph.diffusion" not in _closure("alrun.graph.knn")
