"""One run in the output of a cell: everything that it asks, all at once, until it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]
from markupsafe import Markup
from workflows.events import InputRequiredEvent

from llama_index_hitl._attendance import Attendance, question_in
from llama_index_hitl._text import visible
from llama_index_hitl.clock import Clock
from llama_index_hitl.errors import Unanswered
from llama_index_hitl.events import ReviewRefusedEvent, ReviewRequestEvent
from llama_index_hitl.lifecycle import open_record
from llama_index_hitl.models import Reviewer, ReviewRecord
from llama_index_hitl.notebook._card import framed, question_card, style
from llama_index_hitl.notebook._controls import name_controls, plain_controls
from llama_index_hitl.notebook._fields import close_widget
from llama_index_hitl.notebook._kernel import clicks_heard, is_notebook, warm_up
from llama_index_hitl.notebook._output import Output
from llama_index_hitl.notebook._sheet import Sheet

PATIENCE_SECONDS = 10.0
"""How long a front end that says nothing of notebooks has to show the first button."""

PULSE_SECONDS = 0.25
"""How often to look up, so that an interrupt is noticed: it does not wake the loop of a kernel."""

LEFT_OPEN = "This stays open. Run the cell that waits for it again to go on."


class NoWidgetsError(Exception):
    """The front end shows no widgets."""


class Board:
    """Shows one run, and takes what one person decides."""

    def __init__(
        self, attendance: Attendance, kernel: Any, *, clock: Clock, wait_for_others: bool
    ) -> None:
        self._run = attendance
        self._kernel = kernel
        self._clock = clock
        self._wait_for_others = wait_for_others
        self._sheets: dict[str, Sheet] = {}
        self._questions: list[_Question] = []
        self._story = Output()
        self._last_line = "The run has begun."
        self._name = Output()
        self._naming: widgets.VBox | None = None
        self._acts: asyncio.Queue[Callable[[], None]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._seen: bool | None = None  # whether the front end shows widgets; None: not known yet
        self._watched: widgets.Widget | None = None
        self._since = 0.0

    async def run(self) -> Any:
        """Take the run to its end, and return its result.

        Raises:
            Unanswered: Only others could go on. The run waits.
            NoWidgetsError: The front end shows no widgets.
        """
        warm_up()
        try:
            async with clicks_heard(self._kernel):
                self._tell(self._last_line)
                self._run.attend(self, self._run.person)
                while not self._run.over:
                    self._do_all()
                    self._refuse_when_stuck()
                    await self._wait()
                self._do_all()
                self._last_line = "The run has ended."
        finally:
            self._run.leave()
            self._close()
        return await self._run.handler

    # ------------------------------------------------------------- what the run tells

    def asked(self, event: InputRequiredEvent) -> None:
        """Something is asked."""
        self._post(partial(self._show, event))

    def updated(self, record: ReviewRecord) -> None:
        """A request has moved."""
        self._post(partial(self._move, record))

    def refused(self, event: ReviewRefusedEvent, *, again: bool) -> None:
        """An answer was not taken."""
        self._post(partial(self._refuse, event, again=again))

    def progressed(self, line: str) -> None:
        """A step has said something."""
        self._post(partial(self._tell, line))

    def ended(self) -> None:
        """The run has ended."""
        self._post(lambda: None)

    # ------------------------------------------------------------- in the order in which it came

    def _post(self, act: Callable[[], None]) -> None:
        """Let the task of the cell do something: its output is the output of the cell."""
        with suppress(RuntimeError):  # the loop is closed: nobody is there
            self._loop.call_soon_threadsafe(self._acts.put_nowait, act)

    def _do_all(self) -> None:
        while not self._acts.empty():
            self._acts.get_nowait()()

    async def _wait(self) -> None:
        """Wait until there is something to do, or time is up for something."""
        act: Callable[[], None] | None = None
        with suppress(TimeoutError):
            act = await asyncio.wait_for(self._acts.get(), self._seconds_left())
        self._say_deadlines()
        if act is not None:
            act()
        if self._seen is False or self._is_out_of_patience():
            raise NoWidgetsError

    def _seconds_left(self) -> float:
        now = self._clock()
        due = [PULSE_SECONDS]
        due += [
            (sheet.record.policy.deadline - now).total_seconds()
            for request_id, sheet in self._sheets.items()
            if sheet.is_open and sheet.record.policy.deadline and request_id not in self._run.sent
        ]
        if self._is_watching():
            due.append(self._since + PATIENCE_SECONDS - self._loop.time())
        return max(min(due), 0.01)

    # ------------------------------------------------------------- what is shown

    def _show(self, event: InputRequiredEvent) -> None:
        if isinstance(event, ReviewRequestEvent):
            record = self._run.records.get(event.request_id) or open_record(event.request)
            sheet = Sheet(record, clock=self._clock, post=self._post, send=self._run.answer)
            self._sheets[event.request_id] = sheet
            self._offer(sheet)
        else:
            question = _Question(event, self._post, self._respond)
            self._questions.append(question)
            self._watch(question.widget)

    def _offer(self, sheet: Sheet) -> None:
        person = self._run.person
        if person is None:
            self._ask_name()
            return
        sheet.offer(person)
        if sheet.why_not and sheet.is_open:
            request = sheet.record.request
            self._run.others[request.request_id] = (request.title, sheet.why_not)
        self._watch(sheet.widget)

    def _ask_name(self) -> None:
        if self._naming is None:
            self._naming = name_controls(self._post, self._named)
            self._name.show_widget(self._naming)
            self._watch(self._naming)

    def _named(self, name: str) -> None:
        self._run.come_as(Reviewer(id=name))
        self._stop_naming()
        for sheet in self._sheets.values():
            self._offer(sheet)

    def _stop_naming(self) -> None:
        if self._naming is not None:
            close_widget(self._naming)
            self._naming = None
            self._name.clear()

    def _move(self, record: ReviewRecord) -> None:
        sheet = self._sheets.get(record.request_id)
        if sheet is not None:
            sheet.moved(record, self._run.person)

    def _refuse(self, event: ReviewRefusedEvent, *, again: bool) -> None:
        sheet = self._sheets.get(event.request_id or "")
        if sheet is None:
            return
        if again:
            sheet.ask_again("That answer was not taken; it is still open.", event.problems)
        elif sheet.is_open and event.request_id in self._run.others:
            sheet.refuse(f"That answer was not taken. {event.reason}")

    def _respond(self, question: _Question, text: str) -> None:
        question.answered(text, self._run.person)
        self._run.respond(question.event, text)

    def _tell(self, line: str) -> None:
        self._last_line = line
        self._tell_story("accent")

    def _tell_story(self, tone: str) -> None:
        line = visible(self._last_line)
        shown = Markup('<p class="story"><span class="dot dot-{}"></span>{}</p>').format(tone, line)
        self._story.show(style() + framed(shown), self._last_line)

    def _close(self) -> None:
        """Leave nothing in the output but what can be read without a kernel."""
        if not self._run.over:
            self._last_line = "The run waits."
        self._stop_naming()
        for sheet in self._sheets.values():
            sheet.close("Not asked any more: the run has ended." if self._run.over else LEFT_OPEN)
        for question in self._questions:
            question.close()
        self._tell_story("good" if self._run.over else "warn")

    # ------------------------------------------------------------- when nothing can come

    def _say_deadlines(self) -> None:
        for request_id, sheet in self._sheets.items():
            if sheet.is_late and request_id not in self._run.sent:
                self._run.say_deadline(request_id, self._clock())

    def _refuse_when_stuck(self) -> None:
        waits = any(sheet.can_answer for sheet in self._sheets.values())
        waits = waits or any(question.is_open for question in self._questions)
        if self._run.is_stuck() and not waits and not self._wait_for_others:
            request_id, (_, reason) = next(iter(self._run.others.items()))
            raise Unanswered(request_id, reason)

    def _watch(self, widget: widgets.Widget | None) -> None:
        """Find out from the first widget whether the front end shows any."""
        if widget is None or self._watched is not None:
            return
        self._watched, self._since = widget, self._loop.time()
        widget._view_count = 0  # noqa: SLF001 - front ends count their views of it from here on
        widget.observe(lambda _: self._post(self._is_seen), "_view_count")
        widget.comm.on_close(lambda _: self._post(self._is_not_seen))

    def _is_seen(self) -> None:
        self._seen = True

    def _is_not_seen(self) -> None:
        self._seen = self._seen or False

    def _is_watching(self) -> bool:
        return self._watched is not None and self._seen is None and not is_notebook(self._kernel)

    def _is_out_of_patience(self) -> bool:
        return self._is_watching() and self._loop.time() >= self._since + PATIENCE_SECONDS


class _Question:
    """A question of a workflow that knows nothing of reviews."""

    def __init__(
        self,
        event: InputRequiredEvent,
        post: Callable[[Callable[[], None]], None],
        respond: Callable[[_Question, str], None],
    ) -> None:
        self.event = event
        self.is_open = True
        self._text = question_in(event)
        self._card = Output()
        self._card.show(question_card(self._text), self._text)
        self._below = Output()
        self.widget = plain_controls(post, partial(respond, self))
        self._below.show_widget(self.widget)

    def answered(self, text: str, person: Reviewer | None) -> None:
        """Show what was answered."""
        by = "You" if person is None else person.name or person.id
        self._card.show(question_card(self._text, text, by=by), f"{self._text}\n{by}: {text}")
        self.close()

    def close(self) -> None:
        """Leave nothing but the question, and the answer."""
        if self.is_open:
            self.is_open = False
            close_widget(self.widget)
            self._below.clear()
