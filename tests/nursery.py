"""Processes that need not import everything anew: forks of one that has, so that many stay affordable."""

import functools
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import alrun

# Imported on first use by the package's own modules, all of which are prepared.
OTHERS = (
    "torch._dynamo",
    "pydantic.type_adapter",
    "rich._emoji_codes",
    "sklearn.datasets",
    "matplotlib.backends.backend_agg",
)
SECONDS = 300  # after which a process that hangs is ended


class Ended(NamedTuple):
    """How a process ended, and what it wrote."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


class Nursery:
    """Starts processes that run `alrun`, a piece of code, or first the code and then `alrun`."""

    def __init__(self) -> None:
        self._kept = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def prepare(self, *modules: str) -> None:
        """Imports what the processes to come need besides."""
        assert self._asked(modules=modules) == 0

    def start(self, folder: Path, *words: str, code: str = "", verb: bool = True) -> int:
        """A process in this folder: the code, and `alrun` with these words unless `verb` is false."""
        return self._asked(folder=str(folder), words=["alrun", *words] if verb else [], code=code)

    def wait(self, pid: int) -> Ended:
        """The end of a process that was started."""
        returncode = self._asked(wait=pid)
        return Ended(returncode, *(self._file(pid, name).read_text() for name in ("stdout", "stderr")))

    def run(self, folder: Path, *words: str, code: str = "", verb: bool = True) -> Ended:
        """Start and end of a process."""
        return self.wait(self.start(folder, *words, code=code, verb=verb))

    def close(self) -> None:
        """Ends the one that all are forks of."""
        self._process.communicate()
        self._kept.cleanup()

    def _file(self, pid: int, name: str) -> Path:
        return Path(self._kept.name) / f"{pid}.{name}"

    def _asked(self, **job: Any) -> int:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        print(json.dumps({**job, "kept": self._kept.name}), file=process.stdin, flush=True)
        return int(process.stdout.readline())


def deadly(owner: Any, name: str, count: int, before: bool) -> None:
    """Makes the n-th call of a function kill the process as `kill -9` would, before or after its work."""
    original: Callable[..., Any] = getattr(owner, name)
    calls = [0]

    @functools.wraps(original)
    def call(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if before and calls[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **named)
        if not before and calls[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, call)


def _serve() -> None:
    """Answers each line of the input with a number: the pid of what it starts, or how it ended."""
    own = (each.name for each in pkgutil.walk_packages(alrun.__path__, "alrun."))
    for name in (*OTHERS, *own):
        import_module(name)
    for line in sys.stdin:
        job, answer = json.loads(line), 0
        if "wait" in job:
            answer = os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1])
        elif "folder" in job and (answer := os.fork()) == 0:
            _be(job)
        for name in job.get("modules", ()):
            import_module(name)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def _be(job: dict[str, Any]) -> None:
    """Is what was started, and ends."""
    signal.alarm(SECONDS)
    os.chdir(job["folder"])
    own = Path(job["kept"]) / str(os.getpid())
    for number, file in enumerate((os.devnull, f"{own}.stdout", f"{own}.stderr")):
        os.dup2(os.open(file, (os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if number else os.O_RDONLY), number)
    returncode = 1
    try:
        exec(job["code"], {"__name__": "__main__", "deadly": deadly})
        if job["words"]:
            sys.argv = job["words"]
            import_module("alrun.cli").main()
        returncode = 0
    except SystemExit as end:
        returncode = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        if sys.exception() is not None:
            traceback.print_exc()  # os._exit would swallow it
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(returncode)


if __name__ == "__main__":
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "WARNING"}
    _serve()
