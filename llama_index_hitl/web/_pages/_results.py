"""What a run came to, as its page shows it: texts as documents, everything else as facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from markupsafe import Markup
from pydantic import BaseModel, JsonValue
from pydantic.errors import PydanticInvalidForJsonSchema

from llama_index_hitl._html import markup
from llama_index_hitl.forms import FormField, fields_of_schema
from llama_index_hitl.prebuilt._base import ResultStatus
from llama_index_hitl.web._views import json_of

STATUS_WORDS: Mapping[str, tuple[str, str]] = {
    ResultStatus.APPROVED: ("Approved", "good"),
    ResultStatus.PARTLY_APPROVED: ("Approved in part", "warn"),
    ResultStatus.REJECTED: ("Rejected", "bad"),
    ResultStatus.MAX_REVISIONS: ("Sent back too often", "bad"),
    ResultStatus.EXPIRED: ("Nobody decided in time", "warn"),
}
"""What the statuses of the ready workflows are called, with their tone."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One value of a result.

    Attributes:
        label: What it is called; empty for a result that is one value.
        body: The value.
        short: Whether it stands in one line.
    """

    label: str
    body: Markup
    short: bool


@dataclass(frozen=True, kw_only=True)
class ResultView:
    """A result as it is shown.

    Attributes:
        status: How it ended, in words; empty where it does not say.
        tone: `good`, `bad`, `warn`, or empty.
        facts: Short values.
        documents: Long ones, the most important first.
    """

    status: str
    tone: str
    facts: tuple[Part, ...]
    documents: tuple[Part, ...]


def result_view(result: Any, *, whole: bool = False) -> ResultView:
    """Return a result as it is shown.

    Args:
        result: What `Runner.result` gave, with nothing in it that its reader may not see.
        whole: Show all of it, however long.
    """
    layout = markup.Layout(whole=whole)
    parts = [_part(layout, *part) for part in _values(result)]
    status, tone = STATUS_WORDS.get(str(getattr(result, "status", "")), ("", ""))
    return ResultView(
        status=status,
        tone=tone,
        facts=tuple(part for part in parts if part.short),
        documents=tuple(part for part in parts if not part.short),
    )


_Value: TypeAlias = tuple[str, JsonValue, FormField | None]
"""What a value is called, the value, and what its schema says of it."""


def _values(result: Any) -> Iterator[_Value]:
    given = json_of(result)
    if not isinstance(given, dict):
        if given is not None:
            yield "", given, None
        return
    models = {name: value for name in given if isinstance(value := _at(result, name), BaseModel)}
    fields = _fields(type(result))
    for name, value in given.items():
        if name not in models and not _is_told_elsewhere(name, _at(result, name)):
            yield name, value, fields.get(name)
    # What was reviewed comes behind what was made of it.
    for name, model in models.items():
        inner, value = _fields(type(model)), given[name]
        for part, item in (value if isinstance(value, dict) else {}).items():
            yield part, item, inner.get(part)


def _at(result: Any, name: str) -> Any:
    return result.get(name) if isinstance(result, Mapping) else getattr(result, name, None)


def _is_told_elsewhere(name: str, value: Any) -> bool:
    """Tell whether the page says it anyway: the status above, and decisions as what happened."""
    if value is None or isinstance(value, ResultStatus):
        return True
    return name == "decisions" and isinstance(value, tuple | list)


def _part(layout: markup.Layout, name: str, value: JsonValue, field: FormField | None) -> Part:
    if isinstance(value, str) and "\n" in value and (field is None or field.widget == "text"):
        field = FormField(name=name, label=name, widget="markdown")
    return Part(
        label=name.replace("_", " ").capitalize(),
        body=layout.value(value, field),
        short=markup.is_short(value, field),
    )


def _fields(model: type) -> dict[str, FormField]:
    if not issubclass(model, BaseModel):
        return {}
    try:
        schema = model.model_json_schema(mode="serialization")
    except PydanticInvalidForJsonSchema:
        return {}
    return {field.name: field for field in fields_of_schema(schema)}
