"""Takes values out of what somebody is shown. Pure functions; what is stored stays as it is.

A path names a field from the subject down, with dots: `customer.salary`. It goes through lists to
each of their items, `items.price`; a star stands for any one name, or place in a list. What is
below a hidden field is hidden with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from copy import deepcopy
from typing import Any, TypeAlias

from pydantic import JsonValue

from llama_index_hitl.models import (
    RULE_PREFIX,
    Answer,
    Approve,
    Edit,
    JsonObject,
    ReviewRecord,
    ReviewRequest,
    Subject,
)

HIDDEN = "•••"
"""Stands where a value is that its reader may not see."""

_Paths: TypeAlias = frozenset[tuple[str, ...]]


def masked_value(value: JsonValue, hidden: Collection[str]) -> JsonValue:
    """Return a JSON value with some of its fields hidden.

    Args:
        value: The value.
        hidden: Paths of the fields.
    """
    return _masked(value, _paths(hidden))


def masked(subject: Subject, hidden: Collection[str]) -> Subject:
    """Return a subject with some fields hidden: values, and what its schema says of them."""
    paths = _paths(hidden)
    changes = {
        "data": _masked(subject.data, paths),
        "json_schema": _masked_schema(subject.json_schema, paths),
    }
    return subject.model_copy(update=changes)


def masked_answer(answer: Answer, hidden: Collection[str]) -> Answer:
    """Return an answer likewise: an edit holds a whole subject, a rule says why it decided.

    What people wrote is left as it is.
    """
    if not hidden:
        return answer
    decision = answer.decision
    changes: dict[str, Any] = {}
    if answer.by.kind == "rule" and decision.comment is not None:
        changes["comment"] = HIDDEN  # rules quote values
    if isinstance(decision, Edit):
        changes["subject"] = masked_value(decision.subject, hidden)
    elif isinstance(decision, Approve) and decision.grant is not None:
        paths = _paths(hidden)
        limits = {
            name: {
                field: limit
                for field, limit in getattr(decision.grant, name).items()
                if not _is_hidden(field, paths)
            }
            for name in ("at_most", "in_total")
        }
        changes["grant"] = decision.grant.model_copy(update=limits)
    if not changes:
        return answer
    return answer.model_copy(update={"decision": decision.model_copy(update=changes)})


def masked_record(record: ReviewRecord, hidden: Collection[str]) -> ReviewRecord:
    """Return a request likewise, with everything that has become of it.

    Its digest stays that of what is stored, so that an answer can be checked against it.
    """
    if not hidden:
        return record
    changes: dict[str, Any] = {
        "request": _masked_request(record.request, hidden),
        "answers": _masked_answers(record.answers, hidden),
    }
    outcome = record.outcome
    if any(name.startswith(RULE_PREFIX) for name in outcome.decided_by):
        changes["outcome"] = outcome.model_copy(update={"reason": HIDDEN})
    return record.model_copy(update=changes)


def _masked_request(request: ReviewRequest, hidden: Collection[str]) -> ReviewRequest:
    changes: dict[str, Any] = {
        name: None if subject is None else masked(subject, hidden)
        for name, subject in (("subject", request.subject), ("previous", request.previous))
    }
    if request.rule is not None:
        changes["rule"] = request.rule.model_copy(update={"reason": HIDDEN})
    changes["approvals"] = tuple(
        approval.model_copy(update={"answers": _masked_answers(approval.answers, hidden)})
        for approval in request.approvals
    )
    return request.model_copy(update=changes)


def _masked_answers(answers: Iterable[Answer], hidden: Collection[str]) -> tuple[Answer, ...]:
    return tuple(masked_answer(answer, hidden) for answer in answers)


# --------------------------------------------------------------------------- paths and values


def _paths(hidden: Collection[str]) -> _Paths:
    return frozenset(tuple(path.split(".")) for path in hidden)


def _below(paths: _Paths, name: str) -> _Paths:
    """Return what is hidden below a field. Its name may have dots in it itself."""
    steps = name.split(".")
    return frozenset(
        path[len(steps) :]
        for path in paths
        if len(path) >= len(steps)
        and all(wanted in ("*", step) for wanted, step in zip(path, steps, strict=False))
    )


def _in_list(paths: _Paths, place: str) -> _Paths:
    """Return what is hidden in an item of a list, whether the path names the place or not."""
    return paths | _below(paths, place)


def _is_hidden(field: str, paths: _Paths) -> bool:
    steps = field.split(".")
    for step in steps:
        paths = _in_list(paths, step) if step.isdigit() else _below(paths, step)
        if () in paths:
            return True
    return False


def _masked(value: JsonValue, paths: _Paths) -> JsonValue:
    if () in paths:
        return HIDDEN
    if not paths:
        return value
    if isinstance(value, dict):
        return {name: _masked(item, _below(paths, name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, _in_list(paths, str(n))) for n, item in enumerate(value)]
    return value


# --------------------------------------------------------------------------- schemas

_ALIKE = ("anyOf", "oneOf", "allOf")
_DEFINED = "#/$defs/"


def _masked_schema(schema: JsonObject, paths: _Paths) -> JsonObject:
    """Return a schema that gives no value of a hidden field away: no default, example or choice."""
    copy = deepcopy(schema)
    definitions = copy.pop("$defs", None)
    if not isinstance(definitions, dict):
        definitions = {}
    _hide(copy, paths, definitions, ())
    # What only hidden fields were made of is written in their place, and not needed any more.
    if kept := _used(copy, definitions):
        copy["$defs"] = {name: definitions[name] for name in definitions if name in kept}
    return copy


def _hide(node: Any, paths: _Paths, definitions: JsonObject, above: tuple[Any, ...]) -> None:
    """Hide fields in a part of a schema, in place.

    Args:
        node: The part.
        paths: What to hide, from here down.
        definitions: What references in it mean. They are left as they are: others use them.
        above: The references that led here, with what was to be hidden; a model may hold itself.
    """
    if not paths or not isinstance(node, dict):
        return
    if () in paths:
        kept = {word: node[word] for word in ("title", "description") if word in node}
        node.clear()
        node.update(kept)
        return
    reference = str(node.get("$ref", "")).removeprefix(_DEFINED)
    if reference in definitions:
        target = definitions[reference]
        own = {word: node[word] for word in node if word != "$ref"}
        node.clear()
        if (reference, paths) not in above and isinstance(target, dict):
            node.update({**deepcopy(target), **own})
            _hide(node, paths, definitions, (*above, (reference, paths)))
        return
    for word in ("default", "const"):
        if word in node:
            node[word] = _masked(node[word], paths)
    for word in ("examples", "enum"):
        if isinstance(found := node.get(word), list):
            node[word] = [_masked(value, paths) for value in found]
    for part, below in _parts(node, paths):
        _hide(part, below, definitions, above)


def _parts(node: JsonObject, paths: _Paths) -> Iterator[tuple[Any, _Paths]]:
    """Yield the parts of a schema, with what is hidden in each."""
    for word in _ALIKE:
        if isinstance(found := node.get(word), list):
            yield from ((part, paths) for part in found)
    places = frozenset(path[1:] for path in paths if path[0] == "*" or path[0].isdigit())
    items = node.get("prefixItems")
    for part in (node.get("items"), *(items if isinstance(items, list) else ())):
        yield part, paths | places
    if isinstance(found := node.get("properties"), dict):
        yield from ((part, _below(paths, name)) for name, part in found.items())
    any_name = frozenset(path[1:] for path in paths)
    yield node.get("additionalProperties"), any_name
    if isinstance(found := node.get("patternProperties"), dict):
        yield from ((part, any_name) for part in found.values())


def _used(schema: JsonValue, definitions: JsonObject) -> frozenset[str]:
    """Return the names of the definitions that a schema still refers to, by whatever way."""
    found: set[str] = set()
    left: list[Any] = [schema]
    while left:
        node = left.pop()
        if isinstance(node, list):
            left += node
        elif isinstance(node, dict):
            name = str(node.get("$ref", "")).removeprefix(_DEFINED)
            if name in definitions and name not in found:
                found.add(name)
                left.append(definitions[name])
            left += node.values()
    return frozenset(found)
