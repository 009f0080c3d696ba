"""Everything of llama-agents-server that we use and that is not public, in one place."""

# ruff: noqa: SLF001

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from datetime import timedelta
from typing import Any, cast

from llama_agents.server import AbstractWorkflowStore, WorkflowServer
from llama_agents.server._runtime.idle_release_runtime import IdleReleaseDecorator
from llama_agents.server._runtime.persistence_runtime import PersistenceDecorator
from llama_agents.server._store.abstract_workflow_store import (
    StoredEvent,
    is_terminal_status,
    stream_workflow_ticks,
)
from starlette.requests import Request
from starlette.responses import Response
from workflows import Workflow
from workflows.events import Event, StartEvent, WorkflowIdleEvent
from workflows.plugins.basic import BasicRuntime, ExternalAsyncioAdapter
from workflows.runtime.control_loop import rebuild_state_from_ticks_stream
from workflows.runtime.control_loop.reduce import _broker_busy
from workflows.runtime.runtime_decorators import (
    BaseInternalRunAdapterDecorator,
    BaseRuntimeDecorator,
)
from workflows.runtime.types.internal_state import BrokerState, InternalStepWorkerState
from workflows.runtime.types.plugin import ExternalRunAdapter, InternalRunAdapter, Runtime
from workflows.runtime.types.step_id import StepId
from workflows.runtime.types.ticks import TickAddEvent, TickCancelRun, TickIdleCheck, WorkflowTick

from llama_index_hitl.runtimes._agents import complete, keeping_memory

__all__ = ["InternalStepWorkerState", "is_terminal_status"]


class _KeepingRuntime(BasicRuntime):
    """The runtime of one process, which keeps every run that is alive.

    A run that waits and that nobody streams is referred to by itself alone, and the garbage
    collector destroys it together with its wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self._alive: set[asyncio.Task[Any]] = set()

    def run_workflow(self, *args: Any, **kwargs: Any) -> ExternalRunAdapter:
        """Start a run and keep it until it ends or is released."""
        adapter = super().run_workflow(*args, **kwargs)
        if isinstance(adapter, ExternalAsyncioAdapter):
            task = adapter._queues.complete
            self._alive.add(task)
            task.add_done_callback(self._alive.discard)
        return adapter


class _IdleRelease(IdleReleaseDecorator):
    """Releases a run from memory only if nothing has happened in it since it was idle.

    Upstream goes by the last time that the run was idle, and that stays where an event came at
    the very same moment: the run would be stopped in the middle of its work, and nobody would
    wake it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._at_work: set[str] = set()

    def get_internal_adapter(self, workflow: Workflow) -> InternalRunAdapter:
        """Return the run's own side, watched."""
        return _Watched(super().get_internal_adapter(workflow), self._at_work)

    async def _release_idle_handler(self, run_id: str) -> None:
        if run_id not in self._at_work:
            await super()._release_idle_handler(run_id)


class _Watched(BaseInternalRunAdapterDecorator):
    """Notes whether a run is at work.

    Args:
        decorated: The run's own side.
        at_work: Ids of the runs that are.
    """

    def __init__(self, decorated: InternalRunAdapter, at_work: set[str]) -> None:
        super().__init__(decorated)
        self._at_work = at_work

    async def on_tick(self, tick: WorkflowTick) -> None:
        """Note that something happens."""
        if not isinstance(tick, TickIdleCheck):
            self._at_work.add(self.run_id)
        await super().on_tick(tick)

    async def write_to_event_stream(self, event: Event) -> None:
        """Note that nothing does."""
        if isinstance(event, WorkflowIdleEvent):
            self._at_work.discard(self.run_id)
        await super().write_to_event_stream(event)

    async def close(self) -> None:
        """Forget a run that ends."""
        self._at_work.discard(self.run_id)
        await super().close()


