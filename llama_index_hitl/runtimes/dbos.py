"""A ReviewServer whose runs are executed by DBOS. Extra: `dbos`.

```python
DBOS(config={"name": "publishing", "system_database_url": "sqlite:///runs.db"})
server = review_server(DBOSRuntime())
server.add_workflow("publishing", Publishing(timeout=None))
await server.serve(port=8000)
```

DBOS keeps what it executes with pickle: its database must be as trusted as the code.
"""

# ruff: noqa: SLF001

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextvars import Context
from typing import Any

from llama_index_hitl._extras import require
from llama_index_hitl.runtimes.server import ReviewServer

require("llama_agents.dbos", extra="dbos", purpose="running workflows on DBOS")

from llama_agents.dbos import DBOSRuntime  # type: ignore[import-untyped]  # noqa: E402
from llama_agents.dbos.idle_release import (  # type: ignore[import-untyped]  # noqa: E402
    DBOSIdleReleaseDecorator,
)
from llama_agents.dbos.journal.lifecycle import (  # type: ignore[import-untyped]  # noqa: E402
    ResumeClaim,
    RunLifecycleState,
)
from llama_agents.server import HandlerQuery  # noqa: E402
from workflows import Workflow  # noqa: E402
from workflows.context.serializers import BaseSerializer  # noqa: E402
from workflows.runtime.runtime_decorators import BaseInternalRunAdapterDecorator  # noqa: E402
from workflows.runtime.types.plugin import ExternalRunAdapter, InternalRunAdapter  # noqa: E402
from workflows.runtime.types.ticks import (  # noqa: E402
    TickAddEvent,
    TickIdleRelease,
    TickSessionStart,
    WorkflowTick,
)

from llama_index_hitl.runtimes._upstream import is_at_work, state_of  # noqa: E402

__all__ = ["review_server"]


