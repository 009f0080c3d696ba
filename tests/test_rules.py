"""Rules: what they match, what they say, and that every doubt means that a person is asked."""

import asyncio
import dataclasses
import json
import os
import subprocess
import sys
from collections import defaultdict
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from functools import partial
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from strategies import brief, json_objects, json_values
from workflows.events import Event

from llama_index_hitl.models import RuleResult, RuleVerdict
from llama_index_hitl.rules import (
    NAME_LIMIT,
    Rule,
    always,
    confidence,
    evaluate,
    first_match,
    never,
    none_of,
    one_of,
    risk,
    rule,
    sample,
    threshold,
)

ASK, APPROVE, REJECT = RuleVerdict.ASK, RuleVerdict.APPROVE, RuleVerdict.REJECT
NAN, INF = float("nan"), float("inf")


def matches(one, subject):
    """Tell whether a rule matches; what it raises comes out."""
    return one(subject) is not None


def boom(_):
    raise ValueError("out of order")


BROKEN = rule("broken", boom, then="approve", reason="never said")


# --------------------------------------------------------------------------- threshold


@pytest.mark.parametrize(
    ("bounds", "value", "expected"),
    [
        ({"above": 100}, 100, False),
        ({"above": 100}, 101, True),
        ({"at_least": 100}, 99, False),
        ({"at_least": 100}, 100, True),
        ({"below": 100}, 100, False),
        ({"below": 100}, 99, True),
        ({"at_most": 100}, 101, False),
        ({"at_most": 100}, 100, True),
        ({"at_least": 1, "at_most": 3}, 0, False),
        ({"at_least": 1, "at_most": 3}, 1, True),
        ({"at_least": 1, "at_most": 3}, 3, True),
        ({"at_least": 1, "at_most": 3}, 4, False),
        ({"at_least": 1, "at_most": 1}, 1, True),
        ({"above": 1, "below": 2}, 1.5, True),
        ({"above": 1, "below": 2}, 2, False),
        ({"above": 0}, 0, False),
        ({"above": -5}, 0, True),
        ({"above": Decimal("0.1")}, Decimal("0.10"), False),
        ({"above": Decimal("0.1")}, Decimal("0.11"), True),
        ({"above": 0.1}, Decimal("0.2"), True),
        ({"above": 100}, 10**400, True),
        ({"above": 100}, Decimal("1e400"), True),
    ],
)
def test_threshold(bounds, value, expected):
    assert matches(threshold("amount", **bounds), {"amount": value}) is expected


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        ({"above": 100}, "amount 500 is above 100"),
        ({"at_least": 100, "below": 1000}, "amount 500 is at least 100 and below 1000"),
        ({"at_most": Decimal("500.00")}, "amount 500 is at most 500.00"),
    ],
)
def test_threshold_gives_a_reason_for_people(bounds, reason):
    assert evaluate(threshold("amount", **bounds), {"amount": 500}).reason == reason


