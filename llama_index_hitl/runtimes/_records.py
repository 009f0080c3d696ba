"""What is stored of a run about its requests: which are open, and what became of the others."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import TypeAlias

from llama_agents.server import AbstractWorkflowStore
from workflows import Workflow
from workflows.events import Event

from llama_index_hitl._ledger import BUFFER, Ledger, newest_of_all, number_of
from llama_index_hitl.events import ReviewRefusedEvent, ReviewUpdatedEvent
from llama_index_hitl.lifecycle import open_record
from llama_index_hitl.models import (
    UNCHECKED,
    JsonObject,
    RequestStatus,
    ReviewRecord,
    ReviewRequest,
)
from llama_index_hitl.runtimes._upstream import (
    InternalStepWorkerState,
    events_from,
    state_of,
    steps_of,
)
from llama_index_hitl.snapshots import requests_of_child

Verdict: TypeAlias = ReviewUpdatedEvent | ReviewRefusedEvent
"""What a run says about an answer."""

_VERDICTS: dict[str, type[Verdict]] = {
    kind.__name__: kind for kind in (ReviewUpdatedEvent, ReviewRefusedEvent)
}
_ANSWERED = ":answer"


async def open_records(
    store: AbstractWorkflowStore, workflow: Workflow, run_id: str
) -> dict[str, ReviewRecord]:
    """Return the open requests of a run by id, whether or not it is in memory.

    They are read from what the run itself goes on from, so that none can be missing; except for
    those that the run has told to be closed and is about to write down so.
    """
    state = await state_of(store, workflow, run_id)
    told, _ = await told_of(store, run_id)
    records = (record for step in steps_of(state) for record in _open_in(step))
    return {
        record.request.request_id: record
        for record in records
        if told.get(record.request.request_id, record).status is RequestStatus.OPEN
    }


def _open_in(step: InternalStepWorkerState) -> Iterator[ReviewRecord]:
    """Yield what one step has asked: a gate, or any step that asks inline."""
    waiting = {waiter.waiter_id for waiter in step.collected_waiters}
    buffers = step.collected_events
    for name, events in buffers.items():
        memory = _memory_in(events)
        if memory is None:
            continue
        if name == BUFFER:
            ledger = Ledger.model_validate(memory, context=UNCHECKED)
            yield from (review.record for review in ledger.open.values())
        elif _is_question(name, memory) and not buffers.get(name + _ANSWERED):
            request = ReviewRequest.model_validate(memory)
            if request.request_id in waiting:  # else it was worded, and comes after another one
                yield open_record(request)
    for memory in newest_of_all(buffers):
        asked = (request.record for request in requests_of_child(memory))
        yield from (record for record in asked if record.request_id in waiting)


def _memory_in(events: Iterable[Event]) -> JsonObject | None:
    return next((event.get("memory") for event in events), None)


def _is_question(name: str, memory: JsonObject) -> bool:
    """Tell a request from what else a waiting step remembers, such as a guarded tool's call."""
    ours = name.startswith(f"{BUFFER}:") and not (name.endswith(_ANSWERED) or number_of(name))
    return ours and "request_id" in memory


async def told_of(store: AbstractWorkflowStore, run_id: str) -> tuple[dict[str, ReviewRecord], int]:
    """Return what a run has told about its requests.

    Returns:
        Each request that was answered or closed, as it was told about last, by id; and the position
        behind the last thing that the run has said about anything.
    """
    told: dict[str, JsonObject] = {}
    position = -1
    for stored in await store.query_events(run_id):
        position = stored.sequence
        if stored.event.type == ReviewUpdatedEvent.__name__:
            record = stored.event.value["record"]
            told[record["request"]["request_id"]] = record
    # Digests are checked when an answer comes, of the one request that it is for.
    records = {
        key: ReviewRecord.model_validate(record, context=UNCHECKED) for key, record in told.items()
    }
    return records, position


async def verdicts(
    store: AbstractWorkflowStore, run_id: str, after: int
) -> AsyncGenerator[Verdict, None]:
    """Yield what a run says about answers, from a position on, until the run ends."""
    async for stored in events_from(store, run_id, after):
        kind = _VERDICTS.get(stored.event.type)
        if kind is not None:
            yield kind.model_validate(stored.event.value)
