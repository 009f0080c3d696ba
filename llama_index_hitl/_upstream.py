"""Everything of LlamaIndex Workflows that we use and that is not public, in one place.

Each function here has a test of its own that fails when a release of upstream changes what it
leans on.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import Context as ContextVars
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias, TypeVar, cast

from workflows import Context, Workflow
from workflows.context.serializers import BaseSerializer, _register_framework_types
from workflows.events import Event, InputRequiredEvent, StopEvent, WorkflowCancelledEvent
from workflows.handler import WorkflowHandler
from workflows.plugins.basic import (
    AsyncioAdapterQueues,
    BasicRuntime,
    ExternalAsyncioAdapter,
    InternalAsyncioAdapter,
)
from workflows.runtime.control_loop import rebuild_state_from_ticks
from workflows.runtime.control_loop.reduce import _check_idle_state
from workflows.runtime.types.internal_state import BrokerState
from workflows.runtime.types.plugin import SnapshottableAdapter, _current_run
from workflows.runtime.types.results import (
    AddWaiter,
    DeleteWaiter,
    StepWorkerContext,
    StepWorkerFailed,
    StepWorkerResult,
    StepWorkerStateContextVar,
    WaitingForEvent,
)
from workflows.runtime.types.ticks import (
    TickAddEvent,
    TickIdleCheck,
    TickSessionStart,
    TickStepResult,
)
from workflows.runtime.verbose import VerboseDecorator

from llama_index_hitl.errors import SnapshotError, TimeoutWarning

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


def has_completed(execution: Execution) -> bool:
    """Tell whether a call of a step has ended with a result, so that it is not repeated."""
    return any(isinstance(end, StepWorkerResult) for end in execution.returns.return_values)


def has_collected(execution: Execution, buffer_id: str) -> bool:
    """Tell whether a call of a step began with something in a collect buffer."""
    return bool(execution.state.collected_events.get(buffer_id))


def collected_by(execution: Execution) -> Mapping[str, list[Event]]:
    """Return what was in the collect buffers of its step when a call of it began."""
    return execution.state.collected_events


def has_waiter(execution: Execution, waiter_id: str) -> bool:
    """Tell whether a call of a step began with a waiter of this id."""
    return any(w.waiter_id == waiter_id for w in execution.state.collected_waiters)


def event_for_waiter(execution: Execution, waiter_id: str) -> Event | None:
    """Return the event that last woke a waiter, as a call of its step sees it; None: none has."""
    waiters = execution.state.collected_waiters
    return next((w.resolved_event for w in waiters if w.waiter_id == waiter_id), None)


def events_for_waiters(execution: Execution) -> list[Event]:
    """Return the events that have woken what a call of a step is called for."""
    state = execution.state
    mine = (w for w in state.collected_waiters if w.work_item_id == state.work_item_id)
    return [w.resolved_event for w in mine if w.resolved_event is not None]


def step_of(execution: Execution) -> str:
    """Return the name of the step that is called."""
    return execution.state.step_name


def wait_too(
    execution: Execution,
    event_type: type[Event],
    waiter_id: str,
    requirements: dict[str, Any],
    question: Event | None,
) -> AddWaiter[Any]:
    """Let a call of a step wait for one more event, if it ends waiting.

    Args:
        execution: The call.
        event_type: What it waits for.
        waiter_id: Unique within the step. A waiter of that id that is there begins to wait anew.
        requirements: The attributes that the event must have.
        question: Is put on the stream if there is no waiter of that id yet.

    Returns:
        What to raise with `end_waiting`, if it is the last.
    """
    waiter: AddWaiter[Any] = AddWaiter(
        waiter_id=waiter_id,
        waiter_event=question,
        requirements=requirements,
        timeout=None,
        event_type=event_type,
    )
    execution.returns.return_values.append(waiter)
    return waiter


def end_waiting(waiter: AddWaiter[Any]) -> NoReturn:
    """End a call of a step, to be repeated when something comes that it waits for."""
    raise WaitingForEvent(waiter)


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
    adapter = _innermost(ctx._require_internal(fn="events_received")._internal_adapter)
    ticks = adapter.replay() if isinstance(adapter, SnapshottableAdapter) else []
    events = [tick.event for tick in ticks[start:] if isinstance(tick, TickAddEvent)]
    return events, len(ticks)


def state_of_run(create: Callable[[], T]) -> T:
    """Return something of ours that lives as long as the run does in this process.

    Args:
        create: Makes it, the first time; each has its own.

    Raises:
        LookupError: Not called from within a step.
    """
    run = _current_run.get()
    if run is None:
        raise LookupError("not within a step")
    states = vars(run).setdefault(_STATE, {})
    if create not in states:
        states[create] = create()
    state: T = states[create]
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


def fail_step(error: Exception) -> NoReturn:
    """Fail the step that this code runs in, through whatever turns errors into something else.

    LlamaIndex's agents turn every error of a tool into words for the model, but for the one by
    which a step says that it waits.

    Args:
        error: What the step, and unless it is retried the run, fails with.
    """
    raise _Failing(error)


class _Failing(WaitingForEvent[Any]):
    """Ends a call of a step as if it waited, with a failure in the place of what it waits for."""

    def __init__(self, error: Exception) -> None:
        Exception.__init__(self, str(error))  # upstream's own asks what is waited for
        self.add = cast("Any", StepWorkerFailed(exception=error, failed_at=time.time()))


WAITS = WaitingForEvent
"""What is raised in a step that waits, which will run again from its first line."""


def is_waited_for(ctx: Context[Any], waiter_id: str) -> bool:
    """Tell whether a step of the run waits, or has waited, under this id in this process."""
    adapter = _innermost(ctx._require_internal(fn="is_waited_for")._internal_adapter)
    if not isinstance(adapter, SnapshottableAdapter):
        return False
    before = adapter.init_state.workers.values()
    if any(w.waiter_id == waiter_id for worker in before for w in worker.collected_waiters):
        return True
    results = (tick.result for tick in adapter.replay() if isinstance(tick, TickStepResult))
    ends = (end for result in results for end in result)
    return any(isinstance(end, AddWaiter) and end.waiter_id == waiter_id for end in ends)


def blocks_a_step(ctx: Context[Any]) -> bool:
    """Tell whether a step of another run awaits the result of this run, and nobody its stream.

    Whoever awaits a future leaves a callback with it, and with that the context that it runs in:
    within a step, the call of the step is in there.
    """
    adapter = _innermost(ctx._require_internal(fn="blocks_a_step")._internal_adapter)
    if not isinstance(adapter, InternalAsyncioAdapter):
        return False
    queues = adapter._queues
    if queues.stream_lock.locked():
        return False
    awaited = (getattr(callback, "__self__", None) for callback, _ in _callbacks(queues.complete))
    return any(
        StepWorkerStateContextVar in context
        for task in awaited
        if isinstance(task, asyncio.Task)
        for callback, context in _callbacks(task)
        if not isinstance(getattr(callback, "__self__", None), WorkflowHandler)
    )


def _callbacks(task: asyncio.Task[Any]) -> list[tuple[Callable[..., Any], ContextVars]]:
    return list(getattr(task, "_callbacks", None) or ())


def _innermost(adapter: object) -> object:
    while (inner := getattr(adapter, "_decorated", None)) is not None:
        adapter = inner  # such as the one that prints what happens, for verbose=True
    return adapter


# --------------------------------------------------------------------------- a run from outside


def _queues_of(handler: WorkflowHandler) -> AsyncioAdapterQueues:
    """Return what upstream's own runtime keeps of a run.

    Raises:
        SnapshotError: The run is on another runtime, which keeps it itself.
    """
    adapter = _innermost(handler._external_adapter)
    if not isinstance(adapter, ExternalAsyncioAdapter):
        raise SnapshotError(
            f"A run on {type(adapter).__name__} cannot be paused from outside: that runtime keeps "
            "its runs itself. Pause runs of upstream's in-memory runtime."
        )
    return adapter._queues


async def until_idle(handler: WorkflowHandler) -> BrokerState | None:
    """Wait until nothing in a run can advance by itself, and return the state that it is in then.

    Reads the log of the run and not its stream, so that somebody else can watch the stream.

    Returns:
        The state; None: the run has ended.

    Raises:
        SnapshotError: The run is on another runtime.
    """
    queues = _queues_of(handler)
    while not queues.complete.done():
        queues.ticks_changed.clear()
        if (state := _idle_state(handler, queues)) is not None:
            return state
        await queues.ticks_changed.wait()
    return None


async def let_arrive(handler: WorkflowHandler) -> None:
    """Let what was sent to a run before this call reach it.

    An event is sent by a task of its own and taken out of its queue by another one; in between it
    can be seen nowhere. Both need a turn of the event loop or two.
    """
    sending = handler.ctx._require_external(fn="let_arrive")._workers
    await asyncio.gather(*sending, return_exceptions=True)
    for _ in range(10):
        await asyncio.sleep(0)


def _idle_state(handler: WorkflowHandler, queues: AsyncioAdapterQueues) -> BrokerState | None:
    """Return the state of a run if it is idle.

    Upstream checks after each thing that it has done whether it was the last; that check is in the
    log. Only then is it worth the while to rebuild the state. A restored run that has nothing to do
    has only begun.
    """
    begun = queues.ticks and isinstance(queues.ticks[-1], TickSessionStart)
    if not (begun or _has_checked(queues)) or not queues.receive_queue.empty():
        return None
    state = rebuild_state_from_ticks(queues.init_state, queues.ticks, run_id=queues.run_id)
    return state if _check_idle_state(state) else None


def _has_checked(queues: AsyncioAdapterQueues) -> bool:
    """Tell whether the last thing that a run did was to find that nothing in it was at work."""
    return bool(queues.ticks) and isinstance(queues.ticks[-1], TickIdleCheck)


def serialized(
    handler: WorkflowHandler, state: BrokerState, serializer: BaseSerializer
) -> dict[str, Any]:
    """Return the context of a run that is idle, as `Context.to_dict` does, without rebuilding."""
    context = state.to_serialized(serializer)
    for worker in context.workers.values():
        # Counts changes of each buffer there ever was, for the calls of the step that are at work.
        # None is; and there is a buffer for each question, so that this would grow for ever.
        worker.collect_generations = {
            name: count
            for name, count in worker.collect_generations.items()
            if worker.collected_events.get(name)
        }
    store = _queues_of(handler).state_store
    context.state = {} if store is None else store.to_dict(serializer)
    return context.model_dump(mode="json")


def streamed(handler: WorkflowHandler) -> list[Event]:
    """Take all events off the stream that are there now; nobody else gets them then."""
    queue = _queues_of(handler).publish_queue
    return [queue.get_nowait() for _ in range(queue.qsize())]


async def stop(handler: WorkflowHandler) -> None:
    """End a run where it is, without a trace in its log; whoever streams it sees a cancellation."""
    queues = _queues_of(handler)
    ending = (queues.complete, handler._result_task)
    if not queues.complete.done() and not _has_checked(queues):
        # A run whose task is cancelled before any step has ended forgets to cancel those at work.
        await handler.cancel_run()
    for task in ending:
        task.cancel()
    queues.publish_queue.put_nowait(WorkflowCancelledEvent())
    try:
        # Not awaited one by one: that they are cancelled must not hide that the caller is.
        await asyncio.wait(ending)
    finally:
        _forget_run(handler)
    for task in ending:
        if not task.cancelled():
            task.exception()  # seen, so that nobody warns of it


def _forget_run(handler: WorkflowHandler) -> None:
    """Let the same run id be used again in this process."""
    runtime = _basic_runtime(handler._workflow)
    if runtime is not None:
        runtime._queues.pop(handler.run_id, None)


def is_live(workflow: Workflow, run_id: str) -> bool:
    """Tell whether a run with this id is under way in this process."""
    runtime = _basic_runtime(workflow)
    return runtime is not None and run_id in runtime._queues


def runs_in_memory(workflow: Workflow) -> bool:
    """Tell whether a workflow is on upstream's in-memory runtime, and no server has it."""
    return _basic_runtime(workflow) is not None


