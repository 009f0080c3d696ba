"""What a store keeps, and what it promises: the contract of every store.

A store is dumb on purpose. It reads, and it makes one kind of change: a `Commit`, all of it or
nothing, if every row is still as it was read. What a change means is decided by the runner.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, Generic, Literal, Protocol, TypeAlias, TypeVar

from llama_index_hitl.audit import AuditEntry, AuditRow
from llama_index_hitl.grants import Grant
from llama_index_hitl.models import JsonObject, Priority, ReviewRecord

Cursor: TypeAlias = str
"""Where a page ended; opaque, and good for the same query only."""


class RunStatus(StrEnum):
    """How a run stands. `finished` and `cancelled` are final."""

    RUNNING = "running"
    """Somebody holds the lease and is at work on it, or died."""
    WAITING = "waiting"
    """It waits for people, or to be told what they said."""
    FINISHED = "finished"
    """It has a result."""
    FAILED = "failed"
    """A step raised; it can be tried again."""
    CANCELLED = "cancelled"
    """Somebody ended it; it has no result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as it is stored.

    Attributes:
        run_id: Unique.
        workflow: Name under which the runner knows the workflow.
        status: How it stands. `running` means: somebody holds the lease and is at work, or died.
        created_at: When it was started.
        updated_at: When it was last changed.
        revision: How often it was stored; 0: not yet. A change fails where this is not current.
        version: The user's own version of the workflow, for migrations; None: none was given.
        fingerprint: Digest of the steps and event schemas that the snapshot was taken with.
        tags: Words to find it by.
        lease_owner: Who is at work on it; None: nobody.
        lease_until: When the lease ends, so that somebody else may take over.
        attempts: How often an advance of the present snapshot was begun.
        start: What the run was started with, as bytes; None where it was not read.
        snapshot: The paused run, as bytes; None: it has not paused yet, or was not read.
        result: What it came to, as bytes, when it is finished; None where it was not read.
        error: What a failed run failed with, for people.
        started_by: Id of the person who started it, if one did.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.runner import Runner
        >>> async def main():
        ...     runner = Runner(MemoryStore(), {"draft": DraftApproval()})
        ...     return await runner.start("draft", run_id="mice-1", topic="mice", content="Small.")
        >>> run = asyncio.run(main())
        >>> run.run_id, run.status.value, run.lease_owner
        ('mice-1', 'waiting', None)
    """

    run_id: str
    workflow: str
    status: RunStatus
    created_at: datetime
    updated_at: datetime
    revision: int = 0
    version: str | None = None
    fingerprint: str = ""
    tags: tuple[str, ...] = ()
    lease_owner: str | None = None
    lease_until: datetime | None = None
    attempts: int = 0
    start: bytes | None = None
    snapshot: bytes | None = None
    result: bytes | None = None
    error: JsonObject | None = None
    started_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Says who is looking at an open request just now, so that others look at something else.

    It binds nobody: whoever may answer still may, and the first valid answer wins.

    Attributes:
        by: Id of the person.
        until: From this instant on it counts for nothing.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.runner import Runner
        >>> from llama_index_hitl.testing import ManualClock
        >>> async def main():
        ...     runner = Runner(MemoryStore(), {"draft": DraftApproval()}, clock=ManualClock())
        ...     await runner.start("draft", topic="mice", content="Small.")
        ...     [record] = await runner.pending()
        ...     claim = await runner.claim(record.request_id, by="erin")
        ...     return claim.by, claim.until > runner.clock()
        >>> asyncio.run(main())
        ('erin', True)
    """

    by: str
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRequest:
    """A request as it is stored. Everything that it can be found by stands in its record.

    Attributes:
        run_id: The run that asks; of the record's own `run_id` nothing is assumed.
        record: The request with everything that has become of it.
        revision: How often it was stored; 0: not yet. A change fails where this is not current.
        next_due: When the next thing is due on its ladder; None: never, or it is closed.
        claim: Who is looking at it; it may have ended by now. None: nobody.

    Example:
        >>> from llama_index_hitl.lifecycle import open_record
        >>> request = ReviewRequest(request_id="r-1", title="Publish?", created_at=utc_now())
        >>> StoredRequest(run_id="run-1", record=open_record(request)).request_id
        'r-1'
    """

    run_id: str
    record: ReviewRecord
    revision: int = 0
    next_due: datetime | None = None
    claim: Claim | None = None

    @property
    def request_id(self) -> str:
        """Id of the request, unique over all runs."""
        return self.record.request.request_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Something that a run has yet to be told: an answer, a deadline, a withdrawal.

    Attributes:
        message_id: Unique among the messages that wait, of all runs: another one with the same id
            is a conflict until this one is taken out.
        run_id: The run that it is for.
        request_id: The request that it is about.
        kind: What it is.
        payload: Its content, as JSON.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.runner import Runner
        >>> async def main():
        ...     runner = Runner(MemoryStore(), {"draft": DraftApproval()})
        ...     run = await runner.start("draft", topic="mice", content="Mice are small.")
        ...     [record] = await runner.pending()
        ...     await runner.answer(record.request_id, Approve(), by="erin")
        ...     return [message.kind for message in await runner.store.messages(run.run_id)]
        >>> asyncio.run(main())  # until the run is advanced
        ['answer']
    """

    message_id: str
    run_id: str
    request_id: str
    kind: Literal["answer", "deadline", "withdraw"]
    payload: JsonObject


EffectStatus: TypeAlias = Literal["begun", "done", "undone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """An effect that must happen once.

    Attributes:
        key: Unique over all runs.
        run_id: The run that it belongs to.
        status: `begun`: it may or may not have happened; `done`: it has, and `result` is kept;
            `undone`: it has certainly not happened.
        owner: Who began it.
        at: When it was begun, or done.
        revision: How often it was stored; 0: not yet. A change fails where this is not current.
        result: What it gave, as bytes.

    Example:
        >>> from llama_index_hitl.runner import Runner
        >>> async def main():
        ...     store = MemoryStore()
        ...     begun = Effect(
        ...         key="pay-1", run_id="run-1", status="begun", owner="worker-7", at=utc_now()
        ...     )
        ...     await store.commit(Commit(effects=(begun,)))
        ...     return [effect.key for effect in await Runner(store).effects_in_doubt()]
        >>> asyncio.run(main())
        ['pay-1']
    """

    key: str
    run_id: str
    status: EffectStatus
    owner: str
    at: datetime
    revision: int = 0
    result: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredGrant:
    """A standing approval as it is stored.

    Attributes:
        grant: The standing approval.
        revision: How often it was stored; 0: not yet. A change fails where this is not current.

    Example:
        >>> from llama_index_hitl.models import GrantTerms
        >>> from llama_index_hitl.runner import Runner
        >>> async def main():
        ...     store = MemoryStore()
        ...     given = await Runner(store).grants.give(
        ...         workflow="bank", tool="transfer", version="3f1a", terms=GrantTerms(), by="alice"
        ...     )
        ...     return await store.grant(given.grant_id)
        >>> stored = asyncio.run(main())
        >>> stored.grant.tool, stored.revision
        ('transfer', 1)
    """

    grant: Grant
    revision: int = 0

    @property
    def grant_id(self) -> str:
        """Id of the standing approval, unique over all runs."""
        return self.grant.grant_id


class NoticeKind(StrEnum):
    """What people outside are told."""

    OPENED = "opened"
    """A request is asked, asked again, or asked of more people."""
    REMINDED = "reminded"
    """A request is still open."""
    ESCALATED = "escalated"
    """A request was passed up."""
    ANSWERED = "answered"
    """An answer to a request was taken."""
    EXPIRED = "expired"
    """The deadline of a request has passed."""
    CANCELLED = "cancelled"
    """A request was taken back, or a run was cancelled."""
    SUPERSEDED = "superseded"
    """Another request took the place of one."""
    FINISHED = "finished"
    """A run has a result."""
    FAILED = "failed"
    """A run has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something to tell people outside, until it is told.

    Attributes:
        notice_id: Unique; whoever is told twice knows it by this.
        kind: What happened.
        run_id: The run that it happened in.
        at: When.
        request_id: The request that it is about, if it is about one.
        payload: What to tell, as JSON.
        due: Not to be told before this instant.
        attempts: How often telling it has failed.
        revision: How often it was stored; 0: not yet. A change fails where this is not current.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.runner import Runner
        >>> async def main():
        ...     runner = Runner(MemoryStore(), {"draft": DraftApproval()}, notifiers=[])
        ...     await runner.start("draft", topic="mice", content="Mice are small.")
        ...     return [notice.kind.value for notice in await runner.store.notices(utc_now())]
        >>> asyncio.run(main())
        ['opened']
    """

    notice_id: str
    kind: NoticeKind
    run_id: str
    at: datetime
    due: datetime
    request_id: str | None = None
    payload: JsonObject = field(default_factory=dict)
    attempts: int = 0
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Something that a run said on its stream, kept for those who look at it later.

    Attributes:
        run_id: The run.
        at: When.
        data: What it said, as JSON.

    Example:
        >>> said = Progress(run_id="run-1", at=utc_now(), data={"message": "Writing"})
        >>> async def main():
        ...     store = MemoryStore()
        ...     await store.commit(Commit(progress=(said,)))
        ...     return [event.data["message"] for event in await store.feed()]
        >>> asyncio.run(main())
        ['Writing']
    """

    run_id: str
    at: datetime
    data: JsonObject


