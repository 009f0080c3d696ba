"""One run, taken from one pause to the next: claimed, restored, told, and stored again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from workflows import Workflow
from workflows.handler import WorkflowHandler

from llama_index_hitl import _entries
from llama_index_hitl._codec import serializer_for
from llama_index_hitl._drive import Halt, drive
from llama_index_hitl._grantbook import StoredGrants
from llama_index_hitl._lease import Lease, without_bytes
from llama_index_hitl._models_of_code import check_with_models
from llama_index_hitl._outbox import Outbox, persistently
from llama_index_hitl._parking import Parking, load_parked
from llama_index_hitl._upstream import is_live
from llama_index_hitl._watches import Watches
from llama_index_hitl.audit import AuditKind
from llama_index_hitl.clock import Clock, using_clock
from llama_index_hitl.effects import EffectLedger
from llama_index_hitl.errors import RunBusy
from llama_index_hitl.events import (
    ReviewDeadlineEvent,
    ReviewRefusedEvent,
    ReviewResponseEvent,
    ReviewWithdrawEvent,
    Told,
)
from llama_index_hitl.migrations import Migration, using_migrations
from llama_index_hitl.models import Answer, Decision, Reviewer, ReviewRequest
from llama_index_hitl.snapshots import PausedRun, fit, restore
from llama_index_hitl.stores.protocol import Commit, Message, Run, Store


class Advancer:
    """Takes runs of one workflow further.

    Args:
        store: Where the runs are.
        outbox: Through which their changes are stored.
        name: What the runner calls the workflow.
        workflow: The workflow.
        owner: Who does it.
        lease: How long a claim lasts without being renewed.
        clock: Where the time comes from.
        migrations: What makes runs that were paused by older code fit.
        types: Classes of values in runs that the workflow's own code does not name.
        watches: Are shown the events of the runs.
    """

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        name: str,
        workflow: Workflow,
        *,
        owner: str,
        lease: timedelta,
        clock: Clock,
        migrations: Sequence[Migration] = (),
        types: Sequence[type] = (),
        watches: Watches | None = None,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._name = name
        self._workflow = workflow
        self._owner = owner
        self._length = lease
        self._clock = clock
        self._migrations = migrations
        self._types = types
        self._watches = watches
        self._serializer = serializer_for(workflow, types)

    def dump_start(self, inputs: dict[str, Any]) -> bytes:
        """Return what a run is started with, written.

        Raises:
            UnserializableState: It cannot be stored.
        """
        return self._serializer.serialize(inputs).encode()

    def dump_result(self, result: Any) -> bytes:
        """Return what a run, or an effect, came to, written.

        Raises:
            UnserializableState: It cannot be stored.
        """
        return self._serializer.serialize(result).encode()

    def would_migrate(self, run: Run) -> bool:
        """Tell whether a run goes on only because a migration makes it fit.

        Raises:
            IncompatibleSnapshot: It does not go on.
            SnapshotError: It cannot be read.
        """
        paused, _ = load_parked(run.snapshot or b"")
        return self._fit(paused) is not paused

    def load_result(self, stored: bytes) -> Any:
        """Return what a run came to."""
        return self._serializer.deserialize(stored.decode())

    def check(self, request: ReviewRequest, decision: Decision) -> None:
        """Refuse what the workflow's own models refuse, if this workflow has asked.

        Raises:
            InvalidAnswer: They refuse it.
        """
        if request.workflow == self._workflow.workflow_name:
            check_with_models(self._workflow, request, decision)

    def _fit(self, paused: PausedRun) -> PausedRun:
        return fit(self._workflow, paused, self._migrations, name=self._name, types=self._types)

    async def begin(self, run: Run) -> Run:
        """Store a new run and take it to its first pause."""
        now = self._clock()
        run = replace(run, lease_owner=self._owner, lease_until=now + self._length, attempts=1)
        started = _entries.run_event(AuditKind.STARTED, run.run_id, now, actor=run.started_by)
        # Whoever starts it learns of it only when it has come to its first pause.
        await self._outbox.commit(Commit(run=run, audit=(started,), durable=False))
        lease = Lease(
            self._outbox, replace(run, revision=1), length=self._length, clock=self._clock
        )
        return await self._go(lease, run, None, [], [])

    async def enqueue(self, run: Run) -> Run:
        """Store a new run that nobody is at work on, for whoever advances it first to begin."""
        started = _entries.run_event(
            AuditKind.STARTED, run.run_id, run.created_at, actor=run.started_by
        )
        await self._outbox.commit(Commit(run=run, audit=(started,)))
        return without_bytes(replace(run, revision=1))

    async def advance(self, run: Run, messages: Sequence[Message]) -> Run:
        """Claim a run, tell it what it has yet to be told, and take it to its next pause.

        Args:
            run: The run, whole.
            messages: What to tell it.

        Raises:
            RunBusy: Somebody else holds it, or was first.
            IncompatibleSnapshot: It does not fit the code; nothing is claimed or consumed.
            LeaseLost: Somebody else has taken it over; nothing of this is stored.
        """
        if is_live(self._workflow, run.run_id):
            # Its lease has ended, but it is still under way, in this very process.
            raise RunBusy(run.run_id, owner=self._owner, until=run.lease_until)
        stored, open_ids = (None, []) if run.snapshot is None else load_parked(run.snapshot)
        paused = None if stored is None else self._fit(stored)
        lease = await Lease.claim(
            self._outbox, run, owner=self._owner, length=self._length, clock=self._clock
        )
        return await self._go(lease, run, paused, open_ids, messages, migrated=paused is not stored)

    async def _go(
        self,
        lease: Lease,
        run: Run,
        paused: PausedRun | None,
        open_ids: Sequence[str],
        messages: Sequence[Message],
        *,
        migrated: bool = False,
    ) -> Run:
        try:
            with lease.kept():
                halt = await self._driven(lease, run, paused, messages)
                parking = Parking(
                    self._store,
                    self._outbox,
                    lease,
                    halt,
                    set(open_ids),
                    messages,
                    self._clock(),
                    migrated=migrated,
                )
                await persistently(parking.attempt)
        except asyncio.CancelledError:
            await lease.give_back()
            raise
        return without_bytes(lease.run)

    async def _driven(
        self, lease: Lease, run: Run, paused: PausedRun | None, messages: Sequence[Message]
    ) -> Halt:
        effects = EffectLedger(
            self._store,
            run.run_id,
            owner=f"{self._owner}#{lease.run.revision}",
            serializer=self._serializer,
            clock=self._clock,
        )
        grants = StoredGrants(
            self._store,
            self._outbox,
            run.run_id,
            workflow=self._name,
            owner=f"{self._owner}#{lease.run.revision}",
            clock=self._clock,
        )
        refused: list[ReviewRefusedEvent] = []
        try:
            with (
                effects.active(),
                grants.active(),
                using_clock(self._clock),
                using_migrations(self._migrations),
            ):
                handler = self._handler(run, paused, messages, refused)
        except Exception as error:  # noqa: BLE001 - such as a start event that lacks a field
            return Halt(error=error)
        halt = await drive(
            handler, self._serializer, clock=self._clock, types=self._types, watches=self._watches
        )
        halt.events.extend(refused)
        return halt

    def _handler(
        self,
        run: Run,
        paused: PausedRun | None,
        messages: Sequence[Message],
        refused: list[ReviewRefusedEvent],
    ) -> WorkflowHandler:
        if paused is None:
            inputs = self._serializer.deserialize((run.start or b"{}").decode())
            return self._workflow.run(run_id=run.run_id, **inputs)
        told = [_told_by(message) for message in messages]
        return restore(self._workflow, paused, told, types=self._types, refused=refused)


def _told_by(message: Message) -> Told:
    """Return the event that tells a run what a message says."""
    payload = message.payload
    if message.kind == "answer":
        return ReviewResponseEvent(answer=Answer.model_validate(payload))
    at = datetime.fromisoformat(str(payload["at"]))
    if message.kind == "deadline":
        return ReviewDeadlineEvent(request_id=message.request_id, at=at)
    return ReviewWithdrawEvent(
        request_id=message.request_id,
        by=Reviewer.model_validate(payload["by"]),
        at=at,
        reason=str(payload["reason"]),
    )
