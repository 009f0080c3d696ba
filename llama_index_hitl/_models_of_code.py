"""What people type, against the models of the workflow's own code, where that is at hand.

A store knows the JSON schema of a subject only. A model may know more: that an amount must not be
negative, that one field depends on another. Who has asked, a gate or a tool, has the last word
about that when the answer reaches it; asked here first, the person who answers learns of it at
once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from workflows import Workflow

from llama_index_hitl._proposals import built, rebuilt
from llama_index_hitl.errors import InvalidAnswer
from llama_index_hitl.forms import problems_of
from llama_index_hitl.gates import Review, gates_of
from llama_index_hitl.models import INLINE_GATE, Decision, Edit, Respond, ReviewRequest


@dataclass(frozen=True)
class AnswerModels:
    """What a tool that asks people reads their answers with; its attribute `answer_models`.

    Attributes:
        subject: Model of what they may edit; None: nothing.
        response: Model of a structured answer; None: there is none.
    """

    subject: type[BaseModel] | None = None
    response: type[BaseModel] | None = None

    def asks(self, request: ReviewRequest) -> bool:
        """Tell whether a request may be the tool's: it shows what the tool would show."""
        shown = request.subject
        same_subject = (
            shown is None
            if self.subject is None
            else shown is not None
            and shown.type == self.subject.__name__
            and shown.json_schema == self.subject.model_json_schema()
        )
        schema = None if self.response is None else self.response.model_json_schema()
        return same_subject and request.response_schema == schema


def tools_of(workflow: Workflow) -> Iterator[Any]:
    """Yield the tools of an agent, or of several; of any other workflow there are none."""
    agents = getattr(workflow, "agents", None)
    for agent in (workflow, *(agents.values() if isinstance(agents, dict) else ())):
        tools = getattr(agent, "tools", None)
        yield from tools if isinstance(tools, list | tuple) else ()


def check_with_models(workflow: Workflow, request: ReviewRequest, decision: Decision) -> None:
    """Refuse an edit or a response that the workflow's own models refuse.

    A decision that the request does not allow is let through: whoever takes the answer refuses it,
    and nobody is told to correct what can never count.

    Raises:
        InvalidAnswer: They do; the problems say why.
    """
    if decision.kind not in request.allowed:
        return
    if request.gate == INLINE_GATE:
        _check_with_tools(workflow, request, decision)
        return
    gate = gates_of(workflow).get(request.gate)
    if gate is None:
        return
    model = None
    if request.subject is not None:
        model = _subject_model(workflow, gate, request.subject.type)
    # A model that a function gives is made of its schema, which was checked before.
    response = gate.response if isinstance(gate.response, type) else None
    _check(AnswerModels(model, response), request, decision)


def _check_with_tools(workflow: Workflow, request: ReviewRequest, decision: Decision) -> None:
    """Refuse what every tool that may have asked refuses."""
    refusal: InvalidAnswer | None = None
    for tool in tools_of(workflow):
        models = getattr(tool, "answer_models", None)
        if not isinstance(models, AnswerModels) or not models.asks(request):
            continue
        try:
            _check(models, request, decision)
        except InvalidAnswer as error:
            refusal = error
        else:
            return
    if refusal is not None:
        raise refusal


def _check(models: AnswerModels, request: ReviewRequest, decision: Decision) -> None:
    match decision:
        case Edit(subject=data) if request.subject is not None and models.subject is not None:
            rebuilt(built(models.subject, request.subject.data), request.request_id, data)
        case Respond(response=response) if models.response is not None:
            try:
                models.response.model_validate(response)
            except ValidationError as error:
                problems = problems_of(error, prefix="response")
                raise InvalidAnswer(request.request_id, problems) from None
        case _:
            pass


def _subject_model(workflow: Workflow, gate: Review, name: str) -> type[BaseModel] | None:
    """Find the model of a subject by its name; None: it is not known here."""
    kinds: list[object] = [gate.event, *workflow.events]
    if gate.subject is not None:
        kinds[:0] = _members(gate.event.model_fields[gate.subject].annotation)
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind.__name__ == name:
            return kind
    return None


def _members(annotation: object) -> list[object]:
    """Return an annotation and what it is made of: a subject may be one of several models."""
    return [annotation, *(m for part in get_args(annotation) for m in _members(part))]
