"""Serves the application: one process, one port, until it is told to stop.

- `serve`: until the process is told to stop;
- `serving`: while a block of code lasts, in a notebook or a test.
"""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from types import FrameType

from llama_index_hitl._extras import require
from llama_index_hitl.errors import CannotListen

require("uvicorn", extra="web", purpose="serving the web inbox")

import uvicorn  # noqa: E402 - the missing extra is told first
from fastapi import FastAPI  # noqa: E402

from llama_index_hitl.web._site import Site  # noqa: E402

GRACE = 3
"""Seconds that answers under way are waited for when the server is told to stop."""


def is_loopback(host: str) -> bool:
    """Tell whether only programs on this machine can reach an address.

    Args:
        host: A name or an address. Of a name other than `localhost` nothing is assumed.
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that takes connections.

    Args:
        host: The address to listen at; a name stands for the first address it has.
        port: The port; 0: any that is free.

    Raises:
        CannotListen: Somebody else is there, or this may not be done here.
    """
    try:
        family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError, OverflowError) as error:
        raise CannotListen(host, port, error) from error


def url_of(listening: socket.socket, root_path: str = "") -> str:
    """Return the address to open in a browser on this machine."""
    host, port, *_ = listening.getsockname()
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - only compared
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}{root_path}/"


async def serve(
    app: FastAPI,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    root_path: str = "",
    access_log: bool = False,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve an application that `create_app` made, until SIGINT or SIGTERM.

    Then no connection is taken any more, open streams end at once, and answers that are under way
    are waited for, `GRACE` seconds at most; a second SIGINT does not wait. Runs at work are given
    back to the store, where `recover` of any process finds them.

    Args:
        app: The application.
        host: The address to listen at.
        port: The port; 0: any that is free.
        root_path: Where a proxy in front of it shows it, such as `/reviews`.
        access_log: Write a line for each request to the logger `uvicorn.access`.
        ready: Is told the address, once connections are taken.

    Raises:
        CannotListen: Somebody else is there, or this may not be done here.
    """
    with listen(host, port) as listening:
        server = _Server(app, root_path=root_path, access_log=access_log)
        if ready is not None:
            ready(url_of(listening, root_path))
        await server.serve(sockets=[listening])


@asynccontextmanager
async def serving(
    app: FastAPI, *, host: str = "127.0.0.1", port: int = 0, root_path: str = ""
) -> AsyncIterator[str]:
    """Serve an application while a block lasts, beside what else runs on this event loop.

    For notebooks and tests: signals stay whose they are, and at the end of the block it stops as
    `serve` does. Runs and requests stay in the store.

    Args:
        app: The application, of `create_app` or any other.
        host: The address to listen at.
        port: The port; 0: any that is free.
        root_path: Where a proxy in front of it shows it, such as `/reviews`.

    Yields:
        The address to open in a browser on this machine, with a slash at its end.

    Raises:
        CannotListen: Somebody else is there, or this may not be done here.

    Example:
        async with serving(create_app(runner, authenticate=who)) as url:
            ...
    """
    with listen(host, port) as listening:
        server = _Beside(app, root_path=root_path)
        task = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            # Until it takes them, connections wait.
            yield url_of(listening, root_path)
        finally:
            server.should_exit = True
            await task


class _Server(uvicorn.Server):
    """Ends streams first: each of them would be waited for to the end of the grace."""

    def __init__(self, app: FastAPI, *, root_path: str, access_log: bool = False) -> None:
        config = uvicorn.Config(
            app,
            root_path=root_path,
            access_log=access_log,
            log_config=None,
            lifespan="on",
            server_header=False,
            timeout_graceful_shutdown=GRACE,
            ws="websockets-sansio",
        )
        super().__init__(config)
        self._site: Site | None = getattr(app.state, "site", None)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; the signal is not raised again afterwards, for to be stopped is no failure."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what follows the store, then the connections."""
        if self._site is not None:
            await self._site.hub.close()
        await super().shutdown(sockets)


class _Beside(_Server):
    """Stops at the end of a block; signals are for whoever has begun it."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Leave them alone."""
        return nullcontext()
