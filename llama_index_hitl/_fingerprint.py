"""What a paused run leans on in the code of its workflow, to notice when the code changes.

That is the steps with the events that they accept, and the fields of the workflow's own events and
of its state. Events of upstream and of this package are left out: their versions are on record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from difflib import SequenceMatcher
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from workflows import Workflow
from workflows.context.state_store import DictState, infer_state_type

from llama_index_hitl._codec import serializer_for
from llama_index_hitl._codec.allowed import is_framework
from llama_index_hitl._ledger import BUFFER
from llama_index_hitl._upstream import steps_accepting
from llama_index_hitl.models import Value, digest_of

_OPTIONAL = "optional "
_READABLE = 100  # characters
_NAMED = "x-name"


class Fingerprint(Value):
    """What a paused run leans on in the code of its workflow.

    Attributes:
        steps: The names of the events that each step accepts, sorted.
        types: For each event type of the workflow's own, and for its state, the fields with what
            they hold: `string`, `optional integer`, `array of number | null`. What is too long to
            be read stands as a hash.
        state: The name of the type of its state; None: it has none of its own.
    """

    steps: dict[str, tuple[str, ...]]
    types: dict[str, dict[str, str]]
    state: str | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all of it, in hexadecimal; the same in every process."""
        return digest_of(self.model_dump(mode="json"))


_fingerprints: WeakKeyDictionary[type[Workflow], dict[tuple[type, ...], Fingerprint]] = (
    WeakKeyDictionary()
)


def fingerprint_of(workflow: Workflow) -> Fingerprint:
    """Return the fingerprint of a workflow's code."""
    known = _fingerprints.setdefault(type(workflow), {})
    key = tuple(workflow.events)
    if key not in known:
        known[key] = _made(workflow)
    return known[key]


def _made(workflow: Workflow) -> Fingerprint:
    types = serializer_for(workflow).types
    state = infer_state_type(workflow)
    steps: dict[str, list[str]] = {}
    for event in workflow.events:
        for step in steps_accepting(workflow, event):
            steps.setdefault(step, []).append(types.name_of(event) or _brief_name(event))
    own = [cls for cls in (*workflow.events, state) if not is_framework(cls)]
    named = {types.name_of(cls) or _brief_name(cls): cls for cls in own}
    return Fingerprint(
        steps={step: tuple(sorted(steps[step])) for step in sorted(steps)},
        types={name: _fields_of(named[name]) for name in sorted(named)},
        state=None if state is DictState else types.name_of(state),
    )


def _brief_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__name__}"


# --------------------------------------------------------------------------- schemas


class _SchemaMaker(GenerateJsonSchema):
    """Names the classes of frameworks instead of looking into them, and takes any other type."""

    ignored_warning_kinds = frozenset({"skipped-choice", "non-serializable-default"})  # type: ignore[assignment]

    def model_schema(self, schema: Any) -> dict[str, Any]:
        if is_framework(schema["cls"]):
            return {_NAMED: _brief_name(schema["cls"])}
        return super().model_schema(schema)

    def dataclass_schema(self, schema: Any) -> dict[str, Any]:
        if is_framework(schema["cls"]):
            return {_NAMED: _brief_name(schema["cls"])}
        return super().dataclass_schema(schema)

    def is_instance_schema(self, schema: Any) -> dict[str, Any]:
        return {_NAMED: _brief_name(schema["cls"])}

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
        return {_NAMED: f"a {schema['type']}"}


def _fields_of(cls: type[BaseModel]) -> dict[str, str]:
    """Return what the fields of a class hold, but for those that it has from a framework."""
    schema = cls.model_json_schema(by_alias=False, schema_generator=_SchemaMaker)
    definitions = schema.get("$defs", {})
    while "$ref" in schema:  # a class that refers to itself
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    required = set(schema.get("required", ()))
    return {
        name: ("" if name in required else _OPTIONAL) + _short(_described(content, definitions))
        for name, content in sorted(schema.get("properties", {}).items())
        if not _is_inherited(cls, name)
    }


def _is_inherited(cls: type[BaseModel], name: str) -> bool:
    field = cls.model_fields.get(name)
    bases = (base for base in cls.__mro__[1:] if issubclass(base, BaseModel) and is_framework(base))
    return field is not None and any(
        name in base.model_fields and base.model_fields[name].annotation == field.annotation
        for base in bases
    )


