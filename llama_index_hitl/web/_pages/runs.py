"""The pages of runs: the list, and each run with what happens in it, live."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from llama_index_hitl.authorizers import Action
from llama_index_hitl.errors import HitlError
from llama_index_hitl.models import RequestStatus, Reviewer
from llama_index_hitl.stores.protocol import RunQuery, RunStatus, StoredRequest
from llama_index_hitl.web import _running
from llama_index_hitl.web._listing import listed_runs
from llama_index_hitl.web._pages import page, redirect
from llama_index_hitl.web._pages._results import ResultView, result_view
from llama_index_hitl.web._pages._timeline import Moment, feed_of, moments
from llama_index_hitl.web._running import SeenRun, seen_run
from llama_index_hitl.web._site import Site, site_of
from llama_index_hitl.web._views import RequestSummary, RunView, summary_of
from llama_index_hitl.web.people import Person

ROWS = 30
"""Runs on one page of the list."""

STATUS_WORDS = {
    RunStatus.RUNNING: ("Running", "accent"),
    RunStatus.WAITING: ("Waiting for people", "warn"),
    RunStatus.FINISHED: ("Finished", "good"),
    RunStatus.FAILED: ("Failed", "bad"),
    RunStatus.CANCELLED: ("Cancelled", ""),
}
"""What the statuses of runs are called, with their tone."""

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """A run as it stands in the list.

    Attributes:
        about: What it is about, as far as its reader may see one of its requests.
        asks_you: Whether it waits for its reader.
    """

    run: RunView
    about: str
    asks_you: bool


@dataclass(frozen=True, kw_only=True)
class Live:
    """What the page of a run shows, and shows anew while the run goes on.

    Attributes:
        run: The run.
        about: What it is about, as far as its reader may see one of its requests.
        asked: Its open requests, as far as its reader may see them.
        moments: What happened, in order.
        cursor: The place in the feed up to which this was read.
        masked: Whether something in it is hidden from its reader.
        result: What it came to; None: nothing yet, or it cannot be read here, or by them.
        may_cancel: Whether its reader may end it.
        may_retry: Whether its reader may let it try again.
        is_over: Whether nothing more will happen by itself.
    """

    run: RunView
    about: str
    asked: tuple[RequestSummary, ...]
    moments: tuple[Moment, ...]
    cursor: str | None
    masked: bool
    result: ResultView | None
    may_cancel: bool
    may_retry: bool
    is_over: bool


@router.get("/runs", name="runs")
async def list_page(
    request: Request,
    person: Person,
    workflow: str = "",
    status: str = "",
    tag: str = "",
    mine: bool = False,
    after: Annotated[str | None, Query()] = None,
) -> Response:
    """Show the runs that this person may see, the newest first."""
    site = site_of(request)
    query = RunQuery(
        workflow=workflow or None,
        status=RunStatus(status) if status in set(RunStatus) else None,
        tag=tag or None,
        started_by=person.id if mine else None,
        limit=ROWS,
        after=after,
    )
    found = await listed_runs(site, person, query)
    return page(
        request,
        "runs.html",
        person=person,
        rows=[_row(site, person, shown) for shown in found],
        after=found.after,
        is_first=after is None,
        filters={"workflow": workflow, "status": status, "tag": tag, "mine": mine},
        workflows=sorted(site.runner.workflows),
        status_words=STATUS_WORDS,
    )


@router.get("/runs/{run_id}", name="run")
async def run_page(request: Request, person: Person, run_id: str, whole: bool = False) -> Response:
    """Show a run as it stands; a script shows what happens from then on."""
    live = await _live(site_of(request), person, run_id, whole=whole)
    return _shown(request, person, "run.html", live)


@router.get("/runs/{run_id}/live", name="run_live")
async def run_live(request: Request, person: Person, run_id: str) -> Response:
    """Return the part of the page that changes while a run goes on."""
    live = await _live(site_of(request), person, run_id)
    return _shown(request, person, "partials/run_live.html", live)


@router.post("/runs/{run_id}/cancel", name="cancel_run")
async def cancel_run(request: Request, person: Person, run_id: str) -> Response:
    """End a run for good."""
    await _running.cancel(site_of(request), person, run_id)
    return redirect(request, "run", run_id=run_id)


@router.post("/runs/{run_id}/retry", name="retry_run")
async def retry_run(request: Request, person: Person, run_id: str) -> Response:
    """Let a failed run try again from its last pause."""
    await _running.retry(site_of(request), person, run_id)
    return redirect(request, "run", run_id=run_id)


def _shown(request: Request, person: Reviewer, template: str, live: Live) -> Response:
    return page(
        request, template, person=person, live=live, run=live.run, status_words=STATUS_WORDS
    )


async def _live(site: Site, person: Reviewer, run_id: str, *, whole: bool = False) -> Live:
    # The feed first: what is stored while the rest is read is told again, and nothing is missed.
    feed = await feed_of(site.runner.store, run_id)
    shown = await seen_run(site, person, run_id)
    rows = await site.runner.history(run_id)
    now, run = site.clock(), shown.view()
    asked = tuple(
        summary_of(stored, person, now)
        for stored in shown.requests
        if stored.record.status is RequestStatus.OPEN
    )
    ended = run.status in (RunStatus.FINISHED, RunStatus.CANCELLED)

    def may(action: Action) -> bool:
        return site.visibility.may_act(person, action, shown.run, None)

    return Live(
        run=run,
        about=_about(shown.requests),
        asked=asked,
        moments=tuple(
            moments(feed, rows, {s.request_id: s for s in shown.requests}, masked=shown.masked)
        ),
        cursor=feed[-1].cursor if feed else None,
        masked=shown.masked,
        result=await _result(site, shown, whole=whole),
        may_cancel=not ended and may(Action.CANCEL),
        may_retry=run.status is RunStatus.FAILED and may(Action.RETRY),
        is_over=ended or run.status is RunStatus.FAILED,
    )


async def _result(site: Site, shown: SeenRun, *, whole: bool) -> ResultView | None:
    if shown.run.status is not RunStatus.FINISHED or shown.masked:
        return None  # it may hold what is hidden
    try:
        return result_view(await site.runner.result(shown.run.run_id), whole=whole)
    except HitlError:
        return None  # it takes the workflow's code to read it


def _row(site: Site, person: Reviewer, shown: SeenRun) -> RunRow:
    now = site.clock()
    asks = any(summary_of(stored, person, now).can_answer for stored in shown.requests)
    return RunRow(run=shown.view(), about=_about(shown.requests), asks_you=asks)


def _about(shown: Iterable[StoredRequest]) -> str:
    """Return the title of the first thing that was asked."""
    first = min(shown, key=lambda stored: stored.record.request.created_at, default=None)
    return "" if first is None else first.record.request.title
