"""Rules that decide, before anybody is asked, whether a person is needed.

A rule looks at a subject and says *ask*, *approve* or *reject*, or nothing. Rules are quick and
deterministic; they can be put in order with `first_match`. Doubt always means *ask*: a field that
is missing, a value of another kind than the rule compares, an error in a function of one's own, a
rule that does not match.

    needed = first_match(
        none_of("country", ["DE", "FR"], then="reject"),
        threshold("amount", above=1_000),
        confidence(below=0.8),
        sample(0.05, salt="2025-spot-checks"),
        otherwise=never(),
    )

A rule that is new is tried out first: `shadow` puts it on record what it would have said while
people are asked all the same, and `spot_check` picks some of what it approves for people to look at
afterwards.
"""

from __future__ import annotations

import inspect
import math
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from llama_index_hitl.models import RuleResult, RuleVerdict, digest_of

ASK = RuleVerdict.ASK
APPROVE = RuleVerdict.APPROVE
REJECT = RuleVerdict.REJECT

Verdict: TypeAlias = RuleVerdict | Literal["ask", "approve", "reject"]
Number: TypeAlias = int | float | Decimal
Plain: TypeAlias = str | int | float | Decimal | bool | Enum | None

NAME_LIMIT = 150
"""Longest name of a rule, in characters: it becomes part of the id of who decided."""

SHADOW_TAG = "shadow"
"""Tag of requests with a rule on trial: what it would have said stands in `request.rule.shadow`."""

SPOT_CHECK_TAG = "spot-check"
"""Tag of requests that a rule approved and that were picked to be looked at by a person later."""

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
    """

    name: str
    body: Callable[[Any], RuleResult | None]

    def __post_init__(self) -> None:
        fits = self.name.strip() and len(self.name) <= NAME_LIMIT and self.name.isprintable()
        if not fits:
            raise ValueError(
                f"the name of a rule has 1 to {NAME_LIMIT} printable characters, "
                f"not {_shown(self.name)}"
            )
        _refuse_async(self.name, self.body)

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
    return _attempt(_checked(rule), subject) or _no_match(rule.name)


def _checked(rule: object) -> Rule:
    if not isinstance(rule, Rule):
        raise TypeError(f"a Rule is needed, not {_shown(rule)}")
    return rule


def _no_match(name: str) -> RuleResult:
    return RuleResult(verdict=ASK, rule=name, reason="no rule matched")


def _attempt(rule: Rule, subject: Any) -> RuleResult | None:
    """Call a rule; None: it does not match. Whatever goes wrong is *ask*, in the rule's name."""
    try:
        result: object = rule(subject)
    except Exception as error:  # noqa: BLE001 - a broken rule must not decide: a person does
        return RuleResult(verdict=ASK, rule=rule.name, reason=_told(error))
    if result is None or isinstance(result, RuleResult):
        return result
    _discard(result)
    reason = f"returned {type(result).__name__} instead of a RuleResult"
    return RuleResult(verdict=ASK, rule=rule.name, reason=reason)


# --------------------------------------------------------------------------- rules by value


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
        word: _number(f"the bound {word}", bound)
        for word, bound in given.items()
        if bound is not None
    }
    _refuse_contradiction(bounds)
    said = " and ".join(f"{word.replace('_', ' ')} {bound}" for word, bound in bounds.items())

    def matches(value: Any) -> str | None:
        number = _number(field, value)
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
    if not 0 < _number("the bound below", below) <= 1:
        raise ValueError(f"the bound below must be above 0 and at most 1, not {below}")

    def matches(value: Any) -> str | None:
        number = _number(field, value)
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
    said = ", ".join(_shown(value) for value in listed)

    def matches(value: Any) -> str | None:
        found = _is_listed(field, value, listed)
        return f"{field} {_shown(_plain(value))} is one of {said}" if found else None

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
    said = ", ".join(_shown(value) for value in listed)

    def matches(value: Any) -> str | None:
        found = _is_listed(field, value, listed)
        return None if found else f"{field} {_shown(_plain(value))} is none of {said}"

    return _field_rule(f"{field} off a list", field, matches, then)


