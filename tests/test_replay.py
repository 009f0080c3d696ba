"""Rules on past decisions: what is counted, what is not, and what hostile data comes to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from durable import NOON, runner_on
from pydantic import BaseModel
from rollout import OK, Transfer, bank_on, pay

from llama_index_hitl import Approve, Edit, Reject, Reviewer, Revise
from llama_index_hitl.lifecycle import open_record, take_answer
from llama_index_hitl.models import Answer, DecisionKind, ReviewRequest, Subject
from llama_index_hitl.replay import HumanDecision, replay, shadow_report
from llama_index_hitl.rules import (
    always,
    evaluate,
    first_match,
    never,
    rule,
    sample,
    shadow,
    threshold,
)
from llama_index_hitl.stores import MemoryStore, Store
from llama_index_hitl.stores.protocol import Commit, Run, RunStatus, StoredRequest
from llama_index_hitl.testing import ManualClock

SMALL = first_match(
    threshold("amount", at_most=100, then="approve"),
    threshold("amount", above=1_000, then="reject"),
)


async def decided(store: Any) -> dict[str, str]:
    """Let people decide eight transfers, and return the ids of the requests by what was meant."""
    runner = bank_on(store)
    made = {
        "approved": await pay(runner, 10, OK),
        "approved too": await pay(runner, 100, Approve()),
        "refused": await pay(runner, 20, Reject(comment="not to Ada")),
        "edited": await pay(runner, 30, Edit(subject={"amount": 3, "to": "Ada"})),
        "sent back": await pay(runner, 40, Revise(feedback="less")),
        "asked": await pay(runner, 500, OK),
        "large and refused": await pay(runner, 5_000, Reject()),
        "large and approved": await pay(runner, 2_000, Approve(comment="it is rent")),
    }
    return {name: record.request_id for name, record in made.items()}


async def test_rules_are_compared_with_what_people_decided(store: Store) -> None:
    ids = await decided(store)
    report = await replay(store, SMALL)

    assert str(report) == (
        "would have approved 5 of 8, of which people refused 3; "
        "would have rejected 2, of which people approved 1"
    )
    assert (report.total, report.saved, report.would_ask) == (8, 7, 1)
    assert report.refused == {
        HumanDecision.REJECTED: 1,
        HumanDecision.EDITED: 1,
        HumanDecision.SENT_BACK: 1,
    }
    assert report.overruled == {HumanDecision.APPROVED: 1}
    assert {case.request_id for case in report.wrongly_approved} == {
        ids["refused"],
        ids["edited"],
        ids["sent back"],
    }
    assert [case.request_id for case in report.wrongly_rejected] == [ids["large and approved"]]
    assert [case.request_id for case in report.asked] == [ids["asked"]]
    assert (report.disagreed, report.agreement.count, report.agreement.of) == (4, 3, 7)
    assert report.whole

    case = report.wrongly_rejected[0]
    assert (case.title, case.rule, case.reason) == (
        "Pay 2000",
        "amount above 1000",
        "amount 2000 is above 1000",
    )
    assert (case.decision, case.by, case.at, case.comment) == (
        HumanDecision.APPROVED,
        ("alice",),
        NOON,
        "it is rent",
    )
    comments = {case.request_id: case.comment for case in report.wrongly_approved}
    assert comments[ids["sent back"]] == "less"


async def test_an_edit_is_judged_by_what_was_proposed(store: Store) -> None:
    await pay(bank_on(store), 5_000, Edit(subject={"amount": 3, "to": "Ada"}))
    report = await replay(store, SMALL)
    assert (report.would_reject, report.overruled) == (1, {HumanDecision.EDITED: 1})


async def test_an_edit_that_changes_nothing_is_an_approval(store: Store) -> None:
    await pay(bank_on(store), 50, Edit(subject={"to": "Ada", "amount": 50}))
    report = await replay(store, SMALL)
    assert (report.would_approve, report.disagreed) == (1, 0)


async def test_an_instant_without_a_time_zone_is_refused() -> None:
    naive = datetime(2026, 1, 1)  # noqa: DTZ001
    for options in ({"since": naive}, {"until": naive}):
        with pytest.raises(ValueError, match="needs a time zone"):
            await replay(MemoryStore(), never(), **options)
        with pytest.raises(ValueError, match="needs a time zone"):
            await bank_on(MemoryStore()).spot_checks.report(**options)


async def test_only_what_people_decided_counts(store: Store) -> None:
    clock = ManualClock(NOON)
    by_rule = bank_on(store, first_match(threshold("amount", below=5, then="approve")), clock=clock)
    await pay(by_rule, 1)
    left_open = await pay(by_rule, 50)
    withdrawn = await pay(by_rule, 60)
    await by_rule.withdraw(withdrawn.request_id, by="alice")
    asking = runner_on(store, clock=clock)
    run = await asking.start("asking")
    (question,) = await asking.pending(run_id=run.run_id)
    await asking.answer(question.request_id, Approve(), by="alice")
    laddered = await asking.start("laddered")
    clock.advance(timedelta(days=3))
    await asking.sweep()

    report = await replay(store, never())
    assert (report.total, str(report)) == (
        0,
        "would have approved 0 of 0, of which people refused 0",
    )
    assert report.agreement is None
    assert report.left_out == {
        "decided without people": 1,
        "withdrawn": 1,
        "no subject": 1,
        "expired": 1,
    }
    assert left_open.request_id not in str(report)
    assert laddered.run_id


async def test_a_replay_is_narrowed_and_capped_with_exact_counts(store: Store) -> None:
    clock = ManualClock(NOON)
    runner = bank_on(store, clock=clock)
    for amount in range(1, 8):
        await pay(runner, amount, Reject())
        clock.advance(timedelta(hours=1))

    async def refused(**options: Any) -> int:
        return (await replay(store, never(), **options)).refused.get(HumanDecision.REJECTED, 0)

    assert await refused() == 7
    assert await refused(since=NOON + timedelta(hours=2)) == 5
    assert await refused(until=NOON + timedelta(hours=2)) == 2
    assert await refused(gate="approval", tag="money") == 7
    assert await refused(gate="another") == await refused(tag="another") == 0
    assert await refused(workflow="another") == 0
    capped = await replay(store, never(), listed=2)
    assert (len(capped.wrongly_approved), capped.would_approve) == (2, 7)
    some = await replay(store, never(), limit=3)
    assert (some.total, some.whole) == (3, False)
    assert (await replay(store, never(), limit=7)).whole


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"listed": -1}])
async def test_a_count_below_the_least_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"limit=0|listed=-1"):
        await replay(MemoryStore(), never(), **wrong)
    with pytest.raises(ValueError, match=r"limit=0|listed=-1"):
        await shadow_report(MemoryStore(), **wrong)


async def test_what_is_no_rule_is_refused() -> None:
    with pytest.raises(TypeError, match="a Rule is needed, not function"):
        await replay(MemoryStore(), lambda _: True)  # type: ignore[arg-type]


# --------------------------------------------------------------------------- hostile data


async def kept(store: Store, data: list[dict[str, Any]], **options: Any) -> list[str]:
    """Store requests that a person approved, as a store has them."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    await store.commit(
        Commit(
            run=Run(
                run_id="old",
                workflow="old",
                status=RunStatus.FINISHED,
                created_at=at,
                updated_at=at,
            )
        )
    )
    requests = []
    for number, values in enumerate(data):
        request = ReviewRequest(
            request_id=f"old-{number:04}",
            title=f"Old {number}",
            subject=Subject(type="Old", data=values),
            created_at=at,
            **options,
        )
        answer = Answer.to(request, Approve(), by="alice", at=at)
        record = take_answer(open_record(request), answer)
        requests.append(StoredRequest(run_id="old", record=record))
    await store.commit(Commit(requests=tuple(requests)))
    return [stored.request_id for stored in requests]


