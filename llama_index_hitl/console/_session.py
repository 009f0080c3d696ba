"""One run, from its first event to its result, with one person at a desk. Private to `console`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from workflows.events import InputRequiredEvent

from llama_index_hitl._attendance import Attendance, question_in
from llama_index_hitl.console._desk import Desk
from llama_index_hitl.console._interview import review
from llama_index_hitl.console._keyboard import Closed, Left
from llama_index_hitl.console._words import one_line
from llama_index_hitl.errors import NotAllowed, RequestExpired, Unanswered
from llama_index_hitl.events import ReviewRefusedEvent, ReviewRequestEvent
from llama_index_hitl.models import RequestStatus, ReviewRecord


class Session:
    """Shows what a run tells, and asks what it asks, one thing after the other."""

    def __init__(self, attendance: Attendance, desk: Desk, *, wait_for_others: bool) -> None:
        self._run = attendance
        self._desk = desk
        self._wait_for_others = wait_for_others
        self._queue: deque[InputRequiredEvent] = deque()
        self._again: set[str] = set()  # to be asked once more, and on the screen already
        self._asking: InputRequiredEvent | None = None
        self._asked = 0  # since the queue was last empty
        self._held: list[Callable[[], None]] = []  # to show once the person has answered

    async def run(self) -> Any:
        """Take the run to its end and return its result.

        Raises:
            Unanswered: The person left, or the run waits for nobody but others.
        """
        self._run.attend(self, self._desk.person)
        try:
            while (event := await self._next()) is not None:
                await self._ask(event)
        finally:
            self._run.leave()
        await self._run.close()
        return await self._run.handler

    # ------------------------------------------------------------- what the run tells

    def asked(self, event: InputRequiredEvent) -> None:
        """Something is asked."""
        self._queue.append(event)

    def updated(self, record: ReviewRecord) -> None:
        """A request has moved."""
        if record.status is not RequestStatus.OPEN:
            self._stop_asking(record.request_id, record.outcome.reason)
        self._tell(lambda: self._desk.view.update(record))

    def refused(self, event: ReviewRefusedEvent, *, again: bool) -> None:
        """An answer was not taken."""
        self._tell(lambda: self._desk.view.refusal(event))
        if again and event.request_id is not None:
            self._again.add(event.request_id)
            self._asked -= 1
            self._queue.appendleft(self._run.known[event.request_id])

    def progressed(self, line: str) -> None:
        """A step has said something."""
        self._tell(lambda: self._desk.view.note(line))

    def ended(self) -> None:
        """The run has ended."""
        self._desk.keyboard.stop(Closed("the run has ended"))

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
        await self._run.until(lambda: bool(self._queue) or self._run.over or self._is_stuck())
        if self._run.over:
            self._note_unasked()
            return None
        if not self._queue:
            request_id, (title, reason) = next(iter(self._run.others.items()))
            title = one_line(title)
            self._desk.view.problem(f"The run waits for others: {title!r} stays open, {reason}.")
            raise Unanswered(request_id, reason)
        if self._asked == 0:
            await self._run.settled()  # so that "1 of 3" is right from the first on
        return self._queue.popleft()

    def _is_stuck(self) -> bool:
        return self._run.is_stuck() and not self._wait_for_others

    def _note_unasked(self) -> None:
        for event in self._queue:
            if isinstance(event, ReviewRequestEvent):
                self._desk.view.note(f"Not asked any more: {event.request.title}")

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
        await self._run.until(lambda: not self._run.sent or self._run.idle or self._run.over)
        if not self._queue:
            self._asked = 0

    async def _ask_review(self, event: ReviewRequestEvent, place: str) -> None:
        request_id, record = event.request_id, self._run.records.get(event.request_id)
        if record is not None and self._run.is_closed(request_id):
            self._desk.view.note(f"Skipped: {event.request.title} — {record.outcome.reason}")
            return
        policy = None if record is None else record.policy
        try:
            again = request_id in self._again
            answer = await review(
                self._desk, event.request, place=place, policy=policy, again=again
            )
        except NotAllowed as error:
            self._run.others[request_id] = (event.request.title, error.reason)
        except RequestExpired:
            self._run.say_deadline(request_id, self._desk.clock())
        else:
            self._run.person = self._desk.person
            self._run.answer(answer)

    async def _ask_plain(self, event: InputRequiredEvent, place: str) -> None:
        """Ask for a workflow that knows nothing of reviews: a text for a text."""
        desk = self._desk
        desk.view.plain(place, question_in(event))
        with desk.keyboard.attention():
            try:
                desk.keyboard.forget_typed_ahead()
                while not (text := await desk.ask("Answer: ")).strip():
                    desk.view.problem("An empty line answers nothing. Type your answer.")
            except Left as left:
                name = type(event).__name__
                desk.view.problem("Left unanswered: the question stays open.")
                raise Unanswered(name, left.reason) from None
        self._run.respond(event, text)
