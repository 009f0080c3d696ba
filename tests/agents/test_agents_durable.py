"""Agents with guarded tools that wait in a store: each call below is made by a new process.

That is, by a new runner, with new workflows, agents and models. What outlives it is the store, the
bank, and the place where the model has come to in its script.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from agent_runs import Bank, Office, agent_test
from durable import kinds
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer, Memory
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel, Field, field_validator
from workflows import Context

from llama_index_hitl import Approve, Edit, Question, Reject, Respond, Reviewer, ask
from llama_index_hitl._parking import load_parked
from llama_index_hitl.agents import human_tool, require_approval
from llama_index_hitl.audit import verify
from llama_index_hitl.errors import InvalidAnswer, RunEnded
from llama_index_hitl.models import GrantTerms, RequestStatus
from llama_index_hitl.rules import SHADOW_TAG, first_match, never, shadow, spot_check, threshold
from llama_index_hitl.runner import Runner, Submission
from llama_index_hitl.stores import SqlStore
from llama_index_hitl.stores.protocol import RequestQuery, RunStatus
from llama_index_hitl.testing import ToolCall

pytestmark = agent_test

PAYEES = ("ann", "bob", "cleo")
NO = "The call of transfer was rejected by a person and was NOT made."


@pytest.fixture(autouse=True)
async def _close_memories() -> AsyncIterator[None]:
    """Close what LlamaIndex's store for messages leaves open, before it is noticed elsewhere."""
    yield
    for item in gc.get_objects():
        if isinstance(item, aiosqlite.Connection):
            await item.close()


@pytest.fixture
async def file(tmp_path: Path) -> Any:
    """A store in a file."""
    store = SqlStore(tmp_path / "hitl.db")
    yield store
    await store.close()


def transfer_to(to: str, amount: int = 10, *, call: str | None = None) -> ToolCall:
    return ToolCall(name="transfer", arguments={"to": to, "amount": amount}, id=call or f"to {to}")


def teller(llm: Any, *tools: Any, **options: Any) -> FunctionAgent:
    return FunctionAgent(
        **{"name": "teller", "description": "pays", "tools": list(tools), "llm": llm, **options},
        timeout=None,
    )


def paying(store: Any, bank: Bank, *replies: Any, **guard: Any) -> Office:
    """Return an office with one agent that can pay if it is let."""
    return Office(
        store,
        replies,
        lambda llm: {"teller": teller(llm, bank.balance, require_approval(bank.transfer, **guard))},
    )


# --------------------------------------------------------------------------- parallel calls


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
async def test_parallel_calls_are_answered_one_by_one_in_any_order(
    store: Any, order: tuple[int, ...]
):
    bank = Bank()
    office = paying(store, bank, [transfer_to(to) for to in PAYEES], "All done.")
    run = await office.start("teller", user_msg="Pay them.")
    requests = await office.open(run.run_id)
    assert set(requests) == set(PAYEES)
    for done, number in enumerate(order, 1):
        decision = Reject(comment="Not her.") if number == 1 else Approve()
        await office.answer(requests[PAYEES[number]], decision)
        run = await office.advance(run.run_id)
        left = {PAYEES[n] for n in order[done:]}
        assert set(await office.open(run.run_id)) == left
        expected = {f"{PAYEES[n]} 10" for n in order[:done] if n != 1}
        assert (set(bank.paid), len(bank.paid)) == (expected, len(expected))
        assert len(office.model.asked) == (1 if left else 2)
    assert run.status is RunStatus.FINISHED
    results = office.model.results
    assert (results["to ann"], results["to cleo"]) == ("ann got 10", "cleo got 10")
    assert results["to bob"].startswith(f"{NO} Reason: Not her.\nDo not call it again")
    assert str(await office.result(run.run_id)) == "All done."


