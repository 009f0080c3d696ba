"""`hitl serve`, forked from a process that has imported all it needs, and killed as tests like.

    with ForkedServing(tmp_path) as forked:
        server = forked.serve("--demo")
        httpx.get(server.url)
        server.send(signal.SIGKILL)
        server.wait()

What is forked runs no server itself, so each finds what a new process finds, but for the modules.
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
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self, cast

TIMEOUT = 60
"""Seconds after which a server that is still there is ended."""

SEARCHED = str(Path(__file__).parents[2])
"""Where Python finds this package, whatever the directory is."""


class Served:
    """A server at work."""

    def __init__(self, pid: int, out: Path, back: IO[str]) -> None:
        self.pid = pid
        self._out = out
        self._back = back
        deadline = time.monotonic() + TIMEOUT
        while "Serving at " not in self.printed and time.monotonic() < deadline:
            time.sleep(0.02)  # it is another process: there is nothing to wait on
        self.url = self.printed.partition("Serving at ")[2].split()[0].rstrip("/")

    @property
    def printed(self) -> str:
        return self._out.read_text()

    def send(self, sign: signal.Signals) -> None:
        os.kill(self.pid, sign)

    def wait(self) -> int:
        """Wait until it is gone; return how it ended."""
        return int(self._back.readline())


class ForkedServing:
    """Serves, one server at a time, from entering the `with` block to leaving it.

    Args:
        folder: Where the servers work.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        foreign = ("OPENAI", "HITL")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self._folder,
            env={**kept, "PYTHONPATH": SEARCHED},
        )
        self._count = 0
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()  # and with it a server that is still there
        with self._process:
            pass

    def serve(self, *arguments: str) -> Served:
        """Serve at a port that is free, and return when connections are taken."""
        self._count += 1
        out = self._folder / f"out-{self._count}"
        out.touch()
        to, back = cast("IO[str]", self._process.stdin), cast("IO[str]", self._process.stdout)
        to.write(
            json.dumps({"arguments": ["serve", "--port", "0", *arguments], "out": str(out)}) + "\n"
        )
        to.flush()
        return Served(int(back.readline()), out, back)


# --------------------------------------------------------------------------- the other process

IMPORTED = (
    "llama_index_hitl._demo_web",
    "llama_index_hitl.cli",
    "llama_index_hitl.stores.sql",
    "llama_index_hitl.testing",
    "llama_index_hitl.web.serving",
    "aiosqlite",
    "jsonschema",
    "uvicorn.lifespan.on",
    "uvicorn.loops.asyncio",
    "uvicorn.protocols.http.h11_impl",
)


def _serve() -> None:
    """Fork for each server; return in the child only, which is to run it."""
    with os.fdopen(os.dup(0)) as jobs, os.fdopen(os.dup(1), "w") as replies:
        for line in jobs:
            job = json.loads(line)
            child = os.fork()
            if child == 0:
                _become(job)
                return
            signal.signal(signal.SIGTERM, lambda *_, child=child: _end(child))
            for reply in (child, None):
                ended = (
                    os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if reply is None else reply
                )
                replies.write(f"{ended}\n")
                replies.flush()
    sys.exit()


def _end(child: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os._exit(0)


def _become(job: dict[str, Any]) -> None:
    """Make this process as `python -m llama_index_hitl` is before its first line."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.alarm(TIMEOUT)
    for stream, path in ((0, os.devnull), (1, job["out"]), (2, job["out"])):
        opened = os.open(path, os.O_RDWR | os.O_APPEND)
        os.dup2(opened, stream)
        os.close(opened)
    sys.argv = ["-m", *job["arguments"]]


if __name__ == "__main__":
    for module in IMPORTED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # else the collector of each child would copy everything there is
    _serve()
    runpy.run_module("llama_index_hitl", run_name="__main__", alter_sys=True)
