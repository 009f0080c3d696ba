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
from typing import TypeAlias

from llama_index_hitl._upstream import Execution, execution_of_step, state_of_run

_End: TypeAlias = "asyncio.Future[None]"
"""Comes when a call has ended, or waits."""

_ENDS: ContextVar[tuple[Execution, tuple[_End, ...]] | None] = ContextVar(
    "llama_index_hitl_calls", default=None
)
"""The calls that this code runs in, the outermost first."""


class _AtWork:
    """The calls that the steps of one run are making, in this process."""

    def __init__(self) -> None:
        self._ends: dict[int, tuple[Execution, list[_End]]] = {}

    def of(self, execution: Execution) -> list[_End]:
        """Return the ends of the calls that one call of a step makes."""
        self._ends = {n: entry for n, entry in self._ends.items() if not entry[0].sends.closed}
        return self._ends.setdefault(id(execution), (execution, []))[1]


@contextmanager
def at_work() -> Iterator[None]:
    """Say that the block has effects; the step does not wait before it has ended or waits itself.

    What is raised in it to wait must come after `others_at_rest`.
    """
    execution = execution_of_step()
    end: _End = asyncio.get_running_loop().create_future()
    state_of_run(_AtWork).of(execution).append(end)
    token = _ENDS.set((execution, (*_own(execution), end)))
    try:
        yield
    finally:
        _ENDS.reset(token)
        _set(end)


async def others_at_rest() -> None:
    """Wait until no other call that the step makes is at work; then the step may wait.

    Those that begin together with this one have begun by then.
    """
    execution = execution_of_step()
    for end in _own(execution):
        _set(end)
    ends = state_of_run(_AtWork).of(execution)
    if ends:
        await asyncio.sleep(0)
    while at_work := [end for end in ends if not end.done()]:
        await asyncio.wait(at_work)


def _own(execution: Execution) -> tuple[_End, ...]:
    """Return the ends of the calls that this code runs in, as far as this step makes them."""
    found = _ENDS.get()
    return found[1] if found is not None and found[0] is execution else ()


def _set(end: _End) -> None:
    if not end.done():
        end.set_result(None)
