"""Requests: list, look at, claim, and take back."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, Field
from starlette.requests import Request

from llama_index_hitl.models import Priority, Value
from llama_index_hitl.web import _running
from llama_index_hitl.web._answering import seen
from llama_index_hitl.web._api import _examples
from llama_index_hitl.web._api._documented import RequestId, example, failing
from llama_index_hitl.web._api._strict import StrictRoute
from llama_index_hitl.web._listing import Filters, Standing, View, listed
from llama_index_hitl.web._site import site_of
from llama_index_hitl.web._views import (
    ClaimView,
    RequestDetail,
    RequestSummary,
    detail_of,
    summary_of,
)
from llama_index_hitl.web.people import Person

router = APIRouter(tags=["requests"], route_class=StrictRoute)


class RequestList(Value):
    """A page of requests.

    Attributes:
        items: The most urgent first, among those the oldest first; fewer than `limit` do not mean
            that there are no more.
        after: Give this to get the next page; null: there is no more.
    """

    items: tuple[RequestSummary, ...]
    after: str | None = None


class RequestFilters(Value):
    """Which requests to list; what is left out does not narrow it."""

    view: View = Field(
        "mine",
        description="`mine`: open ones that you can answer and have not, closed ones that you "
        "answered or were asked; `roles`: those of them that are for a role of yours; `all`: "
        "everything that you see, with what the newest 200 runs that you started ask others.",
    )
    status: Standing = Field("open", description="Open ones, closed ones, or both.")
    workflow: str | None = Field(None, description="Asked by the workflow of this name.")
    gate: str | None = Field(None, description="Asked by this gate.")
    tag: str | None = Field(None, description="With this tag.")
    priority: Priority | None = Field(None, description="Of this priority.")
    due_before: AwareDatetime | None = Field(
        None, description="With something due before this instant; give its time zone."
    )
    text: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="With this in the title, body, workflow or a tag, in whatever case.",
    )
    run_id: str | None = Field(None, description="Of this run.")
    limit: int = Field(50, ge=1, le=200, description="How many at most.")
    after: str | None = Field(None, description="The `after` of the page before.")


class ClaimBody(Value):
    """How long somebody will look at a request."""

    minutes: int = Field(15, ge=1, le=480, description="How long it counts, from now.")


class WithdrawBody(Value):
    """Why a request is taken back."""

    reason: str = Field("", max_length=10_000)


@router.get(
    "/requests",
    summary="List requests",
    responses={
        **example({"items": [_examples.SUMMARY], "after": None}),
        **failing("invalid_cursor"),
    },
)
async def list_requests(
    request: Request, person: Person, filters: Annotated[RequestFilters, Query()]
) -> RequestList:
    """Return requests that you may see: the most urgent first, among those the oldest first.

    At most 500 stored requests are looked at for one page, so it may have fewer than `limit`, or
    none, and yet not be the last: go on while `after` is not null.
    """
    site = site_of(request)
    given = dict(filters)
    limit, after = given.pop("limit"), given.pop("after")
    page = await listed(site, person, Filters(**given), limit=limit, after=after)
    now = site.clock()
    items = tuple(summary_of(stored, person, now) for stored in page)
    return RequestList.model_construct(items=items, after=page.after)


@router.get(
    "/requests/{request_id}",
    summary="One request",
    responses={**example(_examples.DETAIL), **failing("unknown_request")},
)
async def get_request(request: Request, person: Person, request_id: RequestId) -> RequestDetail:
    """Return a request with all that you may see of it.

    That is what it shows, its feedback history, the answers so far, what changed since the
    revision before, and what can be decided, with the fields to fill in. What is hidden from you
    reads `•••`.
    """
    site = site_of(request)
    return detail_of(await seen(site, person, request_id), person, site.clock())


@router.post(
    "/requests/{request_id}/claim",
    summary="Say that you are looking at it",
    responses={
        **example({"by": "alice", "until": "2026-03-02T12:15:00Z"}),
        **failing("not_allowed", "unknown_request", "already_claimed", "invalid_transition"),
    },
)
async def claim_request(
    request: Request, person: Person, request_id: RequestId, body: ClaimBody | None = None
) -> ClaimView:
    """Say that you look at an open request, so that others look at something else.

    It binds nobody: whoever may answer still may. Do it again to go on looking.
    """
    site = site_of(request)
    await seen(site, person, request_id)
    lease = timedelta(minutes=(body or ClaimBody()).minutes)
    claim = await site.runner.claim(request_id, by=person, lease=lease)
    site.hub.ring()
    return ClaimView(by=claim.by, until=claim.until)


@router.delete(
    "/requests/{request_id}/claim",
    status_code=204,
    summary="Say that you are not looking at it any more",
    responses=failing("not_allowed", "unknown_request", "already_claimed"),
)
async def release_request(request: Request, person: Person, request_id: RequestId) -> None:
    """Release a request that you claimed; nothing happens if you did not."""
    site = site_of(request)
    await seen(site, person, request_id)
    await site.runner.release(request_id, by=person)
    site.hub.ring()


@router.post(
    "/requests/{request_id}/withdraw",
    summary="Take a question back",
    responses={
        **example({**_examples.DETAIL, "status": "withdrawn"}),
        **failing(
            "forbidden",
            "unknown_request",
            "invalid_transition",
            "question_error",
            "too_large",
        ),
    },
)
async def withdraw_request(
    request: Request, person: Person, request_id: RequestId, body: WithdrawBody | None = None
) -> RequestDetail:
    """Close a request without a decision; the run goes on as after a rejection.

    Whoever started the run may, and admins.
    """
    site = site_of(request)
    await _running.withdraw(site, person, request_id, reason=(body or WithdrawBody()).reason)
    return detail_of(await seen(site, person, request_id), person, site.clock())
