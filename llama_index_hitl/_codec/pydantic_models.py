"""The values of a pydantic model as JSON: as pydantic writes them where they come back equal.

A field whose JSON would come back as something else, such as a tuple in a field that is annotated
`Any`, is written as the encoder writes values outside of models. What the author of a class writes
with a serializer of their own, or leaves out, is stored as they wrote it.
"""

from __future__ import annotations

import dataclasses
import sys
from contextlib import suppress
from datetime import datetime, time
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Protocol, Union, cast, get_args, get_origin
from weakref import WeakKeyDictionary
from zoneinfo import ZoneInfo

from pydantic import BaseModel, PlainSerializer, RootModel, ValidationError, WrapSerializer
from pydantic.fields import FieldInfo
from workflows.context.state_store import DictState
from workflows.events import (
    DictLikeModel,
    Event,
    SerializableEvent,
    SerializableOptionalEvent,
    StopEvent,
)

from llama_index_hitl._codec.agent_values import RAW, is_tool_output, with_results
from llama_index_hitl._codec.values import Json
from llama_index_hitl.errors import FieldProblem
from llama_index_hitl.forms import problems_of

_SCALARS = frozenset({str, int, float, bool, NoneType})
_UNDECLARED = "_data"
_RESULT = "result"
_ROOT = "root"
_EVENT_SERIALIZERS = (*get_args(SerializableEvent), *get_args(SerializableOptionalEvent))
_DICT_LIKE = (DictLikeModel.custom_model_dump, StopEvent.custom_model_dump)
_INITS = tuple(cls.__init__ for cls in (BaseModel, DictLikeModel, Event, StopEvent, DictState))


class Encoder(Protocol):
    """What writes the values of the fields."""

    problems: list[FieldProblem]

    def encode(self, value: Any, at: Any) -> Json:
        """Return a value as JSON."""

    def decoded(self, data: Json) -> Any:
        """Return what will be read of it within a model."""

    def refuse(self, at: Any, message: str) -> None:
        """Note that something cannot be written."""


# --------------------------------------------------------------------------- classes


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What there is to know of a class.

    Attributes:
        scalars: The types that the values of each field may have to be their own JSON; None: not
            all fields are that simple.
        compared: The fields that must come back equal.
        loose: It is like a dict, and its undeclared fields are written as the others.
        authored: It has a serializer of its own, which may leave out what it likes.
    """

    scalars: dict[str, frozenset[Any]] | None
    compared: tuple[str, ...]
    loose: bool
    authored: bool


_plans: WeakKeyDictionary[type, _Plan] = WeakKeyDictionary()


def _plan_of(cls: type[BaseModel]) -> _Plan:
    plan = _plans.get(cls)
    if plan is None:
        plan = _plans[cls] = _made_plan(cls)
    return plan


def _made_plan(cls: type[BaseModel]) -> _Plan:
    decorators = cls.__pydantic_decorators__
    serializer = next((getattr(cls, n) for n in reversed(decorators.model_serializers)), None)
    fields = cls.model_fields
    own = {name for found in decorators.field_serializers.values() for name in found.info.fields}
    compared = tuple(
        name
        for name, field in fields.items()
        if field.exclude is not True and name not in own and not _has_serializer(field)
    )
    scalars = {n: kinds for n, field in fields.items() if (kinds := _scalar_types(field))}
    simple = (
        len(compared) == len(scalars) == len(fields)
        and (serializer is None or serializer in _DICT_LIKE)
        and cls.__init__ in _INITS
        and cls.model_config.get("extra") != "allow"
        and not (decorators.validators or decorators.field_validators)
        and not (decorators.root_validators or decorators.model_validators)
    )
    return _Plan(
        scalars=scalars if simple else None,
        compared=compared,
        loose=serializer in _DICT_LIKE,
        authored=serializer not in (None, *_DICT_LIKE, _component_serializer()),
    )


def _component_serializer() -> Any:
    """Return what writes LlamaIndex's components, every field of them, if they are loaded."""
    schema = sys.modules.get("llama_index.core.schema")
    return None if schema is None else schema.BaseComponent.custom_model_dump


