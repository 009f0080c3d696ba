"""What a run has heard about its questions in this process, and which calls of steps went on.

Upstream calls a waiting step once for every event that matches, even while an earlier call is at
work. What waits inside a step must not act twice on that, and must lose nothing by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from workflows import Context
from workflows.events import CollectionReleaseEvent, Event

from llama_index_hitl._upstream import (
    Execution,
    events_for_waiters,
    events_received,
    execution_of_step,
    has_completed,
    may_be_repeated,
    state_of_run,
    work_item_of,
)
from llama_index_hitl.events import ReviewRelayEvent, ReviewResponseEvent, Told
from llama_index_hitl.models import Answer, ReviewRecord

_WITHIN: ContextVar[tuple[Execution, str] | None] = ContextVar(
    "llama_index_hitl_within", default=None
)


@contextmanager
def within(call: str) -> Iterator[None]:
    """Let what is asked in the block, or run as a child, be told apart from what is beside it.

    A step that repeats leaves out the effects that are done. What the others ask must not come to
    stand in their places then.

    Args:
        call: Names the effect, such as the call of a tool, over all repetitions of the step.
    """
    execution = execution_of_step()
    token = _WITHIN.set((execution, f"{in_place(execution)}{call}/"))
    try:
        yield
    finally:
        _WITHIN.reset(token)


def in_place(execution: Execution, key: str = "") -> str:
    """Return a key as it is in the effect that this code runs in, if it does in one."""
    found = _WITHIN.get()
    return f"{found[1]}{key}" if found is not None and found[0] is execution else key


async def stand_aside(ctx: Context[Any], place: str) -> None:
    """End a call of the step that a second copy of the answer began; never returns.

    Upstream calls a waiting step once for every matching event, even while the first call is at
    work. A step cannot end without a result, but it can wait for something that never comes; this
    event type is never sent, is known to every snapshot, and has no requirement to be asked for.
    """
    await ctx.wait_for_event(CollectionReleaseEvent, waiter_id=f"aside-{place}", timeout=None)


def ends_by_waiting(execution: Execution) -> bool:
    """Tell whether a call of a step has ended, or is about to end because something in it waits."""
    return execution.sends.closed or state_of_run(Heard).rests(execution)


@dataclass(frozen=True)
class Passed:
    """The call of a step that went on with an answer, and what that came to."""

    execution: Execution
    record: ReviewRecord


class Heard:
    """What one run in one process has heard, and which questions have been passed.

    After a restore there is nothing to know: a snapshot is taken when no step is at work, and by
    then the waiters of passed questions are gone, or their answers kept.
    """

    def __init__(self) -> None:
        self.passed: dict[str, Passed] = {}
        self._owners: dict[str, Execution | None] = {}
        self._counts: dict[int, tuple[Execution, dict[str, int]]] = {}
        self._told: dict[str, list[Told]] = {}
        self._heard: dict[str, list[Told]] = {}
        self._position = 0
        self._resting: list[Execution] = []

    # ----------------------------------------------------------------- answers

    def listen(self, ctx: Context[Any]) -> None:
        """Note what the run has been told since the last time."""
        events, self._position = events_received(ctx, self._position)
        for event in events:
            if isinstance(event, Told):
                self._told.setdefault(event.request_id, []).append(event)

    def hear(self, event: Event | None) -> None:
        """Note what came before this process did, or what the log does not show."""
        if isinstance(event, ReviewRelayEvent):
            for one in reversed(event.told):
                self.hear(one)
        if not isinstance(event, Told):
            return
        told = self._told.setdefault(event.request_id, [])
        if event not in told and event not in self._heard.get(event.request_id, ()):
            told.insert(0, event)

    def hear_all(self, execution: Execution) -> None:
        """Note everything that a call of a step was woken with."""
        for event in events_for_waiters(execution):
            self.hear(event)

    def unheard(self, request_id: str) -> Iterator[Answer]:
        """Yield the answers to a question that nobody has looked at, each one once."""
        while waiting := self.waiting(request_id)[:1]:
            self.note(request_id, waiting)
            if isinstance(waiting[0], ReviewResponseEvent):
                yield waiting[0].answer

    def waiting(self, request_id: str) -> list[Told]:
        """Return what was told about a question and nobody has looked at, in order."""
        return list(self._told.get(request_id, ()))

    def note(self, request_id: str, events: Sequence[Told]) -> None:
        """Note that somebody has looked at these."""
        left = [e for e in self._told[request_id] if not any(e is other for other in events)]
        self._told[request_id] = left
        self._heard.setdefault(request_id, []).extend(events)

    # ----------------------------------------------------------------- calls of a step

    def rest(self, execution: Execution) -> None:
        """Note that a call of a step is about to end, to be repeated when an answer comes."""
        at_work = (other for other in self._resting if not other.sends.closed)
        self._resting = [*at_work, execution]

    def rests(self, execution: Execution) -> bool:
        """Tell whether a call of a step is about to end, to be repeated."""
        return any(execution is other for other in self._resting)

    def place_of(self, execution: Execution, key: str) -> str:
        """Name what a call of a step does: by the work item, a key, and how many came before it.

        A step that waits does the same anew, in the same order, and it gets the same name.
        """
        self._counts = {
            number: entry for number, entry in self._counts.items() if not entry[0].sends.closed
        }
        _, counts = self._counts.setdefault(id(execution), (execution, {}))
        key = in_place(execution, key)
        counts[key] = counts.get(key, -1) + 1
        return f"{work_item_of(execution)}:{key}:{counts[key]}"

    def passed_elsewhere(self, place: str, execution: Execution, *, again: bool) -> bool:
        """Tell whether another call of the step has passed this question.

        Args:
            place: The question.
            execution: The call that asks.
            again: It began with an answer taken by an earlier call, so it may be that call's
                repetition: it goes on where that one has ended without completing the step.
        """
        other = self.passed.get(place)
        if other is None or other.execution is execution:
            return False
        repeated = may_be_repeated(other.execution) or self.rests(other.execution)
        return not (again and repeated)

    def stands_back(self, execution: Execution) -> bool:
        """Tell whether another call of the step runs children for what this one was called with."""
        return work_item_of(execution) in self._owners and not self.takes_over(execution)

    def takes_over(self, execution: Execution) -> bool:
        """Let one call of a step at a time work for what it was called with; tell if it is this.

        The one before has ended without completing the step, or is about to.
        """
        self._owners = {
            item: None if owner is None or has_completed(owner) else owner
            for item, owner in self._owners.items()
        }
        item = work_item_of(execution)
        owner = self._owners.setdefault(item, execution)
        if owner is execution:
            return True
        if owner is None or not (owner.sends.closed or self.rests(owner)):
            return False
        self._owners[item] = execution
        return True