def _short(text: str) -> str:
    if len(text) <= _READABLE:
        return text
    kind = "object" if text.startswith("{") else text.split(" ", 1)[0]
    return f"{kind} #{digest_of(text)[:12]}"


def _described(schema: Any, definitions: Mapping[str, Any], seen: tuple[str, ...] = ()) -> str:
    """Say in few words what a JSON schema lets pass; limits, defaults and titles are left out."""
    if not isinstance(schema, dict):
        return "anything" if schema else "nothing"
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name in seen:
            return f"(as {len(seen) - seen.index(name)} above)"
        return _described(definitions[name], definitions, (*seen, name))
    if _NAMED in schema:
        return str(schema[_NAMED])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return _joined(json.dumps(value) for value in schema["enum"])

    return _described_parts(schema, lambda part: _described(part, definitions, seen))


def _described_parts(schema: dict[str, Any], inner: Callable[[Any], str]) -> str:
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return _joined(map(inner, schema[key]))
    kind = schema.get("type", "anything")
    if kind == "array":
        name = "set" if schema.get("uniqueItems") else "array"
        if "prefixItems" in schema:
            return f"{name} [{', '.join(map(inner, schema['prefixItems']))}]"
        return f"{name} of {inner(schema.get('items', True))}"
    if kind == "object":
        return _described_object(schema, inner)
    return str(schema.get("format", kind))


def _described_object(schema: dict[str, Any], inner: Callable[[Any], str]) -> str:
    if "properties" in schema:
        required = schema.get("required", ())
        parts = (
            f"{name}{'' if name in required else '?'}: {inner(part)}"
            for name, part in sorted(schema["properties"].items())
        )
        return f"{{{', '.join(parts)}}}"
    others = schema.get("additionalProperties", True)
    return "object" if others is True else f"object of {inner(others)}"


def _joined(alternatives: Iterable[str]) -> str:
    return " | ".join(sorted(set(alternatives), key=lambda text: (text == "null", text)))


# --------------------------------------------------------------------------- comparing


def differences(
    then: Fingerprint, now: Fingerprint, *, occurring: set[str], reviewed: Collection[str] = ()
) -> tuple[str, ...]:
    """Say what has changed so that a paused run may not fit the code any more.

    What was only added is no difference: steps, events, fields with a default, further types that
    a field takes. Nor is a changed type of which the run holds nothing. What is under review is
    another matter: people approve what they were shown, so nothing may come to it.

    Args:
        then: The code that paused the run.
        now: The code that is to resume it.
        occurring: The names of the types that occur in the run, see `occurring_types`.
        reviewed: The names of the types that are under review in it, see `reviewed_types`.

    Returns:
        One sentence for each difference; nothing: the run fits.
    """
    renamed = {
        old: new
        for old, fields in then.types.items()
        if old not in now.types and (new := _successor(old, fields, then, now)) is not None
    }
    return (
        *_step_differences(then, now, renamed),
        *_type_differences(then, now, renamed, occurring),
        *_unseen_fields(then, now, reviewed),
    )


def _unseen_fields(then: Fingerprint, now: Fingerprint, reviewed: Collection[str]) -> Iterator[str]:
    for name in sorted(then.types.keys() & now.types.keys() & set(reviewed)):
        for field, content in now.types[name].items():
            if field not in then.types[name] and content.startswith(_OPTIONAL):
                yield (
                    f"Field {name}.{field} is new, and a {_last(name)} is under review that was "
                    "shown without it."
                )


def _successor(old: str, fields: dict[str, str], then: Fingerprint, now: Fingerprint) -> str | None:
    """Guess what a type is called now: one that is new and has the same fields."""
    alike = [name for name in now.types if name not in then.types and now.types[name] == fields]
    moved = [name for name in alike if _last(name) == _last(old)]
    if len(moved) == 1:
        return moved[0]
    # Of events without fields of their own any could be it.
    return _most_similar(old, alike) if fields or len(alike) == 1 else None


