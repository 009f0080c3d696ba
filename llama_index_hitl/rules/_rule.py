"""A rule, what it comes to where it is evaluated, and how rules are made."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from llama_index_hitl._text import storable
from llama_index_hitl.models import RuleResult, RuleVerdict

ASK = RuleVerdict.ASK
APPROVE = RuleVerdict.APPROVE
REJECT = RuleVerdict.REJECT

Verdict: TypeAlias = RuleVerdict | Literal["ask", "approve", "reject"]
"""What a rule says, as a word or a member of `RuleVerdict`."""

NAME_LIMIT = 150
"""Longest name of a rule, in characters: it becomes part of the id of who decided."""

_REASON_LIMIT = 1_000
_SHOWN_LIMIT = 80


@dataclass(frozen=True)
class Rule:
    """A named function of the subject.

    Calling it returns what it says, or None where it does not match; it may raise. Gates never call
    a rule themselves: they use `evaluate`, which turns every doubt into *ask*.

    Attributes:
        name: What it is called on the record, 1 to 150 printable characters.
        body: The function; it must be deterministic and not async.

    Raises:
        ValueError: The name is blank, too long, or not printable.
        TypeError: The body cannot be called, or is async.

    Example:
        >>> from llama_index_hitl.models import RuleResult
        >>> def weekdays_only(subject):
        ...     if subject["day"] in ("Sat", "Sun"):
        ...         return RuleResult(verdict="reject", rule="weekdays only", reason="a weekend")
        >>> evaluate(Rule("weekdays only", weekdays_only), {"day": "Sun"}).verdict.value
        'reject'
    """

    name: str
    body: Callable[[Any], RuleResult | None]

    def __post_init__(self) -> None:
        fits = self.name.strip() and len(self.name) <= NAME_LIMIT and self.name.isprintable()
        if not fits:
            raise ValueError(
                f"the name of a rule has 1 to {NAME_LIMIT} printable characters, "
                f"not {shown(self.name)}"
            )
        refuse_async(self.name, self.body)

    def __call__(self, subject: Any) -> RuleResult | None:
        """Return what the rule says about a subject, or None: it does not match."""
        return self.body(subject)


def evaluate(rule: Rule, subject: Any) -> RuleResult:
    """Ask a rule about a subject; in doubt the result is *ask*.

    Args:
        rule: The rule.
        subject: A pydantic model, an event, a mapping, or any object with attributes.

    Returns:
        What the rule says. It is *ask*, with the reason, where the rule raises, does not match, or
        returns anything but a `RuleResult`.

    Raises:
        TypeError: `rule` is not a `Rule`.

    Example:
        >>> evaluate(never(), {}).verdict.value
        'approve'
        >>> evaluate(threshold("amount", above=100, then="reject"), {"amount": "a lot"}).reason
        "raised TypeError: amount must be a number, not 'a lot'"
    """
    return attempt(checked_rule(rule), subject) or no_match(rule.name)


def checked_rule(rule: object) -> Rule:
    if not isinstance(rule, Rule):
        raise TypeError(f"a Rule is needed, not {shown(rule)}")
    return rule


def no_match(name: str) -> RuleResult:
    return RuleResult(verdict=ASK, rule=name, reason="no rule matched")


def attempt(rule: Rule, subject: Any) -> RuleResult | None:
    """Call a rule; None: it does not match. Whatever goes wrong is *ask*, in the rule's name."""
    try:
        result: object = rule(subject)
    except Exception as error:  # noqa: BLE001 - a broken rule must not decide: a person does
        return RuleResult(verdict=ASK, rule=rule.name, reason=_told(error))
    if result is None or isinstance(result, RuleResult):
        return result
    discard(result)
    reason = f"returned {type(result).__name__} instead of a RuleResult"
    return RuleResult(verdict=ASK, rule=rule.name, reason=reason)


# --------------------------------------------------------------------------- how rules are made


def rule_of(name: str, matches: Callable[[Any], str | None], then: Verdict) -> Rule:
    """Make a rule of a function that returns the reason where it matches."""
    verdict = verdict_of(then)

    def body(subject: Any) -> RuleResult | None:
        reason = matches(subject)
        if reason is None:
            return None
        return RuleResult(verdict=verdict, rule=name, reason=reason_of(reason))

    return Rule(name, body)


def verdict_of(value: Verdict) -> RuleVerdict:
    try:
        return RuleVerdict(value)
    except ValueError:
        known = ", ".join(RuleVerdict)
        raise ValueError(f"{shown(value)} is not a verdict (there are: {known})") from None


def refuse_async(name: str, function: Any) -> None:
    if not callable(function):
        raise TypeError(f"rule {name!r} needs a function, not {shown(function)}")
    called = (function, type(function).__call__)
    if any(inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f) for f in called):
        raise TypeError(f"rule {name!r} is async; rules are quick and cannot wait for anything")


def discard(returned: object) -> None:
    """Close a coroutine that nobody will await, so that it does not warn of that."""
    if inspect.iscoroutine(returned):
        returned.close()


# --------------------------------------------------------------------------- words


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_LIMIT else text[: _SHOWN_LIMIT - 1] + "…"


def _told(error: Exception) -> str:
    # `str(error)` could raise in turn; this says so instead.
    return reason_of("raised " + "".join(traceback.format_exception_only(error)).strip())


def reason_of(text: str) -> str:
    """Return a reason that can be stored."""
    return storable(text, _REASON_LIMIT)
