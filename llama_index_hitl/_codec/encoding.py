"""Python values to JSON and back, at any depth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from enum import Enum, Flag
from functools import cached_property
from typing import Any, TypeAlias

from pydantic import BaseModel

from llama_index_hitl._codec import memory, pydantic_models
from llama_index_hitl._codec.allowed import AllowedTypes, is_named_tuple
from llama_index_hitl._codec.values import DECODERS, ENCODERS, TAG, CannotStore, Json, part, tagged
from llama_index_hitl.errors import FieldProblem, SnapshotError

Place: TypeAlias = tuple[Any, ...]
"""Where a value is: the place of what holds it, and its key in there; () is the whole."""

_PLAIN = frozenset({str, bool, type(None)})
_COLLECTIONS: dict[type, str] = {tuple: "tuple", set: "set", frozenset: "frozenset"}
_BASES: dict[str, type[Any]] = {f"subclass of {base.__name__}": base for base in (str, int, float)}
_NAME = "qualified_name"
_WITHIN_MODELS = frozenset({TAG})
_ELSEWHERE = frozenset({TAG, "__is_pydantic", "__is_component"})
"""Keys that mean something to us or to upstream; a dict of a user that has one is escaped."""


class Encoder:
    """Writes one value; what cannot be written is in `problems` afterwards.

    Args:
        types: The classes that may be named.
    """

    def __init__(self, types: AllowedTypes) -> None:
        self.problems: list[FieldProblem] = []
        self._types = types
        self._reserved = _ELSEWHERE

    def refuse(self, at: Place, message: str) -> None:
        """Note that something cannot be written."""
        self.problems.append(FieldProblem(_shown(at), message))

    def encode(self, value: Any, at: Place = ()) -> Json:
        """Return a value as JSON; what cannot be written is left out and noted."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is dict:
            return self._dict(value, at)
        if kind is list:
            return self._items(value, at)
        if kind in _COLLECTIONS:
            return tagged(_COLLECTIONS[kind], self._items(value, at))
        encoder = ENCODERS.get(kind)
        if encoder is None:
            return self._instance(value, at)
        try:
            return encoder(value)
        except CannotStore as error:
            self.refuse(at, str(error))
            return None

    def whole(self, value: Any) -> Json:
        """Return a value as JSON, in upstream's own form where it is a model."""
        data = self.encode(value)
        if isinstance(data, dict) and data.get(TAG) == "model":
            return {"__is_pydantic": True, **{key: data[key] for key in ("value", _NAME)}}
        return data

    def decoded(self, data: Json) -> Any:
        """Return what will be read of something that was written within a model."""
        return Decoder(self._types).within_model(data)

    def _items(self, items: Iterable[Any], at: Place) -> list[Json]:
        return [
            item if type(item) in _PLAIN else self.encode(item, (at, index))
            for index, item in enumerate(items)
        ]

    def _dict(self, value: dict[Any, Any], at: Place) -> Json:
        for key in value:
            if type(key) is not str or key in self._reserved:
                return tagged("dict", [self._pair(*item, at) for item in value.items()])
        return {
            key: item if type(item) in _PLAIN else self.encode(item, (at, key))
            for key, item in value.items()
        }

    def _pair(self, key: Any, item: Any, at: Place) -> list[Json]:
        return [self.encode(key, (at, key)), self.encode(item, (at, key))]

    def _instance(self, value: Any, at: Place) -> Json:
        """Return a value whose class has to be named."""
        kind = type(value)
        name, form = self._types.name_of(kind), _form_of(value)
        if form is None:
            self.refuse(at, f"a value of type {_described(kind)} cannot be stored")
            return None
        if name is None:
            self.refuse(at, f"the code of the workflow does not name its class, {_described(kind)}")
            return None
        return tagged(form, self._content(form, value, at), **{_NAME: name})

    def _content(self, form: str, value: Any, at: Place) -> Json:
        match form:
            case "model":
                return self._model(value, at)
            case "memory":
                return memory.encode(value, self, at)
            case "enum":
                return value.value if isinstance(value, Flag) else value.name
            case "dataclass":
                return self._dataclass(value, at)
            case "named tuple":
                return self._items(value, at)
        return self.encode(_BASES[form].__getnewargs__(value)[0], at)  # whatever its own str() is

    def _model(self, value: BaseModel, at: Place) -> Json:
        outside, self._reserved = self._reserved, _WITHIN_MODELS
        try:
            return pydantic_models.encode(value, self, at)
        finally:
            self._reserved = outside

    def _dataclass(self, value: Any, at: Place) -> dict[str, Json]:
        kind = type(value)
        names = [field.name for field in dataclasses.fields(value)]
        for extra in sorted(getattr(value, "__dict__", {}).keys() - set(names)):
            if not isinstance(getattr(kind, extra, None), cached_property):
                self.refuse((at, extra), f"{_described(kind)} does not declare this field")
        return {n: self.encode(getattr(value, n), (at, n)) for n in names if hasattr(value, n)}


def _form_of(value: object) -> str | None:
    """Return in which form a value is written with the name of its class; None: in none."""
    kind = type(value)
    if memory.is_memory(value):
        return "memory"
    if isinstance(value, BaseModel):
        return "model"
    if isinstance(value, Enum):
        return "enum"
    if dataclasses.is_dataclass(kind):
        return "dataclass" if kind.__new__ is object.__new__ else None
    if is_named_tuple(kind):
        return "named tuple"
    if getattr(value, "__dict__", None):
        return None
    return next((form for form, base in _BASES.items() if isinstance(value, base)), None)


