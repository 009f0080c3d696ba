"""Rules on trial change nothing, and what was approved is picked for spot checks by share."""

from __future__ import annotations

import io
from typing import Any

import pytest
from durable import NOON, only, runner_on
from hypothesis import given
from hypothesis import strategies as st
from rollout import OK, Transfer, bank_on, pay
from strategies import brief, json_objects, thorough
from workflows import Context, Workflow, step
from workflows.events import StartEvent, StopEvent

from llama_index_hitl import (
    Approve,
    Approved,
    Edit,
    Escalate,
    Reject,
    Review,
    Reviewer,
    ReviewRecord,
)
from llama_index_hitl._requests import tagged
from llama_index_hitl.agents import require_approval
from llama_index_hitl.console._view import View
from llama_index_hitl.models import RuleResult, RuleVerdict
from llama_index_hitl.replay import shadow_report
from llama_index_hitl.rules import (
    NAME_LIMIT,
    Rule,
    always,
    evaluate,
    first_match,
    never,
    rule,
    sample,
    shadow,
    spot_check,
    tags_of,
    threshold,
)
from llama_index_hitl.stores import MemoryStore, Store

ASK, APPROVE, REJECT = RuleVerdict.ASK, RuleVerdict.APPROVE, RuleVerdict.REJECT


def boom(_: Any) -> bool:
    raise ValueError("out of order")


BROKEN = rule("broken", boom, then="approve", reason="never said")
UNRULY = Rule("unruly", lambda _: "approve")  # type: ignore[arg-type,return-value]

verdicts = st.sampled_from(["ask", "approve", "reject"])
simple_rules = st.one_of(
    st.builds(always, verdicts),
    st.builds(
        lambda bound, then: threshold("amount", above=bound, then=then),
        st.integers(-3, 3),
        verdicts,
    ),
    st.builds(lambda share, then: sample(share, salt="s", then=then), st.floats(0, 1), verdicts),
    st.sampled_from([never(), BROKEN, UNRULY]),
)
rules = st.recursive(
    simple_rules,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda ordered: first_match(*ordered)),
        st.builds(lambda one, share: spot_check(one, share, salt="t"), inner, st.floats(0, 1)),
    ),
    max_leaves=5,
)
subjects = json_objects | st.fixed_dictionaries({"amount": st.integers(-4, 4)})


def decided(result: RuleResult) -> tuple[Any, ...]:
    """Return what follows from a result for the run: everything but what is noted beside it."""
    return result.verdict, result.rule, result.spot_check


@thorough
@given(st.lists(rules, max_size=3), st.lists(st.tuples(rules, st.integers(0, 3))), subjects)
def test_rules_on_trial_never_change_what_happens(live, tried, subject):
    mixed = list(live)
    for one, place in tried:
        mixed.insert(min(place, len(mixed)), shadow(one))
    if not mixed:
        return
    without = evaluate(first_match(*live), subject) if live else None
    result = evaluate(first_match(*mixed), subject)
    if without is None:
        assert (result.verdict, result.spot_check) == (ASK, False)
    else:
        assert decided(result) == decided(without)
        if result.verdict is ASK:
            assert result.reason.startswith(without.reason[:900])
        else:
            assert result.reason == without.reason


@brief
@given(rules, subjects)
def test_by_itself_a_rule_on_trial_asks_and_says_what_the_rule_would(one, subject):
    would = evaluate(one, subject)
    result = evaluate(shadow(one), subject)
    assert decided(result) == (ASK, would.rule, False)
    assert result.shadow is would.verdict
    assert f"would have said {would.verdict}" in result.reason


@thorough
@given(st.lists(rules, min_size=1, max_size=3), st.integers(0, 3), rules, subjects)
def test_what_is_noted_is_what_would_be_said_without_the_trial(live, place, tried, subject):
    place = min(place, len(live))
    on_trial = evaluate(first_match(*live[:place], shadow(tried), *live[place:]), subject)
    for_real = evaluate(first_match(*live[:place], tried, *live[place:]), subject)
    if on_trial.shadow is None:  # a rule before it has decided
        assert decided(on_trial) == decided(evaluate(first_match(*live[:place]), subject))
    else:
        assert on_trial.shadow is for_real.verdict


@pytest.mark.parametrize(
    ("ordered", "verdict", "noted", "name"),
    [
        ([shadow(never())], ASK, APPROVE, "first match"),
        ([shadow(never()), always("reject")], REJECT, APPROVE, "always reject"),
        ([always("reject"), shadow(never())], REJECT, None, "always reject"),
        ([shadow(always("reject")), shadow(never()), always()], ASK, REJECT, "always ask"),
        ([shadow(threshold("amount", above=9)), never()], APPROVE, APPROVE, "never"),
        ([shadow(BROKEN), never()], APPROVE, ASK, "never"),
        ([shadow(UNRULY), never()], APPROVE, ASK, "never"),
        ([first_match(shadow(never())), never()], ASK, APPROVE, "first match"),
        ([shadow(threshold("amount", above=9)), first_match(shadow(never()))], ASK, APPROVE, None),
        ([shadow(first_match(shadow(never()))), never()], APPROVE, ASK, "never"),
        ([spot_check(shadow(never()), 1, salt="s"), always("reject")], REJECT, APPROVE, None),
        ([shadow(shadow(never())), always("reject")], REJECT, APPROVE, None),
    ],
)
def test_a_rule_on_trial_among_others(ordered, verdict, noted, name):
    result = evaluate(first_match(*ordered), {"amount": 5})
    assert (result.verdict, result.shadow) == (verdict, noted)
    assert name in (None, result.rule)


