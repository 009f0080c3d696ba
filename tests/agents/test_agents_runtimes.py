"""Guarded tools behind a ReviewServer, in a file and on DBOS: out of memory before each answer."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pytest
from agent_runs import Bank, Service, agent_test
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from pydantic import BaseModel, field_validator
from runtime_hosts import Served, dbos_server, runs_of, serving, sqlite_server

from llama_index_hitl import Approve, Edit, Reject, Respond, ReviewRequestEvent
from llama_index_hitl.agents import human_tool, require_approval
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


class Purpose(BaseModel):
    """What a payment is for."""

    kind: Literal["rent", "gift"]
    due: date

    @field_validator("due")
    @classmethod
    def _on_the_first(cls, due: date) -> date:
        if due.day != 1:
            raise ValueError("payments are due on the first of a month")
        return due


PURPOSE = Respond(response={"kind": "gift", "due": "2030-02-01"})


async def asked(run: Served) -> dict[str, ReviewRequestEvent]:
    """Return what the run waits for, by the payee; a question by what is asked."""
    return {
        request.body if request.subject is None else request.subject.data["to"]: event
        for event in await run.open()
        for request in [event.request]
    }


def ask_for(question: str) -> ToolCall:
    return ToolCall(name="ask_purpose", arguments={"question": question}, id=question)


async def test_two_rounds_of_parallel_calls(start: Any):
    bank = Bank()
    model = Service(
        [
            [transfer_to("ann"), transfer_to("bob"), transfer_to("cleo")],
            [transfer_to("dora"), transfer_to("emil"), ask_for("Emil's?")],
            "All done.",
        ]
    )

    def make() -> FunctionAgent:
        tools = [
            bank.balance,
            require_approval(bank.transfer),
            human_tool(name="ask_purpose", response=Purpose),
        ]
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
    assert set(await asked(run)) == {"dora", "emil", "Emil's?"}
    assert await run.send(requests["ann"].answer(Approve(), by="fred")) == "already_answered"
    question = requests["Emil's?"]
    wrong = Respond(response={"kind": "gift", "due": "2030-02-02"})  # only the model knows that
    assert await run.send(question.answer(wrong, by="erin")) == "invalid_answer"
    decisions = {"emil": Approve(), "Emil's?": PURPOSE, "dora": Approve()}
    for what, decision in decisions.items():
        assert await run.send(requests[what].answer(decision, by="erin")) == "ok"
    result = await run.result()
    assert "All done." in str(result)
    assert sorted(bank.paid) == ["ann 7", "cleo 10", "dora 10", "emil 10"]
    assert len(model.asked) == 3
    assert model.asked[-1][0].content == "Pay them."
    assert len(model.results) == 6
    assert json.loads(model.results["Emil's?"]) == PURPOSE.response
    assert run.releases >= 6


def handoff_to(agent: str) -> ToolCall:
    return ToolCall(name="handoff", arguments={"to_agent": agent, "reason": "their turn"})


async def test_agents_hand_over_before_and_after_pauses(start: Any):
    bank = Bank()
    model = Service(
        [
            handoff_to("cashier"),
            ToolCall(name="noted", arguments={"to": "ann", "amount": 5}),
            ask_for("What is bob's for?"),
            ToolCall(name="noted", arguments={"to": "bob", "amount": 6}, id="bob"),
            handoff_to("front"),
            "Both are paid.",
        ]
    )

    def make() -> AgentWorkflow:
        llm = model.client()
        tools = [
            require_approval(bank.noted, conversation=20),
            human_tool(name="ask_purpose", response=Purpose),
        ]
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
        if to == "bob":
            assert request.request.title == "cashier asks: What is bob's for?"
            assert await run.send(request.answer(PURPOSE, by="erin")) == "ok"
            (request,) = (await asked(run)).values()
            assert "2030-02-01" in request.request.evidence[0].body
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


class Odd:
    """Nothing that JSON can carry."""

    def __str__(self) -> str:
        return "something odd"


async def test_a_tool_may_return_what_json_cannot_carry(start: Any):
    bank = Bank()
    model = Service([ToolCall(name="look", id="look"), transfer_to("ann"), "Done."])

    def look() -> Odd:
        """Look at it."""
        return Odd()

    def make() -> FunctionAgent:
        tools = [look, require_approval(bank.transfer)]
        return FunctionAgent(name="teller", tools=tools, llm=model.client(), timeout=None)

    run = await start(make, user_msg="Look, and pay ann.")
    assert await run.send((await asked(run))["ann"].answer(Approve(), by="erin")) == "ok"
    assert "Done." in str(await run.result())
    assert model.results == {"look": "something odd", "to ann": "ann got 10"}


def in_a_process(*arguments: str) -> list[str]:
    """Serve the agent in a process that dies, and return its last words."""
    script = str(Path(__file__).parent.with_name("agent_process.py"))
    done = subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 9, done.stdout + done.stderr
    return done.stdout.strip().splitlines()[-1].split(" ", 1)


@pytest.mark.timeout(120)  # two processes, each of which imports everything
def test_an_agent_on_dbos_goes_on_in_another_process(tmp_path: Path):
    handler_id, to = in_a_process(str(tmp_path))
    assert to == "ann"
    _, result = in_a_process(str(tmp_path), handler_id)
    assert "Pay them. / ann got 5 / bob got 5" in result
    assert (tmp_path / "paid.txt").read_text().splitlines() == ["ann 5", "bob 5"]
    assert (tmp_path / "asked.txt").read_text().splitlines() == ["asked"] * 3


async def test_an_agent_goes_on_with_another_server(tmp_path: Path):
    bank, model = Bank(), Service([transfer_to("ann"), transfer_to("bob"), "Both."])
    handler_id = ""
    for to in ("ann", "bob"):
        server = sqlite_server(tmp_path)
        tools = [require_approval(bank.transfer)]
        agent = FunctionAgent(name="teller", tools=tools, llm=model.client(), timeout=None)
        server.add_workflow("teller", agent)
        async with serving(server) as client:
            if not handler_id:
                body = {"start_event": {"user_msg": "Pay them."}}
                started = await client.post("/workflows/teller/run-nowait", json=body)
                handler_id = started.json()["handler_id"]
            run = Served(server, client, handler_id)
            assert await run.send((await asked(run))[to].answer(Approve(), by="erin")) == "ok"
            if await run.ended():
                assert "Both." in str(await run.result())
    assert bank.paid == ["ann 10", "bob 10"]
    said = [message.content for message in model.asked[-1]]
    assert said == ["Pay them.", None, "ann got 10", None, "bob got 10"]
