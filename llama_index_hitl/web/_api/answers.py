"""Answers: to one request, to several at once, and by handing one's vote to somebody else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import ConfigDict, Field, JsonValue
from starlette.requests import Request

from llama_index_hitl.errors import AnswerRefused, FieldProblem, InvalidAnswer, StoreError
from llama_index_hitl.models import Reviewer, Value
from llama_index_hitl.runner import Receipt
from llama_index_hitl.web._answering import answer
from llama_index_hitl.web._api import _examples
from llama_index_hitl.web._api._documented import RequestId, example, failing
from llama_index_hitl.web._api._strict import StrictRoute
from llama_index_hitl.web._failures import Failure, failure_of
from llama_index_hitl.web._site import Site, site_of
from llama_index_hitl.web.people import Person

router = APIRouter(tags=["answers"], route_class=StrictRoute)

REFUSALS = (
    "not_allowed",
    "unknown_request",
    "already_answered",
    "stale_request",
    "expired",
    "closed",
    "too_large",
    "invalid_answer",
)

MOST_AT_ONCE = 100
"""How many answers one body may hold."""


class AnswerBody(Value):
    """A decision, and what it is about.

    Beside these, fields of an edit or of a response may be given by their dotted path, such as
    `subject.amount`, as forms have them.

    Attributes:
        decision: One of the request's decisions, such as `approve`; or a whole decision, as its
            schema has it, such as `{"kind": "revise", "feedback": "Shorter, please."}`.
        digest: Digest of what you saw: the answer counts for nothing else.
        role: In which of your roles you decide, where it matters.
        comment: Why, for the record.
        feedback: What has to change, to send it back.
        subject: For an edit, the fields to change; those left out keep their values.
        response: The response, as the request's schema says.
        to: Who decides instead, to delegate or to escalate.
        grant: With an approval: let calls like this happen without asking, within these limits.
    """

    model_config = ConfigDict(extra="allow")

    decision: str | dict[str, JsonValue]
    digest: str = Field(min_length=1, max_length=200)
    role: str | None = Field(None, max_length=200)
    comment: str | None = None
    feedback: str | None = None
    subject: dict[str, JsonValue] | None = None
    response: JsonValue = None
    to: str | list[str] | None = None
    grant: dict[str, JsonValue] | None = None

    def raw(self) -> Mapping[str, Any]:
        """Return what was sent, as a form sends it."""
        return self.model_dump(exclude_unset=True)


class BulkItem(AnswerBody):
    """One answer of several.

    Attributes:
        request_id: The request that it answers.
    """

    request_id: str = Field(max_length=200)


class BulkBody(Value):
    """Several answers of one person; each counts by itself."""

    answers: list[BulkItem] = Field(min_length=1, max_length=MOST_AT_ONCE)


class BulkResult(Value):
    """What became of one of several answers: exactly one of `receipt` and `error` is there.

    Attributes:
        request_id: The request.
        status: What the answer alone would have been responded to with.
        receipt: Proof that it was taken.
        error: Why it was not.
    """

    request_id: str
    status: int
    receipt: Receipt | None = None
    error: Failure | None = None


class BulkResults(Value):
    """What became of each answer, in the order in which they were sent."""

    items: tuple[BulkResult, ...]


class DelegateBody(Value):
    """Who decides instead."""

    to: str = Field(min_length=1, max_length=200, description="A person's id.")
    digest: str = Field(min_length=1, max_length=200)
    comment: str | None = None


@router.post(
    "/requests/{request_id}/answer",
    summary="Answer a request",
    responses={**example(_examples.RECEIPT), **failing(*REFUSALS)},
)
async def answer_request(
    request: Request,
    person: Person,
    request_id: RequestId,
    body: Annotated[AnswerBody, Body(openapi_examples=_examples.ANSWERS)],
) -> Receipt:
    """Take your answer. When this returns, it is stored and cannot be lost; the run goes on.

    The same answer again gets the same receipt. Fields that are hidden from you keep their values
    in an edit: leave them as you see them, or out.
    """
    return await answer(
        site_of(request),
        person,
        request_id,
        body.raw(),
        digest=body.digest,
        role=body.role,
        channel="api",
    )


@router.post(
    "/requests/{request_id}/delegate",
    summary="Let somebody else decide in your place",
    responses={**example(_examples.DELEGATED), **failing(*REFUSALS)},
)
async def delegate_request(
    request: Request, person: Person, request_id: RequestId, body: DelegateBody
) -> Receipt:
    """Hand your vote to another person, who then may answer; you may not any more."""
    raw = {"decision": "delegate", "to": body.to, "comment": body.comment}
    return await answer(
        site_of(request), person, request_id, raw, digest=body.digest, channel="api"
    )


@router.post(
    "/answers",
    summary="Answer several requests at once",
    responses={**example(_examples.BULK_RESULTS), **failing("too_large")},
)
async def answer_requests(
    request: Request,
    person: Person,
    body: Annotated[BulkBody, Body(openapi_examples=_examples.BULK)],
) -> BulkResults:
    """Take up to 100 answers of yours, one after the other: one that is refused stops no other.

    Each counts only for what its digest says that you saw. Of two answers to the same request the
    second is refused.
    """
    site = site_of(request)
    results: list[BulkResult] = []
    answered: set[str] = set()
    for item in body.answers:
        again = item.request_id in answered
        answered.add(item.request_id)
        results.append(await _one_of_several(site, person, item, again=again))
    return BulkResults.model_construct(items=tuple(results))


async def _one_of_several(
    site: Site, person: Reviewer, item: BulkItem, *, again: bool
) -> BulkResult:
    try:
        if again:
            problem = FieldProblem("request_id", "it is answered twice here")
            raise InvalidAnswer(item.request_id, [problem])
        receipt = await answer(
            site,
            person,
            item.request_id,
            item.raw(),
            digest=item.digest,
            role=item.role,
            channel="api",
        )
    except (AnswerRefused, StoreError) as error:  # those before it are stored and have to be told
        status, failure = failure_of(error)
        return BulkResult(request_id=item.request_id, status=status, error=failure)
    return BulkResult(request_id=item.request_id, status=200, receipt=receipt)
