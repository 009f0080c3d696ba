"""Rules that are new: on trial, or checked afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llama_index_hitl.models import RuleResult
from llama_index_hitl.rules._rule import (
    APPROVE,
    ASK,
    Rule,
    attempt,
    checked_rule,
    evaluate,
    reason_of,
)
from llama_index_hitl.rules._samples import picker

SHADOW_TAG = "shadow"
"""Tag of requests with a rule on trial: what it would have said stands in `request.rule.shadow`."""

SPOT_CHECK_TAG = "spot-check"
"""Tag of requests that a rule approved and that were picked to be looked at by a person later."""


@dataclass(frozen=True)
class Trial(Rule):
    """A rule on trial, by itself: it asks."""

    tried: Rule


def shadow(rule: Rule) -> Rule:
    """Put a rule on trial: it is asked, and what it says is put on record and changes nothing.

    By itself a rule on trial always says *ask*. Among the rules of a `first_match` it is passed
    over, as if it were not there: the other rules decide. Either way the result holds in `shadow`
    what would have been said if the rule were not on trial; where people are asked, the reason says
    so in words. Whether they agree with it is what `replay.shadow_report` tells.

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
    tried = checked_rule(rule)
    if isinstance(tried, Trial):
        return tried

    def body(subject: Any) -> RuleResult:
        said = evaluate(tried, subject)
        return RuleResult(
            verdict=ASK, rule=said.rule, reason=reason_of(_in_words(said)), shadow=said.verdict
        )

    return Trial(tried.name, body, tried)


def _in_words(said: RuleResult) -> str:
    return f"on trial, would have said {said.verdict}: {said.reason}"


def with_trial(decided: RuleResult, said: RuleResult | None) -> RuleResult:
    """Put what rules on trial would have made of it beside what was decided without them.

    Args:
        decided: What was decided.
        said: What the first of them that matched has said; None: none did.
    """
    if said is None:
        # Another one that decided may have had rules on trial of its own.
        return decided.model_copy(update={"shadow": decided.shadow or decided.verdict})
    noted = decided.model_copy(update={"shadow": said.verdict})
    if decided.verdict is not ASK:
        return noted  # the reason of a decision reaches the run, which must not see a trial
    words = f"{decided.reason}; {said.rule} {_in_words(said)}"
    return noted.model_copy(update={"reason": reason_of(words)})


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
    checked, picks = checked_rule(rule), picker(share, salt)
    if isinstance(checked, Trial):
        return checked

    def body(subject: Any) -> RuleResult | None:
        result = attempt(checked, subject)
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

    Example:
        >>> tags_of(evaluate(spot_check(never(), 1, salt="2025"), {"amount": 5}))
        ('spot-check',)
    """
    if result is None:
        return ()
    picked = result.spot_check and result.verdict is APPROVE
    return (
        *((SHADOW_TAG,) if result.shadow is not None else ()),
        *((SPOT_CHECK_TAG,) if picked else ()),
    )