class _IdleRelease(DBOSIdleReleaseDecorator):  # type: ignore[misc]
    """Wakes a run as often as it is answered, also after the process has died.

    A released run is rebuilt from the log of what it went through. Upstream (0.7.0) starts it again
    together with the event that wakes it, but never writes that event into the log; and when DBOS
    goes through a run again after a crash, it is all written into the log a second time. Either
    way the log makes no sense when the run is woken the next time (`Invocation ... not found in
    in_progress`), and the run never goes on.

    An event that comes at the very moment at which a run is released may find it stopped in the
    middle of what follows; such a run is woken again, and so is one whose process died meanwhile.
    """

    async def launch(self) -> None:
        """Start, and finish what a process that died had begun."""
        await super().launch()
        self._spawn_task(self._finish_releases())

    async def _finish_releases(self) -> None:
        lifecycle = await self._get_lifecycle()
        running = HandlerQuery(
            status_in=["running"], workflow_name_in=list(self._workflows), is_idle=False
        )
        for handler in await self._store.query(running):
            found = await lifecycle.try_begin_resume(handler.run_id)
            if isinstance(found, ResumeClaim):
                await self._do_resume(handler.run_id, found)
            elif found is RunLifecycleState.releasing:
                external = self._decorated.get_external_adapter(handler.run_id)
                self._spawn_task(self._await_and_mark_released(handler.run_id, external))

    async def _await_and_mark_released(self, run_id: str, external: ExternalRunAdapter) -> None:
        await super()._await_and_mark_released(run_id, external)
        workflow = await self._workflow_of(run_id)
        if is_at_work(await state_of(self._store, workflow, run_id)):
            claim = await (await self._get_lifecycle()).try_begin_resume(run_id)
            if isinstance(claim, ResumeClaim):
                await self._do_resume(run_id, claim)

    async def release_repeated(self, run_id: str) -> None:
        """Release a run that DBOS goes through again, where it was released and nobody knows.

        On the way there it was idle, and so is on record as one that can be sent to.
        """
        if await (await self._get_lifecycle()).begin_release(run_id):
            external = self._decorated.get_external_adapter(run_id)
            self._spawn_task(self._await_and_mark_released(run_id, external))

    async def log_of(self, run_id: str) -> list[dict[str, Any]]:
        """Return what a run went through, as it is written down."""
        return [stored.tick_data async for stored in self._store.stream_ticks(run_id)]

    async def _workflow_of(self, run_id: str) -> Workflow:
        (handler,) = await self._store.query(HandlerQuery(run_id_in=[run_id]))
        workflow: Workflow = self._workflows[handler.workflow_name]
        return workflow

    def get_internal_adapter(self, workflow: Workflow) -> InternalRunAdapter:
        """Return the run's own side, which writes its log once."""
        serializer = workflow.runtime.get_serializer(workflow)
        return _OnceLogged(super().get_internal_adapter(workflow), self, serializer)

    def _spawn_task(self, coro: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # Not from within the run: what releases it would be on record as a part of it, at an
        # instant that differs when DBOS goes through it again, and DBOS would give the run up.
        task: asyncio.Task[None] = Context().run(super()._spawn_task, coro)
        return task

    async def _do_resume(
        self, run_id: str, resume_claim: ResumeClaim, pending_tick: WorkflowTick | None = None
    ) -> tuple[str, ExternalRunAdapter] | None:
        # What the run wrote before it was released comes first in the log.
        await self._await_old_workflow_for_resume(run_id, resume_claim)
        if isinstance(pending_tick, TickAddEvent):
            await self._log(run_id, pending_tick)
        woken: tuple[str, ExternalRunAdapter] | None
        woken = await super()._do_resume(run_id, resume_claim)
        if woken is not None and not isinstance(pending_tick, TickAddEvent | None):
            await woken[1].send_event(pending_tick)  # such as one that cancels the run
        return woken

    async def _log(self, run_id: str, tick: TickAddEvent) -> None:
        workflow = await self._workflow_of(run_id)
        stamped = tick.model_copy(update={"stamped_at": time.time()})
        serialized = workflow.runtime.get_serializer(workflow).serialize(stamped)
        await self._store.append_tick(run_id, {"serialized_tick": serialized})


class _OnceLogged(BaseInternalRunAdapterDecorator):
    """Writes to the log of a run what is not there yet.

    After a crash DBOS repeats a session of a run, instants included, and so to the letter.

    Args:
        decorated: The run's own side.
        runtime: Where the log is.
        serializer: What writes it.
    """

    def __init__(
        self, decorated: InternalRunAdapter, runtime: _IdleRelease, serializer: BaseSerializer
    ) -> None:
        super().__init__(decorated)
        self._runtime = runtime
        self._serializer = serializer
        self._to_repeat: list[dict[str, Any]] = []

    async def on_tick(self, tick: WorkflowTick) -> None:
        """Take note of what happens, unless it has happened before."""
        written = {"serialized_tick": self._serializer.serialize(tick)}
        if isinstance(tick, TickSessionStart):
            log = await self._runtime.log_of(self.run_id)
            self._to_repeat = log[log.index(written) :] if written in log else []
        if isinstance(tick, TickIdleRelease):
            await self._runtime.release_repeated(self.run_id)
        if self._to_repeat and self._to_repeat[0] == written:
            self._to_repeat.pop(0)
            return
        self._to_repeat = []
        await super().on_tick(tick)


def review_server(
    runtime: DBOSRuntime, *, idle_timeout: float = 600.0, **options: Any
) -> ReviewServer:
    """Return a server whose runs survive the process, on DBOS.

    Args:
        runtime: DBOS itself must be configured before the server starts, with `DBOS(config=...)`.
        idle_timeout: Seconds after which a run that waits is released from memory.
        **options: As for `ReviewServer`, without `runtime` and `workflow_store`.

    Raises:
        UnsafeRuntime: With these options the promises cannot be kept.
        MissingExtra: llama-agents-dbos is not installed; raised on import.
    """
    made = runtime.build_server_runtime(idle_timeout=idle_timeout)
    if not isinstance(made, DBOSIdleReleaseDecorator):
        raise TypeError(f"build_server_runtime() has returned a {type(made).__name__}")
    store = runtime.create_workflow_store()
    waking = _IdleRelease(
        made._decorated,
        store,
        idle_timeout=idle_timeout,
        journal_crud=made._journal_crud_factory,
        lifecycle_lock=made._lifecycle_lock_factory,
    )
    return ReviewServer(runtime=waking, workflow_store=store, idle_timeout=idle_timeout, **options)
