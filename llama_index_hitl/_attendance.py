"""One run with one person attending to it: what it asks and tells, and what they answer.

What the reviewers of the terminal and of the notebook have in common; each shows it in its way.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from datetime import datetime
from typing import Any, Protocol

from workflows.events import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    InternalDispatchEvent,
    StopEvent,
    WorkflowIdleEvent,
)
from workflows.handler import WorkflowHandler

from llama_index_hitl._text import visible_line
from llama_index_hitl.errors import InvalidAnswer, StaleRequest
from llama_index_hitl.events import (
    ReviewDeadlineEvent,
    ReviewRefusedEvent,
    ReviewRequestEvent,
    ReviewResponseEvent,
    ReviewUpdatedEvent,
)
from llama_index_hitl.models import Answer, RequestStatus, Reviewer, ReviewRecord

SETTLE_SECONDS = 0.5
"""How long at most to wait for a run to rest, so that all that it asks at once is shown at once."""

_ASK_AGAIN = (InvalidAnswer.code, StaleRequest.code)
_PROGRESS_LIMIT = 300  # characters of what a step says


class Attendee(Protocol):
    """Is told what a run asks and tells, as it does; nothing here may wait."""

    def asked(self, event: InputRequiredEvent) -> None:
        """Something is asked."""

    def updated(self, record: ReviewRecord) -> None:
        """A request has moved."""

    def refused(self, event: ReviewRefusedEvent, *, again: bool) -> None:
        """An answer was not taken; `again`: it was this person's, who may give another one."""

    def progressed(self, line: str) -> None:
        """A step has said something, in one line."""

    def ended(self) -> None:
        """The run has ended."""


