"""The application: everything that is served, put together from a runner and a sign-in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from llama_index_hitl._extras import require
from llama_index_hitl.clock import Clock, utc_now

require("fastapi", extra="web", purpose="the web inbox")

from fastapi import FastAPI  # noqa: E402 - the missing extra is told first

from llama_index_hitl.web import _chat, _failures, _sockets, _streams  # noqa: E402
from llama_index_hitl.web._hub import Hub  # noqa: E402
from llama_index_hitl.web._site import Site  # noqa: E402
from llama_index_hitl.web._worker import StartsWorker, Worker  # noqa: E402
from llama_index_hitl.web.visibility import Visibility  # noqa: E402

if TYPE_CHECKING:
    from llama_index_hitl.runner import Runner
    from llama_index_hitl.web.people import Authenticate


def create_app(
    runner: Runner,
    *,
    authenticate: Authenticate,
    visibility: Visibility | None = None,
    works: bool = True,
    title: str = "Reviews",
    clock: Clock = utc_now,
) -> FastAPI:
    """Return the application: pages, API and streams, without globals.

    It can be served by itself, or mounted under any path of another application; there it starts
    what it needs with the first request.

    Args:
        runner: Starts runs, takes answers, reads the store; it stays yours to close.
        authenticate: Says who sends a request.
        visibility: Says who sees what; by default people see what they are asked or started.
        works: Also sweep, recover and notify in this process, again and again.
        title: What the pages are called.
        clock: Where the time comes from; give the runner's.
    """
    hub = Hub(runner.store)
    runner.add_watch(hub.overhear)
    worker = Worker(runner, works=works, ring=hub.ring)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        worker.start()
        try:
            yield
        finally:
            await hub.close()
            await worker.close()

    app = FastAPI(title=title, lifespan=lifespan)
    app.state.site = Site(
        runner=runner,
        authenticate=authenticate,
        visibility=visibility or Visibility(),
        hub=hub,
        worker=worker,
        clock=clock,
        title=title,
    )
    for module in (_streams, _sockets, _chat):
        app.include_router(module.router)
    _failures.install(app)
    app.add_middleware(StartsWorker, worker=worker)
    return app
