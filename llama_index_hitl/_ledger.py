"""What a gate remembers of a run, kept where upstream keeps what a step has collected.

A gate must not use `ctx.store`: a typed state has no room for it, and a step that writes back a
whole state, or clears it, would wipe out open questions. The collect buffer of the gate's own step
belongs to nobody else, is part of every snapshot and journal on every runtime, and changes only
when the step that changes it completes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

from pydantic import AwareDatetime, Field
from workflows import Context
from workflows.events import Event, InputRequiredEvent

from llama_index_hitl._upstream import collected_by, execution_of_step, has_collected
from llama_index_hitl.models import (
    UNCHECKED,
    Answer,
    Identifier,
    JsonObject,
    RequestStatus,
    ReviewRecord,
    ReviewRequest,
    Value,
    digest_of,
)

_CLOSED_LIMIT = 32
"""Closed requests, and things under review, that a gate remembers; older ones are forgotten.

What a run carries along must not grow with the number of its rounds.
"""


class OpenReview(Value):
    """A request that waits for answers.

    Attributes:
        record: The request with the answers so far.
        proposal: The event under review, as upstream's serializer writes it.
        subject_field: The field of it that is the subject; None: the event itself.
        thread: What the drafts of one thing under review have in common.
        earlier: The requests that this one took the place of by an edit or an escalation, in order.
    """

    record: ReviewRecord
    proposal: JsonObject
    subject_field: str | None = None
    thread: str = ""
    earlier: tuple[ReviewRecord, ...] = ()


class AwaitedRevision(Value):
    """A request that was sent back and waits for the next draft."""

    request: ReviewRequest
    thread: str = ""


class ClosedReview(Value):
    """What is left of a closed request: enough to refuse a late answer by name.

    Attributes:
        request_id: The request.
        status: How it stands.
        by: Who gave the last answer; None: nobody gave one.
        at: When that was, or when the request was closed without one.
        given: A fingerprint of each answer, to know it when it comes again.
        superseded_by: The request that took its place.
    """

    request_id: Identifier
    status: RequestStatus
    by: str | None = None
    at: AwareDatetime
    given: tuple[str, ...] = ()
    superseded_by: str | None = None

    def has(self, answer: Answer) -> bool:
        """Tell whether this very answer was given before."""
        return _fingerprint(answer) in self.given


def _fingerprint(answer: Answer) -> str:
    return digest_of([answer.by.id, answer.decision.model_dump(mode="json")])[:16]


class Ledger(Value):
    """Everything that one gate remembers of one run.

    Attributes:
        schema_version: Version of this schema.
        open: Requests that wait for answers, by id.
        awaiting: Requests that were sent back, by id, until the next draft comes.
        closed: Closed requests, oldest first.
        asked: How many requests were made so far.
    """

    schema_version: Literal[1] = 1
    open: dict[str, OpenReview] = Field(default_factory=dict)
    awaiting: dict[str, AwaitedRevision] = Field(default_factory=dict)
    closed: tuple[ClosedReview, ...] = ()
    asked: int = 0

    def knows(self, request_id: Any) -> bool:
        """Tell whether a request of this gate, open or closed, has this id."""
        known = isinstance(request_id, str)
        return known and (request_id in self.open or self.closed_review(request_id) is not None)

    def closed_review(self, request_id: str) -> ClosedReview | None:
        """Return what is left of a closed request, or None."""
        return next((c for c in self.closed if c.request_id == request_id), None)

    def with_open(self, review: OpenReview) -> Ledger:
        """Return the ledger with this request open, new or changed."""
        request_id = review.record.request.request_id
        return self.model_copy(update={"open": {**self.open, request_id: review}})

    def with_closed(self, record: ReviewRecord) -> Ledger:
        """Return the ledger with this request closed."""
        request = record.request
        closed = ClosedReview(
            request_id=request.request_id,
            status=record.status,
            by=record.answers[-1].by.id if record.answers else None,
            at=record.answers[-1].at if record.answers else record.closed_at or request.created_at,
            given=tuple(_fingerprint(answer) for answer in record.answers),
            superseded_by=record.superseded_by,
        )
        still_open = {key: value for key, value in self.open.items() if key != request.request_id}
        return self.model_copy(
            update={"open": still_open, "closed": (*self.closed, closed)[-_CLOSED_LIMIT:]}
        )

    def with_awaited(self, request: ReviewRequest, thread: str) -> Ledger:
        """Return the ledger with this request waiting for the next draft."""
        awaited = AwaitedRevision(request=request, thread=thread)
        return self.model_copy(update={"awaiting": {**self.awaiting, request.request_id: awaited}})


# A buffer holds at most one event. Upstream resolves a plain InputRequiredEvent from every
# snapshot, on every runtime, without being told of it; a type of our own it would refuse to load.
_EVENT = InputRequiredEvent
BUFFER = "llama_index_hitl"


@asynccontextmanager
async def remembered(ctx: Context[Any]) -> AsyncIterator[Memory]:
    """Hand a gate what it remembers, and keep what it leaves there if the block ends well.

    The change is part of the step's result: it takes effect together with the event that the step
    returns, or, if the step fails or the process dies, not at all.

    Args:
        ctx: Context of the gate's own step, which must have one worker.
    """
    probe = _EVENT()
    found = ctx.collect_events(probe, [_EVENT, _EVENT], buffer_id=BUFFER)
    if found is None:
        # Nothing there, so upstream has begun to collect the probe: take it out again.
        ctx.collect_events(probe, [_EVENT], buffer_id=BUFFER)
        stored = None
    else:
        # Upstream empties the buffer when this step completes, and leaves it if the step fails.
        stored = found[0].get("memory")
    # Digests are checked when an answer comes, of the one request that it is for.
    ledger = Ledger() if stored is None else Ledger.model_validate(stored, context=UNCHECKED)
    memory = Memory(ledger)
    yield memory
    event = _EVENT(memory=memory.ledger.model_dump(mode="json"))
    # Three expected and at most one there: upstream keeps the event and waits for more.
    ctx.collect_events(event, [_EVENT] * 3, buffer_id=BUFFER)


class Memory:
    """A place for the ledger while one step works on it."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger


