"""The parts of a request that pages and notebooks lay out: views of what it has, and words."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from pydantic import JsonValue

from llama_index_hitl._html.diffs import FieldChange, changes
from llama_index_hitl._html.markdown import is_link
from llama_index_hitl._html.markup import Layout, is_short
from llama_index_hitl._html.texts import plain
from llama_index_hitl.forms import LABELS, FormField, fields_of, fields_of_schema
from llama_index_hitl.models import (
    ROLE_PREFIX,
    Answer,
    DecisionKind,
    Delegate,
    Edit,
    Escalate,
    Evidence,
    Reject,
    RequestStatus,
    Respond,
    Reviewer,
    ReviewRecord,
    ReviewRequest,
    Revise,
)

SHORT: Mapping[DecisionKind, str] = {
    **LABELS,
    DecisionKind.REVISE: "Send back",
    DecisionKind.EDIT: "Edit",
    DecisionKind.DELEGATE: "Delegate",
}
"""What the buttons that open forms are called."""

DONE: Mapping[DecisionKind, str] = {
    DecisionKind.APPROVE: "approved",
    DecisionKind.REJECT: "rejected",
    DecisionKind.REVISE: "sent it back",
    DecisionKind.EDIT: "edited it",
    DecisionKind.RESPOND: "responded",
    DecisionKind.ESCALATE: "escalated it",
    DecisionKind.DELEGATE: "handed it over",
    DecisionKind.ABSTAIN: "abstained",
}
"""What somebody has done who decided so."""

TONES: Mapping[RequestStatus, str] = {
    RequestStatus.OPEN: "accent",
    RequestStatus.APPROVED: "good",
    RequestStatus.RESPONDED: "good",
    RequestStatus.REJECTED: "bad",
    RequestStatus.NO_QUORUM: "bad",
    RequestStatus.EXPIRED: "warn",
}
"""Colours of statuses; of others none."""


@dataclass(frozen=True, kw_only=True)
class FieldView:
    """One value of the subject, laid out.

    Attributes:
        name: Name of the field.
        label: What it is called.
        shown: The value.
        short: Whether it stands beside its label.
    """

    name: str
    label: str
    shown: Markup
    short: bool


@dataclass(frozen=True, kw_only=True)
class EvidenceView:
    """One piece of evidence, laid out; its source is a link only where that shows a page."""

    item: Evidence
    body: Markup
    is_link: bool


@dataclass(frozen=True, kw_only=True)
class VoteView:
    """One answer, laid out.

    Attributes:
        answer: The answer.
        done: What they have done, in words.
        changes: What an edit has changed.
        response: What they responded.
        words: Other words that belong to the decision: feedback, to whom it went, a comment.
    """

    answer: Answer
    done: str
    changes: tuple[FieldChange, ...] = ()
    response: Markup | None = None
    words: tuple[Markup, ...] = ()


def labels_of(request: ReviewRequest) -> dict[str, str]:
    """Return what the fields of the subject are called."""
    return {item.name: item.label for item in subject_fields(request)}


def subject_fields(request: ReviewRequest) -> tuple[FormField, ...]:
    """Return the fields of the subject, with what they are called."""
    subject = request.subject
    return () if subject is None else fields_of_schema(subject.json_schema, data=subject.data)


def field_at(path: str, names: Collection[str]) -> str | None:
    """Return the field of the form that a problem is at: that of its path, or one it lies in."""
    while path:
        if path in names:
            return path
        path = path.rpartition(".")[0]
    return None


def roles_to_choose(request: ReviewRequest, person: Reviewer) -> tuple[str, ...]:
    """Return the roles of a person among which it matters in which they decide; often none."""
    named = tuple(role for role in person.roles if role in request.policy.per_role)
    return named if len(named) > 1 else ()


def field_views(request: ReviewRequest, layout: Layout) -> Iterator[FieldView]:
    """Lay out the values of the subject."""
    subject = request.subject
    if subject is None:
        return
    named = {item.name: item for item in subject_fields(request)}
    for name, value in subject.data.items():
        known = named.get(name)
        yield FieldView(
            name=name,
            label=name if known is None else known.label,
            shown=layout.value(value, known),
            short=is_short(value, known),
        )


def evidence_views(request: ReviewRequest, layout: Layout) -> tuple[EvidenceView, ...]:
    """Lay out what helps to decide."""
    return tuple(
        EvidenceView(item=item, body=layout.markdown(item.body), is_link=is_link(item.source))
        for item in request.evidence
    )


def changes_since(request: ReviewRequest) -> tuple[FieldChange, ...]:
    """Return what is different from the revision before; nothing for the first."""
    if request.previous is None or request.subject is None:
        return ()
    return changes(request.previous.data, request.subject.data, labels_of(request))


def vote_view(answer: Answer, request: ReviewRequest, layout: Layout) -> VoteView:
    """Lay out one answer."""
    decision = answer.decision
    found: dict[str, Any] = {}
    words = ""
    match decision:
        case Edit() if request.subject is not None:
            found["changes"] = changes(request.subject.data, decision.subject, labels_of(request))
        case Respond():
            found["response"] = layout.value(decision.response)
        case Revise():
            words = decision.feedback
        case Delegate():
            words = f"to {decision.to}"
        case Escalate():
            words = f"to {', '.join(decision.to or request.escalate_to)}"
        case _:
            pass
    said = tuple(plain(text) for text in (words, decision.comment) if text)
    return VoteView(answer=answer, done=DONE[DecisionKind(decision.kind)], words=said, **found)


def still_asked(record: ReviewRecord) -> Iterator[tuple[str, bool]]:
    """Return who is asked and has not answered: entries, and whether they are roles."""
    voted = {answer.by.id for answer in record.answers}
    for entry in record.policy.reviewers:
        if entry not in voted:
            yield entry.removeprefix(ROLE_PREFIX), entry.startswith(ROLE_PREFIX)


def at_deadline(request: ReviewRequest) -> str:
    """Return what happens at the deadline, in words."""
    match request.on_deadline:
        case Escalate(to=to):
            names = (entry.removeprefix(ROLE_PREFIX) for entry in to or request.escalate_to)
            return f"it is escalated to {', '.join(names)}"
        case Reject():
            return "it is rejected"
        case _:
            return "it expires undecided"


def typed(value: JsonValue) -> str:
    """Return a value as one would type it into an input."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def as_meant(asked: ReviewRequest, kind: DecisionKind, fields: Mapping[str, str]) -> dict[str, str]:
    """Leave out what a person has left as it was: an empty optional input, an unchanged value.

    A form cannot carry every value there and back unchanged, such as one with other line ends.
    """
    known = {field.name: field for field in fields_of(asked, kind)}
    sent: dict[str, str] = {}
    for name, value in fields.items():
        field = known.get(name)
        if field is not None:
            before = typed(field.value).replace("\r\n", "\n").replace("\r", "\n")
            if kind is DecisionKind.EDIT and field.value is not None and value == before:
                continue
            if not value.strip() and not field.required and field.value is None:
                continue
        sent[name] = value
    return sent
