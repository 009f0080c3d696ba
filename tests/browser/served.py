"""A real server on a port of its own: in this process, or in one that can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import uvicorn

HERE = Path(__file__).parent

SEARCHED = os.pathsep.join((str(HERE.parent.parent), str(HERE.parent), str(HERE)))
"""Where Python finds this package and the modules of the tests, whatever the directory is."""


Serve: TypeAlias = Callable[..., Awaitable[str]]
"""Takes an application, and returns the address at which it is served, without a slash."""


class _Server(uvicorn.Server):
    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()  # signals are for pytest


@asynccontextmanager
async def served(app: Any, *, root_path: str = "") -> AsyncIterator[str]:
    """Serve an application beside the test, on its loop; gives the address, without a slash."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(
            app,
            root_path=root_path,
            log_config=None,
            lifespan="on",
            ws="websockets-sansio",
            timeout_graceful_shutdown=2,
        )
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}{root_path}"
        finally:
            server.should_exit = True
            await task


class Process:
    """A server in a process of its own, which can be killed and started again at the same place.

    Args:
        *arguments: What `desk_process.py` takes after the port.
    """

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._process: asyncio.subprocess.Process | None = None

    @property
    def base(self) -> str:
        """Address of the application, without a slash."""
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(HERE / "desk_process.py"),
            str(self._port),
            *self._arguments,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": SEARCHED},
        )
        assert self._process.stdout is not None
        said = await self._process.stdout.readline()
        assert said == b"ready\n", f"The server ended with {await self._process.wait()}."

    async def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        if self._process is not None:
            await self._process.communicate()
        self._process = None


@asynccontextmanager
async def process_of(*arguments: str) -> AsyncIterator[Process]:
    """Start a server in a process of its own, and end it in the end."""
    process = Process(*arguments)
    try:
        await process.start()
        yield process
    finally:
        await process.kill()
