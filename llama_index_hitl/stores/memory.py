"""A store in the memory of one process."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import (
    Callable,
    Collection,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Protocol

from llama_index_hitl.audit import AuditEntry, AuditRow
from llama_index_hitl.errors import StoreError
from llama_index_hitl.models import JsonObject
from llama_index_hitl.stores._conflicts import refuse_stale, taken
from llama_index_hitl.stores._cursors import (
    FEED_START,
    FeedPlace,
    feed_cursor,
    feed_place,
    grant_cursor,
    grant_place,
    page_of,
    request_cursor,
    request_place,
    run_cursor,
    run_place,
)
from llama_index_hitl.stores._encoding import (
    EVERYONE,
    RANKS,
    GrantRow,
    Link,
    RequestRow,
    audit_row,
    chain,
    instant_of,
    json_bytes,
    json_object,
    micros_of,
    optional_micros_of,
    stored_grant,
    stored_request,
)
from llama_index_hitl.stores._feed import FeedRow, feed_event, feed_rows
from llama_index_hitl.stores._places import Places
from llama_index_hitl.stores.protocol import (
    Commit,
    Cursor,
    Effect,
    EffectStatus,
    FeedEvent,
    GrantQuery,
    Message,
    Notice,
    Page,
    RequestQuery,
    Run,
    RunQuery,
    RunStatus,
    StoredGrant,
    StoredRequest,
)


@dataclass(frozen=True, slots=True)
class _KeptRow:
    """An audit row that nobody can change from outside."""

    link: Link
    previous: str
    entry: bytes


@dataclass(frozen=True, slots=True)
class _Changes:
    """A commit, checked and copied: what is left to do cannot fail."""

    run: Run | None
    requests: tuple[RequestRow, ...]
    messages: tuple[Message, ...]
    effects: tuple[Effect, ...]
    grants: tuple[GrantRow, ...]
    notices: tuple[Notice, ...]
    audit: Mapping[str, Sequence[_KeptRow]]
    feed: tuple[FeedRow, ...]


class MemoryStore:
    """A `Store` in memory: for tests, and for runs that need not outlive the process.

    Keeps every promise of `Store` but one: nothing survives the process. It belongs to one event
    loop.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.runner import Runner
        >>> async def main():
        ...     runner = Runner(MemoryStore(), {"draft": DraftApproval()})
        ...     run = await runner.start("draft", topic="mice", content="Mice are small.")
        ...     return run.status.value, len(await runner.pending())
        >>> asyncio.run(main())
        ('waiting', 1)
    """

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._requests: dict[str, RequestRow] = {}
        self._places = Places()
        self._messages: dict[str, Message] = {}
        self._effects: dict[str, Effect] = {}
        self._grants: dict[str, GrantRow] = {}
        self._notices: dict[str, Notice] = {}
        self._audit: dict[str, list[_KeptRow]] = {}
        self._feed: list[FeedRow] = []
        self._feed_of: dict[str, list[int]] = {}
        self._closed = False

    # ----------------------------------------------------------------------- writing

    async def commit(self, commit: Commit) -> None:
        """Store a change, all of it or nothing; see `Store.commit`."""
        self._refuse_closed()
        applied, told = set(commit.applied), set(commit.told)
        self._refuse_conflicts(commit, applied, told)
        changes = _Changes(
            run=None if commit.run is None else self._kept_run(commit.run),
            requests=tuple(RequestRow.of(request) for request in commit.requests),
            messages=tuple(_copied_message(message) for message in commit.messages),
            effects=tuple(
                replace(effect, at=_in_utc(effect.at), revision=effect.revision + 1)
                for effect in commit.effects
            ),
            grants=tuple(GrantRow.of(grant) for grant in commit.grants),
            notices=tuple(
                replace(
                    _copied_notice(notice),
                    at=_in_utc(notice.at),
                    due=_in_utc(notice.due),
                    revision=notice.revision + 1,
                )
                for notice in commit.notices
            ),
            audit=self._chained(commit.audit),
            feed=feed_rows(commit),
        )
        self._apply(changes, applied, told)

    def _refuse_conflicts(self, commit: Commit, applied: set[str], told: set[str]) -> None:
        runs = () if commit.run is None else (commit.run,)
        refuse_stale("run", ((r.run_id, r.revision) for r in runs), _revisions(self._runs))
        refuse_stale(
            "request",
            ((request.request_id, request.revision) for request in commit.requests),
            _revisions(self._requests),
        )
        refuse_stale(
            "effect", ((e.key, e.revision) for e in commit.effects), _revisions(self._effects)
        )
        refuse_stale(
            "standing approval",
            ((grant.grant_id, grant.revision) for grant in commit.grants),
            _revisions(self._grants),
        )
        refuse_stale(
            "notice",
            ((notice.notice_id, notice.revision) for notice in commit.notices),
            _revisions(self._notices, gone=told),
        )
        ids = [message.message_id for message in commit.messages]
        for place, message_id in enumerate(ids):
            waits = message_id in self._messages and message_id not in applied
            if waits or message_id in ids[:place]:
                raise taken(message_id)

    def _apply(self, changes: _Changes, applied: Iterable[str], told: Iterable[str]) -> None:
        for message_id in applied:
            self._messages.pop(message_id, None)
        for notice_id in told:
            self._notices.pop(notice_id, None)
        if changes.run is not None:
            self._runs[changes.run.run_id] = changes.run
        for row in changes.requests:
            self._put_request(row)
        self._messages.update({message.message_id: message for message in changes.messages})
        self._effects.update({effect.key: effect for effect in changes.effects})
        self._grants.update({grant.grant_id: grant for grant in changes.grants})
        self._notices.update({notice.notice_id: notice for notice in changes.notices})
        for run_id, rows in changes.audit.items():
            self._audit.setdefault(run_id, []).extend(rows)
        for event in changes.feed:
            self._feed.append(event)
            self._feed_of.setdefault(event.run_id, []).append(len(self._feed))

    def _put_request(self, row: RequestRow) -> None:
        known = self._requests.get(row.place.request_id)
        if known is not None:
            for label in _labels(known):
                self._places.remove(label, known.place)
        for label in _labels(row):
            self._places.add(label, row.place)
        self._requests[row.place.request_id] = row

    def _kept_run(self, run: Run) -> Run:
        """Return a run as it is kept, with the bytes that it leaves as they are."""
        known = self._runs.get(run.run_id)
        return replace(
            run,
            revision=run.revision + 1,
            tags=tuple(run.tags),
            created_at=_in_utc(run.created_at),
            updated_at=_in_utc(run.updated_at),
            lease_until=None if run.lease_until is None else _in_utc(run.lease_until),
            error=None if run.error is None else _copy(run.error),
            start=run.start if run.start is not None or known is None else known.start,
            snapshot=run.snapshot if run.snapshot is not None or known is None else known.snapshot,
            result=run.result if run.result is not None or known is None else known.result,
        )

    def _chained(self, entries: Iterable[AuditEntry]) -> dict[str, list[_KeptRow]]:
        by_run: dict[str, list[AuditEntry]] = {}
        for entry in entries:
            by_run.setdefault(entry.run_id, []).append(entry)
        kept = {}
        for run_id, added in by_run.items():
            rows = self._audit.get(run_id)
            kept[run_id] = [
                _KeptRow(
                    link=Link(row.number, row.hash),
                    previous=row.previous,
                    entry=row.entry.model_dump_json().encode(),
                )
                for row in chain(rows[-1].link if rows else None, added)
            ]
        return kept

    # ----------------------------------------------------------------------- reading

    async def run(self, run_id: str, *, whole: bool = False) -> Run | None:
        """Return a run, or None; see `Store.run`."""
        self._refuse_closed()
        run = self._runs.get(run_id)
        return None if run is None else _shown(run, whole=whole)

    async def request(self, request_id: str) -> StoredRequest | None:
        """Return a request, or None; see `Store.request`."""
        self._refuse_closed()
        row = self._requests.get(request_id)
        return None if row is None else _read(row)

    async def requests(self, query: RequestQuery) -> Page[StoredRequest]:
        """Return requests, the most urgent first; see `Store.requests`."""
        self._refuse_closed()
        after = None if query.after is None else request_place(query.after)
        places = self._places.merged(_labels_to_search(query), after)
        rows = (self._requests[place.request_id] for place in places)
        found = list(islice(filter(_filter_of(query), rows), query.limit + 1))
        return page_of(
            found, query.limit, read=_read, cursor_of=lambda row: request_cursor(row.place)
        )

    async def runs(self, query: RunQuery) -> Page[Run]:
        """Return runs, without their bytes, the newest first; see `Store.runs`."""
        self._refuse_closed()
        after = None if query.after is None else run_place(query.after)

        def place_of(run: Run) -> tuple[int, str]:
            return -micros_of(run.created_at), run.run_id

        found = sorted(
            (
                run
                for run in self._runs.values()
                if (query.workflow is None or run.workflow == query.workflow)
                and (query.status is None or run.status == query.status)
                and (query.tag is None or query.tag in run.tags)
                and (query.started_by is None or run.started_by == query.started_by)
                and (after is None or place_of(run) > (-after[0], after[1]))
            ),
            key=place_of,
        )
        return page_of(
            found,
            query.limit,
            read=lambda run: _shown(run, whole=False),
            cursor_of=lambda run: run_cursor(micros_of(run.created_at), run.run_id),
        )

    async def messages(self, run_id: str) -> Sequence[Message]:
        """Return what a run has yet to be told, in order; see `Store.messages`."""
        self._refuse_closed()
        found = (message for message in self._messages.values() if message.run_id == run_id)
        return [_copied_message(message) for message in found]

    async def ready(self, now: datetime, *, limit: int = 100) -> Sequence[str]:
        """Return ids of runs that can be advanced; see `Store.ready`."""
        self._refuse_closed()
        told = {message.run_id for message in self._messages.values()}

        def is_ready(run: Run) -> bool:
            if run.status is RunStatus.WAITING:
                return run.run_id in told
            free = run.lease_until is None or run.lease_until <= now
            return run.status is RunStatus.RUNNING and free

        found = filter(is_ready, self._runs.values())
        return [
            run.run_id
            for run in sorted(found, key=lambda run: (run.updated_at, run.run_id))[:limit]
        ]

    async def due(self, now: datetime, *, limit: int = 100) -> Sequence[StoredRequest]:
        """Return open requests with something due, the longest overdue first; see `Store.due`."""
        self._refuse_closed()
        until = micros_of(now)
        found = sorted(
            (row.next_due, row.place.request_id)
            for row in self._requests.values()
            if row.is_open and row.next_due is not None and row.next_due <= until
        )
        return [_read(self._requests[request_id]) for _, request_id in found[:limit]]

    async def effect(self, key: str) -> Effect | None:
        """Return an effect, or None; see `Store.effect`."""
        self._refuse_closed()
        return self._effects.get(key)

    async def effects(
        self, *, run_id: str | None = None, status: EffectStatus | None = None
    ) -> Sequence[Effect]:
        """Return effects, by time and then by key; see `Store.effects`."""
        self._refuse_closed()
        found = (
            effect
            for effect in self._effects.values()
            if (run_id is None or effect.run_id == run_id)
            and (status is None or effect.status == status)
        )
        return sorted(found, key=lambda effect: (effect.at, effect.key))

    async def grant(self, grant_id: str) -> StoredGrant | None:
        """Return a standing approval, or None; see `Store.grant`."""
        self._refuse_closed()
        row = self._grants.get(grant_id)
        return None if row is None else _read_grant(row)

    async def grants(self, query: GrantQuery) -> Page[StoredGrant]:
        """Return standing approvals, the newest first; see `Store.grants`."""
        self._refuse_closed()
        after = None if query.after is None else grant_place(query.after)
        active_at = optional_micros_of(query.active_at)

        def place_of(row: GrantRow) -> tuple[int, str]:
            return -row.granted_at, row.grant_id

        found = sorted(
            (
                row
                for row in self._grants.values()
                if (query.workflow is None or row.workflow == query.workflow)
                and (query.agent is None or row.agent == query.agent)
                and (query.tool is None or row.tool == query.tool)
                and (query.owner is None or row.owner == query.owner)
                and (query.request_id is None or row.request_id == query.request_id)
                and (active_at is None or _is_active(row, active_at))
                and (after is None or place_of(row) > (-after[0], after[1]))
            ),
            key=place_of,
        )
        return page_of(
            found,
            query.limit,
            read=_read_grant,
            cursor_of=lambda row: grant_cursor(row.granted_at, row.grant_id),
        )

    async def notices(self, now: datetime, *, limit: int = 100) -> Sequence[Notice]:
        """Return notices that are due, the longest overdue first; see `Store.notices`."""
        self._refuse_closed()
        found = (notice for notice in self._notices.values() if notice.due <= now)
        first = sorted(found, key=lambda notice: notice.due)[:limit]
        return [_copied_notice(notice) for notice in first]

    async def audit(self, run_id: str) -> Sequence[AuditRow]:
        """Return what happened in a run, in order; see `Store.audit`."""
        self._refuse_closed()
        return [
            audit_row(run_id, row.link.number, row.entry, row.previous, row.link.hash)
            for row in self._audit.get(run_id, ())
        ]

    async def feed(
        self, *, run_id: str | None = None, after: Cursor | None = None, limit: int = 100
    ) -> Sequence[FeedEvent]:
        """Return what was stored, in the order in which it became readable; see `Store.feed`."""
        self._refuse_closed()
        last = (FEED_START if after is None else feed_place(after)).sequence
        numbers: Sequence[int] = range(1, len(self._feed) + 1)
        if run_id is not None:
            numbers = self._feed_of.get(run_id, ())
        first = bisect_right(numbers, last)
        return [
            feed_event(feed_cursor(FeedPlace(0, number)), self._feed[number - 1])
            for number in numbers[first : first + limit]
        ]

    async def feed_end(self) -> Cursor:
        """Return the place behind all that can be read of the feed now."""
        self._refuse_closed()
        return feed_cursor(FeedPlace(0, len(self._feed)))

    async def close(self) -> None:
        """Refuse whatever comes from now on."""
        self._closed = True

    def _refuse_closed(self) -> None:
        if self._closed:
            raise StoreError("This store is closed.")


class _Revised(Protocol):
    @property
    def revision(self) -> int: ...


def _revisions(stored: Mapping[str, _Revised], gone: Collection[str] = ()) -> Callable[[str], int]:
    return lambda key: stored[key].revision if key in stored and key not in gone else 0


def _labels(row: RequestRow) -> Iterator[Hashable]:
    yield "run", row.run_id
    yield "open", row.is_open
    if row.is_open:
        for entry in row.entries:
            yield "for", entry


def _labels_to_search(query: RequestQuery) -> list[Hashable]:
    if query.run_id is not None:
        return [("run", query.run_id)]
    if query.entries is not None:
        return [("for", entry) for entry in {*query.entries, EVERYONE}]
    return [("open", is_open) for is_open in (True, False) if query.open in (None, is_open)]


def _filter_of(query: RequestQuery) -> Callable[[RequestRow], bool]:
    entries = None if query.entries is None else {*query.entries, EVERYONE}
    rank = None if query.priority is None else RANKS[query.priority]
    created_before = optional_micros_of(query.created_before)
    due_before = optional_micros_of(query.due_before)

    def fits(row: RequestRow) -> bool:
        return (
            (query.open is None or row.is_open is query.open)
            and (entries is None or not entries.isdisjoint(row.entries))
            and (query.run_id is None or row.run_id == query.run_id)
            and (query.workflow is None or row.workflow == query.workflow)
            and (query.gate is None or row.gate == query.gate)
            and (query.tag is None or query.tag in row.tags)
            and (rank is None or row.place.rank == rank)
            and (created_before is None or row.place.created_at < created_before)
            and (due_before is None or (row.next_due is not None and row.next_due < due_before))
        )

    return fits


def _read(row: RequestRow) -> StoredRequest:
    return stored_request(
        row.place.request_id,
        row.run_id,
        row.revision,
        row.next_due,
        row.claimed_by,
        row.claimed_until,
        row.record,
    )


def _read_grant(row: GrantRow) -> StoredGrant:
    return stored_grant(row.grant_id, row.revision, row.content)


def _is_active(row: GrantRow, at: int) -> bool:
    return not row.is_over and (row.until is None or row.until > at)


def _shown(run: Run, *, whole: bool) -> Run:
    copied = replace(run, error=None if run.error is None else _copy(run.error))
    return copied if whole else replace(copied, start=None, snapshot=None, result=None)


def _copied_message(message: Message) -> Message:
    return replace(message, payload=_copy(message.payload))


def _copied_notice(notice: Notice) -> Notice:
    return replace(notice, payload=_copy(notice.payload))


def _copy(value: JsonObject) -> JsonObject:
    """Copy by way of JSON, so that what comes back is what every other store gives."""
    return json_object(json_bytes(value), "A copy")


def _in_utc(at: datetime) -> datetime:
    return instant_of(micros_of(at))
