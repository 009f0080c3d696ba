"""What a standing approval covers and what is left of it: exact numbers, and no surprises."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llama_index_hitl.errors import InvalidAnswer
from llama_index_hitl.forms import check_decision, fields_of, grant_fields_of, parse_answer
from llama_index_hitl.grants import (
    Grant,
    GuardedCall,
    amount_in,
    is_over,
    numbers_in,
    problems_of_terms,
    revoked,
    spend,
    state_of,
    terms_in_words,
    why_not_covered,
)
from llama_index_hitl.models import (
    Approve,
    DecisionKind,
    GrantOffer,
    GrantTerms,
    Reviewer,
    ReviewPolicy,
    ReviewRequest,
    Subject,
)

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def a_grant(approved: dict[str, Any] | None = None, **terms: Any) -> Grant:
    return Grant(
        grant_id="g",
        workflow="bank",
        agent="teller",
        tool="transfer",
        version="v1",
        terms=GrantTerms(**terms),
        arguments={"amount": 1} if approved is None else approved,
        owner="ann",
        run_id="run",
        request_id="request",
        granted_at=NOON,
    )


def a_call(arguments: Any = None, **values: Any) -> GuardedCall:
    given = {"tool": "transfer", "version": "v1", "agent": "teller", **values}
    arguments = {"amount": 1} if arguments is None else arguments
    return GuardedCall.model_construct(**given, arguments=arguments)  # as hostile as can be


def why(grant: Grant, arguments: Any = None, *, at: datetime = NOON, **values: Any) -> str | None:
    workflow = values.pop("workflow", "bank")
    return why_not_covered(grant, a_call(arguments, **values), workflow=workflow, now=at)


# --------------------------------------------------------------------------- how it stands


def test_a_grant_ends_at_its_instant_and_not_a_moment_later() -> None:
    grant = a_grant(until=NOON + SECOND)
    assert why(grant, at=NOON + SECOND - timedelta(microseconds=1)) is None
    assert why(grant, at=NOON + SECOND) == "it is expired"
    assert state_of(grant, NOON + SECOND) == "expired"
    assert not is_over(grant)  # whoever's clock is behind may still use it


def test_a_clock_that_is_behind_the_one_it_was_given_by_does_not_matter() -> None:
    assert why(a_grant(until=NOON + SECOND), at=NOON - timedelta(days=1)) is None


def test_a_revoked_grant_is_revoked_whatever_the_clock_says() -> None:
    grant = revoked(a_grant(uses=1), by="ann", at=NOON + timedelta(days=365), reason="no")
    assert why(grant, at=NOON) == "it is revoked"
    assert is_over(grant)
    assert state_of(spend(grant, a_call()), NOON) == "revoked"
    assert revoked(grant, by="bob", at=NOON) is grant


def test_uses_are_counted_down_to_nothing() -> None:
    grant = a_grant(uses=2)
    for left in (2, 1):
        assert why(grant) is None, left
        grant = spend(grant, a_call())
    assert why(grant) == "it is used up"
    assert is_over(grant)


# --------------------------------------------------------------------------- whom it holds for


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"workflow": "shop"}, "it is for another workflow"),
        ({"workflow": ""}, "it is for another workflow"),
        ({"tool": "Transfer"}, "it is for another tool"),
        ({"tool": "transfer "}, "it is for another tool"),
        ({"agent": ""}, "it is for another agent"),
        ({"agent": "Teller"}, "it is for another agent"),
        ({"version": "v2"}, "the tool has changed since it was given"),
    ],
    ids=str,
)
def test_another_workflow_tool_agent_or_version_is_not_covered(
    values: dict[str, str], said: str
) -> None:
    assert why(a_grant()) is None
    assert why(a_grant(), **values) == said


# --------------------------------------------------------------------------- the same arguments

ONES: list[Any] = [1, True, "1", 1.0, "1.0", [1], {"1": 1}, None]


@pytest.mark.parametrize("approved", ONES, ids=repr)
@pytest.mark.parametrize("called", ONES, ids=repr)
def test_the_same_is_the_same_in_kind(approved: Any, called: Any) -> None:
    grant = a_grant({"amount": approved}, arguments="same")
    is_covered = why(grant, {"amount": called}) is None
    assert is_covered == (json.dumps(approved) == json.dumps(called))


def test_the_order_of_arguments_does_not_matter_and_every_one_of_them_does() -> None:
    grant = a_grant({"a": 1, "b": {"c": [1, 2]}}, arguments="same")
    assert why(grant, {"b": {"c": [1, 2]}, "a": 1}) is None
    for other in ({"a": 1}, {"a": 1, "b": {"c": [2, 1]}}, {"a": 1, "b": {"c": [1, 2]}, "d": None}):
        assert why(grant, other) == "the arguments are not those that were approved"


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


HOSTILE: dict[str, Any] = {
    "deep": nested(100_000),
    "huge": {"amount": 10**10_000},
    "not JSON": {"amount": object()},
    "NaN": {"amount": float("nan")},
    "half a character": {"amount": "\ud83e"},
    "empty": {},
}


@pytest.mark.parametrize("arguments", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize(
    "terms",
    [{"arguments": "same"}, {"at_most": {"amount": 5}}, {"in_total": {"amount": 5}}],
    ids=str,
)
def test_nothing_that_a_call_may_hold_raises_or_is_covered(arguments: Any, terms: Any) -> None:
    assert why(a_grant(**terms), arguments) is not None


# --------------------------------------------------------------------------- amounts


@pytest.mark.parametrize(
    ("value", "amount"),
    [
        (0, 0),
        (-3, -3),
        (10**400, 10**400),
        (0.1, "0.1"),
        (1e300, "1e300"),
        (5e-324, "5e-324"),
        (-0.0, 0),
        ("500", 500),
        ("-0.50", "-0.5"),
        ("1E+3", 1000),
    ],
    ids=repr,
)
def test_numbers_are_read_exactly_as_json_writes_them(value: Any, amount: Any) -> None:
    assert amount_in({"a": {"b": value}}, "a.b") == Decimal(amount)


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        None,
        float("nan"),
        float("inf"),
        "NaN",
        "Infinity",
        "",
        " 5",
        "5 ",
        "5\n",
        "+5",
        "5_000",
        "5,000",
        "0x10",
        "007",
        ".5",
        "5.",
        "٥",  # noqa: RUF001 - a digit, and none of ours
        "1e99999999999999999999",
        [5],
        {"b": 5},
    ],
    ids=repr,
)
def test_what_is_no_number_is_none(value: Any) -> None:
    assert amount_in({"a": value}, "a") is None
    assert why(a_grant(at_most={"a": 10**9}), {"a": value}) == "a is not a number"
    assert why(a_grant(in_total={"a": 10**9}), {"a": value}) == "a is not a number from 0"


@pytest.mark.parametrize("path", ["b", "a.b.c", "a.c", "a.", ".a", "a..b", "", "A", "a.b.0"])
def test_a_path_that_leads_nowhere_finds_nothing(path: str) -> None:
    assert amount_in({"a": {"b": 1, "x.y": 2}, "x": [3]}, path) is None
    assert amount_in({"a.b": 1}, "a.b") is None


def test_at_most_is_for_each_call_and_the_limit_itself_is_covered() -> None:
    grant = a_grant(at_most={"amount": "500.10", "fee": 1})
    assert why(grant, {"amount": 500.1, "fee": 1}) is None
    assert why(grant, {"amount": "500.1000000000000000000001", "fee": 1}) is not None
    assert why(grant, {"amount": 10**400, "fee": 1}) is not None
    assert why(grant, {"amount": 1, "fee": 2}) is not None
    assert why(grant, {"amount": 1}) == "fee is not a number"
    assert why(grant, {"amount": -5, "fee": -5}) is None


def test_in_total_adds_up_exactly() -> None:
    grant = a_grant(in_total={"amount": "0.3"})
    for _ in range(3):
        assert why(grant, {"amount": 0.1}) is None
        grant = spend(grant, a_call({"amount": 0.1}))
    assert grant.spent == {"amount": Decimal("0.3")}
    assert state_of(grant, NOON) == "used_up"


def test_what_is_taken_cannot_be_given_back() -> None:
    grant = spend(a_grant(in_total={"amount": 10}), a_call({"amount": 9}))
    assert why(grant, {"amount": -9}) == "amount is not a number from 0"
    assert why(grant, {"amount": 2}) is not None
    assert why(grant, {"amount": 0}) is None
    assert why(grant, {"amount": 1}) is None


def test_what_cannot_be_added_up_exactly_is_not_covered() -> None:
    grant = a_grant(in_total={"amount": "1e5000"})
    grant = spend(grant, a_call({"amount": "1e-900"}))
    assert why(grant, {"amount": "1e4000"}) == "amount cannot be added up exactly"
    assert why(grant, {"amount": "1e90"}) is None


calls = st.lists(
    st.one_of(
        st.integers(-5, 50),
        st.decimals(-5, 50, places=3).map(str),
        st.floats(-5, 50).map(lambda x: round(x, 2)),
        st.sampled_from([True, None, "x", float("nan"), 10**400, "1e-400"]),
    ),
    max_size=20,
)


@given(
    calls=calls,
    limit=st.decimals("0.01", 200, places=2),
    each=st.decimals(0, 60, places=2),
    uses=st.none() | st.integers(1, 8),
)
@example(calls=[0.1] * 11, limit=Decimal(1), each=Decimal(1), uses=None)
@settings(max_examples=150, deadline=None)
def test_whatever_is_called_no_limit_is_ever_passed(
    calls: list[Any], limit: Decimal, each: Decimal, uses: int | None
) -> None:
    grant = a_grant(in_total={"a": limit}, at_most={"a": each}, uses=uses)
    total, count = Fraction(0), 0
    for value in calls:
        if why(grant, {"a": value}) is None:
            grant = spend(grant, a_call({"a": value}))
            amount = Fraction(str(value))
            assert 0 <= amount <= Fraction(each)
            total += amount
            count += 1
        grant = Grant.model_validate_json(grant.model_dump_json())  # as a store keeps it
    assert total <= Fraction(limit)
    assert Fraction(grant.spent.get("a", Decimal(0))) == total
    assert grant.used == count <= (len(calls) if uses is None else uses)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", ""]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    arguments=st.dictionaries(st.sampled_from(["a", "b", "a.b"]), json_values, max_size=3),
    path=st.sampled_from(["a", "a.b", "b.a.b", "a.", "."]),
)
@settings(max_examples=150, deadline=None)
def test_no_arguments_make_it_raise(arguments: dict[str, Any], path: str) -> None:
    amount = amount_in(arguments, path)
    covered = why(a_grant(at_most={path: 10}), arguments) is None
    assert covered == (amount is not None and amount <= 10)
    assert all(amount_in(arguments, each) is not None for each in numbers_in(arguments))


# --------------------------------------------------------------------------- giving one


def test_terms_are_checked_against_the_call_that_is_approved() -> None:
    terms = GrantTerms(
        at_most={"amount": 5, "to": 5, "gone": 5},
        in_total={"amount": 0, "fee": 5},
        until=NOON,
    )
    arguments: dict[str, Any] = {"amount": 7, "to": "Bob", "fee": -1}
    assert {p.field for p in problems_of_terms(terms, arguments, NOON)} == {
        "at_most.amount",
        "at_most.to",
        "at_most.gone",
        "in_total.amount",
        "in_total.fee",
        "until",
    }
    assert not problems_of_terms(GrantTerms(at_most={"amount": 7}), arguments, NOON)
    assert {p.field for p in problems_of_terms(terms, None)} == {"in_total.amount"}


def test_terms_are_told_in_words() -> None:
    assert terms_in_words(GrantTerms()) == "with any arguments, until it is revoked"
    terms = GrantTerms(
        arguments="same", at_most={"a": 5}, in_total={"b.c": "1.50"}, uses=1, until=NOON
    )
    assert terms_in_words(terms) == (
        "with the same arguments only, a at most 5 each time, b.c at most 1.50 in total, 1 time, "
        "until 2026-03-02T12:00+00:00"
    )


# --------------------------------------------------------------------------- in a form

OFFER = GrantOffer(tool="transfer", agent="teller", version="v1")
DATA: dict[str, Any] = {"amount": 50, "to": "Bob", "cost": {"fee": "0.50"}, "urgent": True}


def a_request(**values: Any) -> ReviewRequest:
    given = {
        "request_id": "r",
        "title": "Transfer?",
        "created_at": NOON,
        "subject": Subject(type="Transfer", data=DATA),
        "grantable": OFFER,
        **values,
    }
    return ReviewRequest(**given)


def parsed(raw: Any, request: ReviewRequest | None = None) -> Any:
    by = Reviewer(id="ann")
    return parse_answer(request or a_request(), raw, by=by, at=NOON).decision


def refused(raw: Any, request: ReviewRequest | None = None) -> dict[str, str]:
    with pytest.raises(InvalidAnswer) as caught:
        parsed(raw, request)
    return {problem.field: problem.message for problem in caught.value.problems}


def test_the_form_of_a_request_that_offers_it_has_fields_and_no_other_has() -> None:
    fields = fields_of(a_request(), DecisionKind.APPROVE)
    assert [field.name for field in fields] == [
        "grant.arguments",
        "grant.until",
        "grant.uses",
        "grant.at_most.amount",
        "grant.in_total.amount",
        "grant.at_most.cost.fee",
        "grant.in_total.cost.fee",
        "comment",
    ]
    assert not any(field.required or field.value is not None for field in fields)
    assert fields_of(a_request(), DecisionKind.REJECT) == fields[-1:]
    for other in (a_request(grantable=None), a_request(policy=ReviewPolicy(approvals=2))):
        assert grant_fields_of(other) == ()
        assert fields_of(other, DecisionKind.APPROVE) == fields[-1:]


def test_an_approval_of_which_nothing_else_is_said_grants_nothing() -> None:
    for raw in (
        "approve",
        "approve: any",
        {"decision": "approve"},
        {"decision": "approve", "grant": None},
        {"decision": {"kind": "approve", "grant": None}},
        {"decision": "approve", **{f.name: "" for f in grant_fields_of(a_request())}},
    ):
        assert parsed(raw).grant is None, raw


@pytest.mark.parametrize(
    "raw",
    [
        {
            "decision": "approve",
            "grant.arguments": "any",
            "grant.until": "2026-03-06T18:00+01:00",
            "grant.uses": "3",
            "grant.at_most.amount": "500.10",
            "grant.in_total.cost.fee": "9",
            "grant.in_total.amount": "",
            "comment": "",
        },
        {
            "decision": "approve",
            "grant": {
                "arguments": "any",
                "until": "2026-03-06T17:00:00Z",
                "uses": 3,
                "at_most": {"amount": "500.10"},
                "in_total": {"cost.fee": 9},
            },
        },
    ],
)
def test_the_terms_can_be_typed_in_a_form_or_as_they_are(raw: Any) -> None:
    terms = parsed(raw).grant
    assert terms == GrantTerms(
        arguments="any",
        until=datetime(2026, 3, 6, 17, tzinfo=UTC),
        uses=3,
        at_most={"amount": "500.10"},
        in_total={"cost.fee": 9},
    )


def fields(**values: Any) -> dict[str, Any]:
    named = {f"grant.{name.replace('__', '.')}": value for name, value in values.items()}
    return {"decision": "approve", **named}


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (fields(uses="3"), "grant.arguments"),
        (fields(at_most__amount="500"), "grant.arguments"),
        ({"decision": "approve", "grant": {}}, "grant.arguments"),
        ({"decision": {"kind": "approve", "grant": {}}}, "grant.arguments"),
        ('{"decision": "approve", "grant": {"uses": 1}}', "grant.arguments"),
        (fields(arguments="all"), "grant.arguments"),
        (fields(arguments="Any"), "grant.arguments"),
        (fields(arguments=True), "grant.arguments"),
        ({"decision": "approve", "grant": "any"}, "grant"),
        (fields(arguments="any", until="Friday"), "grant.until"),
        (fields(arguments="any", until="2026-03-06T18:00"), "grant.until"),
        (fields(arguments="any", until="2026-03-02T12:00Z"), "grant.until"),
        (fields(arguments="any", uses="0"), "grant.uses"),
        (fields(arguments="any", uses="-1"), "grant.uses"),
        (fields(arguments="any", uses="many"), "grant.uses"),
        (fields(arguments="any", at_most__amount="a lot"), "grant.at_most.amount"),
        (fields(arguments="any", at_most__amount="NaN"), "grant.at_most.amount"),
        (fields(arguments="any", at_most__amount="49"), "grant.at_most.amount"),
        (fields(arguments="any", at_most__urgent="49"), "grant.at_most.urgent"),
        (fields(arguments="any", in_total__to="49"), "grant.in_total.to"),
        (fields(arguments="any", for_ever="yes"), "grant.for_ever"),
        ({"decision": "reject", "grant.arguments": "any"}, "grant.arguments"),
    ],
    ids=str,
)
def test_what_does_not_say_clearly_what_to_grant_is_refused_by_its_field(
    raw: Any, field: str
) -> None:
    assert set(refused(raw)) == {field}


@pytest.mark.parametrize(
    "make",
    [
        lambda: a_request(grantable=None),
        lambda: a_request(policy=ReviewPolicy(approvals=2)),
        lambda: a_request(policy=ReviewPolicy(per_role={"legal": 1})),
    ],
    ids=["not offered", "two must approve", "a role must approve"],
)
def test_where_it_is_not_offered_no_way_of_saying_it_works(
    make: Callable[[], ReviewRequest],
) -> None:
    request = make()
    for raw in (
        fields(arguments="any"),
        {"decision": "approve", "grant": {"arguments": "any"}},
        {"decision": {"kind": "approve", "grant": {"arguments": "any"}}},
    ):
        assert set(refused(raw, request)) == {"grant"}
    with pytest.raises(InvalidAnswer, match="grant"):
        check_decision(request, Approve(grant=GrantTerms()))
    check_decision(request, Approve())


def test_a_grant_is_written_only_where_there_is_one_so_digests_stay() -> None:
    assert "grant" not in Approve().model_dump(mode="json")
    assert "grantable" not in a_request(grantable=None).model_dump(mode="json")
    assert a_request().digest != a_request(grantable=None).digest
