"""Questions of workflows that know nothing of this package, as requests like any other.

A plain question says neither who may answer nor what can be decided. It becomes a request that
anyone whom the channel lets in may respond to, with the fields of the event that answers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

from pydantic import ValidationError
from workflows.events import Event, HumanResponseEvent

from llama_index_hitl._origin import Origin
from llama_index_hitl.errors import InvalidAnswer
from llama_index_hitl.forms import problems_of
from llama_index_hitl.models import (
    Answer,
    DecisionKind,
    JsonObject,
    Respond,
    ReviewRequest,
    digest_of,
)
from llama_index_hitl.rendering import text_of

WAIT_GATE = "wait_for_event"
"""The gate of questions behind `wait_for_event`."""

EVENT_GATE = "input_required"
"""The gate of questions that are an `InputRequiredEvent` alone."""


def plain_request(
    gate: str,
    *,
    question: Event | None,
    answered_by: type[Event],
    requirements: Mapping[str, Any],
    run_id: str,
    origin: Origin,
    workflow: str,
    number: int,
    at: datetime,
) -> ReviewRequest:
    """Return a plain question as a request.

    Args:
        gate: `WAIT_GATE` or `EVENT_GATE`.
        question: The event that asks; None if it is not known.
        answered_by: The event that answers.
        requirements: Attributes that the answer must have; nobody is asked for them.
        run_id: The run that asks.
        origin: Where that run comes from.
        workflow: Name of the workflow.
        number: How many plain questions the run has asked before.
        at: The present instant.
    """
    title, body = _words_of(question, answered_by)
    return ReviewRequest(
        request_id=f"{gate}-{digest_of([run_id, gate, number])[:16]}",
        run_id=origin.run_id,
        path=origin.path,
        workflow=workflow,
        gate=gate,
        title=title,
        body=body,
        allowed=(DecisionKind.RESPOND,),
        response_schema=_response_schema(answered_by, requirements),
        created_at=at,
    )


def _words_of(question: Event | None, answered_by: type[Event]) -> tuple[str, str]:
    if question is None:
        return f"Waiting for {answered_by.__name__}", ""
    said = {**question.model_dump(mode="json"), **question.model_dump(mode="json").pop("_data", {})}
    said.pop("_data", None)
    prefix = str(said.pop("prefix", "") or "").strip()
    rest = "\n".join(f"- {name}: {text_of(value)}" for name, value in said.items())
    first, _, more = prefix.partition("\n")
    title = first.strip()[:1000] or type(question).__name__
    whole = prefix if more or len(first) > len(title) else ""
    return title, "\n\n".join(part for part in (whole, rest) if part)


def _says_one_thing(answered_by: type[Event]) -> bool:
    """Tell whether an event declares no fields: by custom it then carries one `response`."""
    return issubclass(answered_by, HumanResponseEvent) and not answered_by.model_fields


def _response_schema(answered_by: type[Event], requirements: Mapping[str, Any]) -> JsonObject:
    if _says_one_thing(answered_by):
        return {"type": "string", "title": "Response"}
    schema = answered_by.model_json_schema()
    fields = schema.get("properties", {})
    schema["properties"] = {n: field for n, field in fields.items() if n not in requirements}
    schema["required"] = [n for n in schema.get("required", ()) if n not in requirements]
    return cast("JsonObject", schema)


def plain_answer(
    answer: Answer, answered_by: type[Event], requirements: Mapping[str, Any]
) -> Event:
    """Return the event that tells a workflow what somebody has answered to a plain question.

    Raises:
        InvalidAnswer: It does not fit the event that is waited for.
    """
    response = answer.decision.response if isinstance(answer.decision, Respond) else None
    said = response if isinstance(response, dict) else {"response": response}
    try:
        # What is required is not for the person to say.
        return answered_by(**{**said, **requirements})
    except ValidationError as error:
        raise InvalidAnswer(answer.request_id, problems_of(error, prefix="response")) from None
