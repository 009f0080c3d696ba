"""Rules without a field: the same for all, of one's own, and several in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llama_index_hitl.models import RuleResult
from llama_index_hitl.rules._rule import (
    APPROVE,
    ASK,
    Rule,
    Verdict,
    attempt,
    checked_rule,
    discard,
    no_match,
    refuse_async,
    rule_of,
    shown,
    verdict_of,
)
from llama_index_hitl.rules._trials import Trial, with_trial


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
    said = verdict_of(verdict)
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


def rule(name: str, predicate: Callable[[Any], bool], *, then: Verdict, reason: str) -> Rule:
    """Match with a function of one's own.

    Args:
        name: What the rule is called on the record.
        predicate: Function of the subject that returns True where the rule matches. Anything but
            True and False raises: a value that happens to be true is not consent.
        then: What to say where it matches.
        reason: Why, as a sentence for people.

    Returns:
        The rule.

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
    refuse_async(name, predicate)

    def matches(subject: Any) -> str | None:
        answer: object = predicate(subject)
        if not isinstance(answer, bool):
            discard(answer)
            raise TypeError(f"the predicate must return True or False, not {shown(answer)}")
        return reason if answer else None

    return rule_of(name, matches, then)


def first_match(*rules: Rule, otherwise: Rule | None = None) -> Rule:
    """Let the first rule that matches decide.

    A rule that raises decides as well, and what it decides is *ask*: none of the rules after it
    could know what it would have said. A rule on trial (`shadow`) is asked in its place and decides
    nothing: what comes of it is what would come of the other rules alone.

    Args:
        *rules: The rules, in order; at least one.
        otherwise: What decides where none of them matches; None: `always("ask")`.

    Returns:
        The rule that asks them in order.

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
    ordered = [checked_rule(one) for one in (rules if otherwise is None else (*rules, otherwise))]
    name = "first match"

    def decide(subject: Any) -> RuleResult:
        on_trial, said = False, None  # whether a rule on trial was asked, what the first one said
        # Within another first_match as well: rules that are put in order always come to a result.
        decided = no_match(name)
        for one in ordered:
            if isinstance(one, Trial):
                on_trial = True
                said = said or attempt(one.tried, subject)
            elif (result := attempt(one, subject)) is not None:
                decided = result
                break
        return with_trial(decided, said) if on_trial else decided

    return Rule(name, decide)
