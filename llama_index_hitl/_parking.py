"""Where a run has come to, and everything that follows for its requests, in one commit."""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from llama_index_hitl import _entries
from llama_index_hitl._drive import Halt
from llama_index_hitl._lease import Lease, without_bytes
from llama_index_hitl._outbox import Outbox
from llama_index_hitl.audit import AuditEntry, AuditKind
from llama_index_hitl.errors import (
    AnswerRefused,
    Conflict,
    InvalidTransition,
    LeaseLost,
    SnapshotError,
    StaleRequest,
)
from llama_index_hitl.events import ReviewRefusedEvent, ReviewUpdatedEvent
from llama_index_hitl.grants import revoked
from llama_index_hitl.lifecycle import (
    Command,
    close,
    next_due,
    open_record,
    pass_time,
    take_answer,
)
from llama_index_hitl.models import (
    INLINE_GATE,
    RULE_PREFIX,
    UNCHECKED,
    Answer,
    Approve,
    JsonObject,
    RequestStatus,
    ReviewRecord,
)
from llama_index_hitl.snapshots import PausedRun
from llama_index_hitl.stores.protocol import (
    Commit,
    GrantQuery,
    Message,
    Notice,
    NoticeKind,
    Run,
    RunStatus,
    Store,
    StoredGrant,
    StoredRequest,
)

_TRACEBACK_LIMIT = 10_000
"""Characters of a failed run's traceback that are kept."""

_REFUSED = "the workflow refused the approval that it came with"


def dump_parked(paused: PausedRun, open_ids: Sequence[str]) -> bytes:
    """Return a paused run as a store keeps it: a digest, the ids of what it waits for, the run."""
    content = json.dumps(list(open_ids)).encode() + b"\n" + paused.model_dump_json().encode()
    return hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def load_parked(stored: bytes) -> tuple[PausedRun, list[str]]:
    """Return a paused run that a store has kept, and the ids of what it waits for.

    Raises:
        SnapshotError: It is damaged, was changed, or is of an unknown format.
    """
    digest, _, content = stored.partition(b"\n")
    if digest != hashlib.sha256(content).hexdigest().encode():
        raise SnapshotError("The stored run was changed or damaged after it was written.")
    ids, _, paused = content.partition(b"\n")
    return PausedRun.model_validate(json.loads(paused), context=UNCHECKED), json.loads(ids)


