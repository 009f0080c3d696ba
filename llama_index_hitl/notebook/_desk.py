"""An inbox that is shown: its list, the request that is open, and what is kept of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import ipywidgets as widgets  # type: ignore[import-untyped]
from markupsafe import Markup

from llama_index_hitl._text import visible, visible_line
from llama_index_hitl.errors import AnswerRefused, FieldProblem, HitlError, InvalidAnswer
from llama_index_hitl.models import Answer, RequestStatus, Reviewer, ReviewRecord
from llama_index_hitl.notebook._card import callout, card, framed, moment, style
from llama_index_hitl.notebook._controls import Controls
from llama_index_hitl.notebook._fields import boxed, close_widget, html_widget
from llama_index_hitl.notebook._output import Output
from llama_index_hitl.notebook._sheet import CHANNEL, checker
from llama_index_hitl.runner import Runner

_TITLE_LIMIT = 90  # characters of a title in the list
_LOGGER = logging.getLogger(__name__)


class Desk:
    """An inbox that is shown."""

    def __init__(self, runner: Runner, person: Reviewer, *, limit: int) -> None:
        self._runner = runner
        self._person = person
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._acts: asyncio.Queue[Callable[[], None]] = asyncio.Queue()
        self._doing: set[asyncio.Task[None]] = set()
        self._listed: tuple[ReviewRecord, ...] | None = None
        self._decided: dict[str, ReviewRecord] = {}
        self._opened: ReviewRecord | None = None
        self._controls: Controls | None = None
        self._rows: dict[str, widgets.Button] = {}
        self._head = html_widget()
        self._list = boxed("rows", [])
        self._card = html_widget()
        self._place = boxed("place", [])
        parts = [self._head, self._list, self._card, self._place]
        self._box = boxed("hitl controls inbox", parts)
        self._widget = Output()
        self._record = Output()
        self._write()
        self._widget.show_widget(self._box)

    async def work(self, every: float) -> None:
        """Keep the list current, and do what clicks ask for, until cancelled."""
        while True:
            await self._look()
            with suppress(TimeoutError):
                async with asyncio.timeout(every):
                    while True:
                        (await self._acts.get())()

    def close(self) -> None:
        """Leave nothing but what can be read without a kernel."""
        self._close_request()
        for row in self._rows.values():
            close_widget(row)
        close_widget(self._box)
        self._widget.clear()
        self._write()

    def _post(self, act: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is there
            self._loop.call_soon_threadsafe(self._acts.put_nowait, act)

    # ------------------------------------------------------------- the list

    async def _look(self) -> None:
        try:
            page = await self._runner.pending(reviewer=self._person, limit=self._limit)
            opened = None if self._opened is None else self._opened.request_id
            now = None if opened is None else await self._runner.get(opened)
        except HitlError as error:
            self._say(f"The store cannot be read now: {error}", "warn")
            return
        if page.items != self._listed:
            self._listed = page.items
            self._draw_list()
        if now is not None and self._opened is not None and now != self._opened:
            self._moved(now)
        await self._look_at_decided()

    async def _look_at_decided(self) -> None:
        """Show what has become of what was voted on here, and others had to agree to."""
        for request_id, record in self._decided.items():
            if record.status is RequestStatus.OPEN:
                now = await self._runner.get(request_id)
                if now != record:
                    self._decided[request_id] = now
                    self._write()

    def _draw_list(self) -> None:
        listed = self._listed or ()
        before = self._rows
        self._rows = {r.request_id: before.get(r.request_id) or self._row(r) for r in listed}
        self._list.children = list(self._rows.values())
        for request_id in before.keys() - self._rows.keys():
            close_widget(before[request_id])
        count = len(listed)
        waits = "Nothing waits for you." if not count else f"{count} {_wait(count)} for you."
        self._head.value = Markup(
            '<div class="inbox-head"><span class="inbox-title">Inbox</span>'
            '<span class="muted">{}</span><span class="inbox-person">{}</span></div>'
        ).format(waits, visible(self._person.name or self._person.id))
        self._write()

    def _row(self, record: ReviewRecord) -> widgets.Button:
        request, deadline = record.request, record.policy.deadline
        parts = [visible_line(request.title, _TITLE_LIMIT), request.gate.replace("_", " ")]
        if request.revision > 1:
            parts.append(f"revision {request.revision}")
        if request.priority != "normal":
            parts.append(request.priority)
        if deadline is not None:
            parts.append(f"due {moment(deadline)}")
        row = widgets.Button(description=" · ".join(parts)).add_class("row")
        row.on_click(lambda _: self._post(partial(self._open, request.request_id)))
        return row

    # ------------------------------------------------------------- one request

    def _open(self, request_id: str) -> None:
        record = next((r for r in self._listed or () if r.request_id == request_id), None)
        if record is None or (self._opened and self._opened.request_id == request_id):
            return
        self._close_request()
        self._opened = record
        self._rows[request_id].add_class("is-open")
        self._card.value = card(record, self._runner.clock())
        check = checker(record, self._person, self._runner.clock)
        self._controls = Controls(
            record.request, self._person, post=self._post, check=check, send=self._send
        )
        self._place.children = [self._controls.box]

    def _close_request(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None and opened.request_id in self._rows:
            self._rows[opened.request_id].remove_class("is-open")
        self._place.children = []
        self._card.value = ""
        if self._controls is not None:
            self._controls.close()
            self._controls = None

    def _moved(self, record: ReviewRecord) -> None:
        """Show what has become of the request that is open, while it was looked at."""
        if not self._is_done(record):
            self._opened = record
            self._card.value = card(record, self._runner.clock())
            return
        self._decided[record.request_id] = record
        self._close_request()
        self._say(f"{record.request.title}: {record.outcome.reason}", "")
        self._write()

    def _send(self, answer: Answer) -> None:
        task = asyncio.create_task(self._answer(answer))
        self._doing.add(task)
        task.add_done_callback(self._doing.discard)

    async def _answer(self, answer: Answer) -> None:
        request_id, runner = answer.request_id, self._runner
        try:
            await runner.answer(
                request_id,
                answer.decision,
                by=self._person,
                role=answer.role,
                channel=CHANNEL,
                digest=answer.digest,
            )
        except InvalidAnswer as error:
            self._again("That answer was not taken; it is still open.", error.problems)
            return
        except AnswerRefused as error:
            self._again(f"That answer was not taken. {error}", ())
        else:
            await self._settle(request_id)
            await self._advance((await runner.get(request_id)).request.run_id)
        await self._settle(request_id)
        await self._look()

    def _again(self, text: str, problems: Sequence[FieldProblem]) -> None:
        if self._controls is not None:
            self._controls.ask_again(text, problems)

    async def _settle(self, request_id: str) -> None:
        record = await self._runner.get(request_id)
        if self._is_done(record):
            if self._opened is not None and self._opened.request_id == request_id:
                self._moved(record)
            self._decided[request_id] = record
            self._write()

    def _is_done(self, record: ReviewRecord) -> bool:
        """Tell whether there is nothing more that this person could decide on a request."""
        voted = any(answer.by.id == self._person.id for answer in record.answers)
        return voted or record.status is not RequestStatus.OPEN

    async def _advance(self, run_id: str) -> None:
        """Take the run further, if this process can; it is stored what was decided, if not."""
        if not self._runner.workflows:
            return
        try:
            await self._runner.advance(run_id)
        except HitlError as error:
            _LOGGER.info("Run %s was answered and is left to others: %s", run_id, error)

    # ------------------------------------------------------------- what is said and kept

    def _say(self, text: str, tone: str) -> None:
        self._card.value = callout(text, tone)

    def _write(self) -> None:
        """Write what is saved with the notebook: what was decided here, and what was open last."""
        now = self._runner.clock()
        shown = [card(record, now, folded=True) for record in self._decided.values()]
        lines = [f"{r.request.title}: {r.outcome.reason}" for r in self._decided.values()]
        titles = [visible_line(r.request.title, _TITLE_LIMIT) for r in self._listed or ()]
        waits = f"{len(titles)} {_wait(len(titles))}" if titles else "Nothing waits"
        words = f"{waits} for {self._person.name or self._person.id}"
        items = Markup("").join(Markup("<li>{}</li>").format(title) for title in titles)
        left = Markup('<details class="fold inbox-left"><summary>{}</summary><ul>{}</ul></details>')
        if not titles:
            left = Markup('<p class="muted inbox-left">{}.</p>')
        self._record.show(
            style() + Markup("").join(shown) + framed(left.format(words, items)),
            "\n".join([*lines, words, *titles]),
        )


def _wait(count: int) -> str:
    return "request waits" if count == 1 else "requests wait"
