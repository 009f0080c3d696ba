"""The arguments of a tool call: from what a model wrote to what a person sees and the tool gets."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Annotated, Any, get_args, get_origin

from llama_index.core.tools.types import DefaultToolFnSchema, ToolMetadata
from pydantic import BaseModel, ValidationError

from llama_index_hitl._proposals import built, data_of, dropped, written
from llama_index_hitl.errors import FieldProblem, SubjectError, ToolError
from llama_index_hitl.forms import problems_of
from llama_index_hitl.models import JsonObject, Subject, digest_of


class InvalidArguments(ValueError):
    """What a model wrote does not fit the tool's schema.

    Attributes:
        problems: What is wrong, field by field.
    """

    def __init__(self, *problems: FieldProblem) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


@dataclass(frozen=True)
class Arguments:
    """The arguments of one call, validated by the tool's own schema.

    Attributes:
        schema: The model of the tool's arguments.
        data: They as JSON, under the names that the schema gives them: what is shown and approved.
        given: Fields that are passed to the tool: all but those that nobody gave and that are None,
            which many servers of tools do not take.
        digest: Tells calls apart by what their callers gave, without defaults.
    """

    schema: type[BaseModel]
    data: JsonObject
    given: frozenset[str]
    digest: str

    @classmethod
    def read(cls, metadata: ToolMetadata, raw: Mapping[str, Any]) -> Arguments:
        """Return what a model wrote, validated.

        Raises:
            InvalidArguments: It does not fit the schema, or holds what the schema does not know.
            ToolError: The schema makes something else of its own output.
        """
        schema = schema_of(metadata)
        try:
            model = built(schema, dict(raw))
            data = data_of(model)
            Subject(type="", data=data)  # such as NaN, which JSON cannot carry
        except ValidationError as error:
            raise InvalidArguments(*problems_of(error)) from None
        except RecursionError:
            raise InvalidArguments(FieldProblem("", "this is nested too deeply")) from None
        except (SubjectError, ValueError) as error:
            raise InvalidArguments(FieldProblem("", str(error))) from None
        by_name = model.model_dump(mode="json")
        if unknown := {*dropped(raw, data, "")} & {*dropped(raw, by_name, "")}:
            raise InvalidArguments(
                *(
                    FieldProblem(path.removeprefix("."), "there is no such argument")
                    for path in sorted(unknown)
                )
            )
        if data_of(built(schema, deepcopy(data))) != data:
            raise ToolError(
                f"The schema of {metadata.name} makes something else of what it has validated, so "
                "the tool would get other arguments than a person sees. Let its validators leave "
                "alone what they have returned."
            )
        given_data = written(model, exclude_unset=True)
        given = model.model_fields_set | {name for name, value in model if value is not None}
        return cls(schema, data, frozenset(given), digest_of(given_data))

    @property
    def model(self) -> BaseModel:
        """They, of the schema's type, made anew: nobody else holds any of it."""
        return built(self.schema, deepcopy(self.data))

    def kept(self, data: JsonObject, given: frozenset[str]) -> Arguments:
        """Return the arguments of the same call as they were when it was first made."""
        return replace(self, data=data, given=given)

    def edited(self, model: BaseModel) -> Arguments:
        """Return the arguments as a person has edited them."""
        data = data_of(model)
        by_name, before = model.model_dump(mode="json"), self.model.model_dump(mode="json")
        changed = {name for name in by_name if by_name[name] != before.get(name)}
        return replace(self, data=data, given=self.given | changed)

    def for_call(self, annotations: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return what the tool is called with, of the types that the schema declares.

        Args:
            annotations: Those of the function behind the tool. A model goes to a parameter that is
                declared with it as such, to all others as a mapping, which is what LlamaIndex
                passes. None: everything as it is.
        """
        model = self.model
        fields = type(model).model_fields
        values = {}
        for name, value in {**dict(model), **(model.model_extra or {})}.items():
            if name not in self.given:
                continue
            field = fields.get(name)
            key = name if field is None else field.alias or name
            declared = annotations is None or (
                field is not None and annotations.get(key, _NONE) == field.annotation
            )
            values[key] = value if declared else _as_mappings(value)
        return values


_NONE = object()


def annotations_of(function: Any) -> dict[str, Any]:
    """Return the annotations of a function's parameters, without what `Annotated` adds."""
    try:
        parameters = inspect.signature(function, eval_str=True).parameters.values()
    except NameError:  # a name that stands under TYPE_CHECKING only
        parameters = inspect.signature(function).parameters.values()
    found = {p.name: p.annotation for p in parameters if p.annotation is not p.empty}
    return {
        name: get_args(kind)[0] if get_origin(kind) is Annotated else kind
        for name, kind in found.items()
    }


def _as_mappings(value: Any) -> Any:
    """Return a value with mappings in the place of models, without fields that nobody gave."""
    match value:
        case BaseModel():
            fields = type(value).model_fields
            return {
                (fields[name].alias or name) if name in fields else name: _as_mappings(item)
                for name, item in value
                if item is not None or name not in fields or fields[name].is_required()
            }
        case dict():
            return {key: _as_mappings(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return type(value)(_as_mappings(item) for item in value)
        case _:
            return value


def schema_of(metadata: ToolMetadata) -> type[BaseModel]:
    """Return the model of a tool's arguments; a tool without one takes one text, `input`."""
    return metadata.fn_schema or DefaultToolFnSchema


def shape_of(metadata: ToolMetadata) -> str:
    """Return a digest of the form in which a person sees a tool's arguments."""
    return digest_of([metadata.get_name(), metadata.get_parameters_dict()])


def version_of(metadata: ToolMetadata) -> str:
    """Return a digest of what a tool says of itself: another one is another tool."""
    return digest_of([metadata.get_name(), metadata.description, metadata.get_parameters_dict()])
