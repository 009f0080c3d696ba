"""The buttons and forms with which a person decides on one request.

Nothing is decided by opening something: each decision has a form, and only its own button sends it.
Clicks may come in any thread; what they do is posted to the loop of whoever made the controls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import ipywidgets as widgets  # type: ignore[import-untyped]
from markupsafe import Markup

from llama_index_hitl._html.diffs import changes
from llama_index_hitl._html.reviews import SHORT, as_meant, field_at, labels_of, roles_to_choose
from llama_index_hitl._text import visible
from llama_index_hitl.errors import FieldProblem, InvalidAnswer
from llama_index_hitl.forms import LABELS, FormField, decisions_of, fields_of
from llama_index_hitl.models import (
    Answer,
    DecisionKind,
    Edit,
    Reviewer,
    ReviewRequest,
    digest_of,
)
from llama_index_hitl.notebook._card import callout, changed
from llama_index_hitl.notebook._fields import FieldInput, boxed, close_widget, html_widget

Post: TypeAlias = Callable[[Callable[[], None]], None]
"""Lets something be done in the loop of the cell, from whatever thread."""

Check: TypeAlias = Callable[[Mapping[str, Any], str | None], Answer]
"""Turns what was typed, and a role that was chosen, into an answer; raises `InvalidAnswer`."""

Send: TypeAlias = Callable[[Answer], None]
"""Sends an answer."""

_SENDS: Mapping[DecisionKind, str] = {
    DecisionKind.APPROVE: "Approve",
    DecisionKind.REJECT: "Reject",
    DecisionKind.REVISE: "Send back",
    DecisionKind.EDIT: "Approve with this edit",
    DecisionKind.RESPOND: "Send response",
    DecisionKind.ESCALATE: "Escalate",
    DecisionKind.DELEGATE: "Delegate",
    DecisionKind.ABSTAIN: "Abstain",
}


class Controls:
    """What one person can do about one request.

    Attributes:
        box: The widget.
    """

    def __init__(
        self, request: ReviewRequest, person: Reviewer, *, post: Post, check: Check, send: Send
    ) -> None:
        self._request = request
        self._person = person
        self._post = post
        self._check = check
        self._send = send
        self._said = html_widget()
        self._forms: dict[DecisionKind, _Form] = {}
        buttons = [
            self.button(f"{SHORT[kind]}…", f"ask-{kind}", partial(self._open, kind))
            for kind in decisions_of(request)
        ]
        self._bar = boxed("bar", buttons)
        self._place = boxed("place", [self._bar])
        self.box = boxed("hitl controls", [self._said, self._place])

    def button(self, label: str, kind: str, act: Callable[[], None]) -> widgets.Button:
        """Return a button that does something in the loop of the cell."""
        made = widgets.Button(description=label).add_class(kind)
        made.on_click(lambda _: self._post(act))
        return made

    def say(self, text: str, tone: str = "warn", more: Sequence[str] = ()) -> None:
        """Say something above the decisions."""
        self._said.value = callout(text, tone, more)

    def ask_again(self, text: str, problems: Sequence[FieldProblem] = ()) -> None:
        """Let the person decide again; what was typed is still there."""
        self._enable(True)
        form = next((form for form in self._forms.values() if form.is_sent), None)
        if form is None:
            self.say(text, "bad")
            return
        form.is_sent = False
        form.refuse(problems, text)
        self._place.children = [form.box]

    def close(self) -> None:
        """Take the controls away."""
        for form in self._forms.values():
            form.close()
        close_widget(self.box)

    # ------------------------------------------------------------- what clicks do

    def _open(self, kind: DecisionKind) -> None:
        if kind not in self._forms:
            self._forms[kind] = _Form(self, self._request, self._person, kind)
        self._said.value = ""
        self._place.children = [self._forms[kind].box]
        self._forms[kind].focus()

    def not_now(self) -> None:
        """Return to the decisions."""
        self._place.children = [self._bar]

    def checked(self, form: _Form) -> Answer | None:
        """Return the answer that a form stands for; None: something is wrong, and is shown."""
        try:
            return self._check(form.raw, form.role)
        except InvalidAnswer as error:
            form.refuse(error.problems, "")
            return None

    def submit(self, form: _Form, answer: Answer) -> None:
        """Send an answer."""
        form.is_sent = True
        self._enable(False)
        self._place.children = []
        self.say("Sent. The run takes it from here.", "good")
        self._send(answer)

    def _enable(self, enabled: bool) -> None:
        self._said.value = ""
        for button in self._bar.children:
            button.disabled = not enabled


class _Form:
    """The form of one decision.

    Attributes:
        box: The widget.
        is_sent: Whether it was sent, and nothing is known of what became of it.
    """

    def __init__(
        self, controls: Controls, request: ReviewRequest, person: Reviewer, kind: DecisionKind
    ) -> None:
        self._controls = controls
        self._request = request
        self._kind = kind
        self.is_sent = False
        self._previewed = ""
        every = [FieldInput(field) for field in fields_of(request, kind)]
        self._own = [each for each in every if not _is_grant(each)]
        self._grant = [each for each in every if _is_grant(each)]
        self._grants = False
        self._role = _role_input(roles_to_choose(request, person))
        self._said = html_widget()
        self._fields = boxed("fields", self._field_boxes())
        # Made once: a button that is put in the place of another one takes the click from it.
        button = controls.button
        self._open_terms = button(
            "Let calls like this happen without asking…", "quiet", self._open_grant
        )
        self._first = self._first_button()
        self._not_now = button("Not now", "quiet", controls.not_now)
        self._send_edit = button(_SENDS[DecisionKind.EDIT], "send-edit", self._submit_edit)
        self._back = button("Change the edit", "quiet", self._show_fields)
        self._actions = boxed("bar", [])
        title = Markup('<div class="form-title">{}</div>').format(LABELS[kind])
        inside = [html_widget(title), self._said, self._fields, self._actions]
        self.box = boxed(f"form form-{kind}", inside)
        self._show_fields()

    @property
    def raw(self) -> dict[str, str]:
        """What was typed, as `parse_answer` takes it, and as the person means it."""
        shown = [*self._own, *(self._grant if self._grants else [])]
        found = {each.field.name: each.text for each in shown if each.is_given}
        return {
            "decision": self._kind.value,
            **as_meant(self._request, self._kind, found),
        }

    @property
    def role(self) -> str | None:
        """The role that was chosen to decide in; None: none was."""
        return (self._role.text if self._role else "") or None

    def focus(self) -> None:
        """Let the person type into the first field; never stand on a button."""
        self._own[0].focus()

    def refuse(self, problems: Sequence[FieldProblem], text: str) -> None:
        """Show what is wrong, at the field where there is one."""
        inputs = {each.field.name: each for each in (*self._own, *self._grant)}
        at_fields: dict[str, str] = {}
        others: list[str] = []
        for problem in problems:
            name = field_at(problem.field, inputs.keys())
            if name is None:
                others.append(": ".join(filter(None, (problem.field, problem.message))))
            else:
                at_fields[name] = "; ".join(filter(None, (at_fields.get(name), problem.message)))
        for name, each in inputs.items():
            each.say(at_fields.get(name, ""))
        if any(name.startswith("grant.") for name in at_fields):
            self._open_grant()
        self._lay_out(previews=False)
        said = "This was not sent. Correct what is marked." if at_fields else "This was not sent."
        self._said.value = callout(text or said, "bad", others)

    def close(self) -> None:
        """Take the form away."""
        spare = (self._open_terms, self._first, self._not_now, self._send_edit, self._back)
        for each in (self.box, *spare, *(each.box for each in self._grant)):
            close_widget(each)

    # ------------------------------------------------------------- what clicks do

    def _first_button(self) -> widgets.Button:
        if self._kind is DecisionKind.EDIT:
            return self._controls.button("Preview the change", "send-other", self._preview)
        tone = self._kind if self._kind in ("approve", "reject") else "other"
        return self._controls.button(_SENDS[self._kind], f"send-{tone}", self._submit)

    def _submit(self) -> None:
        answer = self._controls.checked(self)
        if answer is not None:
            self._clear()
            self._controls.submit(self, answer)

    def _preview(self) -> None:
        answer = self._controls.checked(self)
        subject = self._request.subject
        if answer is None or not isinstance(answer.decision, Edit) or subject is None:
            return
        self._clear()
        self._previewed = digest_of(answer.decision.subject)
        found = changes(subject.data, answer.decision.subject, labels_of(self._request))
        nothing = Markup("<p>Your edit changes nothing. It would be approved as it is shown.</p>")
        self._said.value = changed(found) if found else nothing
        self._lay_out(previews=True)

    def _submit_edit(self) -> None:
        answer = self._controls.checked(self)
        if answer is None or not isinstance(answer.decision, Edit):
            return
        if digest_of(answer.decision.subject) != self._previewed:
            self._preview()  # it was typed on meanwhile: nothing is sent that was not shown
            return
        self._controls.submit(self, answer)

    def _show_fields(self) -> None:
        self._clear()
        self._lay_out(previews=False)

    def _lay_out(self, *, previews: bool) -> None:
        self._fields.layout.display = "none" if previews else None
        if previews:
            self._actions.children = [self._send_edit, self._back, self._not_now]
        else:
            terms = [self._open_terms] if self._grant and not self._grants else []
            self._actions.children = [self._first, *terms, self._not_now]

    def _open_grant(self) -> None:
        self._grants = True
        self._fields.children = self._field_boxes()
        self._lay_out(previews=False)

    def _clear(self) -> None:
        self._said.value = ""
        for each in (*self._own, *self._grant):
            each.say("")

    def _field_boxes(self) -> list[widgets.Widget]:
        first = [self._role] if self._role else []
        grant = []
        if self._grants:
            title = Markup('<p class="help">{}</p>').format(
                "Only what you choose here is allowed from now on."
            )
            grant = [html_widget(title), *(each.box for each in self._grant)]
        return [*(each.box for each in (*first, *self._own)), *grant]


def _is_grant(each: FieldInput) -> bool:
    return each.field.name.startswith("grant.")


def _role_input(roles: tuple[str, ...]) -> FieldInput | None:
    if not roles:
        return None
    help_text = "Empty: whichever role is needed."
    return FieldInput(
        FormField(name="role", label="Decide as", widget="choice", choices=roles, help=help_text)
    )


def plain_controls(post: Post, send: Callable[[str], None]) -> widgets.VBox:
    """Return what answers a question that is nothing but a text."""
    field = FieldInput(FormField(name="text", label="Answer", widget="textarea", required=True))

    def submit() -> None:
        if field.text.strip():
            field.say("")
            send(field.text)
        else:
            field.say("An empty text answers nothing. Type your answer.")

    button = widgets.Button(description="Send").add_class("send-other")
    button.on_click(lambda _: post(submit))
    return boxed("hitl controls", [boxed("form", [field.box, boxed("bar", [button])])])


def name_controls(post: Post, named: Callable[[str], None]) -> widgets.VBox:
    """Return what asks the person for their name."""
    field = FieldInput(FormField(name="name", label="Your name, for the record", required=True))

    def submit() -> None:
        name = field.text.strip()
        if not name or visible(name) != name:
            field.say("Every decision is on record with a name: type yours.")
            return
        try:
            named(name)
        except ValueError:
            field.say("That is too long for a name.")

    button = widgets.Button(description="Go on").add_class("send-other")
    button.on_click(lambda _: post(submit))
    return boxed("hitl controls", [boxed("form", [field.box, boxed("bar", [button])])])