def durable_runtime(store: AbstractWorkflowStore, idle_timeout: float) -> Runtime:
    """Return the runtime that a WorkflowServer makes for itself, with what it lacks."""
    # Upstream leaves runs alone that are younger than half a minute, as if another process had just
    # begun them: whatever they were doing when this process died would wait for the next event.
    persistence = PersistenceDecorator(
        _KeepingRuntime(), store, resume_fresh_handler_grace=timedelta(0)
    )
    return _IdleRelease(persistence, store, idle_timeout=idle_timeout)


def serve_agents(server: WorkflowServer) -> None:
    """Let the runs of agents on a server begin, and keep what is put into their memory.

    The outermost layer of its runtime is upstream's own, and that is where the state is.
    """
    runtime: Any = server._runtime
    run_workflow, get_internal_adapter = runtime.run_workflow, runtime.get_internal_adapter

    def run(
        run_id: str,
        workflow: Workflow,
        init_state: BrokerState,
        start_event: StartEvent | None = None,
        **more: Any,
    ) -> ExternalRunAdapter:
        complete(start_event)
        begun: ExternalRunAdapter
        begun = run_workflow(run_id, workflow, init_state, start_event=start_event, **more)
        return begun

    def internal_adapter(workflow: Workflow) -> InternalRunAdapter:
        return keeping_memory(get_internal_adapter(workflow), workflow)

    runtime.run_workflow = run
    runtime.get_internal_adapter = internal_adapter


def layers_of(runtime: Runtime) -> Iterator[Runtime]:
    """Yield a runtime and what it wraps, outermost first."""
    yield runtime
    while isinstance(runtime, BaseRuntimeDecorator):
        runtime = runtime._decorated
        yield runtime


def store_of(server: WorkflowServer) -> AbstractWorkflowStore:
    """Return where a server keeps its runs."""
    return server._workflow_store


def events_from(
    store: AbstractWorkflowStore, run_id: str, after: int
) -> AsyncGenerator[StoredEvent, None]:
    """Yield what a run puts on its stream behind a position, from then on, until it ends.

    The store for DBOS looks once a second; the one that it wraps is told.
    """
    told: AbstractWorkflowStore = getattr(store, "_inner", None) or store
    return cast(
        AsyncGenerator[StoredEvent, None], told.subscribe_events(run_id, after_sequence=after)
    )


async def state_of(store: AbstractWorkflowStore, workflow: Workflow, run_id: str) -> BrokerState:
    """Rebuild what a run has come to from what is stored of it, as upstream does to wake it."""
    serializer = workflow.runtime.get_serializer(workflow)
    ticks = stream_workflow_ticks(store, run_id, serializer=serializer)
    return await rebuild_state_from_ticks_stream(
        BrokerState.from_workflow(workflow), ticks, run_id=run_id
    )


def is_at_work(state: BrokerState) -> bool:
    """Tell whether a run can go on without anything from outside."""
    return state.is_running and _broker_busy(state)


def steps_of(state: BrokerState) -> Iterator[InternalStepWorkerState]:
    """Yield what each step of a run has collected and waits for, child workflows included."""
    yield from state.workers.values()
    for child in state.children.values():
        yield from steps_of(child)


async def send(server: WorkflowServer, run_id: str, event: Event, step: str | None = None) -> None:
    """Send an event to a run, which is put back into memory for it.

    Upstream's own way starts a task for that and does not wait for it: if the run cannot be put
    back, nobody is told.
    """
    step_id = StepId.root(step) if step is not None else None
    adapter = server._runtime.get_external_adapter(run_id)
    await adapter.send_event(TickAddEvent(event=event, step_id=step_id))


async def cancel(server: WorkflowServer, run_id: str) -> None:
    """Cancel a run, which is put back into memory for it.

    Upstream's own way does nothing to a run that was released, and says that it is cancelled.
    """
    await server._runtime.get_external_adapter(run_id).send_event(TickCancelRun())


async def cancel_as_upstream(server: WorkflowServer, http: Request) -> Response:
    """Let upstream answer a call to cancel a run, and delete it if that is asked for."""
    return await server._api._cancel_handler(http)
