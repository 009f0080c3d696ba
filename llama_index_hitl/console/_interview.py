"""Asking one person about one request, until there is an answer. Private to `console`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

from llama_index_hitl.console._desk import Desk
from llama_index_hitl.console._editor import EditorFailed
from llama_index_hitl.console._edits import TEXT_WIDGETS, form_of_text, own_fields, text_of_subject
from llama_index_hitl.console._keyboard import Left
from llama_index_hitl.console._words import ALWAYS, is_numbered, offers_always, one_line
from llama_index_hitl.errors import (
    FieldProblem,
    InvalidAnswer,
    NotAllowed,
    RequestExpired,
    Unanswered,
)
from llama_index_hitl.forms import FormField, decisions_of, grant_fields_of, parse_answer
from llama_index_hitl.grants import terms_in_words
from llama_index_hitl.models import (
    Answer,
    Approve,
    DecisionKind,
    Edit,
    Reviewer,
    ReviewPolicy,
    ReviewRequest,
    Subject,
    digest_of,
)
from llama_index_hitl.policies import why_not_allowed

_PRESENT_LIMIT = 40  # characters of a present value in a prompt; all of it stands above
_LOOKS_LIKE_CONSENT = frozenset(
    ("y", "yes", "yeah", "yep", "ok", "okay", "sure", "fine", "true", "approved", "lgtm", "+1")
)


class _LeftOut(Enum):
    """The person gave no value: different from every value, None included."""

    LEFT_OUT = 0


_LEFT_OUT = _LeftOut.LEFT_OUT


class _Back(Exception):
    """The person wants to choose among the decisions again."""


async def review(
    desk: Desk,
    request: ReviewRequest,
    *,
    place: str = "",
    policy: ReviewPolicy | None = None,
    again: bool = False,
) -> Answer:
    """Show a request to the person at a desk and return what they decide.

    Args:
        desk: Where they sit.
        request: What to ask.
        place: Where it stands among the open ones, such as `1 of 3`.
        policy: Who may answer as things stand now; the request's own, if left out.
        again: It is on the screen already; only the decisions are shown.

    Raises:
        Unanswered: They left, or input ended; the output says that the request stays open.
        NotAllowed: They may not answer it; they were told and not asked.
        RequestExpired: It is too late to answer; they were told.
        Closed: It was settled elsewhere meanwhile.
    """
    with desk.keyboard.attention():
        try:
            by = await desk.identify()
            interview = _Interview(desk, request, by)
            interview.refuse_the_wrong_person(policy or request.policy)
            interview.refuse_when_late()
            if not again:
                desk.view.request(request, place, desk.clock())
            desk.view.decisions(request)
            desk.instruct("Type the word or the number. A word can have a comment: `reject: why`.")
            desk.keyboard.forget_typed_ahead()
            return await interview.answer()
        except Left as left:
            title = one_line(request.title)
            desk.view.problem(f"Left unanswered: {title!r} stays open; nothing was decided.")
            raise Unanswered(request.request_id, left.reason) from None


class _Interview:
    """One person, one request."""

    def __init__(self, desk: Desk, request: ReviewRequest, by: Reviewer) -> None:
        self._desk = desk
        self._view = desk.view
        self._request = request
        self._by = by
        kinds = decisions_of(request)
        self._by_number = {str(number): kind for number, kind in enumerate(kinds, start=1)}
        self._by_word = {kind.value: kind for kind in kinds}

    def refuse_the_wrong_person(self, policy: ReviewPolicy) -> None:
        """Raise `NotAllowed` for somebody who would be asked in vain."""
        reason = why_not_allowed(policy, self._by)
        if reason is not None:
            title, name = one_line(self._request.title), self._by.name or self._by.id
            self._view.problem(f"Not asked: {title!r}. {name} may not answer: {reason}.")
            raise NotAllowed(self._request.request_id, by=self._by.id, reason=reason)

    def refuse_when_late(self) -> None:
        """Raise `RequestExpired` at and after the deadline."""
        deadline = self._request.deadline
        if deadline is not None and self._desk.clock() >= deadline:
            title = one_line(self._request.title)
            self._view.problem(f"Too late: the deadline of {title!r} has passed.")
            raise RequestExpired(self._request.request_id, deadline=deadline)

    async def answer(self) -> Answer:
        """Ask for a decision until there is one."""
        prompt = f"Decision ({one_line(self._by.name or self._by.id, _PRESENT_LIMIT)}): "
        while True:
            line = await self._desk.ask(prompt)
            try:
                found = await self._understood(line)
            except InvalidAnswer as error:
                self._view.problems(error.problems)
            except _Back:
                self._view.note(f"Choose again: {self._words()}.")
            else:
                if found is not None:
                    self.refuse_when_late()
                    return found

    # ------------------------------------------------------------- the decision

    async def _understood(self, line: str) -> Answer | None:
        """Return the answer that a line begins; None: it does not begin one."""
        if line.strip().lower() == ALWAYS and offers_always(self._request):
            return await self._always()
        kind, said = self._decision_in(line)
        if kind is None:
            self._view.problem(self._not_understood(line))
            return None
        said = await self._desk.continued(said) if said else ""
        if kind is DecisionKind.EDIT:
            return await self._edit(said)
        fields = () if kind is DecisionKind.APPROVE else own_fields(self._request, kind)
        if kind is DecisionKind.ESCALATE and len(self._request.escalate_to) == 1:
            fields = ()  # there is nothing to choose
        if said or not fields:
            try:
                return self._parsed(f"{kind}: {said}" if said else kind.value)
            except InvalidAnswer as error:
                if not fields:
                    raise
                self._view.problems(error.problems)
        return self._parsed(await self._filled(kind, fields))

    def _decision_in(self, line: str) -> tuple[DecisionKind | None, str]:
        """Find the decision that a line names by its exact word or number, and what follows it."""
        text = line.strip()
        if text in self._by_number:
            return self._by_number[text], ""
        word, colon, said = (part.strip() for part in text.partition(":"))
        kind = self._by_word.get(word.lower())
        return (None, "") if colon and not said else (kind, said)

    def _not_understood(self, line: str) -> str:
        text = one_line(line, 60)
        if not text:
            return f"Nothing was decided. Type {self._words()}."
        approve = DecisionKind.APPROVE
        if text.lower().rstrip(".!") in _LOOKS_LIKE_CONSENT and approve in self._request.allowed:
            return f'"{text}" is not a decision. Type approve to approve.'
        return f'"{text}" is not a decision here. Type {self._words()}.'

    def _words(self) -> str:
        always = [ALWAYS] if offers_always(self._request) else []
        *most, last = [*self._by_word, *always]
        return f"{', '.join(most)} or {last}" if most else last

    def _parsed(self, raw: str | Mapping[str, Any]) -> Answer:
        now = self._desk.clock()
        return parse_answer(self._request, raw, by=self._by, at=now, channel="console")

    # ------------------------------------------------------------- what a decision needs

    async def _filled(self, kind: DecisionKind, fields: tuple[FormField, ...]) -> dict[str, Any]:
        """Ask for the fields of a decision, one after the other."""
        self._desk.instruct(
            "A line that ends with \\ goes on in the next; /back returns to the decisions."
        )
        form: dict[str, Any] = {"decision": kind.value}
        for field in fields:
            value = await self._field(field, form, editing=kind is DecisionKind.EDIT)
            if value is not _LEFT_OUT:
                form[field.name] = value
        return form

    async def _field(self, field: FormField, form: Mapping[str, Any], *, editing: bool) -> Any:
        """Ask for one field until it is valid."""
        self._view.field(field)
        prompt = _prompt(field, editing=editing)
        while True:
            text = await self._desk.ask_text(prompt)
            if text.strip() == "/back":
                raise _Back
            value = _typed(field, text, editing=editing)
            if value is _LEFT_OUT and (editing or not field.required):
                return value
            if value is _LEFT_OUT:
                self._view.problem(f"{field.label} is needed.")
            elif problems := self._problems(field, {**form, field.name: value}):
                self._view.problems(problems)
            else:
                return value

    def _problems(self, field: FormField, form: Mapping[str, Any]) -> list[FieldProblem]:
        """Return what is wrong with one field of a form that is not complete yet."""
        try:
            self._parsed(form)
        except InvalidAnswer as error:
            inside = f"{field.name}."
            return [p for p in error.problems if f"{p.field}.".startswith(inside)]
        return []

    # ------------------------------------------------------------- a standing approval

    async def _always(self) -> Answer | None:
        """Ask for the terms of a standing approval, show what they come to, have it confirmed."""
        first, *limits = grant_fields_of(self._request)
        fields = (first.model_copy(update={"required": True}), *limits)
        form = await self._filled(DecisionKind.APPROVE, fields)
        decision = self._parsed(form).decision
        offer = self._request.grantable
        if not isinstance(decision, Approve) or decision.grant is None or offer is None:
            return None  # the form has said that there is one
        who = f" by {offer.agent}" if offer.agent else ""
        words = f"{offer.tool}{who}, {terms_in_words(decision.grant)}"
        self._view.note(one_line(f"Approved now, and from now on without asking: {words}."))
        return self._parsed(form) if await self._confirmed(ALWAYS) else None

    # ------------------------------------------------------------- an edit

    async def _edit(self, comment: str) -> Answer | None:
        """Let the person change the subject, show what they changed, and have it confirmed."""
        subject = self._request.subject
        if subject is None:  # such a request cannot be made
            return None
        try:
            form = await (self._in_editor(subject) if self._desk.can_edit else self._by_fields())
        except EditorFailed as error:
            self._view.problem(f"{error} Nothing was changed.")
            return None
        if comment:
            form["comment"] = comment
        answer = self._parsed(form)
        data = answer.decision.subject if isinstance(answer.decision, Edit) else subject.data
        if digest_of(data) == digest_of(subject.data):
            self._view.problem("Nothing was changed. Edit it, or decide otherwise.")
            return None
        changed = subject.model_copy(update={"data": data})
        shown = self._request.model_copy(update={"previous": subject, "subject": changed})
        self._view.changes(shown, "Your changes")
        return self._parsed(form) if await self._confirmed("edit") else None

    async def _confirmed(self, needed: str) -> bool:
        while True:
            word = (await self._desk.ask(f"Type {needed} to send it so, or back: ")).strip().lower()
            if word in (needed, "back", "/back"):
                return word == needed
            self._view.problem("Nothing was sent.")

    async def _by_fields(self) -> dict[str, Any]:
        self._desk.instruct('Enter keeps a value; "" empties it.')
        kind = DecisionKind.EDIT
        return await self._filled(kind, own_fields(self._request, kind))

    async def _in_editor(self, subject: Subject) -> dict[str, Any]:
        """Return the form of an edit made in an editor; what was typed is kept for another try."""
        text, suffix = text_of_subject(self._request)
        request_id, draft = self._request.request_id, self._desk.draft
        start = draft[1] if draft is not None and draft[0] == request_id else text
        edited = await self._desk.edit(start, suffix)
        after = start if edited is None else edited
        self._desk.draft = None if after == text else (request_id, after)
        try:
            form = form_of_text(self._request, after)
        except InvalidAnswer:
            self._view.problem("That cannot be sent. Type edit to go on from where you were.")
            raise
        left_out = [name for name in subject.data if f"subject.{name}" not in form]
        if left_out:
            self._view.note(f"Left out, so they keep their values: {', '.join(left_out)}.")
        return form


def _prompt(field: FormField, *, editing: bool) -> str:
    label = one_line(field.label, 60)
    if field.value is not None:
        present = field.value if isinstance(field.value, str) else json.dumps(field.value)
        return f"{label} [{one_line(present, _PRESENT_LIMIT)}]: "
    return f"{label}: " if field.required or editing else f"{label} (optional): "


def _typed(field: FormField, text: str, *, editing: bool) -> Any:
    """Return the raw value that a typed text stands for; `parse_answer` has the last word."""
    bare = text.strip()
    if not bare:
        return _LEFT_OUT
    if editing and bare == '""':
        return "" if field.widget in TEXT_WIDGETS else None
    if field.widget == "choice":
        if is_numbered(field) and re.fullmatch("[0-9]{1,4}", bare):
            number = int(bare)
            if 1 <= number <= len(field.choices):
                return field.choices[number - 1]
        return bare
    return text
