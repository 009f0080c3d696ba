"""The pages of runs: the list, and each run with what happens in it, live."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from llama_index_hitl.authorizers import Action
from llama_index_hitl.errors import Forbidden, HitlError, UnknownRun
from llama_index_hitl.models import RequestStatus, Reviewer
from llama_index_hitl.stores.paging import all_requests
from llama_index_hitl.stores.protocol import (
    Cursor,
    RequestQuery,
    Run,
    RunQuery,
    RunStatus,
    Store,
    StoredRequest,
)
from llama_index_hitl.web._pages import page, redirect
from llama_index_hitl.web._pages._results import ResultView, result_view
from llama_index_hitl.web._pages._timeline import Moment, feed_of, moments
from llama_index_hitl.web._site import Site, site_of
from llama_index_hitl.web._views import RequestSummary, RunView, run_view, summary_of
from llama_index_hitl.web.people import Person

ROWS = 30
"""Runs on one page of the list."""

_LOOKS = 10
"""How often the store is asked for one page, where its reader may see few of the runs."""

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
        hidden: How many more are open.
        moments: What happened, in order.
        cursor: The place in the feed up to which this was read.
        result: What it came to; None: nothing yet, or it cannot be read here.
        may_cancel: Whether its reader may end it.
        may_retry: Whether its reader may let it try again.
        is_over: Whether nothing more will happen by itself.
    """

    run: RunView
    about: str
    asked: tuple[RequestSummary, ...]
    hidden: int
    moments: tuple[Moment, ...]
    cursor: str | None
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
    rows, further = await _rows(site, person, query)
    return page(
        request,
        "runs.html",
        person=person,
        rows=rows,
        after=further,
        is_first=after is None,
        filters={"workflow": workflow, "status": status, "tag": tag, "mine": mine},
        workflows=sorted(site.runner.workflows),
        status_words=STATUS_WORDS,
    )


@router.get("/runs/{run_id}", name="run")
async def run_page(request: Request, person: Person, run_id: str) -> Response:
    """Show a run as it stands; a script shows what happens from then on."""
    live = await _live(site_of(request), person, run_id)
    return _shown(request, person, "run.html", live)


@router.get("/runs/{run_id}/live", name="run_live")
async def run_live(request: Request, person: Person, run_id: str) -> Response:
    """Return the part of the page that changes while a run goes on."""
    live = await _live(site_of(request), person, run_id)
    return _shown(request, person, "partials/run_live.html", live)


@router.post("/runs/{run_id}/cancel", name="cancel_run")
async def cancel_run(request: Request, person: Person, run_id: str) -> Response:
    """End a run for good."""
    site = site_of(request)
    await _refuse(site, person, run_id, Action.CANCEL)
    await site.runner.cancel(run_id, by=person)
    site.hub.ring()
    return redirect(request, "run", run_id=run_id)


@router.post("/runs/{run_id}/retry", name="retry_run")
async def retry_run(request: Request, person: Person, run_id: str) -> Response:
    """Let a failed run try again from its last pause."""
    site = site_of(request)
    await _refuse(site, person, run_id, Action.RETRY)
    await site.runner.retry(run_id, by=person)
    return redirect(request, "run", run_id=run_id)


def _shown(request: Request, person: Reviewer, template: str, live: Live) -> Response:
    return page(
        request, template, person=person, live=live, run=live.run, status_words=STATUS_WORDS
    )


async def _refuse(site: Site, person: Reviewer, run_id: str, action: Action) -> None:
    """Refuse what somebody may not do.

    Raises:
        UnknownRun: There is no such run, or they may not see it.
        Forbidden: They may not do this.
    """
    run, _ = await seen(site, person, run_id)
    if not site.visibility.may_act(person, action, run, None):
        raise Forbidden(f"Only {run.started_by or 'an administrator'} may {action} this run.")


async def _live(site: Site, person: Reviewer, run_id: str) -> Live:
    # The feed first: what is stored while the rest is read is told again, and nothing is missed.
    feed = await feed_of(site.runner.store, run_id)
    run, requests = await seen(site, person, run_id)
    shown = {
        stored.request_id: made
        for stored in requests
        if (made := site.visibility.shown(person, stored)) is not None
    }
    now = site.clock()
    still_open = [stored for stored in requests if stored.record.status is RequestStatus.OPEN]
    asked = [
        summary_of(shown[s.request_id], person, now) for s in still_open if s.request_id in shown
    ]
    happened = moments(feed, await site.runner.history(run_id), shown)

    def may(action: Action) -> bool:
        return site.visibility.may_act(person, action, run, None)

    ended = run.status in (RunStatus.FINISHED, RunStatus.CANCELLED)
    return Live(
        run=run_view(run),
        about=_about(shown.values()),
        asked=tuple(asked),
        hidden=len(still_open) - len(asked),
        moments=tuple(happened),
        cursor=feed[-1].cursor if feed else None,
        result=await _result(site, run),
        may_cancel=not ended and may(Action.CANCEL),
        may_retry=run.status is RunStatus.FAILED and may(Action.RETRY),
        is_over=ended or run.status is RunStatus.FAILED,
    )


async def _result(site: Site, run: Run) -> ResultView | None:
    if run.status is not RunStatus.FINISHED:
        return None
    try:
        return result_view(await site.runner.result(run.run_id))
    except HitlError:
        return None  # it takes the workflow's code to read it


async def _rows(
    site: Site, person: Reviewer, query: RunQuery
) -> tuple[list[RunRow], Cursor | None]:
    """Return a page of the runs that somebody may see, and where the next one begins."""
    rows: list[RunRow] = []
    after = query.after
    for _ in range(_LOOKS):
        found = await site.runner.store.runs(replace(query, after=after))
        after = found.after
        rows += [row for run in found if (row := await _row(site, person, run)) is not None]
        if after is None or len(rows) >= query.limit // 2:
            break
    return rows, after


async def _row(site: Site, person: Reviewer, run: Run) -> RunRow | None:
    requests = await requests_of(site.runner.store, run.run_id)
    if not site.visibility.sees_run(person, run, requests):
        return None
    now = site.clock()
    shown = [s for r in requests if (s := site.visibility.shown(person, r)) is not None]
    asks = any(summary_of(stored, person, now).can_answer for stored in shown)
    return RunRow(run=run_view(run), about=_about(shown), asks_you=asks)


async def seen(site: Site, person: Reviewer, run_id: str) -> tuple[Run, Sequence[StoredRequest]]:
    """Return a run that somebody may see, with all its requests, not yet fit for them.

    Raises:
        UnknownRun: There is none, or none that they may see.
    """
    run = await site.runner.get_run(run_id)
    requests = await requests_of(site.runner.store, run_id)
    if not site.visibility.sees_run(person, run, requests):
        raise UnknownRun(run_id)
    return run, requests


async def requests_of(store: Store, run_id: str) -> Sequence[StoredRequest]:
    """Return all requests of a run, the oldest first."""
    query = RequestQuery(run_id=run_id, open=None, limit=200)
    found = [stored async for stored in all_requests(store, query)]
    return sorted(found, key=lambda stored: stored.record.request.created_at)


def _about(shown: Iterable[StoredRequest]) -> str:
    """Return the title of the first thing that was asked."""
    return next((stored.record.request.title for stored in shown), "")