async def test_parallel_calls_are_answered_all_at_once(store: Any):
    bank = Bank()
    payees = [f"payee {number}" for number in range(6)]  # more than upstream calls at a time
    office = paying(store, bank, [transfer_to(to) for to in payees], "All done.")
    run = await office.start("teller", user_msg="Pay them.")
    requests = await office.open(run.run_id)
    decisions = {to: Approve() for to in payees}
    decisions |= {
        "payee 1": Reject(),
        "payee 3": Edit(subject={"to": "payee 3", "amount": 7}),
        "payee 4": Respond(response={"result": "Paid in cash."}),
    }
    submissions = [
        Submission(
            request_id=requests[to].request_id,
            decision=decision,
            digest=requests[to].request.digest,
        )
        for to, decision in decisions.items()
    ]
    receipts = await office.runner().answer_many(submissions, by="ann")
    assert [receipt.decides for receipt in receipts] == [True] * 6
    assert bank.paid == []
    run = await office.advance(run.run_id)
    assert run.status is RunStatus.FINISHED
    assert sorted(bank.paid) == ["payee 0 10", "payee 2 10", "payee 3 7", "payee 5 10"]
    results = office.model.results
    assert results.pop("to payee 1").startswith(NO)
    assert results == {
        "to payee 0": "payee 0 got 10",
        "to payee 2": "payee 2 got 10",
        "to payee 3": "A person changed the arguments before the call (amount: 10 -> 7). "
        "Result of that call:\npayee 3 got 7",
        "to payee 4": "Paid in cash.",
        "to payee 5": "payee 5 got 10",
    }


async def test_equal_calls_are_each_a_request_of_their_own(file: Any):
    bank = Bank()
    twice = [transfer_to("ann", call=f"call {number}") for number in range(2)]
    office = paying(file, bank, twice, "Done.")
    run = await office.start("teller", user_msg="Pay ann twice.")
    first, second = (await office.runner().pending(run_id=run.run_id)).items
    await office.answer(first, Approve())
    await office.advance(run.run_id)
    assert bank.paid == ["ann 10"]
    (left,) = (await office.runner().pending(run_id=run.run_id)).items
    assert left.request_id == second.request_id
    await office.answer(second, Reject())
    await office.advance(run.run_id)
    assert bank.paid == ["ann 10"]
    assert sorted(result[:8] for result in office.model.results.values()) == [
        "The call",
        "ann got ",
    ]


# --------------------------------------------------------------------------- kinds of agents


async def test_a_react_agent_goes_on_with_what_it_had_thought(file: Any):
    bank = Bank()
    office = Office(
        file,
        [
            "Thought: I look.\nAction: balance\nAction Input: {}",
            'Thought: It will do.\nAction: transfer\nAction Input: {"to": "ann", "amount": 3}',
            'Thought: And bob.\nAction: transfer\nAction Input: {"to": "bob", "amount": 4}',
            "Thought: I can answer.\nAnswer: Paid ann.",
        ],
        lambda llm: {
            "thinker": ReActAgent(
                name="thinker",
                tools=[bank.balance, require_approval(bank.transfer)],
                llm=llm,
                timeout=None,
            )
        },
    )
    run = await office.start("thinker", user_msg="Pay both.")
    for to, decision in (("ann", Approve()), ("bob", Reject(comment="Not him."))):
        (record,) = (await office.open(run.run_id)).values()
        assert record.request.subject.data["to"] == to
        assert "Thought: It will do." in record.request.evidence[0].body
        await office.answer(record, decision)
        run = await office.advance(run.run_id)
    assert str(await office.result(run.run_id)) == "Paid ann."
    assert bank.paid == ["ann 3"]
    said = [str(message.content) for message in office.model.asked[-1]]
    assert said[-6:-2] == [
        "Thought: I look.\nAction: balance\nAction Input: {}",
        "Observation: 1000",
        "Thought: It will do.\nAction: transfer\nAction Input: {'to': 'ann', 'amount': 3}",
        "Observation: ann got 3",
    ]
    assert said[-1].startswith(f"Observation: {NO} Reason: Not him.")


def handoff_to(agent: str) -> ToolCall:
    return ToolCall(name="handoff", arguments={"to_agent": agent, "reason": "their turn"})


