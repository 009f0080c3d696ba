"""A subject as a text to edit, and back. Pure functions; private to `console`."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from pydantic import JsonValue

from llama_index_hitl.errors import FieldProblem, InvalidAnswer
from llama_index_hitl.forms import FormField, fields_of
from llama_index_hitl.models import DecisionKind, ReviewRequest

TEXT_WIDGETS = ("text", "textarea", "markdown", "code")


def own_fields(request: ReviewRequest, kind: DecisionKind) -> tuple[FormField, ...]:
    """Return what a decision needs; a comment is never asked for."""
    return tuple(field for field in fields_of(request, kind) if field.name != "comment")


def text_of_subject(request: ReviewRequest) -> tuple[str, str]:
    """Return the subject of a request as a text to edit, and the suffix of a file for it.

    A subject that is one text stands as it is; every other one is JSON.
    """
    data = {} if request.subject is None else request.subject.data
    if (only := _only_text(request)) is not None:
        return str(data[only.name.removeprefix("subject.")]), _suffix(only)
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n", ".json"


def form_of_text(request: ReviewRequest, text: str) -> dict[str, Any]:
    """Return the raw input for `parse_answer` that an edited text stands for.

    Raises:
        InvalidAnswer: The text is to be a JSON object and is none.
    """
    if (only := _only_text(request)) is not None:
        return {"decision": DecisionKind.EDIT.value, only.name: text}
    data = _object_in(request, text)
    fields = {field.name: field for field in own_fields(request, DecisionKind.EDIT)}
    form: dict[str, Any] = {"decision": DecisionKind.EDIT.value}
    for key, value in data.items():
        field = fields.get(name := f"subject.{key}")
        form[name] = value if field is None else _raw(field, value)
    return form


def _only_text(request: ReviewRequest) -> FormField | None:
    data = {} if request.subject is None else request.subject.data
    if len(data) != 1 or not isinstance(next(iter(data.values())), str):
        return None
    name = f"subject.{next(iter(data))}"
    fields = own_fields(request, DecisionKind.EDIT)
    return next((field for field in fields if field.name == name), None)


def _object_in(request: ReviewRequest, text: str) -> dict[str, JsonValue]:
    try:
        data = json.loads(text, parse_constant=_no_number)
    except ValueError as error:
        raise _invalid(request, f"this is not JSON: {error}") from None
    except RecursionError:
        raise _invalid(request, "this JSON is nested too deeply") from None
    if not isinstance(data, dict):
        raise _invalid(request, "this must be a JSON object, with the fields of the subject")
    return data


def _invalid(request: ReviewRequest, message: str) -> InvalidAnswer:
    return InvalidAnswer(request.request_id, [FieldProblem("", message)])


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _raw(field: FormField, value: JsonValue) -> JsonValue:
    """Return what a form would have to send to mean this value.

    Forms send strings, so `parse_answer` reads a string as the field's type says; a string that
    was typed as JSON is a string already.
    """
    return (
        json.dumps(value) if isinstance(value, str) and field.widget not in TEXT_WIDGETS else value
    )


def _suffix(field: FormField) -> str:
    """Return the suffix for a text, so that an editor knows how to colour it."""
    if field.widget == "markdown":
        return ".md"
    if field.widget != "code" or field.language is None:
        return ".txt"
    from rich.syntax import Syntax

    patterns = getattr(Syntax("", field.language).lexer, "filenames", ())
    # The language comes from a schema: nothing but a plain suffix goes into a file name.
    suffixes = (pattern.removeprefix("*") for pattern in patterns)
    return next((s for s in suffixes if re.fullmatch(r"\.[a-z0-9]{1,8}", s)), ".txt")
