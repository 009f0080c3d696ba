"""What happened in a run, row by row: append-only, each row sealed to the one before it.

The rows of one run form a hash chain: a row's hash covers its own content and the hash of the row
before, so that a changed, removed or reordered row no longer fits; `verify` finds it.

What a chain of hashes alone cannot show: that rows are missing at its end, and that somebody who
may write to the store made all rows from some point on anew, hashes included. Both show against a
seal, the number and hash of the last row (`seal_of`), that was written down where the writer of the
store cannot reach it.

Example:
    >>> from llama_index_hitl.prebuilt import DraftApproval
    >>> from llama_index_hitl.runner import Runner
    >>> from llama_index_hitl.stores import MemoryStore
    >>> async def main():
    ...     runner = Runner(MemoryStore(), {"draft": DraftApproval()})
    ...     run = await runner.start("draft", topic="mice", content="Mice are small.")
    ...     return await runner.history(run.run_id)
    >>> rows = asyncio.run(main())
    >>> [row.entry.kind.value for row in rows]
    ['started', 'opened']
    >>> verify(rows), verify(rows[:1], seal=seal_of(rows))
    ((), ('the rows after row 1 are missing: the trail was sealed at row 2',))
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, AwareDatetime, Field, ValidationError

from llama_index_hitl.errors import AuditUnreadable
from llama_index_hitl.models import Identifier, JsonObject, Line, Text, Value, digest_of


def _in_utc(at: datetime) -> datetime:
    """Stores give back the same instant in any time zone; the hash must not depend on which."""
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ValueError("it is out of range in UTC") from None


_Instant: TypeAlias = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class AuditKind(StrEnum):
    """What a row tells."""

    STARTED = "started"
    """A run was started."""
    OPENED = "opened"
    """A request was asked."""
    ANSWERED = "answered"
    """An answer was taken."""
    REFUSED = "refused"
    """An answer was not taken."""
    RULE_DECIDED = "rule_decided"
    """A rule, or a standing approval, decided without a person."""
    REMINDED = "reminded"
    """Those who may answer were told once more."""
    WIDENED = "widened"
    """More people were asked."""
    ESCALATED = "escalated"
    """A request was passed up as its time was over."""
    DEFAULTED = "defaulted"
    """A request was rejected as its time was over."""
    EXPIRED = "expired"
    """A request was closed undecided as its time was over."""
    SUPERSEDED = "superseded"
    """A newer request took the place of one."""
    WITHDRAWN = "withdrawn"
    """A request was taken back."""
    REOPENED = "reopened"
    """A request is open again, for the workflow has refused the answer."""
    CLAIMED = "claimed"
    """Somebody looks at a request."""
    RELEASED = "released"
    """They look at it no more."""
    EFFECT_BEGUN = "effect_begun"
    """An effect was begun."""
    EFFECT_DONE = "effect_done"
    """An effect has happened."""
    EFFECT_IN_DOUBT = "effect_in_doubt"
    """A run came to an effect that was begun and never finished."""
    EFFECT_SETTLED = "effect_settled"
    """Somebody has said whether an effect has happened."""
    GRANTED = "granted"
    """A standing approval was given."""
    GRANT_USED = "grant_used"
    """A standing approval covered a call."""
    GRANT_REVOKED = "grant_revoked"
    """A standing approval was revoked."""
    FAILED = "failed"
    """A step of the run raised."""
    RETRIED = "retried"
    """A failed run is tried again."""
    CANCELLED = "cancelled"
    """The run was ended by somebody."""
    FINISHED = "finished"
    """The run has a result."""
    SPOT_CHECKED = "spot_checked"
    """Somebody judged what a rule had approved."""


class AuditEntry(Value):
    """One thing that happened.

    Attributes:
        kind: What it was.
        run_id: The run that it happened in.
        at: When, with a time zone; kept in UTC.
        request_id: The request that it is about, if it is about one.
        actor: Id of the person, rule or clock behind it.
        role: The role in which a person acted.
        channel: Where it was said, such as `console` or `web`.
        digest: Digest of what the person saw.
        reason: Why, as a sentence for people.
        details: What else there is to know; of an edit, `diff` shows it as text.

    Example:
        >>> from datetime import UTC, datetime
        >>> at = datetime(2026, 1, 5, 9, tzinfo=UTC)
        >>> entry = AuditEntry(kind="answered", run_id="run-1", at=at, actor="erin", channel="mail")
        >>> entry.kind.value, entry.actor
        ('answered', 'erin')
    """

    kind: AuditKind
    run_id: Identifier
    at: _Instant
    request_id: Identifier | None = None
    actor: Identifier | None = None
    role: Identifier | None = None
    channel: Identifier | None = None
    digest: Line | None = None
    reason: Text = ""
    details: JsonObject = Field(default_factory=dict)


class AuditRow(Value):
    """An entry with its place in the chain of its run.

    Attributes:
        number: Place in the chain, from 1, without gaps.
        entry: What happened.
        previous: Hash of the row before; empty for the first one.
        hash: SHA-256 over number, entry and `previous`, in hexadecimal.

    Example:
        >>> row = chained(None, AuditEntry(kind="started", run_id="run-1", at=utc_now()))
        >>> row.number, row.previous, row.hash == row.actual_hash()
        (1, '', True)
    """

    number: int = Field(ge=1)
    entry: AuditEntry
    previous: str = ""
    hash: str

    def actual_hash(self) -> str:
        """Return the hash of what this row holds, computed anew."""
        return _hash_of(self.number, self.entry, self.previous)

    def __str__(self) -> str:
        about = f", request {self.entry.request_id!r}" if self.entry.request_id else ""
        return f"row {self.number} ({self.entry.kind}{about})"


class AuditSeal(Value):
    """What to write down elsewhere, to show later that nothing up to here was touched.

    Attributes:
        run_id: The run.
        number: How many rows it had.
        hash: Hash of the last of them.

    Example:
        >>> row = chained(None, AuditEntry(kind="started", run_id="run-1", at=utc_now()))
        >>> seal = seal_of([row])  # write it down where the writer of the store cannot reach it
        >>> verify([row], seal=seal)
        ()
    """

    run_id: Identifier
    number: int = Field(ge=1)
    hash: str


def chained(previous: AuditRow | None, entry: AuditEntry) -> AuditRow:
    """Return the row that puts an entry behind another row.

    Args:
        previous: The last row of the run; None: this is the first.
        entry: What happened.

    Example:
        >>> at = utc_now()
        >>> first = chained(None, AuditEntry(kind="started", run_id="run-1", at=at))
        >>> second = chained(first, AuditEntry(kind="finished", run_id="run-1", at=at))
        >>> second.number, second.previous == first.hash
        (2, True)
    """
    number = 1 if previous is None else previous.number + 1
    before = "" if previous is None else previous.hash
    return AuditRow(
        number=number, entry=entry, previous=before, hash=_hash_of(number, entry, before)
    )


def _hash_of(number: int, entry: AuditEntry, previous: str) -> str:
    return digest_of([number, previous, entry.model_dump(mode="json")])


def seal_of(rows: Sequence[AuditRow]) -> AuditSeal | None:
    """Return the seal of a trail: the number and hash of its last row; None: it has no row.

    Args:
        rows: All rows of one run, in order.

    Example:
        >>> row = chained(None, AuditEntry(kind="started", run_id="run-1", at=utc_now()))
        >>> seal_of([row]).number, seal_of([])
        (1, None)
    """
    if not rows:
        return None
    last = rows[-1]
    return AuditSeal(run_id=last.entry.run_id, number=last.number, hash=last.hash)


# --------------------------------------------------------------------------- verifying


def verify(
    rows: Iterable[AuditRow], *, run_id: str | None = None, seal: AuditSeal | None = None
) -> tuple[str, ...]:
    """Find what was done to the trail of one run after it was written.

    Found are rows that were changed, removed, reordered, doubled or put in, and rows of other runs.
    Rows that are missing at the end, and a trail that was made anew with its hashes, are found with
    a seal only. A row that was put behind the last one with the right hash is never found: adding
    to the trail is what a writer of the store may do.

    Args:
        rows: All rows of the run, in the order in which they are stored.
        run_id: The run; None: that of the seal, or else that of most rows.
        seal: What `seal_of` gave at an earlier time; rows may have been added since.

    Returns:
        What is wrong, each as a sentence fragment that names the row by number, kind and request;
        empty: nothing. A trail without rows is wrong: every run has a first row.

    Example:
        >>> row = chained(None, AuditEntry(kind="started", run_id="run-1", at=utc_now()))
        >>> changed = row.entry.model_copy(update={"actor": "nobody"})
        >>> verify([row]), verify([row.model_copy(update={"entry": changed})])
        ((), ('row 1 (started) was changed: it does not fit its hash',))
    """
    given = tuple(rows)
    if run_id is None:
        run_id = seal.run_id if seal is not None else _run_of_most(given)
    strangers = [row for row in given if row.entry.run_id != run_id]
    by_number: dict[int, list[AuditRow]] = {}  # in the order in which they stand
    for row in given:
        if row.entry.run_id == run_id:
            by_number.setdefault(row.number, []).append(row)
    return (
        *(f"{row} was changed: it does not fit its hash" for row in given if _changed(row)),
        *(f"{row} belongs to run {row.entry.run_id!r}" for row in strangers),
        *_doubled(by_number),
        *_missing(by_number, run_id),
        *_out_of_order(by_number),
        *_unlinked(by_number),
        *(() if seal is None else _unsealed(by_number, seal)),
    )


def _run_of_most(rows: Sequence[AuditRow]) -> str | None:
    return next((run for run, _ in Counter(r.entry.run_id for r in rows).most_common(1)), None)


def _changed(row: AuditRow) -> bool:
    return row.actual_hash() != row.hash


def _doubled(by_number: Mapping[int, Sequence[AuditRow]]) -> Iterator[str]:
    for number, rows in by_number.items():
        if len(rows) > 1:
            listed = " and ".join(str(row) for row in rows)
            yield f"there are {len(rows)} rows with the number {number}: {listed}"


def _missing(by_number: Mapping[int, Sequence[AuditRow]], run_id: str | None) -> Iterator[str]:
    if not by_number:
        yield f"there is no row of run {run_id!r}" if run_id is not None else "there is no row"
    for before, after in pairwise([0, *sorted(by_number)]):
        first, last = before + 1, after - 1
        if first <= last:
            which = f"row {first} is" if first == last else f"rows {first} to {last} are"
            yield f"{which} missing before {by_number[after][0]}"


def _out_of_order(by_number: Mapping[int, Sequence[AuditRow]]) -> Iterator[str]:
    for found, belongs in zip(by_number, sorted(by_number), strict=True):
        if found != belongs:
            yield f"{by_number[found][0]} stands where row {belongs} belongs"


def _unlinked(by_number: Mapping[int, Sequence[AuditRow]]) -> Iterator[str]:
    """Find neighbours that fit their own hashes and not each other: one was made anew."""
    if any(row.previous for row in by_number.get(1, ())):
        yield f"{by_number[1][0]} says that another one stood before it"
    for number, rows in by_number.items():
        followers = by_number.get(number + 1)
        if followers is None:
            continue
        # A row whose hash was changed is named already; its follower is not to blame.
        hashes = {row.hash for row in rows} | {row.actual_hash() for row in rows}
        if hashes.isdisjoint(row.previous for row in followers):
            yield f"{rows[0]} and {followers[0]} do not fit together: one of them was replaced"


def _unsealed(by_number: Mapping[int, Sequence[AuditRow]], seal: AuditSeal) -> Iterator[str]:
    last = max(by_number, default=0)
    if last < seal.number:
        yield f"the rows after row {last} are missing: the trail was sealed at row {seal.number}"
    sealed = by_number.get(seal.number)
    if sealed is not None and all(row.hash != seal.hash for row in sealed):
        yield f"{sealed[0]} is not the one that was sealed: it, or one before it, was replaced"


# --------------------------------------------------------------------------- JSON Lines


def export(rows: Iterable[AuditRow]) -> Iterator[str]:
    """Write rows as JSON Lines: one row a line, keys sorted, ASCII only, ends of lines included.

    The same rows give the same text, always; `file.writelines(export(rows))` stores it.

    Args:
        rows: The rows, in order.

    Example:
        >>> row = chained(None, AuditEntry(kind="started", run_id="run-1", at=utc_now()))
        >>> with open("trail.jsonl", "w") as file:
        ...     file.writelines(export([row]))
    """
    for row in rows:
        yield json.dumps(row.model_dump(mode="json"), sort_keys=True, separators=(",", ":")) + "\n"


def read(lines: Iterable[str]) -> list[AuditRow]:
    """Read what `export` wrote, such as an open file; `verify` says whether it is whole.

    Blank lines are passed over.

    Args:
        lines: The lines.

    Returns:
        The rows, in order.

    Raises:
        AuditUnreadable: A line is no row: it is cut off, not JSON, or holds what no row holds.

    Example:
        >>> row = chained(None, AuditEntry(kind="started", run_id="run-1", at=utc_now()))
        >>> read(export([row])) == [row]
        True
    """
    return [_row(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _row(number: int, line: str) -> AuditRow:
    try:
        return AuditRow.model_validate(json.loads(line, object_pairs_hook=_object))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        reason = f"{where}: {problem['msg']}" if where else problem["msg"]
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:
        reason = str(error)
    raise AuditUnreadable(number, reason=reason)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that stands there twice: a reader may see one value, and the hash the other."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice in one object")
    return found
