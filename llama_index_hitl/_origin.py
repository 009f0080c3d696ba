"""Where a run was started from, if that was a step of another run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from workflows import Context

from llama_index_hitl._upstream import (
    blocks_a_step,
    fail_step,
    run_id_of,
    warn_of_timeout,
    workflow_of,
)
from llama_index_hitl.errors import ChildNotBridged


@dataclass(frozen=True)
class Origin:
    """Where a run comes from.

    Attributes:
        run_id: The run that can be found: itself, or the outermost run that it is within.
        path: The steps that it was started from, as `Workflow.step`, the outermost first.
    """

    run_id: str
    path: tuple[str, ...] = ()


_ORIGINS: ContextVar[dict[str, Origin]] = ContextVar("llama_index_hitl_origins")


def origin_of(run_id: str) -> Origin:
    """Return where a run comes from: from nowhere, unless it was started with `run_child`."""
    return _ORIGINS.get({}).get(run_id, Origin(run_id))


@contextmanager
def starting_from(run_id: str, origin: Origin) -> Iterator[None]:
    """Let a run that is started in the block know where it comes from."""
    token = _ORIGINS.set({run_id: origin})
    try:
        yield
    finally:
        _ORIGINS.reset(token)


def check_can_wait(ctx: Context[Any]) -> None:
    """Check that a run can wait for people, when it is about to.

    Warns of a time limit that would kill it. Not so of a run that was started with `run_child`: it
    is out of memory while it waits. Fails the step with `ChildNotBridged` where a step of another
    run waits for the result of this one, and nobody sees what it asks.
    """
    workflow = workflow_of(ctx)
    if origin_of(run_id_of(ctx)).path:
        return
    if blocks_a_step(ctx):
        fail_step(ChildNotBridged(workflow.workflow_name))
    warn_of_timeout(workflow)