def _basic_runtime(workflow: Workflow) -> BasicRuntime | None:
    runtime: object = workflow.runtime
    if isinstance(runtime, VerboseDecorator):
        runtime = runtime._decorated
    return runtime if isinstance(runtime, BasicRuntime) else None


def result_of(handler: WorkflowHandler) -> Any:
    """Return what a run that is over came to, as awaiting its handler does.

    Raises:
        Exception: What the run failed with.
    """
    _forget_run(handler)
    complete = _queues_of(handler).complete
    error = complete.exception()
    if error is not None:
        raise error  # `result()` forgets where it was raised, when it is called a second time
    stop_event: StopEvent = complete.result()
    return stop_event.result if type(stop_event) is StopEvent else stop_event


@dataclass(frozen=True)
class Wait:
    """A step that waits for an event.

    Attributes:
        step: Name of the step.
        waiter_id: Upstream's name for it; a step may use the same one again, later.
        event_type: What it waits for.
        requirements: The attributes that the event must have.
        question: What it sent to the stream when it began to wait; None if that is not known.
    """

    step: str
    waiter_id: str
    event_type: type[Event]
    requirements: dict[str, Any]
    question: Event | None


@dataclass
class Session:
    """What a run has asked and was told in this process.

    Attributes:
        questions: Events that ask a person and that no step waits behind, in order.
        told: Events that have come from outside, in order.
        waits: What each wait sent to the stream and requires, by its step and its waiter id.
    """

    questions: list[InputRequiredEvent] = field(default_factory=list)
    told: list[Event] = field(default_factory=list)
    waits: dict[tuple[str, str], AddWaiter[Any]] = field(default_factory=dict)


