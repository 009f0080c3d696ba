"""What OpenAPI says of the routes: examples, and what can go wrong."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from fastapi import Path
from pydantic import JsonValue

from llama_index_hitl.web._failures import ErrorBody

RequestId: TypeAlias = Annotated[
    str, Path(description="Id of the request.", examples=["approval-5f1c0b7a9e3d2c44"])
]
RunId: TypeAlias = Annotated[
    str, Path(description="Id of the run.", examples=["invoice-2026-0142"])
]

Responses: TypeAlias = dict[int | str, dict[str, Any]]

_FAILURES: dict[str, tuple[int, str, dict[str, JsonValue]]] = {
    "not_signed_in": (
        401,
        "Nobody knows who is asking.",
        {"message": "Sign in, or send a token that is valid."},
    ),
    "forbidden": (
        403,
        "They see it, and may not do this.",
        {"message": "You may not withdraw this; whoever started the run may."},
    ),
    "not_allowed": (
        403,
        "They may not answer this request.",
        {
            "message": "bob may not answer approval-5f1c0b7a9e3d2c44: "
            "the request is for role:legal.",
            "request_id": "approval-5f1c0b7a9e3d2c44",
            "by": "bob",
        },
    ),
    "unknown_request": (
        404,
        "There is none, or none that they may see.",
        {
            "message": "There is no such request, or none that you may see.",
            "request_id": "approval-5f1c0b7a9e3d2c44",
        },
    ),
    "unknown_run": (
        404,
        "There is none, or none that they may see.",
        {
            "message": "There is no such run, or none that you may see.",
            "run_id": "invoice-2026-0142",
        },
    ),
    "unknown_workflow": (
        404,
        "There is none with that name that they may start.",
        {"message": "This runner has no workflow 'invoces' (it has: invoice, report)."},
    ),
    "already_answered": (
        409,
        "Somebody else was first, or this person has answered otherwise.",
        {
            "message": "Request approval-5f1c0b7a9e3d2c44 was answered by alice at "
            "2026-03-02T12:00:00+00:00 and is approved; the first valid answer stands.",
            "request_id": "approval-5f1c0b7a9e3d2c44",
            "by": "alice",
            "at": "2026-03-02T12:00:00Z",
        },
    ),
    "stale_request": (
        409,
        "The digest is not that of what the request shows.",
        {
            "message": "The answer to approval-5f1c0b7a9e3d2c44 is stale: it was made for other "
            "content (digest). Look at the request again and decide on what it shows now.",
            "request_id": "approval-5f1c0b7a9e3d2c44",
        },
    ),
    "already_claimed": (
        409,
        "Somebody else is looking at it.",
        {
            "message": "alice is looking at request approval-5f1c0b7a9e3d2c44 until "
            "2026-03-02T12:15:00+00:00. It can be answered all the same, by whoever may.",
            "request_id": "approval-5f1c0b7a9e3d2c44",
            "by": "alice",
            "until": "2026-03-02T12:15:00Z",
        },
    ),
    "invalid_transition": (
        409,
        "It is closed.",
        {"message": "A request that is approved cannot withdraw."},
    ),
    "question_error": (
        409,
        "It was asked inside a step, which cannot go on without an answer.",
        {
            "message": "ask-5f1c0b7a9e3d2c44 was asked inside a step, which waits for an answer "
            "and cannot go on without one. Answer it, or cancel the run."
        },
    ),
    "run_exists": (
        409,
        "The id belongs to another run.",
        {
            "message": "There is a run with this id already. Give the new one another id, or none.",
            "run_id": "invoice-2026-0142",
        },
    ),
    "run_ended": (
        409,
        "The run is over, or has not failed.",
        {
            "message": "Run invoice-2026-0142 is finished; it cannot be cancelled.",
            "run_id": "invoice-2026-0142",
        },
    ),
    "run_failed": (
        409,
        "The run has failed.",
        {
            "message": "The run has failed. The run itself says what with.",
            "run_id": "invoice-2026-0142",
        },
    ),
    "still_waiting": (
        409,
        "The run has no result yet.",
        {"message": "The run has no result yet.", "run_id": "invoice-2026-0142"},
    ),
    "run_busy": (
        409,
        "Somebody else is at work on the run.",
        {
            "message": "The run is being taken further just now. Try again later.",
            "run_id": "invoice-2026-0142",
        },
    ),
    "expired": (
        410,
        "The answer came too late.",
        {
            "message": "Request approval-5f1c0b7a9e3d2c44 expired at 2026-03-04T12:00:00+00:00; "
            "the answer came too late.",
            "request_id": "approval-5f1c0b7a9e3d2c44",
        },
    ),
    "closed": (
        410,
        "It was closed without a decision: withdrawn, or another one took its place.",
        {
            "message": "The answer to approval-5f1c0b7a9e3d2c44 is stale: it is withdrawn. Look "
            "at the request again and decide on what it shows now.",
            "request_id": "approval-5f1c0b7a9e3d2c44",
        },
    ),
    "too_large": (413, "The body is larger than is taken.", {"message": "The body is too large."}),
    "invalid": (
        422,
        "A parameter or the body is not as it must be.",
        {
            "message": "Not valid: digest: Field required.",
            "problems": [{"field": "digest", "message": "Field required"}],
        },
    ),
    "invalid_answer": (
        422,
        "The decision does not fit the request.",
        {
            "message": "The answer to approval-5f1c0b7a9e3d2c44 is not valid: subject.amount: "
            "this must be a whole number. Correct it and answer again; the request is still open.",
            "request_id": "approval-5f1c0b7a9e3d2c44",
            "problems": [{"field": "subject.amount", "message": "this must be a whole number"}],
        },
    ),
    "invalid_start": (
        422,
        "What it is to be started with does not fit the workflow; nothing was stored.",
        {
            "message": "The run was not started: amount: this must be a whole number.",
            "problems": [{"field": "amount", "message": "this must be a whole number"}],
        },
    ),
    "invalid_cursor": (
        422,
        "`after` is not where a page of this list, or an event of this stream, has ended.",
        {
            "message": "This is not where a page of this list, or an event of this stream, has "
            "ended. Give what the last one came with, or leave it out to begin anew.",
            "problems": [
                {"field": "after", "message": "this is not where a page of this list ended"}
            ],
        },
    ),
    "too_many": (
        429,
        "There were too many of these.",
        {"message": "Too many. Try again later.", "retry_after": 60},
    ),
    "unavailable": (
        503,
        "What is stored cannot be reached.",
        {"message": "What is stored cannot be reached just now. Try again later."},
    ),
}
"""By type: the status, when it comes, and an example of the rest of the body."""

_ERROR_BODY = {"$ref": "#/components/schemas/ErrorBody"}
"""A reference: a model for each failure of each route would take longer to make than all the rest.

`WITH_ERROR_BODY` puts what it refers to into the document.
"""

WITH_ERROR_BODY: Responses = {503: {"model": ErrorBody}}

_ALWAYS = ("not_signed_in", "invalid", "too_many", "unavailable")


def failing(*types: str, signed_in: bool = True) -> Responses:
    """Return what OpenAPI says of the failures of a route.

    Args:
        *types: Their types, beside those that every route has.
        signed_in: Whether it is for those only who are signed in.
    """
    wanted = (*types, *_ALWAYS) if signed_in else (*types, "unavailable")
    found: Responses = {}
    for name in dict.fromkeys(wanted):
        status, when, rest = _FAILURES[name]
        content = {"application/json": {"schema": _ERROR_BODY, "examples": {}}}
        response = found.setdefault(status, {"description": "", "content": content})
        response["description"] = f"{response['description']} `{name}`: {when}".strip()
        examples = response["content"]["application/json"]["examples"]
        examples[name] = {"summary": when, "value": {"error": {"type": name, **rest}}}
    return found


def example(value: JsonValue, status: int = 200, description: str = "Done.") -> Responses:
    """Return what OpenAPI says of a success."""
    content = {"application/json": {"example": value}}
    return {status: {"description": description, "content": content}}
