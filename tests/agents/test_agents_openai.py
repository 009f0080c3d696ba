"""Guarded tools with the real OpenAI clients, against a server on this machine.

The client, the agent and the runner are new after each pause, as in a new process.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_runs import Bank, Office, agent_test
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
from llama_index.llms.openai import OpenAI, OpenAIResponses
from openai_server import MODEL, Call, Failure, OpenAIServer

from llama_index_hitl import Approve, Edit, Reject, Respond
from llama_index_hitl.agents import require_approval
from llama_index_hitl.stores import SqlStore
from llama_index_hitl.stores.protocol import RunStatus

pytestmark = agent_test

CLIENTS = {"chat": OpenAI, "responses": OpenAIResponses}
NOT_MADE = "The call of transfer was rejected by a person and was NOT made. Reason: Not him.\n"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    # A proxy in the environment would otherwise take the traffic off this machine.
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.fixture
def serve() -> Iterator[Callable[..., OpenAIServer]]:
    """Serve replies."""
    servers: list[OpenAIServer] = []

    def serve(*replies: Any) -> OpenAIServer:
        servers.append(OpenAIServer(replies).__enter__())
        return servers[-1]

    yield serve
    for server in servers:
        server.__exit__(None, None, None)


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    store = SqlStore(tmp_path / "hitl.db")
    yield store
    await store.close()


def client_of(kind: str, server: OpenAIServer) -> Any:
    return CLIENTS[kind](model=MODEL, api_key="test", api_base=server.base_url, max_retries=0)


def office_of(
    store: Any, bank: Bank, server: OpenAIServer, kind: str, *, several: bool = False, **agent: Any
) -> Office:
    """Return an office whose agents have a new client in each process."""

    def make(_: Any) -> dict[str, Any]:
        llm = client_of(kind, server)
        teller = FunctionAgent(
            name="teller",
            description="pays",
            tools=[bank.balance, require_approval(bank.transfer)],
            llm=llm,
            timeout=None,
            **agent,
        )
        front = FunctionAgent(name="front", description="talks", tools=[], llm=llm, timeout=None)
        both = AgentWorkflow(agents=[front, teller], root_agent="front", timeout=None)
        return {"teller": both if several else teller}

    return Office(store, [], make)


def results_in(body: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the results of tools that the server was sent, by the id of the call."""
    if "messages" in body:
        found = [m for m in body["messages"] if m["role"] == "tool"]
        return [(m["tool_call_id"], m["content"]) for m in found]
    found = [item for item in body["input"] if item.get("type") == "function_call_output"]
    return [(item["call_id"], item["output"]) for item in found]


