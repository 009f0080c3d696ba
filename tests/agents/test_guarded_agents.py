"""Guarded tools in each kind of agent; what agents remember survives the wait."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from agents_in_hand import Hand, agent, agent_tests, arguments, call, edit, results, to
from llama_index.core.agent.workflow import (
    AgentWorkflow,
    CodeActAgent,
    FunctionAgent,
    ReActAgent,
)
from llama_index.core.memory import ChatMemoryBuffer
from workflows import Context, Workflow

from llama_index_hitl import Approve, Reject
from llama_index_hitl.agents import require_approval
from llama_index_hitl.errors import RejectedTooOften
from llama_index_hitl.testing import ScriptedReviewer, review_with
from llama_index_hitl.testing.llm import ScriptedLLM, ToolCall

pytestmark = agent_tests


class Bank:
    """An account with payments; `paid` says what has happened."""

    def __init__(self) -> None:
        self.paid: list[Any] = []

    def pay(self, to: str, amount: int) -> str:
        """Pay somebody."""
        self.paid.append((to, amount))
        return f"paid {amount} to {to}"


# --------------------------------------------------------------------------- ReAct

REACT = 'Thought: I have to pay.\nAction: pay\nAction Input: {"to": "Alice", "amount": 500}'


def react(bank: Bank, *replies: str, **options: Any) -> Callable[[], Workflow]:
    llm = ScriptedLLM([*replies], is_function_calling_model=False)

    def make() -> Workflow:
        return ReActAgent(
            tools=[require_approval(bank.pay, **options)], llm=llm, streaming=False, timeout=None
        )

    make.llm = llm  # type: ignore[attr-defined]
    return make


async def test_a_react_agent_waits_and_goes_on_with_its_reasoning(start_both: Any) -> None:
    bank = Bank()
    make = react(bank, REACT, "Thought: It is paid.\nAnswer: Done.")
    run: Hand = start_both(make)
    (request,) = await run.waiting()
    assert arguments(request) == {"to": "Alice", "amount": 500}
    conversation = request.evidence[0].body
    assert "user: Go." in conversation
    assert "I have to pay." in conversation
    await run.tell(edit(request, amount=50))
    assert bank.paid == [("Alice", 50)]
    prompt = make.llm.prompts[-1]
    assert "amount: 500 -> 50" in prompt
    assert "paid 50 to Alice" in prompt
    assert str(await run.result()) == "Done."


async def test_a_react_agent_that_loops_on_a_rejected_call_is_stopped(start_both: Any) -> None:
    bank = Bank()
    run: Hand = start_both(react(bank, REACT, REACT, max_rejections=1))
    await run.decide(Reject(comment="no"))
    with pytest.raises(RejectedTooOften):
        await run.handler
    assert bank.paid == []


# --------------------------------------------------------------------------- CodeAct


class Sandbox:
    """Where code is run; `ran` says which."""

    def __init__(self, **guard: Any) -> None:
        self.ran: list[str] = []

        def run_code(code: str) -> str:
            """Run code."""
            self.ran.append(code)
            return "42"

        self.run_code = require_approval(run_code, **guard)

    def agent(self, *replies: Any, tools: Any = None) -> Callable[[], Workflow]:
        llm = ScriptedLLM([*replies])

        def make() -> Workflow:
            made = CodeActAgent(
                code_execute_fn=self.run_code.async_fn, llm=llm, tools=list(tools or [])
            )
            made._timeout = None
            return made

        make.llm = llm  # type: ignore[attr-defined]
        return make


CODE = "<execute>print(6 * 7)</execute>"


async def test_code_of_an_agent_is_shown_before_it_runs(start_both: Any) -> None:
    sandbox = Sandbox()
    make = sandbox.agent(CODE, "It is 42.")
    run: Hand = start_both(make)
    (request,) = await run.waiting()
    assert sandbox.ran == []
    assert arguments(request) == {"code": "print(6 * 7)"}
    await run.tell(edit(request, code="print(42)"))
    assert sandbox.ran == ["print(42)"]
    assert "A person changed the arguments" in make.llm.prompts[-1]
    assert "It is 42." in str(await run.result())


async def test_code_that_is_rejected_again_and_again_stops_the_agent(start_both: Any) -> None:
    sandbox = Sandbox(max_rejections=2)
    run: Hand = start_both(sandbox.agent(CODE, "<execute>1</execute>", CODE, CODE))
    await run.decide(Reject())
    await run.decide(Reject())
    await run.decide(Reject())
    with pytest.raises(RejectedTooOften):
        await run.handler
    assert sandbox.ran == []


async def test_a_code_agent_refuses_guarded_tools_among_its_functions(start: Any) -> None:
    """LlamaIndex calls such functions from the code that it runs, where nobody can be asked."""
    sandbox, bank = Sandbox(), Bank()
    run: Hand = start(sandbox.agent(CODE, tools=[require_approval(bank.pay)]))
    with pytest.raises(ValueError, match="Tool pay requires context"):
        await run.handler
    assert (sandbox.ran, bank.paid) == ([], [])


# --------------------------------------------------------------------------- several agents


class Office:
    """Two agents, each with a tool `pay` of its own under a guard of its own."""

    def __init__(self) -> None:
        self.paid: list[Any] = []

        def small(to: str, amount: int) -> str:
            """Pay from the cash box."""
            self.paid.append(("cash", to, amount))
            return f"cash {amount} to {to}"

        async def large(ctx: Context, to: str, amount: int) -> str:
            """Pay by transfer."""
            state = await ctx.store.get("state")
            await ctx.store.set("state", {**state, "paid": amount})
            self.paid.append(("transfer", to, amount))
            return f"transferred {amount} to {to}"

        def named(function: Any) -> Any:
            function.__name__ = "pay"
            return function

        self.clerk_pay = require_approval(named(small), reviewers=["clara"])
        self.cfo_pay = require_approval(named(large), reviewers=["frank"], decisions=["approve"])
        self.clerk_llm = ScriptedLLM(
            [
                call("pay", "c1", to="Ann", amount=5),
                call("handoff", "c2", to_agent="cfo", reason="too large"),
            ]
        )
        self.cfo_llm = ScriptedLLM([call("pay", "c3", to="Ben", amount=5000), "All paid."])

    def make(self) -> AgentWorkflow:
        clerk = FunctionAgent(
            name="clerk",
            description="Pays small sums.",
            tools=[self.clerk_pay],
            llm=self.clerk_llm,
            can_handoff_to=["cfo"],
        )
        cfo = FunctionAgent(
            name="cfo", description="Pays large sums.", tools=[self.cfo_pay], llm=self.cfo_llm
        )
        return AgentWorkflow(
            agents=[clerk, cfo], root_agent="clerk", initial_state={"paid": 0}, timeout=None
        )


async def test_agents_with_a_tool_of_the_same_name_ask_under_their_own_guards(
    start_both: Any,
) -> None:
    office = Office()
    run: Hand = start_both(office.make)
    (first,) = await run.waiting()
    assert first.title == "clerk wants to call pay"
    assert "cash box" in first.body
    assert first.policy.reviewers == ("clara",)
    assert office.paid == []
    (second,) = await run.tell(to(first, by="clara"))
    assert office.paid == [("cash", "Ann", 5)]
    assert second.title == "cfo wants to call pay"
    assert second.policy.reviewers == ("frank",)
    assert [str(kind) for kind in second.allowed] == ["approve"]
    assert "Go." in second.evidence[0].body
    assert "cash 5 to Ann" in second.evidence[0].body
    await run.tell(to(second, by="frank"))
    assert office.paid == [("cash", "Ann", 5), ("transfer", "Ben", 5000)]
    assert str(await run.result()) == "All paid."
    history = [message.content for message in office.cfo_llm.calls[-1]]
    assert any("Go." in (text or "") for text in history)
    assert results(office.cfo_llm.calls[-1])["c3"] == "transferred 5000 to Ben"


async def test_the_answer_of_one_agents_reviewer_does_not_do_for_the_other(start: Any) -> None:
    office = Office()
    run: Hand = start(office.make)
    (first,) = await run.waiting()
    assert await run.tell(to(first, by="frank")) == [first]
    assert office.paid == []


async def test_a_handoff_beside_a_guarded_call_waits_for_it(start_both: Any) -> None:
    office = Office()
    office.clerk_llm = ScriptedLLM(
        [
            [
                call("pay", "c1", to="Ann", amount=5),
                call("handoff", "c2", to_agent="cfo", reason="large"),
            ]
        ]
    )
    run: Hand = start_both(office.make)
    (first,) = await run.waiting()
    assert office.cfo_llm.calls == []
    (second,) = await run.tell(to(first, Reject(), by="clara"))
    assert second.title == "cfo wants to call pay"
    await run.tell(to(second, by="frank"))
    assert office.paid == [("transfer", "Ben", 5000)]
    assert str(await run.result()) == "All paid."


async def test_rejections_count_over_hand_overs(
    start_both: Any,
) -> None:
    office = Office()
    office.clerk_pay = require_approval(office.clerk_pay.guarded, max_rejections=1)
    office.cfo_llm = ScriptedLLM([call("handoff", to_agent="clerk", reason="yours")])
    office.clerk_llm = ScriptedLLM(
        [
            call("pay", to="Ann", amount=5),
            call("handoff", to_agent="cfo", reason="no"),
            call("pay", to="Ann", amount=5),
        ]
    )
    run: Hand = start_both(office.make)
    await run.decide(Reject())
    with pytest.raises(RejectedTooOften):
        await run.handler
    assert office.paid == []


# --------------------------------------------------------------------------- what is remembered


async def test_memory_and_state_are_as_they_were(start_both: Any) -> None:
    bank = Bank()

    async def remember(ctx: Context, what: str) -> str:
        """Remember something."""
        state = await ctx.store.get("state")
        await ctx.store.set("state", {**state, "what": what})
        return "remembered"

    states: list[Any] = []

    async def pay(ctx: Context, to: str, amount: int) -> str:
        """Pay somebody."""
        states.append(await ctx.store.get("state"))
        return bank.pay(to, amount)

    make = agent(
        [remember, require_approval(pay)],
        [call("remember", "c1", what="x"), call("pay", "c2", to="Alice", amount=1)],
        call("pay", "c3", to="Bob", amount=2),
        "Done.",
        initial_state={"n": 1},
        system_prompt="Be brief.",
    )
    run: Hand = start_both(make)
    await run.decide(Approve())
    await run.decide(Approve())
    assert bank.paid == [("Alice", 1), ("Bob", 2)]
    assert states == [{"n": 1, "what": "x"}] * 2
    assert str(await run.result()) == "Done."
    roles = [message.role.value for message in make.llm.calls[-1]]
    assert roles == ["system", "user", "assistant", "tool", "tool", "assistant", "tool"]
    assert set(results(make.llm.calls[-1])) == {"c1", "c2", "c3"}


async def test_the_same_memory_goes_on_in_the_next_run(start: Any) -> None:
    bank = Bank()
    make = agent(
        [require_approval(bank.pay)],
        call("pay", "c1", to="Alice", amount=1),
        "Paid once.",
        call("pay", "c2", to="Alice", amount=1),
        "Paid twice.",
    )
    memory = ChatMemoryBuffer.from_defaults(token_limit=10_000)
    for text in ("Paid once.", "Paid twice."):
        run: Hand = start(make, memory=memory)
        (request,) = await run.waiting()
        await run.tell(to(request))
        assert str(await run.result()) == text
    assert bank.paid == [("Alice", 1)] * 2
    assert "Paid once." in request.evidence[0].body
    assert set(results(make.llm.calls[-1])) == {"c1", "c2"}


class SlowerAtFirst(ChatMemoryBuffer):
    """A memory of which each read takes less time than the one before."""

    reads: int = 0

    async def aget_all(self) -> Any:
        self.reads += 1
        for _ in range(100 // self.reads):
            await asyncio.sleep(0)
        return await super().aget_all()


async def test_calls_are_asked_about_in_order_however_long_a_memory_takes() -> None:
    calls = [call("pay", name, to=name, amount=1) for name in ("Alice", "Bob", "Cleo")]
    make = agent([require_approval(Bank().pay)], calls, "Done.")
    memory = SlowerAtFirst.from_defaults(token_limit=10_000)
    erin = ScriptedReviewer([Reject()] * 3, by="erin")
    await review_with(make().run(user_msg="Go.", memory=memory), erin)
    assert [arguments(request)["to"] for request in erin.asked] == ["Alice", "Bob", "Cleo"]


async def test_a_tool_that_is_shared_by_agents_and_runs_asks_in_each(start: Any) -> None:
    bank = Bank()
    shared = require_approval(bank.pay)
    runs: list[Hand] = [
        start(agent([shared], call("pay", to=name, amount=n), "Done.", name=name))
        for n, name in enumerate(("Ann", "Ben", "Ann"), 1)
    ]
    requests = [(await run.waiting())[0] for run in runs]
    assert [r.title.split()[0] for r in requests] == ["Ann", "Ben", "Ann"]
    await runs[2].tell(to(requests[2]))
    assert bank.paid == [("Ann", 3)]
    await runs[0].tell(to(requests[0], Reject()))
    await runs[1].tell(to(requests[1]))
    assert bank.paid == [("Ann", 3), ("Ben", 2)]


async def test_two_agents_share_a_script_of_calls_in_parallel_turns(start_both: Any) -> None:
    """One turn after another, each with two calls: nothing of a turn is left for the next."""
    bank = Bank()
    turns: list[list[ToolCall]] = [
        [call("pay", f"{turn}{n}", to=f"P{n}", amount=turn) for n in range(2)] for turn in (1, 2, 3)
    ]
    make = agent([require_approval(bank.pay)], *turns, "Done.")
    run: Hand = start_both(make)
    for turn in (1, 2, 3):
        requests = await run.waiting()
        assert [arguments(r)["amount"] for r in requests] == [turn, turn]
        await run.tell(*[to(r) for r in reversed(requests)])
    assert sorted(bank.paid) == [(f"P{n}", turn) for n in range(2) for turn in (1, 2, 3)]
    assert len(results(make.llm.calls[-1])) == 6
    assert str(await run.result()) == "Done."
