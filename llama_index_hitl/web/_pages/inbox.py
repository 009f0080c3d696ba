"""The inbox: what waits for somebody, beside the request that they have opened."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from llama_index_hitl.errors import UnknownRequest
from llama_index_hitl.models import Reviewer
from llama_index_hitl.web._answering import seen
from llama_index_hitl.web._pages import page
from llama_index_hitl.web._pages._lists import DUES, VIEWS, Choice, Rows, rows_of
from llama_index_hitl.web._site import Site, site_of
from llama_index_hitl.web._views import summary_of
from llama_index_hitl.web.people import Person

router = APIRouter(include_in_schema=False)

NOTICES = {
    "answered": "Your answer is on record.",
    "claimed": "You are looking at this now; others are told.",
    "released": "Others are told that you no longer look at this.",
}
"""What a page greets with after a form was taken."""


@router.get("/", name="inbox")
async def inbox_page(request: Request, person: Person) -> Response:
    """Show the inbox."""
    return await with_inbox(request, person)


@router.get("/list", name="inbox_list")
async def list_fragment(request: Request, person: Person) -> Response:
    """Return the list alone, for scripts that keep a page current."""
    values = await _list_values(site_of(request), person, Choice.of(request.query_params), None)
    return page(request, "partials/list.html", person=person, **values)


@router.get("/list/{request_id}", name="inbox_row")
async def row_fragment(request: Request, person: Person, request_id: str) -> Response:
    """Return one row of the list as it stands now; nothing if it is no longer to be listed."""
    site, choice = site_of(request), Choice.of(request.query_params)
    try:
        shown = await seen(site, person, request_id)
    except UnknownRequest:
        return Response(status_code=204)
    row = summary_of(shown, person, site.clock())
    return page(
        request,
        "partials/row.html",
        person=person,
        row=row,
        choice=choice,
        open_id=None,
        checked=(),
    )


async def with_inbox(
    request: Request,
    person: Reviewer,
    *,
    open_id: str | None = None,
    status: int = 200,
    **values: Any,
) -> Response:
    """Return the whole page: the list, and beside it a request, if one is opened.

    Args:
        request: What is answered.
        person: Who is signed in.
        open_id: The request that is opened.
        status: Status of the response.
        **values: What the opened request needs.
    """
    site = site_of(request)
    choice = Choice.of(request.query_params)
    rows = await _list_values(site, person, choice, open_id)
    notice = NOTICES.get(request.query_params.get("notice", ""), "")
    return page(
        request, "inbox.html", person=person, status=status, notice=notice, **{**rows, **values}
    )


async def _list_values(
    site: Site, person: Reviewer, choice: Choice, open_id: str | None
) -> dict[str, Any]:
    rows: Rows = await rows_of(site, person, choice)
    return {
        "choice": choice,
        "rows": rows.rows,
        "after": rows.after,
        "views": VIEWS,
        "dues": DUES,
        "workflows": sorted({row.workflow for row in rows.rows} | {choice.workflow} - {""}),
        "open_id": open_id,
        "detail": None,
    }
