"""Durable runs: what a runner promises, on every store."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from durable import (
    Article,
    Payments,
    Waiting,
    kinds,
    only,
    runner_on,
)
from pydantic import ValidationError
from workflows import Workflow, step
from workflows.events import StartEvent, StopEvent

from llama_index_hitl import Approve, Approved, Edit, Reject, Respond, Reviewer, Revise
from llama_index_hitl.audit import verify
from llama_index_hitl.errors import (
    AlreadyAnswered,
    EffectInDoubt,
    InvalidAnswer,
    LeaseLost,
    NotAllowed,
    QuestionError,
    RequestExpired,
    RunBusy,
    RunEnded,
    RunFailed,
    StaleRequest,
    StillWaiting,
    UnknownRequest,
    UnknownRun,
    UnknownWorkflow,
)
from llama_index_hitl.runner import Runner, Submission
from llama_index_hitl.stores import MemoryStore
from llama_index_hitl.stores.protocol import Commit, RunStatus, Store
from llama_index_hitl.testing import ManualClock
from llama_index_hitl.testing.faults import Fault, FaultyStore

ALICE = Reviewer(id="alice", roles=("legal",))
BOB = Reviewer(id="bob", roles=("legal",))
CAROL = Reviewer(id="carol", roles=("legal", "chief"))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def make(store: Store, clock: ManualClock) -> Callable[..., Runner]:
    """Each call is a new process as far as the package can tell: new workflows, a new runner."""
    return lambda **options: runner_on(store, clock=clock, **options)


# --------------------------------------------------------------------------- the way of an answer


async def test_a_run_waits_is_answered_and_ends_each_time_in_another_runner(make: Any) -> None:
    run = await make().start("article", topic="mice")
    assert run.status is RunStatus.WAITING

    record = await only(make(), run.run_id)
    assert record.request.subject.data == {"text": "About mice."}
    receipt = await make().answer(record.request_id, Approve(comment="ok"), by="alice")
    assert (receipt.request_id, receipt.number, receipt.decides) == (record.request_id, 1, True)

    assert (await make().advance(run.run_id)).status is RunStatus.FINISHED
    assert await make().result(run.run_id) == "About mice."
    assert not (await make().pending()).items


async def test_a_runner_without_workflows_lists_and_takes_answers(make: Any) -> None:
    run = await make().start("article")
    clerk = make(workflows={})

    record = await only(clerk, run.run_id)
    await clerk.answer(record.request_id, Approve(), by="alice")
    with pytest.raises(UnknownWorkflow, match="article"):
        await clerk.advance(run.run_id)

    assert (await make().advance(run.run_id)).status is RunStatus.FINISHED


async def test_a_revision_comes_back_as_a_new_request(make: Any) -> None:
    run = await make().start("article", topic="mice")
    first = await only(make(), run.run_id)
    await make().answer(first.request_id, Revise(feedback="Shorter."), by="alice")
    await make().advance(run.run_id)

    second = await only(make(), run.run_id)
    assert second.request.revision == 2
    assert second.request.subject.data == {"text": "About it. Shorter."}
    with pytest.raises(AlreadyAnswered):
        await make().answer(first.request_id, Approve(), by="alice")


async def test_an_edit_is_what_runs(make: Any) -> None:
    run = await make().start("article", topic="mice")
    record = await only(make(), run.run_id)
    await make().answer(record.request_id, Edit(subject={"text": "Cats."}), by="alice")
    await make().advance(run.run_id)
    assert await make().result(run.run_id) == "Cats."
    (row,) = (r for r in await make().history(run.run_id) if r.entry.kind == "answered")
    assert "Cats." in row.entry.details["diff"]


async def test_nothing_to_tell_changes_nothing(make: Any) -> None:
    run = await make().start("article")
    assert (await make().advance(run.run_id)).revision == run.revision


async def test_start_can_be_repeated_with_its_id(make: Any) -> None:
    first = await make().start("article", run_id="order-7")
    again = await make().start("article", run_id="order-7")
    assert again.revision == first.revision
    assert len((await make().pending()).items) == 1


async def test_plain_questions_are_listed_and_answered_like_others(make: Any) -> None:
    run = await make().start("plain")
    record = await only(make(), run.run_id)
    assert record.request.title == "What is your name?"
    with pytest.raises(InvalidAnswer):
        await make().answer(record.request_id, Approve(), by="alice")
    await make().answer(record.request_id, Respond(response="Ada"), by="alice")
    await make().advance(run.run_id)
    assert await make().result(run.run_id) == "Hello, Ada!"


async def test_plain_waits_get_each_its_own_answer(make: Any) -> None:
    Waiting.calls.clear()
    run = await make().start("waiting")
    records = {r.request.title: r for r in await make().pending(run_id=run.run_id)}
    assert sorted(records) == ["Pay 0?", "Pay 1?", "Pay 2?"]
    said = {"Pay 0?": True, "Pay 1?": False, "Pay 2?": True}
    for title in ("Pay 1?", "Pay 0?"):
        await make().answer(
            records[title].request_id, Respond(response={"yes": said[title]}), by="alice"
        )
        await make().advance(run.run_id)
    last = await only(make(), run.run_id)
    assert last.request_id == records["Pay 2?"].request_id
    await make().answer(last.request_id, Respond(response={"yes": True}), by="alice")
    await make().advance(run.run_id)
    assert await make().result(run.run_id) == [
        "0:owner-0:True",
        "1:owner-1:False",
        "2:owner-2:True",
    ]
    # Once to ask and once to go on: waiting ran nothing again.
    assert sorted(Waiting.calls) == [0, 0, 1, 1, 2, 2]


async def test_inline_questions_can_be_answered_and_not_withdrawn(make: Any) -> None:
    run = await make().start("asking")
    record = await only(make(), run.run_id)
    with pytest.raises(QuestionError, match="cancel the run"):
        await make().withdraw(record.request_id, by="alice")
    await make().answer(record.request_id, Approve(), by="alice")
    await make().advance(run.run_id)
    assert await make().result(run.run_id) is True


@pytest.mark.parametrize(
    ("store", "workflows", "said"),
    [
        ("sqlite:///hitl.db", {}, r"SqlStore\('sqlite:///hitl.db'\)"),
        (MemoryStore(), {"article": Article}, r"MyFlow\(timeout=None\); 'article'"),
    ],
    ids=["a URL for a store", "a class for a workflow"],
)
def test_what_a_runner_is_not_made_of_is_said_at_once(
    store: Any, workflows: Any, said: str
) -> None:
    with pytest.raises(TypeError, match=said):
        Runner(store, workflows)


async def test_a_word_is_no_decision(make: Any) -> None:
    runner = make()
    await runner.start("article")
    (asked,) = await runner.pending()
    with pytest.raises(ValidationError, match=r"an object such as Approve\(\), not 'approve'"):
        await runner.answer(asked.request_id, "approve", by="alice")
    assert not await runner.recover()


# --------------------------------------------------------------------------- promises


async def test_promise_01_an_answer_applies_to_its_own_request_only(make: Any) -> None:
    Payments.bank.clear()
    run = await make().start("payments")
    records = {r.request.subject.data["number"]: r for r in await make().pending(run_id=run.run_id)}
    await make().answer(records[1].request_id, Approve(), by="alice")
    await make().advance(run.run_id)
    assert Payments.bank == ["paid 1"]
    await make().answer(records[2].request_id, Reject(), by="alice")
    await make().answer(records[0].request_id, Approve(), by="alice")
    await make().advance(run.run_id)  # both in one step
    assert Payments.bank == ["paid 1", "paid 0"]
    assert await make().result(run.run_id) == ["paid 0", "paid 1", "refused 2"]


async def test_promise_02_who_may_not_answer_does_not(make: Any) -> None:
    run = await make().start("staged")
    record = await only(make(), run.run_id)
    with pytest.raises(NotAllowed):
        await make().answer(record.request_id, Approve(), by="mallory")
    with pytest.raises(UnknownRequest):
        await make().answer("nonsense", Approve(), by=ALICE)
    with pytest.raises(StaleRequest):
        await make().answer(record.request_id, Approve(), by=ALICE, digest="0" * 64)
    assert (await make().advance(run.run_id)).status is RunStatus.WAITING
    (refused, stale) = (r for r in await make().history(run.run_id) if r.entry.kind == "refused")
    assert (refused.entry.actor, stale.entry.actor) == ("mallory", "alice")


async def test_promise_03_the_first_valid_answer_wins(make: Any) -> None:
    run = await make().start("article")
    record = await only(make(), run.run_id)
    receipt = await make().answer(record.request_id, Approve(), by="alice")
    assert await make().answer(record.request_id, Approve(), by="alice") == receipt
    with pytest.raises(AlreadyAnswered) as refused:
        await make().answer(record.request_id, Reject(), by="bob")
    assert refused.value.by == "alice"
    await make().advance(run.run_id)
    assert await make().answer(record.request_id, Approve(), by="alice") == receipt


async def test_promise_03_many_at_once_and_one_wins(make: Any) -> None:
    run = await make().start("article")
    record = await only(make(), run.run_id)
    outcomes = await asyncio.gather(
        *(
            make().answer(record.request_id, Approve() if n % 2 else Reject(), by=f"person-{n}")
            for n in range(12)
        ),
        return_exceptions=True,
    )
    taken = [o for o in outcomes if not isinstance(o, BaseException)]
    assert len(taken) == 1
    assert all(isinstance(o, AlreadyAnswered) for o in outcomes if o is not taken[0])
    assert (await make().get(record.request_id)).answers == (taken[0].answer,)


async def test_promise_04_requests_are_listed_for_those_who_can_answer(make: Any) -> None:
    run = await make().start("staged")
    assert len((await make().pending(reviewer=ALICE)).items) == 1
    assert len((await make().pending(role="legal")).items) == 1
    assert not (await make().pending(reviewer="alice")).items  # without her role
    record = await only(make(), run.run_id)
    await make().answer(record.request_id, Approve(), by=ALICE)
    assert not (await make().pending(reviewer=ALICE)).items  # she has voted
    assert len((await make().pending(reviewer=BOB)).items) == 1


async def test_promise_05_nothing_stays_in_memory(make: Any) -> None:
    before = asyncio.all_tasks()
    await make().start("article")
    assert asyncio.all_tasks() == before


async def test_promise_08_what_has_run_is_not_run_again(make: Any) -> None:
    run = await make().start("staged")
    for person in (ALICE, BOB):
        record = await only(make(), run.run_id)
        await make().answer(record.request_id, Approve(), by=person)
        await make().advance(run.run_id)
    record = await only(make(), run.run_id)
    assert record.request.gate == "chief"
    with pytest.raises(NotAllowed):
        await make().answer(record.request_id, Approve(), by=Reviewer(id="bob", roles=("chief",)))
    await make().answer(record.request_id, Approve(), by=CAROL)
    await make().advance(run.run_id)
    assert await make().result(run.run_id) == "published"


async def test_promise_12_every_decision_is_on_record(make: Any) -> None:
    run = await make().start("article")
    record = await only(make(), run.run_id)
    await make().answer(
        record.request_id, Approve(comment="Fine."), by=ALICE, role="legal", channel="web"
    )
    await make().advance(run.run_id)
    rows = await make().history(run.run_id)
    assert kinds(rows) == ["started", "opened", "answered", "finished"]
    answered = rows[2].entry
    assert (answered.actor, answered.role, answered.channel) == ("alice", "legal", "web")
    assert (answered.digest, answered.reason) == (record.request.digest, "Fine.")
    assert not verify(rows)


# --------------------------------------------------------------------------- time


async def test_promise_09_a_ladder_is_climbed_each_rung_once(make: Any, clock: ManualClock) -> None:
    run = await make().start("laddered")
    assert not await make().sweep()
    clock.advance(hours=1)
    first = await make().sweep()
    assert [due.rung.action.kind for due in first] == ["remind"]
    assert not await make().sweep()

    chief = Reviewer(id="carol", roles=("chief",))
    assert not (await make().pending(reviewer=chief)).items
    clock.advance(days=1)
    await make().sweep()
    assert len((await make().pending(reviewer=chief)).items) == 1
    clock.advance(days=14)
    late = await make().sweep()
    assert [due.rung.action.kind for due in late] == ["expire"]
    (after,) = await make().recover()
    assert after.status is RunStatus.FINISHED
    result = await make().result(run.run_id)
    assert type(result).__name__ == "Expired"
    assert "expired" in kinds(await make().history(run.run_id))


async def test_everything_that_was_missed_is_done_at_once(make: Any, clock: ManualClock) -> None:
    await make().start("laddered")
    clock.advance(days=365)
    done = await make().sweep()
    assert [due.rung.action.kind for due in done] == ["remind", "widen", "expire"]


async def test_who_is_asked_later_can_answer_then(make: Any, clock: ManualClock) -> None:
    run = await make().start("laddered")
    record = await only(make(), run.run_id)
    chief = Reviewer(id="carol", roles=("chief",))
    with pytest.raises(NotAllowed):
        await make().answer(record.request_id, Approve(), by=chief)
    clock.advance(days=1, hours=1)
    await make().answer(record.request_id, Approve(), by=chief)  # nobody has swept
    await make().advance(run.run_id)
    assert await make().result(run.run_id) == "published"


async def test_an_answer_and_a_sweep_at_the_deadline_have_one_winner(
    make: Any, clock: ManualClock
) -> None:
    run = await make().start("laddered")
    record = await only(make(), run.run_id)
    clock.advance(days=2)
    with pytest.raises(RequestExpired):
        await make().answer(record.request_id, Approve(), by="alice")
    await make().sweep()
    with pytest.raises(RequestExpired):
        await make().answer(record.request_id, Approve(), by="alice")
    await make().recover()
    assert type(await make().result(run.run_id)).__name__ == "Expired"


async def test_an_answer_in_time_is_in_time_however_late_it_is_told(
    make: Any, clock: ManualClock
) -> None:
    run = await make().start("laddered")
    record = await only(make(), run.run_id)
    clock.advance(days=1, hours=23)
    await make().answer(record.request_id, Approve(), by="alice")
    clock.advance(days=30)
    assert not await make().sweep()
    await make().advance(run.run_id)
    assert await make().result(run.run_id) == "published"


# --------------------------------------------------------------------------- failure


class Breaking(Workflow):
    broken = True

    @step
    async def write(self, ev: StartEvent) -> Article.approval.event:  # type: ignore[name-defined]
        return Article.approval.event(text="x")

    approval = Article.approval.replace(revise=None)

    @step
    async def publish(self, ev: Approved) -> StopEvent:
        if type(self).broken:
            raise RuntimeError("the press is on fire")
        return StopEvent(result="published")


async def test_a_step_that_raises_fails_the_run_and_loses_no_answer(make: Any) -> None:
    Breaking.broken = True
    workflows = lambda: {"breaking": Breaking(timeout=None)}  # noqa: E731
    options: dict[str, Any] = {"workflows": workflows()}
    run = await make(**options).start("breaking")
    record = await only(make(), run.run_id)
    await make().answer(record.request_id, Approve(), by="alice")
    failed = await make(**options).advance(run.run_id)
    assert failed.status is RunStatus.FAILED
    assert failed.error["type"] == "RuntimeError"
    assert "in publish" in failed.error["traceback"]
    with pytest.raises(RunFailed, match="on fire"):
        await make(**options).result(run.run_id)
    assert not await make(**options).recover()  # it is left alone until somebody mends it

    Breaking.broken = False
    again = await make(workflows=workflows()).retry(run.run_id, by="operator")
    assert again.status is RunStatus.FINISHED
    assert (await make().get(record.request_id)).answers[0].by.id == "alice"
    assert "retried" in kinds(await make().history(run.run_id))


async def test_an_advance_that_dies_is_done_again(
    make: Any, store: Store, clock: ManualClock
) -> None:
    Payments.bank.clear()
    run = await make().start("payments")
    for record in await make().pending(run_id=run.run_id):
        await make().answer(record.request_id, Approve(), by="alice")
    faulty = runner_on(FaultyStore(store, at="finish", when="before"), clock=clock)
    with pytest.raises(Fault):
        await faulty.advance(run.run_id)
    with pytest.raises(RunBusy):
        await make().advance(run.run_id)  # its lease has not ended
    assert not await make().recover()
    clock.advance(minutes=2)
    (recovered,) = await make().recover()
    assert recovered.status is RunStatus.FINISHED
    assert sorted(Payments.bank) == ["paid 0", "paid 1", "paid 2"]  # each effect once


async def test_a_start_that_dies_is_done_again(make: Any, store: Store, clock: ManualClock) -> None:
    faulty = runner_on(FaultyStore(store, at="park", when="before"), clock=clock)
    with pytest.raises(Fault):
        await faulty.start("article", topic="mice")
    clock.advance(minutes=2)
    (run,) = await make().recover()
    assert (await only(make(), run.run_id)).request.subject.data == {"text": "About mice."}


async def test_whoever_was_taken_over_stores_nothing(make: Any, store: Store) -> None:
    run = await make().start("article")
    record = await only(make(), run.run_id)
    await make().answer(record.request_id, Approve(), by="alice")

    async def meanwhile(run_id: str, event: Any) -> None:
        if type(event).__name__ == "StopEvent":
            taken = await store.run(run_id)
            await store.commit(Commit(run=replace(taken, lease_owner="somebody else")))

    slow = make(watch=meanwhile)
    with pytest.raises(LeaseLost):
        await slow.advance(run.run_id)
    assert "finished" not in kinds(await make().history(run.run_id))
    assert (await store.run(run.run_id)).lease_owner == "somebody else"
    assert len(await store.messages(run.run_id)) == 1


async def test_an_effect_that_was_begun_is_in_doubt_until_somebody_says(
    make: Any, clock: ManualClock
) -> None:
    Payments.bank.clear()
    Payments.broken = True
    run = await make().start("payments")
    records = (await make().pending(run_id=run.run_id)).items
    await make().answer(records[0].request_id, Approve(), by="alice")
    failed = await make().advance(run.run_id)
    Payments.broken = False
    assert failed.error["type"] == "ConnectionError"

    doubtful = await make().retry(run.run_id, by="operator")
    assert doubtful.error["type"] == EffectInDoubt.__name__
    (effect,) = await make().effects_in_doubt()
    await make().settle(effect.key, by="operator", happened=False)
    assert (await make().retry(run.run_id, by="operator")).status is RunStatus.WAITING
    assert len(Payments.bank) == 1
    for record in records[1:]:
        await make().answer(record.request_id, Reject(), by="alice")
    assert (await make().advance(run.run_id)).status is RunStatus.FINISHED
    rows = kinds(await make().history(run.run_id))
    assert rows.count("effect_begun") == 2
    assert "effect_in_doubt" in rows
    assert "effect_settled" in rows


# --------------------------------------------------------------------------- ending it


async def test_cancel_ends_a_run_and_withdraws_its_requests(make: Any) -> None:
    run = await make().start("payments")
    records = (await make().pending(run_id=run.run_id)).items
    await make().answer(records[0].request_id, Approve(), by="alice")
    cancelled = await make().cancel(run.run_id, by="operator", reason="no money")
    assert cancelled.status is RunStatus.CANCELLED
    assert not (await make().pending()).items
    assert not await make().recover()
    with pytest.raises(RunEnded):
        await make().result(run.run_id)
    with pytest.raises(RunEnded):
        await make().cancel(run.run_id, by="operator")


async def test_a_decision_that_is_not_allowed_is_refused_for_that(make: Any) -> None:
    run = await make().start("payments")
    record = (await make().pending(run_id=run.run_id)).items[0]
    for subject in ({}, record.request.subject.data):
        with pytest.raises(InvalidAnswer, match="'edit' is not allowed here"):
            await make().answer(record.request_id, Edit(subject=subject), by="alice")


async def test_withdraw_closes_one_request_and_the_run_goes_on(make: Any) -> None:
    Payments.bank.clear()
    run = await make().start("payments")
    records = (await make().pending(run_id=run.run_id)).items
    await make().withdraw(records[0].request_id, by="operator", reason="paid in cash")
    for record in records[1:]:
        await make().answer(record.request_id, Approve(), by="alice")
    await make().advance(run.run_id)
    result = await make().result(run.run_id)
    assert len([said for said in result if said.startswith("refused")]) == 1


async def test_answer_many_refuses_one_and_takes_the_others(make: Any) -> None:
    run = await make().start("payments")
    records = (await make().pending(run_id=run.run_id)).items
    outcomes = await make().answer_many(
        [
            Submission(
                request_id=record.request_id,
                decision=Approve(),
                digest="stale" if number == 1 else record.request.digest,
            )
            for number, record in enumerate(records)
        ],
        by="alice",
    )
    assert [isinstance(outcome, StaleRequest) for outcome in outcomes] == [False, True, False]


async def test_unknown_runs_and_results_that_are_not_there(make: Any) -> None:
    with pytest.raises(UnknownRun):
        await make().advance("nonsense")
    run = await make().start("article")
    with pytest.raises(StillWaiting, match="approval-"):
        await make().result(run.run_id)
    record = await only(make(), run.run_id)
    await make().answer(record.request_id, Approve(), by="alice")
    with pytest.raises(StillWaiting, match="nothing is left to answer"):
        await make().result(run.run_id)


async def test_runs_are_listed_by_what_they_are(make: Any) -> None:
    await make().start("article", tags=["urgent"])
    await make().start("staged")
    assert len((await make().runs(tag="urgent")).items) == 1
    assert len((await make().runs(workflow="staged")).items) == 1
    assert len((await make().runs(status="waiting")).items) == 2