def test_it_can_be_told_which_rule_was_on_trial_and_why_it_would_have_said_so():
    small = threshold("amount", at_most=100, then="approve")
    alone = evaluate(shadow(small), {"amount": 5})
    assert alone.rule == "amount at most 100"
    assert alone.reason == "on trial, would have said approve: amount 5 is at most 100"
    among = evaluate(first_match(shadow(small), always(reason="we are new")), {"amount": 5})
    assert among.rule == "always ask"
    assert among.reason == (
        "we are new; amount at most 100 on trial, would have said approve: amount 5 is at most 100"
    )


def test_words_and_names_of_any_length_can_be_put_on_trial():
    wordy = Rule(
        "n" * NAME_LIMIT, lambda _: RuleResult(verdict=APPROVE, rule="r" * 190, reason="w" * 9_000)
    )
    for one in (shadow(wordy), first_match(shadow(wordy), always())):
        result = evaluate(one, {})
        assert result.shadow is APPROVE
        assert len(result.reason) == 1_000


@pytest.mark.parametrize("wrap", [shadow, lambda one: spot_check(one, 0.5, salt="s")])
def test_what_is_no_rule_is_refused(wrap):
    with pytest.raises(TypeError, match="a Rule is needed"):
        wrap(lambda _: None)


# --------------------------------------------------------------------------- spot checks


@brief
@given(rules, st.floats(0, 1), subjects)
def test_picking_changes_no_verdict_and_picks_approvals_only(one, share, subject):
    before, after = evaluate(one, subject), evaluate(spot_check(one, share, salt="u"), subject)
    assert after.verdict is before.verdict
    assert (after.rule, after.reason) == (before.rule, before.reason)
    assert not (after.spot_check and after.verdict is not APPROVE)
    assert after.spot_check >= before.spot_check


@pytest.mark.parametrize("one", [BROKEN, UNRULY])
def test_a_broken_rule_asks_with_the_same_reason_where_its_approvals_are_picked(one):
    assert evaluate(spot_check(one, 1, salt="s"), {}) == evaluate(one, {})


def test_the_share_that_is_picked_is_near_and_the_same_each_time():
    for share in (0, 0.05, 0.5, 1):
        one = spot_check(never(), share, salt="2026")
        picked = [evaluate(one, {"n": number}).spot_check for number in range(2_000)]
        assert sum(picked) == pytest.approx(2_000 * share, abs=4 * (2_000 * 0.25) ** 0.5)
        assert picked[:200] == [evaluate(one, {"n": number}).spot_check for number in range(200)]
    half, other = (spot_check(never(), 0.5, salt=salt) for salt in ("a", "b"))
    differs = [evaluate(half, {"n": n}) != evaluate(other, {"n": n}) for n in range(100)]
    assert 20 < sum(differs) < 80


def test_the_same_are_picked_as_by_a_sample():
    one, same = spot_check(never(), 0.3, salt="s"), sample(0.3, salt="s")
    for number in range(100):
        subject = {"n": number}
        assert evaluate(one, subject).spot_check is (same(subject) is not None)


def test_what_cannot_be_picked_from_is_not_approved():
    result = evaluate(spot_check(never(), 0.5, salt="s"), {"handle": object()})
    assert result.verdict is ASK
    assert result.reason.startswith("raised ")


@pytest.mark.parametrize(
    ("share", "salt", "error"),
    [
        (-0.1, "s", ValueError),
        (1.1, "s", ValueError),
        (0.5, " ", ValueError),
        ("1", "s", TypeError),
        (True, "s", TypeError),
        (0.5, 5, TypeError),
    ],
)
def test_a_share_or_salt_that_makes_no_sense_is_refused(share, salt, error):
    with pytest.raises(error, match=r"share|salt"):
        spot_check(never(), share, salt=salt)


# --------------------------------------------------------------------------- in runs


