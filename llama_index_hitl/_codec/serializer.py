"""The serializer of snapshots, and how a whole run is written with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from pydantic import ValidationError
from workflows import Workflow
from workflows.context.serializers import JsonSerializer
from workflows.context.state_store import DictState
from workflows.events import Event

from llama_index_hitl._codec.allowed import AllowedTypes, allowed_for, named_in_tools
from llama_index_hitl._codec.encoding import Decoder, Encoder
from llama_index_hitl._codec.values import TAG, Json
from llama_index_hitl.errors import FieldProblem, SnapshotError, UnserializableState
from llama_index_hitl.forms import problems_of


class SnapshotSerializer(JsonSerializer):
    """Writes the values of a run as JSON, and reads them back equal and of the same types.

    Beyond what JSON knows: datetime, date, time, timedelta, Decimal, UUID, bytes, paths, tuples,
    sets, dicts with any keys, NaN and infinity; and enums, dataclasses, named tuples, pydantic
    models, events, subclasses of str, int and float, and the memory of agents, if their class is
    allowed. What a pydantic model keeps in private attributes, or excludes, is not stored.

    Args:
        types: The classes that may be named in what is written and read.
    """

    def __init__(self, types: AllowedTypes) -> None:
        super().__init__(allowed_types=())
        self.types = types

    def with_types(self, *classes: type[Any]) -> SnapshotSerializer:
        """Return a serializer that knows these classes too."""
        return SnapshotSerializer(self.types.extended(classes))

    def resolve_class(self, qualified_name: str) -> type[Any]:
        """Return the class of a name.

        Raises:
            SnapshotError: It is not the name of a class that is allowed.
        """
        return self.types.resolve(qualified_name)

    def serialize_value(self, value: Any) -> Json:
        """Return a value as JSON.

        Raises:
            UnserializableState: It, or something in it, would not come back as it is.
        """
        data, problems = self.encoded(value)
        if problems:
            raise UnserializableState(problems)
        return data

    def serialize(self, value: Any) -> str:
        """Return a value as JSON text.

        Raises:
            UnserializableState: It, or something in it, would not come back as it is.
        """
        return json.dumps(self.serialize_value(value))

    def deserialize_value(self, data: Json) -> Any:
        """Return the value that was written as this JSON.

        Raises:
            SnapshotError: It is not what this serializer writes, names a class that is not
                allowed, or does not fit its class any more.
        """
        return self._decoded(data, Decoder(self.types))

    def _decoded(self, data: Json, decoder: Decoder) -> Any:
        try:
            with self.validation_context():
                return decoder.decode(data)
        except SnapshotError:
            raise
        except Exception as error:
            raise SnapshotError(f"A stored value cannot be read: {_short(error)}.") from error

    def deserialize(self, value: str) -> Any:
        """Return the value that was written as this text.

        Raises:
            SnapshotError: As for `deserialize_value`, or the text is no JSON.
        """
        try:
            data = json.loads(value)
        except (ValueError, TypeError, RecursionError) as error:
            raise SnapshotError(f"A stored value is no JSON: {_short(error)}.") from error
        return self._decoded(data, Decoder(self.types, tagged=TAG in value))

    def problems_in(self, value: Any, key: str = "") -> list[FieldProblem]:
        """Return why a value cannot be stored; nothing: it can be.

        Args:
            value: The value.
            key: What it is called, such as `state.client`; the problems are named after it.
        """
        return [_below(key, problem) for problem in self.encoded(value)[1]]

    def encoded(self, value: Any) -> tuple[Json, list[FieldProblem]]:
        """Return a value as JSON, and why it cannot be stored if it cannot."""
        encoder = Encoder(self.types)
        try:
            with self.validation_context():
                data = encoder.whole(value)
        except RecursionError:
            encoder.refuse((), "it is nested too deeply, or contains itself")
            data = None
        return data, encoder.problems


def _short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return f"{error.title}: {'; '.join(str(problem) for problem in problems_of(error))}"
    return f"{type(error).__name__}: {error}"[:500]


def _below(key: str, problem: FieldProblem) -> FieldProblem:
    glue = "." if key and problem.field and not problem.field.startswith("[") else ""
    return FieldProblem(f"{key}{glue}{problem.field}", problem.message)


_KEPT = 16
"""Serializers that are kept for one class of workflows."""

_serializers: WeakKeyDictionary[type[Workflow], dict[tuple[Any, ...], SnapshotSerializer]] = (
    WeakKeyDictionary()
)


def serializer_for(workflow: Workflow, types: Iterable[type] = ()) -> SnapshotSerializer:
    """Return the serializer for the snapshots of a workflow.

    It knows the workflow's events and state, their fields' types, the classes that the modules and
    the methods of the workflow, or the tools of an agent, name, and what `snapshot_types` of the
    workflow lists.

    Args:
        workflow: The workflow.
        types: Further classes.

    Raises:
        TypeError: `types` or `snapshot_types` has something that is not a class.
    """
    known = _serializers.setdefault(type(workflow), {})
    named = (*getattr(workflow, "snapshot_types", ()), *types)
    found = tuple(named_in_tools(workflow))
    key = (*workflow.events, None, *named, None, *found)
    if key not in known:
        if len(known) >= _KEPT:  # agents with tools that are made for each run
            known.clear()
        known[key] = SnapshotSerializer(allowed_for(workflow, named, found))
    return known[key]


def check_survives(serializer: SnapshotSerializer, key: str, value: Any) -> None:
    """Check that a value can be stored.

    Args:
        serializer: Whose snapshot it is for.
        key: What it is called, such as `state.client`.
        value: The value.

    Raises:
        UnserializableState: It, or something in it, would not come back as it is.
    """
    if problems := serializer.problems_in(value, key):
        raise UnserializableState(problems)


# --------------------------------------------------------------------------- whole runs


def context_to_dict(
    write: Callable[[JsonSerializer], dict[str, Any]], serializer: SnapshotSerializer
) -> dict[str, Any]:
    """Return a run as `Context.to_dict` does, or say at once everything that it would lose.

    Args:
        write: Writes the run with a serializer, such as the `to_dict` of its context.
        serializer: The serializer of its workflow.

    Raises:
        UnserializableState: Something in the run would not come back as it is.
    """
    noting = _NotingSerializer(serializer)
    data = write(noting)
    problems = [
        *_lost_state(data),
        *noting.problems_in_run(data),
        *_unknown_answers(data, serializer),
    ]
    if problems:
        raise UnserializableState(dict.fromkeys(problems))
    return data


class _NotingSerializer(JsonSerializer):
    """Goes on where something cannot be stored, so that all of it can be told at once.

    It leaves a mark instead, by which the place is found in the written run.
    """

    def __init__(self, serializer: SnapshotSerializer) -> None:
        super().__init__(allowed_types=())
        self._serializer = serializer
        self._found: dict[str, tuple[str, list[FieldProblem]]] = {}

    def serialize(self, value: Any) -> str:
        data, problems = self._serializer.encoded(value)
        if not problems:
            return json.dumps(data)
        mark = f"\0{len(self._found)}"
        self._found[mark] = (type(value).__name__ if isinstance(value, Event) else "", problems)
        return mark

    def problems_in_run(self, data: dict[str, Any]) -> Iterator[FieldProblem]:
        """Yield the problems, each named after the place of its mark."""
        for place, mark in _texts(data) if self._found else ():
            event, problems = self._found.get(mark, ("", []))
            step = place[1] if place[0] == "workers" else ""
            key = ".".join(str(name) for name in (_state_key(place) or step, event) if name)
            yield from (_below(key, problem) for problem in problems)


def _state_key(place: tuple[Any, ...]) -> str:
    """Return what a place in the written state of a run is called; nothing: it is no state."""
    return ".".join(["state", *place[3:]]) if place[0] == "state" else ""


def _texts(data: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    if isinstance(data, str):
        yield place, data
    elif isinstance(data, dict | list):
        items = data.items() if isinstance(data, dict) else enumerate(data)
        for key, item in items:
            yield from _texts(item, (*place, key))


def _unknown_answers(
    data: dict[str, Any], serializer: SnapshotSerializer
) -> Iterator[FieldProblem]:
    """Yield the steps that wait for an event whose class could not be found again."""
    for step, worker in data.get("workers", {}).items():
        for waiter in worker.get("collected_waiters", ()):
            try:
                serializer.resolve_class(waiter["waiting_for_event"])
            except SnapshotError:
                name = waiter["waiting_for_event"]
                message = f"it waits for {name}, which the code of the workflow does not name"
                yield FieldProblem(step, message)


def _lost_state(data: dict[str, Any]) -> Iterator[FieldProblem]:
    """Yield what upstream leaves out: of a DictState it writes the undeclared fields only."""
    state = data.get("state", {})
    name = state.get("state_type", DictState.__name__)
    if isinstance(state.get("state_data"), dict) and name != DictState.__name__:
        yield FieldProblem("state", f"{name} is a DictState; derive it from pydantic.BaseModel")
