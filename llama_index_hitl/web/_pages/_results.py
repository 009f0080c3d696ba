"""What a run came to, as its page shows it: texts as documents, everything else as facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from pydantic import BaseModel, JsonValue
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import to_jsonable_python

from llama_index_hitl.forms import FormField, fields_of_schema
from llama_index_hitl.models import Answer
from llama_index_hitl.prebuilt._base import ResultStatus
from llama_index_hitl.web import _markup

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


def result_view(result: Any) -> ResultView:
    """Return a result as it is shown.

    Args:
        result: What `Runner.result` gave, with nothing in it that its reader may not see.
    """
    parts = list(_parts(result))
    status, tone = STATUS_WORDS.get(str(getattr(result, "status", "")), ("", ""))
    return ResultView(
        status=status,
        tone=tone,
        facts=tuple(part for part in parts if part.short),
        documents=tuple(part for part in parts if not part.short),
    )


def _parts(result: Any) -> Iterator[Part]:
    if not isinstance(result, BaseModel):
        given = _json(result)
        if isinstance(given, dict):
            yield from (_part(name, value, None) for name, value in given.items())
        elif given is not None:
            yield _part("", given, None)
        return
    values = {name: getattr(result, name) for name in type(result).model_fields}
    own = {name: v for name, v in values.items() if not isinstance(v, BaseModel)}
    # What was reviewed comes behind what was made of it.
    for name, value in own.items():
        if not _is_told_elsewhere(name, value):
            yield _part(name, _json(value), _fields(type(result)).get(name))
    for value in values.values():
        if isinstance(value, BaseModel):
            fields = _fields(type(value))
            given = _json(value)
            for name, item in (given if isinstance(given, dict) else {}).items():
                yield _part(name, item, fields.get(name))


def _is_told_elsewhere(name: str, value: Any) -> bool:
    """Tell whether the page says it anyway: the status above, and decisions as what happened."""
    if value is None or isinstance(value, ResultStatus):
        return True
    return name == "decisions" and all(isinstance(item, Answer) for item in value)


def _part(name: str, value: JsonValue, field: FormField | None) -> Part:
    if isinstance(value, str) and "\n" in value and (field is None or field.widget == "text"):
        field = FormField(name=name, label=name, widget="markdown")
    label = name.replace("_", " ").capitalize()
    return Part(label=label, body=_markup.value(value, field), short=_markup.is_short(value, field))


def _fields(model: type[BaseModel]) -> dict[str, FormField]:
    try:
        schema = model.model_json_schema(mode="serialization")
    except PydanticInvalidForJsonSchema:
        return {}
    return {field.name: field for field in fields_of_schema(schema)}


def _json(value: Any) -> JsonValue:
    found: JsonValue = to_jsonable_python(value, fallback=str, bytes_mode="base64")
    return found
