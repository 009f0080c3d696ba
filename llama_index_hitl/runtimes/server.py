"""A WorkflowServer that takes answers, and says what became of them. Extra: `server`.

```python
server = ReviewServer(workflow_store=SqliteWorkflowStore("runs.db"), identify=who_is_it)
server.add_workflow("publishing", Publishing(timeout=None))
await server.serve(port=8000)
```

- `GET /handlers/{handler_id}/requests`: the open requests of a run, as `ReviewRecord`s, whether or
  not it is in memory and without a stream.
- `POST /events/{handler_id}`: as upstream's, for answers. It tells what the run made of the answer:
  200 with a receipt if it counts, also for the same answer again; else an error that says why.
- `POST /handlers/{handler_id}/cancel`: as upstream's, also for a run that is not in memory.

| status | code |
| --- | --- |
| 403 | `forbidden_event`, `not_allowed` |
| 404 | `unknown_request`, or there is no such handler |
| 409 | `already_answered`, `stale_request`, `expired`, `run_over` |
| 422 | `invalid_answer` |

An answer that the run has not got round to in time gets 202: it will be looked at, and the same
answer again tells what came of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from workflows import Workflow
from workflows.events import Event, HumanResponseEvent, StopEvent

from llama_index_hitl._extras import require
from llama_index_hitl.errors import AnswerRefused, FieldProblem, InvalidAnswer
from llama_index_hitl.events import ReviewOutcomeEvent, ReviewRefusedEvent, ReviewResponseEvent
from llama_index_hitl.models import Reviewer, ReviewRecord
from llama_index_hitl.runtimes.errors import ForbiddenEvent, UnsafeRuntime

require("llama_agents.server", extra="server", purpose="serving workflows")

from llama_agents.client.protocol.serializable_events import (  # type: ignore[import-untyped]  # noqa: E402
    EventEnvelope,
    EventValidationError,
)
from llama_agents.server import (  # noqa: E402
    AbstractWorkflowStore,
    HandlerQuery,
    MemoryWorkflowStore,
    PersistentHandler,
    WorkflowServer,
)
from starlette.exceptions import HTTPException  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402
from starlette.middleware.cors import CORSMiddleware  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import JSONResponse, Response  # noqa: E402
from starlette.routing import Route  # noqa: E402
from workflows.plugins.basic import BasicRuntime  # noqa: E402
from workflows.runtime.types.plugin import Runtime  # noqa: E402

from llama_index_hitl.runtimes._agents import make_servable  # noqa: E402
from llama_index_hitl.runtimes._intake import Intake, Message, is_for_requests  # noqa: E402
from llama_index_hitl.runtimes._upstream import (  # noqa: E402
    cancel_as_upstream,
    durable_runtime,
    is_terminal_status,
    layers_of,
    send,
    serve_agents,
    store_of,
)

__all__ = ["Identify", "ReviewServer"]

Identify = Callable[[Request], Reviewer | Awaitable[Reviewer]]
"""Says who sends a request over HTTP, as your sign-in knows them, or raises HTTPException."""

_CODES = {
    "unknown_request": 404,
    "already_answered": 409,
    "stale_request": 409,
    "expired": 409,
    "run_over": 409,
    "not_allowed": 403,
    "forbidden_event": 403,
}


class ReviewServer(WorkflowServer):
    """A WorkflowServer on which an answer counts once, for its own request, or is refused.

    Against upstream's: only answers can be sent to a run; each gets to know what became of it; when
    an answer was given is what the clock here says; a run that waits is not garbage collected; one
    that works is not released, and one that is released can be cancelled; pages of other origins
    cannot call it (give `middleware` to let them), and an event must come as `application/json`.

    One process at a time may serve the runs of a store, unless they run on DBOS.

    Agents of LlamaIndex can be served, and keep their memory, unless they were given a serializer.
    A process that dies in the middle of a step of an agent has that step repeated, with what it
    does to the memory and with the call of a tool: there is no ledger of effects here. Where that
    matters, drive the agent with a `Runner`.

    Args:
        identify: Who sends an answer. Their id must be the one in the answer, and their roles are
            what counts. None: an answer says who it is from, and is believed.
        patience: Seconds to wait for what a run says about an answer.
        middleware: As upstream; by default other origins are refused.
        workflow_store: As upstream; by default runs do not survive the process.
        runtime: As upstream. On DBOS, see `llama_index_hitl.runtimes.dbos.review_server`.
        idle_timeout: Seconds after which a run that waits is released from memory.
        accept_context_api: Must be False: a client that brings a context brings its approvals.
        **options: As upstream.

    Raises:
        UnsafeRuntime: With these arguments the promises cannot be kept.
        MissingExtra: llama-agents-server is not installed; raised on import.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> server = ReviewServer()
        >>> server.add_workflow("draft", DraftApproval())  # then `await server.serve(port=8000)`
        >>> sorted(server.get_workflows())
        ['draft']
    """

    def __init__(
        self,
        *,
        identify: Identify | None = None,
        patience: float = 30.0,
        middleware: Sequence[Middleware] = (),
        workflow_store: AbstractWorkflowStore | None = None,
        runtime: Runtime | None = None,
        idle_timeout: float = 60.0,
        accept_context_api: bool = False,
        **options: Any,
    ) -> None:
        if accept_context_api:
            raise UnsafeRuntime(
                "accept_context_api=True lets a client start a run from a context of its own, with "
                "approvals that nobody gave. Leave it False."
            )
        store = workflow_store if workflow_store is not None else MemoryWorkflowStore()
        if runtime is None:
            runtime = durable_runtime(store, idle_timeout)
        _refuse_unsafe(runtime)
        super().__init__(
            middleware=list(middleware) or [Middleware(CORSMiddleware)],
            workflow_store=store,
            runtime=runtime,
            idle_timeout=idle_timeout,
            **options,
        )
        serve_agents(self)
        self._identify = identify
        self._intake = Intake(self, patience)
        # In front of upstream's own, which has no such check.
        self.app.router.routes[:0] = [
            Route("/events/{handler_id}", self._post, methods=["POST"], include_in_schema=False),
            Route("/handlers/{handler_id}/requests", self._list, include_in_schema=False),
            Route(
                "/handlers/{handler_id}/cancel",
                self._cancel,
                methods=["POST"],
                include_in_schema=False,
            ),
        ]

    def add_workflow(
        self,
        name: str,
        workflow: Workflow,
        additional_events: list[type[Event]] | None = None,
    ) -> None:
        """Serve a workflow; an agent is changed so that its runs can be written down.

        Args:
            name: Name of the workflow in URLs.
            workflow: The workflow; make it with `timeout=None`.
            additional_events: Events, beside `HumanResponseEvent` and its subclasses, that clients
                may send to its runs.

        Raises:
            UnsafeRuntime: One of the events says that something was decided.
        """
        _refuse_forgeries(additional_events or ())
        make_servable(workflow)
        super().add_workflow(name, workflow, additional_events)

    async def _list(self, http: Request) -> JSONResponse:
        handler, workflow = await self._run_of(http)
        records = await self._intake.open_records(handler, workflow)
        return JSONResponse({"requests": [record.model_dump(mode="json") for record in records]})

    async def _post(self, http: Request) -> JSONResponse:
        handler, workflow = await self._run_of(http)
        by = await self._sender(http)
        body = await _body_of(http)
        extra = self.additional_events.get(handler.workflow_name, ())
        event = _event_in(body, [*workflow.events, *extra, ReviewResponseEvent])
        try:
            if not isinstance(event, (HumanResponseEvent, *extra)):
                raise ForbiddenEvent(type(event).__name__)
            if not is_for_requests(workflow, event):
                return await self._pass_on(handler, event, body.get("step"))
            if body.get("step") is not None:
                raise InvalidAnswer(None, [FieldProblem("step", "an answer finds its own way")])
            came_of_it = await self._intake.take(Message(handler, workflow, event, by))
        except AnswerRefused as error:
            return _refusal(error.code, str(error), error)
        if came_of_it is None:
            return JSONResponse({"status": "sent"}, status_code=202)
        if isinstance(came_of_it, ReviewRefusedEvent):
            return _refusal(came_of_it.code, came_of_it.reason, came_of_it)
        return _receipt(came_of_it)

    async def _cancel(self, http: Request) -> Response:
        handler = await self._handler_of(http)
        served = handler.workflow_name in self.get_workflows()
        if served and not is_terminal_status(handler.status):
            over = await self._intake.cancel(handler)
            if over and http.query_params.get("purge", "").lower() != "true":
                return JSONResponse({"status": "cancelled"})
        return await cancel_as_upstream(self, http)

    async def _run_of(self, http: Request) -> tuple[PersistentHandler, Workflow]:
        handler = await self._handler_of(http)
        workflow = self.get_workflows().get(handler.workflow_name)
        if workflow is None:
            raise HTTPException(404, f"Workflow {handler.workflow_name} is not registered")
        return handler, workflow

    async def _handler_of(self, http: Request) -> PersistentHandler:
        query = HandlerQuery(handler_id_in=[http.path_params["handler_id"]])
        found = await store_of(self).query(query)
        if not found:
            raise HTTPException(404, "Handler not found")
        return found[0]

    async def _sender(self, http: Request) -> Reviewer | None:
        if self._identify is None:
            return None
        found = self._identify(http)
        return await found if inspect.isawaitable(found) else found

    async def _pass_on(
        self, handler: PersistentHandler, event: Event, step: str | None
    ) -> JSONResponse:
        """Do as upstream does with an event that answers none of our requests."""
        if is_terminal_status(handler.status) or handler.run_id is None:
            raise HTTPException(409, "Workflow already completed")
        await send(self, handler.run_id, event, step)
        return JSONResponse({"status": "sent"})


async def _body_of(http: Request) -> dict[str, Any]:
    # A page of another origin can send anything else without asking the browser.
    if http.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "Send the event as application/json")
    try:
        body = await http.json()
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"This is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise HTTPException(400, 'Send {"event": {"type": ..., "value": ...}}')
    return body


def _event_in(body: dict[str, Any], kinds: Iterable[type[Event]]) -> Event:
    try:
        event: Event = EventEnvelope.parse(
            body.get("event") or {}, {kind.__name__: kind for kind in kinds}
        )
    except EventValidationError as error:
        raise HTTPException(400, str(error)) from None
    return event


def _receipt(record: ReviewRecord) -> JSONResponse:
    """Return the same for the same answer, whenever it is sent."""
    return JSONResponse({"status": "sent", "record": record.model_dump(mode="json")})


def _refusal(code: str, reason: str, found: AnswerRefused | ReviewRefusedEvent) -> JSONResponse:
    problems = [{"field": p.field, "message": p.message} for p in found.problems]
    body = {"detail": reason, "code": code, "request_id": found.request_id, "problems": problems}
    return JSONResponse(body, status_code=_CODES.get(code, 422))


def _refuse_forgeries(kinds: Iterable[type[Event]]) -> None:
    for kind in kinds:
        if issubclass(kind, ReviewOutcomeEvent | StopEvent):
            raise UnsafeRuntime(
                f"additional_events=[{kind.__name__}] would let a client say what was decided; "
                "only gates may."
            )


def _refuse_unsafe(runtime: Runtime) -> None:
    for layer in layers_of(runtime):
        if type(layer) is BasicRuntime:
            raise UnsafeRuntime(
                "BasicRuntime loses runs that wait while nobody streams them: the garbage "
                "collector takes them. Leave runtime= out."
            )
        if type(layer).__name__ == "DBOSIdleReleaseDecorator":
            raise UnsafeRuntime(
                "build_server_runtime() of llama-agents-dbos 0.7 forgets an answer that wakes a "
                "run, and cannot wake it a second time. Use "
                "llama_index_hitl.runtimes.dbos.review_server(runtime)."
            )
