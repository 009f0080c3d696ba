"""One request: what is asked, and the forms that it is answered with."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from llama_index_hitl._html.reviews import SHORT, as_meant
from llama_index_hitl.errors import (
    AlreadyAnswered,
    AlreadyClaimed,
    AnswerRefused,
    InvalidAnswer,
    InvalidTransition,
    NotAllowed,
    RequestExpired,
    StaleRequest,
    UnknownRequest,
)
from llama_index_hitl.forms import decisions_of
from llama_index_hitl.models import DecisionKind, Reviewer, ReviewRequest, digest_of
from llama_index_hitl.stores.protocol import StoredRequest
from llama_index_hitl.web._answering import answer, edited, seen
from llama_index_hitl.web._pages import page, redirect
from llama_index_hitl.web._pages._detail import (
    KEYS,
    LESSER,
    DecideForm,
    Message,
    decide_form,
    detail_page,
)
from llama_index_hitl.web._pages.inbox import with_inbox
from llama_index_hitl.web._site import site_of
from llama_index_hitl.web._views import summary_of
from llama_index_hitl.web.people import Person

router = APIRouter(include_in_schema=False)

FRAGMENT = "x-fragment"
"""Header of scripts that want a part of a page."""


@router.get("/requests/{request_id}", name="request")
async def request_page(request: Request, person: Person, request_id: str) -> Response:
    """Show the inbox with a request opened; to scripts, the request alone."""
    shown = await seen(site_of(request), person, request_id)
    kind = _kind(request, person, shown, request.query_params.get("decide", ""))
    form = None if kind is None else decide_form(shown.record.request, kind, person)
    return await _shown(request, person, shown, form=form)


@router.get("/requests/{request_id}/decide/{kind}", name="decide_form")
async def decide_fragment(request: Request, person: Person, request_id: str, kind: str) -> Response:
    """Return the form of one decision."""
    shown = await seen(site_of(request), person, request_id)
    found = _kind(request, person, shown, kind)
    if found is None:
        return Response(status_code=204)
    form = decide_form(shown.record.request, found, person)
    return await _form(request, person, shown, form)


@router.post("/requests/{request_id}/answer", name="answer_form")
async def answer_form(request: Request, person: Person, request_id: str) -> Response:
    """Take an answer; an edit first shows what it changes."""
    site = site_of(request)
    raw = await typed_in(request)
    shown = await seen(site, person, request_id)
    asked = shown.record.request
    kind = _kind_of(asked, raw.get("decision", ""))
    if kind is None:
        said = Message(tone="warn", title="Nothing was decided", text="Pick one of the decisions.")
        return await _shown(request, person, shown, message=said, status=422)
    fields = {name: value for name, value in raw.items() if name not in _BESIDE}
    sent = as_meant(asked, kind, fields)
    preview: dict[str, Any] = {}
    try:
        if kind is DecisionKind.EDIT:
            subject = await edited(site, person, request_id, sent)
            preview = {"preview": subject, "previewed": digest_of(subject)}
            stale = raw.get("then") == "answer" and raw.get("previewed") != preview["previewed"]
            if stale or raw.get("then") != "answer":
                form = decide_form(asked, kind, person, values=fields, stale=stale, **preview)
                return await _form(request, person, shown, form)
        await answer(
            site,
            person,
            request_id,
            sent,
            digest=raw.get("digest", ""),
            role=raw.get("role") or None,
        )
    except InvalidAnswer as error:
        problems = [(problem.field, problem.message) for problem in error.problems]
        form = decide_form(asked, kind, person, values=fields, problems=problems)
        return await _form(request, person, shown, form, status=422)
    except UnknownRequest:
        raise
    except AnswerRefused as error:
        shown = await seen(site, person, request_id)
        status, said = _refusal(error, shown)
        said = replace(
            said, typed=[text for name, text in sent.items() if text and name != "decision"]
        )
        return await _shown(request, person, shown, message=said, status=status)
    if FRAGMENT in request.headers:
        return await _shown(request, person, await seen(site, person, request_id))
    return redirect(request, "request", request_id=request_id, notice="answered")


@router.post("/requests/{request_id}/claim", name="claim_form")
async def claim_form(request: Request, person: Person, request_id: str) -> Response:
    """Tell others that this person looks at a request."""
    site = site_of(request)
    shown = await seen(site, person, request_id)
    try:
        await site.runner.claim(request_id, by=person)
    except (AlreadyClaimed, InvalidTransition, NotAllowed) as error:
        status, said = _refusal(error, shown)
        return await _shown(request, person, shown, message=said, status=status)
    return await _back(request, person, request_id, "claimed")


@router.post("/requests/{request_id}/release", name="release_form")
async def release_form(request: Request, person: Person, request_id: str) -> Response:
    """Tell others that this person looks at a request no more."""
    site = site_of(request)
    shown = await seen(site, person, request_id)
    try:
        await site.runner.release(request_id, by=person)
    except (AlreadyClaimed, NotAllowed) as error:
        status, said = _refusal(error, shown)
        return await _shown(request, person, shown, message=said, status=status)
    return await _back(request, person, request_id, "released")


# --------------------------------------------------------------------------- what is shown


async def _shown(
    request: Request,
    person: Reviewer,
    shown: StoredRequest,
    *,
    form: DecideForm | None = None,
    message: Message | None = None,
    status: int = 200,
) -> Response:
    """Return a request: to scripts alone, to others with the inbox around it."""
    values = await _values(request, person, shown, form, message)
    if FRAGMENT in request.headers:
        return page(request, "partials/detail.html", person=person, status=status, **values)
    return await with_inbox(request, person, open_id=shown.request_id, status=status, **values)


async def _form(
    request: Request, person: Reviewer, shown: StoredRequest, form: DecideForm, *, status: int = 200
) -> Response:
    """Return the form of a decision: to scripts alone, to others within the whole page."""
    if FRAGMENT not in request.headers:
        return await _shown(request, person, shown, form=form, status=status)
    values = {"row_id": shown.request_id, "digest": shown.record.request.digest, "form": form}
    return page(request, "partials/decide.html", person=person, status=status, **values)


async def _values(
    request: Request,
    person: Reviewer,
    shown: StoredRequest,
    form: DecideForm | None,
    message: Message | None,
) -> dict[str, Any]:
    whole = request.query_params.get("whole") == "1"
    now = site_of(request).clock()
    # Beside the loop: a hostile text may take a while to lay out, and others wait for none of it.
    detail = await asyncio.to_thread(detail_page, shown, person, now, whole=whole)
    return {
        "detail": detail,
        "form": form,
        "message": message,
        "keys": KEYS,
        "lesser": LESSER,
        "short": SHORT,
        "row_id": shown.request_id,
        "digest": shown.record.request.digest,
    }


async def _back(request: Request, person: Reviewer, request_id: str, notice: str) -> Response:
    if FRAGMENT in request.headers:
        return await _shown(request, person, await seen(site_of(request), person, request_id))
    return redirect(request, "request", request_id=request_id, notice=notice)


# --------------------------------------------------------------------------- what was sent

_BESIDE = ("csrf_token", "digest", "role", "then", "previewed")
"""What a form sends beside a decision and its fields."""


async def typed_in(request: Request) -> dict[str, str]:
    """Return what a form sent; line ends as they are in texts, not as forms send them.

    Raises:
        HTTPException: It says two things under one name, of which one would be lost.
    """
    async with request.form() as form:
        pairs = form.multi_items()
    typed = {name: value.replace("\r\n", "\n") for name, value in pairs if isinstance(value, str)}
    if len(typed) != len(pairs):
        raise HTTPException(422, "Something is in this form twice, or is a file. Load it again.")
    return typed


def _kind_of(asked: ReviewRequest, word: str) -> DecisionKind | None:
    return next((kind for kind in decisions_of(asked) if kind == word), None)


def _kind(
    request: Request, person: Reviewer, shown: StoredRequest, word: str
) -> DecisionKind | None:
    """Return a decision that this person can take on a request now."""
    if not summary_of(shown, person, site_of(request).clock()).can_answer:
        return None
    return _kind_of(shown.record.request, word)


def _refusal(error: Exception, shown: StoredRequest) -> tuple[int, Message]:
    """Return the status and the words for why something was not taken."""
    match error:
        case AlreadyAnswered(by=by, status=status):
            text = f"{shown.record.outcome.reason} Your answer was not counted."
            title = f"{by} was first: this is {status.replace('_', ' ')}"
            return 409, Message(tone="warn", title=title, text=text)
        case AlreadyClaimed(by=by):
            text = "You can still answer; the first valid answer counts."
            return 409, Message(tone="warn", title=f"{by} is looking at this", text=text)
        case RequestExpired():
            text = "The deadline passed before your answer came. It was not counted."
            return 410, Message(tone="warn", title="Too late", text=text)
        case NotAllowed(reason=reason):
            return 403, Message(tone="bad", title="You may not answer this", text=f"{reason}.")
        case StaleRequest(reason=reason):
            text = f"Your answer was not counted: {reason}. Look at what is shown now."
            return 409, Message(tone="warn", title="This has changed", text=text)
        case _:
            return 409, Message(tone="warn", title="That was not done", text=str(error))
