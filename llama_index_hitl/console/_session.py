"""One run, from its first event to its result, with one person at a desk. Private to `console`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Any

from workflows.events import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    InternalDispatchEvent,
    StopEvent,
    WorkflowIdleEvent,
)
from workflows.handler import WorkflowHandler

from llama_index_hitl.console._desk import Desk
from llama_index_hitl.console._interview import review
from llama_index_hitl.console._keyboard import Closed, Left
from llama_index_hitl.console._words import humanized, one_line
from llama_index_hitl.errors import (
    InvalidAnswer,
    NotAllowed,
    RequestExpired,
    StaleRequest,
    Unanswered,
)
from llama_index_hitl.events import (
    ReviewDeadlineEvent,
    ReviewRefusedEvent,
    ReviewRequestEvent,
    ReviewResponseEvent,
    ReviewUpdatedEvent,
)
from llama_index_hitl.models import RequestStatus, ReviewRecord

_SETTLE_SECONDS = 0.5
"""How long at most to wait for the run to rest, so that "1 of 3" is right from the first on."""

_ASK_AGAIN = (InvalidAnswer.code, StaleRequest.code)


class Session:
    """Shows what a run tells, asks what it asks, and sends what the person answers."""

    def __init__(self, handler: WorkflowHandler, desk: Desk, *, wait_for_others: bool) -> None:
        self._handler = handler
        self._desk = desk
        self._wait_for_others = wait_for_others
        self._queue: deque[InputRequiredEvent] = deque()
        self._known: dict[str, ReviewRequestEvent] = {}
        self._records: dict[str, ReviewRecord] = {}
        self._sent: set[str] = set()  # answered, and the run has not said yet what comes of it
        self._others: dict[str, tuple[str, str]] = {}  # open, not for this person: title, why
        self._again: set[str] = set()  # to be asked once more, and on the screen already
        self._asking: InputRequiredEvent | None = None
        self._asked = 0  # since the queue was last empty
        self._held: list[Callable[[], None]] = []  # to show once the person has answered
        self._last_progress = ""
        self._idle = False
        self._ended = False
        self._changed = asyncio.Event()

    async def run(self) -> Any:
        """Take the run to its end and return its result.

        Raises:
            Unanswered: The person left, or the run waits for nobody but others; it was cancelled.
        """
        listening = asyncio.create_task(self._listen())
        try:
            while (event := await self._next()) is not None:
                await self._ask(event)
        except Unanswered:
            await self._handler.cancel_run()
            raise
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
        return await self._handler

    # ------------------------------------------------------------- what the run tells

    async def _listen(self) -> None:
        try:
            async with aclosing(self._handler.stream_events(expose_internal=True)) as events:
                async for event in events:
                    self._hear(event)
                    self._changed.set()
        finally:
            self._ended = True
            self._changed.set()
            self._desk.keyboard.stop(Closed("the run has ended"))

    def _hear(self, event: Event) -> None:
        self._idle = isinstance(event, WorkflowIdleEvent)
        match event:
            case ReviewRequestEvent():
                if event.request_id not in self._known:
                    self._known[event.request_id] = event
                    self._queue.append(event)
            case InputRequiredEvent():
                self._queue.append(event)
            case ReviewUpdatedEvent():
                self._updated(event.record)
            case ReviewRefusedEvent():
                self._refused(event)
            case InternalDispatchEvent() | StopEvent() | HumanResponseEvent():
                pass
            case _:
                self._progress(event)

    def _updated(self, record: ReviewRecord) -> None:
        request_id = record.request.request_id
        self._records[request_id] = record
        self._sent.discard(request_id)
        self._others.pop(request_id, None)
        if record.status is not RequestStatus.OPEN:
            self._stop_asking(request_id, record.outcome.reason)
        elif self._has_answered(record):
            self._others[request_id] = (record.request.title, "it needs the answers of others")
        self._tell(lambda: self._desk.view.update(record))

    def _refused(self, event: ReviewRefusedEvent) -> None:
        self._tell(lambda: self._desk.view.refusal(event))
        request_id = event.request_id
        if request_id not in self._sent or request_id is None:
            return  # somebody else's answer, by another way
        self._sent.discard(request_id)
        if self._is_closed(request_id):
            return
        if event.code in _ASK_AGAIN:
            self._again.add(request_id)
            self._asked -= 1
            self._queue.appendleft(self._known[request_id])
        else:
            self._others[request_id] = (self._known[request_id].request.title, event.reason)

    def _progress(self, event: Event) -> None:
        text = getattr(event, "message", None) or getattr(event, "msg", None)
        line = humanized(type(event).__name__)
        if isinstance(text, str):
            line = f"{line}: {one_line(text, 300)}"
        if line != self._last_progress:  # a stream of tokens is one line, not hundreds
            self._last_progress = line
            self._tell(lambda: self._desk.view.note(line))

    def _tell(self, show: Callable[[], None]) -> None:
        """Show something now, or after the person has answered: nobody likes to be talked over."""
        if self._asking is None:
            show()
        else:
            self._held.append(show)

    def _stop_asking(self, request_id: str, reason: str) -> None:
        asking = self._asking
        if isinstance(asking, ReviewRequestEvent) and asking.request_id == request_id:
            self._desk.keyboard.stop(Closed(reason))

    # ------------------------------------------------------------- what comes next

    async def _next(self) -> InputRequiredEvent | None:
        """Return the next thing to ask; None: the run has ended.

        Raises:
            Unanswered: Nothing is left that this person could answer, and nobody else is there.
        """
        await self._until(lambda: bool(self._queue) or self._ended or self._is_stuck())
        if self._ended:
            self._note_unasked()
            return None
        if not self._queue:
            request_id, (title, reason) = next(iter(self._others.items()))
            title = one_line(title)
            self._desk.view.problem(f"The run waits for others: {title!r} stays open, {reason}.")
            raise Unanswered(request_id, reason)
        if self._asked == 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(_SETTLE_SECONDS):
                    await self._until(lambda: self._idle or self._ended)
        return self._queue.popleft()

    def _is_stuck(self) -> bool:
        waits = self._idle and bool(self._others) and not self._sent
        return waits and not self._wait_for_others

    def _note_unasked(self) -> None:
        for event in self._queue:
            if isinstance(event, ReviewRequestEvent):
                self._desk.view.note(f"Not asked any more: {event.request.title}")

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # ------------------------------------------------------------- asking

    async def _ask(self, event: InputRequiredEvent) -> None:
        self._asked += 1
        total = self._asked + len(self._queue)
        place = f"{self._asked} of {total}" if total > 1 else ""
        self._asking = event
        try:
            if isinstance(event, ReviewRequestEvent):
                await self._ask_review(event, place)
            else:
                await self._ask_plain(event, place)
        except Closed as closed:
            self._desk.view.problem(f"Nothing was sent: {closed.reason.rstrip('.')}.")
        finally:
            self._asking = None
            held, self._held = self._held, []
            for show in held:
                show()
        await self._until(lambda: not self._sent or self._idle or self._ended)
        if not self._queue:
            self._asked = 0

    async def _ask_review(self, event: ReviewRequestEvent, place: str) -> None:
        request_id, record = event.request_id, self._records.get(event.request_id)
        if record is not None and self._is_closed(request_id):
            self._desk.view.note(f"Skipped: {event.request.title} — {record.outcome.reason}")
            return
        policy = None if record is None else record.policy
        try:
            again = request_id in self._again
            answer = await review(
                self._desk, event.request, place=place, policy=policy, again=again
            )
        except NotAllowed as error:
            self._others[request_id] = (event.request.title, error.reason)
        except RequestExpired:
            self._send_deadline(request_id)
        else:
            self._send(ReviewResponseEvent(answer=answer), request_id)

    async def _ask_plain(self, event: InputRequiredEvent, place: str) -> None:
        """Ask for a workflow that knows nothing of reviews: a text for a text."""
        desk = self._desk
        fields = {name: getattr(event, name) for name in type(event).model_fields}
        fields.update(event.items())
        prefix = fields.pop("prefix", None)
        if not isinstance(prefix, str) or not prefix.strip():
            shown = (f"{name}: {value}" for name, value in fields.items())
            prefix = "\n".join((humanized(type(event).__name__), *shown))
        desk.view.plain(place, prefix)
        with desk.keyboard.attention():
            try:
                desk.keyboard.forget_typed_ahead()
                while not (text := await desk.ask("Answer: ")).strip():
                    desk.view.problem("An empty line answers nothing. Type your answer.")
            except Left as left:
                name = type(event).__name__
                desk.view.problem("Left unanswered: the question stays open.")
                raise Unanswered(name, left.reason) from None
        # What else the question carries is what its waiter may require of the answer.
        self._send(HumanResponseEvent(**{**fields, "response": text}))

    def _send(self, event: HumanResponseEvent, request_id: str | None = None) -> None:
        self._idle = False
        if request_id is not None:
            self._sent.add(request_id)
        self._handler.ctx.send_event(event)

    def _send_deadline(self, request_id: str) -> None:
        """Say that time is up: at a console nobody else keeps the time."""
        at = self._desk.clock()
        self._send(ReviewDeadlineEvent(request_id=request_id, at=at), request_id)

    def _is_closed(self, request_id: str) -> bool:
        record = self._records.get(request_id)
        return record is not None and record.status is not RequestStatus.OPEN

    def _has_answered(self, record: ReviewRecord) -> bool:
        person = self._desk.person
        return person is not None and any(a.by.id == person.id for a in record.answers)
