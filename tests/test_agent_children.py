"""An agent as a tool of another agent: what the inner one asks is asked by the outer one."""

from collections.abc import Sequence
from typing import Any

import pytest
from durable import runner_on
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
from llama_index.core.base.llms.types import ChatMessage
from nested import Hotel, Trip
from workflows import Context, Workflow

from llama_index_hitl import Answer, Approve, Question, Reject, ask
from llama_index_hitl.agents import agent_tool, require_approval
from llama_index_hitl.children import run_child
from llama_index_hitl.clock import utc_now
from llama_index_hitl.errors import ChildError, ChildNotBridged, IncompatibleSnapshot
from llama_index_hitl.rules import never
from llama_index_hitl.runner import Runner
from llama_index_hitl.snapshots import PausedRun, pause, resume
from llama_index_hitl.stores import MemoryStore, SqlStore
from llama_index_hitl.testing.llm import ScriptedLLM, ToolCall, ToolCalls

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")

paid: list[str] = []


@pytest.fixture(autouse=True)
def nothing_paid() -> None:
    paid.clear()


async def pay(ctx: Context, amount: int) -> str:
    """Pay an amount."""
    said = await ask(ctx, Question(title=f"Pay {amount}?"))
    if not said.approved:
        return "not paid"
    paid.append(f"paid {amount}")
    return f"paid {amount}"


def by_position(*replies: Any) -> Any:
    """Reply by how many replies of the model are in the conversation: the same in any process."""

    def reply(messages: Sequence[ChatMessage]) -> Any:
        return replies[sum(m.role.value == "assistant" for m in messages)]

    return ScriptedLLM(reply=reply)


def clerk() -> FunctionAgent:
    llm = by_position(ToolCall(name="pay", arguments={"amount": 40}), "The clerk has seen to it.")
    return FunctionAgent(
        name="clerk", description="Pays.", tools=[pay], llm=llm, streaming=False, timeout=None
    )


def boss(*calls: ToolCall, inner: Workflow | None = None, cls: Any = FunctionAgent) -> Any:
    inner = inner or clerk()
    name = getattr(inner, "name", "clerk")  # a workflow that is no agent has none
    tool = agent_tool(inner, name=name, description="Sees to bills.")
    handed = calls or (ToolCall(name="clerk", arguments={"task": "Pay 40."}),)
    llm = by_position(ToolCalls(calls=handed), "All is done.")
    agent = FunctionAgent(
        name="boss", description="Leads.", tools=[tool], llm=llm, streaming=False, timeout=None
    )
    return agent if cls is FunctionAgent else AgentWorkflow(agents=[agent], timeout=None)


@pytest.mark.parametrize("cls", [FunctionAgent, AgentWorkflow])
async def test_what_the_inner_agent_asks_is_asked_above_and_both_go_on(cls: Any):
    paused = await pause(boss(cls=cls).run(user_msg="See to the bill."))
    (asked,) = paused.requests
    assert asked.request.title == "Pay 40?"
    assert asked.request.path[0].endswith(".call_tool")
    paused = PausedRun.model_validate_json(paused.model_dump_json())
    yes = Answer.to(asked.request, Approve(), by="alice", at=utc_now())
    handler = resume(boss(cls=cls), paused, [yes])
    result = await handler
    assert str(result) == "All is done."
    assert paid == ["paid 40"]
    memory = await (await handler.ctx.store.get("memory")).aget()
    said = [(m.role.value, m.content) for m in memory]
    assert said[0] == ("user", "See to the bill.")
    assert ("tool", "The clerk has seen to it.") in said


async def test_two_calls_of_the_inner_agent_are_two_requests(tmp_path: Any):
    store = SqlStore(str(tmp_path / "hitl.db"))

    def runner() -> Runner:
        calls = (ToolCall(name="clerk", arguments={"task": t}) for t in ("One.", "Two."))
        return runner_on(store, workflows={"boss": boss(*calls)})

    run = await runner().start("boss", user_msg="See to both bills.")
    records = list(await runner().pending(run_id=run.run_id))
    assert len(records) == 2
    await runner().answer(records[1].request_id, Reject(comment="no"), by="alice")
    await runner().advance(run.run_id)
    assert paid == []
    await runner().answer(records[0].request_id, Approve(), by="alice")
    await runner().advance(run.run_id)
    assert str(await runner().result(run.run_id)) == "All is done."
    assert paid == ["paid 40"]
    await store.close()


