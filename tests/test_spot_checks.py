"""Spot checks: what is picked, who looks at it, and the error rate that follows from it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from durable import NOON, kinds
from rollout import OK, bank_on, pay

from llama_index_hitl import Reviewer, ReviewRequest
from llama_index_hitl.audit import verify
from llama_index_hitl.authorizers import Action
from llama_index_hitl.errors import AlreadyChecked, NotAllowed, NotPicked, UnknownRequest
from llama_index_hitl.lifecycle import decide_without_person, open_record
from llama_index_hitl.models import Answer, Approve, RuleResult, RuleVerdict, SpotCheck
from llama_index_hitl.rules import first_match, never, shadow, spot_check, threshold
from llama_index_hitl.stores import MemoryStore, RequestQuery, Store
from llama_index_hitl.stores.protocol import Commit, StoredRequest
from llama_index_hitl.testing import ManualClock
from llama_index_hitl.testing.faults import Fault, FaultyStore

EVERY = spot_check(never(), 1, salt="2026")


async def test_what_is_picked_waits_to_be_looked_at_and_holds_nobody_up(store: Store) -> None:
    runner = bank_on(store, EVERY)
    run = await runner.start("transfer", amount=50)
    assert await runner.result(run.run_id) == 50

    (record,) = await runner.spot_checks.pending()
    assert record.request.subject.data["amount"] == 50
    assert record.request.tags == ("money", "spot-check")
    found = await store.requests(RequestQuery(open=False, tag="spot-check"))
    assert [stored.record for stored in found] == [record]

    judged = await runner.spot_checks.judge(
        record.request_id, right=False, by="alice", comment="never to Ada"
    )
    assert judged.spot_check == SpotCheck(right=False, by="alice", at=NOON, comment="never to Ada")
    assert judged.status == "approved"
    assert await bank_on(store).get(record.request_id) == judged
    assert not (await runner.spot_checks.pending()).items
    rows = await runner.history(run.run_id)
    assert kinds(rows)[-1] == "spot_checked"
    assert not verify(rows)
    entry = rows[-1].entry
    assert (entry.actor, entry.reason, entry.digest) == (
        "alice",
        "never to Ada",
        record.request.digest,
    )
    assert entry.details == {"right": False, "rule": "never"}


async def test_the_same_judgement_again_is_the_same_and_another_is_refused(store: Store) -> None:
    clock = ManualClock(NOON)
    checks = bank_on(store, EVERY, clock=clock).spot_checks
    record = await pay(bank_on(store, EVERY), 50)
    first = await checks.judge(record.request_id, right=True, by="alice")
    clock.advance(timedelta(hours=1))
    assert await checks.judge(record.request_id, right=True, by="alice") == first
    for again in ({"right": False, "by": "alice"}, {"right": True, "by": "bob"}):
        with pytest.raises(AlreadyChecked, match=r"alice at 2026-03-02T12:00.* right") as refused:
            await checks.judge(record.request_id, **again)
        assert (refused.value.by, refused.value.at) == ("alice", NOON)
    rows = await bank_on(store).history(record.request.run_id)
    assert kinds(rows).count("spot_checked") == 1
    assert (await bank_on(store).get(record.request_id)).spot_check == first.spot_check


async def test_what_was_not_picked_cannot_be_looked_at(store: Store) -> None:
    some = first_match(threshold("amount", below=10, then="approve"), otherwise=never())
    none = spot_check(some, 0, salt="2026")
    asked = await pay(bank_on(store), 1, OK)
    unpicked = await pay(bank_on(store, none), 1)
    for request_id in (asked.request_id, unpicked.request_id):
        with pytest.raises(NotPicked, match="was not picked"):
            await bank_on(store).spot_checks.judge(request_id, right=True, by="alice")
    with pytest.raises(UnknownRequest):
        await bank_on(store).spot_checks.judge("nothing", right=True, by="alice")
    assert not (await bank_on(store).spot_checks.pending()).items


class OnlyAuditors:
    """Lets auditors look, and vouches for their role."""

    def __init__(self) -> None:
        self.seen: list[tuple[Action, str | None]] = []

    async def authorize(
        self, by: Reviewer, action: Action, *, run_id: str, request: ReviewRequest | None
    ) -> Reviewer:
        self.seen.append((action, request and request.request_id))
        if by.id != "audrey":
            raise NotAllowed(request.request_id, by=by.id, reason="only auditors look")
        return Reviewer(id=by.id, roles=("audit",))


async def test_the_authorizer_is_asked_first(store: Store) -> None:
    record = await pay(bank_on(store, EVERY), 50)
    host = OnlyAuditors()
    checks = bank_on(store, authorizer=host).spot_checks
    with pytest.raises(NotAllowed, match="only auditors"):
        await checks.judge(record.request_id, right=True, by="alice")
    await checks.judge(record.request_id, right=True, by="audrey")
    assert host.seen == [(Action.SPOT_CHECK, record.request_id)] * 2
    (*_, row) = await bank_on(store).history(record.request.run_id)
    assert row.entry.details["roles"] == ["audit"]


async def picked(store: Store, **policy: Any) -> str:
    """Store what a rule approved and picked, with a policy; return its id."""
    request = ReviewRequest(
        request_id="picked-1",
        title="Picked",
        policy=policy,
        requester="rita",
        created_at=NOON,
        tags=("spot-check",),
        rule=RuleResult(verdict=RuleVerdict.APPROVE, rule="r", spot_check=True),
    )
    by = Reviewer(id="rule:r", kind="rule")
    answer = Answer.to(request, Approve(), by=by, at=NOON)
    record = decide_without_person(open_record(request), answer)
    await store.commit(Commit(requests=(StoredRequest(run_id="r", record=record),)))
    return request.request_id


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        (Reviewer(id="rita", roles=("legal",)), "requested it"),
        (Reviewer(id="bart", roles=("legal",)), "wrote it"),
        (Reviewer(id="carl"), "is for role:legal"),
        (Reviewer(id="rule:r", kind="rule", roles=("legal",)), "for people"),
    ],
)
async def test_those_look_who_may_answer(who: Reviewer, reason: str) -> None:
    store = MemoryStore()
    request_id = await picked(store, reviewers=("role:legal",), barred={"bart": "wrote it"})
    checks = bank_on(store).spot_checks
    assert not (await checks.pending(reviewer=who)).items
    with pytest.raises(NotAllowed, match=reason):
        await checks.judge(request_id, right=True, by=who)
    assert (await store.request(request_id)).record.spot_check is None

    lena = Reviewer(id="lena", roles=("legal",))
    assert len(await checks.pending(reviewer=lena)) == 1
    assert (await checks.judge(request_id, right=True, by=lena)).spot_check.by == "lena"


@pytest.mark.parametrize("right", ["yes", 1, None, "no"])
async def test_a_judgement_is_true_or_false_and_nothing_else(right: Any) -> None:
    store = MemoryStore()
    request_id = await picked(store)
    with pytest.raises(TypeError, match="True or False"):
        await bank_on(store).spot_checks.judge(request_id, right=right, by="alice")


async def test_a_comment_that_cannot_be_stored_is_refused() -> None:
    store = MemoryStore()
    request_id = await picked(store)
    with pytest.raises(ValueError, match="comment"):
        await bank_on(store).spot_checks.judge(request_id, right=True, by="alice", comment="\ud800")
    assert (await store.request(request_id)).record.spot_check is None


async def test_the_time_of_a_judgement_is_not_before_the_decision() -> None:
    store = MemoryStore()
    request_id = await picked(store)
    behind = bank_on(store, clock=ManualClock(NOON - timedelta(days=1)))
    assert (await behind.spot_checks.judge(request_id, right=True, by="al")).spot_check.at == NOON


async def test_of_two_who_judge_at_once_one_is_first(store: Store) -> None:
    request_id = (await pay(bank_on(store, EVERY), 50)).request_id
    outcomes = await asyncio.gather(
        *(
            bank_on(store).spot_checks.judge(request_id, right=right, by=who)
            for who, right in (("alice", True), ("bob", False), ("alice", True))
        ),
        return_exceptions=True,
    )
    stands = (await store.request(request_id)).record
    assert [outcome for outcome in outcomes if outcome == stands]
    others = [outcome for outcome in outcomes if outcome != stands]
    assert others
    assert all(isinstance(outcome, AlreadyChecked) for outcome in others)
    rows = await store.audit(stands.request.run_id)
    assert kinds(rows).count("spot_checked") == 1


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_judgement_and_its_audit_row_are_stored_together_or_not_at_all(when: Any) -> None:
    store = MemoryStore()
    request_id = (await pay(bank_on(store, EVERY), 50)).request_id
    faulty = FaultyStore(store, when=when)
    with pytest.raises(Fault):
        await bank_on(faulty).spot_checks.judge(request_id, right=True, by="alice")
    stored = when == "after"
    record = (await store.request(request_id)).record
    rows = await store.audit(record.request.run_id)
    assert (record.spot_check is not None, "spot_checked" in kinds(rows)) == (stored, stored)
    await bank_on(store).spot_checks.judge(request_id, right=True, by="alice")
    assert kinds(await store.audit(record.request.run_id)).count("spot_checked") == 1


async def test_what_comes_after_a_judgement_leaves_it_alone(store: Store) -> None:
    """A run may go on, be recovered or be cancelled after somebody has looked."""
    small = first_match(threshold("amount", at_most=10, then="approve"))
    runner = bank_on(store, spot_check(small, 1, salt="s"))
    waits = await pay(runner, 500)  # another run, which stays open
    record = await pay(runner, 5)
    judged = await runner.spot_checks.judge(record.request_id, right=True, by="alice")
    await runner.answer(waits.request_id, Approve(), by="alice")
    await runner.recover()
    await runner.sweep()
    await runner.advance(record.request.run_id)
    assert await runner.get(record.request_id) == judged
    assert (await runner.get(waits.request_id)).status == "approved"


async def test_the_error_rate_is_that_of_those_that_were_looked_at(store: Store) -> None:
    clock = ManualClock(NOON)
    rules = first_match(threshold("amount", below=10, then="approve"), otherwise=never())
    runner = bank_on(store, spot_check(rules, 1, salt="s"), clock=clock)
    empty = await runner.spot_checks.report()
    assert (str(empty), empty.error_rate) == ("looked at 0 of 0 spot checks, 0 were wrong", None)

    ids = [(await pay(runner, amount)).request_id for amount in (1, 2, 3, 20, 30)]
    clock.advance(timedelta(days=1))
    later = (await pay(runner, 4)).request_id
    for number, request_id in enumerate(ids[:4]):
        await runner.spot_checks.judge(request_id, right=number != 1, by="alice")

    report = await runner.spot_checks.report()
    assert (report.picked, report.checked, report.wrong, report.unchecked) == (6, 4, 1, 2)
    assert str(report) == (
        "looked at 4 of 6 spot checks, 1 were wrong: 25.0% (95% interval: 4.6% to 69.9%)"
    )
    assert [record.request_id for record in report.wrong_records] == [ids[1]]
    below, rest = report.rules["amount below 10"], report.rules["never"]
    assert (below.picked, below.checked, below.wrong) == (4, 3, 1)
    assert (rest.picked, rest.checked, rest.wrong) == (2, 1, 0)
    assert below.error_rate.share == pytest.approx(1 / 3)
    assert (await runner.spot_checks.report(since=NOON + timedelta(hours=1))).picked == 1
    assert (await runner.spot_checks.report(until=NOON + timedelta(hours=1))).picked == 5
    assert (await runner.spot_checks.report(gate="another")).picked == 0
    assert (await runner.spot_checks.report(listed=0)).wrong_records == ()

    left = await runner.spot_checks.pending()
    assert {record.request_id for record in left} == {ids[4], later}


async def test_pages_of_what_is_pending_are_full(store: Store) -> None:
    runner = bank_on(store, EVERY)
    ids = [(await pay(runner, amount)).request_id for amount in range(7)]
    for request_id in ids[::2]:
        await runner.spot_checks.judge(request_id, right=True, by="alice")
    first = await runner.spot_checks.pending(limit=2)
    second = await runner.spot_checks.pending(limit=2, after=first.after)
    assert len(first) == 2
    assert {r.request_id for r in (*first, *second)} == set(ids[1::2])


async def test_nothing_on_trial_is_picked(store: Store) -> None:
    runner = bank_on(store, shadow(EVERY))
    record = await pay(runner, 50)
    assert (record.status, record.request.tags) == ("open", ("money", "shadow"))
    assert not record.request.rule.spot_check
    assert not (await runner.spot_checks.pending()).items
