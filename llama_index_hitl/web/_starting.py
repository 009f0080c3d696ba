"""What runs are started with: the form of a workflow's start event, and what people type into it.

A start that cannot work is refused before anything is stored, with every problem by its field.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from workflows import Workflow
from workflows.events import StartEvent

from llama_index_hitl._text import without_example
from llama_index_hitl.errors import FieldProblem, InvalidStart, UnknownWorkflow
from llama_index_hitl.forms import FormField, fields_of_schema, parse_form, problems_of
from llama_index_hitl.models import JsonObject, Reviewer
from llama_index_hitl.web._site import Site

_INPUTS: TypeAdapter[JsonObject] = TypeAdapter(JsonObject)

_OF_RUN = frozenset({"self", "ctx", "start_event", "run_id"})
"""Names that mean something else to a workflow's `run` than a field of its start event."""


@dataclass(frozen=True)
class StartForm:
    """What has to be typed to start a run of a workflow.

    Attributes:
        name: Name under which the runner knows the workflow.
        description: What the workflow says of itself, as far as it does.
        json_schema: JSON schema of its start event.
        fields: What to type, field by field.
        any_fields: It takes any fields: its start event declares none.
    """

    name: str
    description: str
    json_schema: JsonObject
    fields: tuple[FormField, ...]
    any_fields: bool


def startable(site: Site, person: Reviewer) -> tuple[str, ...]:
    """Return the names of the workflows that somebody may start, sorted."""
    names = sorted(site.runner.workflows)
    return tuple(name for name in names if site.visibility.may_start(person, name))


def start_form(site: Site, person: Reviewer, name: str) -> StartForm:
    """Return what has to be typed to start a workflow.

    Raises:
        UnknownWorkflow: There is none with that name that they may start.
    """
    workflow = _startable(site, person, name)
    event = workflow.start_event_class
    schema = _schema_of(event)
    return StartForm(
        name=name,
        description=without_example(inspect.cleandoc(type(workflow).__doc__ or "")),
        json_schema=schema,
        fields=fields_of_schema(schema),
        any_fields=not event.model_fields,
    )


def inputs_of(site: Site, person: Reviewer, name: str, raw: Mapping[str, Any]) -> JsonObject:
    """Turn what somebody typed into what a run of a workflow is started with.

    Args:
        site: The application.
        person: Who wants to start it.
        name: Name under which the runner knows the workflow.
        raw: The fields of the start form by name; values may be strings, as forms send them.

    Raises:
        UnknownWorkflow: There is none with that name that they may start.
        InvalidStart: It does not fit the workflow's start event; nothing was stored.
    """
    event = _startable(site, person, name).start_event_class
    reserved = [field for field in raw if field in _OF_RUN or field.startswith("_")]
    if reserved:
        raise InvalidStart(FieldProblem(field, "no field can be called this") for field in reserved)
    inputs, problems = parse_form(_schema_of(event), raw)
    if problems:
        raise InvalidStart(problems)
    try:
        _INPUTS.validate_python(inputs)
        # The event itself is made when the run begins; what its class refuses is told now.
        event(**inputs)
    except ValidationError as error:
        raise InvalidStart(problems_of(error)) from None
    return inputs


def _startable(site: Site, person: Reviewer, name: str) -> Workflow:
    names = startable(site, person)
    if name not in names:
        raise UnknownWorkflow(name, names)
    return site.runner.workflows[name]


def _schema_of(event: type[StartEvent]) -> JsonObject:
    """Return the JSON schema of a start event; of fields that have none, only that they are."""
    try:
        return cast("JsonObject", cast("type[BaseModel]", event).model_json_schema())
    except (PydanticInvalidForJsonSchema, PydanticUserError):
        fields = event.model_fields
        return {
            "type": "object",
            "properties": {name: {} for name in fields},
            "required": [name for name, field in fields.items() if field.is_required()],
        }
