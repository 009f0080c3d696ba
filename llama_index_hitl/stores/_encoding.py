"""How the values of a store become what a database holds, and back; the same for every store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from pydantic import ValidationError

from llama_index_hitl.audit import AuditEntry, AuditRow, chained
from llama_index_hitl.errors import StoreError
from llama_index_hitl.grants import Grant, is_over
from llama_index_hitl.models import UNCHECKED, JsonObject, RequestStatus, ReviewRecord
from llama_index_hitl.stores.protocol import Claim, StoredGrant, StoredRequest

EVERYONE = ""
"""Stands for nobody in particular among reviewer entries; no real entry is empty."""

RANKS = {"urgent": 0, "high": 1, "normal": 2, "low": 3}
"""Place of each priority in a list of requests."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def micros_of(at: datetime) -> int:
    """Return an instant as microseconds since 1970.

    Raises:
        StoreError: It has no time zone, or is before the year 1 or after the year 9999 in UTC.
    """
    if at.tzinfo is None:
        raise StoreError(f"{at!r} has no time zone and cannot be stored; say which one it is in.")
    try:
        return (at.astimezone(UTC) - _EPOCH) // _MICROSECOND
    except OverflowError as error:
        raise StoreError(f"{at!r} cannot be stored: in UTC it is out of range.") from error


def optional_micros_of(at: datetime | None) -> int | None:
    """Return an instant as microseconds since 1970, or None."""
    return None if at is None else micros_of(at)


def instant_of(micros: int) -> datetime:
    """Return the instant that is so many microseconds after 1970, in UTC."""
    return _EPOCH + timedelta(microseconds=micros)


def optional_instant_of(micros: int | None) -> datetime | None:
    """Return the instant that is so many microseconds after 1970, or None."""
    return None if micros is None else instant_of(micros)


def json_bytes(value: Any) -> bytes:
    """Return a JSON value as ASCII.

    Raises:
        StoreError: It is no JSON, or holds a NaN or an infinite number.
    """
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (TypeError, ValueError) as error:
        raise StoreError(f"This cannot be stored as JSON: {error}.") from error


