"""The event under review and the subject in it: to JSON, back, and with an edit in place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import PydanticSerializationError, to_jsonable_python
from workflows import Workflow
from workflows.context.serializers import JsonSerializer
from workflows.events import Event

from llama_index_hitl.errors import FieldProblem, InvalidAnswer, SubjectError
from llama_index_hitl.events import ReviewOutcomeEvent
from llama_index_hitl.forms import problems_of
from llama_index_hitl.models import JsonObject, Subject

FOR_THE_GATE = ("approvals", "revision_of")
"""Undeclared fields that an event carries for the next gate; they are no part of a subject."""


def proposal_in(event: Event, subject_field: str | None) -> tuple[Event, str | None]:
    """Return the event that holds the subject, and the field; outcome events are looked through."""
    if isinstance(event, ReviewOutcomeEvent):
        return event.proposal, event.subject_field
    return event, subject_field


def subject_in(proposal: Event, subject_field: str | None) -> BaseModel:
    """Return the subject of a proposal.

    Raises:
        SubjectError: The field does not hold a pydantic model.
    """
    value = proposal if subject_field is None else getattr(proposal, subject_field)
    if not isinstance(value, BaseModel):
        raise SubjectError(
            f"{type(proposal).__name__}.{subject_field} is {type(value).__name__}, not a pydantic "
            "model; give the field a model, or review the event itself."
        )
    return value


def describe(value: BaseModel) -> Subject:
    """Return a subject as JSON, with the schema of its model.

    Raises:
        SubjectError: A value does not survive being written as JSON and read again.
    """
    name = type(value).__name__
    data = data_of(value)
    try:
        again = data_of(built(type(value), data))
    except ValidationError as error:
        raise SubjectError(f"{name} cannot be read back from its own JSON: {error}") from error
    lost = sorted(key for key in data | again if data.get(key) != again.get(key))
    if lost:
        raise SubjectError(f"{name} changes when it is written as JSON: {', '.join(lost)}.")
    return Subject(type=name, data=data, json_schema=_schema_of(type(value)))


def data_of(value: BaseModel) -> JsonObject:
    """Return the values of a model as JSON; the undeclared fields of an event stand beside others.

    They have the names that the model's JSON schema gives them, so that a form fits them.

    Raises:
        SubjectError: A value has no JSON form.
    """
    try:
        dumped = written(value, warnings="error", by_alias=True)
    except PydanticSerializationError as error:
        fields = ", ".join(_not_json(value)) or "a field"
        raise SubjectError(
            f"{type(value).__name__} holds a value in {fields} that JSON cannot carry: {error}"
        ) from error
    if isinstance(value, Event):
        undeclared = dumped.pop("_data", {})
        dumped.update({k: v for k, v in undeclared.items() if k not in FOR_THE_GATE})
    return cast("JsonObject", dumped)


def written(value: BaseModel, **options: Any) -> dict[str, Any]:
    """Return what `model_dump` makes of a model as JSON, with the items of sets in order.

    Their own order is another one in each process.
    """
    dumped = value.model_dump(mode="json", **options)
    if not _may_hold_sets(type(value)):
        return dumped
    return cast("dict[str, Any]", _in_order(value.model_dump(**options), dumped))


@lru_cache(maxsize=256)
def _may_hold_sets(model: type[BaseModel]) -> bool:
    try:
        return "uniqueItems" in json.dumps(_schema_of(model))
    except SubjectError:
        return True


def _in_order(value: Any, dumped: Any) -> Any:
    match value, dumped:
        case ((set() | frozenset()), list()):
            return sorted(dumped, key=lambda item: json.dumps(item, sort_keys=True))
        case dict(), dict():
            pairs = zip(dumped.items(), value.values(), strict=True)
            return {name: _in_order(item, data) for (name, data), item in pairs}
        case ((list() | tuple()), list()):
            return [_in_order(*pair) for pair in zip(value, dumped, strict=True)]
        case _:
            return dumped


def _not_json(value: BaseModel) -> Iterator[str]:
    """Yield the names of the fields that have no JSON form."""
    loose = dict(value.items()) if isinstance(value, Event) else {}
    for name, item in {**vars(value), **loose}.items():
        try:
            to_jsonable_python(item)
        except PydanticSerializationError:
            yield name


def built(model: type[BaseModel], data: JsonObject) -> BaseModel:
    """Return a model made of JSON; the undeclared fields of an event stand beside the others.

    Raises:
        pydantic.ValidationError: The values do not fit the model.
    """
    if issubclass(model, Event):
        return model(**data)
    return model.model_validate(data, by_alias=True, by_name=True)


@lru_cache(maxsize=256)
def _schema_of(model: type[BaseModel]) -> JsonObject:
    try:
        return model.model_json_schema()
    except PydanticInvalidForJsonSchema as error:
        raise SubjectError(f"{model.__name__} has no JSON schema: {error}") from error


def rebuilt(before: BaseModel, request_id: str, data: JsonObject) -> BaseModel:
    """Return a subject with other values, validated by its own model.

    Raises:
        InvalidAnswer: The values do not fit the model, or would not be kept as they were given.
    """
    try:
        after = built(type(before), data)
        kept = describe(after).data
    except ValidationError as error:
        raise InvalidAnswer(request_id, problems_of(error, prefix="subject")) from None
    except SubjectError as error:
        raise InvalidAnswer(request_id, [FieldProblem("subject", str(error))]) from None
    if passed_over := list(dropped(data, kept, "subject")):
        raise InvalidAnswer(
            request_id, [FieldProblem(p, "there is no such field") for p in passed_over]
        )
    return after


def dropped(given: Any, kept: Any, path: str) -> Iterator[str]:
    """Yield the fields, at any depth, that a model has passed over: most do so without a word."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for name, value in given.items():
            if name in kept:
                yield from dropped(value, kept[name], f"{path}.{name}")
            else:
                yield f"{path}.{name}"
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for index, pair in enumerate(zip(given, kept, strict=True)):
            yield from dropped(*pair, f"{path}.{index}")


