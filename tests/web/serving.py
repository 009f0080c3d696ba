"""A real server of the application, on 127.0.0.1 and a port of its own.

    async with serving(app) as url:             # in the event loop of the test
    with serving_in_thread(make_app) as url:    # in a thread, for clients that block
    with ServerProcess(store_url) as server:    # in a process, which can be killed

Run as a script, it is that process: it serves the example workflows on a store until it is told to
stop. Whoever sends `X-Person: alice`, and perhaps `X-Roles: chief,legal`, is believed.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn
from fastapi import FastAPI
from starlette.requests import HTTPConnection

from llama_index_hitl.models import Reviewer
from llama_index_hitl.notifiers import Notifier, WebhookNotifier
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import SqlStore
from llama_index_hitl.web import create_app

SECRET = "whsec_" + base64.b64encode(b"a secret of webhooks, in tests").decode()

TESTS = Path(__file__).parents[1]


def by_header(connection: HTTPConnection) -> Reviewer | None:
    """Believe who somebody says they are."""
    name = connection.headers.get("x-person")
    roles = connection.headers.get("x-roles", "")
    return None if name is None else Reviewer(id=name, roles=tuple(filter(None, roles.split(","))))


def as_person(name: str, *roles: str) -> dict[str, str]:
    """Return the headers of somebody."""
    return {"X-Person": name, "X-Roles": ",".join(roles)}


class Server(uvicorn.Server):
    """Serves until `stop`, and leaves the signals of the process alone."""

    def __init__(self, app: FastAPI) -> None:
        config = uvicorn.Config(
            app,
            lifespan="on",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=5,
            ws="websockets-sansio",
        )
        super().__init__(config)
        self._site = app.state.site
        self._stopping = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self._stopping.wait()

    def stop(self) -> None:
        self._stopping.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._site.hub.close()
        await super().shutdown(sockets)


@contextlib.asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """Serve while the block lasts; give the address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Server(app)
        task = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            # Connections wait in the backlog until it takes them.
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.stop()
            await task


@contextlib.contextmanager
def serving_in_thread(make: Callable[[], FastAPI]) -> Iterator[str]:
    """Serve what is made in another thread while the block lasts; give the address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        made: list[tuple[Server, asyncio.AbstractEventLoop]] = []
        ready = threading.Event()

        async def serve() -> None:
            server = Server(make())
            made.append((server, asyncio.get_running_loop()))
            ready.set()
            await server.serve(sockets=[listening])

        def run() -> None:
            try:
                asyncio.run(serve())
            finally:
                ready.set()

        thread = threading.Thread(target=run)
        thread.start()
        ready.wait()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            for server, loop in made:
                loop.call_soon_threadsafe(server.stop)
            thread.join()


class ServerProcess:
    """Serves the example workflows on a store, in a process of its own.

    Args:
        store: URL or path of the store.
        *options: `works=no`: neither sweep, recover nor notify; `notify=URL`: notices go there;
            `notify=`: they are kept for another process.
        script: What to run: it is given the store and the options, and prints its address.
    """

    def __init__(self, store: str, *options: str, script: Path = Path(__file__)) -> None:
        paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", str(script), store, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )
        self._url = ""

    @property
    def url(self) -> str:
        """Where it serves; waits until it does."""
        if not self._url:
            assert self._process.stdout is not None
            self._url = self._process.stdout.readline().strip()
            if not self._url:
                raise RuntimeError(f"the server did not start:\n{self._process.communicate()[1]}")
        return self._url

    def kill(self) -> None:
        """End it at this instant, whatever it is doing."""
        self._process.kill()
        self._process.communicate()

    def stop(self, *, within: float = 10) -> tuple[int, str]:
        """Tell it to stop; return its exit code and what it said of errors."""
        self._process.send_signal(signal.SIGTERM)
        _, said = self._process.communicate(timeout=within)
        return self._process.returncode, said

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self.kill()


async def main(store_url: str, *options: str) -> None:
    """Serve until SIGTERM."""
    from essays import Essay

    store = SqlStore(store_url)
    given = dict(option.split("=", 1) for option in options)
    notifiers: list[Notifier] | None = None
    if "notify" in given:
        # Who has no address keeps what is to be told, for a process that has one.
        target = given["notify"]
        notifiers = [WebhookNotifier(target, SECRET)] if target else []
    runner = Runner(store, {"essay": Essay(timeout=None)}, notifiers=notifiers)
    app = create_app(runner, authenticate=by_header, works=given.get("works") != "no")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Server(app)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.stop)
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)  # noqa: T201
        await server.serve(sockets=[listening])
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