def session_of(handler: WorkflowHandler, streamed: Sequence[Event] = ()) -> Session:
    """Return what a run has asked and was told in this process.

    A question that a step has written to the stream itself is seen as long as nobody has read it
    from there.

    Args:
        handler: The run.
        streamed: What was read from its stream.
    """
    queues = _queues_of(handler)
    session, asked, behind_waits = Session(), {}, set()
    for tick in queues.ticks:
        if isinstance(tick, TickStepResult):
            for result in tick.result:
                if isinstance(result, AddWaiter):
                    session.waits[str(tick.step_id), result.waiter_id] = result
                    behind_waits.add(id(result.waiter_event))
                elif isinstance(result, StepWorkerResult):
                    asked[id(result.result)] = result.result
        elif isinstance(tick, TickAddEvent):
            asked[id(tick.event)] = tick.event
            if tick.emission is None and tick.step_id is None:
                session.told.append(tick.event)
    for event in (*streamed, *_waiting_on_stream(queues)):
        asked[id(event)] = event
    session.questions = [
        event
        for key, event in asked.items()
        if isinstance(event, InputRequiredEvent) and key not in behind_waits
    ]
    return session


def _waiting_on_stream(queues: AsyncioAdapterQueues) -> Iterator[Event]:
    yield from cast("Any", queues.publish_queue)._queue