def calls_in(body: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the calls that the server was told it has made, by their id."""
    if "messages" in body:
        made = [call for m in body["messages"] for call in m.get("tool_calls") or ()]
        return [(call["id"], json.loads(call["function"]["arguments"])) for call in made]
    made = [item for item in body["input"] if item.get("type") == "function_call"]
    return [(item["call_id"], json.loads(item["arguments"])) for item in made]


def pay(to: str, amount: int = 10) -> Call:
    return Call("transfer", {"to": to, "amount": amount}, id=f"call_{to}")


@pytest.mark.parametrize("streaming", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("kind", CLIENTS)
async def test_each_call_has_one_result(
    store: Any, serve: Callable[..., OpenAIServer], kind: str, streaming: bool
):
    server = serve(
        [Call("balance", id="call_balance")],
        [pay("ann")],
        [pay(to) for to in ("bob", "cleo", "dora", "emil")],
        "All done.",
    )
    bank = Bank()
    office = office_of(store, bank, server, kind, streaming=streaming)
    run = await office.start("teller", user_msg="Pay them.")
    await office.answer((await office.open(run.run_id))["ann"], Approve())
    run = await office.advance(run.run_id)
    requests = await office.open(run.run_id)
    decisions = {
        "emil": Respond(response={"result": "Paid in cash."}),
        "cleo": Edit(subject={"to": "cleo", "amount": 7}),
        "bob": Reject(comment="Not him."),
        "dora": Approve(),
    }
    assert set(requests) == set(decisions)
    for to, decision in decisions.items():
        assert len(server.requests) == 3
        await office.answer(requests[to], decision)
        run = await office.advance(run.run_id)
    assert run.status is RunStatus.FINISHED, run.error
    assert str(await office.result(run.run_id)) == "All done."
    assert sorted(bank.paid) == ["ann 10", "cleo 7", "dora 10"]
    *_, third, last = [request.body or {} for request in server.requests]
    assert [body["stream"] for body in (third, last)] == [streaming] * 2
    assert results_in(third) == [("call_balance", "1000"), ("call_ann", "ann got 10")]
    results = results_in(last)
    assert results[:2] == results_in(third)
    found = dict(results[2:])
    assert (len(results), len(found)) == (6, 4)
    assert found.pop("call_bob").startswith(NOT_MADE)
    assert found == {
        "call_cleo": "A person changed the arguments before the call (amount: 10 -> 7). "
        "Result of that call:\ncleo got 7",
        "call_dora": "dora got 10",
        "call_emil": "Paid in cash.",
    }
    # What the model had called is told to it unchanged, and each call once.
    assert calls_in(last) == [
        ("call_balance", {}),
        *(
            (f"call_{to}", {"to": to, "amount": 10})
            for to in ("ann", "bob", "cleo", "dora", "emil")
        ),
    ]


@pytest.mark.parametrize("kind", CLIENTS)
async def test_the_model_sees_the_tool_as_it_is(
    store: Any, serve: Callable[..., OpenAIServer], kind: str
):
    """A guarded tool is described by its own name, text and arguments; its context is none."""
    server = serve("Hello.")
    office = office_of(store, Bank(), server, kind)
    await office.start("teller", user_msg="Hello.")
    (request,) = server.requests
    tools = [tool.get("function", tool) for tool in (request.body or {})["tools"]]
    (tool,) = [tool for tool in tools if tool["name"] == "transfer"]
    assert tool["description"].endswith("Pay somebody.")
    assert sorted(tool["parameters"]["properties"]) == ["amount", "to"]


async def test_agents_hand_over_and_pause(store: Any, serve: Callable[..., OpenAIServer]):
    to_teller = Call("handoff", {"to_agent": "teller", "reason": "pay"}, id="call_handoff")
    server = serve([to_teller], [pay("ann"), pay("bob")], "Done.")
    bank = Bank()
    office = office_of(store, bank, server, "chat", several=True)
    run = await office.start("teller", user_msg="Pay them.")
    requests = await office.open(run.run_id)
    assert {r.request.title for r in requests.values()} == {"teller wants to call transfer"}
    for to in ("bob", "ann"):
        await office.answer(requests[to], Approve())
        run = await office.advance(run.run_id)
    assert (await office.result(run.run_id)).current_agent_name == "teller"
    results = results_in(server.requests[-1].body or {})
    assert sorted(results[1:]) == [("call_ann", "ann got 10"), ("call_bob", "bob got 10")]
    assert results[0][0] == "call_handoff"


async def test_a_model_that_fails_after_the_approval_pays_once(
    store: Any, serve: Callable[..., OpenAIServer]
):
    server = serve([pay("ann")], Failure(500), "Paid.")
    bank = Bank()
    office = office_of(store, bank, server, "chat")
    run = await office.start("teller", user_msg="Pay ann.")
    await office.answer((await office.open(run.run_id))["ann"], Approve())
    run = await office.advance(run.run_id)
    assert (run.status, bank.paid) == (RunStatus.FAILED, ["ann 10"])
    run = await office.runner().retry(run.run_id, by="operator")
    assert str(await office.result(run.run_id)) == "Paid."
    assert bank.paid == ["ann 10"]
    assert results_in(server.requests[-1].body or {}) == [("call_ann", "ann got 10")]