def _has_serializer(field: FieldInfo) -> bool:
    return any(
        isinstance(item, PlainSerializer | WrapSerializer) and item not in _EVENT_SERIALIZERS
        for item in field.metadata
    )


def _scalar_types(field: FieldInfo) -> frozenset[Any]:
    """Return the types whose values pass through a field and JSON unchanged."""
    annotation = field.annotation
    is_union = get_origin(annotation) in (Union, UnionType)
    members = get_args(annotation) if is_union else (annotation,)
    plain = not field.metadata and field.alias is None and field.validation_alias is None
    known = all(any(member is kind for kind in _SCALARS) for member in members)
    return frozenset(members) if plain and known else frozenset()


# --------------------------------------------------------------------------- writing


def encode(model: BaseModel, encoder: Encoder, at: Any) -> Json:
    """Return the values of a model as JSON; what cannot be written is noted with the encoder.

    Args:
        model: The model.
        encoder: Writes the values of fields.
        at: Where the model is, for the encoder's problems.
    """
    plan, values = _plan_of(type(model)), vars(model)
    scalars = plan.scalars
    if scalars is not None and all(type(values.get(n)) in kinds for n, kinds in scalars.items()):
        content = {name: encoder.encode(values[name], (at, name)) for name in scalars}
    else:
        written = _checked(model, plan, encoder, at)
        if not plan.loose:
            return written
        content = written
    if undeclared := _undeclared(model):
        content[_UNDECLARED] = encoder.encode(undeclared, at)
    if (result := _result_of(model)) is not None:
        content[_RESULT] = encoder.encode(result, (at, _RESULT))
    return content


def _undeclared(model: BaseModel) -> dict[str, Any]:
    """Return the undeclared fields of an event or of the state of a run."""
    return dict(model.items()) if isinstance(model, DictLikeModel) else {}


def _result_of(model: BaseModel) -> Any:
    private = model.__pydantic_private__ if isinstance(model, StopEvent) else None
    return (private or {}).get("_result")


def _checked(model: BaseModel, plan: _Plan, encoder: Encoder, at: Any) -> Json:
    """Return what pydantic writes, with the fields that would be lost written as they are."""
    if is_tool_output(model):
        model = model.model_copy(update={RAW: _raw_or_text(model, encoder, (at, RAW))})
    try:
        written = _written(model, plan)
        if not isinstance(written, dict):
            return encoder.encode(written, at)
        content = {name: encoder.encode(value, (at, name)) for name, value in written.items()}
        _mend(model, plan, content, encoder, at)
    except Exception as error:  # noqa: BLE001 - the code of a user's class may raise anything
        encoder.refuse(at, f"{type(model).__name__} cannot be read from its JSON: {_short(error)}")
        return {}
    return _payload(type(model), content)


def _written(model: BaseModel, plan: _Plan) -> Any:
    """Return what pydantic writes; without the fields that it cannot write."""

    def dump(**selection: Any) -> Any:
        return model.model_dump(
            mode="json",
            by_alias=False,
            round_trip=True,
            warnings="none",
            fallback=lambda value: None,  # found, and refused, when it is not the same any more
            **selection,
        )

    if isinstance(model, RootModel):
        return {_ROOT: dump()}
    try:
        content = dump()
    except ValueError:
        if plan.authored:
            raise
        content = {}
        for name in type(model).model_fields:
            with suppress(ValueError):
                content |= dump(include={name})
    if plan.loose:
        content.pop(_UNDECLARED, None)
        if isinstance(model, StopEvent):
            content.pop(_RESULT, None)
    return content


