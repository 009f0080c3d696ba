"""What goes wrong, as those outside are told of it: one body for the API, one page for people.

Nothing is told that was not meant for whoever asks: no stack, no secret of a store or a server, and
nothing about requests and runs that they may not see.
"""

from __future__ import annotations

import html
import logging
import re
import traceback
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeAlias, TypeVar

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import AwareDatetime
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llama_index_hitl import errors
from llama_index_hitl._text import storable
from llama_index_hitl.errors import HitlError, TooMany
from llama_index_hitl.models import Value
from llama_index_hitl.stores import InvalidCursor

_LOGGER = logging.getLogger(__name__)

T = TypeVar("T")

_LONGEST = 2_000
"""Characters of one message or field name; what is wrong may quote what was sent."""

_MOST_PROBLEMS = 100


class Problem(Value):
    """One thing that is wrong with what was sent.

    Attributes:
        field: Dotted path of the field, such as `subject.amount`; empty: all of it.
        message: What is wrong with it.
    """

    field: str
    message: str


class Failure(Value):
    """Why something was not done. Nothing was changed, unless it says otherwise.

    Attributes:
        type: Stable name of what is wrong, for programs.
        message: What is wrong, and what to do, for people.
        problems: Field by field, where fields are to blame.
        request_id: The request that it is about.
        run_id: The run that it is about.
        by: Who was first: whose answer stands, or who is looking at the request.
        at: When they answered.
        until: Until when they are looking at it.
        retry_after: Seconds until it is worth another try.
    """

    type: str
    message: str
    problems: tuple[Problem, ...] = ()
    request_id: str | None = None
    run_id: str | None = None
    by: str | None = None
    at: AwareDatetime | None = None
    until: AwareDatetime | None = None
    retry_after: int | None = None


class ErrorBody(Value):
    """The body of every response that is no success."""

    error: Failure


FailurePage: TypeAlias = Callable[[Request, int, Failure], Response]
"""Makes the page that tells a person of a failure."""

_STATUSES: Mapping[type[HitlError], int] = {
    errors.NotSignedIn: 401,
    errors.Forbidden: 403,
    errors.NotAllowed: 403,
    errors.UnknownRequest: 404,
    errors.UnknownRun: 404,
    errors.UnknownWorkflow: 404,
    errors.AlreadyAnswered: 409,
    errors.AlreadyClaimed: 409,
    errors.StaleRequest: 409,
    errors.InvalidTransition: 409,
    errors.QuestionError: 409,
    errors.RunBusy: 409,
    errors.RunExists: 409,
    errors.RunEnded: 409,
    errors.RunFailed: 409,
    errors.StillWaiting: 409,
    errors.LeaseLost: 409,
    errors.SnapshotError: 409,
    errors.Conflict: 409,
    errors.RequestExpired: 410,
    errors.RequestClosed: 410,
    errors.LinkInvalid: 410,
    errors.AnswerRefused: 422,
    errors.InvalidStart: 422,
    errors.UnserializableState: 422,
    InvalidCursor: 422,
    errors.StoreError: 503,
}
"""The status of each error, which holds for what is below it too."""

_WORDS: Mapping[type[HitlError], str] = {
    errors.UnknownRequest: "There is no such request, or none that you may see.",
    errors.UnknownRun: "There is no such run, or none that you may see.",
    errors.RunExists: "There is a run with this id already. Give the new one another id, or none.",
    errors.RunBusy: "The run is being taken further just now. Try again later.",
    errors.StillWaiting: "The run has no result yet.",
    errors.RunFailed: "The run has failed. The run itself says what with.",
    errors.SnapshotError: "The run does not fit the code of its workflow any more.",
    errors.LeaseLost: "The run was taken over by another process. Look at it again.",
    errors.Conflict: "Somebody else was first. Look again, and try again.",
    InvalidCursor: "This is not where a page of this list, or an event of this stream, has ended. "
    "Give what the last one came with, or leave it out to begin anew.",
    errors.StoreError: "What is stored cannot be reached just now. Try again later.",
}
"""What is said of errors whose own words are for those who run the server."""

_TYPES: Mapping[type[HitlError], str] = {
    errors.RequestClosed: "closed",
    errors.Conflict: "conflict",
    InvalidCursor: "invalid_cursor",
    errors.StoreError: "unavailable",
    errors.SnapshotError: "incompatible",
}

_HTTP_TYPES = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 429: "too_many"}


def failure_of(error: Exception) -> tuple[int, Failure]:
    """Return the status of an error and what is said of it; of an unexpected one, nothing."""
    match error:
        case TooMany(retry_after=None):
            return 413, Failure(type="too_large", message=_text(str(error)))
        case TooMany(retry_after=seconds):
            return 429, Failure(type="too_many", message=_text(str(error)), retry_after=seconds)
        case HitlError() if (status := _first(_STATUSES, error)) is not None:
            return status, _failure(error)
        case RequestValidationError():
            return 422, _invalid(error)
        case HTTPException(status_code=status):
            name = _HTTP_TYPES.get(status, "refused")
            return status, Failure(type=name, message=_text(str(error.detail)))
        case _:
            said = "Something went wrong here, and was put on record. Nothing is known of it yet."
            return 500, Failure(type="internal", message=said)


