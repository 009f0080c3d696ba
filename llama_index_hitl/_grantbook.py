"""How a guarded tool finds the standing approvals that hold in its run."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from llama_index_hitl import _entries
from llama_index_hitl._outbox import Outbox, persistently
from llama_index_hitl.clock import Clock, utc_now
from llama_index_hitl.grants import Grant, GuardedCall, preference, spend, why_not_covered
from llama_index_hitl.models import digest_of
from llama_index_hitl.stores.protocol import Commit, Effect, GrantQuery, Store, StoredGrant

_KEY_PREFIX = "grant:"
"""What the key begins with under which the use of a grant is kept among the effects."""


class GrantBook(Protocol):
    """The standing approvals that hold in one run."""

    async def use(self, call: GuardedCall, *, key: str) -> Grant | None:
        """Let a call be covered by a grant, if one covers it, and count it.

        Args:
            call: The call.
            key: Tells this call from all others, over replays, crashes and restores: the same key
                is counted once, and gets the same grant again.

        Returns:
            The grant as it stands then; None: none covers the call.
        """
        ...


_BOOK: ContextVar[GrantBook | None] = ContextVar("llama_index_hitl_grants", default=None)


def present_book() -> GrantBook | None:
    """Return the book of the run that this code runs in; None: no runner drives it."""
    return _BOOK.get()


class StoredGrants:
    """The standing approvals in a store that hold in one run of a workflow: a `GrantBook`.

    That a grant is used is kept as an effect that is done, written together with the grant. So a
    call is counted once, whatever is killed in between, and of several that want what is left of a
    grant at the same time, in whatever processes, only as many get it as there is left.

    Args:
        store: Where they are.
        outbox: Through which their use is stored.
        run_id: The run.
        workflow: Its workflow, as the runner knows it.
        owner: Who is at work on the run.
        clock: Where the time comes from.
    """

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        run_id: str,
        *,
        workflow: str,
        owner: str,
        clock: Clock = utc_now,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._run_id = run_id
        self._workflow = workflow
        self._owner = owner
        self._clock = clock

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let `present_book` find this book in the steps of a run that is started in the block."""
        token = _BOOK.set(self)
        try:
            yield
        finally:
            _BOOK.reset(token)

    async def use(self, call: GuardedCall, *, key: str) -> Grant | None:
        """Let a call be covered by a grant, if one covers it, and count it; see `GrantBook.use`.

        A call that was counted under the key and has other arguments now is covered by nothing,
        and neither is one of another run under the same key.

        Raises:
            Conflict: Others were first, each time that it was tried.
        """
        try:
            digest = digest_of(call.model_dump(mode="json"))
        except (ValueError, RecursionError):
            return None  # nobody could tell it from others

        async def attempt() -> Grant | None:
            used = await self._store.effect(_KEY_PREFIX + key)
            if used is not None:
                return await self._used_before(used, digest)
            return await self._use(call, key, digest)

        return await persistently(attempt)

    async def _used_before(self, used: Effect, digest: str) -> Grant | None:
        told = None if used.result is None else json.loads(used.result)
        is_this = isinstance(told, dict) and told.get("call") == digest
        if told is None or not is_this or used.run_id != self._run_id:
            return None
        stored = await self._store.grant(told["grant"])
        return None if stored is None else stored.grant

    async def _use(self, call: GuardedCall, key: str, digest: str) -> Grant | None:
        now = self._clock()
        fitting = [
            stored
            async for stored in self._for(call, now)
            if why_not_covered(stored.grant, call, workflow=self._workflow, now=now) is None
        ]
        if not fitting:
            return None
        chosen = min(fitting, key=lambda stored: preference(stored.grant))
        grant = spend(chosen.grant, call)
        told = json.dumps({"grant": grant.grant_id, "call": digest})
        used = Effect(
            key=_KEY_PREFIX + key,
            run_id=self._run_id,
            status="done",
            owner=self._owner,
            at=now,
            result=told.encode(),
        )
        await self._outbox.commit(
            Commit(
                effects=(used,),
                grants=(replace(chosen, grant=grant),),
                audit=(_entries.grant_used(grant, self._run_id, key, now),),
            )
        )
        return grant

    async def _for(self, call: GuardedCall, now: datetime) -> AsyncIterator[StoredGrant]:
        """Yield the grants that may cover a call."""
        after: str | None = None
        while True:
            page = await self._store.grants(
                GrantQuery(
                    workflow=self._workflow,
                    agent=call.agent,
                    tool=call.tool,
                    active_at=now,
                    after=after,
                )
            )
            for stored in page:
                yield stored
            if (after := page.after) is None:
                return