NO_NUMBERS = [NAN, INF, -INF, Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity")]
NO_NUMBERS += [None, "", "500", True, False, [], {}, 1j, b"1"]


@pytest.mark.parametrize("bounds", [{"above": 0}, {"below": 9}, {"at_least": -9, "at_most": 9}])
@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_threshold_asks_about_what_is_no_number(value, bounds):
    result = evaluate(threshold("amount", **bounds, then="approve"), {"amount": value})
    assert result.verdict is ASK
    assert result.reason.startswith("raised ")


@brief
@given(
    value=json_values | st.sampled_from(NO_NUMBERS) | st.decimals(),
    bound=st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    word=st.sampled_from(["above", "at_least", "below", "at_most"]),
)
def test_threshold_approves_nothing_but_a_number_that_matches(value, bound, word):
    result = evaluate(threshold("amount", **{word: bound}, then="approve"), {"amount": value})
    if result.verdict is APPROVE:
        assert isinstance(value, int | float | Decimal)
        assert not isinstance(value, bool)
        assert {
            "above": value > bound,
            "at_least": value >= bound,
            "below": value < bound,
            "at_most": value <= bound,
        }[word]


@pytest.mark.parametrize(
    "bounds",
    [
        {},
        {"above": 1, "at_least": 1},
        {"below": 1, "at_most": 1},
        {"above": 2, "below": 1},
        {"above": 1, "below": 1},
        {"above": 1, "at_most": 1},
        {"at_least": 1, "below": 1},
        {"at_least": 2, "at_most": 1},
        {"above": NAN},
        {"above": INF},
        {"above": Decimal("NaN")},
    ],
    ids=repr,
)
def test_threshold_refuses_bounds_that_make_no_sense(bounds):
    with pytest.raises(ValueError, match=r"bound|finite"):
        threshold("amount", **bounds)


@pytest.mark.parametrize("bound", ["100", True, [1]], ids=repr)
def test_threshold_refuses_a_bound_that_is_no_number(bound):
    with pytest.raises(TypeError, match="must be a number"):
        threshold("amount", above=bound)


# --------------------------------------------------------------------------- confidence and risk


@pytest.mark.parametrize(
    ("value", "verdict"), [(0, ASK), (0.79, ASK), (0.8, APPROVE), (1, APPROVE), (1.0, APPROVE)]
)
def test_confidence(value, verdict):
    sure = first_match(confidence(below=0.8), otherwise=never())
    assert evaluate(sure, {"confidence": value}).verdict is verdict


@pytest.mark.parametrize("value", [95, 1.01, -0.1, NAN, "0.9", None, True], ids=repr)
def test_confidence_asks_about_what_is_no_confidence(value):
    sure = first_match(confidence(below=0.8), otherwise=never())
    assert evaluate(sure, {"confidence": value}).verdict is ASK


def test_confidence_gives_a_reason_for_people():
    result = evaluate(confidence("model.score", below=0.8), {"model": {"score": 0.25}})
    assert result.reason == "model.score 0.25 is below 0.8"


@pytest.mark.parametrize("below", [0, -1, 1.1, 80, NAN])
def test_confidence_refuses_a_bound_out_of_range(below):
    with pytest.raises(ValueError, match="bound below must be"):
        confidence(below=below)


class Level(StrEnum):
    LOW = "low"
    HIGH = "high"


class Colour(Enum):
    RED = "red"


class Grade(IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    ("level", "verdict"),
    [
        ("low", APPROVE),
        ("medium", ASK),
        ("high", ASK),
        (Level.LOW, APPROVE),
        (Level.HIGH, ASK),
    ],
)
def test_risk(level, verdict):
    calm = first_match(risk(at_least="medium"), otherwise=never())
    assert evaluate(calm, {"risk_level": level}).verdict is verdict


@pytest.mark.parametrize("level", ["LOW", "none", "", None, 1, [], Colour.RED], ids=repr)
def test_risk_asks_about_a_level_that_is_not_in_the_order(level):
    calm = first_match(risk(at_least="medium"), otherwise=never())
    result = evaluate(calm, {"risk_level": level})
    assert result.verdict is ASK
    assert "is not one of low, medium, high" in result.reason


def test_risk_takes_an_order_of_ones_own():
    one = risk("severity", at_least="sev2", order=["sev3", "sev2", "sev1"], then="reject")
    assert [matches(one, {"severity": s}) for s in ("sev3", "sev2", "sev1")] == [False, True, True]


@pytest.mark.parametrize(
    ("details", "error"),
    [
        ({"at_least": "extreme"}, ValueError),
        ({"at_least": "low", "order": ()}, ValueError),
        ({"at_least": "low", "order": ("low", "high", "low")}, ValueError),
        ({"at_least": "low", "order": "low"}, TypeError),
    ],
)
def test_risk_refuses_an_order_that_makes_no_sense(details, error):
    with pytest.raises(error, match=r"order|at_least"):
        risk(**details)


# --------------------------------------------------------------------------- lists


@pytest.mark.parametrize(
    ("values", "value", "listed"),
    [
        (["DE", "FR"], "DE", True),
        (["DE", "FR"], "de", False),
        (["DE", "FR"], " DE", False),
        ([1, 2], 1, True),
        ([1, 2], 3, False),
        ([1, 2], 1.0, True),
        ([1, 2], Decimal(2), True),
        ([True], True, True),
        ([True], False, False),
        ([None, "x"], None, True),
        ([None, "x"], "y", False),
        ([Level.LOW], "low", True),
        (["low"], Level.LOW, True),
        ([Colour.RED], Colour.RED, True),
        ([Colour.RED], "red", True),
        ([Grade.ONE], 1, True),
        ({"DE"}, "DE", True),
    ],
)
def test_what_is_on_a_list_and_what_is_not(values, value, listed):
    assert matches(one_of("f", values, then="ask"), {"f": value}) is listed
    assert matches(none_of("f", values, then="ask"), {"f": value}) is not listed


@pytest.mark.parametrize(
    ("values", "value"),
    [
        (["7"], 7),
        ([7], "7"),
        ([1, 0], True),
        ([True], 1),
        (["DE"], None),
        (["DE"], ["DE"]),
        (["DE"], {"DE": 1}),
        ([1], NAN),
        (["DE"], b"DE"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("builder", [one_of, none_of])
def test_a_value_of_another_kind_than_those_listed_is_asked_about(builder, values, value):
    result = evaluate(builder("f", values, then="approve"), {"f": value})
    assert result.verdict is ASK
    assert result.reason.startswith("raised ")


def test_lists_give_reasons_for_people():
    banned = one_of("country", ["KP", "IR"], then="reject")
    known = none_of("payee", ["ACME", None], then="ask")
    assert evaluate(banned, {"country": "IR"}).reason == "country 'IR' is one of 'KP', 'IR'"
    assert evaluate(known, {"payee": "Evil"}).reason == "payee 'Evil' is none of 'ACME', None"


@pytest.mark.parametrize("values", ["DE", b"DE", {"DE": 1}, [["DE"]], [object()]], ids=type)
@pytest.mark.parametrize("builder", [one_of, none_of])
def test_what_is_no_list_of_values_is_refused(builder, values):
    with pytest.raises(TypeError):
        builder("f", values, then="ask")


@pytest.mark.parametrize("values", [[], [NAN]], ids=repr)
@pytest.mark.parametrize("builder", [one_of, none_of])
def test_a_list_that_nothing_can_be_on_is_refused(builder, values):
    with pytest.raises(ValueError, match=r"empty|finite"):
        builder("f", values, then="ask")


# --------------------------------------------------------------------------- always and never


@pytest.mark.parametrize("verdict", ["ask", "approve", "reject", *RuleVerdict])
@pytest.mark.parametrize("subject", [{}, None, 5, object()], ids=type)
def test_always_says_the_same(verdict, subject):
    result = evaluate(always(verdict), subject)
    assert (result.verdict, result.rule) == (RuleVerdict(verdict), f"always {verdict}")
    assert result.reason


def test_always_asks_by_default():
    assert evaluate(always(), {}).verdict is ASK


def test_always_gives_the_reason_it_was_given():
    assert evaluate(always("reject", reason="frozen"), {}).reason == "frozen"


def test_never_approves_in_its_own_name():
    result = evaluate(never(), {})
    assert (result.verdict, result.rule) == (APPROVE, "never")
    assert result.reason == "a person is never needed here"


# --------------------------------------------------------------------------- samples


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_a_sample_picks_about_its_share(share):
    one = sample(share, salt="2025")
    picked = sum(matches(one, {"id": number}) for number in range(2_000))
    spread = 4 * (2_000 * share * (1 - share)) ** 0.5
    assert abs(picked - 2_000 * share) < spread


@pytest.mark.parametrize(("share", "picked"), [(0, 0), (1, 300), (Decimal(1), 300)])
def test_a_sample_of_nothing_and_of_all(share, picked):
    one = sample(share, salt="2025")
    assert sum(matches(one, {"id": number}) for number in range(300)) == picked


@brief
@given(subject=json_objects, share=st.floats(0, 1), salt=st.text("abc", min_size=1))
def test_a_sample_says_the_same_about_the_same_subject(subject, share, salt):
    first = evaluate(sample(share, salt=salt), subject)
    turned = dict(reversed(list(json.loads(json.dumps(subject)).items())))
    assert evaluate(sample(share, salt=salt), turned) == first


@brief
@given(subject=json_objects, low=st.floats(0, 1), high=st.floats(0, 1))
def test_a_larger_sample_contains_a_smaller_one(subject, low, high):
    low, high = sorted([low, high])
    if matches(sample(low, salt="x"), subject):
        assert matches(sample(high, salt="x"), subject)


def test_another_salt_picks_others():
    def picked(salt):
        one = sample(0.5, salt=salt)
        return [number for number in range(200) if matches(one, {"id": number})]

    assert picked("a") != picked("b")


class Payment(BaseModel):
    amount: Decimal
    tags: set[str] = set()


@dataclasses.dataclass
class Letter:
    tags: set[str]


SAMPLED_ELSEWHERE = """
from decimal import Decimal
from test_rules import Letter, Payment
from llama_index_hitl.rules import sample
tags = {"a", "b", "c", "d", "e"}
subjects = [{"n": n, "tags": tags} for n in range(50)]
subjects += [Payment(amount=Decimal(n), tags=tags) for n in range(50)]
subjects += [Letter(tags=tags | {str(n)}) for n in range(50)]
picked = [sample(0.5, salt="x")(subject) is not None for subject in subjects]
import sys
sys.stdout.write("".join("01"[p] for p in picked))
"""


def test_a_sample_is_the_same_in_every_process():
    def picked(seed):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        return subprocess.run(
            [sys.executable, "-c", SAMPLED_ELSEWHERE],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    first = picked("1")
    assert len(first) == 150
    assert first == picked("2")


def test_a_sample_takes_models_events_and_mappings():
    one = sample(1, salt="x", then="reject")
    for subject in (Payment(amount=1), Event(amount=1), {"amount": 1}, Letter(tags={"a"})):
        assert evaluate(one, subject).verdict is REJECT


def test_a_sample_tells_events_apart_by_their_dynamic_fields():
    one = sample(0.5, salt="x")
    assert len({matches(one, Event(amount=number)) for number in range(50)}) == 2


@pytest.mark.parametrize("subject", [object(), {"x": object()}, {"x": NAN}, {(1, 2): 3}])
def test_a_sample_asks_about_what_is_not_json(subject):
    result = evaluate(sample(0.5, salt="x", then="approve"), subject)
    assert result.verdict is ASK
    assert result.reason.startswith("raised ")


@pytest.mark.parametrize("share", [-0.1, 1.1, NAN, 5])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match="the share must be"):
        sample(share, salt="x")


@pytest.mark.parametrize("share", ["0.5", True, None])
def test_a_share_that_is_no_number_is_refused(share):
    with pytest.raises(TypeError, match="the share must be"):
        sample(share, salt="x")


@pytest.mark.parametrize(("salt", "error"), [("", ValueError), ("  ", ValueError), (5, TypeError)])
def test_a_sample_needs_a_salt(salt, error):
    with pytest.raises(error, match="the salt must"):
        sample(0.5, salt=salt)


@pytest.mark.parametrize(("share", "said"), [(0.07, "7%"), (0.125, "12.5%"), (1, "100%")])
def test_a_sample_gives_a_reason_for_people(share, said):
    one = sample(share, salt="x")
    results = [evaluate(one, {"id": number}) for number in range(300)]
    reasons = {result.reason for result in results} - {"no rule matched"}
    assert reasons == {f"picked for a spot check of {said}"}


# --------------------------------------------------------------------------- rules of one's own


def test_a_predicate_that_is_true_matches():
    one = rule("even", lambda n: n % 2 == 0, then="reject", reason="it is even")
    expected = RuleResult(verdict=REJECT, rule="even", reason="it is even")
    assert (one(2), one(3)) == (expected, None)


@pytest.mark.parametrize("answer", [1, 0, "", "yes", None, [], [0], object(), 0.0])
def test_a_predicate_must_return_a_real_boolean(answer):
    result = evaluate(rule("odd", lambda _: answer, then="approve", reason=""), {})
    assert result.verdict is ASK
    assert "must return True or False" in result.reason


async def later(_):
    return True


async def stream(_):
    yield True


class Later:
    async def __call__(self, subject):
        return True

    async def method(self, subject):
        return True


ASYNC = [later, stream, Later(), Later().method, partial(later), partial(later, 1)]


@pytest.mark.parametrize("function", ASYNC)
def test_async_functions_are_refused_when_the_rule_is_made(function):
    with pytest.raises(TypeError, match="'slow' is async"):
        rule("slow", function, then="approve", reason="")
    with pytest.raises(TypeError, match="'slow' is async"):
        Rule("slow", function)


@pytest.mark.parametrize(
    "one",
    [
        rule("slow", lambda subject: later(subject), then="approve", reason=""),
        Rule("slow", lambda subject: later(subject)),
    ],
    ids=["predicate", "body"],
)
def test_a_function_that_turns_out_to_be_async_is_asked_about(one):
    assert evaluate(one, {}).verdict is ASK


@pytest.mark.parametrize("function", [None, "x", 5])
def test_what_cannot_be_called_is_refused(function):
    with pytest.raises(TypeError, match="needs a function"):
        rule("mine", function, then="ask", reason="")


@pytest.mark.parametrize(
    "name", ["", " ", "x" * (NAME_LIMIT + 1), "two\nlines", "\ud83d"], ids=repr
)
def test_a_name_that_does_not_fit_the_record_is_refused(name):
    with pytest.raises(ValueError, match="the name of a rule"):
        Rule(name, lambda _: None)


def test_a_rule_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        never().name = "always"


VERDICT_TAKERS = [
    lambda then: threshold("x", above=1, then=then),
    lambda then: confidence(below=0.5, then=then),
    lambda then: risk(at_least="low", then=then),
    lambda then: one_of("x", [1], then=then),
    lambda then: none_of("x", [1], then=then),
    lambda then: sample(0.5, salt="x", then=then),
    lambda then: rule("mine", bool, then=then, reason=""),
    lambda then: always(then),
]


@pytest.mark.parametrize("make", VERDICT_TAKERS)
@pytest.mark.parametrize("verdict", ["yes", "APPROVE", "", None, True, 1, []], ids=repr)
def test_what_is_no_verdict_is_refused_when_the_rule_is_made(make, verdict):
    with pytest.raises(ValueError, match="is not a verdict"):
        make(verdict)


# --------------------------------------------------------------------------- first match

LARGE = threshold("amount", above=1_000, then="reject")
MEDIUM = threshold("amount", above=100, then="ask")


@pytest.mark.parametrize(
    ("amount", "verdict", "name"),
    [
        (5_000, REJECT, "amount above 1000"),
        (500, ASK, "amount above 100"),
        (50, APPROVE, "never"),
    ],
)
def test_the_first_rule_that_matches_decides(amount, verdict, name):
    result = evaluate(first_match(LARGE, MEDIUM, otherwise=never()), {"amount": amount})
    assert (result.verdict, result.rule) == (verdict, name)


def test_the_order_of_rules_matters():
    assert evaluate(first_match(MEDIUM, LARGE), {"amount": 5_000}).verdict is ASK


def test_a_rule_after_the_first_match_is_not_called():
    called = []
    spy = rule("spy", lambda s: bool(called.append(s)), then="ask", reason="")
    evaluate(first_match(LARGE, spy), {"amount": 5_000})
    assert not called


def test_where_no_rule_matches_a_person_is_asked():
    result = evaluate(first_match(LARGE), {"amount": 1})
    assert (result.verdict, result.reason) == (ASK, "no rule matched")


def test_where_even_otherwise_does_not_match_a_person_is_asked():
    result = evaluate(first_match(LARGE, otherwise=LARGE), {"amount": 1})
    assert (result.verdict, result.reason) == (ASK, "no rule matched")


def test_first_match_within_first_match_decides():
    inner = first_match(LARGE)
    assert evaluate(first_match(inner, otherwise=never()), {"amount": 1}).verdict is ASK


@pytest.mark.parametrize("rules", [(BROKEN,), (BROKEN, never()), (LARGE, BROKEN, never())])
def test_a_rule_that_raises_ends_the_search_with_a_question(rules):
    result = evaluate(first_match(*rules, otherwise=never()), {"amount": 1})
    assert (result.verdict, result.rule) == (ASK, "broken")
    assert result.reason == "raised ValueError: out of order"


def test_first_match_needs_rules():
    with pytest.raises(ValueError, match="at least one rule"):
        first_match(otherwise=never())


@pytest.mark.parametrize("stranger", [bool, None, "never", never])
def test_first_match_takes_nothing_but_rules(stranger):
    with pytest.raises(TypeError, match="a Rule is needed"):
        first_match(stranger)


def test_first_match_takes_no_stranger_for_otherwise():
    with pytest.raises(TypeError, match="a Rule is needed"):
        first_match(LARGE, otherwise="approve")


verdicts = st.sampled_from(["ask", "approve", "reject"])
small_rules = st.one_of(
    st.just(BROKEN),
    st.builds(lambda then, n: threshold("n", at_least=n, then=then), verdicts, st.integers(0, 4)),
    st.builds(lambda then, n: one_of("n", [n], then=then), verdicts, st.integers(0, 4)),
)


@brief
@given(rules=st.lists(small_rules, min_size=1, max_size=5), number=st.integers(0, 4))
def test_first_match_is_the_first_of_its_rules_that_says_anything(rules, number):
    subject = {"n": number}
    expected = ASK
    for one in rules:
        if one is BROKEN or one(subject) is not None:
            expected = evaluate(one, subject).verdict
            break
    assert evaluate(first_match(*rules), subject).verdict is expected


# --------------------------------------------------------------------------- evaluate


class Silent(Exception):
    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("out of order"), "raised ValueError: out of order"),
        (KeyError("amount"), "raised KeyError: 'amount'"),
        (RecursionError(), "raised RecursionError"),
        (ExceptionGroup("many", [ValueError()]), "many"),
        (Silent(), "Silent"),
        (ValueError("half a character: \ud83d"), r"half a character: \ud83d"),
        (ValueError("x" * 10**7), "raised ValueError: xxx"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("then", ["approve", "reject"])
def test_a_rule_that_raises_asks_and_says_so(error, words, then):
    def fail(_):
        raise error

    result = evaluate(rule("mine", fail, then=then, reason=""), {})
    assert (result.verdict, result.rule) == (ASK, "mine")
    assert words in result.reason
    assert len(result.reason) <= 1_000
    assert RuleResult.model_validate_json(result.model_dump_json()) == result


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError]
)
@pytest.mark.parametrize("wrap", [lambda one: one, first_match])
def test_what_ends_the_program_is_let_through(error, wrap):
    def stop(_):
        raise error

    with pytest.raises(error):
        evaluate(wrap(rule("mine", stop, then="ask", reason="")), {})


def test_a_rule_that_does_not_match_asks():
    result = evaluate(LARGE, {"amount": 1})
    assert (result.verdict, result.rule) == (ASK, "amount above 1000")
    assert result.reason == "no rule matched"


@pytest.mark.parametrize(
    "returned", [True, "approve", APPROVE, (), {"verdict": "approve"}], ids=repr
)
@pytest.mark.parametrize("wrap", [lambda one: one, first_match])
def test_a_rule_that_returns_something_else_asks(returned, wrap):
    result = evaluate(wrap(Rule("mine", lambda _: returned)), {})
    assert (result.verdict, result.rule) == (ASK, "mine")
    assert "instead of a RuleResult" in result.reason


def test_what_is_no_rule_is_an_error():
    with pytest.raises(TypeError, match="a Rule is needed"):
        evaluate(lambda _: None, {})


BUILT = [
    threshold("amount", above=1, then="approve"),
    confidence(below=0.5, then="approve"),
    risk(at_least="low", then="approve"),
    one_of("amount", [1], then="approve"),
    none_of("amount", [1], then="approve"),
    sample(0.0, salt="x", then="approve"),
    BROKEN,
    first_match(BROKEN, otherwise=never()),
]


@brief
@given(one=st.sampled_from(BUILT), subject=json_values | st.builds(object) | st.just(NAN))
def test_whatever_the_subject_a_rule_comes_to_a_result_that_can_be_stored(one, subject):
    result = evaluate(one, subject)
    assert RuleResult.model_validate_json(result.model_dump_json()) == result


@brief
@given(one=st.sampled_from(BUILT), subject=json_values.filter(lambda s: not isinstance(s, dict)))
def test_nothing_is_approved_without_the_field_that_the_rule_reads(one, subject):
    assert evaluate(one, subject).verdict is ASK


# --------------------------------------------------------------------------- reading fields


class Account(BaseModel):
    balance: int

    @property
    def broken(self):
        raise RuntimeError("no connection")

    @property
    def absent(self):
        return self.nowhere

    def total(self):
        return self.balance


class Transfer(BaseModel):
    account: Account


class TransferEvent(Event):
    account: Account


ACCOUNT = Account(balance=500)
RICH = threshold("account.balance", above=100, then="reject")


@pytest.mark.parametrize(
    "subject",
    [
        Transfer(account=ACCOUNT),
        TransferEvent(account=ACCOUNT),
        Event(account=ACCOUNT),
        {"account": {"balance": 500}},
        {"account": ACCOUNT},
        SimpleNamespace(account={"balance": 500}),
    ],
    ids=lambda subject: type(subject).__name__,
)
def test_a_field_is_read_from_models_events_mappings_and_objects(subject):
    result = evaluate(RICH, subject)
    assert (result.verdict, result.reason) == (REJECT, "account.balance 500 is above 100")


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("account.owner", "raised LookupError: Transfer has no field 'account.owner'"),
        ("payee.name", "raised LookupError: Transfer has no field 'payee.name'"),
        ("account.balance.cents", "has no field 'account.balance.cents'"),
        ("account.absent", "has no field 'account.absent'"),
        ("account.broken", "raised RuntimeError: no connection"),
        ("account.total", "'account.total' is a function of Transfer, not a field"),
    ],
)
@pytest.mark.parametrize("builder", [partial(none_of, values=[1]), partial(threshold, above=1)])
def test_a_field_that_is_not_there_is_asked_about(field, words, builder):
    result = evaluate(builder(field, then="approve"), Transfer(account=ACCOUNT))
    assert result.verdict is ASK
    assert words in result.reason


def test_a_mapping_that_makes_up_values_is_not_believed():
    subject = defaultdict(int)
    result = evaluate(threshold("amount", below=100, then="approve"), subject)
    assert result.verdict is ASK
    assert not subject


@pytest.mark.parametrize("subject", [None, "amount", 5, [], {}, Event()], ids=repr)
def test_a_subject_without_fields_is_asked_about(subject):
    assert evaluate(threshold("amount", below=100, then="approve"), subject).verdict is ASK


@pytest.mark.parametrize(
    "field", ["", ".", "a.", ".a", "a..b", " ", "_data", "a._b", "a.__class__"]
)
def test_what_does_not_name_a_field_is_refused(field):
    with pytest.raises(ValueError, match="does not name a field"):
        threshold(field, above=1)


def test_a_field_is_named_by_a_string():
    with pytest.raises(TypeError, match="named by a string"):
        threshold(5, above=1)


def test_long_values_are_cut_in_reasons():
    one = one_of("text", ["x" * 5_000], then="reject")
    reason = evaluate(one, {"text": "x" * 5_000}).reason
    assert len(reason) < 200
