"""Durable runs: start them, let people answer in their own time, and take them further.

Between the calls to a `Runner` nothing is kept in memory, and each may happen in another process.

Example:
    >>> from llama_index_hitl.prebuilt import DraftApproval
    >>> from llama_index_hitl.stores import MemoryStore
    >>> async def main():
    ...     runner = Runner(MemoryStore(), {"draft": DraftApproval()})
    ...     run = await runner.start("draft", topic="mice", content="Mice are small.")
    ...     for record in await runner.pending(reviewer="alice"):  # it waits in the store
    ...         await runner.answer(record.request_id, Approve(), by="alice")
    ...     run = await runner.advance(run.run_id)
    ...     return run.status.value, (await runner.result(run.run_id)).subject.content
    >>> asyncio.run(main())
    ('finished', 'Mice are small.')
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Literal

from workflows import Workflow

from llama_index_hitl import _entries
from llama_index_hitl._advance import Advancer
from llama_index_hitl._claims import DEFAULT_CLAIM, ClaimDesk
from llama_index_hitl._entries import Redact
from llama_index_hitl._grant_desk import GrantDesk
from llama_index_hitl._outbox import Outbox, persistently
from llama_index_hitl._submit import Receipt, Submission, Submitter
from llama_index_hitl._text import origin_of
from llama_index_hitl._watches import Watch, Watches
from llama_index_hitl.audit import AuditKind, AuditRow
from llama_index_hitl.authorizers import Action, Authorizer, TrustingAuthorizer
from llama_index_hitl.clock import Clock, utc_now
from llama_index_hitl.errors import (
    AnswerRefused,
    Conflict,
    HitlError,
    IncompatibleSnapshot,
    RunBusy,
    RunEnded,
    RunExists,
    RunFailed,
    StillWaiting,
    UnknownEffect,
    UnknownRun,
    UnknownWorkflow,
)
from llama_index_hitl.lifecycle import Command, close
from llama_index_hitl.migrations import Migration
from llama_index_hitl.models import (
    ROLE_PREFIX,
    Approve,
    Decision,
    Edit,
    Priority,
    Respond,
    Reviewer,
    ReviewRecord,
    ReviewRequest,
    Rung,
)
from llama_index_hitl.notifiers import Notifier, deliver
from llama_index_hitl.policies import why_not_allowed
from llama_index_hitl.spot_checks import SpotChecks
from llama_index_hitl.stores.protocol import (
    Claim,
    Commit,
    Effect,
    NoticeKind,
    Page,
    RequestQuery,
    Run,
    RunQuery,
    RunStatus,
    Store,
    StoredRequest,
)

__all__ = ["Check", "Due", "GrantDesk", "Receipt", "Redact", "Runner", "Submission", "Watch"]

DEFAULT_LEASE = timedelta(seconds=60)
MAX_ATTEMPTS = 5
"""How often a run may take down the process that advances it before it is given up as failed."""

_BATCH = 100

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Check:
    """Whether a paused run would go on with the present code.

    Attributes:
        run: The run.
        verdict: `resumes`; `migrates`, through a migration that is registered; `needs_migration`,
            which is not; or `breaks`, for it cannot be read or its workflow is not here.
        differences: What is in the way, one sentence each.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.stores import MemoryStore
        >>> async def main():
        ...     runner = Runner(MemoryStore(), {"draft": DraftApproval()})
        ...     await runner.start("draft", topic="mice", content="Mice are small.")
        ...     return [check.verdict for check in await runner.check()]  # before new code goes out
        >>> asyncio.run(main())
        ['resumes']
    """

    run: Run
    verdict: Literal["resumes", "migrates", "needs_migration", "breaks"]
    differences: tuple[str, ...] = ()


@dataclass(frozen=True)
class Due:
    """Something on a request's ladder that a sweep has done.

    Attributes:
        run_id: The run that asked.
        request_id: The request.
        rung: What was due, and when.

    Example:
        >>> from datetime import timedelta
        >>> from llama_index_hitl.prebuilt import ApproveAction
        >>> from llama_index_hitl.stores import MemoryStore
        >>> from llama_index_hitl.testing import ManualClock
        >>> async def main():
        ...     clock = ManualClock()
        ...     pay = ApproveAction(deadline=timedelta(days=2))
        ...     runner = Runner(MemoryStore(), {"pay": pay}, clock=clock)
        ...     await runner.start("pay", action="Refund 40")
        ...     clock.advance(days=14)
        ...     return [due.rung.action.kind for due in await runner.sweep()]
        >>> asyncio.run(main())
        ['expire']
    """

    run_id: str
    request_id: str
    rung: Rung


class Runner:
    """Joins workflows and a store. Any number of runners, in any processes, may share one store.

    A runner that only lists and takes answers needs no workflows.

    What a method did is stored when it returns, and survives a crash at any instant after that.
    Each of its changes is one transaction: cut off, all of it is stored or nothing. A run whose
    process has died is gone on with by `recover`, in any process, from its last pause and with the
    same answers.

    Args:
        store: Where runs wait.
        workflows: The workflows that this runner can start and advance, by name.
        authorizer: Vouches for people; by default everybody is who they say they are.
        notifiers: Are told what happens, after it is stored, at least once. None: nobody ever is.
            A process that only answers while another one tells people gives an empty list, so that
            what is to be told is kept.
        redact: Takes what an audit row, a notice or a run's progress would say, and returns what
            may be kept of it.
        migrations: What makes runs that were paused by older code fit.
        types: Classes of values in runs that the workflows' own code does not name.
        clock: Where the time comes from.
        lease: How long a runner that has died is waited for before another takes its run over. It
            is renewed while a run is at work, however long that takes.
        watch: Is shown each event on the stream of a run while it is advanced here, with the run's
            id; `add_watch` adds others.

    Raises:
        TypeError: The store is a URL, or a workflow is a class.

    Attributes:
        store: Where runs wait.
        clock: Where the time comes from.
        redact: What may be kept of what is said; None: everything.
        spot_checks: What rules approved and picked to be looked at by people later.
        grants: The standing approvals: list, give and revoke them here.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.stores import SqlStore
        >>> flows = {"draft": DraftApproval()}
        >>> async def begin():
        ...     store = SqlStore("hitl.db")
        ...     run = await Runner(store, flows).start("draft", topic="mice", content="Small.")
        ...     await store.close()
        ...     return run.run_id, run.status.value
        >>> async def answer(run_id):  # in another process, days later
        ...     store = SqlStore("hitl.db")
        ...     runner = Runner(store, flows)
        ...     for record in await runner.pending(run_id=run_id):
        ...         await runner.answer(record.request_id, Approve(), by="erin")
        ...     run = await runner.advance(run_id)
        ...     await store.close()
        ...     return run.status.value
        >>> run_id, status = asyncio.run(begin())
        >>> status, asyncio.run(answer(run_id))
        ('waiting', 'finished')
    """

    def __init__(
        self,
        store: Store,
        workflows: Mapping[str, Workflow] | None = None,
        *,
        authorizer: Authorizer | None = None,
        notifiers: Sequence[Notifier] | None = None,
        redact: Redact | None = None,
        migrations: Sequence[Migration] = (),
        types: Iterable[type] = (),
        clock: Clock = utc_now,
        lease: timedelta = DEFAULT_LEASE,
        watch: Watch | None = None,
    ) -> None:
        self.store = store
        self._authorizer = authorizer or TrustingAuthorizer()
        self._notifiers = tuple(notifiers or ())
        self.clock = clock
        self.redact = redact
        self._workflows = dict(workflows or {})
        _refuse_confused(store, self._workflows)
        self._watches = Watches(watch)
        self._outbox = Outbox(store, keeps=notifiers is not None, redact=redact)
        self._submitter = Submitter(store, self._outbox)
        self.spot_checks = SpotChecks(store, self._outbox, authorizer=self._authorizer, clock=clock)
        self.grants = GrantDesk(store, self._outbox, authorizer=self._authorizer, clock=clock)
        self._claims = ClaimDesk(store, self._outbox, authorizer=self._authorizer, clock=clock)
        owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._advancers = {
            name: Advancer(
                store,
                self._outbox,
                name,
                workflow,
                owner=owner,
                lease=lease,
                clock=clock,
                migrations=migrations,
                types=tuple(types),
                watches=self._watches,
            )
            for name, workflow in self._workflows.items()
        }

    @property
    def workflows(self) -> Mapping[str, Workflow]:
        """The workflows that this runner can start and advance, by name; to read only."""
        return MappingProxyType(self._workflows)

    def add_watch(self, watch: Watch) -> Callable[[], None]:
        """Show runs to one more watch; those that are taken further from now on.

        A run that others watch already is shown to it from here on. What a watch raises is logged,
        and harms neither the run nor others who watch.

        Args:
            watch: Is shown each event on the stream of a run while it is advanced here, with the
                run's id. One that was added before is not added again.

        Returns:
            Call it to stop; it is shown nothing from then on.
        """
        return self._watches.add(watch)

    # ----------------------------------------------------------------- runs

    async def start(
        self,
        workflow: str,
        /,
        *,
        by: Reviewer | str | None = None,
        run_id: str | None = None,
        tags: Iterable[str] = (),
        inputs: Mapping[str, Any] | None = None,
        **more_inputs: Any,
    ) -> Run:
        """Start a run, and let it go on until it waits for people or ends.

        The run is stored before it begins, so that a run whose process dies is started anew from
        its inputs by `recover`.

        Args:
            workflow: Name of the workflow.
            by: Who starts it; it stands in the run and on its audit trail. None: no person.
            run_id: Id to give it; a run that is there already is returned as it is, so a start can
                be repeated safely. None: a new one.
            tags: Words to find it by.
            inputs: What the workflow's `run` takes, for names that this method has itself.
            **more_inputs: What the workflow's `run` takes.

        Returns:
            The run as it is stored then: waiting, finished, or failed, with the error in it.

        Raises:
            UnknownWorkflow: The runner was not given it.
            UnserializableState: An input cannot be stored.
            RunExists: The id belongs to a run of another workflow.
        """
        run = self._new_run(workflow, by, run_id, tags, {**(inputs or {}), **more_inputs})
        try:
            return await self._advancer(workflow).begin(run)
        except Conflict:
            if (known := await self._started_before(run)) is None:
                raise
            return known

    async def enqueue(
        self,
        workflow: str,
        /,
        *,
        by: Reviewer | str | None = None,
        run_id: str | None = None,
        tags: Iterable[str] = (),
        inputs: Mapping[str, Any] | None = None,
        **more_inputs: Any,
    ) -> Run:
        """Store a run without beginning it: `advance` or `recover` do, in whatever process.

        When this has returned, the run cannot be lost any more.

        Args:
            workflow: Name of the workflow.
            by: Who starts it; it stands in the run and on its audit trail. None: no person.
            run_id: Id to give it; a run that is there already is returned as it is. None: a new
                one.
            tags: Words to find it by.
            inputs: What the workflow's `run` takes, for names that this method has itself.
            **more_inputs: What the workflow's `run` takes.

        Returns:
            The run as it is stored: running, and nobody is at work on it yet.

        Raises:
            UnknownWorkflow: The runner was not given it.
            UnserializableState: An input cannot be stored.
            RunExists: The id belongs to a run of another workflow.
        """
        run = self._new_run(workflow, by, run_id, tags, {**(inputs or {}), **more_inputs})
        try:
            return await self._advancer(workflow).enqueue(run)
        except Conflict:
            if (known := await self._started_before(run)) is None:
                raise
            return known

    def _new_run(
        self,
        workflow: str,
        by: Reviewer | str | None,
        run_id: str | None,
        tags: Iterable[str],
        inputs: dict[str, Any],
    ) -> Run:
        person = Reviewer(id=by) if isinstance(by, str) else by
        now = self.clock()
        return Run(
            run_id=run_id or secrets.token_hex(8),
            workflow=workflow,
            status=RunStatus.RUNNING,
            created_at=now,
            updated_at=now,
            tags=tuple(tags),
            start=self._advancer(workflow).dump_start(inputs),
            started_by=None if person is None else person.id,
        )

    async def _started_before(self, run: Run) -> Run | None:
        """Return the run that has the id of one that was to be started."""
        known = await self.store.run(run.run_id)
        if known is not None and known.workflow != run.workflow:
            raise RunExists(known.run_id, workflow=known.workflow) from None
        return known

    async def advance(self, run_id: str) -> Run:
        """Tell a run all that it has yet to be told, and take it to its next pause or its end.

        A run that has nothing to be told, or is over, is returned as it is.

        Every answer is stored before, and all that comes of them at once after: a process that dies
        here leaves the run as it was at its last pause, and `recover` does the same again, with
        effects that are not repeated (`llama_index_hitl.effects`).

        Args:
            run_id: The run.

        Returns:
            The run as it is stored then. A step that raises makes it failed, with the error in it;
            its answers are kept.

        Raises:
            UnknownRun: There is no such run.
            UnknownWorkflow: The runner was not given its workflow.
            RunBusy: Somebody else is at work on it.
            IncompatibleSnapshot: It does not fit the workflow's code; no answer is consumed.
            LeaseLost: Somebody else has taken it over; what was done here is not stored.
        """
        run, _ = await self._go_on(run_id)
        return run

    async def _go_on(self, run_id: str) -> tuple[Run, bool]:
        """Advance a run; say what it is then, and whether there was anything to do."""
        run = await self._run(run_id, whole=True)
        advanced = False
        while True:
            messages = await self.store.messages(run_id)
            waiting = run.status is RunStatus.WAITING and messages
            if not waiting and run.status is not RunStatus.RUNNING:
                return replace(run, start=None, snapshot=None, result=None), advanced
            advancer = self._advancer(run.workflow)
            if run.attempts >= MAX_ATTEMPTS and _lease_is_over(run, self.clock()):
                return await self._give_up(run), True
            after = await advancer.advance(run, messages)
            if after.status is not RunStatus.WAITING:
                return after, True
            advanced = True
            run = await self._run(run_id, whole=True)

    async def _give_up(self, run: Run) -> Run:
        """Fail a run that has outlived too many of the processes that advanced it."""
        message = (
            f"{run.attempts} processes died while they advanced it, the last {run.lease_owner}"
        )
        failed = replace(
            run,
            status=RunStatus.FAILED,
            updated_at=self.clock(),
            lease_owner=None,
            lease_until=None,
            error={"type": "ProcessDied", "message": message, "traceback": ""},
            start=None,
            snapshot=None,
            result=None,
        )
        now = failed.updated_at
        entry = _entries.run_event(AuditKind.FAILED, run.run_id, now, reason=message)
        notices = self._outbox.of_run(
            NoticeKind.FAILED, run.run_id, run.workflow, now, number=run.revision
        )
        try:
            await self._outbox.commit(Commit(run=failed, audit=(entry,), notices=notices))
        except Conflict:
            raise RunBusy(run.run_id, owner=None, until=None) from None
        return replace(failed, revision=run.revision + 1)

    async def retry(self, run_id: str, *, by: Reviewer | str) -> Run:
        """Try a failed run again from its last pause, with the same answers.

        Args:
            run_id: The run.
            by: Who wants it tried again.

        Returns:
            The run as it is stored then: waiting, finished, or failed again.

        Raises:
            UnknownRun: There is no such run.
            RunEnded: It has not failed.
            NotAllowed: The authorizer does not let this person.
        """
        run = await self._run(run_id, whole=True)
        person = await self._vouched(by, Action.RETRY, run_id)
        if run.status is not RunStatus.FAILED:
            raise RunEnded(run_id, status=run.status, wanted="retried")
        # As if a process had died over it: whoever comes next goes on from the last pause.
        tried = replace(
            run,
            status=RunStatus.RUNNING,
            attempts=0,
            error=None,
            updated_at=self.clock(),
            start=None,
            snapshot=None,
        )
        entry = _entries.run_event(AuditKind.RETRIED, run_id, self.clock(), actor=person.id)
        await self._outbox.commit(Commit(run=tried, audit=(entry,)))
        return await self.advance(run_id)

    async def cancel(self, run_id: str, *, by: Reviewer | str, reason: str = "") -> Run:
        """End a run for good; its open requests are withdrawn.

        A runner that is at work on it meanwhile loses its lease, and what it did is not stored.

        Args:
            run_id: The run.
            by: Who ends it.
            reason: Why, for people.

        Returns:
            The run, cancelled.

        Raises:
            UnknownRun: There is no such run.
            RunEnded: It is over.
            NotAllowed: The authorizer does not let this person.
        """
        person = await self._vouched(by, Action.CANCEL, run_id)

        async def attempt() -> Run:
            run = await self._run(run_id)
            if run.status in (RunStatus.FINISHED, RunStatus.CANCELLED):
                raise RunEnded(run_id, status=run.status, wanted="cancelled")
            now = self.clock()
            left = await self._all_open(run_id)
            said = reason or f"{person.id} cancelled the run."
            closed = [
                replace(
                    stored,
                    record=close(stored.record, Command.WITHDRAW, at=now, reason=said),
                    next_due=None,
                )
                for stored in left
            ]
            ended = replace(
                run,
                status=RunStatus.CANCELLED,
                updated_at=now,
                lease_owner=None,
                lease_until=None,
            )
            messages = await self.store.messages(run_id)
            commit = Commit(
                run=ended,
                requests=tuple(closed),
                applied=tuple(message.message_id for message in messages),
                notices=self._outbox.of_run(
                    NoticeKind.CANCELLED, run_id, run.workflow, now, number=run.revision
                ),
                audit=(
                    _entries.run_event(
                        AuditKind.CANCELLED, run_id, now, actor=person.id, reason=said
                    ),
                    *(
                        _entries.closed(
                            run_id, c.record, AuditKind.WITHDRAWN, now, said, actor=person.id
                        )
                        for c in closed
                    ),
                ),
            )
            await self._outbox.commit(commit)
            return replace(ended, revision=run.revision + 1)

        return await persistently(attempt)

    async def get_run(self, run_id: str) -> Run:
        """Return a run.

        Args:
            run_id: The run.

        Raises:
            UnknownRun: There is no such run.
        """
        return await self._run(run_id)

    async def runs(
        self,
        *,
        workflow: str | None = None,
        status: RunStatus | str | None = None,
        tag: str | None = None,
        started_by: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> Page[Run]:
        """Return runs, the newest first.

        Args:
            workflow: Of this workflow only.
            status: With this status only.
            tag: With this tag only.
            started_by: Started by the person with this id only.
            limit: How many at most, from 1.
            after: The `after` of the page before.
        """
        return await self.store.runs(
            RunQuery(
                workflow=workflow,
                status=None if status is None else RunStatus(status),
                tag=tag,
                started_by=started_by,
                limit=limit,
                after=after,
            )
        )

    async def result(self, run_id: str) -> Any:
        """Return what a run came to.

        Args:
            run_id: The run.

        Raises:
            UnknownRun: There is no such run.
            UnknownWorkflow: The runner was not given its workflow, whose types the result has.
            StillWaiting: It has no result yet.
            RunFailed: A step raised an error.
            RunEnded: It was cancelled.
        """
        run = await self._run(run_id, whole=True)
        match run.status:
            case RunStatus.FINISHED:
                return self._advancer(run.workflow).load_result(run.result or b"null")
            case RunStatus.FAILED:
                error = run.error or {}
                raise RunFailed(
                    run_id,
                    error_type=str(error.get("type")),
                    error_message=str(error.get("message")),
                )
            case RunStatus.CANCELLED:
                raise RunEnded(run_id, status=run.status, wanted="asked for a result")
            case _:
                left = await self._all_open(run_id)
                ids = [stored.request_id for stored in left]
                raise StillWaiting(run_id, status=run.status, open_requests=ids)

    async def history(self, run_id: str) -> Sequence[AuditRow]:
        """Return everything that happened in a run, in order.

        Args:
            run_id: The run; of one that there is not, nothing happened.
        """
        return await self.store.audit(run_id)

    # ----------------------------------------------------------------- requests

    async def pending(
        self,
        *,
        reviewer: Reviewer | str | None = None,
        role: str | None = None,
        run_id: str | None = None,
        workflow: str | None = None,
        gate: str | None = None,
        tag: str | None = None,
        priority: Priority | None = None,
        created_before: datetime | None = None,
        due_before: datetime | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> Page[ReviewRecord]:
        """Return open requests: the most urgent first, among those the oldest first.

        Args:
            reviewer: That this person can answer, by id or through a role of theirs, and has not
                answered.
            role: That are for this role, or for everybody.
            run_id: Of this run only.
            workflow: Of the workflow with this name (`Workflow.workflow_name`) only, not the
                name that the runner has for it. All agents of one class share it: tell calls of
                guarded tools apart by `tag`.
            gate: Of this gate only; `ask` for questions asked inline.
            tag: With this tag only.
            priority: Of this priority only.
            created_before: Asked before this instant only.
            due_before: With something due before this instant only.
            limit: How many to look at, from 1; a page may have fewer, and yet not be the last.
            after: The `after` of the page before.
        """
        person = Reviewer(id=reviewer) if isinstance(reviewer, str) else reviewer
        entries: tuple[str, ...] | None = None
        if person is not None or role is not None:
            roles = (*(person.roles if person else ()), *((role,) if role else ()))
            entries = (*((person.id,) if person else ()), *(ROLE_PREFIX + r for r in roles))
        page = await self.store.requests(
            RequestQuery(
                entries=entries,
                run_id=run_id,
                workflow=workflow,
                gate=gate,
                tag=tag,
                priority=priority,
                created_before=created_before,
                due_before=due_before,
                limit=limit,
                after=after,
            )
        )
        found = (stored.record for stored in page.items)
        return Page(tuple(r for r in found if person is None or _can_answer(r, person)), page.after)

    async def get(self, request_id: str) -> ReviewRecord:
        """Return a request, open or closed, with everything that has become of it.

        Args:
            request_id: The request.

        Raises:
            UnknownRequest: There is none with that id.
        """
        return (await self._submitter.stored(request_id)).record

    async def answer(
        self,
        request_id: str,
        decision: Decision,
        *,
        by: Reviewer | str,
        role: str | None = None,
        channel: str = "api",
        digest: str | None = None,
    ) -> Receipt:
        """Take an answer. From here on it cannot be lost; `advance` tells the run.

        Args:
            request_id: The request.
            decision: What was decided.
            by: Who decided; the authorizer has the last word about their roles.
            role: In which role, where it matters.
            channel: Where it was said.
            digest: Digest of what the person saw; the answer counts for nothing else. None: the
                caller vouches that it is what is stored.

        Returns:
            The receipt. The same answer again gives an equal one and changes nothing.

        Raises:
            UnknownRequest: There is none with that id.
            AlreadyAnswered: It is decided, or this person has voted otherwise.
            NotAllowed: They may not answer it, or not give the standing approval with it.
            InvalidAnswer: The decision does not fit the request.
            StaleRequest: It was about something else than what the request shows.
            RequestExpired: It came too late.
        """
        submission = Submission(request_id=request_id, decision=decision, digest=digest, role=role)
        return await self._answer(submission, by, channel)

    async def answer_many(
        self, submissions: Iterable[Submission], *, by: Reviewer | str, channel: str = "api"
    ) -> tuple[Receipt | AnswerRefused, ...]:
        """Take several answers of one person, each by itself: one that is refused stops no other.

        Give each its `digest`, so that it counts for what the person saw only.

        Args:
            submissions: The answers, in order.
            by: Who decided; the authorizer has the last word about their roles.
            channel: Where it was said.

        Returns:
            For each, in order, its receipt, or the error that says why it was refused.
        """
        outcomes: list[Receipt | AnswerRefused] = []
        for submission in submissions:
            try:
                outcomes.append(await self._answer(submission, by, channel))
            except AnswerRefused as error:
                outcomes.append(error)
        return tuple(outcomes)

    async def _answer(self, submission: Submission, by: Reviewer | str, channel: str) -> Receipt:
        stored = await self._submitter.stored(submission.request_id)
        at = self.clock()
        try:
            person = await self._vouched(by, Action.ANSWER, stored.run_id, stored.record.request)
            if isinstance(submission.decision, Approve) and submission.decision.grant is not None:
                await self._vouched(person, Action.GRANT, stored.run_id, stored.record.request)
            await self._check_with_code(stored, submission.decision)
        except AnswerRefused as error:
            name = by if isinstance(by, str) else by.id
            await self._submitter.refused(stored, error, by=name, channel=channel, at=at)
            raise
        return await self._submitter.answer(stored, submission, by=person, channel=channel, at=at)

    async def _check_with_code(self, stored: StoredRequest, decision: Decision) -> None:
        """Refuse what the code that has asked would refuse, if this runner was given it."""
        if not isinstance(decision, Edit | Respond):
            return
        run = await self.store.run(stored.run_id)  # several agents have the same name for requests
        advancer = None if run is None else self._advancers.get(run.workflow)
        if advancer is not None:
            advancer.check(stored.record.request, decision)

    async def withdraw(self, request_id: str, *, by: Reviewer | str, reason: str = "") -> None:
        """Close a request without a decision; the run goes on as after a rejection.

        Args:
            request_id: The request.
            by: Who takes it back.
            reason: Why, for people.

        Raises:
            UnknownRequest: There is none with that id.
            InvalidTransition: It is closed.
            QuestionError: It was asked inside a step, which cannot go on without an answer.
            NotAllowed: The authorizer does not let this person.
        """
        stored = await self._submitter.stored(request_id)
        person = await self._vouched(by, Action.WITHDRAW, stored.run_id, stored.record.request)
        await self._submitter.withdraw(request_id, by=person, at=self.clock(), reason=reason)

    async def claim(
        self, request_id: str, *, by: Reviewer | str, lease: timedelta = DEFAULT_CLAIM
    ) -> Claim:
        """Say that somebody looks at an open request, so that others look at something else.

        It binds nobody: whoever may answer still may, and the first valid answer wins. It ends by
        itself, with the request, or when this person answers.

        Args:
            request_id: The request.
            by: Who looks at it. Again by the same person: their claim is renewed.
            lease: How long it counts, from now.

        Returns:
            The claim, with the instant at which it ends.

        Raises:
            UnknownRequest: There is none with that id.
            AlreadyClaimed: Somebody else is looking at it.
            NotAllowed: They may not answer it, or have, or the authorizer does not let them.
            InvalidTransition: It is closed.
            ValueError: `lease` is not longer than nothing.
        """
        return await self._claims.claim(request_id, by=by, lease=lease)

    async def release(self, request_id: str, *, by: Reviewer | str) -> None:
        """Say that somebody looks at a request no more; nothing happens if they do not.

        Args:
            request_id: The request.
            by: Who looked at it.

        Raises:
            UnknownRequest: There is none with that id.
            AlreadyClaimed: Somebody else is looking at it, and theirs it is to release.
            NotAllowed: The authorizer does not let this person.
        """
        await self._claims.release(request_id, by=by)

    # ----------------------------------------------------------------- effects

    async def effects_in_doubt(self) -> Sequence[Effect]:
        """Return effects that were begun and not finished: under way, or in doubt."""
        return await self.store.effects(status="begun")

    async def settle(
        self, key: str, *, by: Reviewer | str, happened: bool, result: Any = None
    ) -> None:
        """Say whether an effect that is in doubt has happened; then `retry` the run.

        Args:
            key: Key of the effect.
            by: Who has found out.
            happened: Whether it has. If it has not, it is done when the run comes to it again.
            result: What it gave, if it has happened.

        Raises:
            UnknownEffect: There is no effect in doubt with that key.
            NotAllowed: The authorizer does not let this person.
        """
        found = await self.store.effect(key)
        if found is None or found.status != "begun":
            raise UnknownEffect(key)
        run = await self._run(found.run_id)
        person = await self._vouched(by, Action.SETTLE, found.run_id)
        now = self.clock()
        settled = replace(found, status="done" if happened else "undone", at=now)
        if happened:
            settled = replace(settled, result=self._advancer(run.workflow).dump_result(result))
        entry = _entries.effect_event(
            AuditKind.EFFECT_SETTLED,
            found.run_id,
            key,
            now,
            actor=person.id,
            reason="it has happened" if happened else "it has not happened",
        )
        await self._outbox.commit(Commit(effects=(settled,), audit=(entry,)))

    # ----------------------------------------------------------------- upkeep

    async def sweep(self, now: datetime | None = None) -> tuple[Due, ...]:
        """Do what is due: remind, widen, escalate, decide by default, expire. Each once.

        Safe at any time, from anywhere, however late; several at once share the work. The runs are
        told by `advance`, or `recover`.

        Args:
            now: The present instant; by default the clock's.

        Returns:
            What was done.
        """
        now = now or self.clock()
        done: list[Due] = []
        while batch := await self.store.due(now, limit=_BATCH):
            before = len(done)
            for stored in batch:
                rungs = await self._submitter.pass_time(stored, now)
                done.extend(Due(stored.run_id, stored.request_id, rung) for rung in rungs)
            if len(done) == before:
                break  # somebody else is doing it
        return tuple(done)

    async def recover(self) -> tuple[Run, ...]:
        """Advance every run that can be: that has something to be told, or whose process has died.

        Runs of other workflows than this runner's, runs that somebody else is at work on, and runs
        that do not fit the code are left as they are; `check` lists the latter.

        Returns:
            The runs that were advanced, as they are stored then.
        """
        advanced: dict[str, Run] = {}
        left: set[str] = set()
        limit = _BATCH
        while True:
            ready = await self.store.ready(self.clock(), limit=limit)
            todo = [run_id for run_id in ready if run_id not in left]
            if not todo:
                if len(ready) < limit:
                    return tuple(advanced.values())
                limit += _BATCH  # what is left as it is must not hide what comes behind it
                continue
            for run_id in todo:
                left.add(run_id)
                try:
                    run, was_advanced = await self._go_on(run_id)
                except HitlError as error:
                    _LOGGER.info("Run %s was left as it is: %s", run_id, error)
                except Exception as error:  # noqa: BLE001
                    # One run that cannot be advanced must not keep the others from it.
                    _LOGGER.error(  # noqa: TRY400 - the traceback would say too much
                        "Run %s could not be advanced: %s", run_id, origin_of(error)
                    )
                else:
                    if was_advanced:
                        advanced[run_id] = run

    async def notify(self) -> int:
        """Tell the notifiers what has not been told; returns how many notices were told.

        A notifier that fails is tried again, later and later; nothing is dropped.
        """
        told = 0
        while count := await deliver(self.store, self._notifiers, clock=self.clock):
            told += count
        return told

    async def work(self, *, every: timedelta = timedelta(seconds=1)) -> None:
        """Sweep, recover and notify, again and again, until cancelled.

        Args:
            every: How long to rest between two rounds.
        """
        while True:
            await self.sweep()
            await self.recover()
            await self.notify()
            await asyncio.sleep(every.total_seconds())

    async def check(self, run_id: str | None = None) -> tuple[Check, ...]:
        """Say of every run that is not over whether it would go on with this code.

        Args:
            run_id: Look at this run only, however it stands.

        Raises:
            UnknownRun: There is no such run.
        """
        if run_id is not None:
            return (await self._check(await self._run(run_id)),)
        checks: list[Check] = []
        for status in (RunStatus.WAITING, RunStatus.FAILED, RunStatus.RUNNING):
            after: str | None = None
            while True:
                page = await self.runs(status=status, limit=_BATCH, after=after)
                checks.extend([await self._check(run) for run in page.items])
                if (after := page.after) is None:
                    break
        return tuple(checks)

    async def _check(self, run: Run) -> Check:
        whole = await self._run(run.run_id, whole=True)
        if whole.snapshot is None:
            return Check(run, "resumes")
        try:
            migrated = self._advancer(run.workflow).would_migrate(whole)
        except IncompatibleSnapshot as error:
            return Check(run, "needs_migration", error.differences)
        except HitlError as error:
            return Check(run, "breaks", (str(error),))
        return Check(run, "migrates" if migrated else "resumes")

    # ----------------------------------------------------------------- helpers

    def _advancer(self, workflow: str) -> Advancer:
        try:
            return self._advancers[workflow]
        except KeyError:
            raise UnknownWorkflow(workflow, self._advancers) from None

    async def _run(self, run_id: str, *, whole: bool = False) -> Run:
        run = await self.store.run(run_id, whole=whole)
        if run is None:
            raise UnknownRun(run_id)
        return run

    async def _all_open(self, run_id: str) -> list[StoredRequest]:
        found: list[StoredRequest] = []
        after: str | None = None
        while True:
            page = await self.store.requests(RequestQuery(run_id=run_id, limit=_BATCH, after=after))
            found.extend(page.items)
            if (after := page.after) is None:
                return found

    async def _vouched(
        self,
        by: Reviewer | str,
        action: Action,
        run_id: str,
        request: ReviewRequest | None = None,
    ) -> Reviewer:
        person = Reviewer(id=by) if isinstance(by, str) else by
        return await self._authorizer.authorize(person, action, run_id=run_id, request=request)


def _refuse_confused(store: object, workflows: Mapping[str, object]) -> None:
    """Refuse a URL for a store, and the class of a workflow: they would fail far from here."""
    if isinstance(store, str):
        raise TypeError(f"A Runner needs a store, such as SqlStore({store!r}), not its URL.")
    for name, workflow in workflows.items():
        if not isinstance(workflow, Workflow):
            raise TypeError(
                f"A Runner needs workflows, such as MyFlow(timeout=None); {name!r} is {workflow!r}."
            )


def _can_answer(record: ReviewRecord, person: Reviewer) -> bool:
    voted = any(answer.by.id == person.id for answer in record.answers)
    return not voted and why_not_allowed(record.policy, person) is None


def _lease_is_over(run: Run, now: datetime) -> bool:
    return run.lease_until is None or run.lease_until <= now
