"""Rules that pick a share of all subjects, always the same ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from llama_index_hitl.models import digest_of
from llama_index_hitl.rules._rule import ASK, Rule, Verdict, rule_of, shown
from llama_index_hitl.rules._values import finite_number

_SAMPLE_DIGITS = 13  # hexadecimal: 52 bits, which a float holds exactly
_SAMPLES = 16**_SAMPLE_DIGITS


def sample(share: float, *, salt: str, then: Verdict = ASK) -> Rule:
    """Match a share of all subjects, for spot checks.

    Which ones is not chance but SHA-256 over the salt and the subject as canonical JSON: the same
    subject gives the same result, in every process. Whoever knows the salt and can vary the subject
    can tell which ones are picked, so keep it from those who are checked.

    Args:
        share: Share to pick, from 0 (none) to 1 (all).
        salt: Any words, not blank; another salt picks others.
        then: What to say about a subject that is picked.

    Returns:
        The rule. Evaluated on a subject that cannot be written as JSON, it raises.

    Raises:
        TypeError: The share is not a number, or the salt is not a string.
        ValueError: The share is out of range, the salt is blank, or `then` is no verdict.

    Example:
        >>> evaluate(sample(1, salt="2025"), {"amount": 5}).reason
        'picked for a spot check of 100%'
    """
    picks = picker(share, salt)
    percent = f"{float(share) * 100:g}%"

    def matches(subject: Any) -> str | None:
        return f"picked for a spot check of {percent}" if picks(subject) else None

    return rule_of(f"sample of {share}", matches, then)


def picker(share: float, salt: str) -> Callable[[Any], bool]:
    """Return what tells whether a subject belongs to a share of all."""
    if not 0 <= finite_number("the share", share) <= 1:
        raise ValueError(f"the share must be from 0 to 1, not {share}")
    if not isinstance(salt, str):
        raise TypeError(f"the salt must be a string, not {shown(salt)}")
    if not salt.strip():
        raise ValueError("the salt must not be blank")
    limit = int(share * _SAMPLES)
    return lambda subject: int(digest_of([salt, _jsonable(subject)])[:_SAMPLE_DIGITS], 16) < limit


def _jsonable(value: Any) -> Any:
    """Return a subject as JSON, the same in every process: a set has no order of its own."""
    if isinstance(value, BaseModel):
        return _jsonable(value.model_dump())
    if isinstance(value, Mapping):
        return {to_jsonable_python(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((_jsonable(item) for item in value), key=digest_of)
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _jsonable(getattr(value, field.name)) for field in fields(value)}
    return to_jsonable_python(value)
