"""A store that fails, or takes its process down, at a commit: to test what that leaves behind.

    store = FaultyStore(SqlStore(url), at="park", when="after")       # raises Fault, once

A commit is named after what it stores; `point_of` says which name it has. The module `crashes`
kills whole processes at these points.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextvars import ContextVar
from enum import StrEnum
from typing import Any, Literal, NoReturn, TypeAlias

from llama_index_hitl.audit import AuditKind
from llama_index_hitl.stores.protocol import Commit, Run, RunStatus, Store

When: TypeAlias = Literal["before", "after"]
"""On which side of a commit it fails."""


class Point(StrEnum):
    """A commit, by what it stores.

    `start` a new run, begun or not; `claim` a lease on one, or that it lasts longer; `park`,
    `finish` and `fail` where a run has come to; `retry` that a failed one is tried again;
    `give_back` a lease of somebody who was told to stop; `cancel` the end of a run; `answer`,
    `withdraw` and `sweep` what happens to one request; `look` who is looking at one; `refuse` an
    answer that was not taken; `effect_begun` and `effect_done`, on both sides of an effect, the
    latter also where a standing approval is used; `settle` what somebody has found out about one;
    `notify` that somebody is about to be told something, `told` that they were; `progress` what a
    run has said; `audit` a row of the audit trail, and a standing approval that is given without a
    request, or revoked.
    """

    START = "start"
    CLAIM = "claim"
    PARK = "park"
    FINISH = "finish"
    FAIL = "fail"
    RETRY = "retry"
    GIVE_BACK = "give_back"
    CANCEL = "cancel"
    ANSWER = "answer"
    WITHDRAW = "withdraw"
    SWEEP = "sweep"
    LOOK = "look"
    REFUSE = "refuse"
    EFFECT_BEGUN = "effect_begun"
    EFFECT_DONE = "effect_done"
    SETTLE = "settle"
    NOTIFY = "notify"
    TOLD = "told"
    PROGRESS = "progress"
    AUDIT = "audit"


_POINT_OF_STATUS = {
    RunStatus.WAITING: Point.PARK,
    RunStatus.FINISHED: Point.FINISH,
    RunStatus.FAILED: Point.FAIL,
    RunStatus.CANCELLED: Point.CANCEL,
}
_POINT_OF_MESSAGE = {
    "answer": Point.ANSWER,
    "deadline": Point.SWEEP,
    "withdraw": Point.WITHDRAW,
}


def point_of(commit: Commit) -> Point:
    """Return the name of a commit.

    Args:
        commit: The commit.

    Example:
        >>> from llama_index_hitl.stores import Commit, Progress
        >>> said = Progress(run_id="run-1", at=utc_now(), data={})
        >>> point_of(Commit(progress=(said,))).value
        'progress'
    """
    said = {entry.kind for entry in commit.audit}
    if commit.run is not None:
        return _point_of_run(commit.run, said)
    if commit.messages:
        return _POINT_OF_MESSAGE[commit.messages[0].kind]
    if said & {AuditKind.CLAIMED, AuditKind.RELEASED}:
        return Point.LOOK
    if commit.requests:
        return Point.SWEEP  # a reminder: the request has moved, and its run is told nothing
    if commit.effects:
        if AuditKind.EFFECT_SETTLED in said:
            return Point.SETTLE
        begun = commit.effects[0].status == "begun"
        return Point.EFFECT_BEGUN if begun else Point.EFFECT_DONE
    if commit.told:
        return Point.TOLD
    if commit.notices:
        return Point.NOTIFY
    if commit.progress:
        return Point.PROGRESS
    return Point.REFUSE if AuditKind.REFUSED in said else Point.AUDIT


def _point_of_run(run: Run, said: set[AuditKind]) -> Point:
    if run.status is not RunStatus.RUNNING:
        return _POINT_OF_STATUS[run.status]
    if run.revision == 0:
        return Point.START
    if AuditKind.RETRIED in said:
        return Point.RETRY
    return Point.CLAIM if run.lease_owner is not None else Point.GIVE_BACK


class Fault(Exception):
    """What a `FaultyStore` raises: something that no code is prepared for.

    The example of `FaultyStore` catches one.
    """


class FaultyStore:
    """A store that fails at a point, and is all right otherwise.

    Args:
        store: The store behind it.
        at: The point; None: at every commit.
        when: `before` the commit, which then does not happen, or `after` it, which nobody learns.
        skip: How many times it goes well there first.
        times: How many times it fails then; 0: never.
        error: What it raises; by default a `Fault`.
        die: Kill the process instead of raising; nothing is cleaned up.
        watch: Is shown each point that is come to, before it fails there.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.runner import Runner
        >>> from llama_index_hitl.stores import MemoryStore
        >>> async def main():
        ...     store = MemoryStore()
        ...     for _ in range(2):
        ...         runner = Runner(FaultyStore(store, at="park"), {"draft": DraftApproval()})
        ...         try:
        ...             await runner.start("draft", run_id="r", topic="mice", content="Small.")
        ...         except Fault:
        ...             return (await store.run("r")).status.value, len(await runner.pending())
        >>> asyncio.run(main())
        ('running', 0)
    """

    def __init__(
        self,
        store: Store,
        *,
        at: Point | str | None = None,
        when: When = "before",
        skip: int = 0,
        times: int = 1,
        error: Exception | None = None,
        die: bool = False,
        watch: Callable[[Point], None] | None = None,
    ) -> None:
        self._store = store
        self._at = None if at is None else Point(at)
        self._when = when
        self._skip = skip
        self._left = times
        self._error = error
        self._die = die
        self._watch = watch

    async def commit(self, commit: Commit) -> None:
        """Store a change, or fail.

        Args:
            commit: The change.

        Raises:
            Fault: This is the point.
        """
        point = point_of(commit)
        if self._watch is not None:
            self._watch(point)
        fails = self._at in (None, point) and self._is_due()
        if fails and self._when == "before":
            self._fail(point)
        await self._store.commit(commit)
        if fails:
            self._fail(point)

    def _is_due(self) -> bool:
        if self._skip > 0:
            self._skip -= 1
            return False
        self._left -= 1
        return self._left >= 0

    def _fail(self, point: Point) -> NoReturn:
        if self._die:
            die()
        raise self._error or Fault(f"{self._when} {point}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def die() -> NoReturn:
    """End this process as a power cut would: nothing is cleaned up, nothing is caught."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process goes on")


# --------------------------------------------------------------------------- places in other code

REACHED: ContextVar[Callable[[str], None] | None] = ContextVar("reached", default=None)
"""Is told each place that is reached, by the process that wants to be killed at one."""


def reach(place: str) -> None:
    """Name a place in code of your own, such as the middle of an effect, to be killed there.

    Does nothing in a process that is not to be killed at it.

    Args:
        place: Name of the place.

    Example:
        >>> async def pay():
        ...     reach("about to pay")
    """
    if (reached := REACHED.get()) is not None:
        reached(place)