PROGRESS: Final = "progress"
"""The kind of a feed's event that is no row of the audit trail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedEvent:
    """One thing that was stored, as those who follow a store are told of it.

    Each row of the audit trail that is about a request, or about a run as a whole, is in the feed
    as soon as it is stored, and so is all progress; what has become of it is read from the store.
    Rows about effects and standing approvals are not.

    Attributes:
        cursor: Its place in the feed: reading goes on behind it.
        kind: An `AuditKind`, or `progress`.
        run_id: The run.
        at: When it happened.
        request_id: The request that it is about, if it is about one.
        data: What was said, of progress; empty for everything else.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.runner import Runner
        >>> async def main():
        ...     runner = Runner(MemoryStore(), {"draft": DraftApproval()})
        ...     await runner.start("draft", topic="mice", content="Mice are small.")
        ...     first, *_ = await runner.store.feed()
        ...     return [event.kind for event in await runner.store.feed(after=first.cursor)]
        >>> asyncio.run(main())
        ['opened']
    """

    cursor: Cursor
    kind: str
    run_id: str
    at: datetime
    request_id: str | None = None
    data: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One change: all of it is stored, or none.

    A row with revision 0 must not be there yet; any other must be stored with exactly that
    revision. Each row that is written is stored with its revision plus one. So a row that is in
    a commit twice is a conflict with itself.

    What `applied` and `told` name is taken out before anything is put in.

    Attributes:
        run: The run to write, whole. Its `start`, `snapshot` or `result` are left as they are
            stored where they are None, unless the run is new.
        requests: The requests to write.
        messages: Messages to put behind those that wait.
        applied: Ids of the messages to take out, for the run has been told; that they wait is not
            checked.
        effects: Effects to write.
        grants: Standing approvals to write.
        notices: Notices to write.
        told: Ids of the notices to take out; that they are there is not checked.
        audit: What happened, to put behind the rows of each entry's run, in this order.
        progress: What runs said, to put at the end of the feed, in this order, behind what `audit`
            puts there.
        durable: Whether it must survive a loss of power by itself. One that need not is quicker: it
            is seen at once by everybody, survives the end of the process, and survives a loss of
            power together with the next one that must.

    Example:
        >>> async def main():
        ...     store = MemoryStore()
        ...     now = utc_now()
        ...     run = Run(
        ...         run_id="run-1",
        ...         workflow="draft",
        ...         status=RunStatus.WAITING,
        ...         created_at=now,
        ...         updated_at=now,
        ...     )
        ...     await store.commit(Commit(run=run))
        ...     stored = await store.run("run-1")
        ...     await store.commit(Commit(run=stored))  # as it was read
        ...     await store.commit(Commit(run=stored))  # no longer
        >>> asyncio.run(main())
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.Conflict: The run 'run-1' was changed by somebody else: it is
        at revision 2, not 1. Nothing was stored; read it again.
    """

    run: Run | None = None
    requests: tuple[StoredRequest, ...] = ()
    messages: tuple[Message, ...] = ()
    applied: tuple[str, ...] = ()
    effects: tuple[Effect, ...] = ()
    grants: tuple[StoredGrant, ...] = ()
    notices: tuple[Notice, ...] = ()
    told: tuple[str, ...] = ()
    audit: tuple[AuditEntry, ...] = ()
    progress: tuple[Progress, ...] = ()
    durable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestQuery:
    """Which requests to list; what is left out does not narrow it.

    Attributes:
        entries: Reviewer entries, ids and `role:...`. Finds requests that name one of them, now
            (after delegations and the like), and those that name nobody, which are for everyone.
            Who is barred or has voted is not looked at.
        open: Only open ones, only closed ones, or None: both. `entries` goes with open ones only.
        run_id: Of this run.
        workflow: Asked by this workflow.
        gate: Asked by this gate.
        tag: That have this tag.
        priority: Of this priority.
        created_before: Asked before this instant.
        due_before: With something due before this instant.
        limit: How many at most, from 1.
        after: Where the page before ended.

    Raises:
        ValueError: `limit` is below 1, or `entries` is given and `open` is not True.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.runner import Runner
        >>> async def main():
        ...     runner = Runner(MemoryStore(), {"draft": DraftApproval(reviewers="role:editor")})
        ...     await runner.start("draft", topic="mice", content="Mice are small.")
        ...     found = await runner.store.requests(RequestQuery(entries=("erin", "role:editor")))
        ...     return [stored.record.request.title for stored in found]
        >>> asyncio.run(main())
        ['Draft about mice']
    """

    entries: tuple[str, ...] | None = None
    open: bool | None = True
    run_id: str | None = None
    workflow: str | None = None
    gate: str | None = None
    tag: str | None = None
    priority: Priority | None = None
    created_before: datetime | None = None
    due_before: datetime | None = None
    limit: int = 50
    after: Cursor | None = None

    def __post_init__(self) -> None:
        _refuse_empty_page(self.limit)
        if self.entries is not None and self.open is not True:
            raise ValueError("entries finds open requests only; ask for them with open=True")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQuery:
    """Which runs to list; what is left out does not narrow it.

    Attributes:
        workflow: Of this workflow.
        status: With this status.
        tag: That have this tag.
        started_by: Started by this person.
        limit: How many at most, from 1.
        after: Where the page before ended.

    Raises:
        ValueError: `limit` is below 1.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.runner import Runner
        >>> async def main():
        ...     runner = Runner(MemoryStore(), {"draft": DraftApproval()})
        ...     await runner.start("draft", tags=["mice"], topic="mice", content="Mice are small.")
        ...     found = await runner.store.runs(RunQuery(status=RunStatus.WAITING, tag="mice"))
        ...     return [run.workflow for run in found]
        >>> asyncio.run(main())
        ['draft']
    """

    workflow: str | None = None
    status: RunStatus | None = None
    tag: str | None = None
    started_by: str | None = None
    limit: int = 50
    after: Cursor | None = None

    def __post_init__(self) -> None:
        _refuse_empty_page(self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantQuery:
    """Which standing approvals to list; what is left out does not narrow it.

    Attributes:
        workflow: That hold in this workflow.
        agent: That hold for this agent; empty: for calls without one.
        tool: For this tool.
        owner: Given by this person.
        request_id: Given along with the approval of this request.
        active_at: That still cover something at this instant: neither revoked nor used up, and not
            expired by then.
        limit: How many at most, from 1.
        after: Where the page before ended.

    Raises:
        ValueError: `limit` is below 1.

    Example:
        >>> async def main():
        ...     return await MemoryStore().grants(GrantQuery(tool="transfer", active_at=utc_now()))
        >>> len(asyncio.run(main()))
        0
    """

    workflow: str | None = None
    agent: str | None = None
    tool: str | None = None
    owner: str | None = None
    request_id: str | None = None
    active_at: datetime | None = None
    limit: int = 50
    after: Cursor | None = None

    def __post_init__(self) -> None:
        _refuse_empty_page(self.limit)


def _refuse_empty_page(limit: int) -> None:
    if limit < 1:
        raise ValueError(f"a page holds at least one row (limit={limit})")


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list; iterating over it gives its items.

    Attributes:
        items: The rows, in order.
        after: Give this to get the next page; None: there is no more.

    Example:
        >>> page = Page(items=("r-1", "r-2"), after="more")
        >>> list(page), page.after
        (['r-1', 'r-2'], 'more')
    """

    items: tuple[T, ...]
    after: Cursor | None = None

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class Store(Protocol):
    """Where runs wait. `llama_index_hitl.testing.stores.StoreConformance` tests one of your own.

    Every method may be called from several tasks, and, where the store says so, from several
    processes, at once. What a commit wrote is seen by every read that begins after it returned, in
    whatever process, and survives the end of the process at any instant after that. A read gives
    what one commit left, never half of one. Times come back as the same instants, to the
    microsecond, with a time zone.

    Text comes back exactly as it was given. A store that cannot hold some text, such as a NUL in an
    id, refuses the commit with a `StoreError`, and finds nothing under it.

    Raises:
        StoreError: From any method: the store cannot be reached, is closed, or holds what it cannot
            read. After a `commit` that raised it, or was cancelled, whether it was stored is
            unknown: read to find out. Only where the commit itself cannot be stored, such as a
            time without a zone, it is certain that nothing was.

    Example:
        >>> async def lost_runs(store: Store) -> list[str]:
        ...     return [run.run_id for run in await store.runs(RunQuery(status=RunStatus.FAILED))]
        >>> asyncio.run(lost_runs(MemoryStore()))
        []
    """

    async def commit(self, commit: Commit) -> None:
        """Store a change, all of it or nothing.

        Commits that add to the audit trail of the same run at the same time wait for each other;
        that alone is no conflict.

        Args:
            commit: The change.

        Raises:
            Conflict: A row is not as it was read: it was changed, removed, or made by somebody
                else in between, or a message id is taken. Nothing was stored.
        """
        ...

    async def run(self, run_id: str, *, whole: bool = False) -> Run | None:
        """Return a run, or None.

        Args:
            run_id: Which one.
            whole: Also read `start`, `snapshot` and `result`, which may be large; otherwise they
                are None.
        """
        ...

    async def request(self, request_id: str) -> StoredRequest | None:
        """Return a request, or None.

        Args:
            request_id: Which one.
        """
        ...

    async def requests(self, query: RequestQuery) -> Page[StoredRequest]:
        """Return requests: the most urgent first, among those the oldest first, then by id.

        The time that it takes to list what one reviewer has open does not depend on how much is
        stored beside it, nor on how much is open for others. Pages neither skip nor repeat a
        request that is there, and fits, all the while.

        Args:
            query: Which ones, and how many.

        Raises:
            InvalidCursor: `after` is not what a page of requests ended with.
        """
        ...

    async def runs(self, query: RunQuery) -> Page[Run]:
        """Return runs, without their bytes: the newest first, then by id.

        Args:
            query: Which ones, and how many.

        Raises:
            InvalidCursor: `after` is not what a page of runs ended with.
        """
        ...

    async def messages(self, run_id: str) -> Sequence[Message]:
        """Return what a run has yet to be told, in the order in which it was stored.

        Args:
            run_id: The run.
        """
        ...

    async def ready(self, now: datetime, *, limit: int = 100) -> Sequence[str]:
        """Return ids of runs that can be advanced.

        Those are runs that wait and have messages, and runs that are said to be running by somebody
        whose lease has ended, at or before `now`, or who has none. The oldest first, by
        `updated_at`, then by id.

        Args:
            now: The present instant, time zone included.
            limit: How many at most, from 1.
        """
        ...

    async def due(self, now: datetime, *, limit: int = 100) -> Sequence[StoredRequest]:
        """Return open requests with something due at or before `now`.

        The longest overdue first, then by id.

        Args:
            now: The present instant, time zone included.
            limit: How many at most, from 1.
        """
        ...

    async def effect(self, key: str) -> Effect | None:
        """Return an effect, or None.

        Args:
            key: Key of the effect.
        """
        ...

    async def effects(
        self, *, run_id: str | None = None, status: EffectStatus | None = None
    ) -> Sequence[Effect]:
        """Return effects, by time and then by key.

        Args:
            run_id: Of this run only.
            status: With this status only.
        """
        ...

    async def grant(self, grant_id: str) -> StoredGrant | None:
        """Return a standing approval, or None.

        Args:
            grant_id: Which one.
        """
        ...

    async def grants(self, query: GrantQuery) -> Page[StoredGrant]:
        """Return standing approvals: the newest first, then by id.

        Args:
            query: Which ones, and how many.

        Raises:
            InvalidCursor: `after` is not what a page of standing approvals ended with.
        """
        ...

    async def notices(self, now: datetime, *, limit: int = 100) -> Sequence[Notice]:
        """Return notices that are due at or before `now`.

        The longest overdue first; those of one instant in the order in which they were first
        stored.

        Args:
            now: The present instant, time zone included.
            limit: How many at most, from 1.
        """
        ...

    async def audit(self, run_id: str) -> Sequence[AuditRow]:
        """Return what happened in a run, in order.

        Args:
            run_id: The run, or the standing approval that has no run.
        """
        ...

    async def feed(
        self, *, run_id: str | None = None, after: Cursor | None = None, limit: int = 100
    ) -> Sequence[FeedEvent]:
        """Return what was stored, in the order in which it became readable.

        Whoever reads on from the cursor of the last event that they got misses nothing and gets
        nothing twice, in whatever process, however many commit at the same time. What a commit
        that returned has put there may take as long to be seen as other commits that had begun by
        then take to end.

        Args:
            run_id: Of this run only.
            after: Behind this event; None: from the beginning.
            limit: How many at most, from 1.

        Raises:
            InvalidCursor: `after` is no place in a feed.
        """
        ...

    async def feed_end(self) -> Cursor:
        """Return the place behind all that can be read of the feed now."""
        ...

    async def close(self) -> None:
        """Let go of connections; the store cannot be used any more."""
        ...
