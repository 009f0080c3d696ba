"""Chat: a POST starts a run, or answers, and streams what happens until people are needed again.

Then it says so, and the connection closes: nothing waits while somebody makes up their mind. The
answer, minutes or days later and on any process, is another POST, which streams the rest.

Whoever lost the connection sends the same POST again: the run is the same where it was given an
id, the answer gets the same receipt, and what was told is told again, or, behind the id of the last
event that came, only what was not.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from datetime import timedelta
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import Field
from starlette.requests import Request

from llama_index_hitl.audit import AuditKind
from llama_index_hitl.models import JsonObject, Value
from llama_index_hitl.runner import Receipt
from llama_index_hitl.stores.protocol import Cursor
from llama_index_hitl.web._answering import answer
from llama_index_hitl.web._api import _examples
from llama_index_hitl.web._api._documented import RequestId, failing
from llama_index_hitl.web._api._strict import StrictRoute
from llama_index_hitl.web._api.answers import REFUSALS, AnswerBody
from llama_index_hitl.web._api.runs import NewRunId
from llama_index_hitl.web._running import start
from llama_index_hitl.web._site import site_of
from llama_index_hitl.web._sockets import receipt_data
from llama_index_hitl.web._story import FINAL, Said, Story, Told
from llama_index_hitl.web._streams import After, EventStream, LastEventId, checked_place
from llama_index_hitl.web.people import Person, signed_in

router = APIRouter(prefix="/api", tags=["streams"], route_class=StrictRoute)

_LOOK = timedelta(seconds=1)
"""How often to look whether a run waits: it says nothing when it waits for the same as before."""


class ChatStart(Value):
    """What to start.

    Attributes:
        workflow: Name of the workflow, as `GET /api/workflows` has it.
        inputs: The fields of its start event.
        run_id: Id to give the run, so that the same POST again does not start another one.
    """

    workflow: str
    inputs: JsonObject = Field(default_factory=dict)
    run_id: NewRunId | None = None


_STARTS: dict[str, Any] = {
    "a report": {"value": {"workflow": "report", "inputs": {"topic": "Tides"}, "run_id": "tides-1"}}
}


@router.post(
    "/chat",
    response_class=EventStream,
    status_code=200,
    summary="Start a run, and stream until people are needed",
    responses=failing(
        "unknown_workflow", "run_exists", "too_large", "invalid_start", "invalid_cursor"
    ),
)
async def start_chat(
    request: Request,
    person: Person,
    body: Annotated[ChatStart, Body(openapi_examples=_STARTS)],
    after: After = None,
    last_event_id: LastEventId = None,
) -> EventStream:
    """Start a run, and tell what happens in it until it waits for people, or is over.

    The first event is `run`, with its `run_id`. The others are those of a run; at the end comes
    `input_required` for each request that is open, with everything that it takes to answer it, and
    `waiting`, with the ids of these as `open_requests`: none, where the run waits for others. Or
    the run is over, and the last event says with what.
    """
    site = site_of(request)
    place = await checked_place(site.runner.store, last_event_id, after)
    with ExitStack() as held:
        held.enter_context(site.streams.opened(person))  # nothing is started that is not told of
        run, _ = await start(site, person, body.workflow, body.inputs, run_id=body.run_id)
        site.worker.nudge(run.run_id)
        story = Story(site, partial(signed_in, request), run.run_id)
        if place is not None:
            await _noted(story)
        opening = Said("run", {"run_id": run.run_id, "workflow": run.workflow})
        return EventStream(_chat(story, opening, place), held=held.pop_all())


@router.post(
    "/chat/{request_id}",
    response_class=EventStream,
    status_code=200,
    summary="Answer, and stream until people are needed again",
    responses=failing(*REFUSALS, "invalid_cursor"),
)
async def continue_chat(
    request: Request,
    person: Person,
    request_id: RequestId,
    body: Annotated[AnswerBody, Body(openapi_examples=_examples.ANSWERS)],
    after: After = None,
    last_event_id: LastEventId = None,
) -> EventStream:
    """Answer a request, and tell what happens from there on as when a chat is started.

    The first event is `receipt`: the answer is stored. What is wrong with it is told before that,
    by the status of the response. The answer that was taken already gets the same receipt.
    """
    site = site_of(request)
    place = await checked_place(site.runner.store, last_event_id, after)
    with ExitStack() as held:
        held.enter_context(site.streams.opened(person))
        receipt = await answer(
            site, person, request_id, body.raw(), digest=body.digest, role=body.role, channel="chat"
        )
        story = Story(site, partial(signed_in, request), receipt.run_id)
        before = await _noted(story, receipt)
        opening = Said("receipt", receipt_data(receipt))
        return EventStream(_chat(story, opening, place or before), held=held.pop_all())


async def _noted(story: Story, receipt: Receipt | None = None) -> Cursor | None:
    """Note what the feed says to be asked; return the place before an answer, if there is one."""
    place: Cursor | None = None
    found = False
    async for event in story.past():
        story.note(event)
        found = found or (
            receipt is not None
            and event.kind == AuditKind.ANSWERED
            and event.request_id == receipt.answer.request_id
            and event.at == receipt.answer.at
        )
        if not found:
            place = event.cursor
    return place


async def _chat(story: Story, opening: Said, place: Cursor | None) -> AsyncGenerator[Told, None]:
    """Tell what happens, from a place of the feed, until people are needed or the run is over."""
    yield opening
    last = opening.name
    looks = 0
    async with aclosing(story.told(after=place, within=_LOOK)) as told:
        async for one in told:
            yield one
            if isinstance(one, Said):
                last = one.name
                continue
            waits = await story.waits()
            if waits is None:
                continue
            looks += 1
            if waits.behind and looks == 1:
                continue
            for question in waits.questions:
                yield question
            yield Said("waiting", {"run_id": story.run_id, "open_requests": waits.request_ids})
            return
    if last not in FINAL and (end := await story.end()) is not None:
        yield end