async def test_agents_hand_over_before_and_after_a_pause(file: Any):
    bank = Bank()

    def make(llm: Any) -> dict[str, Any]:
        front = teller(llm, name="front", description="talks", can_handoff_to=["cashier"])
        cashier = teller(
            llm,
            require_approval(bank.noted),
            name="cashier",
            description="pays",
            can_handoff_to=["front"],
        )
        agents = [front, cashier]
        several = AgentWorkflow(
            agents=agents, root_agent="front", initial_state={"day": "Monday"}, timeout=None
        )
        return {"bank": several}

    def pay(to: str) -> ToolCall:
        return ToolCall(name="noted", arguments={"to": to, "amount": 5}, id=f"to {to}")

    office = Office(
        file,
        [handoff_to("cashier"), pay("ann"), pay("bob"), handoff_to("front"), "Both are paid."],
        make,
    )
    run = await office.start("bank", user_msg="Pay ann and bob.")
    for to in ("ann", "bob"):
        (record,) = (await office.open(run.run_id)).values()
        assert record.request.title == "cashier wants to call noted"
        assert record.request.subject.data["to"] == to
        await office.answer(record, Approve())
        run = await office.advance(run.run_id)
    result = await office.result(run.run_id)
    assert (str(result), result.current_agent_name) == ("Both are paid.", "front")
    assert bank.paid == ["ann 5", "bob 5"]
    assert bank.state == {"day": "Monday", "ann": 5, "bob": 5}
    called = [(call.tool_name, str(call.tool_output)) for call in result.tool_calls]
    assert [name for name, _ in called] == ["handoff", "noted", "noted", "handoff"]
    assert [output for name, output in called if name == "noted"] == ["ann got 5", "bob got 5"]


async def test_an_agent_asks_a_person_and_goes_on_with_what_they_say(file: Any):
    class Place(BaseModel):
        floor: int = Field(ge=0)

    office = Office(
        file,
        [ToolCall(name="ask_a_person", arguments={"question": "Which floor?"}), "The third."],
        lambda llm: {"teller": teller(llm, human_tool(response=Place))},
    )
    run = await office.start("teller", user_msg="Where to?")
    (record,) = (await office.runner().pending(run_id=run.run_id)).items
    assert record.request.title == "teller asks: Which floor?"
    await office.answer(record, Respond(response={"floor": 3}))
    await office.advance(run.run_id)
    assert str(await office.result(run.run_id)) == "The third."
    assert list(office.model.results.values()) == ['{\n  "floor": 3\n}']


# --------------------------------------------------------------------------- what an agent knows


@pytest.mark.parametrize(
    "memory",
    [lambda: None, ChatMemoryBuffer.from_defaults, Memory.from_defaults],
    ids=["its own", "ChatMemoryBuffer", "Memory"],
)
async def test_an_agent_remembers_what_was_said_before_a_pause(
    file: Any, memory: Callable[[], Any]
):
    bank, given = Bank(), memory()
    office = paying(file, bank, ToolCall(name="balance"), transfer_to("ann"), "Paid.")
    history = [ChatMessage("I am erin."), ChatMessage("Hello, erin.", role="assistant")]
    more = {} if given is None else {"memory": given}
    run = await office.start("teller", user_msg="Pay ann.", chat_history=history, **more)
    (record,) = (await office.open(run.run_id)).values()
    assert "assistant: Hello, erin." in record.request.evidence[0].body
    await office.answer(record, Approve())
    await office.advance(run.run_id)
    said = [message.content for message in office.model.asked[-1]]
    assert said == ["I am erin.", "Hello, erin.", "Pay ann.", None, "1000", None, "ann got 10"]


async def test_a_conversation_goes_on_in_a_second_run(file: Any, tmp_path: Path):
    bank = Bank()
    address = f"sqlite+aiosqlite:///{tmp_path}/conversation.db"

    def memory() -> Memory:
        return Memory.from_defaults(session_id="erin's", async_database_uri=address)

    office = paying(file, bank, transfer_to("ann"), "Paid.", transfer_to("bob"), "Both.")
    for message, to in (("Pay ann.", "ann"), ("And bob.", "bob")):
        run = await office.start("teller", user_msg=message, memory=memory())
        await office.answer((await office.open(run.run_id))[to], Approve())
        run = await office.advance(run.run_id)
        assert run.status is RunStatus.FINISHED, run.error
    said = [message.content for message in office.model.asked[-1]]
    first = ["Pay ann.", None, "ann got 10", "Paid."]
    assert said == [*first, "And bob.", None, "bob got 10"]


