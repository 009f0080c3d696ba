"""What happened in a run, in the words of its page: what it said, what was asked, who decided."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from llama_index_hitl._text import visible
from llama_index_hitl.audit import AuditEntry, AuditKind, AuditRow
from llama_index_hitl.models import ROLE_PREFIX, RULE_PREFIX, DecisionKind, JsonObject
from llama_index_hitl.stores.protocol import PROGRESS, Cursor, FeedEvent, Store, StoredRequest
from llama_index_hitl.web._trail import reason_of

_BATCH = 500

_VERBS: Mapping[DecisionKind, str] = {
    DecisionKind.APPROVE: "approved",
    DecisionKind.REJECT: "rejected",
    DecisionKind.REVISE: "sent it back",
    DecisionKind.EDIT: "edited it and approved",
    DecisionKind.RESPOND: "answered",
    DecisionKind.ESCALATE: "passed it on",
    DecisionKind.DELEGATE: "handed their vote",
    DecisionKind.ABSTAIN: "abstained",
}

_TONES = {
    "approve": "good",
    "edit": "good",
    "respond": "good",
    "reject": "bad",
    "revise": "warn",
    "finished": "good",
    "failed": "bad",
    "expired": "warn",
    "effect_in_doubt": "bad",
}

_WORDS: Mapping[str, str] = {
    AuditKind.REMINDED: "Those who are asked were reminded",
    AuditKind.WIDENED: "More people are asked",
    AuditKind.ESCALATED: "Nobody had decided in time: it was passed on",
    AuditKind.DEFAULTED: "Nobody had decided in time: it was rejected",
    AuditKind.EXPIRED: "The time to answer is over",
    AuditKind.SUPERSEDED: "A newer draft took its place",
    AuditKind.REOPENED: "It was asked again",
}
"""What time, and the run itself, do to a request."""

_BY_PEOPLE: Mapping[str, tuple[str, str]] = {
    AuditKind.STARTED: ("{} started the run", "The run was started"),
    AuditKind.WITHDRAWN: ("{} took the question back", "The question was taken back"),
    AuditKind.RETRIED: ("{} let it try again", "It was tried again"),
    AuditKind.CANCELLED: ("{} cancelled the run", "The run was cancelled"),
    AuditKind.FINISHED: ("{} finished the run", "The run is finished"),
    AuditKind.FAILED: ("{} made the run fail", "The run failed"),
}
"""What people do to a run, where it is known who it was, and where not."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One thing that happened.

    Attributes:
        cursor: Its place in the feed.
        kind: What it was: `progress`, `opened`, `answered`, or another `AuditKind`.
        at: When.
        words: What happened, as a sentence.
        quote: What somebody said, in their own words.
        tone: `good`, `bad`, `warn`, or empty.
        request: The request that it is about, as its reader may see it.
    """

    cursor: Cursor
    kind: str
    at: datetime
    words: str
    quote: str = ""
    tone: str = ""
    request: StoredRequest | None = None


async def feed_of(store: Store, run_id: str) -> list[FeedEvent]:
    """Return all that was stored of a run, in order."""
    found: list[FeedEvent] = []
    while True:
        after = found[-1].cursor if found else None
        batch = await store.feed(run_id=run_id, after=after, limit=_BATCH)
        found += batch
        if len(batch) < _BATCH:
            return found


def moments(
    feed: Sequence[FeedEvent],
    rows: Sequence[AuditRow],
    shown: Mapping[str, StoredRequest],
    *,
    masked: bool = False,
) -> list[Moment]:
    """Return what happened in a run, as far as its reader may know it.

    Args:
        feed: What the feed has of the run.
        rows: Its audit trail, which says who it was.
        shown: Its requests by id, as the reader may see them; of others nothing is said.
        masked: Something is hidden from the reader: what the run said, and why rules and errors
            did something, is left out, for it may quote that.
    """
    entries: dict[tuple[str, str | None], deque[AuditEntry]] = defaultdict(deque)
    for row in rows:
        entries[row.entry.kind, row.entry.request_id].append(row.entry)
    found: list[Moment] = []
    for event in feed:
        if event.kind == PROGRESS:
            found.append(_said(event, masked=masked))
            continue
        waiting = entries[event.kind, event.request_id]
        entry = waiting.popleft() if waiting else None
        if entry is None or (event.request_id is not None and event.request_id not in shown):
            continue
        request = None if event.request_id is None else shown[event.request_id]
        quote = reason_of(entry, hiding=masked)
        if (moment := _happened(event, entry, request, quote)) is not None:
            found.append(moment)
    return found


def _said(event: FeedEvent, *, masked: bool) -> Moment:
    message = None if masked else event.data.get("message")
    words = visible(str(message or event.data.get("type") or "Something happened"))
    return Moment(cursor=event.cursor, kind=PROGRESS, at=event.at, words=words)


def _happened(
    event: FeedEvent, entry: AuditEntry, request: StoredRequest | None, quote: str
) -> Moment | None:
    kind = entry.kind
    tone = _TONES.get(kind, "")
    if kind is AuditKind.OPENED and request is not None:
        words, quote = visible(request.record.request.title), ""
    elif kind in (AuditKind.ANSWERED, AuditKind.RULE_DECIDED):
        words, tone = _decided(entry)
    elif kind in _WORDS:
        words, quote = _WORDS[kind], ""
    elif kind in _BY_PEOPLE:
        named, unnamed = _BY_PEOPLE[kind]
        words = named.format(visible(entry.actor)) if entry.actor else unnamed
        quote = "" if kind is AuditKind.FINISHED else quote
    else:
        return None
    return Moment(
        cursor=event.cursor,
        kind=kind.value,
        at=event.at,
        words=words,
        quote=visible(quote),
        tone=tone,
        request=request,
    )


def _decided(entry: AuditEntry) -> tuple[str, str]:
    """Return what somebody decided, as a sentence, and its tone."""
    decision = cast("JsonObject", entry.details.get("decision") or {})
    kind = str(decision.get("kind"))  # missing, where what is kept was redacted
    verb = _VERBS.get(cast("DecisionKind", kind), "decided")
    who = entry.actor or ""
    if who.startswith(RULE_PREFIX):
        return f"A rule {verb} ({visible(who.removeprefix(RULE_PREFIX))})", _TONES.get(kind, "")
    to = decision.get("to") or ()
    if names := ", ".join((to,) if isinstance(to, str) else cast("list[str]", to)):
        verb = f"{verb} to {visible(names).replace(ROLE_PREFIX, '')}"
    role = f", as {visible(entry.role)}," if entry.role else ""
    return f"{visible(who) or 'Somebody'}{role} {verb}", _TONES.get(kind, "")
