"""The bank account of the example, as a plan and as an agent with tools: the same in both."""

import sqlite3
from decimal import Decimal

import pytest
from bank_scenarios import BALANCE, WAYS, deposit, flow_of, model_of, said, start_of, transfer
from durable import NOON

from llama_index_hitl import Approve, Edit, Reject, Respond
from llama_index_hitl._demo_banking import Bank, Banking, InsufficientFunds, banking_agent
from llama_index_hitl.errors import AlreadyAnswered
from llama_index_hitl.models import Answer
from llama_index_hitl.runner import Runner
from llama_index_hitl.snapshots import PausedRun, pause, resume
from llama_index_hitl.stores import SqlStore
from llama_index_hitl.stores.protocol import RunStatus
from llama_index_hitl.testing import (
    ManualClock,
    ScriptedLLM,
    ScriptedReviewer,
    ToolCall,
    review_with,
)
from llama_index_hitl.testing.crashes import CrashLab
from llama_index_hitl.testing.faults import Point

both_ways = pytest.mark.parametrize("way", WAYS)

# --- the same story, both ways --------------------------------------------------------------------

APPROVED, REFUSED, EDITED = "approve", "reject", "edit"

STORIES = {
    "50 passes": ([BALANCE, transfer(50)], {}, "950"),
    "the limit itself passes": ([transfer(100)], {}, "900"),
    "a cent above it asks": ([transfer(100.01)], {"100.01": APPROVED}, "899.99"),
    "500 is approved": ([BALANCE, transfer(500)], {"500": APPROVED}, "500"),
    "500 is refused": ([transfer(500)], {"500": REFUSED}, "1000"),
    "a deposit passes": ([deposit(5000)], {}, "6000"),
    "a deposit pays for it": ([deposit(500), transfer(1200)], {"1200": APPROVED}, "300"),
    "500 is edited to 80": ([transfer(500)], {"500": EDITED}, "920"),
    "more than there is": ([transfer(5000)], {}, "1000"),
    "more than the first leaves": ([transfer(600), transfer(601)], {"600": APPROVED}, "400"),
    "one of two": ([transfer(500), transfer(300)], {"500": APPROVED, "300": REFUSED}, "500"),
    "the other of two": ([transfer(500), transfer(300)], {"500": REFUSED, "300": APPROVED}, "700"),
    "small ones beside a refusal": (
        [transfer(50), transfer(500), transfer(60)],
        {"500": REFUSED},
        "890",
    ),
    "nothing to do": ([], {}, "1000"),
}


@both_ways
@pytest.mark.parametrize(("wanted", "answers", "balance"), STORIES.values(), ids=STORIES)
async def test_a_story_ends_the_same_both_ways(way, wanted, answers, balance):
    def decide(request):
        data = request.subject.data
        match answers[str(data["amount"])]:
            case "approve":
                return Approve()
            case "edit":
                return Edit(subject={**data, "amount": "80"})
            case _:
                return Reject(comment="no")

    bank, llm = Bank(), ScriptedLLM(said(way, wanted))
    person = ScriptedReviewer(decide, by="erin")
    await review_with(flow_of(way, bank, llm).run(**start_of(way)), person)

    assert bank.balance == Decimal(balance)
    shown = [str(request.subject.data["amount"]) for request in person.asked]
    assert sorted(shown) == sorted(answers), "who is asked about what"
    llm.assert_exhausted()


@both_ways
async def test_what_was_enough_when_asked_is_not_when_it_is_done(way):
    bank, llm = Bank(), ScriptedLLM(said(way, [transfer(800)]))

    def decide(_):
        bank.transfer(Decimal(900), "somebody else", key="meanwhile")
        return Approve()

    result = await review_with(
        flow_of(way, bank, llm).run(**start_of(way)), ScriptedReviewer(decide, by="erin")
    )
    assert bank.balance == 100
    told = result.text if way == "plan" else llm.prompts[-1]
    assert "insufficient funds: 800.00 of 100.00" in told