def json_object(data: bytes, what: str) -> JsonObject:
    """Read what `json_bytes` has written.

    Args:
        data: The JSON.
        what: Names it in the error.

    Raises:
        StoreError: It cannot be read.
    """
    try:
        found = json.loads(data)
    except ValueError as error:
        raise StoreError(f"{what} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise StoreError(f"{what} cannot be read: it is no JSON object.")
    return found


@contextmanager
def _readable(what: str) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StoreError(f"{what} cannot be read: {where}: {first['msg']}.") from error


# --------------------------------------------------------------------------- requests


class Place(NamedTuple):
    """Where a request stands in every list of requests."""

    rank: int
    created_at: int
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRow:
    """A request as a table holds it: its record as bytes, and beside it what it is found by.

    Attributes:
        place: Where it stands in lists.
        run_id: The run that asks.
        revision: How often it was stored, this time included.
        next_due: When something is due, in microseconds since 1970.
        claimed_by: Who is looking at it.
        claimed_until: Until when, in microseconds since 1970.
        is_open: Whether it is open.
        workflow: Name of the workflow.
        gate: Name of the gate.
        entries: Whom it is for now; `EVERYONE` where nobody is named.
        tags: Words to find it by.
        record: Its record, as JSON.
    """

    place: Place
    run_id: str
    revision: int
    next_due: int | None
    claimed_by: str | None
    claimed_until: int | None
    is_open: bool
    workflow: str
    gate: str
    entries: tuple[str, ...]
    tags: tuple[str, ...]
    record: bytes

    @classmethod
    def of(cls, stored: StoredRequest) -> RequestRow:
        """Return what to store of a request, with its revision plus one."""
        record, request, claim = stored.record, stored.record.request, stored.claim
        created_at = micros_of(request.created_at)
        return cls(
            place=Place(RANKS[request.priority], created_at, request.request_id),
            run_id=stored.run_id,
            revision=stored.revision + 1,
            next_due=optional_micros_of(stored.next_due),
            claimed_by=None if claim is None else claim.by,
            claimed_until=None if claim is None else micros_of(claim.until),
            is_open=record.status is RequestStatus.OPEN,
            workflow=request.workflow,
            gate=request.gate,
            entries=tuple(dict.fromkeys(record.policy.reviewers)) or (EVERYONE,),
            tags=tuple(dict.fromkeys(request.tags)),
            record=record.model_dump_json().encode(),
        )


def stored_request(
    request_id: str,
    run_id: str,
    revision: int,
    next_due: int | None,
    claimed_by: str | None,
    claimed_until: int | None,
    record: bytes,
) -> StoredRequest:
    """Read a request from the parts of its row.

    Raises:
        StoreError: Its record cannot be read.
    """
    with _readable(f"Request {request_id}"):
        # Digests were checked before it was stored, and are again when an answer comes.
        found = ReviewRecord.model_validate_json(record, context=UNCHECKED)
    claim = None
    if claimed_by is not None and claimed_until is not None:
        claim = Claim(by=claimed_by, until=instant_of(claimed_until))
    return StoredRequest(
        run_id=run_id,
        record=found,
        revision=revision,
        next_due=optional_instant_of(next_due),
        claim=claim,
    )


# --------------------------------------------------------------------------- grants


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantRow:
    """A standing approval as a table holds it: as bytes, and beside it what it is found by.

    Attributes:
        grant_id: Its id.
        revision: How often it was stored, this time included.
        workflow: The workflow that it holds in.
        agent: The agent that it holds for.
        tool: The tool.
        owner: Who gave it.
        request_id: The request whose approval it was given with.
        granted_at: When, in microseconds since 1970.
        is_over: Whether it was revoked, or is used up.
        until: When it expires, in microseconds since 1970.
        content: All of it, as JSON.
    """

    grant_id: str
    revision: int
    workflow: str
    agent: str
    tool: str
    owner: str
    request_id: str | None
    granted_at: int
    is_over: bool
    until: int | None
    content: bytes

    @classmethod
    def of(cls, stored: StoredGrant) -> GrantRow:
        """Return what to store of a standing approval, with its revision plus one."""
        grant = stored.grant
        return cls(
            grant_id=grant.grant_id,
            revision=stored.revision + 1,
            workflow=grant.workflow,
            agent=grant.agent,
            tool=grant.tool,
            owner=grant.owner,
            request_id=grant.request_id,
            granted_at=micros_of(grant.granted_at),
            is_over=is_over(grant),
            until=optional_micros_of(grant.terms.until),
            content=grant.model_dump_json().encode(),
        )


def stored_grant(grant_id: str, revision: int, content: bytes) -> StoredGrant:
    """Read a standing approval from the parts of its row.

    Raises:
        StoreError: It cannot be read.
    """
    with _readable(f"Standing approval {grant_id}"):
        found = Grant.model_validate_json(content, context=UNCHECKED)
    return StoredGrant(grant=found, revision=revision)


# --------------------------------------------------------------------------- audit


class Link(NamedTuple):
    """The end of a run's chain of audit rows: all that the next row depends on."""

    number: int
    hash: str


def chain(last: Link | None, entries: Sequence[AuditEntry]) -> list[AuditRow]:
    """Put entries behind the end of a chain.

    Args:
        last: The end; None: there is no row yet.
        entries: What happened, in order, at least one entry.
    """
    row = None
    if last is not None:
        # The next row holds no more of this one than its number and hash, so that a row that was
        # damaged does not keep a run from going on.
        row = AuditRow(number=last.number, entry=entries[0], hash=last.hash)
    rows = []
    for entry in entries:
        row = chained(row, entry)
        rows.append(row)
    return rows


def audit_row(run_id: str, number: int, entry: bytes, previous: str, own_hash: str) -> AuditRow:
    """Read an audit row from its parts.

    Raises:
        StoreError: It cannot be read.
    """
    with _readable(f"Row {number} of the audit trail of run {run_id}"):
        return AuditRow(
            number=number,
            entry=AuditEntry.model_validate_json(entry),
            previous=previous,
            hash=own_hash,
        )
