"""Chat: a POST starts a run, or answers, and streams what happens until people are needed again.

Then it says so, and the connection closes: nothing waits while somebody makes up their mind. The
answer, minutes or days later and on any process, is another POST, which streams the rest.

Whoever lost the connection sends the same POST again: the run is the same where it was given an
id, the answer gets the same receipt, and what was told is told again, or, behind the id of the last
event that came, only what was not.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from llama_index_hitl.audit import AuditKind
from llama_index_hitl.models import JsonObject, Reviewer
from llama_index_hitl.runner import Receipt
from llama_index_hitl.stores.paging import all_requests
from llama_index_hitl.stores.protocol import Cursor, RequestQuery, RunStatus, StoredRequest
from llama_index_hitl.web._answering import answer
from llama_index_hitl.web._begin import begin_run
from llama_index_hitl.web._site import Site, site_of
from llama_index_hitl.web._sockets import receipt_data
from llama_index_hitl.web._story import Pause, Said, Story, Told, whole_feed
from llama_index_hitl.web._streams import After, EventStream, LastEventId, checked_place
from llama_index_hitl.web.people import Person, signed_in

router = APIRouter(prefix="/api", tags=["streams"])

_LOOK = timedelta(seconds=1)
"""How often to look whether a run waits: it says nothing when it waits for the same as before."""

_FINAL = frozenset({"final_result", "failed", "cancelled"})


class ChatStart(BaseModel):
    """Starts a run.

    Attributes:
        workflow: Name of the workflow.
        inputs: The fields of its start event.
        run_id: Id to give the run, so that the same POST again does not start another one.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"workflow": "report", "inputs": {"topic": "Tides"}, "run_id": "tides-1"}]
        },
    )

    workflow: str = Field(max_length=200)
    inputs: JsonObject = Field(default_factory=dict)
    run_id: str | None = Field(default=None, min_length=1, max_length=200)


class ChatAnswer(BaseModel):
    """Answers a request. The fields of the decision stand beside these.

    Attributes:
        decision: The decision, such as `approve`.
        digest: Digest of the request that it is about.
        role: In which role, where it matters.
    """

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [{"decision": "approve", "digest": "b1946ac92492d234", "comment": "Good."}]
        },
    )

    decision: str = Field(max_length=200)
    digest: str = Field(max_length=200)
    role: str | None = Field(default=None, max_length=200)


@router.post(
    "/chat", response_class=EventStream, summary="Start a run, and stream until people are needed"
)
async def start_chat(
    request: Request,
    person: Person,
    body: ChatStart,
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
    run = await begin_run(site, person, body.workflow, body.inputs, body.run_id)
    place = await checked_place(site.runner.store, last_event_id, after, run_id=run.run_id)
    opening = Said("run", {"run_id": run.run_id, "workflow": run.workflow})
    return await _stream(site, request, person, run.run_id, opening, place, None)


@router.post(
    "/chat/{request_id}",
    response_class=EventStream,
    summary="Answer, and stream until people are needed again",
)
async def continue_chat(
    request: Request,
    person: Person,
    request_id: str,
    body: ChatAnswer,
    after: After = None,
    last_event_id: LastEventId = None,
) -> EventStream:
    """Answer a request, and tell what happens from there on as when a chat is started.

    The first event is `receipt`: the answer is stored. What is wrong with it is told before that,
    by the status of the response. The answer that was taken already gets the same receipt.
    """
    site = site_of(request)
    given = await checked_place(site.runner.store, last_event_id, after)
    fields = {"decision": body.decision, **(body.model_extra or {})}
    receipt = await answer(
        site, person, request_id, fields, digest=body.digest, role=body.role, channel="chat"
    )
    opening = Said("receipt", receipt_data(receipt))
    return await _stream(site, request, person, receipt.run_id, opening, given, receipt)


async def _stream(
    site: Site,
    request: Request,
    person: Reviewer,
    run_id: str,
    opening: Said,
    given: Cursor | None,
    receipt: Receipt | None,
) -> EventStream:
    async def who() -> Reviewer:
        return await signed_in(request)

    story = Story(site, who, run_id)
    place = await _place(site, story, receipt) if receipt is not None or given else None
    told = _until_people_are_needed(site, who, story, opening, given or place)
    return EventStream(told, held=site.streams.opened(person))


async def _place(site: Site, story: Story, receipt: Receipt | None) -> Cursor | None:
    """Return the place before an answer; note what the feed says to be asked."""
    place: Cursor | None = None
    found = False
    async for event in whole_feed(site.runner.store, story.run_id):
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


async def _until_people_are_needed(
    site: Site, who: Any, story: Story, opening: Said, place: Cursor | None
) -> AsyncGenerator[Told, None]:
    yield opening
    last = ""
    looks = 0
    async with aclosing(story.told(after=place, within=_LOOK)) as told:
        async for one in told:
            yield one
            if not isinstance(one, Pause):
                last = one.name
                continue
            left = await site.hub.patiently(partial(_waits_for, site, story.run_id))
            if left is None:
                continue
            looks += 1
            if looks == 1 and not {r.request_id for r in left} <= story.asked:
                continue  # the feed does not say yet what the store says
            for said in _questions(site, await who(), story, left):
                yield said
            return
    if last not in _FINAL and (end := await site.hub.patiently(story.end)) is not None:
        yield end


async def _waits_for(site: Site, run_id: str) -> list[StoredRequest] | None:
    """Return what a run waits for; None: it does not wait."""
    store = site.runner.store
    if await store.messages(run_id):
        return None
    run = await store.run(run_id)
    if run is None or run.status is not RunStatus.WAITING:
        return None
    return [stored async for stored in all_requests(store, RequestQuery(run_id=run_id))]


def _questions(site: Site, person: Reviewer, story: Story, left: list[StoredRequest]) -> list[Said]:
    """Return how somebody is asked what they were not asked yet, and that the run waits."""
    shown = [s for s in (site.visibility.shown(person, one) for one in left) if s is not None]
    asked = [story.question(person, one) for one in shown if one.request_id not in story.shown]
    ids = [one.request_id for one in shown]
    return [*asked, Said("waiting", {"run_id": story.run_id, "open_requests": ids})]