async def test_a_claim_of_the_model_that_nothing_needs_confirming_changes_nothing():
    wanted = [transfer(500, requires_confirmation=False, confirmation=None)]
    bank, person = Bank(), ScriptedReviewer([Reject()], by="erin")
    flow = Banking(bank=bank, llm=ScriptedLLM(said("plan", wanted)))
    await review_with(flow.run(request="x"), person)
    assert len(person.asked) == 1
    assert bank.balance == 1000


async def test_a_claim_in_a_tool_call_is_no_argument():
    calls = [
        ToolCall(name="transfer", arguments={**ARGUMENTS, "requires_confirmation": False}),
        ToolCall(name="transfer", arguments=ARGUMENTS),
    ]
    llm = ScriptedLLM([*calls, "Refused."])
    bank, person = Bank(), ScriptedReviewer([Reject()], by="erin")
    await review_with(banking_agent(bank, llm).run("x"), person)
    assert len(person.asked) == 1
    assert bank.balance == 1000


ARGUMENTS = {"amount": 500, "recipient": "Alice"}


async def test_the_whole_plan_is_shown_and_one_of_its_transfers_refused():
    wanted = [BALANCE, transfer(500), transfer(300, "Bob"), transfer(50)]
    words = {"action_1": "approve", "action_2": "refuse", "action_3": "approve"}
    person = ScriptedReviewer([Respond(response={**words, "action_4": "approve"})], by="erin")
    bank = Bank()
    flow = Banking(bank=bank, llm=ScriptedLLM(said("plan", wanted)))
    result = await review_with(flow.run(request="x"), person)
    assert bank.balance == 650
    assert result.text.splitlines() == [
        "1. check the balance: done (the balance is 1000.00)",
        "2. transfer 500.00 to Alice: refused by erin",
        "3. transfer 300.00 to Bob: done (transfer of 300.00 to Bob; the balance is 700.00)",
        "4. transfer 50.00 to Alice: done (transfer of 50.00 to Alice; the balance is 650.00)",
    ]
    assert "2. transfer 500.00 to Alice (to be confirmed: it is above 100)" in person.asked[0].body


@pytest.mark.parametrize("amount", [0, -5, 1.005, "NaN", None])
async def test_a_sum_that_is_none_moves_nothing(amount):
    llm = ScriptedLLM([said("plan", [transfer(amount)])[0]] * 3)
    bank = Bank()
    with pytest.raises(ValueError, match="in 3 attempts"):
        await review_with(Banking(bank=bank, llm=llm).run(request="x"))
    assert bank.movements == []


# --- pausing, and other processes ---------------------------------------------------------------


@both_ways
async def test_a_transfer_waits_in_a_file_and_is_made_when_it_is_approved(way, tmp_path):
    file = tmp_path / "bank.db"
    handler = flow_of(way, Bank(file), model_of(way)).run(**start_of(way))
    paused = await pause(handler)
    text = paused.model_dump_json()

    again = PausedRun.model_validate_json(text)
    (request,) = [item.record.request for item in again.requests]
    approval = Answer.to(request, Approve(), by="erin", at=NOON)
    await resume(flow_of(way, Bank(file), model_of(way)), again, [approval])
    bank = Bank(file)
    assert bank.balance == 500
    assert bank.movements == [(Decimal(-500), "transfer of 500.00 to Alice")]