class Parking:
    """Stores where a run has come to, with everything that follows for its requests.

    Args:
        store: Where the run is.
        outbox: Through which it is stored.
        lease: The claim that is ended by it.
        halt: Where the run has come to.
        before: Ids of the requests that were open when the run was last stored.
        messages: What the run was told.
        now: The present instant.
        migrated: Whether the run was made to fit new code, so that its requests may show more.
    """

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        lease: Lease,
        halt: Halt,
        before: set[str],
        messages: Sequence[Message],
        now: datetime,
        *,
        migrated: bool = False,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._lease = lease
        self._halt = halt
        self._before = before
        self._messages = messages
        self._now = now
        self._migrated = migrated
        self._run_id = lease.run.run_id
        self._told = {message.request_id for message in messages}

    async def attempt(self) -> None:
        """Store it.

        Raises:
            Conflict: A request was changed in between; read it again and try anew.
            LeaseLost: Somebody else has taken the run over.
        """
        if self._halt.error is not None:
            commit, run = await self._failed(self._halt.error)
        else:
            commit, run = await self._went_well()
        try:
            await self._lease.end(commit, run)
        except Conflict:
            if not await self._lease.still_held(self._store):
                raise LeaseLost(self._run_id) from None
            raise

    async def _failed(self, error: Exception) -> tuple[Commit, Run]:
        """Fail the run where it was last stored; the messages stay, so that it can be retried.

        What rules have let tools do meanwhile has happened, so that they did is stored.
        """
        changes = _Changes()
        for request_id, record in self._closed_by_run().items():
            by_rules = all(answer.by.kind == "rule" for answer in record.answers)
            if record.request.gate == INLINE_GATE and by_rules:
                await self._close(changes, request_id, record)
        message = str(error) or type(error).__name__
        details: JsonObject = {
            "type": type(error).__name__,
            "message": message[:_TRACEBACK_LIMIT],
            "traceback": "".join(traceback.format_exception(error))[-_TRACEBACK_LIMIT:],
        }
        run = replace(without_bytes(self._lease.run), status=RunStatus.FAILED, error=details)
        reason = f"{type(error).__name__}: {message}"[:_TRACEBACK_LIMIT]
        changes.audit.append(
            _entries.run_event(AuditKind.FAILED, self._run_id, self._now, reason=reason)
        )
        changes.notices.extend(self._notice(NoticeKind.FAILED))
        return changes.commit(), run

    async def _went_well(self) -> tuple[Commit, Run]:
        changes = _Changes()
        still_open = self._open_now()
        closed = self._closed_by_run()
        for request_id, record in closed.items():
            await self._close(changes, request_id, record)
        for request_id, record in still_open.items():
            if request_id not in self._before and request_id not in self._told:
                self._open(changes, record)
        await self._refusals(changes, still_open, closed)
        if self._migrated:
            await self._show_as_migrated(changes, still_open)
        changes.applied.extend(message.message_id for message in self._messages)
        left = (self._before | self._told) - closed.keys() - still_open.keys()
        if self._halt.paused is not None:
            # Such as a wait that the run has woken itself.
            reason = "The run no longer waits for it."
            await self._close_what_is_left(changes, left, reason)
            await self._drop_messages(changes, left, "the run no longer waits for it")
            run = self._parked(self._halt.paused, list(still_open))
        else:
            await self._close_what_is_left(changes, left, "The run ended without it.")
            await self._drop_messages(changes, None, "the run has ended")
            run = replace(
                without_bytes(self._lease.run),
                status=RunStatus.FINISHED,
                result=self._halt.result,
                attempts=0,
                error=None,
            )
            changes.audit.append(_entries.run_event(AuditKind.FINISHED, self._run_id, self._now))
            changes.notices.extend(self._notice(NoticeKind.FINISHED))
        return changes.commit(), run

    def _open_now(self) -> dict[str, ReviewRecord]:
        return {request.request_id: request.record for request in self._halt.requests}

    def _closed_by_run(self) -> dict[str, ReviewRecord]:
        """Return the requests that the run says it has closed, each as it was closed."""
        updates = (e.record for e in self._halt.events if isinstance(e, ReviewUpdatedEvent))
        return {
            record.request.request_id: record
            for record in updates
            if record.status is not RequestStatus.OPEN
        }

    def _parked(self, paused: PausedRun, open_ids: Sequence[str]) -> Run:
        return replace(
            without_bytes(self._lease.run),
            status=RunStatus.WAITING,
            snapshot=dump_parked(paused, open_ids),
            fingerprint=paused.fingerprint.digest,
            version=paused.workflow_version,
            attempts=0,
            error=None,
        )

    def _open(self, changes: _Changes, record: ReviewRecord) -> None:
        changes.write(StoredRequest(run_id=self._run_id, record=record, next_due=next_due(record)))
        changes.audit.append(_entries.opened(self._run_id, record))
        changes.notices.extend(
            self._outbox.about(NoticeKind.OPENED, self._run_id, record, self._now)
        )

    async def _close(self, changes: _Changes, request_id: str, record: ReviewRecord) -> None:
        """Write down a request that the run has closed, unless it stands so already."""
        if request_id in self._told and record.superseded_by is None:
            return  # closed by what was submitted, which is stored
        known = request_id in self._before or request_id in self._told
        stored = None
        if known or record.request.gate == INLINE_GATE:
            stored = await self._store.request(request_id)
        if stored is not None and not known:
            # The step has failed, or was cut off, and comes to what was decided once more.
            return
        if stored is None:
            self._closed_at_once(changes, record)
            return
        # Somebody may have answered while the run was closing it. The run has the last word here:
        # what they answered about is no more.
        await self._drop_messages(
            changes, {request_id}, f"the run has {record.status} it meanwhile"
        )
        changes.write(replace(stored, record=record, next_due=None))
        if request_id not in self._told:
            new = record.answers[len(stored.record.answers) :]
            changes.audit.extend(_entries.answered(self._run_id, record, a) for a in new)
        if record.status is RequestStatus.SUPERSEDED:
            changes.audit.append(
                _entries.closed(
                    self._run_id,
                    record,
                    AuditKind.SUPERSEDED,
                    self._now,
                    record.outcome.reason,
                )
            )
            changes.notices.extend(
                self._outbox.about(NoticeKind.SUPERSEDED, self._run_id, record, self._now)
            )

    def _closed_at_once(self, changes: _Changes, record: ReviewRecord) -> None:
        """Write down a request that was never open outside.

        A rule decided it, nobody was left who could, or a newer draft came at once.
        """
        changes.write(StoredRequest(run_id=self._run_id, record=record))
        if record.answers:
            changes.audit.append(_entries.rule_decided(self._run_id, record))
            return
        superseded = record.status is RequestStatus.SUPERSEDED
        kind = AuditKind.SUPERSEDED if superseded else AuditKind.RULE_DECIDED
        changes.audit.append(
            _entries.closed(self._run_id, record, kind, record.closed_at or self._now)
        )

    async def _drop_messages(
        self, changes: _Changes, request_ids: Collection[str] | None, why: str
    ) -> None:
        """Take out what has come since the run was told, for it cannot be told any more.

        Args:
            changes: Where to write it down.
            request_ids: Only what is about these; None: everything.
            why: Why, as the end of a sentence.
        """
        known = {message.message_id for message in self._messages}
        for message in await self._store.messages(self._run_id):
            if message.message_id in known:
                continue
            if request_ids is not None and message.request_id not in request_ids:
                continue
            changes.applied.append(message.message_id)
            if _gives_a_grant(message):
                await self._revoke_grants(changes, message.request_id, why)
            by = message.payload.get("by")
            changes.audit.append(
                _entries.refused(
                    self._run_id,
                    message.request_id,
                    StaleRequest(message.request_id, reason=why),
                    at=self._now,
                    actor=str(by.get("id")) if isinstance(by, dict) else None,
                )
            )

    async def _show_as_migrated(
        self, changes: _Changes, still_open: dict[str, ReviewRecord]
    ) -> None:
        """Let people see what the run asks now, so that they do not answer what it asked before."""
        for request_id, record in still_open.items():
            stored = await self._store.request(request_id)
            if stored is not None and stored.record.request.digest != record.request.digest:
                await self._reopen(changes, record)

    async def _refusals(
        self,
        changes: _Changes,
        still_open: dict[str, ReviewRecord],
        closed: dict[str, ReviewRecord],
    ) -> None:
        """Open again what was submitted and then refused by the workflow's own code."""
        approved = {key for key, r in closed.items() if r.status is RequestStatus.APPROVED}
        refused = set()
        for event in self._halt.events:
            if not isinstance(event, ReviewRefusedEvent) or event.request_id not in self._told:
                continue
            refused.add(event.request_id)
            changes.audit.append(
                _entries.refused(
                    self._run_id,
                    event.request_id,
                    AnswerRefused(event.reason, request_id=event.request_id),
                    at=self._now,
                    actor=event.by,
                )
            )
        for request_id in sorted(refused & still_open.keys()):
            await self._reopen(changes, still_open[request_id])
        granted = {m.request_id for m in self._messages if _gives_a_grant(m)}
        for request_id in sorted((refused & granted) - still_open.keys() - approved):
            await self._revoke_grants(changes, request_id, _REFUSED)

    async def _reopen(self, changes: _Changes, record: ReviewRecord) -> None:
        """Write a request as the run has it, with what has come for it since the run was told."""
        request_id = record.request.request_id
        stored = await self._store.request(request_id)
        if stored is None:
            return
        before = stored.record
        record = await self._with_what_came_since(_in_time(record, before.rungs_passed))
        changes.write(replace(stored, record=record, next_due=next_due(record)))
        if record.status is not RequestStatus.APPROVED and before.request.grantable is not None:
            await self._revoke_grants(changes, request_id, _REFUSED)
        if before.status is RequestStatus.OPEN or record.status is not RequestStatus.OPEN:
            return
        reason = "An answer was refused by the workflow."
        changes.audit.append(
            _entries.closed(self._run_id, record, AuditKind.REOPENED, self._now, reason)
        )
        changes.notices.extend(
            self._outbox.about(
                NoticeKind.OPENED, self._run_id, record, self._now, number=stored.revision
            )
        )

    async def _with_what_came_since(self, record: ReviewRecord) -> ReviewRecord:
        """Take what waits to be told about a request, as the run will when it is told."""
        known = {message.message_id for message in self._messages}
        for message in await self._store.messages(self._run_id):
            if message.request_id != record.request.request_id or message.message_id in known:
                continue
            with suppress(AnswerRefused, InvalidTransition):
                record = _taken(record, message)
        return record

    async def _revoke_grants(self, changes: _Changes, request_id: str, why: str) -> None:
        """Revoke what was given along with an approval that counts for nothing."""
        for stored in await self._store.grants(GrantQuery(request_id=request_id)):
            if stored.grant.revoked_at is not None:
                continue
            grant = revoked(stored.grant, by=f"{RULE_PREFIX}run", at=self._now, reason=why)
            changes.grants[grant.grant_id] = replace(stored, grant=grant)
            changes.audit.append(_entries.grant_revoked(grant, self._now))

    async def _close_what_is_left(
        self, changes: _Changes, request_ids: set[str], reason: str
    ) -> None:
        """Close what nobody will ever ask for again."""
        for request_id in sorted(request_ids):
            stored = await self._store.request(request_id)
            if stored is None or stored.record.status is not RequestStatus.OPEN:
                continue
            record = close(stored.record, Command.WITHDRAW, at=self._now, reason=reason)
            changes.write(replace(stored, record=record, next_due=None))
            changes.audit.append(
                _entries.closed(self._run_id, record, AuditKind.WITHDRAWN, self._now, reason)
            )
            changes.notices.extend(
                self._outbox.about(NoticeKind.CANCELLED, self._run_id, record, self._now)
            )

    def _notice(self, kind: NoticeKind) -> tuple[Notice, ...]:
        run = self._lease.run
        return self._outbox.of_run(kind, run.run_id, run.workflow, self._now, number=run.revision)


