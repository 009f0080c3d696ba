"""`python -W error -m llama_index_hitl`, forked from a process that has imported all it needs.

A command that is started takes seconds to import what it needs, and as many as the tests give would
take minutes. The process that is forked runs no command itself, so each finds what a new process
finds, but for the modules that are there already; its environment, directory, arguments, streams
and exit are its own. Not for options of Python in the environment: Python reads them as it starts.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Self, cast

TIMEOUT = 120
"""Seconds that a command may take."""

ROOT = Path(__file__).parent.parent
SEARCHED = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
"""Where Python finds this package and the modules of the tests, whatever the directory is."""


class ForkedCli:
    """Runs commands, one at a time, from entering the `with` block to leaving it.

    Args:
        environment: The environment in which the modules are imported.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        return self

    def __exit__(self, *exception: object) -> None:
        with self._process:  # closes its input, which ends it, and waits
            pass

    def run(
        self, *arguments: str, typed: str, folder: Path | None, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, and return how it ended and what it printed."""
        job = {
            "arguments": arguments,
            "typed": typed,
            "folder": str(folder or Path.cwd()),
            "environment": dict(environment),
        }
        to, back = cast("IO[str]", self._process.stdin), cast("IO[str]", self._process.stdout)
        to.write(json.dumps(job) + "\n")
        to.flush()
        reply = back.readline()
        if not reply:
            raise RuntimeError(f"The process that forks is gone: {self._process.wait()}")
        return subprocess.CompletedProcess(arguments, **json.loads(reply))


# --------------------------------------------------------------------------- the other process


IMPORTED = (
    "anyio._backends._asyncio",
    "httpcore",
    "jsonschema",
    "llama_index.llms.openai",
    "llama_index_hitl._demo",
    "llama_index_hitl.cli._parked_demo",
    "llama_index_hitl.cli._report",
    "llama_index_hitl.cli._screen",
    "llama_index_hitl.console",
    "llama_index_hitl.runner",
    "llama_index_hitl.stores.sql",
    "llama_index_hitl.testing",
    "openai.resources",
)
"""What commands import as they need it; with it comes the rest."""


def _serve() -> None:
    """Fork for each command; return in the child only, which is to run it."""
    # Not by `sys.stdin` and `sys.stdout`, which must be as new in each child.
    with os.fdopen(os.dup(0)) as jobs, os.fdopen(os.dup(1), "w") as replies:
        for line in jobs:
            job = json.loads(line)
            with TemporaryFile() as output, TemporaryFile() as errors:
                child = os.fork()
                if child == 0:
                    _become(job, output.fileno(), errors.fileno())
                    return
                _, status = os.waitpid(child, 0)
                reply = {
                    "returncode": os.waitstatus_to_exitcode(status),
                    "stdout": _text_of(output),
                    "stderr": _text_of(errors),
                }
            replies.write(json.dumps(reply) + "\n")
            replies.flush()
    sys.exit()


def _text_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def _become(job: dict[str, Any], output: int, errors: int) -> None:
    """Make this process as `python -m llama_index_hitl` is before its first line."""
    signal.alarm(TIMEOUT)
    reading, writing = os.pipe()
    for stream, descriptor in ((0, reading), (1, output), (2, errors)):
        os.dup2(descriptor, stream)
    os.close(reading)
    os.write(writing, job["typed"].encode())  # fits into the pipe
    os.close(writing)
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    sys.path[0] = job["folder"]
    sys.argv = ["-m", *job["arguments"]]


if __name__ == "__main__":
    for module in IMPORTED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # else the collector of each child would copy everything there is
    _serve()
    runpy.run_module("llama_index_hitl", run_name="__main__", alter_sys=True)
