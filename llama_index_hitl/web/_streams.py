"""Server-Sent Events: what happens in the inbox and in runs, as it happens.

Every event that is kept has the place of the feed as its id. A client that comes back with the last
one it got, as `Last-Event-ID` or `?after=`, to whatever process, misses nothing and gets nothing
twice.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic_core import to_json
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from llama_index_hitl.errors import NotSignedIn, StoreError, UnknownRun
from llama_index_hitl.stores.protocol import Cursor, Store
from llama_index_hitl.web._api._documented import RunId, failing
from llama_index_hitl.web._running import seen_run
from llama_index_hitl.web._site import site_of
from llama_index_hitl.web._story import (
    OVER,
    Pause,
    Said,
    Story,
    Told,
    is_told,
    told_in_inbox,
)
from llama_index_hitl.web.people import Person, signed_in

router = APIRouter(prefix="/api", tags=["streams"])

_RETRY = b"retry: 2000\n\n"
"""Tells browsers to come back after two seconds when the connection is lost."""

After = Annotated[
    str | None,
    Query(max_length=200, description="Go on behind this id of an event; for lack of a header."),
]
LastEventId = Annotated[
    str | None,
    Header(max_length=200, description="Go on behind this id; browsers send it by themselves."),
]


class EventStream(StreamingResponse):
    """Sends what is told as Server-Sent Events, until there is no more or the client has gone.

    Args:
        told: What to send.
        held: Is let go of when it has ended.
    """

    media_type = "text/event-stream"

    def __init__(
        self, told: AsyncGenerator[Told, None], *, held: AbstractContextManager[Any]
    ) -> None:
        # A proxy that gathers what it sends on would keep it back.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(_encoded(told), headers=headers)
        self._told = told
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._held:
            async with aclosing(self._told):
                await super().__call__(scope, receive, send)


async def _encoded(told: AsyncGenerator[Told, None]) -> AsyncGenerator[bytes, None]:
    yield _RETRY
    try:
        async for one in told:
            yield encoded(one)
    except (NotSignedIn, UnknownRun, StoreError):
        return  # whoever comes back is told why


def encoded(told: Told) -> bytes:
    """Return one event as it is sent; a pause is a comment, which keeps the connection open."""
    lines = []
    match told:
        case Said(name=name, data=data):
            lines += [b"event: " + name.encode(), b"data: " + on_one_line(data)]
        case Pause():
            lines.append(b":")
    if told.cursor is not None:
        lines.append(b"id: " + told.cursor.encode())
    return b"\n".join(lines) + b"\n\n"


def on_one_line(data: object) -> bytes:
    """Return JSON on one line."""
    return to_json(data)


async def checked_place(
    store: Store, last_event_id: str | None, after: str | None, *, run_id: str | None = None
) -> Cursor | None:
    """Return the place behind which a client wants to go on; None: it says none.

    Raises:
        InvalidCursor: It is no place in a feed.
    """
    place = last_event_id or after or None
    if place is not None:
        await store.feed(run_id=run_id, after=place, limit=1)
    return place


@router.get(
    "/inbox/events",
    response_class=EventStream,
    status_code=200,
    summary="What happens to requests, as it happens",
    responses=failing("invalid_cursor"),
)
async def inbox_events(
    request: Request,
    person: Person,
    after: After = None,
    last_event_id: LastEventId = None,
) -> EventStream:
    """Tell what happens to the requests that you may see.

    The name of an event says what has happened: `opened`, `answered`, `rule_decided`, `reminded`,
    `widened`, `escalated`, `defaulted`, `expired`, `superseded`, `withdrawn`, `reopened`,
    `claimed`, `released`, `spot_checked`. Its data are `request_id`, `run_id`, `at`, and `summary`:
    the request as it stands now, for you.

    Without an id to go on behind, the first event is `state`, with an id and without news: what you
    read after it came is as new as the events that follow. Comments, at least every 15 seconds,
    keep the connection open.
    """
    site = site_of(request)
    place = await checked_place(site.runner.store, last_event_id, after)
    who = partial(signed_in, request)

    async def told() -> AsyncGenerator[Told, None]:
        if place is None:
            yield Said("state", {"at": site.clock().isoformat()}, begin)
        async with aclosing(told_in_inbox(site, who, begin)) as all_told:
            async for one in all_told:
                yield one

    begin = place or await site.runner.store.feed_end()
    return EventStream(told(), held=site.streams.opened(person))


@router.get(
    "/runs/{run_id}/events",
    response_class=EventStream,
    status_code=200,
    summary="What happens in a run, as it happens",
    responses={
        204: {"description": "The run is over, and you were told all of it."},
        **failing("unknown_run", "invalid_cursor"),
    },
)
async def run_events(
    request: Request,
    person: Person,
    run_id: RunId,
    after: After = None,
    last_event_id: LastEventId = None,
) -> Response:
    """Tell what happens in a run, from its beginning or from where you were, until it is over.

    - `started`, `retried`: `run_id`, `at`;
    - `progress`: what the run says, with `type`, `message`, `data`, `at`;
    - `delta`: `text` as it is being written, which is not kept, and is told only where the run is
      at work in the process that you are connected to;
    - `input_required`: `request_id`, `run_id`, `at`, and `request`, with everything that it takes
      to answer it. It is told of requests that are open now; of others it is `opened` or
      `reopened`;
    - `answered`, `rule_decided`: who (`by`) decided what (`kind`), and the `summary` of the
      request;
    - whatever else happens to a request, as in the inbox;
    - `final_result`: `result`, or why it is `withheld`; `failed`: `error`; `cancelled`. After one
      of these the stream ends; a browser that comes back all the same gets 204 and stays away.

    Where fields of a request are hidden from you, so is what the run says and comes to.
    """
    site = site_of(request)
    store = site.runner.store
    seen = await seen_run(site, person, run_id)
    place = await checked_place(store, last_event_id, after, run_id=run_id)
    if place is not None and seen.run.status in OVER and await is_told(store, run_id, place):
        return Response(status_code=204)
    story = Story(site, partial(signed_in, request), run_id)
    return EventStream(story.told(after=place), held=site.streams.opened(person))
