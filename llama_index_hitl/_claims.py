"""Who is looking at a request just now: said and taken back."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from llama_index_hitl import _entries
from llama_index_hitl._outbox import Outbox, persistently
from llama_index_hitl.audit import AuditEntry
from llama_index_hitl.authorizers import Action, Authorizer
from llama_index_hitl.clock import Clock
from llama_index_hitl.errors import AlreadyClaimed, InvalidTransition, NotAllowed, UnknownRequest
from llama_index_hitl.models import RequestStatus, Reviewer, ReviewRecord
from llama_index_hitl.policies import why_not_allowed
from llama_index_hitl.stores.protocol import Claim, Commit, Store, StoredRequest

DEFAULT_CLAIM = timedelta(minutes=15)


class ClaimDesk:
    """Takes claims into a store.

    Args:
        store: Where the requests are.
        outbox: Through which changes of them are stored.
        authorizer: Vouches for people.
        clock: Where the time comes from.
    """

    def __init__(
        self, store: Store, outbox: Outbox, *, authorizer: Authorizer, clock: Clock
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._authorizer = authorizer
        self._clock = clock

    async def claim(self, request_id: str, *, by: Reviewer | str, lease: timedelta) -> Claim:
        """Say that somebody looks at a request; see `Runner.claim`."""
        if lease <= timedelta(0):
            raise ValueError(f"a claim lasts longer than {lease}")
        person = await self._vouched(by, await self._stored(request_id))

        async def attempt() -> Claim:
            stored = await self._stored(request_id)
            now = self._clock()
            _refuse_who_cannot_answer(stored.record, person)
            _refuse_while_another_looks(stored, person, now)
            claim = Claim(by=person.id, until=now + lease)
            entry = _entries.claimed(
                stored.run_id, stored.record.request, person.id, now, claim.until
            )
            await self._write(stored, claim, entry)
            return claim

        return await persistently(attempt)

    async def release(self, request_id: str, *, by: Reviewer | str) -> None:
        """Say that somebody looks at a request no more; see `Runner.release`."""
        person = await self._vouched(by, await self._stored(request_id))

        async def attempt() -> None:
            stored = await self._stored(request_id)
            now = self._clock()
            _refuse_while_another_looks(stored, person, now)
            if stored.claim is not None and stored.claim.by == person.id:
                entry = _entries.released(stored.run_id, stored.record.request, person.id, now)
                await self._write(stored, None, entry)

        await persistently(attempt)

    async def _write(self, stored: StoredRequest, claim: Claim | None, entry: AuditEntry) -> None:
        # Nothing is decided by it: if power is lost, so may be that somebody looked.
        await self._outbox.commit(
            Commit(requests=(replace(stored, claim=claim),), audit=(entry,), durable=False)
        )

    async def _stored(self, request_id: str) -> StoredRequest:
        found = await self._store.request(request_id)
        if found is None:
            raise UnknownRequest(request_id)
        return found

    async def _vouched(self, by: Reviewer | str, stored: StoredRequest) -> Reviewer:
        person = Reviewer(id=by) if isinstance(by, str) else by
        return await self._authorizer.authorize(
            person, Action.CLAIM, run_id=stored.run_id, request=stored.record.request
        )


def _refuse_who_cannot_answer(record: ReviewRecord, person: Reviewer) -> None:
    if record.status is not RequestStatus.OPEN:
        raise InvalidTransition(record.status, "be claimed")
    reason = why_not_allowed(record.policy, person)
    if reason is None and any(answer.by.id == person.id for answer in record.answers):
        reason = "they have answered it"
    if reason is not None:
        raise NotAllowed(record.request_id, by=person.id, reason=reason)


def _refuse_while_another_looks(stored: StoredRequest, person: Reviewer, now: datetime) -> None:
    claim = stored.claim
    if claim is not None and claim.by != person.id and now < claim.until:
        raise AlreadyClaimed(stored.request_id, by=claim.by, until=claim.until)
