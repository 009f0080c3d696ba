"""What people type, against the models of the workflow's own code, where that is at hand.

A store knows the JSON schema of a subject only. A model may know more: that an amount must not be
negative, that one field depends on another. A gate has the last word about that when the answer
reaches it; asked here first, the person who answers learns of it at once.
"""

from __future__ import annotations

from typing import get_args

from pydantic import BaseModel, ValidationError
from workflows import Workflow

from llama_index_hitl._proposals import built, rebuilt
from llama_index_hitl.errors import InvalidAnswer
from llama_index_hitl.forms import problems_of
from llama_index_hitl.gates import Review, gates_of
from llama_index_hitl.models import Decision, Edit, Respond, ReviewRequest


def check_with_models(workflow: Workflow, request: ReviewRequest, decision: Decision) -> None:
    """Refuse an edit or a response that the workflow's own models refuse.

    Raises:
        InvalidAnswer: They do; the problems say why.
    """
    gate = gates_of(workflow).get(request.gate)
    if gate is None:
        return
    match decision:
        case Edit(subject=data) if request.subject is not None:
            model = _subject_model(workflow, gate, request.subject.type)
            if model is not None:
                rebuilt(built(model, request.subject.data), request.request_id, data)
        # A model that a function gives is made of its schema, which was checked before.
        case Respond(response=response) if isinstance(gate.response, type) and issubclass(
            gate.response, BaseModel
        ):
            try:
                gate.response.model_validate(response)
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