def remembered_once(ctx: Context[Any], key: str, value: JsonObject) -> JsonObject:
    """Return the value that the present call of a step was first given under a key.

    For steps that upstream runs again from their first line while they wait: the value of the first
    time is kept until the step completes, then forgotten.

    Args:
        ctx: Context of the step.
        key: Must tell this call of the step from all its other calls.
        value: What to keep if nothing is kept yet.
    """
    found = ctx.collect_events(_EVENT(memory=value), [_EVENT, _EVENT], buffer_id=f"{BUFFER}:{key}")
    if found is None:
        return value
    kept: JsonObject = found[0]["memory"]
    return kept


def remembered_from_now_on(ctx: Context[Any], key: str, value: JsonObject) -> None:
    """Keep a value for the calls of the step that repeat this one, until the step completes.

    Args:
        ctx: Context of the step.
        key: Must tell this call of the step from all its other calls, and have nothing yet.
        value: What to keep.
    """
    ctx.collect_events(_EVENT(memory=value), [_EVENT, _EVENT], buffer_id=f"{BUFFER}:{key}")
    ctx.collect_events(_EVENT(), [_EVENT], buffer_id=f"{BUFFER}:{key}")


def recalled(ctx: Context[Any], key: str) -> JsonObject | None:
    """Return what an earlier call of the step has kept under a key; None: nothing."""
    if not has_collected(execution_of_step(), f"{BUFFER}:{key}"):
        return None
    return remembered_once(ctx, key, {})


# --------------------------------------------------------------------------- values that change


def newest(ctx: Context[Any], key: str) -> tuple[int, dict[str, Any]] | None:
    """Return the newest of the values that calls of the step have kept under a key, and its number.

    Args:
        ctx: Context of the step.
        key: Must tell this call of the step from all its other calls.
    """
    collected = collected_by(execution_of_step())
    found = {number_of(b): b for b in collected if b.startswith(f"{BUFFER}:{key}#")}
    for buffer_id in found.values():
        # Upstream empties the buffer when this step completes.
        ctx.collect_events(_EVENT(), [_EVENT, _EVENT], buffer_id=buffer_id)
    if not found:
        return None
    number = max(found)
    return number, collected[found[number]][0].get("memory")


def newest_of_all(collected: Mapping[str, Sequence[Event]]) -> list[JsonObject]:
    """Return the newest value under each key.

    Args:
        collected: What a step has in its collect buffers.
    """
    numbered = {b: events for b, events in collected.items() if number_of(b) and events}
    newest = {b.rpartition("#")[0]: numbered[b] for b in sorted(numbered, key=number_of)}
    return [events[0].get("memory") for events in newest.values()]


def keep_newest(ctx: Context[Any], key: str, number: int, value: Mapping[str, Any]) -> None:
    """Keep a value in place of the one before, for the calls of the step that repeat this one.

    What is in a collect buffer can be changed only when the step completes. So each value has a
    buffer of its own until then, and a snapshot leaves out all but the newest.

    Args:
        ctx: Context of the step.
        key: As for `newest`.
        number: One that nothing was kept under, higher than all before.
        value: What to keep.
    """
    buffer_id = f"{BUFFER}:{key}#{number}"
    ctx.collect_events(_EVENT(memory=dict(value)), [_EVENT, _EVENT], buffer_id=buffer_id)
    ctx.collect_events(_EVENT(), [_EVENT], buffer_id=buffer_id)


def without_older(context: Mapping[str, Any]) -> dict[str, Any]:
    """Return the serialized context of an idle run without values that have been replaced.

    Nor those that no waiting step will ever ask for.
    """
    workers = {}
    for name, worker in context.get("workers", {}).items():
        collected = worker.get("collected_events", {})
        kept: dict[str, str] = {}
        for buffer_id in sorted(collected, key=number_of):
            kept[buffer_id.rpartition("#")[0] if number_of(buffer_id) else buffer_id] = buffer_id
        waits = worker.get("collected_waiters", ())
        items = tuple(f"{BUFFER}:{name}:{waiter.get('work_item_id')}:" for waiter in waits)
        wanted = {b for b in kept.values() if not number_of(b) or b.startswith(items)}
        if wanted != collected.keys():
            counts = worker.get("collect_generations", {})
            worker = {
                **worker,
                "collected_events": {b: value for b, value in collected.items() if b in wanted},
                "collect_generations": {
                    b: n for b, n in counts.items() if b in wanted or not number_of(b)
                },
            }
        workers[name] = worker
    return {**context, "workers": workers}


def number_of(buffer_id: str) -> int:
    """Return the number of a value that changes, from 1; 0: it is another kind of buffer."""
    before, _, number = buffer_id.rpartition("#")
    return int(number) if before.startswith(f"{BUFFER}:") and number.isdecimal() else 0
