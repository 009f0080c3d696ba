"""What the page of a request shows, made of a request as its reader may see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from markupsafe import Markup
from pydantic import JsonValue

from llama_index_hitl._html.diffs import FieldChange, changes
from llama_index_hitl._html.markup import Layout
from llama_index_hitl._html.reviews import (
    TONES,
    EvidenceView,
    FieldView,
    VoteView,
    at_deadline,
    changes_since,
    evidence_views,
    field_at,
    field_views,
    labels_of,
    roles_to_choose,
    still_asked,
    vote_view,
)
from llama_index_hitl._html.texts import plain
from llama_index_hitl.forms import LABELS, FormField, decisions_of, fields_of
from llama_index_hitl.models import (
    DecisionKind,
    Feedback,
    RequestStatus,
    Reviewer,
    ReviewRequest,
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
        fields=tuple(field_views(request, layout)),
        evidence=evidence_views(request, layout),
        changes=changes_since(request),
        feedback=tuple((item, plain(item.text)) for item in request.feedback),
        stages=tuple((s.stage, ", ".join(s.approvers)) for s in request.approvals),
        votes=tuple(vote_view(answer, request, layout) for answer in record.answers),
        asked=tuple(still_asked(record)) if record.status is RequestStatus.OPEN else (),
        kinds=decisions_of(request) if row.can_answer else (),
        at_deadline=at_deadline(request),
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
        name = field_at(path, names)
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
        roles=roles_to_choose(request, person),
        values=values or {},
        problems=at_fields,
        others=tuple(others),
        preview=None if preview is None else changes(shown, preview, labels_of(request)),
        previewed=previewed,
        stale=stale,
        hidden=frozenset(f"subject.{name}" for name, value in shown.items() if value == HIDDEN),
    )