def _mend(
    model: BaseModel, plan: _Plan, content: dict[str, Json], encoder: Encoder, at: Any
) -> None:
    """Write the fields that do not come back equal as they are, and refuse what is lost so too."""
    values = _values_of(model, plan)
    names = [name for name in values if name in content or not plan.authored]
    mended: set[str] = set()
    before = len(encoder.problems)
    while True:
        try:
            lost = _lost(type(model), content, {name: values[name] for name in names}, encoder)
        except Exception:
            if mended == set(names):
                raise
            lost = dict.fromkeys(names)  # any of them may be to blame
        if lost.keys() <= mended:
            break
        for name in [name for name in lost if name not in mended]:
            content[name] = encoder.encode(values[name], (at, name))
            mended.add(name)
        if len(encoder.problems) > before:
            return
    for name, found in lost.items():
        if isinstance(found, _Misfit):
            encoder.refuse((at, name), f"{values[name]!r:.80} does not fit: {found}")
        elif not _equal(values[name], found):
            encoder.refuse((at, name), f"{values[name]!r:.80} comes back as {found!r:.80}")


def _raw_or_text(output: Any, encoder: Encoder, at: Any) -> Any:
    """Return a tool's raw output, or, where that cannot be stored, its text.

    A raw output may be anything, such as the response object of a query engine, and the model is
    only ever told the text. One such tool must not keep its agent from being paused.
    """
    before = len(encoder.problems)
    encoder.encode(output.raw_output, at)
    if len(encoder.problems) == before:
        return output.raw_output
    del encoder.problems[before:]
    return output.content


class _Misfit(str):
    """What pydantic says of a value that does not fit its field."""

    __slots__ = ()


def _lost(
    cls: type[BaseModel], content: dict[str, Json], values: dict[str, Any], encoder: Encoder
) -> dict[str, Any]:
    """Return the fields that do not come back the same, with what comes back instead."""
    try:
        again = _values_of(decode(cls, encoder.decoded(_payload(cls, content))), _plan_of(cls))
    except ValidationError as error:
        found = {str(p["loc"][0]): _Misfit(p["msg"]) for p in error.errors() if p["loc"]}
        if not found.keys() & values.keys():
            raise
        return {name: found[name] for name in values if name in found}
    return {n: again.get(n) for n, value in values.items() if not same(value, again.get(n))}


def _values_of(model: BaseModel, plan: _Plan) -> dict[str, Any]:
    """Return the values of the fields that must come back, extra ones included."""
    fields = vars(model)
    declared = {name: fields[name] for name in plan.compared if name in fields}
    return {**declared, **(model.__pydantic_extra__ or {})}


def _payload(cls: type[BaseModel], content: dict[str, Json]) -> Json:
    return content.get(_ROOT) if issubclass(cls, RootModel) else content


def _short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(str(problem) for problem in problems_of(error))
    return f"{type(error).__name__}: {error}"


# --------------------------------------------------------------------------- reading


def decode(cls: type[BaseModel], values: Any) -> BaseModel:
    """Return a model with these values.

    Raises:
        pydantic.ValidationError: They do not fit the model.
    """
    return with_results(cls, values)


# --------------------------------------------------------------------------- comparing


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal and of equal types, at any depth."""
    kind = type(one)
    if kind is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if kind is dict:
        return same(list(one), list(other)) and all(same(one[key], other[key]) for key in one)
    if kind in (set, frozenset):
        return {(type(item), item) for item in one} == {(type(item), item) for item in other}
    if kind in (datetime, time):
        zones = [
            item.tzinfo.key if isinstance(item.tzinfo, ZoneInfo) else "" for item in (one, other)
        ]
        offsets = one.utcoffset() == other.utcoffset()
        return one == other and offsets and zones[0] == zones[1] and one.fold == other.fold
    if isinstance(one, BaseModel):
        return _same_models(one, other)
    if dataclasses.is_dataclass(kind) and not isinstance(one, Enum):
        names = [field.name for field in dataclasses.fields(kind)]
        return all(same(getattr(one, n, None), getattr(other, n, None)) for n in names)
    return _equal(one, other)


def _same_models(one: BaseModel, other: BaseModel) -> bool:
    plan = _plan_of(type(one))
    if plan.authored:
        return True
    values, others = _values_of(one, plan), _values_of(other, plan)
    if is_tool_output(one) and others[RAW] == cast("Any", one).content:
        values[RAW] = others[RAW]
    return (
        same(values, others)
        and same(_undeclared(one), _undeclared(other))
        and same(_result_of(one), _result_of(other))
    )


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other) or (one != one and other != other)  # NaN is not equal to itself