async def test_what_a_tool_has_changed_before_a_pause_stays_changed(file: Any):
    bank = Bank()

    async def note(ctx: Context, word: str) -> str:
        """Note something."""
        async with ctx.store.edit_state() as state:
            state["state"] = {**state["state"], "word": word}
        return "noted"

    async def recall(ctx: Context) -> str:
        """Say what was noted."""
        return str((await ctx.store.get("state"))["word"])

    office = Office(
        file,
        [
            ToolCall(name="note", arguments={"word": "blue"}),
            transfer_to("ann"),
            ToolCall(name="recall", id="recall"),
            "Blue.",
        ],
        lambda llm: {
            "teller": teller(
                llm,
                note,
                recall,
                require_approval(bank.transfer),
                initial_state={"word": "none"},
            )
        },
    )
    run = await office.start("teller", user_msg="Go.")
    await office.answer((await office.open(run.run_id))["ann"], Approve())
    await office.advance(run.run_id)
    assert office.model.results["recall"] == "blue"


async def test_a_long_conversation_grows_by_what_was_said_only(file: Any):
    bank, sizes = Bank(), []
    rounds = [transfer_to(f"payee {number}") for number in range(10)]
    office = paying(file, bank, *rounds, "Done.")
    run = await office.start("teller", user_msg="Pay them.")
    while run.status is RunStatus.WAITING:
        whole = await file.run(run.run_id, whole=True)
        paused, _ = load_parked(whole.snapshot)
        worker = paused.context["workers"]["call_tool"]
        # Of calls that are over nothing is left; of this one, what it is, that a person is asked,
        # and what.
        assert len(worker["collected_waiters"]) == 1
        assert len(worker["collected_events"]) == len(worker["collect_generations"]) == 3
        sizes.append(len(whole.snapshot))
        (record,) = (await office.open(run.run_id)).values()
        await office.answer(record, Approve())
        run = await office.advance(run.run_id)
    assert len(bank.paid) == len(set(bank.paid)) == len(rounds)
    assert len(office.model.asked) == len(rounds) + 1, "the model is asked once for each round"
    # The agent itself keeps a call and its result twice: for the model, and for its own result.
    assert max(after - before for before, after in pairwise(sizes)) < 1_500


# --------------------------------------------------------------------------- edits


class Whole(BaseModel):
    """Arguments of which the schema does not tell all."""

    to: str
    amount: int

    @field_validator("amount")
    @classmethod
    def _even(cls, amount: int) -> int:
        if amount % 2:
            raise ValueError("pay in pairs")
        return amount


class Half(Whole):
    """The same to see, and takes anything."""

    @field_validator("amount")
    @classmethod
    def _even(cls, amount: int) -> int:
        return amount


Half.__name__ = Whole.__name__
Half.__doc__ = Whole.__doc__


def strict(bank: Bank, schema: type[BaseModel] = Whole) -> Any:
    tool = FunctionTool.from_defaults(
        async_fn=bank.transfer, name="transfer", fn_schema=schema, description="Pay."
    )
    return require_approval(tool)


@pytest.mark.parametrize("several", [False, True], ids=["FunctionAgent", "AgentWorkflow"])
async def test_an_edit_that_the_tool_would_refuse_is_refused_when_it_is_given(
    file: Any, several: bool
):
    bank = Bank()

    def make(llm: Any) -> dict[str, Any]:
        agent = teller(llm, bank.balance, strict(bank))
        other = teller(llm, strict(bank, Half), name="other")  # another agent, of the same class
        return {"other": other, "teller": AgentWorkflow(agents=[agent]) if several else agent}

    office = Office(file, [transfer_to("ann"), "Done."], make)
    run = await office.start("teller", user_msg="Pay.")
    record = (await office.open(run.run_id))["ann"]
    with pytest.raises(InvalidAnswer) as raised:
        await office.answer(record, Edit(subject={"to": "ann", "amount": 7}))
    assert [(p.field, p.message) for p in raised.value.problems] == [
        ("subject.amount", "Value error, pay in pairs")
    ]
    assert kinds(await office.runner().history(run.run_id))[-1] == "refused"
    await office.answer(record, Edit(subject={"to": "ann", "amount": 8}))
    await office.advance(run.run_id)
    assert bank.paid == ["ann 8"]


async def test_an_edit_is_held_against_the_tools_of_its_own_workflow(file: Any):
    bank = Bank()

    def make(llm: Any) -> dict[str, Any]:
        return {"one": teller(llm, strict(bank, Half)), "two": teller(llm, strict(bank))}

    office = Office(file, [transfer_to("ann"), "Done."], make)
    run = await office.start("one", user_msg="Pay.")
    odd = Edit(subject={"to": "ann", "amount": 7})
    assert (await office.answer((await office.open(run.run_id))["ann"], odd)).decides