# --------------------------------------------------------------------------- rules without a field


def always(verdict: Verdict = ASK, *, reason: str | None = None) -> Rule:
    """Say the same about every subject.

    Args:
        verdict: What to say.
        reason: Why, as a sentence for people.

    Raises:
        ValueError: That is no verdict.

    Example:
        >>> evaluate(always(reason="the new team is on probation"), {}).reason
        'the new team is on probation'
    """
    said = _verdict(verdict)
    name = f"always {said.value}"
    why = f"the rule is: {name}" if reason is None else reason
    result = RuleResult(verdict=said, rule=name, reason=why)
    return Rule(name, lambda _: result)


def never() -> Rule:
    """Say that a person is never needed: approve everything.

    Example:
        >>> evaluate(never(), {"amount": 1_000_000}).verdict.value
        'approve'
    """
    result = RuleResult(verdict=APPROVE, rule="never", reason="a person is never needed here")
    return Rule("never", lambda _: result)


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
    picks = _picker(share, salt)
    percent = f"{float(share) * 100:g}%"

    def matches(subject: Any) -> str | None:
        return f"picked for a spot check of {percent}" if picks(subject) else None

    return _rule_of(f"sample of {share}", matches, then)


def _picker(share: float, salt: str) -> Callable[[Any], bool]:
    """Return what tells whether a subject belongs to a share of all."""
    if not 0 <= _number("the share", share) <= 1:
        raise ValueError(f"the share must be from 0 to 1, not {share}")
    if not isinstance(salt, str):
        raise TypeError(f"the salt must be a string, not {_shown(salt)}")
    if not salt.strip():
        raise ValueError("the salt must not be blank")
    limit = int(share * _SAMPLES)
    return lambda subject: int(digest_of([salt, _jsonable(subject)])[:_SAMPLE_DIGITS], 16) < limit


_SAMPLE_DIGITS = 13  # hexadecimal: 52 bits, which a float holds exactly
_SAMPLES = 16**_SAMPLE_DIGITS


def rule(name: str, predicate: Callable[[Any], bool], *, then: Verdict, reason: str) -> Rule:
    """Match with a function of one's own.

    Args:
        name: What the rule is called on the record.
        predicate: Function of the subject that returns True where the rule matches. Anything but
            True and False raises: a value that happens to be true is not consent.
        then: What to say where it matches.
        reason: Why, as a sentence for people.

    Raises:
        TypeError: The predicate cannot be called, or is async.
        ValueError: The name is blank or too long, or `then` is no verdict.

    Example:
        >>> def is_weekend(subject):
        ...     return subject["day"] in ("Sat", "Sun")
        >>> weekend = rule("weekend", is_weekend, then="ask", reason="nobody watches on weekends")
        >>> evaluate(weekend, {"day": "Sun"}).reason
        'nobody watches on weekends'
    """
    _refuse_async(name, predicate)

    def matches(subject: Any) -> str | None:
        answer: object = predicate(subject)
        if not isinstance(answer, bool):
            _discard(answer)
            raise TypeError(f"the predicate must return True or False, not {_shown(answer)}")
        return reason if answer else None

    return _rule_of(name, matches, then)


def first_match(*rules: Rule, otherwise: Rule | None = None) -> Rule:
    """Let the first rule that matches decide.

    A rule that raises decides as well, and what it decides is *ask*: none of the rules after it
    could know what it would have said. A rule on trial (`shadow`) is asked in its place and decides
    nothing: what comes of it is what would come of the other rules alone.

    Args:
        *rules: The rules, in order; at least one.
        otherwise: What decides where none of them matches; None: `always("ask")`.

    Raises:
        TypeError: One of them is not a `Rule`.
        ValueError: There are no rules.

    Example:
        >>> cheap = first_match(threshold("amount", above=100), otherwise=never())
        >>> [evaluate(cheap, {"amount": n}).verdict.value for n in (99, 100, 101)]
        ['approve', 'approve', 'ask']
    """
    if not rules:
        raise ValueError("first_match needs at least one rule")
    ordered = [_checked(one) for one in (rules if otherwise is None else (*rules, otherwise))]
    name = "first match"

    def decide(subject: Any) -> RuleResult:
        on_trial, said = False, None  # whether a rule on trial was asked, what the first one said
        # Within another first_match as well: rules that are put in order always come to a result.
        decided = _no_match(name)
        for one in ordered:
            if isinstance(one, _Trial):
                on_trial = True
                said = said or _attempt(one.tried, subject)
            elif (result := _attempt(one, subject)) is not None:
                decided = result
                break
        return _with_trial(decided, said) if on_trial else decided

    return Rule(name, decide)


