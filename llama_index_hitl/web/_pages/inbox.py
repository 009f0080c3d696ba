"""The inbox: what waits for somebody, beside the request that they have opened."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from llama_index_hitl.models import Reviewer
from llama_index_hitl.web._pages import page
from llama_index_hitl.web._pages._lists import DUES, VIEWS, Choice, Rows, rows_of
from llama_index_hitl.web._site import Site, site_of
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
        "workflows": _workflows(site, rows, choice),
        "open_id": open_id,
        "detail": None,
    }


def _workflows(site: Site, rows: Rows, choice: Choice) -> list[str]:
    """Return what can be chosen: the runner's workflows, and what is listed."""
    known = {workflow.workflow_name for workflow in site.runner.workflows.values()}
    return sorted({*known, *(row.workflow for row in rows.rows), choice.workflow} - {""})
