"""The audit trail of a run, as far as somebody may see it."""

from __future__ import annotations

from pydantic import AwareDatetime, Field

from llama_index_hitl.audit import AuditEntry, AuditKind, AuditRow, AuditSeal, seal_of, verify
from llama_index_hitl.models import JsonObject, Reviewer, Value
from llama_index_hitl.web._running import SeenRun, ids_of, seen_run
from llama_index_hitl.web._site import Site

_NEVER_HIDDEN = frozenset(
    {
        "code",
        "deadline",
        "gate",
        "path",
        "reviewers",
        "revision",
        "roles",
        "stage",
        "status",
        "superseded_by",
        "supersedes",
        "title",
        "until",
    }
)
"""Details that hold nothing of a subject."""

_SAID_BY_PEOPLE = frozenset(
    {
        AuditKind.ANSWERED,
        AuditKind.WITHDRAWN,
        AuditKind.GRANT_REVOKED,
        AuditKind.RETRIED,
        AuditKind.CANCELLED,
        AuditKind.SPOT_CHECKED,
    }
)
"""What people give a reason for: their words are shown, those of rules and errors quote values."""


class TrailRow(Value):
    """One row of a trail.

    Attributes:
        number: Its place, from 1.
        hash: What seals it to the rows before.
        shown: Whether its reader may see what it says; if not, nothing else is given.
        kind: What happened.
        at: When.
        request_id: The request that it is about, if it is about one.
        actor: Who did it.
        role: In which role.
        channel: Where it was said.
        digest: Digest of what they saw.
        reason: Why.
        details: What else there is to know, without what is hidden from its reader.
    """

    number: int
    hash: str
    shown: bool = True
    kind: AuditKind | None = None
    at: AwareDatetime | None = None
    request_id: str | None = None
    actor: str | None = None
    role: str | None = None
    channel: str | None = None
    digest: str | None = None
    reason: str = ""
    details: JsonObject = Field(default_factory=dict)


class Trail(Value):
    """The audit trail of a run.

    Attributes:
        run_id: The run.
        intact: Whether nothing was done to it after it was written, as far as that shows.
        findings: What was done to it; who does not see all of it is told only that there is
            something.
        seal: Number and hash of its last row, to be kept where the store's writer cannot reach it.
        rows: Its rows, in order.
    """

    run_id: str
    intact: bool
    findings: tuple[str, ...]
    seal: AuditSeal | None = None
    rows: tuple[TrailRow, ...]


async def trail_of(site: Site, person: Reviewer, run_id: str) -> Trail:
    """Return the audit trail of a run, checked, as somebody may see it.

    Rows about requests that they do not see are there with number and hash only. Of rows about a
    request with fields that are hidden from them, what may hold these is left out.

    Raises:
        UnknownRun: There is none, or none that they may see.
    """
    shown = await seen_run(site, person, run_id)
    rows = await site.runner.history(run_id)
    findings = verify(rows, run_id=run_id)
    if findings and (shown.unseen or shown.masked):
        findings = ("something was done to it after it was written",)
    hiding = {
        stored.request_id
        for stored in shown.requests
        if site.visibility.hidden_fields(person, stored.record.request)
    }
    visible = ids_of(shown.requests)
    return Trail(
        run_id=run_id,
        intact=not findings,
        findings=findings,
        seal=seal_of(rows),
        rows=tuple(_row(row, shown, visible, hiding) for row in rows),
    )


def reason_of(entry: AuditEntry, *, hiding: bool) -> str:
    """Return why something happened, as far as its reader may know.

    Args:
        entry: What happened.
        hiding: Something is hidden from the reader that the reason may quote.
    """
    return "" if hiding and entry.kind not in _SAID_BY_PEOPLE else entry.reason


def _row(row: AuditRow, run: SeenRun, visible: frozenset[str], hiding: set[str]) -> TrailRow:
    entry = row.entry
    about = entry.request_id
    # A row may be about a request that is stored no more, or never was.
    if about is not None and about not in visible and (run.unseen or run.masked):
        return TrailRow(number=row.number, hash=row.hash, shown=False)
    details = entry.details
    is_hiding = about in hiding or (about is None and run.masked)
    if is_hiding:
        details = {name: value for name, value in details.items() if name in _NEVER_HIDDEN}
    return TrailRow(
        number=row.number,
        hash=row.hash,
        kind=entry.kind,
        at=entry.at,
        request_id=about,
        actor=entry.actor,
        role=entry.role,
        channel=entry.channel,
        digest=entry.digest,
        reason=reason_of(entry, hiding=is_hiding),
        details=details,
    )