async def test_an_agent_within_an_agent_within_an_agent():
    inner = boss()
    outermost = boss(ToolCall(name="boss", arguments={"task": "Lead."}), inner=inner)
    outermost.name = "owner"
    paused = await pause(outermost.run(user_msg="Go."))
    (asked,) = paused.requests
    assert [step.partition(".")[0] for step in asked.request.path] == ["owner", "boss"]
    yes = Answer.to(asked.request, Approve(), by="alice", at=utc_now())
    assert str(await resume(outermost, paused, [yes])) == "All is done."
    assert paid == ["paid 40"]


async def test_a_guarded_tool_of_the_inner_agent_asks_above():
    def wire(amount: int) -> str:
        """Wire an amount."""
        paid.append(f"wired {amount}")
        return f"wired {amount}"

    def made() -> Any:
        llm = by_position(ToolCall(name="wire", arguments={"amount": 40}), "It is wired.")
        tools = [require_approval(wire)]
        return boss(
            inner=FunctionAgent(
                name="clerk", tools=tools, llm=llm, streaming=False, timeout=None, description="x"
            )
        )

    paused = await pause(made().run(user_msg="See to the bill."))
    (asked,) = paused.requests
    assert asked.request.path == ("boss.call_tool",)
    assert paid == []
    yes = Answer.to(asked.request, Approve(), by="alice", at=utc_now())
    assert str(await resume(made(), paused, [yes])) == "All is done."
    assert paid == ["wired 40"]


async def test_without_the_bridge_the_outer_agent_is_told_what_is_wrong():
    async def hand_over(task: str) -> str:
        """Let the clerk do it."""
        return str(await clerk().run(user_msg=task))

    llm = by_position(ToolCall(name="hand_over", arguments={"task": "Pay."}), "That went wrong.")
    agent = FunctionAgent(tools=[hand_over], llm=llm, streaming=False, timeout=None)
    handler = agent.run(user_msg="Go.")
    result = await handler
    (call,) = result.tool_calls
    assert call.tool_output.is_error
    assert isinstance(call.tool_output.exception, ChildNotBridged)
    assert paid == []


async def test_a_changed_inner_agent_fails_the_run_and_not_the_conversation():
    paused = await pause(boss().run(user_msg="See to the bill."))
    (asked,) = paused.requests
    yes = Answer.to(asked.request, Approve(), by="alice", at=utc_now())

    handler = resume(boss(inner=Trip(timeout=None)), paused, [yes])
    with pytest.raises(IncompatibleSnapshot):
        await handler


@pytest.mark.parametrize("guarded", [False, True], ids=["plain", "guarded"])
async def test_promise_10_so_does_a_changed_child_of_a_tool_and_keeps_the_answer(guarded: bool):
    store = MemoryStore()

    def runner(inner: type[Workflow]) -> Runner:
        async def delegate(ctx: Context, city: str) -> str:
            """Let somebody else book."""
            return str(await run_child(ctx, inner(timeout=None), city=city))

        tool = require_approval(delegate, when=never()) if guarded else delegate
        llm = by_position(ToolCall(name="delegate", arguments={"city": "Rome"}), "All is done.")
        agent = FunctionAgent(tools=[tool], llm=llm, streaming=False, timeout=None)
        return runner_on(store, workflows={"boss": agent})

    run = await runner(Hotel).start("boss", user_msg="Book Rome.")
    (asked,) = await runner(Hotel).pending(run_id=run.run_id)
    await runner(Trip).answer(asked.request_id, Approve(), by="alice")
    run = await runner(Trip).advance(run.run_id)
    assert run.status == "failed"
    assert run.error["type"] == IncompatibleSnapshot.__name__
    await runner(Hotel).retry(run.run_id, by="operator")
    result = await runner(Hotel).result(run.run_id)
    assert str(result) == "All is done."
    assert result.tool_calls[0].tool_output.content == "book Rome"


def test_a_tool_needs_a_name_and_a_description():
    with pytest.raises(ChildError, match="name= and description="):
        agent_tool(Trip(timeout=None))
    tool = agent_tool(Trip(timeout=None), name="trip", description="Plans.", takes="city")
    assert tool.metadata.get_name() == "trip"
    assert set(tool.metadata.get_parameters_dict()["properties"]) == {"task"}
