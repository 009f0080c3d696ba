"""One request in the output of a cell: its card, and below it what a person can do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]

from llama_index_hitl.clock import Clock
from llama_index_hitl.errors import FieldProblem
from llama_index_hitl.forms import parse_answer
from llama_index_hitl.models import Answer, RequestStatus, Reviewer, ReviewRecord
from llama_index_hitl.notebook._card import card
from llama_index_hitl.notebook._controls import Check, Controls, Post, Send
from llama_index_hitl.notebook._output import Output
from llama_index_hitl.policies import why_not_allowed
from llama_index_hitl.rendering import render_prompt

CHANNEL = "notebook"
"""What stands on record as the channel of answers given here."""


class Sheet:
    """One request.

    Attributes:
        record: The request, and what has become of it.
        can_answer: Whether the person who is here can decide now.
        why_not: Why they cannot; empty: nothing is known against it.
    """

    def __init__(self, record: ReviewRecord, *, clock: Clock, post: Post, send: Send) -> None:
        self.record = record
        self.can_answer = False
        self.why_not = ""
        self._why_not_said = ""
        self._clock = clock
        self._post = post
        self._send = send
        self._card = Output()
        self._below = Output()
        self._controls: Controls | None = None
        self.draw()

    @property
    def is_open(self) -> bool:
        """Whether it is still to be decided."""
        return self.record.status is RequestStatus.OPEN

    @property
    def is_late(self) -> bool:
        """Whether its deadline has passed and it is still open."""
        deadline = self.record.policy.deadline
        return self.is_open and deadline is not None and self._clock() >= deadline

    @property
    def widget(self) -> widgets.Widget | None:
        """What the person sees of the controls; None: there are none."""
        return None if self._controls is None else self._controls.box

    def draw(self, note: str = "") -> None:
        """Show the request as it stands now."""
        self._card.show(card(self.record, self._clock(), note=note), text_of_record(self.record))

    def offer(self, person: Reviewer) -> None:
        """Let somebody decide, if they may."""
        self._take_away()
        voted = any(answer.by.id == person.id for answer in self.record.answers)
        reason = why_not_allowed(self.record.policy, person)
        self.can_answer = self.is_open and not voted and reason is None
        if self.can_answer:
            self._controls = Controls(
                self.record.request,
                person,
                post=self._post,
                check=checker(self.record, person, self._clock),
                send=self._sent,
            )
            self._below.show_widget(self._controls.box)
        elif self.is_open and reason is not None:
            self.why_not = reason
            self._why_not_said = f"{person.name or person.id} may not answer this: {reason}."
            self.draw(self._why_not_said)

    def moved(self, record: ReviewRecord, person: Reviewer | None) -> None:
        """Show what has become of the request."""
        before, self.record = self.record, record
        self.draw()
        changed = before.policy != record.policy or before.answers != record.answers
        if not self.is_open or (changed and self._voted(person)):
            self.can_answer = False
            self._take_away()
        elif changed and not self.can_answer and person is not None:
            self.offer(person)

    def ask_again(self, text: str, problems: tuple[FieldProblem, ...]) -> None:
        """Say that an answer was not taken, and let the person give another one."""
        if self._controls is not None:
            self.can_answer = True
            self._controls.ask_again(text, problems)

    def refuse(self, text: str) -> None:
        """Say that an answer was not taken, and why this person can give no other one."""
        self._take_away()
        self.draw(text)

    def close(self, note: str) -> None:
        """Leave nothing but what can be read without a kernel."""
        self._take_away()
        if self.is_open:
            self.draw(self._why_not_said or note)

    def _voted(self, person: Reviewer | None) -> bool:
        return person is not None and any(a.by.id == person.id for a in self.record.answers)

    def _sent(self, answer: Answer) -> None:
        self.can_answer = False
        self._send(answer)

    def _take_away(self) -> None:
        self.can_answer = False
        if self._controls is not None:
            self._controls.close()
            self._controls = None
        self._below.clear()


def checker(record: ReviewRecord, person: Reviewer, clock: Clock) -> Check:
    """Return what turns the answers that somebody types into answers to a request."""

    def check(raw: Mapping[str, Any], role: str | None) -> Answer:
        return parse_answer(record.request, raw, by=person, at=clock(), channel=CHANNEL, role=role)

    return check


def text_of_record(record: ReviewRecord) -> str:
    """Return a request with what has become of it as plain text."""
    if record.status is RequestStatus.OPEN:
        return render_prompt(record.request).rpartition("\n\n")[0]
    said = [f"{record.request.title}: {record.status.replace('_', ' ')}. {record.outcome.reason}"]
    said += [f"{a.by.name or a.by.id}: {a.decision.kind}" for a in record.answers]
    return "\n".join(said)