async def test_an_edit_that_one_of_two_equal_tools_would_take_is_left_to_the_run(file: Any):
    bank = Bank()

    def make(llm: Any) -> dict[str, Any]:
        one = teller(llm, strict(bank, Half), name="one", can_handoff_to=["two"])
        two = teller(llm, strict(bank), name="two")
        return {"both": AgentWorkflow(agents=[one, two], root_agent="one", timeout=None)}

    office = Office(file, [transfer_to("ann"), "Done."], make)
    run = await office.start("both", user_msg="Pay.")
    await office.answer(
        (await office.open(run.run_id))["ann"], Edit(subject={"to": "ann", "amount": 7})
    )
    await office.advance(run.run_id)
    assert bank.paid == ["ann 7"]


async def test_an_edit_that_the_tool_refuses_only_when_it_comes_reopens_the_request(file: Any):
    bank = Bank()
    calls = [transfer_to("ann"), transfer_to("bob")]
    office = Office(file, [calls, "Done."], lambda llm: {"teller": teller(llm, strict(bank))})
    run = await office.start("teller", user_msg="Pay.")
    requests = await office.open(run.run_id)
    desk = Runner(file, clock=office.clock)  # has no workflows, and so no models
    edit = Edit(subject={"to": "ann", "amount": 7})
    await desk.answer(requests["ann"].request_id, edit, by="erin")
    await desk.answer(requests["bob"].request_id, Approve(), by="erin")
    run = await office.advance(run.run_id)
    assert run.status is RunStatus.WAITING
    assert bank.paid == ["bob 10"]
    again = (await office.open(run.run_id))["ann"]
    assert (again.request_id, again.answers) == (requests["ann"].request_id, ())
    rows = kinds(await office.runner().history(run.run_id))
    assert (rows.count("refused"), rows.count("reopened")) == (1, 1)
    await office.answer(again, Edit(subject={"to": "ann", "amount": 8}))
    await office.advance(run.run_id)
    assert sorted(bank.paid) == ["ann 8", "bob 10"]
    assert len(office.model.results) == 2


async def test_an_answer_that_the_form_of_a_question_refuses_is_refused_when_it_is_given(file: Any):
    class Place(BaseModel):
        floor: int

        @field_validator("floor")
        @classmethod
        def _is_there(cls, floor: int) -> int:
            if floor == 13:
                raise ValueError("there is none")
            return floor

    office = Office(
        file,
        [ToolCall(name="ask_a_person", arguments={"question": "Which floor?"})],
        lambda llm: {"teller": teller(llm, human_tool(response=Place))},
    )
    run = await office.start("teller", user_msg="Where to?")
    (record,) = (await office.runner().pending(run_id=run.run_id)).items
    with pytest.raises(InvalidAnswer, match="there is none"):
        await office.answer(record, Respond(response={"floor": 13}))
    assert (await office.answer(record, Respond(response={"floor": 12}))).decides


# --------------------------------------------------------------------------- on record


async def test_what_is_asked_answered_and_done_is_on_record(file: Any):
    bank = Bank()
    office = paying(file, bank, [transfer_to("ann"), transfer_to("bob")], "Done.")
    run = await office.start("teller", user_msg="Pay them.")
    requests = await office.open(run.run_id)
    await office.answer(requests["ann"], Approve(comment="Fine."))
    await office.answer(requests["bob"], Reject())
    await office.advance(run.run_id)
    rows = await office.runner().history(run.run_id)
    assert kinds(rows) == [
        *("started", "opened", "opened", "answered", "answered"),
        *("effect_begun", "effect_done", "finished"),
    ]
    approved = await office.runner().get(requests["ann"].request_id)
    assert approved.status is RequestStatus.APPROVED
    assert approved.answers[0].decision == Approve(comment="Fine.")
    assert not verify(rows)
    (effect,) = await file.effects(run_id=run.run_id)
    assert (effect.key, effect.status) == (approved.request_id, "done")


