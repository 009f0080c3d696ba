"""Values that JSON cannot carry, each as a JSON object that says what it is.

Such an object has the key `__hitl` with the kind of the value; `value` holds what it is made of.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any, TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic_core import TzInfo

from llama_index_hitl.errors import SnapshotError

TAG = "__hitl"
"""The key that makes a JSON object stand for something else."""

Json: TypeAlias = Any
"""What `json.loads` can return."""

INT_LIMIT = 1 << 4096
"""Integers beyond it are written in base 16: Python refuses to read endless decimal numbers."""

_OFFSETS = (timezone, TzInfo)  # the second is what pydantic makes of "+01:00"


class CannotStore(Exception):
    """A value of a kind that is known cannot be written; the message says why."""


def tagged(kind: str, value: Json, **more: Json) -> dict[str, Json]:
    """Return the JSON object for a value."""
    return {TAG: kind, "value": value, **more}


def part(data: dict[str, Json], name: str, kind: type | tuple[type, ...]) -> Any:
    """Return one part of a tagged object.

    Raises:
        SnapshotError: It is missing, or not of that type.
    """
    found = data.get(name)
    if not isinstance(found, kind) or isinstance(found, bool):
        raise SnapshotError(f"A stored {data.get(TAG)!r} has no valid {name!r}: {found!r:.80}.")
    return found


# --------------------------------------------------------------------------- numbers


def encode_float(value: float) -> Json:
    """Return a float as JSON; NaN and the infinite ones have no number there."""
    return value if math.isfinite(value) else tagged("float", repr(value))


def _float(data: dict[str, Json]) -> float:
    value = float(part(data, "value", str))
    if math.isfinite(value):
        raise SnapshotError(f"A stored 'float' is {value}, which needs no tag.")
    return value


def encode_int(value: int) -> Json:
    """Return an int as JSON."""
    return value if -INT_LIMIT < value < INT_LIMIT else tagged("int", hex(value))


# --------------------------------------------------------------------------- time


def _zone(zone: Any) -> dict[str, Json]:
    """Return what the ISO format does not say about a time zone.

    Raises:
        CannotStore: It is of a kind that would come back as a fixed offset.
    """
    if zone is None or type(zone) in _OFFSETS:
        return {}
    if type(zone) is ZoneInfo and zone.key is not None:
        return {"zone": zone.key}
    name = type(zone).__name__
    raise CannotStore(f"its time zone is of type {name}; use datetime.timezone or zoneinfo")


def _encode_instant(kind: str, value: datetime | time) -> Json:
    more = _zone(value.tzinfo)
    if value.fold:
        more["fold"] = 1
    plain = value.replace(tzinfo=None) if "zone" in more else value
    return tagged(kind, plain.isoformat(), **more)


def _completed(data: dict[str, Json], value: Any) -> Any:
    if "zone" in data:
        value = value.replace(tzinfo=ZoneInfo(part(data, "zone", str)))
    return value.replace(fold=1) if data.get("fold") == 1 else value


def _timedelta(data: dict[str, Json]) -> timedelta:
    days, seconds, microseconds = part(data, "value", list)
    return timedelta(int(days), int(seconds), int(microseconds))


# --------------------------------------------------------------------------- the tables


def _text_of(kind: str) -> Callable[[Any], Json]:
    return lambda value: tagged(kind, str(value))


def _base64_of(kind: str) -> Callable[[Any], Json]:
    return lambda value: tagged(kind, base64.b64encode(value).decode())


def _made_of(make: Callable[[str], Any]) -> Callable[[dict[str, Json]], Any]:
    return lambda data: make(part(data, "value", str))


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


ENCODERS: dict[type, Callable[[Any], Json]] = {
    float: encode_float,
    int: encode_int,
    datetime: lambda value: _encode_instant("datetime", value),
    date: lambda value: tagged("date", value.isoformat()),
    time: lambda value: _encode_instant("time", value),
    timedelta: lambda v: tagged("timedelta", [v.days, v.seconds, v.microseconds]),
    Decimal: _text_of("decimal"),
    UUID: _text_of("uuid"),
    bytes: _base64_of("bytes"),
    bytearray: _base64_of("bytearray"),
    PosixPath: _text_of("path"),
    WindowsPath: _text_of("path"),
    PurePosixPath: _text_of("posix path"),
    PureWindowsPath: _text_of("windows path"),
}
"""How a value of exactly this type is written. May raise `CannotStore`."""

DECODERS: dict[str, Callable[[dict[str, Json]], Any]] = {
    "float": _float,
    "int": _made_of(lambda text: int(text, 16)),
    "datetime": lambda data: _completed(data, datetime.fromisoformat(part(data, "value", str))),
    "date": _made_of(date.fromisoformat),
    "time": lambda data: _completed(data, time.fromisoformat(part(data, "value", str))),
    "timedelta": _timedelta,
    "decimal": _made_of(Decimal),
    "uuid": _made_of(UUID),
    "bytes": _made_of(_bytes),
    "bytearray": _made_of(lambda text: bytearray(_bytes(text))),
    "path": _made_of(Path),
    "posix path": _made_of(PurePosixPath),
    "windows path": _made_of(PureWindowsPath),
}
"""How a tagged object of this kind is read. May raise `SnapshotError` or any `ValueError`."""