def edited(proposal: Event, subject_field: str | None, request_id: str, data: JsonObject) -> Event:
    """Return a proposal with other values in its subject, validated by the subject's own model.

    Raises:
        InvalidAnswer: The values do not fit the model, or name a field that it does not have.
    """
    before = subject_in(proposal, subject_field)
    model = type(before)
    known = model.model_fields.keys() | data_of(before).keys()
    problems = [
        FieldProblem(f"subject.{name}", "there is no such field")
        for name in data
        if name not in known
    ]
    if problems:
        raise InvalidAnswer(request_id, problems)
    after = rebuilt(before, request_id, data)
    if subject_field is None:
        return cast("Event", after)
    changed = proposal.model_copy()
    setattr(changed, subject_field, after)
    return changed


@lru_cache(maxsize=256)
def _serializer_for(types: tuple[type[Event], ...]) -> JsonSerializer:
    return JsonSerializer(allowed_types=types)


class ProposalStore:
    """Writes proposals as JSON and reads them back, for the event types of one workflow only."""

    def __init__(self, workflow: Workflow) -> None:
        self._serializer = _serializer_for(tuple(workflow.events))

    def dump(self, proposal: Event) -> JsonObject:
        """Return a proposal as JSON.

        Raises:
            SubjectError: It holds a value that JSON cannot carry.
        """
        try:
            return cast("JsonObject", self._serializer.serialize_value(proposal))
        except PydanticSerializationError as error:
            raise SubjectError(
                f"{type(proposal).__name__} holds a value that JSON cannot carry: {error}"
            ) from error

    def load(self, stored: JsonObject) -> Any:
        """Return the proposal again, of its own type.

        Raises:
            ValueError: It names a type that the workflow does not declare.
        """
        return self._serializer.deserialize_value(stored)
