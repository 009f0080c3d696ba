"""One way to drive a run on each of upstream's runtimes, for tests that hold on all of them."""

import asyncio
import contextlib
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from flows import Live, codes, of_kind
from llama_agents.server import HandlerQuery, PersistentHandler, SqliteWorkflowStore, WorkflowServer
from llama_agents.server._runtime.idle_release_runtime import IdleReleaseDecorator
from workflows import Workflow
from workflows.events import Event, HumanResponseEvent

from llama_index_hitl import ReviewRequestEvent, ReviewUpdatedEvent
from llama_index_hitl.models import RequestStatus, ReviewRecord
from llama_index_hitl.runtimes._upstream import layers_of
from llama_index_hitl.runtimes.server import ReviewServer

IDLE = 0.02
"""Seconds after which a run that waits is released."""
LIMIT = 30.0


async def until(condition: Callable[[], Any], what: str) -> Any:
    """Return what a condition, plain or async, comes to when it holds, soon or not at all."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        await asyncio.sleep(0.005)
    raise AssertionError(f"not within {LIMIT} seconds: {what}")


class Run(ABC):
    """A run as somebody outside sees it, who has nothing but its requests."""

    releases = 0
    """How often the run was out of memory when something was sent to it."""

    @abstractmethod
    async def open(self) -> list[ReviewRequestEvent]:
        """Wait until the run rests, and return the requests that are open, oldest first."""

    @abstractmethod
    async def send(self, event: Event) -> str:
        """Send an event when the run rests; return `ok`, or the code of the refusal."""

    @abstractmethod
    async def result(self) -> Any:
        """Wait for the end and return the result, as JSON."""

    @abstractmethod
    async def ended(self) -> bool:
        """Tell, when nothing can advance, whether the run is over."""


class Memory(Run):
    """A run in this process, on the runtime that a workflow has by default."""

    def __init__(self, flow: type[Workflow], **start: Any) -> None:
        self.live = Live(flow, **start)

    async def open(self) -> list[ReviewRequestEvent]:
        await self._rest()
        asked = {e.request_id: e for e in of_kind(self.live.seen, ReviewRequestEvent)}
        for told in of_kind(self.live.seen, ReviewUpdatedEvent):
            if told.outcome.status is not RequestStatus.OPEN:
                asked.pop(told.request_id, None)
        return list(asked.values())

    async def _rest(self) -> None:
        if not self.live.ended:
            await self.live.pause()

    async def send(self, event: Event) -> str:
        await self._rest()
        return (codes(await self.live.tell(event)) or ["ok"])[0]

    async def result(self) -> Any:
        await self._rest()
        result = await self.live.result()
        return result.model_dump(mode="json") if isinstance(result, Event) else result

    async def ended(self) -> bool:
        await self._rest()
        return self.live.ended


class Served(Run):
    """A run of a server, which is out of memory before anything is sent to it."""

    def __init__(self, server: WorkflowServer, client: httpx.AsyncClient, handler_id: str) -> None:
        self.server = server
        self.client = client
        self.handler_id = handler_id
        self.store = server._workflow_store

    async def handler(self) -> PersistentHandler:
        """Return what the server keeps of the run."""
        (found,) = await self.store.query(HandlerQuery(handler_id_in=[self.handler_id]))
        return found

    async def released(self) -> PersistentHandler | None:
        """Return what is stored of the run if it is not in memory."""
        handler = await self.handler()
        if handler.status != "running":
            return handler
        if handler.idle_since is None:
            return None
        for layer in layers_of(self.server._runtime):
            if isinstance(layer, IdleReleaseDecorator) and handler.run_id in layer._active_run_ids:
                return None  # on DBOS it is idle when it is released, and not before
        return handler

    async def ended(self) -> bool:
        return (await until(self.released, "the run rests")).status != "running"

    async def open(self) -> list[ReviewRequestEvent]:
        await self.ended()
        response = await self.client.get(f"/handlers/{self.handler_id}/requests")
        assert response.status_code == 200, response.text
        records = [ReviewRecord.model_validate(each) for each in response.json()["requests"]]
        return [ReviewRequestEvent(request=record.request) for record in records]

    async def post(self, event: Event | dict[str, Any], **body: Any) -> httpx.Response:
        """Send an event as it is, whether or not the run rests."""
        if isinstance(event, Event):
            event = {"type": type(event).__name__, "value": event.model_dump(mode="json")}
        return await self.client.post(f"/events/{self.handler_id}", json={"event": event, **body})

    async def send(self, event: Event) -> str:
        if not await self.ended():
            self.releases += 1
        response = await self.post(event)
        if response.status_code == 200:
            assert response.json()["status"] == "sent"
            return "ok"
        return str(response.json().get("code", response.status_code))

    async def result(self) -> Any:
        handler = await until(self._over, "the run ends")
        assert handler.status == "completed", handler.error
        response = await self.client.get(f"/results/{self.handler_id}")
        assert response.status_code == 200, response.text
        return response.json()["result"]

    async def _over(self) -> PersistentHandler | None:
        handler = await self.handler()
        return handler if handler.status != "running" else None


@contextlib.asynccontextmanager
async def serving(server: WorkflowServer) -> AsyncIterator[httpx.AsyncClient]:
    """Serve on a free port of this machine."""
    config = uvicorn.Config(server.app, host="127.0.0.1", port=0, log_level="warning", ws="none")
    http = uvicorn.Server(config)
    task = asyncio.create_task(http.serve())
    await until(lambda: http.started or task.done(), "the server starts")
    try:
        port = http.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=LIMIT) as client:
            yield client
    finally:
        http.should_exit = True
        await task


Start = Callable[..., Any]
_NUMBERS = itertools.count()


@contextlib.asynccontextmanager
async def runs_of(
    server: WorkflowServer, flow: type[Workflow], events: list[type[Event]] | None = None
) -> AsyncIterator[Start]:
    """Serve one workflow and give the function that starts its runs."""
    # llama-agents-dbos cannot register the same name twice in one process.
    name = f"flow-{next(_NUMBERS)}"
    server.add_workflow(name, flow(), events)
    async with serving(server) as client:

        async def start(**start_event: Any) -> Served:
            response = await client.post(
                f"/workflows/{name}/run-nowait", json={"start_event": start_event}
            )
            assert response.status_code == 200, response.text
            return Served(server, client, response.json()["handler_id"])

        yield start


def sqlite_server(path: Path, **options: Any) -> ReviewServer:
    """Return a server that keeps its runs in a file."""
    store = SqliteWorkflowStore(str(path / "runs.db"), poll_interval=0.05)
    return ReviewServer(**{"workflow_store": store, "idle_timeout": IDLE, **options})


def configure_dbos(path: Path) -> Any:
    """Return a DBOS runtime that keeps its runs in a file."""
    from dbos import DBOS
    from llama_agents.dbos import DBOSRuntime

    DBOS(
        config={
            "name": "hitl-tests",
            "system_database_url": f"sqlite:///{path / 'dbos.db'}",
            "run_admin_server": False,
            "notification_listener_polling_interval_sec": 0.01,
            "log_level": "ERROR",
        }
    )
    return DBOSRuntime(polling_interval_sec=0.02)


def dbos_server(path: Path, **options: Any) -> ReviewServer:
    """Return a server whose runs are on DBOS, in a file."""
    from llama_index_hitl.runtimes.dbos import review_server

    return review_server(configure_dbos(path), **{"idle_timeout": IDLE, **options})


def plain(request_id: str, response: str = "approve", by: str = "erin") -> HumanResponseEvent:
    """Return an answer in the words of upstream."""
    return HumanResponseEvent(request_id=request_id, response=response, by=by)
