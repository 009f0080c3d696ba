"""Everything of LlamaIndex Workflows that we use and that is not public, in one place.

Each function here has a test of its own that fails when a release of upstream changes what it
leans on.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias, TypeVar

from workflows import Context, Workflow
from workflows.context.serializers import _register_framework_types
from workflows.events import Event
from workflows.runtime.types.plugin import SnapshottableAdapter, _current_run
from workflows.runtime.types.results import (
    AddWaiter,
    DeleteWaiter,
    StepWorkerContext,
    StepWorkerFailed,
    StepWorkerStateContextVar,
    WaitingForEvent,
)
from workflows.runtime.types.ticks import TickAddEvent

from llama_index_hitl.errors import TimeoutWarning

T = TypeVar("T")

_STATE = "_llama_index_hitl"


def run_id_of(ctx: Context[Any]) -> str:
    """Return the id of the run that a step's context belongs to."""
    return str(ctx._require_internal(fn="run_id_of")._internal_adapter.run_id)


def steps_accepting(workflow: Workflow, event_type: type[Event]) -> set[str]:
    """Return the names of the steps that accept exactly this event."""
    steps = type(workflow)._get_steps_from_class()
    return {n for n, step in steps.items() if event_type in step._step_config.accepted_events}


def produced_by(function: object) -> list[type[Event]]:
    """Return the events that a function is declared to return, if it is a step."""
    config = getattr(function, "_step_config", None)
    found = getattr(config, "return_types", ())
    return [kind for kind in found if isinstance(kind, type) and issubclass(kind, Event)]


def timeout_of(workflow: Workflow) -> float | None:
    """Return the seconds after which a workflow gives up; None: never."""
    return workflow._timeout


def warn_of_timeout(workflow: Workflow) -> None:
    """Warn of a time limit that would kill a run while it waits for people."""
    seconds = timeout_of(workflow)
    if seconds is not None:
        warnings.warn(
            f"{type(workflow).__name__} has timeout={seconds} seconds: a run that waits for people "
            "longer than that is killed. Create it with timeout=None.",
            TimeoutWarning,
            stacklevel=2,
        )


def workflow_of(ctx: Context[Any]) -> Workflow:
    """Return the workflow that a step's context belongs to."""
    return ctx._require_internal(fn="workflow_of")._workflow


Execution: TypeAlias = StepWorkerContext
"""One call of a step; a step that waits is called again from its first line."""


def execution_of_step() -> Execution:
    """Return the call of a step that this code runs in.

    Raises:
        LookupError: Not called from within a step.
    """
    return StepWorkerStateContextVar.get()


def work_item_of(execution: Execution) -> str:
    """Return what a call of a step shares with its repetitions only, over replays and restores."""
    return f"{execution.state.step_name}:{execution.state.work_item_id}"


def may_be_repeated(execution: Execution) -> bool:
    """Tell whether a call of a step has ended in a way that makes upstream call it again."""
    ends = execution.returns.return_values
    return any(isinstance(end, AddWaiter | StepWorkerFailed) for end in ends)


def has_collected(execution: Execution, buffer_id: str) -> bool:
    """Tell whether a call of a step began with something in a collect buffer."""
    return bool(execution.state.collected_events.get(buffer_id))


def event_for_waiter(execution: Execution, waiter_id: str) -> Event | None:
    """Return the event that last woke a waiter, as a call of its step sees it; None: none has."""
    waiters = execution.state.collected_waiters
    return next((w.resolved_event for w in waiters if w.waiter_id == waiter_id), None)


def forget_waiter(execution: Execution, waiter_id: str) -> None:
    """Let a waiter go when this call of its step completes."""
    execution.returns.return_values.append(DeleteWaiter(waiter_id=waiter_id))


def events_received(ctx: Context[Any], start: int) -> tuple[list[Event], int]:
    """Return the events that the run has received in this process, in order.

    A waiter holds the last event that woke it only, and loses that when it is put back. The log of
    the session has them all; a runtime that keeps none has nothing to return.

    Args:
        ctx: Context of a step.
        start: Where to begin: 0, or the position that the last call returned.

    Returns:
        The events, and the position behind the last one.
    """
    adapter: object = ctx._require_internal(fn="events_received")._internal_adapter
    while (inner := getattr(adapter, "_decorated", None)) is not None:
        adapter = inner  # such as the one that prints what happens, for verbose=True
    ticks = adapter.replay() if isinstance(adapter, SnapshottableAdapter) else []
    events = [tick.event for tick in ticks[start:] if isinstance(tick, TickAddEvent)]
    return events, len(ticks)


def state_of_run(create: Callable[[], T]) -> T:
    """Return something of ours that lives as long as the run does in this process.

    Args:
        create: Makes it, the first time.

    Raises:
        LookupError: Not called from within a step.
    """
    run = _current_run.get()
    if run is None:
        raise LookupError("not within a step")
    attributes = vars(run)
    if _STATE not in attributes:
        attributes[_STATE] = create()
    state: T = attributes[_STATE]
    return state


def resolve_from_every_snapshot(*classes: type[Event]) -> None:
    """Let upstream's serializers load these classes without any workflow declaring them.

    A question that is asked inline appears in no step's signature, and upstream would write a
    snapshot with it that it then refuses to load.
    """
    _register_framework_types(*classes)


def keep_waiting(event_type: type[Event], waiter_id: str, requirements: dict[str, Any]) -> NoReturn:
    """Put a waiter back as it was before an event that was not meant for it woke it.

    Waiting under another id instead would leave the old waiter behind, and the next event would
    run the step twice.
    """
    raise WaitingForEvent(
        AddWaiter(
            waiter_id=waiter_id,
            waiter_event=None,
            requirements=requirements,
            timeout=None,
            event_type=event_type,
        )
    )
