"""Approving several requests at once: each is listed with what it is about, and then confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from fastapi import APIRouter, Request
from starlette.responses import Response

from llama_index_hitl._html.markup import gist
from llama_index_hitl._html.reviews import FieldView
from llama_index_hitl.errors import AnswerRefused, StoreError, UnknownRequest
from llama_index_hitl.models import DecisionKind, Reviewer
from llama_index_hitl.stores.protocol import StoredRequest
from llama_index_hitl.web._answering import answer, seen
from llama_index_hitl.web._failures import failure_of
from llama_index_hitl.web._pages import page
from llama_index_hitl.web._pages._detail import detail_page
from llama_index_hitl.web._pages.requests import FRAGMENT
from llama_index_hitl.web._site import Site, site_of
from llama_index_hitl.web._views import RequestSummary, summary_of
from llama_index_hitl.web.people import Person

router = APIRouter(include_in_schema=False)

MOST = 50
"""Requests that can be approved at once."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One request, as it is listed to be approved.

    Attributes:
        row: As it stands in lists.
        gist: Its short values in one line.
        fields: All of its subject.
    """

    row: RequestSummary
    gist: str
    fields: tuple[FieldView, ...]


@dataclass(frozen=True, kw_only=True)
class Came:
    """What came of one of them."""

    request_id: str
    title: str
    taken: bool
    said: str


@router.get("/bulk", name="bulk")
async def bulk_page(request: Request, person: Person) -> Response:
    """List the requests that were selected, for their approval to be confirmed."""
    ids = list(dict.fromkeys(request.query_params.getlist("id")))
    items = [item async for item in _items(site_of(request), person, ids[:MOST])]
    return page(
        request,
        _template(request),
        person=person,
        items=items,
        left_out=len(ids) - len(items),
        outcomes=(),
    )


@router.post("/bulk", name="bulk_approve")
async def bulk_approve(request: Request, person: Person) -> Response:
    """Approve what was listed and confirmed, each for what was shown of it."""
    async with request.form() as form:
        given = (str(value).partition(" ") for value in form.getlist("item"))
        chosen = [(request_id, digest) for request_id, _, digest in given if request_id][:MOST]
        comment = str(form.get("comment", "")).replace("\r\n", "\n").strip()
    site = site_of(request)
    outcomes = [
        await _approved(site, person, request_id, digest, comment) for request_id, digest in chosen
    ]
    return page(request, _template(request), person=person, items=(), left_out=0, outcomes=outcomes)


def _template(request: Request) -> str:
    return "partials/bulk.html" if FRAGMENT in request.headers else "bulk.html"


async def _items(site: Site, person: Reviewer, ids: Iterable[str]) -> AsyncIterator[Item]:
    for request_id in ids:
        try:
            shown = await seen(site, person, request_id)
        except UnknownRequest:
            continue
        row = summary_of(shown, person, site.clock())
        if row.can_answer and DecisionKind.APPROVE in shown.record.request.allowed:
            yield await _item(site, person, shown, row)


async def _item(site: Site, person: Reviewer, shown: StoredRequest, row: RequestSummary) -> Item:
    subject = shown.record.request.subject
    detail = await asyncio.to_thread(detail_page, shown, person, site.clock())
    return Item(row=row, gist="" if subject is None else gist(subject.data), fields=detail.fields)


async def _approved(
    site: Site, person: Reviewer, request_id: str, digest: str, comment: str
) -> Came:
    title = request_id
    sent = {"decision": DecisionKind.APPROVE.value, **({"comment": comment} if comment else {})}
    try:
        title = (await seen(site, person, request_id)).record.request.title
        receipt = await answer(site, person, request_id, sent, digest=digest)
    except UnknownRequest:
        said = "There is no such request, or none that you may see."
        return Came(request_id=request_id, title=title, taken=False, said=said)
    except AnswerRefused as error:
        return Came(request_id=request_id, title=title, taken=False, said=str(error))
    except StoreError as error:  # those before it are stored and have to be told
        _, failure = failure_of(error)
        return Came(request_id=request_id, title=title, taken=False, said=failure.message)
    said = "Approved." if receipt.decides else "Your approval counts; it waits for others."
    return Came(request_id=request_id, title=title, taken=True, said=said)