@both_ways
async def test_a_transfer_is_made_once_by_whoever_goes_on(way, tmp_path):
    """Each step of it in a runner of its own, with a workflow and a bank of its own."""

    def runner():
        flow = flow_of(way, Bank(tmp_path / "bank.db"), model_of(way))
        return Runner(SqlStore(tmp_path / "hitl.db"), {"bank": flow}, clock=ManualClock(NOON))

    run = await runner().start("bank", inputs=start_of(way))
    (record,) = await runner().pending(run_id=run.run_id)
    assert Bank(tmp_path / "bank.db").balance == 1000
    await runner().answer(record.request_id, Approve(), by="erin")
    await runner().answer(record.request_id, Approve(), by="erin")  # the same: the same receipt
    with pytest.raises(AlreadyAnswered):
        await runner().answer(record.request_id, Reject(), by="bob")
    assert (await runner().advance(run.run_id)).status is RunStatus.FINISHED
    await runner().advance(run.run_id)
    assert not await runner().recover()
    assert Bank(tmp_path / "bank.db").movements == [(Decimal(-500), "transfer of 500.00 to Alice")]
    effects = await runner().store.effects(run_id=run.run_id)
    assert {effect.status for effect in effects} == {"done"}


@pytest.fixture(scope="module")
def lab():
    with CrashLab() as lab:
        yield lab


LATER = "0.1"  # hours: by then the lease of the dead is over


async def play(lab, tmp_path, way, run_id, later="0", **death):
    return await lab.play(
        "bank_scenarios:transferred",
        tmp_path / "hitl.db",
        *(way, str(tmp_path / run_id), run_id, later),
        **death,
    )


MOVED = "after the money has moved"


@both_ways
async def test_promise_07_a_process_that_dies_at_any_commit_transfers_once(lab, tmp_path, way):
    undisturbed = await play(lab, tmp_path, way, "undisturbed")
    assert undisturbed.result == ["finished", "500", 1]
    commits = [point for point in undisturbed.points if point in set(Point)]
    effect = [number for number, point in enumerate(commits) if point == Point.EFFECT_BEGUN][-1]
    for number in range(len(commits)):
        for when in ("before", "after"):
            run_id = f"{when}-{number}"
            died = await play(lab, tmp_path, way, run_id, die=when, skip=number)
            assert died.killed, run_id
            again = await play(lab, tmp_path, way, run_id, LATER)
            in_doubt = (number, when) in ((effect, "after"), (effect + 1, "before"))
            if way == "tools" and in_doubt:
                # The function of a tool has no key, so a person has to find out.
                assert again.result[0] == "waiting", run_id
                assert again.result[2] == (number > effect), run_id
            else:
                assert again.result == undisturbed.result, run_id


@both_ways
async def test_promise_07_money_that_has_moved_does_not_move_again(lab, tmp_path, way):
    died = await play(lab, tmp_path, way, "dead", die="before", at=MOVED)
    assert died.killed
    assert died.points[-1] == MOVED
    for _ in range(2):
        again = await play(lab, tmp_path, way, "dead", LATER)
        assert again.result[1:] == ["500", 1]
        assert again.result[0] == ("finished" if way == "plan" else "waiting")


# --- the bank itself ----------------------------------------------------------------------------


def test_a_bank_moves_money_once_for_each_key(tmp_path):
    bank, same = Bank(tmp_path / "bank.db"), Bank(tmp_path / "bank.db")
    assert bank.deposit(Decimal("0.05"), key="a") == "deposit of 0.05; the balance is 1000.05"
    assert "was made before" in same.deposit(Decimal("0.05"), key="a")
    assert same.balance == Decimal("1000.05")
    with pytest.raises(ValueError, match="is that of a deposit"):
        same.transfer(Decimal("0.05"), "Alice", key="a")
    bank.close()
    same.close()


def test_a_bank_gives_no_more_than_there_is():
    bank = Bank()
    with pytest.raises(InsufficientFunds) as caught:
        bank.transfer(Decimal("1000.01"), "Alice", key="a")
    assert (caught.value.amount, caught.value.balance) == (Decimal("1000.01"), Decimal(1000))
    bank.transfer(Decimal(1000), "Alice", key="a")
    assert bank.balance == 0


def test_a_bank_makes_no_file_before_it_is_needed(tmp_path):
    bank = Bank(tmp_path / "bank.db")
    assert not (tmp_path / "bank.db").exists()
    assert bank.balance == 1000
    bank.close()
    with pytest.raises(sqlite3.ProgrammingError):
        _ = bank.balance
