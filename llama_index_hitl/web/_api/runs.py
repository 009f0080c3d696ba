"""Runs: start, look at, end, and try again."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from fastapi import APIRouter, Body, Query, Response
from pydantic import Field, JsonValue, StringConstraints
from starlette.requests import Request

from llama_index_hitl.models import JsonObject, Value
from llama_index_hitl.stores.protocol import RunQuery, RunStatus
from llama_index_hitl.web import _running
from llama_index_hitl.web._api import _examples
from llama_index_hitl.web._api._documented import RunId, example, failing
from llama_index_hitl.web._api._strict import StrictRoute
from llama_index_hitl.web._listing import listed_runs
from llama_index_hitl.web._site import site_of
from llama_index_hitl.web._trail import Trail, trail_of
from llama_index_hitl.web._views import RunView
from llama_index_hitl.web.people import Person

router = APIRouter(tags=["runs"], route_class=StrictRoute)


NewRunId: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$")
]


class StartBody(Value):
    """What to start.

    Attributes:
        workflow: Name of the workflow, as `GET /api/workflows` has it.
        inputs: The fields of its start event.
        run_id: Id to give it, so that the start can be repeated safely: letters, digits, and
            `.`, `_`, `:`, `-` between them. None: a new one.
        wait: Answer only when the run waits for people or is over. It goes on even if you do not
            wait for it any longer. False: it is stored, and begun soon.
    """

    workflow: str
    inputs: JsonObject = Field(default_factory=dict)
    run_id: NewRunId | None = None
    wait: bool = False


class RunList(Value):
    """A page of runs.

    Attributes:
        items: The runs, the newest first; fewer than `limit` do not mean that there are no more.
        after: Give this to get the next page; null: there is no more.
    """

    items: tuple[RunView, ...]
    after: str | None = None


class RunResult(Value):
    """What a run came to."""

    run_id: str
    result: JsonValue


class RunFilters(Value):
    """Which runs to list; what is left out does not narrow it."""

    workflow: str | None = Field(None, description="Of this workflow.")
    status: RunStatus | None = Field(None, description="With this status.")
    tag: str | None = Field(None, description="With this tag.")
    started_by: str | None = Field(None, description="Started by the person with this id.")
    limit: int = Field(50, ge=1, le=100, description="How many at most.")
    after: str | None = Field(None, description="The `after` of the page before.")


class CancelBody(Value):
    """Why a run is ended."""

    reason: str = Field("", max_length=10_000)


@router.post(
    "/runs",
    status_code=202,
    summary="Start a run",
    responses={
        **example(_examples.RUN, 200, "You have started this very run before."),
        **example(_examples.RUN, 201, "It was started, and waits for people or is over."),
        **example({**_examples.RUN, "status": "running", "open_requests": []}, 202, "Stored."),
        **failing("unknown_workflow", "run_exists", "too_large", "invalid_start"),
    },
)
async def start_run(
    request: Request,
    response: Response,
    person: Person,
    body: Annotated[StartBody, Body(openapi_examples=_examples.STARTS)],
) -> RunView:
    """Start a run of a workflow, in your name.

    With a `run_id`, a start can be sent again: the same run of yours is returned, whatever the
    inputs say, and nothing is started twice.
    """
    site = site_of(request)
    run, is_new = await _running.start(
        site, person, body.workflow, body.inputs, run_id=body.run_id, wait=body.wait
    )
    if not is_new:
        response.status_code = 200
    elif body.wait:
        response.status_code = 201
    return (await _running.seen_run(site, person, run.run_id)).view()


@router.get(
    "/runs",
    summary="List runs",
    responses={
        **example({"items": [_examples.RUN], "after": None}),
        **failing("invalid_cursor"),
    },
)
async def list_runs(
    request: Request, person: Person, filters: Annotated[RunFilters, Query()]
) -> RunList:
    """Return runs that you may see: those that you started, and those with a request of yours.

    At most 200 stored runs are looked at for one page, so it may have fewer than `limit`, or none,
    and yet not be the last.
    """
    query = RunQuery(**dict(filters))
    page = await listed_runs(site_of(request), person, query)
    return RunList(items=tuple(shown.view() for shown in page), after=page.after)


@router.get(
    "/runs/{run_id}",
    summary="One run",
    responses={**example(_examples.RUN), **failing("unknown_run")},
)
async def get_run(request: Request, person: Person, run_id: RunId) -> RunView:
    """Return how a run stands, and which of its requests that you may see are open."""
    return (await _running.seen_run(site_of(request), person, run_id)).view()


@router.get(
    "/runs/{run_id}/result",
    summary="What a run came to",
    responses={
        **example(_examples.RESULT),
        **failing("forbidden", "unknown_run", "still_waiting", "run_failed", "run_ended"),
    },
)
async def get_result(request: Request, person: Person, run_id: RunId) -> RunResult:
    """Return the result of a finished run as JSON.

    If fields of one of its requests are hidden from you, so is the result, which may hold them.
    """
    result = await _running.result_of(site_of(request), person, run_id)
    return RunResult(run_id=run_id, result=result)


@router.get(
    "/runs/{run_id}/audit",
    summary="The audit trail of a run, checked",
    responses={**example(_examples.TRAIL), **failing("unknown_run")},
)
async def get_audit(request: Request, person: Person, run_id: RunId) -> Trail:
    """Return what happened in a run, row by row, and whether anybody has tampered with it."""
    return await trail_of(site_of(request), person, run_id)


@router.post(
    "/runs/{run_id}/cancel",
    summary="End a run",
    responses={
        **example({**_examples.RUN, "status": "cancelled", "open_requests": []}),
        **failing("forbidden", "unknown_run", "run_ended", "too_large"),
    },
)
async def cancel_run(
    request: Request, person: Person, run_id: RunId, body: CancelBody | None = None
) -> RunView:
    """End a run for good; its open requests are withdrawn. Whoever started it may, and admins."""
    site = site_of(request)
    reason = body.reason if body is not None else ""
    await _running.cancel(site, person, run_id, reason=reason)
    return (await _running.seen_run(site, person, run_id)).view()


@router.post(
    "/runs/{run_id}/retry",
    summary="Try a failed run again",
    responses={
        **example(_examples.RUN),
        **failing("forbidden", "unknown_run", "run_ended", "run_busy"),
    },
)
async def retry_run(request: Request, person: Person, run_id: RunId) -> RunView:
    """Go on from a failed run's last pause, with the same answers, to its next pause or its end.

    Whoever started it may, and admins.
    """
    site = site_of(request)
    await _running.retry(site, person, run_id)
    return (await _running.seen_run(site, person, run_id)).view()
