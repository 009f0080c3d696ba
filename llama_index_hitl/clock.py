"""Time as a parameter: nothing in this package reads the wall clock behind your back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TypeAlias

Clock: TypeAlias = Callable[[], datetime]
"""A function without arguments that returns the present instant, time zone included."""


def utc_now() -> datetime:
    """Return the present instant in UTC, to the microsecond.

    Example:
        >>> utc_now().tzinfo
        datetime.timezone.utc
    """
    return datetime.now(UTC)


_CLOCK: ContextVar[Clock] = ContextVar("llama_index_hitl_clock", default=utc_now)


def present_clock() -> Clock:
    """Return the clock of the runner that is at work here; without one, `utc_now`.

    Example:
        >>> present_clock() is utc_now
        True
    """
    return _CLOCK.get()


def clock_of(workflow: object) -> Clock:
    """Return the clock that the runs of a workflow go by: its attribute `clock`, or the present.

    Args:
        workflow: The workflow; anything without a `clock` goes by the present one.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.testing import ManualClock
        >>> clock_of(DraftApproval(clock=ManualClock()))().isoformat()
        '2026-01-01T12:00:00+00:00'
    """
    own: Clock | None = getattr(workflow, "clock", None)
    return own or present_clock()


@contextmanager
def using_clock(clock: Clock) -> Iterator[None]:
    """Let gates and questions of the runs that are started in the block go by a clock.

    Args:
        clock: The clock.

    Example:
        >>> from llama_index_hitl.testing import ManualClock
        >>> with using_clock(ManualClock()):
        ...     present_clock()().isoformat()
        '2026-01-01T12:00:00+00:00'
    """
    token = _CLOCK.set(clock)
    try:
        yield
    finally:
        _CLOCK.reset(token)