HOSTILE: list[dict[str, Any]] = [
    {},
    {"amount": "NaN"},
    {"amount": "50"},
    {"amount": None},
    {"amount": True},
    {"amount": [50]},
    {"amount": {"__class__": "int", "qualified_name": "os.system"}},
    {"amount": 10**400},
    {"amount": 1e308},
    {"amount": -(10**400)},
    {"Amount": 50},
    {"amount.": 50},
    {"amount": "x" * 100_000},
    {"__dict__": {"amount": 50}},
]


async def test_hostile_values_never_approve_and_never_crash(store: Store) -> None:
    await kept(store, HOSTILE)
    harmless = first_match(
        threshold("amount", at_least=0, at_most=100, then="approve"), otherwise=always("reject")
    )
    report = await replay(store, harmless)
    assert report.would_approve == 0
    assert report.total == len(HOSTILE)
    # Numbers that are out of bounds are none that a rule could not read.
    assert report.would_reject == 3
    assert all(case.reason.startswith("raised ") for case in report.asked)
    assert max(len(case.reason) for case in report.asked) <= 1_000


class Old(BaseModel):
    amount: Decimal


async def test_a_model_reads_what_json_cannot_say() -> None:
    store = MemoryStore()
    ids = await kept(store, [{"amount": "50.00"}, {"amount": "NaN"}, {"amount": "a lot"}, {}])
    small = threshold("amount", at_most=100, then="approve")
    assert (await replay(store, small)).would_approve == 0

    report = await replay(store, small, subject=Old)
    assert (report.would_approve, report.would_ask, report.unreadable) == (1, 0, 3)
    assert [case.request_id for case in report.unreadable_cases] == ids[1:]
    assert "amount" in report.unreadable_cases[1].reason
    assert str(report).endswith("; 3 could not be read")
    assert len((await replay(store, small, subject=Old, listed=1)).unreadable_cases) == 1