async def test_a_tool_that_raises_is_told_to_the_model_and_to_the_audit_trail(file: Any):
    calls: list[str] = []

    def transfer(to: str, amount: int) -> str:
        """Pay somebody."""
        calls.append(to)
        raise ConnectionError("the bank is closed")

    office = Office(
        file,
        [transfer_to("ann"), "It is closed."],
        lambda llm: {"teller": teller(llm, require_approval(transfer))},
    )
    run = await office.start("teller", user_msg="Pay ann.")
    record = (await office.open(run.run_id))["ann"]
    receipt = await office.answer(record, Approve())
    run = await office.advance(run.run_id)
    assert run.status is RunStatus.FINISHED
    assert office.model.results == {"to ann": "the bank is closed"}
    rows = await office.runner().history(run.run_id)
    (done,) = [row.entry for row in rows if row.entry.kind == "effect_done"]
    assert done.reason == "failed: ConnectionError: the bank is closed"
    # The approval is spent.
    assert await office.answer(record, Approve()) == receipt
    await office.advance(run.run_id)
    assert calls == ["ann"]


async def test_what_rules_decide_is_listed_as_closed(file: Any):
    bank = Bank()
    rule = first_match(
        threshold("amount", above=1_000, then="reject"),
        threshold("amount", above=100),
        otherwise=never(),
    )
    calls = [transfer_to("ann", 50), transfer_to("bob", 500), transfer_to("cleo", 5_000)]
    office = paying(file, bank, calls, "Done.", when=rule)
    run = await office.start("teller", user_msg="Pay them.")
    assert bank.paid == ["ann 50"]
    (record,) = (await office.open(run.run_id)).values()
    assert record.request.subject.data["to"] == "bob"
    page = await file.requests(RequestQuery(run_id=run.run_id, open=None))
    closed = {
        stored.record.request.subject.data["to"]: stored.record
        for stored in page
        if stored.record.status is not RequestStatus.OPEN
    }
    assert {to: str(record.status) for to, record in closed.items()} == {
        "ann": "approved",
        "cleo": "rejected",
    }
    assert {record.answers[0].by.kind for record in closed.values()} == {"rule"}
    await office.answer(record, Approve())
    await office.advance(run.run_id)
    assert bank.paid == ["ann 50", "bob 500"]
    assert kinds(await office.runner().history(run.run_id)).count("rule_decided") == 2
    assert "was rejected by the rule" in office.model.results["to cleo"]


async def test_a_run_that_is_cancelled_while_it_waits_calls_nothing(file: Any):
    bank = Bank()
    office = paying(file, bank, [transfer_to("ann"), transfer_to("bob")])
    run = await office.start("teller", user_msg="Pay them.")
    requests = await office.open(run.run_id)
    await office.answer(requests["ann"], Approve())
    await office.runner().cancel(run.run_id, by="erin", reason="changed my mind")
    assert await office.open(run.run_id) == {}
    withdrawn = await office.runner().get(requests["bob"].request_id)
    assert withdrawn.status is RequestStatus.WITHDRAWN
    assert (await office.advance(run.run_id)).status is RunStatus.CANCELLED
    assert await office.runner().recover() == ()
    with pytest.raises(RunEnded):
        await office.result(run.run_id)
    assert (bank.paid, len(office.model.asked)) == ([], 1)


async def test_the_inbox_has_what_a_person_may_answer(file: Any):
    office = paying(
        file,
        Bank(),
        [transfer_to("ann", 5), transfer_to("bob", 500)],
        reviewers=lambda call: "role:chief" if call.amount > 100 else "erin",
        tags=lambda call: [f"to-{call.to}"],
    )
    await office.start("teller", user_msg="Pay them.")
    runner = office.runner()

    async def listed(**query: Any) -> list[str]:
        page = await runner.pending(**query)
        return sorted(record.request.subject.data["to"] for record in page.items)

    assert await listed(reviewer="erin") == ["ann"]
    assert await listed(role="chief") == ["bob"]
    assert await listed(reviewer="mallory") == []
    assert await listed(tag="to-bob") == ["bob"]
    assert await listed(gate="ask") == ["ann", "bob"]


# --------------------------------------------------------------------------- where parts meet


