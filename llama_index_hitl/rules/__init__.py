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

from llama_index_hitl.rules._composed import always, first_match, never, rule
from llama_index_hitl.rules._rule import NAME_LIMIT, Rule, Verdict, evaluate
from llama_index_hitl.rules._samples import sample
from llama_index_hitl.rules._trials import SHADOW_TAG, SPOT_CHECK_TAG, shadow, spot_check, tags_of
from llama_index_hitl.rules._values import (
    Number,
    Plain,
    confidence,
    none_of,
    one_of,
    risk,
    threshold,
)

__all__ = [
    "NAME_LIMIT",
    "SHADOW_TAG",
    "SPOT_CHECK_TAG",
    "Number",
    "Plain",
    "Rule",
    "Verdict",
    "always",
    "confidence",
    "evaluate",
    "first_match",
    "never",
    "none_of",
    "one_of",
    "risk",
    "rule",
    "sample",
    "shadow",
    "spot_check",
    "tags_of",
    "threshold",
]