def _most_similar(old: str, names: Iterable[str]) -> str | None:
    def likeness(name: str) -> float:
        return SequenceMatcher(None, _last(old), _last(name)).ratio()

    return max(sorted(names), key=likeness, default=None)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _step_differences(
    then: Fingerprint, now: Fingerprint, renamed: dict[str, str]
) -> Iterator[str]:
    for step, accepted in then.steps.items():
        wanted = {renamed.get(event, event) for event in accepted}
        if step not in now.steps:
            new = [s for s in now.steps if s not in then.steps and wanted <= {*now.steps[s]}]
            guess = _most_similar(step, new)
            hint = f"; {guess!r} is new and accepts the same events" if guess else ""
            yield f"Step {step!r} is gone{hint}."
            continue
        for event in accepted:
            if event in now.steps[step]:
                continue
            successor = renamed.get(event)
            if successor in now.steps[step]:
                yield f"Step {step!r} accepts {successor} in place of {event}."
            else:
                yield f"Step {step!r} no longer accepts {event}."


def _type_differences(
    then: Fingerprint, now: Fingerprint, renamed: dict[str, str], occurring: set[str]
) -> Iterator[str]:
    for name, fields in then.types.items():
        if name not in occurring:
            continue
        if name in now.types:
            yield from _field_differences(_last(name), fields, now.types[name])
            continue
        kind = "State" if name == then.state else "Event"
        successor = renamed.get(name)
        hint = f"; {successor} is new and has the same fields" if successor else ""
        yield f"{kind} type {name} is gone{hint}."


def _field_differences(name: str, then: dict[str, str], now: dict[str, str]) -> Iterator[str]:
    added = [field for field in now if field not in then]
    for field, content in then.items():
        before = content.removeprefix(_OPTIONAL)
        if field not in now:
            alike = [other for other in added if now[other].removeprefix(_OPTIONAL) == before]
            guess = _most_similar(field, alike)
            hint = f"; {guess!r} is new and holds the same" if guess else ""
            yield f"Field {name}.{field} is gone{hint}."
            continue
        after = now[field].removeprefix(_OPTIONAL)
        if not _takes(after, before):
            yield f"Field {name}.{field} was {before} and is {after}."
    for field in added:
        if not now[field].startswith(_OPTIONAL):
            yield f"Field {name}.{field} is new and has no default."


def _takes(after: str, before: str) -> bool:
    """Tell whether a field takes all that it took before, as far as it is written out."""
    if after in (before, "anything"):
        return True
    if any(mark in before + after for mark in "{[#"):
        return False
    taken = set(after.split(" | "))
    return all(
        old in taken or (old == "integer" and "number" in taken) for old in before.split(" | ")
    )


# --------------------------------------------------------------------------- in a run

_QUALIFIED_NAME = re.compile(r'"qualified_name":\s*"((?:[^"\\]|\\.)*)"')


def occurring_types(context: Mapping[str, Any]) -> set[str]:
    """Return the names of the types that occur in a run.

    Args:
        context: What `Context.to_dict` returned.
    """
    return set(_names_in(context))


def _names_in(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        for found in _QUALIFIED_NAME.finditer(data):
            # Within the text of a person a quotation mark has a backslash before it.
            if data[found.start() - 1] != "\\":
                with suppress(ValueError):  # of damaged text, which its reader will refuse
                    yield json.loads(f'"{found[1]}"')
    elif isinstance(data, Mapping):
        waited_for = data.get("waiting_for_event")
        if isinstance(waited_for, str):
            yield waited_for
        for item in data.values():
            yield from _names_in(item)
    elif isinstance(data, list | tuple):
        for item in data:
            yield from _names_in(item)


def reviewed_types(context: Mapping[str, Any]) -> set[str]:
    """Return the names of the types that are under review in a run.

    Args:
        context: What `Context.to_dict` returned.
    """
    found: set[str] = set()
    for worker in context.get("workers", {}).values():
        for memory in worker.get("collected_events", {}).get(BUFFER, ()):
            with suppress(ValueError):  # of damaged text, which its reader will refuse
                for proposal in _proposals_in(json.loads(memory)):
                    found.update(_names_in(json.dumps(proposal)))
    return found


def _proposals_in(data: Any) -> Iterator[Any]:
    if isinstance(data, Mapping):
        for key, item in data.items():
            if key == "proposal" and isinstance(item, Mapping):
                yield item
            else:
                yield from _proposals_in(item)
