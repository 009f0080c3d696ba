"""The application: everything that is served, put together from a runner and a sign-in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from llama_index_hitl._extras import require
from llama_index_hitl.clock import Clock, utc_now

require("fastapi", extra="web", purpose="the web inbox")

# Forms load this with the first of them: here, for where a library that it uses for formats is
# installed, that takes seconds, in which a server at work would do nothing else.
import jsonschema  # noqa: E402, F401
from fastapi import FastAPI  # noqa: E402 - the missing extra is told first

from llama_index_hitl.progress import keep_progress  # noqa: E402
from llama_index_hitl.web import (  # noqa: E402
    _chat,
    _failures,
    _link_pages,
    _sign_in,
    _sockets,
    _streams,
)
from llama_index_hitl.web._api import api  # noqa: E402
from llama_index_hitl.web._guards import GuardedApplication  # noqa: E402
from llama_index_hitl.web._hub import Hub  # noqa: E402
from llama_index_hitl.web._pages import (  # noqa: E402
    Assets,
    audit,
    bulk,
    inbox,
    requests,
    runs,
    start,
)
from llama_index_hitl.web._pages.failures import failure_page  # noqa: E402
from llama_index_hitl.web._site import Site  # noqa: E402
from llama_index_hitl.web._worker import Worker  # noqa: E402
from llama_index_hitl.web.limits import Limits, Streams  # noqa: E402
from llama_index_hitl.web.tokens import NamedTokens  # noqa: E402
from llama_index_hitl.web.visibility import Visibility  # noqa: E402

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from llama_index_hitl.runner import Runner
    from llama_index_hitl.web.links import AnswerLinks
    from llama_index_hitl.web.people import Authenticate

_ROUTERS = (
    _streams.router,
    _sockets.router,
    _chat.router,
    inbox.router,
    requests.router,
    bulk.router,
    start.router,
    runs.router,
    audit.router,
)


def create_app(
    runner: Runner,
    *,
    authenticate: Authenticate | NamedTokens,
    visibility: Visibility | None = None,
    works: bool = True,
    title: str = "Reviews",
    clock: Clock = utc_now,
    secrets: Sequence[str] | None = None,
    session_length: timedelta = timedelta(hours=12),
    limits: Limits | None = None,
    links: AnswerLinks | None = None,
    allowed_hosts: Iterable[str] | None = None,
) -> FastAPI:
    """Return the application: pages, API and streams, without globals.

    It can be served by itself, or mounted under any path of another application; there it starts
    what it needs with the first request. Nobody tells it there that the server stops, and what it
    has begun ends with the event loop; to end it in good order, hold its lifespan within yours:

        @asynccontextmanager
        async def lifespan(app):
            async with reviews.router.lifespan_context(reviews):
                yield

    If its process dies, requests, answers, claims and links are in the store, and any process that
    `works` goes on with the runs. Lost are the counts of failed sign-ins, and sessions where no
    `secrets` are given.

    Args:
        runner: Starts runs, takes answers, reads the store; it stays yours to close. What its runs
            say on their streams is kept from now on, see `keep_progress`.
        authenticate: Says who sends a request: a function of yours, which gets the connection and
            returns a reviewer, or None for nobody; or `NamedTokens`, with a page to sign in on.
        visibility: Says who sees what; by default people see what they are asked or started.
        works: Also sweep, recover and notify in this process, again and again.
        title: What the pages are called.
        clock: Where the time comes from; give the runner's.
        secrets: What sessions are signed with, each of 32 characters at least, at random. The first
            one signs, all are good to check with: to rotate, put a new one in front, and take the
            old one out after `session_length`. None: one at random, which nobody else has, so
            sessions end with this process, and other processes know nothing of them.
        session_length: How long people stay signed in, with `NamedTokens`.
        limits: How much one client may send, try and hold open.
        links: Makes and reads the signed links that are good here; None: there are none.
        allowed_hosts: The names, without a port, under which it is served, for applications that
            let in whoever can reach them: a page elsewhere can make its own name lead here, but
            comes under that name. None: any.

    Raises:
        WeakSecret: A secret is too short.

    Example:
        >>> import httpx
        >>> from llama_index_hitl.runner import Runner
        >>> from llama_index_hitl.stores import MemoryStore
        >>> tokens = NamedTokens({"hitl_" + "t" * 32: Reviewer(id="erin")})
        >>> app = create_app(Runner(MemoryStore()), authenticate=tokens, works=False)
        >>> async def main():
        ...     headers = {"Authorization": "Bearer hitl_" + "t" * 32}
        ...     transport = httpx.ASGITransport(app)
        ...     async with httpx.AsyncClient(transport=transport, headers=headers) as client:
        ...         return (await client.get("http://127.0.0.1/api/requests")).json()["items"]
        >>> asyncio.run(main())
        []
    """
    limits = limits or Limits()
    sign_in = None
    if isinstance(authenticate, NamedTokens):
        sign_in = _sign_in.SignIn(
            authenticate, secrets, length=session_length, limits=limits, clock=clock
        )
        authenticate = sign_in
    hub = Hub(runner.store)
    worker = Worker(runner, works=works, ring=hub.ring)
    keep_progress(runner)
    unwatch = runner.add_watch(hub.overhear)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        worker.start()
        try:
            yield
        finally:
            unwatch()
            await hub.close()
            await worker.close()

    # Their pages of documentation load scripts from elsewhere.
    app = _Application(title=title, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.site = Site(
        runner=runner,
        authenticate=authenticate,
        visibility=visibility or Visibility(),
        hub=hub,
        worker=worker,
        clock=clock,
        title=title,
        limits=limits,
        streams=Streams(limits),
        sign_in=sign_in,
        links=links,
        allowed_hosts=None if allowed_hosts is None else frozenset(allowed_hosts),
    )
    # The pages first: `path('cancel_run')` in a template is theirs, not that of the API.
    for router in _ROUTERS:
        app.include_router(router)
    app.include_router(api())
    if sign_in is not None:
        app.include_router(_sign_in.router)
    if links is not None:
        app.include_router(_link_pages.router)
    app.mount("/static", Assets(), name="static")
    _failures.install(app, failure_page)
    return app


class _Application(GuardedApplication):
    """An application that begins to work with the first request, wherever it is mounted."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            self.state.site.worker.start()
        await super().__call__(scope, receive, send)
