"""The arguments of a tool call: from what a model wrote to what a person sees and the tool gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from llama_index.core.tools.types import DefaultToolFnSchema, ToolMetadata
from pydantic import BaseModel, ConfigDict, ValidationError

from llama_index_hitl._proposals import data_of, dropped
from llama_index_hitl.errors import FieldProblem
from llama_index_hitl.forms import problems_of
from llama_index_hitl.models import JsonObject, Subject, digest_of


class InvalidArguments(ValueError):
    """What a model wrote does not fit the tool's schema.

    Attributes:
        problems: What is wrong, field by field.
    """

    def __init__(self, problems: list[FieldProblem]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


@dataclass(frozen=True)
class Arguments:
    """The arguments of one call, validated by the tool's own schema.

    Attributes:
        model: They, of the schema's type.
        data: They as JSON: what is shown and approved.
        given: Names of those that are passed to the tool; for all others its defaults hold.
    """

    model: BaseModel
    data: JsonObject
    given: frozenset[str]

    @classmethod
    def read(cls, metadata: ToolMetadata, raw: Mapping[str, Any]) -> Arguments:
        """Return what a model wrote, validated.

        Raises:
            InvalidArguments: It does not fit the schema, or holds what the schema does not know.
        """
        schema = schema_of(metadata)
        try:
            model = schema.model_validate(raw)
            data = data_of(model)
            Subject(type="", data=data)  # such as NaN, which JSON cannot carry
        except ValidationError as error:
            raise InvalidArguments(list(problems_of(error))) from None
        except RecursionError:
            raise InvalidArguments([FieldProblem("", "this is nested too deeply")]) from None
        names = {field.alias: name for name, field in schema.model_fields.items() if field.alias}
        plain = {names.get(key, key): value for key, value in raw.items()}
        if unknown := [path.removeprefix(".") for path in dropped(plain, data, "")]:
            raise InvalidArguments([FieldProblem(n, "there is no such argument") for n in unknown])
        return cls(model, data, frozenset(model.model_fields_set))

    def edited(self, model: BaseModel) -> Arguments:
        """Return the arguments as a person has edited them."""
        data = data_of(model)
        changed = {name for name in data if data[name] != self.data.get(name)}
        return Arguments(model, data, self.given | changed)

    def for_call(self) -> dict[str, Any]:
        """Return what the tool is called with, made anew: nobody else holds any of it."""
        model = type(self.model).model_validate(self.data)
        fields = type(self.model).model_fields
        values = {**dict(model), **(model.model_extra or {})}
        return {
            (fields[name].alias or name) if name in fields else name: values[name]
            for name in values
            if name in self.given
        }


@lru_cache(maxsize=256)
def _by_name(schema: type[BaseModel]) -> type[BaseModel]:
    """Return a schema whose fields can be given by name also where they have an alias."""
    if not any(field.alias for field in schema.model_fields.values()):
        return schema
    namespace = {"model_config": ConfigDict(populate_by_name=True), "__module__": schema.__module__}
    return cast("type[BaseModel]", type(schema.__name__, (schema,), namespace))


def schema_of(metadata: ToolMetadata) -> type[BaseModel]:
    """Return the model of a tool's arguments; a tool without one takes one text, `input`."""
    return _by_name(metadata.fn_schema or DefaultToolFnSchema)


def version_of(metadata: ToolMetadata) -> str:
    """Return a digest of what a tool says of itself: another one is another tool."""
    return digest_of([metadata.get_name(), metadata.description, metadata.get_parameters_dict()])