class Attendance:
    """Hears one run from its first event to its last, and sends what people answer.

    It goes on hearing the run when its person leaves; another one, or the same, may attend to it
    later. The stream of a handler can be read once, so there is one of these for each handler.

    Attributes:
        handler: The run.
        person: Who attends to it; None: nobody has said.
        known: Every request so far, by id.
        records: What has become of them, as far as the run has told.
        sent: Ids of requests that were answered, and of which the run has not told what comes of
            it yet.
        others: Open requests that this person can do nothing about, by id: title, and why.
        idle: Whether the run waits for answers.
        over: Whether it has ended.
    """

    def __init__(self, handler: WorkflowHandler) -> None:
        self.handler = handler
        self.person: Reviewer | None = None
        self.known: dict[str, ReviewRequestEvent] = {}
        self.records: dict[str, ReviewRecord] = {}
        self.sent: set[str] = set()
        self.others: dict[str, tuple[str, str]] = {}
        self.idle = False
        self.over = False
        self._open: list[InputRequiredEvent] = []
        self._attendee: Attendee | None = None
        self._listening: asyncio.Task[None] | None = None
        self._last_progress = ""
        self._changed = asyncio.Event()

    def attend(self, attendee: Attendee, person: Reviewer | None) -> None:
        """Let somebody attend to the run from now on; they are asked what is still open."""
        self.others.clear()
        self._attendee = attendee
        self.come_as(person)
        for event in list(self._open):
            attendee.asked(event)
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())

    def come_as(self, person: Reviewer | None) -> None:
        """Say who attends to it."""
        self.person = person
        for record in self.records.values():
            self._note_others(record)

    def leave(self) -> None:
        """Attend to the run no more; it goes on waiting."""
        self._attendee = None

    async def close(self) -> None:
        """Stop hearing the run."""
        self.leave()
        if self._listening is not None:
            self._listening.cancel()
            with suppress(asyncio.CancelledError):
                await self._listening

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so; it is looked at whenever the run or `poke` says something."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def poke(self) -> None:
        """Let `until` look again."""
        self._changed.set()

    async def settled(self) -> None:
        """Wait, not for long, until the run waits for answers or has ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                await self.until(lambda: self.idle or self.over)

    # ------------------------------------------------------------- what the run tells

    async def _listen(self) -> None:
        try:
            async with aclosing(self.handler.stream_events(expose_internal=True)) as events:
                async for event in events:
                    self._hear(event)
                    self.poke()
        finally:
            self.over = True
            self.poke()
            if self._attendee is not None:
                self._attendee.ended()

    def _hear(self, event: Event) -> None:
        self.idle = isinstance(event, WorkflowIdleEvent)
        match event:
            case ReviewRequestEvent():
                if event.request_id not in self.known:
                    self.known[event.request_id] = event
                    self._ask(event)
            case InputRequiredEvent():
                self._ask(event)
            case ReviewUpdatedEvent():
                self._updated(event.record)
            case ReviewRefusedEvent():
                self._refused(event)
            case InternalDispatchEvent() | StopEvent() | HumanResponseEvent():
                pass
            case _:
                self._progress(event)

    def _ask(self, event: InputRequiredEvent) -> None:
        self._open.append(event)
        if self._attendee is not None:
            self._attendee.asked(event)

    def _updated(self, record: ReviewRecord) -> None:
        request_id = record.request_id
        self.records[request_id] = record
        self.sent.discard(request_id)
        self.others.pop(request_id, None)
        if self.is_closed(request_id):
            self._drop(self.known.get(request_id))
        self._note_others(record)
        if self._attendee is not None:
            self._attendee.updated(record)

    def _note_others(self, record: ReviewRecord) -> None:
        if record.status is RequestStatus.OPEN and self.has_answered(record):
            title = record.request.title
            self.others[record.request_id] = (title, "it needs the answers of others")

    def _refused(self, event: ReviewRefusedEvent) -> None:
        request_id = event.request_id
        ours = request_id is not None and request_id in self.sent
        again = False
        if ours and request_id is not None:
            self.sent.discard(request_id)
            again = event.code in _ASK_AGAIN and not self.is_closed(request_id)
            if not again and not self.is_closed(request_id):
                self.others[request_id] = (self.known[request_id].request.title, event.reason)
        if self._attendee is not None:
            self._attendee.refused(event, again=again)

    def _progress(self, event: Event) -> None:
        text = getattr(event, "message", None) or getattr(event, "msg", None)
        line = humanized(type(event).__name__)
        if isinstance(text, str):
            line = f"{line}: {visible_line(text, _PROGRESS_LIMIT)}"
        if line != self._last_progress:  # a stream of tokens is one line, not hundreds
            self._last_progress = line
            if self._attendee is not None:
                self._attendee.progressed(line)

    # ------------------------------------------------------------- how things stand

    def is_closed(self, request_id: str) -> bool:
        """Tell whether a request is decided, or closed otherwise."""
        record = self.records.get(request_id)
        return record is not None and record.status is not RequestStatus.OPEN

    def has_answered(self, record: ReviewRecord) -> bool:
        """Tell whether the person has answered a request."""
        person = self.person
        return person is not None and any(a.by.id == person.id for a in record.answers)

    def is_stuck(self) -> bool:
        """Tell whether the run waits for nobody but others."""
        return self.idle and bool(self.others) and not self.sent

    # ------------------------------------------------------------- what people say

    def answer(self, answer: Answer) -> None:
        """Send an answer to a request."""
        self._send(ReviewResponseEvent(answer=answer), answer.request_id)

    def say_deadline(self, request_id: str, at: datetime) -> None:
        """Say that time is up: where one person attends to a run, nobody else keeps the time."""
        self._send(ReviewDeadlineEvent(request_id=request_id, at=at), request_id)

    def respond(self, event: InputRequiredEvent, text: str) -> None:
        """Answer a question that is nothing but a text."""
        self._drop(event)
        fields = _fields_of(event)
        fields.pop("prefix", None)
        # What else the question carries is what its waiter may require of the answer.
        self._send(HumanResponseEvent(**{**fields, "response": text}))

    def _send(self, event: HumanResponseEvent, request_id: str | None = None) -> None:
        self.idle = False
        if request_id is not None:
            self.sent.add(request_id)
        self.handler.ctx.send_event(event)

    def _drop(self, event: InputRequiredEvent | None) -> None:
        self._open = [known for known in self._open if known is not event]


def question_in(event: InputRequiredEvent) -> str:
    """Return what is asked by an event that is no review."""
    fields = _fields_of(event)
    prefix = fields.pop("prefix", None)
    if isinstance(prefix, str) and prefix.strip():
        return prefix
    shown = (f"{name}: {value}" for name, value in fields.items())
    return "\n".join((humanized(type(event).__name__), *shown))


def _fields_of(event: InputRequiredEvent) -> dict[str, Any]:
    declared: Mapping[str, Any] = type(event).model_fields
    return {**{name: getattr(event, name) for name in declared}, **dict(event.items())}


def humanized(name: str) -> str:
    """Return the name of an event class as words."""
    stem = name.removesuffix("Event") or name
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", stem)
    return words.lower().capitalize()