def _described(kind: type) -> str:
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{module}{kind.__qualname__}"


def _shown(at: Place) -> str:
    """Return a place as people write it, such as `order.lines[2]`."""
    keys: list[Any] = []
    while at:
        at, key = at
        keys.append(key)
    text = ""
    for key in reversed(keys):
        named = isinstance(key, str) and key.isidentifier()
        text += (f".{key}" if text else key) if named else f"[{key!r:.60}]"
    return text


class Decoder:
    """Reads one value.

    Args:
        types: The classes that may be named.
        tagged: There may be values that JSON cannot carry; False saves looking for them.
    """

    def __init__(self, types: AllowedTypes, *, tagged: bool = True) -> None:
        self._types = types
        self._may_be_tagged = tagged

    def decode(self, data: Json) -> Any:
        """Return the value that was written as this JSON.

        Raises:
            SnapshotError: It says something that was never written.
            Exception: Whatever else comes of reading what was never written.
        """
        if isinstance(data, dict) and TAG not in data and data.get(_NAME):
            if data.get("__is_pydantic"):
                return self._model(data)
            if data.get("__is_component"):
                raise SnapshotError("The snapshot was not written by this package.")
        return self._read(data, self.decode)

    def within_model(self, data: Json) -> Any:
        """Return a value from within a model, where pydantic does the rest."""
        return self._read(data, self.within_model) if self._may_be_tagged else data

    def _read(self, data: Json, read: Callable[[Json], Any]) -> Any:
        if isinstance(data, dict):
            return self._tagged(data, read) if TAG in data else self._dict(data, read)
        return self._list(data, read) if isinstance(data, list) else data

    def _dict(self, data: dict[str, Json], read: Callable[[Json], Any]) -> dict[str, Any]:
        return {key: item if type(item) in _PLAIN else read(item) for key, item in data.items()}

    def _list(self, data: list[Json], read: Callable[[Json], Any]) -> list[Any]:
        return [item if type(item) in _PLAIN else read(item) for item in data]

    def _tagged(self, data: dict[str, Json], read: Callable[[Json], Any]) -> Any:
        kind = data[TAG]
        if not isinstance(kind, str):
            raise _unknown(kind)
        if kind in DECODERS:
            return DECODERS[kind](data)
        match kind:
            case "dict":
                return {read(key): read(item) for key, item in part(data, "value", list)}
            case "tuple":
                return tuple(self._list(part(data, "value", list), read))
            case "set":
                return set(self._list(part(data, "value", list), read))
            case "frozenset":
                return frozenset(self._list(part(data, "value", list), read))
        return self._instance(kind, data, read)

    def _instance(self, kind: str, data: dict[str, Json], read: Callable[[Json], Any]) -> Any:
        match kind:
            case "model":
                return self._model(data)
            case "memory":
                content = self._dict(part(data, "value", dict), read)
                return memory.decode(self._class(data, BaseModel), content)
            case "enum":
                return _enum(self._class(data, Enum), data)
            case "dataclass":
                content = self._dict(part(data, "value", dict), read)
                return _dataclass(self._class(data), content)
            case "named tuple":
                items = self._list(part(data, "value", list), read)
                return _named_tuple(self._class(data, tuple), items)
        if kind not in _BASES:
            raise _unknown(kind)
        return _subclass(self._class(data, _BASES[kind]), _BASES[kind], read(data.get("value")))

    def _model(self, data: dict[str, Json]) -> Any:
        cls = self._class(data, BaseModel)
        return pydantic_models.decode(cls, self.within_model(data.get("value")))

    def _class(self, data: dict[str, Json], base: type = object) -> type[Any]:
        cls = self._types.resolve(data.get(_NAME))
        if not issubclass(cls, base):
            raise SnapshotError(f"{cls.__name__} is stored as {data.get(TAG)!r}, and is none.")
        return cls


def _unknown(kind: object) -> SnapshotError:
    return SnapshotError(f"The snapshot has a value of an unknown kind: {kind!r:.80}.")


def _enum(cls: type[Enum], data: dict[str, Json]) -> Enum:
    value = data.get("value")
    if issubclass(cls, Flag):
        return cls(value)
    member = cls.__members__.get(value) if isinstance(value, str) else None
    if member is None:
        known = ", ".join(cls.__members__)
        raise SnapshotError(f"{cls.__name__} has no member {value!r:.80} (it has: {known}).")
    return member


def _named_tuple(cls: type[Any], items: list[Any]) -> Any:
    if not is_named_tuple(cls) or len(items) != len(cls._fields):
        raise SnapshotError(f"{cls.__name__} is no named tuple of {len(items)} fields.")
    return tuple.__new__(cls, items)


def _subclass(cls: type[Any], base: type[Any], value: Any) -> Any:
    if type(value) is not base or issubclass(cls, Enum):
        raise SnapshotError(f"A stored {cls.__name__} holds no {base.__name__}.")
    return base.__new__(cls, value)


def _dataclass(cls: type[Any], values: dict[str, Any]) -> Any:
    """Return an instance as it was; what is done when one is made is not done again."""
    if not dataclasses.is_dataclass(cls):
        raise SnapshotError(f"{cls.__name__} is stored as a dataclass, and is none.")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    if strangers := sorted(values.keys() - fields):
        raise SnapshotError(f"{cls.__name__} has no field {', '.join(strangers)}.")
    instance = object.__new__(cls)
    for name, field in fields.items():
        if name in values:
            value = values[name]
        elif field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            raise SnapshotError(f"The snapshot has no {name!r} for {cls.__name__}.")
        object.__setattr__(instance, name, value)
    return instance
