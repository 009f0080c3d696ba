"""Guarded tools behind a ReviewServer, in a file and on DBOS: out of memory before each answer."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from agent_runs import Bank, Service, agent_test
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from runtime_hosts import Served, dbos_server, runs_of, sqlite_server

from llama_index_hitl import Approve, Edit, Reject, ReviewRequestEvent
from llama_index_hitl.agents import require_approval
from llama_index_hitl.testing import ToolCall

pytestmark = agent_test

SERVERS = {"server": sqlite_server, "dbos": dbos_server}


@pytest.fixture(params=SERVERS)
async def start(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """Serve an agent, and start a run of it."""
    async with AsyncExitStack() as stack:

        async def start(make: Any, **start_event: Any) -> Served:
            server = SERVERS[request.param](tmp_path)
            begin = await stack.enter_async_context(runs_of(server, make))
            return await begin(**start_event)

        yield start


def transfer_to(to: str, amount: int = 10) -> ToolCall:
    return ToolCall(name="transfer", arguments={"to": to, "amount": amount}, id=f"to {to}")


async def asked(run: Served) -> dict[str, ReviewRequestEvent]:
    """Return what the run waits for, by the payee."""
    return {event.request.subject.data["to"]: event for event in await run.open()}


async def test_two_rounds_of_parallel_calls(start: Any):
    bank = Bank()
    model = Service(
        [
            [transfer_to("ann"), transfer_to("bob"), transfer_to("cleo")],
            [transfer_to("dora"), transfer_to("emil")],
            "All done.",
        ]
    )

    def make() -> FunctionAgent:
        tools = [bank.balance, require_approval(bank.transfer)]
        return FunctionAgent(name="teller", tools=tools, llm=model.client(), timeout=None)

    run = await start(make, user_msg="Pay them.")
    requests = await asked(run)
    assert set(requests) == {"ann", "bob", "cleo"}
    decisions = {
        "cleo": Approve(),
        "bob": Reject(comment="Not him."),
        "ann": Edit(subject={"to": "ann", "amount": 7}),
    }
    for to, decision in decisions.items():
        assert await run.send(requests[to].answer(decision, by="erin")) == "ok"
        requests |= await asked(run)
    assert sorted(bank.paid) == ["ann 7", "cleo 10"]
    assert set(await asked(run)) == {"dora", "emil"}
    assert await run.send(requests["ann"].answer(Approve(), by="fred")) == "already_answered"
    for to in ("emil", "dora"):
        assert await run.send(requests[to].answer(Approve(), by="erin")) == "ok"
    result = await run.result()
    assert "All done." in str(result)
    assert sorted(bank.paid) == ["ann 7", "cleo 10", "dora 10", "emil 10"]
    assert len(model.asked) == 3
    assert len(model.results) == 5
    assert run.releases >= 5


def handoff_to(agent: str) -> ToolCall:
    return ToolCall(name="handoff", arguments={"to_agent": agent, "reason": "their turn"})


async def test_agents_hand_over_before_and_after_pauses(start: Any):
    bank = Bank()
    model = Service(
        [
            handoff_to("cashier"),
            ToolCall(name="noted", arguments={"to": "ann", "amount": 5}),
            ToolCall(name="noted", arguments={"to": "bob", "amount": 6}, id="bob"),
            handoff_to("front"),
            "Both are paid.",
        ]
    )

    def make() -> AgentWorkflow:
        llm = model.client()
        tools = [require_approval(bank.noted)]
        front = FunctionAgent(name="front", description="talks", tools=[], llm=llm, timeout=None)
        cashier = FunctionAgent(
            name="cashier", description="pays", tools=tools, llm=llm, timeout=None
        )
        return AgentWorkflow(
            agents=[front, cashier], root_agent="front", initial_state={"day": 1}, timeout=None
        )

    run = await start(make, user_msg="Pay ann and bob.", chat_history=[{"content": "I am erin."}])
    for to in ("ann", "bob"):
        (request,) = (await asked(run)).values()
        assert request.request.title == "cashier wants to call noted"
        assert "user: I am erin." in request.request.evidence[0].body
        assert request.request.subject.data["to"] == to
        assert await run.send(request.answer(Approve(), by="erin")) == "ok"
    assert "Both are paid." in str(await run.result())
    assert bank.paid == ["ann 5", "bob 6"]
    assert bank.state == {"day": 1, "ann": 5, "bob": 6}
    said = [str(message.content) for message in model.asked[-1]]
    assert said[0] == "I am erin."
    assert model.results["bob"] == "bob got 6"


async def test_a_react_agent_goes_on_with_what_it_had_thought(start: Any):
    bank = Bank()
    model = Service(
        [
            'Thought: It will do.\nAction: transfer\nAction Input: {"to": "ann", "amount": 3}',
            'Thought: And bob.\nAction: transfer\nAction Input: {"to": "bob", "amount": 4}',
            "Thought: I can answer.\nAnswer: Paid.",
        ]
    )

    def make() -> ReActAgent:
        tools = [require_approval(bank.transfer)]
        return ReActAgent(name="thinker", tools=tools, llm=model.client(), timeout=None)

    run = await start(make, user_msg="Pay both.")
    for to in ("ann", "bob"):
        assert await run.send((await asked(run))[to].answer(Approve(), by="erin")) == "ok"
    assert "Paid." in str(await run.result())
    assert bank.paid == ["ann 3", "bob 4"]
    assert "Observation: ann got 3" in [message.content for message in model.asked[-1]]


async def test_an_agent_that_insists_fails_its_run(start: Any):
    bank = Bank()
    model = Service([transfer_to("ann")] * 2)

    def make() -> FunctionAgent:
        tools = [require_approval(bank.transfer, max_rejections=1)]
        return FunctionAgent(name="teller", tools=tools, llm=model.client(), timeout=None)

    run = await start(make, user_msg="Pay ann.")
    assert await run.send((await asked(run))["ann"].answer(Reject(), by="erin")) == "ok"
    assert await run.ended()
    handler = await run.handler()
    assert handler.status == "failed"
    assert "transfer" in str(handler.error)
    assert bank.paid == []