# --------------------------------------------------------------------------- rules that are new


@dataclass(frozen=True)
class _Trial(Rule):
    """A rule on trial, by itself: it asks."""

    tried: Rule


def shadow(rule: Rule) -> Rule:
    """Put a rule on trial: it is asked, and what it says is put on record and changes nothing.

    By itself a rule on trial always says *ask*. Among the rules of a `first_match` it is passed
    over, as if it were not there: the other rules decide. Either way the result holds in `shadow`
    what would have been said if the rule were not on trial, and its reason says so in words.
    Whether people agree with it is what `replay.shadow_report` tells.

    A rule that raises would have said *ask*, as always; so would one by itself that does not match.
    In a `first_match` one that does not match would have left the decision to the others. Of
    several rules on trial the first one that matches counts.

    A rule on trial sees the subject itself, not a copy: like any rule it must not change it.

    Args:
        rule: The rule, or a whole `first_match`.

    Returns:
        A rule with the same name. Of a rule that is on trial already: that rule.

    Raises:
        TypeError: `rule` is not a `Rule`.

    Example:
        >>> tried = shadow(threshold("amount", at_most=100, then="approve"))
        >>> result = evaluate(first_match(tried, otherwise=always()), {"amount": 50})
        >>> (result.verdict.value, result.shadow.value)
        ('ask', 'approve')
    """
    tried = _checked(rule)
    if isinstance(tried, _Trial):
        return tried

    def body(subject: Any) -> RuleResult:
        said = evaluate(tried, subject)
        return RuleResult(
            verdict=ASK, rule=said.rule, reason=_storable(_on_trial(said)), shadow=said.verdict
        )

    return _Trial(tried.name, body, tried)


def _on_trial(said: RuleResult) -> str:
    return f"on trial, would have said {said.verdict}: {said.reason}"


def _with_trial(decided: RuleResult, said: RuleResult | None) -> RuleResult:
    """Put what rules on trial would have made of it beside what was decided without them.

    Args:
        decided: What was decided.
        said: What the first of them that matched has said; None: none did.
    """
    if said is None:
        # Another one that decided may have had rules on trial of its own.
        return decided.model_copy(update={"shadow": decided.shadow or decided.verdict})
    words = f"{decided.reason}; {said.rule} {_on_trial(said)}"
    return decided.model_copy(update={"shadow": said.verdict, "reason": _storable(words)})


def spot_check(rule: Rule, share: float, *, salt: str) -> Rule:
    """Pick a share of what a rule approves, for people to look at afterwards.

    The approval stands, nobody waits. `Runner.spot_checks` lists what was picked, takes what people
    find, and tells how often the rule is wrong. Which ones are picked is told by the subject and
    the salt, as for `sample`; keep the salt from those who are checked.

    Args:
        rule: The rule, or a whole `first_match`.
        share: Share to pick, from 0 (none) to 1 (all).
        salt: Any words, not blank; another salt picks others.

    Returns:
        A rule that says what `rule` says, and marks what is picked. Evaluated on a subject that is
        approved and cannot be written as JSON, it raises: what can never be checked is not
        approved. A rule on trial approves nothing and is returned as it is.

    Raises:
        TypeError: `rule` is not a `Rule`, the share is not a number, or the salt is not a string.
        ValueError: The share is out of range, or the salt is blank.

    Example:
        >>> evaluate(spot_check(never(), 1, salt="2025"), {"amount": 5}).spot_check
        True
    """
    checked, picks = _checked(rule), _picker(share, salt)
    if isinstance(checked, _Trial):
        return checked

    def body(subject: Any) -> RuleResult | None:
        result = _attempt(checked, subject)
        if result is None or result.verdict is not APPROVE or not picks(subject):
            return result
        return result.model_copy(update={"spot_check": True})

    return Rule(checked.name, body)


