"""What is written into the audit trail: one function for each thing that can happen."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from datetime import datetime
from typing import Any, Literal, TypeAlias

from pydantic import JsonValue

from llama_index_hitl.audit import AuditEntry, AuditKind
from llama_index_hitl.errors import AnswerRefused, HitlError
from llama_index_hitl.grants import Grant
from llama_index_hitl.models import (
    Answer,
    Edit,
    JsonObject,
    Reviewer,
    ReviewRecord,
    ReviewRequest,
    Revise,
)
from llama_index_hitl.rendering import diff_of, text_of
from llama_index_hitl.stores.protocol import NoticeKind

Redact: TypeAlias = Callable[[AuditKind | NoticeKind | Literal["progress"], JsonObject], JsonObject]
"""Takes out what must not be stored or told: given the kind and the data, returns the data to keep.

Of an audit entry the data are an object with `reason` and `details`; of a notice they are its
payload; of what a run said, which is of the kind `progress`, an object with `type`, `message` and
`data`. What does not come back is not kept.
"""

_LONGEST_REASON = 1_000_000
_LONGEST_DIFF = 2_000
"""Lines in both versions together; comparing takes time that grows with the square of it."""


def redacted(entry: AuditEntry, redact: Redact) -> AuditEntry:
    """Return the entry with what `redact` leaves of its words and details.

    To be done before an entry is chained: a row cannot be redacted later without breaking its hash.

    Raises:
        pydantic.ValidationError: The reason that came back is no text, or the details no object.
    """
    left = redact(entry.kind, {"reason": entry.reason, "details": deepcopy(entry.details)})
    kept = {"reason": left.get("reason", ""), "details": left.get("details", {})}
    return AuditEntry.model_validate({**dict(entry), **kept})


def opened(run_id: str, record: ReviewRecord) -> AuditEntry:
    """A request was asked."""
    request = record.request
    return AuditEntry(
        kind=AuditKind.OPENED,
        run_id=run_id,
        at=request.created_at,
        request_id=request.request_id,
        actor=request.requester,
        digest=request.digest,
        details=_given(
            title=request.title,
            gate=request.gate,
            path=list(request.path) or None,
            stage=request.stage,
            revision=request.revision,
            reviewers=list(record.policy.reviewers),
            deadline=None if request.deadline is None else request.deadline.isoformat(),
            supersedes=request.supersedes,
        ),
    )


def answered(run_id: str, record: ReviewRecord, answer: Answer) -> AuditEntry:
    """A person answered; `record` is the request with this answer taken."""
    entry = _decided(AuditKind.ANSWERED, run_id, record, answer)
    if isinstance(answer.decision, Edit):
        diff = edit_details(record.request, answer.decision.subject)
        return entry.model_copy(update={"details": {**entry.details, **diff}})
    return entry


def rule_decided(run_id: str, record: ReviewRecord) -> AuditEntry:
    """A rule decided in place of a person; `record` is the closed request, its answer the last."""
    entry = _decided(AuditKind.RULE_DECIDED, run_id, record, record.answers[-1])
    rule = record.request.rule
    return entry.model_copy(update={"reason": rule.reason}) if rule is not None else entry


def _decided(kind: AuditKind, run_id: str, record: ReviewRecord, answer: Answer) -> AuditEntry:
    decision = answer.decision
    words = decision.feedback if isinstance(decision, Revise) else decision.comment
    return AuditEntry(
        kind=kind,
        run_id=run_id,
        at=answer.at,
        request_id=answer.request_id,
        actor=answer.by.id,
        role=answer.role,
        channel=answer.channel,
        digest=answer.digest,
        reason=words or "",
        details=_given(
            decision=decision.model_dump(mode="json"),
            roles=list(answer.by.roles),
            status=record.status.value,
        ),
    )


def edit_details(request: ReviewRequest, edited: JsonObject) -> JsonObject:
    """Return `diff`: what an edit changes in the subject of a request, as unified diff text."""
    if request.subject is None:
        return {}
    subjects = (request.subject.data, edited)
    if sum(text_of(v).count("\n") + 1 for data in subjects for v in data.values()) > _LONGEST_DIFF:
        return {"diff": "(too long to compare; the decision holds every value)"}
    after = request.subject.model_copy(update={"data": edited})
    compared = request.model_copy(update={"previous": request.subject, "subject": after})
    lines: list[str] = []
    for change in diff_of(compared):
        lines += [f"--- {change.field}", f"+++ {change.field}", *change.lines]
    return {"diff": "\n".join(lines)}


def refused(
    run_id: str,
    request_id: str | None,
    error: HitlError,
    *,
    at: datetime,
    actor: str | None = None,
    channel: str | None = None,
    digest: str | None = None,
) -> AuditEntry:
    """An answer was refused. What came in may be anything: what does not fit goes to the details.

    Args:
        run_id: The run that the request belongs to.
        request_id: The request that the answer named.
        error: Why it was refused.
        at: When.
        actor: Id of the person.
        channel: Where it was said.
        digest: Digest of what the person saw.
    """
    named = {"request_id": request_id, "actor": actor, "channel": channel, "digest": digest}
    fitting = {key: value for key, value in named.items() if value is None or _fits(value)}
    details = _given(
        code=error.code if isinstance(error, AnswerRefused) else type(error).__name__,
        unfit={key: _text(named[key] or "")[:200] for key in named if key not in fitting},
    )
    return AuditEntry(
        kind=AuditKind.REFUSED,
        run_id=run_id,
        at=at,
        reason=_text(str(error)),
        details=details,
        **fitting,
    )


def closed(
    run_id: str,
    record: ReviewRecord,
    kind: AuditKind,
    at: datetime,
    reason: str = "",
    *,
    actor: str | None = None,
) -> AuditEntry:
    """A request was closed by other means than an answer, such as `expired` or `withdrawn`."""
    return AuditEntry(
        kind=kind,
        run_id=run_id,
        at=at,
        request_id=record.request.request_id,
        actor=actor,
        digest=record.request.digest,
        reason=_text(reason or record.outcome.reason),
        details=_given(status=record.status.value, superseded_by=record.superseded_by),
    )


def claimed(
    run_id: str, request: ReviewRequest, by: str, at: datetime, until: datetime
) -> AuditEntry:
    """A person said that they look at a request, or goes on looking at it, until some instant."""
    return _looked_at(AuditKind.CLAIMED, run_id, request, by, at, until=until.isoformat())


def released(run_id: str, request: ReviewRequest, by: str, at: datetime) -> AuditEntry:
    """A person said that they look at a request no more."""
    return _looked_at(AuditKind.RELEASED, run_id, request, by, at)


def _looked_at(
    kind: AuditKind, run_id: str, request: ReviewRequest, by: str, at: datetime, **details: str
) -> AuditEntry:
    return AuditEntry(
        kind=kind,
        run_id=run_id,
        at=at,
        request_id=request.request_id,
        actor=by,
        digest=request.digest,
        details=dict(details),
    )


def run_event(
    kind: AuditKind,
    run_id: str,
    at: datetime,
    *,
    actor: str | None = None,
    reason: str = "",
    details: JsonObject | None = None,
) -> AuditEntry:
    """Something happened to the run as a whole, such as `started`, `failed` or `cancelled`."""
    return AuditEntry(
        kind=kind, run_id=run_id, at=at, actor=actor, reason=_text(reason), details=details or {}
    )


def effect_event(
    kind: AuditKind, run_id: str, key: str, at: datetime, *, actor: str, reason: str = ""
) -> AuditEntry:
    """Something happened to the effect with this key, which stands in the details."""
    return run_event(kind, run_id, at, actor=actor, reason=reason, details={"effect": key})


def spot_checked(run_id: str, record: ReviewRecord, by: Reviewer) -> AuditEntry:
    """A person looked at what a rule had decided; `record` is the request with what they found."""
    found = record.spot_check
    if found is None:
        raise ValueError(f"{record.request_id} has not been looked at")
    return AuditEntry(
        kind=AuditKind.SPOT_CHECKED,
        run_id=run_id,
        at=found.at,
        request_id=record.request_id,
        actor=found.by,
        digest=record.request.digest,
        reason=found.comment,
        details=_given(
            right=found.right,
            rule=None if record.request.rule is None else record.request.rule.rule,
            roles=list(by.roles),
        ),
    )


def granted(grant: Grant) -> AuditEntry:
    """A person has given a standing approval."""
    return AuditEntry(
        kind=AuditKind.GRANTED,
        run_id=grant.trail,
        at=grant.granted_at,
        request_id=grant.request_id,
        actor=grant.owner,
        details=_given(
            grant=grant.grant_id,
            workflow=grant.workflow,
            agent=grant.agent,
            tool=grant.tool,
            version=grant.version,
            terms=grant.terms.model_dump(mode="json"),
        ),
    )


def grant_used(grant: Grant, run_id: str, key: str, at: datetime) -> AuditEntry:
    """A standing approval has covered a call; `grant` is as it stands then."""
    return AuditEntry(
        kind=AuditKind.GRANT_USED,
        run_id=run_id,
        at=at,
        actor=grant.decider,
        details=_given(
            grant=grant.grant_id,
            owner=grant.owner,
            agent=grant.agent,
            tool=grant.tool,
            key=key,
            used=grant.used,
            spent={path: str(amount) for path, amount in grant.spent.items()},
        ),
    )


def grant_revoked(grant: Grant, at: datetime) -> AuditEntry:
    """A standing approval was revoked; `grant` is as it stands then."""
    return AuditEntry(
        kind=AuditKind.GRANT_REVOKED,
        run_id=grant.trail,
        at=at,
        request_id=grant.request_id,
        actor=grant.revoked_by,
        reason=_text(grant.revoked_because),
        details=_given(grant=grant.grant_id, tool=grant.tool, used=grant.used),
    )


def _given(**details: JsonValue) -> dict[str, Any]:
    """Return the details that say something."""
    return {key: value for key, value in details.items() if value not in (None, "", [], {})}


def _fits(value: str) -> bool:
    return bool(value.strip()) and len(value) <= 200 and value.isprintable()


def _text(value: str) -> str:
    """Return text that can be stored: an error may quote what is no text, or too much of it."""
    return value.encode(errors="replace").decode()[:_LONGEST_REASON]
