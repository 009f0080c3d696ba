"""What an audit trail tells, moment by moment, and which requests are open meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import cast

from llama_index_hitl.audit import AuditEntry, AuditKind, AuditRow
from llama_index_hitl.drawing._times import moment
from llama_index_hitl.models import ROLE_PREFIX, RULE_PREFIX, DecisionKind, JsonObject

RUN = 0
"""The lane of the run itself."""

_VERBS: Mapping[str, tuple[str, str]] = {
    DecisionKind.APPROVE: ("approved", "good"),
    DecisionKind.REJECT: ("rejected", "bad"),
    DecisionKind.REVISE: ("sent it back", "warn"),
    DecisionKind.EDIT: ("edited it and approved", "good"),
    DecisionKind.RESPOND: ("answered", "good"),
    DecisionKind.ESCALATE: ("passed it on", "warn"),
    DecisionKind.DELEGATE: ("handed their vote", "warn"),
    DecisionKind.ABSTAIN: ("abstained", ""),
}

_OF_REQUESTS: Mapping[AuditKind, tuple[str, str]] = {
    AuditKind.REMINDED: ("Those who are asked were reminded", ""),
    AuditKind.WIDENED: ("More people are asked", ""),
    AuditKind.ESCALATED: ("Nobody decided in time: passed on", "warn"),
    AuditKind.DEFAULTED: ("Nobody decided in time: rejected", "bad"),
    AuditKind.EXPIRED: ("Nobody decided in time: expired", "warn"),
    AuditKind.SUPERSEDED: ("A newer draft took its place", ""),
    AuditKind.WITHDRAWN: ("The question was taken back", ""),
    AuditKind.REOPENED: ("Asked again", "ask"),
    AuditKind.SPOT_CHECKED: ("Somebody looked at what a rule had decided", ""),
    AuditKind.GRANTED: ("A standing approval was given", "good"),
}

_OF_RUNS: Mapping[AuditKind, tuple[str, str]] = {
    AuditKind.STARTED: ("Started", ""),
    AuditKind.EFFECT_DONE: ("Done, once", "good"),
    AuditKind.EFFECT_IN_DOUBT: ("Begun, and not known to be done", "bad"),
    AuditKind.EFFECT_SETTLED: ("Said what had happened", ""),
    AuditKind.GRANT_USED: ("Covered by a standing approval", "good"),
    AuditKind.GRANT_REVOKED: ("A standing approval was revoked", "warn"),
    AuditKind.FAILED: ("Failed", "bad"),
    AuditKind.RETRIED: ("Tried again", ""),
    AuditKind.CANCELLED: ("Cancelled", "bad"),
    AuditKind.FINISHED: ("Finished", "good"),
}

_BY_TIME = {
    AuditKind.REMINDED,
    AuditKind.WIDENED,
    AuditKind.ESCALATED,
    AuditKind.DEFAULTED,
    AuditKind.EXPIRED,
}
_CLOSING = {
    AuditKind.ESCALATED,
    AuditKind.DEFAULTED,
    AuditKind.EXPIRED,
    AuditKind.SUPERSEDED,
    AuditKind.WITHDRAWN,
}
_BY_PROCESSES = {AuditKind.EFFECT_DONE, AuditKind.EFFECT_IN_DOUBT}
"""Whose actor is a process on some machine, which is another one each time."""

_ENDING = {AuditKind.FAILED, AuditKind.CANCELLED, AuditKind.FINISHED}


@dataclass(frozen=True, slots=True)
class Moment:
    """One thing that happened.

    Attributes:
        at: When.
        words: What happened.
        quote: What somebody said, or more about it.
        tone: How it went, one of `TONES`.
        lane: Whose line it stands on: 0 is the run's, requests have those from 1 on.
        opens: Whether the line begins here.
        closes: Whether it ends here.
    """

    at: datetime
    words: str
    quote: str
    tone: str
    lane: int
    opens: bool
    closes: bool


@dataclass(frozen=True, slots=True)
class Story:
    """All that happened in a run.

    Attributes:
        moments: One after the other.
        lanes: How many requests were open at the same time, at most.
        waits_for: What is still open, by lane.
        is_over: Whether the run has ended.
    """

    moments: tuple[Moment, ...]
    lanes: int
    waits_for: Mapping[int, str]
    is_over: bool


def story_of(rows: Sequence[AuditRow]) -> Story:
    """Return what an audit trail tells.

    Args:
        rows: All rows of one run, in order.
    """
    moments: list[Moment] = []
    lanes: dict[str, int] = {}  # of the requests that are open
    titles: dict[str, str] = {}
    which: dict[int, str] = {}  # of which request a moment is
    is_over = False
    for entry in (row.entry for row in rows):
        told = _told(entry)
        if told is None:
            continue
        is_over = (is_over or entry.kind in _ENDING) and entry.kind is not AuditKind.RETRIED
        key = entry.request_id or ""
        opens = entry.kind in (AuditKind.OPENED, AuditKind.REOPENED) and key not in lanes
        if opens:
            lanes[key] = min(set(range(1, len(lanes) + 2)) - set(lanes.values()))
            titles.setdefault(key, _title(entry))
        lane = lanes.get(key, RUN)
        words, quote, tone = told
        if lane != RUN and not opens:
            which[len(moments)] = titles[key]
        closes = lane != RUN and _closes(entry)
        if closes:
            del lanes[key]
        if entry.kind is AuditKind.EFFECT_DONE:
            about = titles.get(str(entry.details.get("effect")), "")
            note = "" if entry.reason == "done" else entry.reason
            quote = ": ".join(part for part in (about, note) if part)
        moments.append(Moment(entry.at, words, quote, tone, lane, opens, closes))
    together = max((moment.lane for moment in moments), default=0)
    if together > 1:
        for index, title in which.items():
            moments[index] = replace(moments[index], words=f"{moments[index].words}: {title}")
    waits_for = {} if is_over else {lane: titles[key] for key, lane in lanes.items()}
    return Story(
        moments=tuple(moments),
        lanes=together,
        waits_for=dict(sorted(waits_for.items())),
        is_over=is_over,
    )


def _closes(entry: AuditEntry) -> bool:
    if entry.kind in (AuditKind.ANSWERED, AuditKind.RULE_DECIDED):
        return entry.details.get("status", "open") != "open"
    return entry.kind in _CLOSING


def _told(entry: AuditEntry) -> tuple[str, str, str] | None:
    """Return an entry as words, more words, and a tone; None: it is not worth telling."""
    if entry.kind is AuditKind.OPENED:
        return _asked(entry)
    if entry.kind in (AuditKind.ANSWERED, AuditKind.RULE_DECIDED):
        return _decided(entry)
    if entry.kind is AuditKind.REFUSED:
        return f"{entry.actor or 'Somebody'} was refused", entry.reason, "warn"
    if entry.kind in _OF_REQUESTS:
        words, tone = _OF_REQUESTS[entry.kind]
        return words, _happened(entry), tone
    if entry.kind in _OF_RUNS:
        words, tone = _OF_RUNS[entry.kind]
        if entry.kind in _BY_PROCESSES:
            return words, "" if entry.reason == "done" else _reason(entry), tone
        by = f" by {entry.actor}" if _is_person(entry.actor) else ""
        return f"{words}{by}", _reason(entry), tone
    return None


def _title(entry: AuditEntry) -> str:
    return str(entry.details.get("title") or "A request")


def _asked(entry: AuditEntry) -> tuple[str, str, str]:
    details = entry.details
    people = [str(who) for who in cast("list[str]", details.get("reviewers") or [])]
    whom = ", ".join(who.replace(ROLE_PREFIX, "role ", 1) for who in people) or "anyone"
    notes = [f"gate {details['gate']}"] if details.get("gate") else []
    if isinstance(revision := details.get("revision"), int) and revision > 1:
        notes.append(f"revision {revision}")
    notes.append(f"asks {whom}")
    if isinstance(due := details.get("deadline"), str):
        notes.append(f"until {moment(datetime.fromisoformat(due))}")
    return _title(entry), " · ".join(notes), "ask"


def _decided(entry: AuditEntry) -> tuple[str, str, str]:
    decision = cast("JsonObject", entry.details.get("decision") or {})
    verb, tone = _VERBS.get(str(decision.get("kind")), ("decided", ""))
    who = entry.actor or "somebody"
    if who.startswith(RULE_PREFIX):
        return f"A rule {verb}", entry.reason or who.removeprefix(RULE_PREFIX), tone
    to = decision.get("to") or ()
    names = [to] if isinstance(to, str) else cast("list[str]", to)
    if names:
        verb += f" to {', '.join(name.removeprefix(ROLE_PREFIX) for name in names)}"
    role = f" ({entry.role})" if entry.role else ""
    return f"{who}{role} {verb}", entry.reason, tone


def _happened(entry: AuditEntry) -> str:
    """Return who did something to a request, and why; of what time does, its words say all."""
    if entry.kind in _BY_TIME:
        return ""
    who = entry.actor if _is_person(entry.actor) else ""
    return ": ".join(part for part in (who, entry.reason) if part)


def _reason(entry: AuditEntry) -> str:
    return entry.reason or str(entry.details.get("effect") or "")


def _is_person(actor: str | None) -> bool:
    return actor is not None and not actor.startswith(RULE_PREFIX)
