"""Rules by a value of the subject: a number, a level, what is on a list."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from typing import Any, TypeAlias

from llama_index_hitl.rules._rule import ASK, Rule, Verdict, rule_of, shown

Number: TypeAlias = int | float | Decimal
"""What `threshold` compares."""
Plain: TypeAlias = str | int | float | Decimal | bool | Enum | None
"""What `one_of` and `none_of` look for."""


def threshold(
    field: str,
    *,
    above: Number | None = None,
    at_least: Number | None = None,
    below: Number | None = None,
    at_most: Number | None = None,
    then: Verdict = ASK,
) -> Rule:
    """Match a number that is beyond a bound, or within a range of two bounds.

    Args:
        field: Dotted path of the number, such as `payment.amount`.
        above: Lower bound, itself not included.
        at_least: Lower bound, itself included.
        below: Upper bound, itself not included.
        at_most: Upper bound, itself included.
        then: What to say about a number that matches.

    Returns:
        The rule. Evaluated on anything but a finite int, float or Decimal, it raises.

    Raises:
        TypeError: A bound is not a number.
        ValueError: There is no bound, there are two on one side, they leave no room for a number,
            or one is not finite; or `then` is no verdict.

    Example:
        >>> evaluate(threshold("payment.amount", above=100), {"payment": {"amount": 500}}).reason
        'payment.amount 500 is above 100'
    """
    given = {"above": above, "at_least": at_least, "below": below, "at_most": at_most}
    bounds = {
        word: finite_number(f"the bound {word}", bound)
        for word, bound in given.items()
        if bound is not None
    }
    _refuse_contradiction(bounds)
    said = " and ".join(f"{word.replace('_', ' ')} {bound}" for word, bound in bounds.items())

    def matches(value: Any) -> str | None:
        number = finite_number(field, value)
        within = all(_COMPARE[word](number, bound) for word, bound in bounds.items())
        return f"{field} {number} is {said}" if within else None

    return _field_rule(f"{field} {said}", field, matches, then)


def confidence(field: str = "confidence", *, below: float, then: Verdict = ASK) -> Rule:
    """Match a confidence that is too low.

    Args:
        field: Dotted path of the confidence, a number from 0 to 1.
        below: What is too low: below this number, which is above 0 and at most 1.
        then: What to say about a confidence that is too low.

    Returns:
        The rule. Evaluated on anything but a number from 0 to 1, such as a percentage, it raises.

    Raises:
        TypeError: `below` is not a number.
        ValueError: `below` is out of range, or `then` is no verdict.

    Example:
        >>> evaluate(confidence(below=0.8), {"confidence": 0.5}).reason
        'confidence 0.5 is below 0.8'
    """
    if not 0 < finite_number("the bound below", below) <= 1:
        raise ValueError(f"the bound below must be above 0 and at most 1, not {below}")

    def matches(value: Any) -> str | None:
        number = finite_number(field, value)
        if not 0 <= number <= 1:
            raise ValueError(f"{field} must be from 0 to 1, not {number}")
        return f"{field} {number} is below {below}" if number < below else None

    return _field_rule(f"{field} below {below}", field, matches, then)


def risk(
    field: str = "risk_level",
    *,
    at_least: str,
    order: Sequence[str] = ("low", "medium", "high"),
    then: Verdict = ASK,
) -> Rule:
    """Match a level of risk that is high enough.

    Args:
        field: Dotted path of the level, a string or an enum with string values.
        at_least: The lowest level that matches.
        order: All levels there are, the lowest first.
        then: What to say about a level that is high enough.

    Returns:
        The rule. Evaluated on a level that is not in the order, it raises.

    Raises:
        TypeError: The order is a string.
        ValueError: The order names a level twice, or does not name `at_least`; or `then` is no
            verdict.

    Example:
        >>> evaluate(risk(at_least="medium"), {"risk_level": "high"}).reason
        'risk_level high is at least medium'
    """
    levels = _listed("order", order)
    if len(set(levels)) != len(levels):
        raise ValueError(f"the order names a level twice: {', '.join(map(str, levels))}")
    lowest = _rank("at_least", at_least, levels)

    def matches(value: Any) -> str | None:
        if _rank(field, value, levels) < lowest:
            return None
        return f"{field} {_plain(value)} is at least {at_least}"

    return _field_rule(f"{field} at least {at_least}", field, matches, then)


def one_of(field: str, values: Collection[Plain], *, then: Verdict) -> Rule:
    """Match a value that is on a list.

    Args:
        field: Dotted path of the value.
        values: The list: strings, numbers, booleans, enum members or None, compared exactly.
        then: What to say about a value that is on it.

    Returns:
        The rule. Evaluated on a value of another kind than those on the list, it raises: 7 is not
        found on a list of strings, and that says nothing about whether "7" is.

    Raises:
        TypeError: The list is a string, or has something else on it.
        ValueError: The list is empty, or `then` is no verdict.

    Example:
        >>> evaluate(one_of("country", ["KP", "IR"], then="reject"), {"country": "IR"}).reason
        "country 'IR' is one of 'KP', 'IR'"
    """
    listed = _listed("values", values)
    said = ", ".join(shown(value) for value in listed)

    def matches(value: Any) -> str | None:
        found = _is_listed(field, value, listed)
        return f"{field} {shown(_plain(value))} is one of {said}" if found else None

    return _field_rule(f"{field} on a list", field, matches, then)


def none_of(field: str, values: Collection[Plain], *, then: Verdict) -> Rule:
    """Match a value that is not on a list.

    Args:
        field: Dotted path of the value.
        values: The list: strings, numbers, booleans, enum members or None, compared exactly.
        then: What to say about a value that is not on it.

    Returns:
        The rule. Evaluated on a value of another kind than those on the list, it raises: 7 is not
        found on a list of strings, and that says nothing about whether "7" is.

    Raises:
        TypeError: The list is a string, or has something else on it.
        ValueError: The list is empty, or `then` is no verdict.

    Example:
        >>> evaluate(none_of("payee", ["ACME"], then="ask"), {"payee": "Umbrella"}).reason
        "payee 'Umbrella' is none of 'ACME'"
    """
    listed = _listed("values", values)
    said = ", ".join(shown(value) for value in listed)

    def matches(value: Any) -> str | None:
        found = _is_listed(field, value, listed)
        return None if found else f"{field} {shown(_plain(value))} is none of {said}"

    return _field_rule(f"{field} off a list", field, matches, then)


# --------------------------------------------------------------------------- reading the subject


def _field_rule(name: str, field: str, matches: Callable[[Any], str | None], then: Verdict) -> Rule:
    path = _path(field)
    return rule_of(name, lambda subject: matches(_read(subject, path)), then)


def _path(field: str) -> tuple[str, ...]:
    """Split a dotted path. Private names are refused: they are no part of what is reviewed."""
    if not isinstance(field, str):
        raise TypeError(f"a field is named by a string, not {shown(field)}")
    parts = tuple(field.split("."))
    if any(not part.strip() or part.startswith("_") for part in parts):
        raise ValueError(f"{shown(field)} does not name a field, such as 'payment.amount'")
    return parts


def _read(subject: Any, path: tuple[str, ...]) -> Any:
    """Return the value at a path, by key from mappings and by attribute from all else."""
    found, field = subject, ".".join(path)
    for part in path:
        if isinstance(found, Mapping):
            # Not by subscript: a defaultdict would make up a value.
            found = found.get(part, _MISSING)
        else:
            found = getattr(found, part, _MISSING)
        if found is _MISSING:
            raise LookupError(f"{type(subject).__name__} has no field {field!r}")
    if callable(found):
        raise TypeError(f"{field!r} is a function of {type(subject).__name__}, not a field")
    return found


_MISSING = object()


def _plain(value: Any) -> Any:
    """Return the value of an enum member, and anything else as it is."""
    return value.value if isinstance(value, Enum) else value


def finite_number(name: str, value: Any) -> Number:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise TypeError(f"{name} must be a number, not {shown(value)}")
    if not _is_finite(value):
        raise ValueError(f"{name} must be a finite number, not {value}")
    return value


def _is_finite(number: Number) -> bool:
    # Whole numbers and Decimals may be finite and yet too large for a float.
    if isinstance(number, Decimal):
        return number.is_finite()
    return isinstance(number, int) or math.isfinite(number)


_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "above": lambda number, bound: number > bound,
    "at_least": lambda number, bound: number >= bound,
    "below": lambda number, bound: number < bound,
    "at_most": lambda number, bound: number <= bound,
}


def _refuse_contradiction(bounds: Mapping[str, Number]) -> None:
    lower = [bounds[word] for word in ("above", "at_least") if word in bounds]
    upper = [bounds[word] for word in ("below", "at_most") if word in bounds]
    if not bounds:
        raise ValueError("give a bound: above, at_least, below or at_most")
    if len(lower) > 1 or len(upper) > 1:
        raise ValueError("give one bound for each side: above or at_least, below or at_most")
    if lower and upper:
        closed = "at_least" in bounds and "at_most" in bounds
        if lower[0] > upper[0] or (lower[0] == upper[0] and not closed):
            raise ValueError(f"no number is between the bounds {lower[0]} and {upper[0]}")


def _rank(name: str, level: Any, levels: Sequence[Any]) -> int:
    plain = _plain(level)
    if plain not in levels:
        raise ValueError(f"{name} {shown(plain)} is not one of {', '.join(levels)}")
    return levels.index(plain)


def _kind(value: Any) -> str:
    """Tell which values can be compared: a boolean is no number, and a number no string."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int | float | Decimal):
        finite_number("a number to compare", value)
        return "number"
    raise TypeError(f"{shown(value)} cannot be compared with the values on a list")


def _listed(name: str, values: Iterable[Any]) -> tuple[Any, ...]:
    if isinstance(values, str | bytes | Mapping):
        raise TypeError(f"{name} must be a list of values, not {shown(values)}")
    listed = tuple(_plain(value) for value in values)
    if not listed:
        raise ValueError(f"{name} must not be empty")
    for value in listed:
        _kind(value)
    return listed


def _is_listed(field: str, value: Any, listed: Sequence[Any]) -> bool:
    plain = _plain(value)
    kind = _kind(plain)
    alike = [other for other in listed if _kind(other) == kind]
    if not alike:
        kinds = " or ".join(sorted({_kind(other) for other in listed}))
        raise TypeError(f"{field} {shown(plain)} is no {kinds}, as those on the list")
    return plain in alike