def tags_of(result: RuleResult | None) -> tuple[str, ...]:
    """Return the tags that let a request be found by what rules said about it.

    Args:
        result: What they said; None: there are no rules.

    Returns:
        `shadow` where a rule was on trial, `spot-check` where it was approved and picked.
    """
    if result is None:
        return ()
    picked = result.spot_check and result.verdict is APPROVE
    return (
        *((SHADOW_TAG,) if result.shadow is not None else ()),
        *((SPOT_CHECK_TAG,) if picked else ()),
    )


# --------------------------------------------------------------------------- how rules are made


def _rule_of(name: str, matches: Callable[[Any], str | None], then: Verdict) -> Rule:
    """Make a rule of a function that returns the reason where it matches."""
    verdict = _verdict(then)

    def body(subject: Any) -> RuleResult | None:
        reason = matches(subject)
        if reason is None:
            return None
        return RuleResult(verdict=verdict, rule=name, reason=_storable(reason))

    return Rule(name, body)


def _field_rule(name: str, field: str, matches: Callable[[Any], str | None], then: Verdict) -> Rule:
    path = _path(field)
    return _rule_of(name, lambda subject: matches(_read(subject, path)), then)


def _verdict(value: Verdict) -> RuleVerdict:
    try:
        return RuleVerdict(value)
    except ValueError:
        known = ", ".join(RuleVerdict)
        raise ValueError(f"{_shown(value)} is not a verdict (there are: {known})") from None


def _refuse_async(name: str, function: Any) -> None:
    if not callable(function):
        raise TypeError(f"rule {name!r} needs a function, not {_shown(function)}")
    called = (function, type(function).__call__)
    if any(inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f) for f in called):
        raise TypeError(f"rule {name!r} is async; rules are quick and cannot wait for anything")


def _discard(returned: object) -> None:
    """Close a coroutine that nobody will await, so that it does not warn of that."""
    if inspect.iscoroutine(returned):
        returned.close()


# --------------------------------------------------------------------------- reading the subject


def _path(field: str) -> tuple[str, ...]:
    """Split a dotted path. Private names are refused: they are no part of what is reviewed."""
    if not isinstance(field, str):
        raise TypeError(f"a field is named by a string, not {_shown(field)}")
    parts = tuple(field.split("."))
    if any(not part.strip() or part.startswith("_") for part in parts):
        raise ValueError(f"{_shown(field)} does not name a field, such as 'payment.amount'")
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


def _number(name: str, value: Any) -> Number:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise TypeError(f"{name} must be a number, not {_shown(value)}")
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
        raise ValueError(f"{name} {_shown(plain)} is not one of {', '.join(levels)}")
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
        _number("a number to compare", value)
        return "number"
    raise TypeError(f"{_shown(value)} cannot be compared with the values on a list")


def _listed(name: str, values: Iterable[Any]) -> tuple[Any, ...]:
    if isinstance(values, str | bytes | Mapping):
        raise TypeError(f"{name} must be a list of values, not {_shown(values)}")
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
        raise TypeError(f"{field} {_shown(plain)} is no {kinds}, as those on the list")
    return plain in alike


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


# --------------------------------------------------------------------------- words


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_LIMIT else text[: _SHOWN_LIMIT - 1] + "…"


def _told(error: Exception) -> str:
    # `str(error)` could raise in turn; this says so instead.
    return _storable("raised " + "".join(traceback.format_exception_only(error)).strip())


def _storable(text: str) -> str:
    """Return words that can be stored: not endless, and without half characters."""
    sound = text.encode("utf-8", "backslashreplace").decode()
    return sound if len(sound) <= _REASON_LIMIT else sound[: _REASON_LIMIT - 1] + "…"
