"""What the page of a request shows, made of a request as its reader may see it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from markupsafe import Markup
from pydantic import JsonValue

from llama_index_hitl._html.diffs import FieldChange, changes
from llama_index_hitl._html.markdown import is_link
from llama_index_hitl._html.markup import Layout, is_short
from llama_index_hitl._html.texts import plain
from llama_index_hitl.forms import LABELS, FormField, decisions_of, fields_of, fields_of_schema
from llama_index_hitl.models import (
    ROLE_PREFIX,
    Answer,
    DecisionKind,
    Delegate,
    Edit,
    Escalate,
    Evidence,
    Feedback,
    Reject,
    RequestStatus,
    Respond,
    Reviewer,
    ReviewRequest,
    Revise,
)
from llama_index_hitl.stores.protocol import StoredRequest
from llama_index_hitl.web._views import RequestSummary, summary_of
from llama_index_hitl.web.visibility import HIDDEN

KEYS: Mapping[DecisionKind, str] = {
    DecisionKind.APPROVE: "a",
    DecisionKind.REJECT: "r",
    DecisionKind.REVISE: "s",
    DecisionKind.EDIT: "e",
    DecisionKind.RESPOND: "p",
}
"""Which key opens the form of which decision."""

LESSER = frozenset({DecisionKind.ESCALATE, DecisionKind.DELEGATE, DecisionKind.ABSTAIN})
"""Decisions that leave it to others; where there is little room, they stand behind a button."""

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


@dataclass(frozen=True, kw_only=True)
class Message:
    """Something that the page has to say before all else, such as that somebody was first.

    Attributes:
        tone: How it looks: `good`, `warn` or `bad`.
        title: What it says.
        text: More about it.
        typed: What its reader had typed that did not count, so that it is not lost.
    """

    tone: str
    title: str
    text: str = ""
    typed: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class DecideForm:
    """The form of one decision.

    Attributes:
        kind: The decision.
        fields: What has to be typed; without the terms of a standing approval.
        grant: The terms of a standing approval.
        roles: The roles of the person among which it matters in which they decide.
        values: What was typed, by name, where the form comes back.
        problems: What is wrong, by name of the field.
        others: What is wrong and belongs to no field of the form.
        preview: What an edit would change; None: it was not asked for.
        previewed: Digest of the subject that the preview shows.
        stale: Whether the edit is no longer what was shown before.
        hidden: Names of fields that the person may not see, and that stay as they are.
    """

    kind: DecisionKind
    fields: tuple[FormField, ...]
    grant: tuple[FormField, ...] = ()
    roles: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    preview: tuple[FieldChange, ...] | None = None
    previewed: str = ""
    stale: bool = False
    hidden: frozenset[str] = frozenset()

    @property
    def label(self) -> str:
        """What it is called."""
        return LABELS[self.kind]


@dataclass(frozen=True, kw_only=True)
class Detail:
    """A request, laid out for one reader.

    Attributes:
        row: As it stands in lists.
        request: What is asked.
        status_tone: Colour of its status.
        body: What there is to know.
        fields: The subject.
        evidence: What helps to decide.
        changes: What is different from the revision before.
        feedback: What people asked to change so far, oldest first.
        stages: Earlier stages, and who let them pass.
        votes: The answers so far.
        asked: Who is asked and has not answered: entries, and whether they are roles.
        kinds: The decisions that this person can take now.
        at_deadline: What happens at the deadline, in words.
        reason: Why it stands as it does, in words.
        mine: Whether this person has answered.
        whole: Whether nothing was cut.
        closed_at: When it was closed.
        superseded_by: The request that took its place.
    """

    row: RequestSummary
    request: ReviewRequest
    status_tone: str
    body: Markup
    fields: tuple[FieldView, ...]
    evidence: tuple[EvidenceView, ...]
    changes: tuple[FieldChange, ...]
    feedback: tuple[tuple[Feedback, Markup], ...]
    stages: tuple[tuple[str, str], ...]
    votes: tuple[VoteView, ...]
    asked: tuple[tuple[str, bool], ...]
    kinds: tuple[DecisionKind, ...]
    at_deadline: str
    reason: str
    mine: bool
    whole: bool
    closed_at: datetime | None
    superseded_by: str | None


def detail_page(
    shown: StoredRequest, person: Reviewer, now: datetime, *, whole: bool = False
) -> Detail:
    """Lay out a request that was made fit for its reader.

    Args:
        shown: The request.
        person: Its reader.
        now: The present instant.
        whole: Show texts and tables to their ends.
    """
    record = shown.record
    request = record.request
    row = summary_of(shown, person, now)
    layout = Layout(whole=whole)
    return Detail(
        row=row,
        request=request,
        status_tone=TONES.get(record.status, ""),
        body=layout.markdown(request.body),
        fields=tuple(_fields(request, layout)),
        evidence=tuple(
            EvidenceView(item=item, body=layout.markdown(item.body), is_link=is_link(item.source))
            for item in request.evidence
        ),
        changes=_changes(request),
        feedback=tuple((item, plain(item.text)) for item in request.feedback),
        stages=tuple((s.stage, ", ".join(s.approvers)) for s in request.approvals),
        votes=tuple(_vote(answer, request, layout) for answer in record.answers),
        asked=tuple(_asked(shown)) if record.status is RequestStatus.OPEN else (),
        kinds=decisions_of(request) if row.can_answer else (),
        at_deadline=_at_deadline(request),
        reason=record.outcome.reason,
        mine=row.voted,
        whole=whole,
        closed_at=record.closed_at,
        superseded_by=record.superseded_by,
    )


def decide_form(
    request: ReviewRequest,
    kind: DecisionKind,
    person: Reviewer,
    *,
    values: Mapping[str, str] | None = None,
    problems: Sequence[tuple[str, str]] = (),
    preview: Mapping[str, JsonValue] | None = None,
    previewed: str = "",
    stale: bool = False,
) -> DecideForm:
    """Return the form of one decision.

    Args:
        request: The request, as the person may see it.
        kind: The decision.
        person: Who decides.
        values: What they have typed already.
        problems: What is wrong with it, by name of the field.
        preview: The subject as their edit would leave it.
        previewed: Digest of that.
        stale: Whether the edit is no longer what was shown before.
    """
    every = fields_of(request, kind)
    names = {item.name for item in every} | {"role"}
    at_fields: dict[str, str] = {}
    others: list[str] = []
    for path, message in problems:
        name = _field_at(path, names)
        if name is None:
            others.append(f"{path}: {message}" if path else message)
        else:
            at_fields[name] = f"{at_fields[name]}; {message}" if name in at_fields else message
    # What is missing is said in one way, whatever the rule of the field that it breaks.
    given = {name for name, text in (values or {}).items() if text.strip()}
    missing = {item.name for item in every if item.required} - given
    at_fields |= dict.fromkeys(missing & at_fields.keys(), "This is needed.")
    shown = {} if request.subject is None else request.subject.data
    return DecideForm(
        kind=kind,
        fields=tuple(item for item in every if not item.name.startswith("grant.")),
        grant=tuple(item for item in every if item.name.startswith("grant.")),
        roles=_roles(request, person),
        values=values or {},
        problems=at_fields,
        others=tuple(others),
        preview=None if preview is None else changes(shown, preview, labels_of(request)),
        previewed=previewed,
        stale=stale,
        hidden=frozenset(f"subject.{name}" for name, value in shown.items() if value == HIDDEN),
    )


def labels_of(request: ReviewRequest) -> dict[str, str]:
    """Return what the fields of the subject are called."""
    return {item.name: item.label for item in _form_fields(request)}


def _form_fields(request: ReviewRequest) -> tuple[FormField, ...]:
    subject = request.subject
    return () if subject is None else fields_of_schema(subject.json_schema, data=subject.data)


def _field_at(path: str, names: set[str]) -> str | None:
    """Return the field of the form that a problem is at: that of its path, or one it lies in."""
    while path:
        if path in names:
            return path
        path = path.rpartition(".")[0]
    return None


def _roles(request: ReviewRequest, person: Reviewer) -> tuple[str, ...]:
    named = tuple(role for role in person.roles if role in request.policy.per_role)
    return named if len(named) > 1 else ()


def _fields(request: ReviewRequest, layout: Layout) -> Iterator[FieldView]:
    subject = request.subject
    if subject is None:
        return
    named = {item.name: item for item in _form_fields(request)}
    for name, value in subject.data.items():
        known = named.get(name)
        yield FieldView(
            name=name,
            label=name if known is None else known.label,
            shown=layout.value(value, known),
            short=is_short(value, known),
        )


def _changes(request: ReviewRequest) -> tuple[FieldChange, ...]:
    if request.previous is None or request.subject is None:
        return ()
    return changes(request.previous.data, request.subject.data, labels_of(request))


def _vote(answer: Answer, request: ReviewRequest, layout: Layout) -> VoteView:
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


def _asked(shown: StoredRequest) -> Iterator[tuple[str, bool]]:
    record = shown.record
    voted = {answer.by.id for answer in record.answers}
    for entry in record.policy.reviewers:
        if entry not in voted:
            yield entry.removeprefix(ROLE_PREFIX), entry.startswith(ROLE_PREFIX)


def _at_deadline(request: ReviewRequest) -> str:
    match request.on_deadline:
        case Escalate(to=to):
            names = (entry.removeprefix(ROLE_PREFIX) for entry in to or request.escalate_to)
            return f"it is escalated to {', '.join(names)}"
        case Reject():
            return "it is rejected"
        case _:
            return "it expires undecided"