def _in_time(record: ReviewRecord, rungs_passed: int) -> ReviewRecord:
    """Return what the answers have made of a request, as far up its ladder as is on record.

    What the run itself has passed meanwhile nobody was told of: that is for a sweep to do.
    """
    again = open_record(record.request)
    for answer in record.answers:
        again = take_answer(again, answer)
    if again.rungs_passed < rungs_passed:
        again, _ = pass_time(again, record.request.rungs[rungs_passed - 1].at)
    return again


def _taken(record: ReviewRecord, message: Message) -> ReviewRecord:
    """Return what a message makes of a request."""
    if message.kind == "answer":
        return take_answer(record, Answer.model_validate(message.payload))
    at = datetime.fromisoformat(str(message.payload["at"]))
    if message.kind == "deadline":
        return pass_time(record, at)[0]
    return close(record, Command.WITHDRAW, at=at, reason=str(message.payload["reason"]))


def _gives_a_grant(message: Message) -> bool:
    if message.kind != "answer":
        return False
    decision = Answer.model_validate(message.payload).decision
    return isinstance(decision, Approve) and decision.grant is not None


@dataclass
class _Changes:
    """A commit in the making."""

    requests: dict[str, StoredRequest] = field(default_factory=dict)
    applied: list[str] = field(default_factory=list)
    grants: dict[str, StoredGrant] = field(default_factory=dict)
    audit: list[AuditEntry] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    def write(self, stored: StoredRequest) -> None:
        """Write a request; the last time counts."""
        self.requests[stored.request_id] = stored

    def commit(self) -> Commit:
        """Return it, made."""
        return Commit(
            requests=tuple(self.requests.values()),
            applied=tuple(self.applied),
            grants=tuple(self.grants.values()),
            audit=tuple(self.audit),
            notices=tuple(self.notices),
        )