@pytest.mark.parametrize(
    ("result", "tags"),
    [
        (None, ()),
        (RuleResult(verdict=ASK, rule="r"), ()),
        (RuleResult(verdict=ASK, rule="r", shadow=APPROVE), ("shadow",)),
        (RuleResult(verdict=APPROVE, rule="r", spot_check=True), ("spot-check",)),
        (RuleResult(verdict=ASK, rule="r", spot_check=True), ()),
        (
            RuleResult(verdict=APPROVE, rule="r", shadow=REJECT, spot_check=True),
            ("shadow", "spot-check"),
        ),
    ],
)
def test_requests_are_found_by_what_rules_said(result, tags):
    assert tags_of(result) == tags
    assert tagged(("money", "shadow"), result) == (
        "money",
        "shadow",
        *(tag for tag in tags if tag != "shadow"),
    )


@pytest.mark.parametrize("amount", [5, 50, 5_000])
async def test_a_run_goes_the_same_way_with_a_rule_on_trial(store: Store, amount: int) -> None:
    live = [
        threshold("amount", at_most=10, then="approve"),
        threshold("amount", above=1_000, then="reject"),
    ]
    plain = await pay(bank_on(MemoryStore(), first_match(*live)), amount, OK)
    tried = await pay(bank_on(store, first_match(shadow(always("reject")), *live)), amount, OK)
    assert (tried.status, len(tried.answers)) == (plain.status, len(plain.answers))
    assert [a.by for a in tried.answers] == [a.by for a in plain.answers]
    assert [a.comment for a in tried.answers] == [a.comment for a in plain.answers]
    assert tried.outcome == plain.outcome
    assert tried.request.rule.shadow is REJECT
    assert tried.request.tags == ("money", "shadow")
    assert plain.request.tags == ("money",)


async def test_a_request_without_rules_on_trial_is_worded_as_before() -> None:
    record = await pay(bank_on(MemoryStore(), never()), 5)
    assert not {"shadow", "spot_check"} & record.request.rule.model_dump().keys()


class Voted(Workflow):
    """Needs two people, who may edit it, or pass it up."""

    @step
    async def plan(self, ev: StartEvent) -> Transfer:
        return Transfer(amount=ev.amount)

    approval = Review(
        Transfer, when=shadow(never()), quorum=2, editable=True, escalate_to="role:chief"
    )

    @step
    async def pay(self, ev: Approved) -> StopEvent:
        return StopEvent(result=ev.subject.amount)


class Till(Workflow):
    """Takes money with a guarded tool."""

    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        return StopEvent(result=(await TAKE.acall(ctx=ctx, amount=ev.amount)).content)


def take(amount: int) -> str:
    """Take money."""
    return f"took {amount}"


TAKE = require_approval(take, when=shadow(never()), tags="money")


async def test_rules_about_the_calls_of_a_tool_are_tried_in_the_same_way() -> None:
    runner = runner_on(MemoryStore(), workflows={"till": Till(timeout=None)})
    run = await runner.start("till", amount=5)
    asked = await only(runner, run.run_id)
    assert asked.request.tags == ("money", "tool:take", "shadow")
    await runner.answer(asked.request_id, Reject(), by="alice")
    await runner.advance(run.run_id)
    report = await shadow_report(runner.store)
    assert (report.would_approve, report.refused) == (1, {"rejected": 1})


async def test_what_was_edited_is_no_longer_what_the_rule_on_trial_saw() -> None:
    runner = runner_on(MemoryStore(), workflows={"voted": Voted(timeout=None)})
    run = await runner.start("voted", amount=5)
    first = await only(runner, run.run_id)
    edit = Edit(subject={"amount": 3, "to": "Ada"})
    await runner.answer(first.request_id, edit, by="alice")
    await runner.advance(run.run_id)
    second = await only(runner, run.run_id)
    assert (first.request.tags, second.request.tags) == (("shadow",), ())
    assert second.request.rule is None
    report = await shadow_report(runner.store)
    assert (report.total, report.refused) == (1, {"edited": 1})


async def test_what_was_passed_up_counts_once_as_those_decide_who_were_asked_last() -> None:
    runner = runner_on(MemoryStore(), workflows={"voted": Voted(timeout=None)})
    run = await runner.start("voted", amount=5)
    first = await only(runner, run.run_id)
    await runner.answer(first.request_id, Escalate(), by="alice")
    await runner.advance(run.run_id)
    second = await only(runner, run.run_id)
    chief = Reviewer(id="carol", roles=("chief",))
    await runner.answer(second.request_id, Approve(), by=chief)
    await runner.advance(run.run_id)
    report = await shadow_report(runner.store)
    assert (report.total, report.disagreed, report.left_out) == (1, 0, {"escalated": 1})


async def test_people_are_not_shown_what_the_rule_on_trial_would_have_said() -> None:
    def shown(record: ReviewRecord) -> str:
        screen = io.StringIO()
        View(screen).request(record.request, "", NOON)
        return screen.getvalue()

    new = threshold("amount", at_most=100, then="approve")
    on_trial = await pay(bank_on(MemoryStore(), shadow(new)), 5)
    asked = await pay(bank_on(MemoryStore(), always(reason="we are new")), 5)
    assert "Asked because: we are new" in shown(asked)
    assert "Asked because" not in shown(on_trial)
    assert "would have" not in shown(on_trial)
