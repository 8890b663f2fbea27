"""Data flow one way: a room imports only what stands to its left."""

import ast
from pathlib import Path

from conftest import ROOT

ROOMS = (
    "config files sheets code cache compiled | inputs pool data | models | graph coverage transport "
    "wasserstein retrieval | training | generative | features | clock shelf lifetime needs purchase work "
    "rounds budget | strategies | reference oracle synthetic state audience journal track environment | "
    "forecast report | experiment loop run | assembly | screen overrides ui stock fixed_spaces spaces "
    "scoring objective judging agreement fit_pictures picture | cli"
)
# Within one place, what stands first may be imported by what follows.
ORDER = {room: place for place, room in enumerate(ROOMS.replace("|", " ").split())}


def imports(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("alrun.")}


def room_of(file: Path) -> str:
    return file.relative_to(ROOT / "alrun").parts[0].removesuffix(".py")


def files() -> list[Path]:
    return [
        file for file in (ROOT / "alrun").rglob("*.py") if "conf" not in file.parts and file.parent.name != ""
    ]


def test_every_room_imports_only_from_its_left():
    wrong = [
        f"{file.relative_to(ROOT)} imports {other}"
        for file in files()
        if (own := room_of(file)) != "__init__"
        for other in imports(file)
        if other != own and ORDER[other] > ORDER[own]
    ]
    assert wrong == []


def test_strategies_know_neither_the_oracle_nor_the_run():
    for file in (ROOT / "alrun" / "strategies").glob("*.py"):
        assert not imports(file) & {"oracle", "state", "run", "data", "track"}


def test_no_room_is_named_for_nothing():
    names = {room_of(file) for file in files()}
    assert not names & {"utils", "helpers", "common", "base", "core", "manager"}
