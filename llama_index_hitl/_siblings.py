"""Calls that one step makes at the same time: none is cut off when the step waits.

A step that waits ends with the first of its calls that waits, and is run again later. Another call
that is at work then, beside it in `asyncio.gather`, would go on with nobody to take its result, and
be made again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from llama_index_hitl._upstream import Execution, execution_of_step, state_of_run

_TURNS = 5
"""Of the event loop: enough for what `asyncio.gather` has made tasks of to begin."""

_OWN: ContextVar[tuple[Execution, tuple[object, ...]] | None] = ContextVar(
    "llama_index_hitl_calls", default=None
)
"""The calls that this code runs in, the outermost first."""


class _Calls:
    """The calls that one call of a step makes.

    Attributes:
        at_work: Those that are neither over nor resting.
        changed: Set whenever there is one less.
    """

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.at_work: set[object] = set()
        self.changed = asyncio.Event()

    def less(self, *calls: object) -> None:
        """Note that these are over, or rest."""
        self.at_work.difference_update(calls)
        self.changed.set()


class _Steps:
    """The steps of one run that make such calls, in this process."""

    def __init__(self) -> None:
        self._calls: dict[int, _Calls] = {}

    def begun(self, execution: Execution) -> _Calls:
        """Return the calls that one call of a step makes."""
        self._calls = {n: c for n, c in self._calls.items() if not c.execution.sends.closed}
        return self._calls.setdefault(id(execution), _Calls(execution))

    def known(self, execution: Execution) -> _Calls | None:
        """Return the calls that one call of a step makes; None: it has made none."""
        return self._calls.get(id(execution))


@contextmanager
def at_work() -> Iterator[None]:
    """Say that the block has effects, or runs a child; the step does not wait while it is at work.

    It is not while it waits for `others_at_rest`.
    """
    execution = execution_of_step()
    calls, mine = state_of_run(_Steps).begun(execution), object()
    calls.at_work.add(mine)
    token = _OWN.set((execution, (*_own(execution), mine)))
    try:
        yield
    finally:
        _OWN.reset(token)
        calls.less(mine)


async def others_at_rest() -> None:
    """Wait until no other call that the step makes is at work; then the step may wait.

    Those that begin together with this one have begun by then.
    """
    execution = execution_of_step()
    calls = state_of_run(_Steps).known(execution)
    if calls is None:
        return
    own = _own(execution)
    calls.less(*own)
    try:
        turns = _TURNS
        while turns:
            turns -= 1
            await asyncio.sleep(0)
            while calls.at_work:
                calls.changed.clear()
                await calls.changed.wait()
                turns = _TURNS
    finally:
        calls.at_work.update(own)


def _own(execution: Execution) -> tuple[object, ...]:
    """Return the calls that this code runs in, as far as this step makes them."""
    found = _OWN.get()
    return found[1] if found is not None and found[0] is execution else ()
