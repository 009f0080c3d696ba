"""The page that a signed link leads to: it shows, and on a form of its own it takes an answer."""

from __future__ import annotations

import inspect

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from llama_index_hitl._html.reviews import as_meant
from llama_index_hitl.errors import (
    AnswerRefused,
    Forbidden,
    InvalidAnswer,
    LinkInvalid,
    UnknownRequest,
)
from llama_index_hitl.forms import LABELS, decisions_of
from llama_index_hitl.models import DecisionKind, RequestStatus, Reviewer, ReviewRecord
from llama_index_hitl.policies import why_not_allowed
from llama_index_hitl.runner import Receipt
from llama_index_hitl.stores.protocol import StoredRequest
from llama_index_hitl.web import _answering
from llama_index_hitl.web._pages import page
from llama_index_hitl.web._pages._detail import decide_form, detail_page
from llama_index_hitl.web._pages.requests import typed_in
from llama_index_hitl.web._site import Site, site_of
from llama_index_hitl.web.links import AnswerLinks, Link

router = APIRouter(include_in_schema=False)
"""The pages of links; without `AnswerLinks` they are not there."""

_OWN_FIELDS = ("csrf_token", "link_token")


@router.get("/link/{token}", name="link")
async def show(request: Request, token: str) -> Response:
    """Show what a link leads to. Nothing is decided by looking, and nothing is noted of it."""
    try:
        link, person, stored = await _opened(request, token)
    except LinkInvalid as error:
        return _dead(request, error)
    return _shown(request, token, link, person, stored)


@router.post("/link/{token}")
async def decide(request: Request, token: str) -> Response:
    """Take the answer of the person that a link was made for."""
    typed = await typed_in(request)
    try:
        link, person, stored = await _opened(request, token)
        if not _links_of(request).is_from(token, typed.get("link_token", "")):
            raise Forbidden("This was not sent by the page of the link. Open the link again.")
        try:
            receipt = await _answer(request, link, person, stored, typed)
        except InvalidAnswer as error:
            return _shown(request, token, link, person, stored, typed=typed, error=error)
        except AnswerRefused:
            await _opened(request, token)  # somebody was quicker: it is said who
            raise
    except LinkInvalid as error:
        return _dead(request, error)
    return page(
        request,
        "link_done.html",
        person=None,
        title=stored.record.request.title,
        label=LABELS[DecisionKind(receipt.answer.decision.kind)],
        answer=receipt.answer,
    )


async def _answer(
    request: Request, link: Link, person: Reviewer, stored: StoredRequest, typed: dict[str, str]
) -> Receipt:
    asked = stored.record.request
    raw = {name: value for name, value in typed.items() if name not in _OWN_FIELDS}
    if raw.get("decision") in decisions_of(asked):
        raw = as_meant(asked, DecisionKind(raw["decision"]), raw)
    return await _answering.answer(
        site_of(request),
        person,
        link.request_id,
        raw,
        digest=link.digest,
        role=typed.get("role") or None,
        channel="link",
    )


async def _opened(request: Request, token: str) -> tuple[Link, Reviewer, StoredRequest]:
    """Return what a link says, who may answer by it now, and the request as they may see it.

    Raises:
        LinkInvalid: Nobody may, any more.
        HTTPException: It is no link.
    """
    links, site = _links_of(request), site_of(request)
    link = links.read(token)
    if link is None:
        raise HTTPException(404, "This is not a link that was made here, or not the whole of it.")
    person = await _person(site, links, link)
    if person is None:
        raise LinkInvalid("Whoever this link was made for is not known here any more.")
    try:
        stored = await _answering.seen(site, person, link.request_id)
    except UnknownRequest:
        raise LinkInvalid("There is nothing here any more that you may see.") from None
    _check(site, link, person, stored.record)
    return link, person, stored


async def _person(site: Site, links: AnswerLinks, link: Link) -> Reviewer | None:
    """Return whom a link is for, with the roles that they have now; None: nobody knows them."""
    tokens = None if site.sign_in is None else site.sign_in.tokens
    named = None if tokens is None else tokens.named(link.person.id)
    if named is not None:
        return named.reviewer
    if links.roles_of is not None:
        found = links.roles_of(link.person.id)
        return await found if inspect.isawaitable(found) else found
    return link.person if tokens is None else None


def _check(site: Site, link: Link, person: Reviewer, record: ReviewRecord) -> None:
    """Refuse a link that is good for nothing any more, and say why.

    Raises:
        LinkInvalid: It is.
    """
    own = next((answer for answer in record.answers if answer.by.id == person.id), None)
    deadline = record.policy.deadline
    if own is not None:
        raise LinkInvalid(
            f"You have answered this already: {own.decision.kind}, at {own.at:%Y-%m-%d %H:%M} UTC."
        )
    if record.status is not RequestStatus.OPEN:
        raise LinkInvalid(_why_closed(record))
    if deadline is not None and deadline <= site.clock():
        raise LinkInvalid(f"This was to be answered before {deadline:%Y-%m-%d %H:%M} UTC.")
    if record.request.digest != link.digest:
        raise LinkInvalid("What was to be decided has changed since the link was made.")
    if (reason := why_not_allowed(record.policy, person)) is not None:
        raise LinkInvalid(f"This is not yours to answer any more: {reason}.")


def _why_closed(record: ReviewRecord) -> str:
    who = ", ".join(record.outcome.decided_by)
    match record.status:
        case RequestStatus.SUPERSEDED:
            return "Another request has taken the place of this one."
        case RequestStatus.WITHDRAWN:
            return "This was withdrawn: nobody has to answer it any more."
        case RequestStatus.EXPIRED:
            return "This was not answered in time."
        case status if who:
            return f"This was answered by {who}. It is {status.value.replace('_', ' ')}."
        case status:
            return f"This is {status.value.replace('_', ' ')} already."


def _links_of(request: Request) -> AnswerLinks:
    links = site_of(request).links
    if links is None:
        raise HTTPException(404)
    return links


def _shown(
    request: Request,
    token: str,
    link: Link,
    person: Reviewer,
    stored: StoredRequest,
    *,
    typed: dict[str, str] | None = None,
    error: InvalidAnswer | None = None,
) -> Response:
    detail = detail_page(stored, person, site_of(request).clock(), whole=True)
    chosen = (typed or {}).get("decision", link.decision)
    if chosen not in detail.kinds:
        chosen = detail.kinds[0]
    forms = [decide_form(detail.request, kind, person) for kind in detail.kinds]
    if error is not None:
        problems = [(problem.field, problem.message) for problem in error.problems]
        forms = [
            decide_form(detail.request, form.kind, person, values=typed, problems=problems)
            if form.kind == chosen
            else form
            for form in forms
        ]
    return page(
        request,
        "link.html",
        person=None,  # the one whom the link is for, who may be another than who has signed in
        status=200 if error is None else 422,
        detail=detail,
        forms=forms,
        chosen=chosen,
        answers_as=person,
        action=request.scope["path"],
        link_token=_links_of(request).form_token(token),
    )


def _dead(request: Request, error: LinkInvalid) -> Response:
    return page(request, "link_dead.html", person=None, status=410, reason=str(error))
