"""What a gate remembers: everything that is open, and of the rest no more than it needs."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError
from workflows import Workflow, step
from workflows.events import Event, StartEvent, StopEvent, WorkflowIdleEvent
from workflows.handler import WorkflowHandler

from llama_index_hitl import Approved, Review, ReviewRequestEvent, Revise, Revision
from llama_index_hitl._ledger import Ledger


class Page(Event):
    number: int
    text: str


class Book(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> list[Page]:
        return [Page(number=n, text="x" * 500) for n in range(ev.pages)]

    @step
    async def again(self, ev: Revision) -> Page:
        return Page(number=ev.subject.number, text="y" * 500)

    check = Review(Page, key="number", revise=Revision)

    @step
    async def done(self, ev: Approved) -> StopEvent:
        return StopEvent()


async def until_idle(handler: WorkflowHandler, least: int) -> list[ReviewRequestEvent]:
    asked: list[ReviewRequestEvent] = []
    async for event in handler.stream_events(expose_internal=True):
        if isinstance(event, ReviewRequestEvent):
            asked.append(event)
        if isinstance(event, WorkflowIdleEvent) and len(asked) >= least:
            break
    return asked


async def test_more_drafts_under_revision_than_closed_requests_are_remembered() -> None:
    handler = Book(timeout=None).run(pages=50)
    first = await until_idle(handler, 50)
    for event in first:
        handler.ctx.send_event(event.answer(Revise(feedback="better"), by="erin"))
    second = await until_idle(handler, 50)
    assert [event.request.revision for event in second] == [2] * 50
    assert {e.request.supersedes for e in second} == {e.request_id for e in first}
    await handler.cancel_run()


async def test_a_memory_of_another_version_is_refused() -> None:
    with pytest.raises(ValidationError, match="schema_version"):
        Ledger.model_validate({**Ledger().model_dump(mode="json"), "schema_version": 2})


async def test_what_a_run_carries_along_does_not_grow_with_its_rounds() -> None:
    handler = Book(timeout=None).run(pages=1)
    sizes: dict[int, int] = {}
    (event,) = await until_idle(handler, 1)
    for round_number in range(1, 61):
        handler.ctx.send_event(event.answer(Revise(feedback="better"), by="erin"))
        (event,) = await until_idle(handler, 1)
        if round_number in (40, 60):
            state = handler.ctx.to_dict()["workers"]["check_gate"]["collected_events"]
            sizes[round_number] = len(json.dumps(state))
    assert sizes[60] == sizes[40]
    await handler.cancel_run()