def waits_of(state: BrokerState, session: Session) -> list[Wait]:
    """Return the waits of a run that nothing has woken, in a stable order."""
    found = []
    for step_id, worker in state.workers.items():
        for waiter in worker.collected_waiters:
            if waiter.resolved_event is not None:
                continue
            added = session.waits.get((str(step_id), waiter.waiter_id))
            found.append(
                Wait(
                    step=str(step_id),
                    waiter_id=waiter.waiter_id,
                    event_type=waiter.waiting_for_event,
                    requirements=dict(waiter.requirements),
                    question=None if added is None else added.waiter_event,
                )
            )
    return sorted(found, key=lambda wait: (wait.step, wait.waiter_id))


def require_again(
    handler: WorkflowHandler, requirements: Callable[[str, str, type[Event]], Mapping[str, Any]]
) -> None:
    """Give the waits of a restored run their requirements back.

    Upstream writes a snapshot without them: until the step has run again, any event of the type
    would do. Must be called before the run has had its first turn, that is, without an `await`
    after `Workflow.run`; upstream then has no reason to run the step again.

    Args:
        handler: The run.
        requirements: Says what a wait requires, from its step, its id and the event that it waits
            for.
    """
    for step_id, worker in _queues_of(handler).init_state.workers.items():
        for waiter in worker.collected_waiters:
            if waiter.has_requirements and not waiter.requirements:
                required = requirements(str(step_id), waiter.waiter_id, waiter.waiting_for_event)
                waiter.requirements = dict(required)


def steps_taking(workflow: Workflow, event: Event) -> list[str]:
    """Return the names of the steps that take this very event."""
    return [
        str(step_id)
        for step_id, config in workflow._get_broker_config().steps.items()
        if any(
            isinstance(event, kind) if config.accept_event_subclasses else type(event) is kind
            for kind in config.accepted_events
        )
    ]


def events_taken(workflow: Workflow) -> dict[str, list[type[Event]]]:
    """Return the events that each step takes, by the name of the step."""
    steps = workflow._get_broker_config().steps
    return {
        str(step_id): [kind for kind in config.accepted_events if isinstance(kind, type)]
        for step_id, config in steps.items()
    }
