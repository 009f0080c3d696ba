"""Spot checks: what is picked, who looks at it, and the error rate that follows from it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from durable import NOON, kinds, only, runner_on
from rollout import OK, Transfer, bank_on, pay
from workflows import Context, Workflow, step
from workflows.events import StartEvent, StopEvent

from llama_index_hitl import Approve, Approved, Review, Reviewer, ReviewRequest
from llama_index_hitl.agents import require_approval
from llama_index_hitl.audit import verify
from llama_index_hitl.authorizers import Action
from llama_index_hitl.errors import AlreadyChecked, NotAllowed, NotPicked, UnknownRequest
from llama_index_hitl.lifecycle import decide_without_person, open_record, take_answer
from llama_index_hitl.models import Answer, RuleResult, RuleVerdict, SpotCheck
from llama_index_hitl.rules import first_match, never, shadow, spot_check, threshold
from llama_index_hitl.stores import MemoryStore, RequestQuery, Store
from llama_index_hitl.stores.protocol import Commit, StoredRequest
from llama_index_hitl.testing import ManualClock
from llama_index_hitl.testing.faults import Fault, FaultyStore

EVERY = spot_check(never(), 1, salt="2026")


def take(amount: int) -> str:
    """Take money."""
    return f"took {amount}"


TAKE = require_approval(take, when=EVERY)


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


async def test_calls_of_guarded_tools_are_picked_too(store: Store) -> None:
    class Till(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=(await TAKE.acall(ctx=ctx, amount=ev.amount)).content)

    runner = runner_on(store, workflows={"till": Till(timeout=None)})
    run = await runner.start("till", amount=50)
    assert await runner.result(run.run_id) == "took 50"
    (record,) = await runner.spot_checks.pending()
    assert record.request.subject.data == {"amount": 50}
    assert record.request.tags == ("tool:take", "spot-check")
    await runner.spot_checks.judge(record.request_id, right=False, by="alice")
    report = await runner.spot_checks.report()
    assert (report.picked, report.wrong) == (1, 1)


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


class Slow:
    """Takes its time to vouch for somebody: meanwhile others get ahead."""

    def __init__(self, store: Store, *, meanwhile: dict[str, Any]) -> None:
        self._store = store
        self._meanwhile = meanwhile

    async def authorize(
        self, by: Reviewer, action: Action, *, run_id: str, request: ReviewRequest | None
    ) -> Reviewer:
        await bank_on(self._store).spot_checks.judge(request.request_id, **self._meanwhile)
        return by


async def test_who_was_overtaken_is_told_who_was_first(store: Store) -> None:
    request_id = (await pay(bank_on(store, EVERY), 50)).request_id
    slow = bank_on(store, authorizer=Slow(store, meanwhile={"right": False, "by": "bob"}))
    with pytest.raises(AlreadyChecked, match=r"bob at .* wrong"):
        await slow.spot_checks.judge(request_id, right=True, by="alice")
    first = await slow.spot_checks.judge(request_id, right=False, by="bob")
    assert (first.spot_check.by, first.spot_check.right) == ("bob", False)


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


class Batch(Workflow):
    """A small transfer, which a rule lets pass, beside a large one, which waits for a person."""

    broken: ClassVar[bool] = True

    @step
    async def plan(self, ctx: Context, ev: StartEvent) -> Transfer | None:
        for amount in (5, 500):
            ctx.send_event(Transfer(amount=amount))
        return None

    approval = Review(
        Transfer,
        when=spot_check(
            first_match(threshold("amount", at_most=10, then="approve")), 1, salt="2026"
        ),
    )

    @step
    async def pay(self, ctx: Context, ev: Approved) -> StopEvent | None:
        if ev.subject.amount == 5:
            return None
        if type(self).broken:
            raise ConnectionError("the bank is closed")
        return StopEvent(result="paid")


async def test_what_becomes_of_the_run_leaves_a_judgement_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process dies, a step fails and is tried again, and the run ends, after somebody looked."""
    runner = runner_on(store, workflows={"batch": Batch(timeout=None)})
    run = await runner.start("batch")
    (small,) = await runner.spot_checks.pending()
    judged = await runner.spot_checks.judge(small.request_id, right=True, by="alice")
    large = await only(runner, run.run_id)
    await runner.answer(large.request_id, Approve(), by="alice")

    dying = FaultyStore(store, at="fail", when="before")
    with pytest.raises(Fault):
        await runner_on(dying, workflows={"batch": Batch(timeout=None)}).advance(run.run_id)
    later = ManualClock(NOON + timedelta(hours=1))
    runner = runner_on(store, clock=later, workflows={"batch": Batch(timeout=None)})
    assert (await runner.recover())[0].status == "failed"
    monkeypatch.setattr(Batch, "broken", False)
    assert (await runner.retry(run.run_id, by="alice")).status == "finished"

    assert await runner.get(small.request_id) == judged
    rows = await runner.history(run.run_id)
    assert (kinds(rows).count("spot_checked"), verify(rows)) == (1, ())


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


async def test_what_is_pending_comes_in_pages_of_which_none_is_empty(store: Store) -> None:
    clock = ManualClock(NOON)
    runner = bank_on(store, EVERY, clock=clock)
    ids = []
    for amount in range(7):
        ids.append((await pay(runner, amount)).request_id)
        clock.advance(timedelta(minutes=1))
    for judged in (0, 1, 2, 5):
        await runner.spot_checks.judge(ids[judged], right=True, by="alice")
    pages, after = [], None
    while not pages or after is not None:
        page = await runner.spot_checks.pending(limit=2, after=after)
        pages.append([record.request_id for record in page])
        after = page.after
    assert pages == [ids[3:4], ids[4:5], ids[6:]]


async def test_what_a_person_decided_is_no_spot_check() -> None:
    store = MemoryStore()
    await picked(store)
    request = (await store.request("picked-1")).record.request
    asked = ReviewRequest(**{**dict(request), "request_id": "asked-1", "digest": ""})
    record = take_answer(open_record(asked), Answer.to(asked, Approve(), by="al", at=NOON))
    await store.commit(Commit(requests=(StoredRequest(run_id="r", record=record),)))
    checks = bank_on(store).spot_checks
    assert [r.request_id for r in await checks.pending()] == ["picked-1"]
    with pytest.raises(NotPicked):
        await checks.judge("asked-1", right=True, by="bob")


async def test_nothing_on_trial_is_picked(store: Store) -> None:
    runner = bank_on(store, shadow(EVERY))
    record = await pay(runner, 50)
    assert (record.status, record.request.tags) == ("open", ("money", "shadow"))
    assert not record.request.rule.spot_check
    assert not (await runner.spot_checks.pending()).items