def failure_response(
    connection: HTTPConnection, error: Exception, page: FailurePage | None = None
) -> Response:
    """Return the response that tells of an error: JSON under `/api`, a page elsewhere.

    Args:
        connection: What is answered.
        error: What went wrong.
        page: Makes the page; None: a plain one.
    """
    status, failure = failure_of(error)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if failure.retry_after is not None:
        headers["Retry-After"] = str(failure.retry_after)
    if page is None or not isinstance(connection, Request) or is_api(connection.scope):
        response = _plain(connection, status, failure)
    else:
        response = page(connection, status, failure)
    response.headers.update(headers)
    response.headers["Cache-Control"] = "no-store"
    return response


def is_api(scope: Scope) -> bool:
    """Tell whether something is asked of the API, wherever the application is mounted."""
    path = str(scope.get("path", ""))
    root = str(scope.get("root_path", "")).rstrip("/")
    if root and path.startswith(f"{root}/"):
        path = path.removeprefix(root)
    return path == "/api" or path.startswith("/api/")


def install(app: FastAPI, page: FailurePage | None = None) -> None:
    """Let an application tell of what goes wrong as this module does.

    Add what puts headers on every response after this, so that it stands around it.

    Args:
        app: The application.
        page: Makes the page that tells a person; None: a plain one.
    """

    async def handle(connection: Request, error: Exception) -> Response:
        return failure_response(connection, error, page)

    for kind in (HitlError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, handle)
    app.add_middleware(_Unexpected, page=page)


class _Unexpected:
    """Answers for errors that nobody expected, and logs where they came from, not what they say."""

    def __init__(self, app: ASGIApp, page: FailurePage | None) -> None:
        self._app = app
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if scope["type"] == "lifespan":
                raise
            _log(error)
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1011})
            elif begun:
                raise ConnectionAbortedError("the response could not be finished") from None
            else:
                response = failure_response(Request(scope), error, self._page)
                await response(scope, receive, send)


def _log(error: Exception) -> None:
    # What an error says may quote a subject, so that is never logged.
    trace = "".join(traceback.format_tb(error.__traceback__))
    _LOGGER.error("Unexpected %s at\n%s", type(error).__name__, trace)


def _plain(connection: HTTPConnection, status: int, failure: Failure) -> Response:
    if is_api(connection.scope):
        body = ErrorBody(error=failure).model_dump_json()
        return Response(body, status, media_type="application/json")
    said = html.escape(failure.message)
    return HTMLResponse(
        f'<!doctype html><html lang="en"><title>{status}</title><h1>{status}</h1><p>{said}</p>',
        status,
    )


def _failure(error: HitlError) -> Failure:
    given: dict[str, Any] = {}
    for name in ("request_id", "run_id", "by"):
        value = getattr(error, name, None)
        given[name] = _text(value) if isinstance(value, str) else None
    for name in ("at", "until"):
        value = getattr(error, name, None)
        given[name] = value if isinstance(value, datetime) else None
    if isinstance(error, errors.RunBusy):
        given["until"] = None  # until when another process has its lease is nobody's concern
    problems = [(p.field, p.message) for p in getattr(error, "problems", ())]
    if isinstance(error, InvalidCursor):
        problems = [("after", "this is not where a page of this list ended")]
    return Failure(
        type=_type_of(error),
        message=_text(_first(_WORDS, error) or str(error)),
        problems=_problems(problems),
        **given,
    )


def _invalid(error: RequestValidationError) -> Failure:
    found = []
    for item in error.errors():
        place, *path = item["loc"]
        if item["type"] == "json_invalid":
            found.append(("", f"this is not JSON: {item['ctx']['error']}"))
        else:
            where = path if place in ("body", "query", "path") else [place, *path]
            found.append((".".join(str(part) for part in where), str(item["msg"])))
    problems = _problems(found)
    listed = "; ".join(f"{p.field}: {p.message}" if p.field else p.message for p in problems)
    return Failure(type="invalid", message=_text(f"Not valid: {listed}."), problems=problems)


def _problems(found: Iterable[tuple[str, str]]) -> tuple[Problem, ...]:
    made = [Problem(field=_text(field), message=_text(message)) for field, message in found]
    return tuple(made[:_MOST_PROBLEMS])


def _type_of(error: HitlError) -> str:
    if (named := _first(_TYPES, error)) is not None:
        return named
    code = getattr(error, "code", None)
    return code if isinstance(code, str) else _snake(type(error).__name__)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _first(table: Mapping[type[HitlError], T], error: HitlError) -> T | None:
    """Return what a table has for the nearest class of an error."""
    return next((table[kind] for kind in type(error).__mro__ if kind in table), None)


def _text(said: str) -> str:
    return storable(said, _LONGEST)
