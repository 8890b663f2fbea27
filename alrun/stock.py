"""The command `alrun cache`: what is kept, whether it is whole, and deleting what is not needed."""

import argparse
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from alrun.cache import LISTED, Artifact, Cache, damages

HIDDEN = ("maker", "code", "pool", "features", "chance", "inputs")
DESCRIPTION = """What runs made once and share: features with their encoders, graphs, and what encoders give
for test sets. Deleting one is safe: a run that needs it again makes it again. What a process is at work with
is never deleted.

list    a line for each: kind, id, maker, size, seconds that making it took; then its settings (the default)
verify  compares every file with its checksum; exit code 1 if one is damaged
prune   deletes what is named, or --all; with --unused only what of it no run has used for so long; what
        cannot be read goes in any case
"""


def take(words: Sequence[str]) -> int:
    """Runs `alrun cache` with these words; the exit code (1: something is damaged, 2: nothing there)."""
    asked = _parser().parse_args(words)
    console = Console()
    folder = Path(asked.dir).expanduser()
    if not folder.is_dir():
        console.print(f"alrun cache: no cache in {folder}; name its folder with --dir", soft_wrap=True)
        return 2
    cache = Cache(str(folder))
    found = [each for each in cache.artifacts() if _meant(each, asked.artifact)]
    if asked.what == "prune":
        _clear(console, cache, asked)
        return _prune(console, cache, [each for each in found if _doomed(each, asked)], asked.dry_run)
    if asked.what == "verify":
        return _verify(console, found)
    console.print(_table(found))
    for artifact in found:
        console.print(f"{artifact.folder.name[:8]}  {_settings(artifact)}", soft_wrap=True, highlight=False)
    console.print(f"{len(found)} artifacts, {_size(sum(_bytes(each) for each in found))} in {folder}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "alrun cache", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=("list", "verify", "prune"), default="list", help="above")
    parser.add_argument(
        "artifact",
        nargs="*",
        help="kinds (features, generator, graph, encoded) or beginnings of ids (default: all)",
    )
    parser.add_argument(
        "--dir", default="outputs/cache", help="the cache.dir of the runs (default: %(default)s)"
    )
    parser.add_argument(
        "--unused",
        type=float,
        default=None,
        metavar="DAYS",
        help="prune: only what no run has used for so long",
    )
    parser.add_argument("--all", action="store_true", help="prune: everything")
    parser.add_argument("--dry-run", action="store_true", help="prune: only say what would be deleted")
    return parser


def _meant(artifact: Artifact, words: Sequence[str]) -> bool:
    kind, name = artifact.folder.parent.name, artifact.folder.name
    return not words or any(word == kind or name.startswith(word) for word in words)


def _doomed(artifact: Artifact, asked: argparse.Namespace) -> bool:
    """Named ones or all, of them those unused for long; what cannot be read is of no use to anyone."""
    if asked.unused is None or not artifact.listing:
        return bool(asked.all or asked.artifact or not artifact.listing)
    return _used(artifact) < datetime.now(UTC) - timedelta(days=asked.unused)


def _clear(console: Console, cache: Cache, asked: argparse.Namespace) -> None:
    """Leftovers of broken-off makings: only those meant, for a making may yet go on from them."""
    for leftover in cache.leftovers():
        kind, name = leftover.parent.name, leftover.name.removeprefix(".")
        named = asked.artifact and any(word == kind or name.startswith(word) for word in asked.artifact)
        meant = named if asked.artifact else asked.all or asked.unused is not None
        if meant and (asked.unused is None or _before(leftover, asked.unused)):
            done = asked.dry_run or cache.clear(leftover)
            did = "would delete" if asked.dry_run else "deleted" if done else "in use, left alone:"
            console.print(f"{did} {kind}/{leftover.name}, left by a broken-off making", soft_wrap=True)


def _before(path: Path, days: float) -> bool:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC) < datetime.now(UTC) - timedelta(days=days)


def _prune(console: Console, cache: Cache, doomed: Sequence[Artifact], dry: bool) -> int:
    freed = 0
    for artifact in doomed:
        size, name = _bytes(artifact), f"{artifact.folder.parent.name}/{artifact.folder.name}"
        if not dry and not cache.delete(artifact):
            console.print(f"in use, left alone: {name}", soft_wrap=True)
            continue
        freed += size
        console.print(f"{'would delete' if dry else 'deleted'} {name}, {_size(size)}", soft_wrap=True)
    if not doomed:
        console.print("nothing to delete; say --all, --unused DAYS, or which ones")
    console.print(f"{_size(freed)} {'would be ' if dry else ''}freed")
    return 0


def _verify(console: Console, found: Sequence[Artifact]) -> int:
    bad = 0
    for artifact in found:
        wrong = list(damages(artifact)) if artifact.listing else [f"{LISTED} cannot be read"]
        bad += bool(wrong)
        for line in wrong:
            console.print(f"{artifact.folder}: {line}", soft_wrap=True, highlight=False)
    console.print(f"{len(found) - bad} of {len(found)} artifacts are whole")
    return 1 if bad else 0


def _table(found: Sequence[Artifact]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, justify in (("kind", "left"), ("id", "left"), ("maker", "left"), ("size", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name in ("seconds", "made", "last used"):
        table.add_column(name, justify="right")
    for artifact in found:
        listing = artifact.listing
        key = listing.get("key", {})
        table.add_row(
            artifact.folder.parent.name,
            artifact.folder.name[:8],
            str(key.get("maker", "?")).rsplit(".", 1)[-1],
            _size(_bytes(artifact)),
            f"{artifact.seconds:.1f}" if listing else "?",
            str(listing.get("made", "damaged"))[:10],
            f"{_used(artifact):%Y-%m-%d}",
        )
    return table


def _settings(artifact: Artifact) -> str:
    key = artifact.listing.get("key", {})
    return ", ".join(f"{name}={value}" for name, value in key.items() if name not in HIDDEN)


def _used(artifact: Artifact) -> datetime:
    listed = artifact.folder / LISTED
    return datetime.fromtimestamp((listed if listed.exists() else artifact.folder).stat().st_mtime, UTC)


def _bytes(artifact: Artifact) -> int:
    return sum(os.path.getsize(path) for path in artifact.folder.rglob("*") if path.is_file())


def _size(count: int) -> str:
    for power, unit in enumerate(("B", "KiB", "MiB")):
        if count < 1024 ** (power + 1):
            return f"{count / 1024**power:.0f} {unit}"
    return f"{count / 2**30:.1f} GiB"
