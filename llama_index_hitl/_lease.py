"""The right of one runner to take one run further."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from llama_index_hitl._outbox import Outbox
from llama_index_hitl.clock import Clock
from llama_index_hitl.errors import Conflict, LeaseLost, RunBusy, StoreError
from llama_index_hitl.stores.protocol import Commit, Run, RunStatus, Store

_LOGGER = logging.getLogger(__name__)


class Lease:
    """The right of one runner to take one run further, fenced by the run's revision.

    Args:
        outbox: Where to store it.
        run: The run, claimed.
        length: How long it lasts without being renewed.
        clock: Where the time comes from.
    """

    def __init__(self, outbox: Outbox, run: Run, *, length: timedelta, clock: Clock) -> None:
        self._outbox = outbox
        self._length = length
        self._clock = clock
        self._lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._renewing: asyncio.Future[None] | None = None
        self.run = run
        self.lost = False

    @classmethod
    async def claim(
        cls, outbox: Outbox, run: Run, *, owner: str, length: timedelta, clock: Clock
    ) -> Lease:
        """Claim a run.

        Raises:
            RunBusy: Somebody else holds it, or was first.
        """
        now = clock()
        if (
            run.status is RunStatus.RUNNING
            and run.lease_until is not None
            and now < run.lease_until
        ):
            raise RunBusy(run.run_id, owner=run.lease_owner, until=run.lease_until)
        claimed = replace(
            run,
            status=RunStatus.RUNNING,
            updated_at=now,
            lease_owner=owner,
            lease_until=now + length,
            attempts=run.attempts + 1,
        )
        try:
            # If power is lost, so is the process that holds it.
            await outbox.commit(Commit(run=without_bytes(claimed), durable=False))
        except Conflict:
            raise RunBusy(run.run_id, owner=None, until=None) from None
        return cls(outbox, replace(claimed, revision=run.revision + 1), length=length, clock=clock)

    async def renew(self) -> None:
        """Make the lease last longer.

        Raises:
            Conflict: Somebody else has taken the run over.
        """
        async with self._lock:
            now = self._clock()
            renewed = replace(self.run, lease_until=now + self._length, updated_at=now)
            await self._write(Commit(run=without_bytes(renewed), durable=False), renewed)

    async def end(self, commit: Commit, run: Run) -> None:
        """Store what has become of the run, and let it go.

        Raises:
            Conflict: Somebody else has taken the run over, or one of the requests has been changed
                in between; nothing is stored.
        """
        async with self._lock:
            ended = replace(
                run,
                revision=self.run.revision,
                lease_owner=None,
                lease_until=None,
                updated_at=self._clock(),
            )
            await self._write(replace(commit, run=ended), ended)

    async def give_back(self) -> None:
        """Let somebody else go on at once: this one was told to stop, it has not died."""
        attempts = max(self.run.attempts - 1, 0)
        with suppress(StoreError):
            await self.end(Commit(), replace(self.run, attempts=attempts))

    async def still_held(self, store: Store) -> bool:
        """Tell whether the run is as this lease has left it."""
        found = await store.run(self.run.run_id)
        return found is not None and found.revision == self.run.revision

    async def _write(self, commit: Commit, run: Run) -> None:
        await self._outbox.commit(commit)
        self.run = replace(run, revision=run.revision + 1)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renew the lease for as long as the block takes; cancel the block when it is lost.

        Raises:
            LeaseLost: Somebody else has taken the run over.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this is called from a coroutine
        self._renew_later(task)
        try:
            yield
        except asyncio.CancelledError:
            if not self.lost:
                raise
            task.uncancel()
            raise LeaseLost(self.run.run_id) from None
        finally:
            self._stop_renewing()

    def _renew_later(self, task: asyncio.Task[Any]) -> None:
        wait = self._length.total_seconds() / 3
        self._timer = asyncio.get_running_loop().call_later(wait, self._renew_now, task)

    def _renew_now(self, task: asyncio.Task[Any]) -> None:
        self._renewing = asyncio.ensure_future(self._renew_or_cancel(task))

    async def _renew_or_cancel(self, task: asyncio.Task[Any]) -> None:
        try:
            await self.renew()
        except Conflict:
            self.lost = True
            task.cancel()
        except StoreError:
            _LOGGER.warning("The lease of run %s could not be renewed.", self.run.run_id)
            self._renew_later(task)  # there is time left to try again
        else:
            self._renew_later(task)

    def _stop_renewing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._renewing is not None:
            self._renewing.cancel()


def without_bytes(run: Run) -> Run:
    """Leave what is large as it is stored."""
    return replace(run, start=None, snapshot=None, result=None)