@pytest.mark.parametrize(
    ("who", "paid"),
    [
        (Reviewer(id="carl"), ["ann 10", "eve 20"]),
        (Reviewer(id="erin", roles=("boss",)), ["ann 10", "eve 20", "bob 5000"]),
        (Reviewer(id="eve", roles=("boss",)), ["ann 10"]),
    ],
    ids=["a clerk", "the boss", "who is barred from the next"],
)
async def test_a_grant_covers_only_what_its_owner_could_approve(
    file: Any, who: Reviewer, paid: list[str]
):
    bank = Bank()
    office = paying(
        file,
        bank,
        transfer_to("ann", 10),
        transfer_to("eve", 20),
        transfer_to("bob", 5_000),
        "Done.",
        reviewers=lambda call: ["role:boss"] if call.amount > 100 else [],
        barred=lambda call: {call.to: "it is for themselves"},
    )
    run = await office.start("teller", user_msg="Pay them.")
    (record,) = (await office.open(run.run_id)).values()
    decision = Approve(grant=GrantTerms())
    await office.runner().answer(record.request_id, decision, by=who)
    await office.advance(run.run_id)
    assert bank.paid == paid


async def test_calls_that_a_rule_decides_are_found_for_spot_checks(file: Any):
    bank = Bank()
    rule = first_match(threshold("amount", above=100), otherwise=never())
    office = paying(file, bank, transfer_to("ann"), "Paid.", when=spot_check(rule, 1, salt="s"))
    run = await office.start("teller", user_msg="Pay her.")
    assert (run.status, bank.paid) == (RunStatus.FINISHED, ["ann 10"])
    (picked,) = await office.runner().spot_checks.pending()
    assert picked.request.subject.data == {"to": "ann", "amount": 10}


async def test_calls_with_a_rule_on_trial_are_found_by_its_tag(file: Any):
    bank = Bank()
    rule = first_match(threshold("amount", above=100), otherwise=never())
    office = paying(file, bank, transfer_to("ann"), "Paid.", when=shadow(rule), tags=["money"])
    run = await office.start("teller", user_msg="Pay her.")
    (record,) = await office.runner().pending(run_id=run.run_id, tag=SHADOW_TAG)
    tags = ("money", "tool:transfer", "agent:teller", SHADOW_TAG)
    assert record.request.tags == tags
    await office.answer(record, Approve())
    await office.advance(run.run_id)
    assert bank.paid == ["ann 10"]


async def test_an_answer_within_a_call_that_was_cut_off_counts_when_it_is_repeated(file: Any):
    paid: list[str] = []
    at_work = asyncio.Event()

    async def transfer(ctx: Context, to: str) -> str:
        """Pay somebody."""
        said = await ask(ctx, Question(title="Really?"))
        if not at_work.is_set():
            at_work.set()
            await asyncio.Future()
        paid.append(f"{to}: {said.approved}")
        return "paid"

    call = ToolCall(name="transfer", arguments={"to": "ann"})
    office = Office(
        file, [call, "Paid."], lambda llm: {"teller": teller(llm, require_approval(transfer))}
    )
    run = await office.start("teller", user_msg="Pay her.")
    for title in ("teller wants to call transfer", "Really?"):
        (record,) = await office.runner().pending(run_id=run.run_id)
        assert record.request.title == title
        await office.answer(record, Approve())
        advancing = asyncio.create_task(office.advance(run.run_id))
        if title == "Really?":
            await at_work.wait()
            advancing.cancel()
        await asyncio.wait([advancing])
    await office.advance(run.run_id)
    (doubt,) = await office.runner().pending(run_id=run.run_id)
    assert doubt.request.title == "May transfer be called again?"
    await office.answer(doubt, Approve())
    run = await office.advance(run.run_id)
    assert (run.status, paid) == (RunStatus.FINISHED, ["ann: True"])
    history = await office.runner().history(run.run_id)
    assert kinds(history).count("answered") == 3
    assert not verify(history)


async def test_what_a_rule_has_let_a_tool_do_is_on_record_once_though_the_run_fails(file: Any):
    bank = Bank()
    rule = first_match(threshold("amount", above=100), otherwise=never())
    office = paying(file, bank, transfer_to("ann"), when=rule)  # then the model has no more to say
    run = await office.start("teller", user_msg="Pay her.")
    for _ in range(2):
        assert (run.status, bank.paid) == (RunStatus.FAILED, ["ann 10"])
        (stored,) = await file.requests(RequestQuery(run_id=run.run_id, open=False))
        assert stored.record.answers[-1].by.id == "rule:never"
        assert kinds(await office.runner().history(run.run_id)).count("rule_decided") == 1
        again = paying(file, bank, transfer_to("ann"), when=rule)
        run = await again.runner().retry(run.run_id, by="erin")