async def test_an_event_and_a_function_can_make_the_subject() -> None:
    store = MemoryStore()
    await kept(store, [{"amount": 50, "to": "Ada", "note": "undeclared"}])
    noted = rule("noted", lambda t: t.note == "undeclared", then="approve", reason="it says so")
    assert (await replay(store, noted, subject=Transfer)).would_approve == 1
    doubled = await replay(
        store,
        threshold("n", at_least=100, then="approve"),
        subject=lambda d: {"n": 2 * d["amount"]},
    )
    assert doubled.would_approve == 1


async def test_a_function_that_fails_in_any_way_is_one_unreadable_request() -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

    def fail(data: Any) -> Any:
        raise Silent if data["amount"] == 1 else RecursionError("\ud800" * 1_000)

    store = MemoryStore()
    await kept(store, [{"amount": 1}, {"amount": 2}])
    report = await replay(store, never(), subject=fail)
    assert report.unreadable == 2
    for case in report.unreadable_cases:
        assert len(case.reason.encode()) < 5_000


async def test_a_rule_that_changes_its_subject_changes_no_record() -> None:
    store = MemoryStore()
    (request_id,) = await kept(store, [{"amount": 50}])

    def grab(subject: Any) -> bool:
        subject["amount"] = 1_000_000
        return True

    await replay(store, rule("greedy", grab, then="approve", reason="mine"))
    stored = await store.request(request_id)
    assert stored.record.request.subject.data == {"amount": 50}


async def test_all_pages_are_read() -> None:
    store = MemoryStore()
    await kept(store, [{"amount": number} for number in range(250)])
    report = await replay(store, threshold("amount", below=200, then="approve"), listed=5)
    assert (report.would_approve, report.would_ask, len(report.asked)) == (200, 50, 5)


async def test_a_vote_without_a_quorum_is_no_approval() -> None:
    request = ReviewRequest(
        request_id="vote-1",
        title="Vote",
        subject=Subject(type="Old", data={"amount": 1}),
        policy={"reviewers": ("alice", "bob"), "approvals": 2, "rejections": 2},
        allowed=(DecisionKind.APPROVE, DecisionKind.REJECT),
        created_at=NOON,
    )
    record = open_record(request)
    for who, decision in (("alice", Approve()), ("bob", Reject(comment="no"))):
        record = take_answer(record, Answer.to(request, decision, by=Reviewer(id=who), at=NOON))
    store = MemoryStore()
    await store.commit(Commit(requests=(StoredRequest(run_id="old", record=record),)))
    report = await replay(store, never())
    assert report.refused == {HumanDecision.NO_QUORUM: 1}
    assert (await replay(store, always("reject"))).overruled == {}


# --------------------------------------------------------------------------- on trial


async def test_what_was_on_trial_is_compared_with_what_people_decided(store: Store) -> None:
    runner = bank_on(store, shadow(SMALL))
    good, bad = await pay(runner, 10, OK), await pay(runner, 20, Reject(comment="no"))
    await pay(runner, 500, OK)
    await pay(bank_on(store), 30, OK)  # without a rule

    report = await shadow_report(store)
    assert str(report) == "would have approved 2 of 3, of which people refused 1"
    (case,) = report.wrongly_approved
    assert (case.request_id, case.rule, case.comment) == (
        bad.request_id,
        "amount at most 100",
        "no",
    )
    assert good.request.tags == ("money", "shadow")
    assert (await shadow_report(store, until=NOON)).total == 0
    assert (await shadow_report(store, gate="another")).total == 0


async def test_a_replay_of_a_rule_on_trial_is_that_of_the_rule(store: Store) -> None:
    await decided(store)
    assert await counts(store, shadow(SMALL)) == await counts(store, SMALL)
    mixed = first_match(shadow(threshold("amount", at_most=100, then="approve")))
    assert (await replay(store, mixed)).would_approve == 5


async def counts(store: Store, one: Any) -> tuple[int, ...]:
    report = await replay(store, one)
    return (report.would_approve, report.would_reject, report.would_ask, report.disagreed)


async def test_a_request_with_the_tag_of_somebody_s_own_is_left_out() -> None:
    store = MemoryStore()
    await kept(store, [{"amount": 1}], tags=("shadow",))
    assert (await shadow_report(store)).left_out == {"no rule on trial": 1}


async def test_a_sample_is_the_same_in_a_replay_as_it_was_live(store: Store) -> None:
    rules = first_match(sample(0.5, salt="s", then="ask"), otherwise=never())
    runner = bank_on(store, shadow(rules))
    for amount in range(12):
        await pay(runner, amount, OK)
    live, again = await shadow_report(store), await replay(store, rules, subject=Transfer)
    assert 0 < live.would_approve < 12
    assert (live.would_approve, live.would_ask) == (again.would_approve, again.would_ask)
    assert evaluate(rules, Transfer(amount=0)).verdict
