"""Whole runs through the serializer of snapshots: workflows, typed states, agents with memory."""

import gc
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

import aiosqlite
import pytest
from flows import Live, asked, drafts, made, stages, transfers
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ToolCallResult
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import (
    ChatMemoryBuffer,
    ChatSummaryMemoryBuffer,
    FactExtractionMemoryBlock,
    Memory,
    SimpleComposableMemory,
    StaticMemoryBlock,
)
from llama_index.core.prompts import RichPromptTemplate
from llama_index.core.storage.chat_store.sql import SQLAlchemyChatStore
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import create_async_engine
from workflows import Context, Workflow, step
from workflows.context.state_store import DictState
from workflows.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent

from llama_index_hitl import Approve, Approved, Reject
from llama_index_hitl._codec import context_to_dict, serializer_for
from llama_index_hitl._codec.serializer import _serializers
from llama_index_hitl.errors import SnapshotError, UnserializableState
from llama_index_hitl.testing.llm import ScriptedLLM, ToolCall

Start = Callable[..., Live]


@pytest.fixture(autouse=True)
async def _close_stores() -> AsyncIterator[None]:
    """Close what LlamaIndex's store for messages leaves open, before it is noticed elsewhere."""
    yield
    for item in gc.get_objects():
        if isinstance(item, aiosqlite.Connection):
            await item.close()


async def restored(live: Live) -> dict[str, Any]:
    """End the run here and go on with it from its JSON, in a new instance; return the JSON."""
    workflow = live.make()
    stored = json.loads(
        json.dumps(context_to_dict(live.handler.ctx.to_dict, serializer_for(workflow)))
    )
    await live.handler.cancel_run()
    context = Context.from_dict(workflow, stored, serializer=serializer_for(workflow))
    live._begin(workflow.run(ctx=context))
    await live.pause()
    return stored


def refusals(live: Live) -> list[str]:
    """Return why a run cannot be written."""
    with pytest.raises(UnserializableState) as raised:
        context_to_dict(live.handler.ctx.to_dict, serializer_for(live.make()))
    return [str(problem) for problem in raised.value.problems]


class Tone(Enum):
    DRY = 1


class Money(BaseModel):
    amount: Decimal = Decimal(0)
    tags: Any = None


class Ledger(BaseModel):
    total: Money = Field(default_factory=Money)
    tones: set[Tone] = Field(default_factory=set)
    loose: Any = None


# --------------------------------------------------------------------------- workflows


class Ask(Event):
    """Undeclared fields only."""


async def test_a_run_goes_on_with_the_values_that_it_had(start_here: Start):
    money = Money(amount=Decimal("1.10"), tags=("a", {Tone.DRY}))

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Ask:
            await ctx.store.set("money", {Tone.DRY: [money, timedelta(days=1)]})
            return Ask(money=money, path=(1, {"x": {2}}))

        @step
        async def wait(self, ctx: Context, ev: Ask) -> StopEvent:
            await ctx.wait_for_event(HumanResponseEvent, waiter_id="w")
            return StopEvent(result=(await ctx.store.get("money"), ev.money, ev.path))

    live = start_here(made(Flow))
    await live.pause()
    await restored(live)
    await restored(live)
    await live.tell(HumanResponseEvent(response="go"))
    expected = ({Tone.DRY: [money, timedelta(days=1)]}, money, (1, {"x": {2}}))
    assert await live.result() == expected


async def test_a_typed_state_keeps_the_types_of_its_values(start_here: Start):
    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context[Ledger], ev: StartEvent) -> StopEvent:
            async with ctx.store.edit_state() as state:
                state.total = Money(amount=Decimal("0.10"), tags=(1,))
                state.tones = {Tone.DRY}
                state.loose = {"at": (timedelta(1),)}
            await ctx.wait_for_event(HumanResponseEvent, waiter_id="w")
            return StopEvent(result=await ctx.store.get_state())

    live = start_here(made(Flow))
    await live.pause()
    await restored(live)
    await live.tell(HumanResponseEvent())
    assert await live.result() == Ledger(
        total=Money(amount=Decimal("0.10"), tags=(1,)),
        tones={Tone.DRY},
        loose={"at": (timedelta(1),)},
    )


async def test_everything_that_a_run_would_lose_is_told_at_once(start_here: Start):
    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Ask:
            await ctx.store.set("client", {"session": [1, 2, object()]})
            await ctx.store.set("memory", object())
            await ctx.store.set("fine", 1)
            return Ask(lock=len)

        @step
        async def wait(self, ctx: Context, ev: Ask) -> StopEvent:
            ctx.collect_events(ev, [Ask, Ask])
            await ctx.wait_for_event(HumanResponseEvent, waiter_id="w")
            return StopEvent()

    live = start_here(made(Flow))
    await live.pause()
    assert refusals(live) == [
        "state.client.session[2]: a value of type object cannot be stored",
        "state.memory: a value of type object cannot be stored",
        "wait.Ask.lock: a value of type builtin_function_or_method cannot be stored",
    ]


async def test_a_typed_state_is_refused_by_the_name_of_its_field(start_here: Start):
    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context[Ledger], ev: StartEvent) -> StopEvent:
            await ctx.store.set("loose", [Money(tags={"x": object()})])
            await ctx.wait_for_event(HumanResponseEvent, waiter_id="w")
            return StopEvent()

    live = start_here(made(Flow))
    await live.pause()
    assert refusals(live) == ["state.loose[0].tags.x: a value of type object cannot be stored"]


class Mixed(DictState):
    """Upstream writes its undeclared fields only."""

    declared: int = 0


async def test_a_state_of_which_upstream_writes_a_part_only_is_refused(start_here: Start):
    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context[Mixed], ev: StartEvent) -> StopEvent:
            await ctx.store.set("declared", 3)
            await ctx.wait_for_event(HumanResponseEvent, waiter_id="w")
            return StopEvent()

    live = start_here(made(Flow))
    await live.pause()
    assert refusals(live) == ["state: Mixed is a DictState; derive it from pydantic.BaseModel"]


@pytest.mark.parametrize("flow", [drafts, stages, lambda: transfers(3)])
async def test_gates_keep_their_open_requests(start_here: Start, flow: Any):
    live = start_here(flow())
    requests = await live.open()
    count = len(requests)
    while requests:
        await restored(live)
        request = requests.pop()
        requests += asked(await live.tell(request.answer(Approve(), by="erin")))
    assert count
    await live.result()


async def test_an_outcome_that_waits_keeps_its_loosely_typed_proposal(start_here: Start):
    class Flow(drafts()):  # type: ignore[misc]
        @step
        async def publish(self, ctx: Context, ev: Approved) -> StopEvent:
            await ctx.wait_for_event(HumanResponseEvent, waiter_id="w", requirements={"x": 1})
            return StopEvent(result=ev)

    live = start_here(Flow, topic="x")
    (request,) = await live.open()
    await live.tell(request.answer(Approve(), by="erin"))
    await restored(live)
    await live.tell(HumanResponseEvent(x=1))
    outcome = await live.result()
    assert (type(outcome), outcome.subject.text, outcome.request) == (
        Approved,
        "x",
        request.request,
    )


async def test_a_snapshot_of_a_renamed_event_says_which(start_here: Start):
    live = start_here(drafts())
    await live.open()
    stored = context_to_dict(live.handler.ctx.to_dict, serializer_for(live.make()))
    text = json.dumps(stored).replace("workflows.events.InputRequiredEvent", "os.path")
    workflow = live.make()
    with pytest.raises(SnapshotError, match=r"names the type 'os\.path', which the code"):
        Context.from_dict(workflow, json.loads(text), serializer=serializer_for(workflow))


# --------------------------------------------------------------------------- agents

# Raised by LlamaIndex's own agents and by its store for messages.
agent_test = pytest.mark.filterwarnings(
    "ignore::pydantic.warnings.PydanticDeprecationWarning",
    "ignore:is_running called from within a step:DeprecationWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def pay(ctx: Context, to: str) -> str:
    """Pay somebody."""
    answer = await ctx.wait_for_event(
        HumanResponseEvent, waiter_event=InputRequiredEvent(prefix=f"Pay {to}?"), waiter_id="pay"
    )
    return f"{to}: {answer.response}"


class Teller:
    """An agent with a script that goes on over restores, and what it was told."""

    def __init__(self, *, several: bool = False) -> None:
        self.told: list[list[ChatMessage]] = []
        self.several = several
        self._replies = iter(
            [
                ToolCall(name="add", arguments={"a": 1, "b": 2}),
                ToolCall(name="pay", arguments={"to": "ann"}),
                "Paid.",
                "To ann.",
            ]
        )

    def _reply(self, messages: list[ChatMessage]) -> Any:
        self.told.append(messages)
        return next(self._replies)

    def __call__(self) -> Any:
        agent = FunctionAgent(
            name="teller",
            description="pays",
            tools=[add, pay],
            llm=ScriptedLLM(reply=self._reply),
            timeout=None,
        )
        return AgentWorkflow(agents=[agent], timeout=None) if self.several else agent


MEMORIES: dict[str, Callable[[], Any]] = {
    "its own": lambda: None,
    "Memory": lambda: Memory.from_defaults(
        session_id="erin's", token_limit=7_777, token_flush_size=77
    ),
    "Memory with blocks": lambda: Memory.from_defaults(
        session_id="erin's",
        token_limit=7_777,
        memory_blocks=[StaticMemoryBlock(name="house", static_content="Be brief.", priority=1)],
        memory_blocks_template=RichPromptTemplate(
            "{% for (name, content) in memory_blocks %}{{ name }}{% endfor %}"
        ),
    ),
    "ChatMemoryBuffer": lambda: ChatMemoryBuffer.from_defaults(token_limit=7_777),
    "ChatSummaryMemoryBuffer": lambda: ChatSummaryMemoryBuffer.from_defaults(token_limit=7_777),
}


@agent_test
async def test_what_an_agent_that_has_called_tools_came_to_can_be_stored():
    call = ToolCall(name="add", arguments={"a": 1, "b": 2})
    agent = FunctionAgent(tools=[add], llm=ScriptedLLM([call, "3"]), timeout=None)
    output = await agent.run(user_msg="1 + 2?")
    serializer = serializer_for(agent)
    for value in (output, StopEvent(result=output)):
        again = serializer.deserialize(serializer.serialize(value))
        again = again.result if isinstance(again, StopEvent) else again
        assert str(again) == "3"
        # The results that LlamaIndex puts there, although the field declares the calls only.
        (made,) = again.tool_calls
        assert type(made) is ToolCallResult
        assert (made.tool_name, made.tool_kwargs) == ("add", {"a": 1, "b": 2})


@agent_test
@pytest.mark.parametrize("several", [False, True], ids=["FunctionAgent", "AgentWorkflow"])
@pytest.mark.parametrize("kind", MEMORIES)
async def test_an_agent_remembers_the_conversation(start_here: Start, kind: str, several: bool):
    memory, teller = MEMORIES[kind](), Teller(several=several)
    live = start_here(teller, user_msg="Pay ann, please.", **({"memory": memory} if memory else {}))
    await live.pause()
    await restored(live)
    await restored(live)
    await live.tell(HumanResponseEvent(response="done"))
    assert str(await live.result()) == "Paid."
    kept = await live.handler.ctx.store.get("memory")
    texts = ["Pay ann, please.", None, "3", None, "ann: done", "Paid."]
    assert [message.content for message in await kept.aget_all()] == texts
    if memory is not None:
        assert type(kept) is type(memory)
        assert kept.token_limit == memory.token_limit
    if isinstance(memory, Memory):
        assert (kept.session_id, kept.token_flush_size) == ("erin's", memory.token_flush_size)
        assert kept.memory_blocks == memory.memory_blocks
        assert kept.memory_blocks_template == memory.memory_blocks_template
    again = live.handler.ctx
    assert str(await teller().run(user_msg="To whom?", ctx=again)) == "To ann."
    said = [message.content for message in teller.told[-1]]
    assert said[-len(texts) - 1 :] == [*texts, "To whom?"]
    assert said[:-7] == (["house"] if kind == "Memory with blocks" else [])


async def held(memory: Memory, *texts: str) -> Memory:
    for text in texts:
        await memory.aput(ChatMessage(content=text, role="user"))
    return memory


AGENT = serializer_for(drafts()())


@agent_test
async def test_of_a_shared_store_only_the_messages_of_the_session_are_stored():
    store = SQLAlchemyChatStore(table_name="messages")
    mine = await held(Memory.from_defaults(session_id="mine", chat_store=store), "a", "b")
    await held(Memory.from_defaults(session_id="other", chat_store=store), "secret")
    text = AGENT.serialize({"memory": mine})
    assert "secret" not in text
    again = AGENT.deserialize(text)["memory"]
    assert [message.content for message in await again.aget_all()] == ["a", "b"]
    assert again.sql_store.table_name == "messages"
    # One that was read and never used is not empty.
    assert AGENT.serialize({"memory": AGENT.deserialize(text)["memory"]}) == text


@agent_test
async def test_archived_messages_and_loose_values_in_messages_survive():
    memory = Memory.from_defaults(session_id="s", token_limit=100, token_flush_size=10)
    await held(memory, *("word " * 30 + str(number) for number in range(8)))
    await memory.aput(ChatMessage(content="x", additional_kwargs={"__hitl": "set", "n": {"a": 1}}))
    again = AGENT.deserialize(AGENT.serialize(memory))
    everything = await memory.sql_store.get_messages("s", status=None)
    assert await again.sql_store.get_messages("s", status=None) == everything
    active = await memory.sql_store.get_messages("s")
    assert await again.sql_store.get_messages("s") == active
    assert 0 < len(active) < len(everything) == 9


@agent_test
async def test_a_memory_in_a_database_file_comes_back_with_it(tmp_path: Any):
    address = f"sqlite+aiosqlite:///{tmp_path}/messages.db"
    memory = await held(Memory.from_defaults(session_id="s", async_database_uri=address), "a")
    text = AGENT.serialize(memory)
    await held(memory, "b")
    again = AGENT.deserialize(text)
    assert [message.content for message in await again.aget_all()] == ["a", "b"]


class Consent(HumanResponseEvent):
    """What the tool below waits for; no step declares it."""

    word: str
    tone: Tone = Tone.DRY


async def sign(ctx: Context, to: str) -> str:
    """Sign something."""
    await ctx.store.set("tone", [Tone.DRY])
    answer = await ctx.wait_for_event(Consent, waiter_id="sign")
    return answer.word


class Signer:
    async def sign(self, ctx: Context, to: str) -> str:
        """Sign something."""
        return await sign(ctx, to)


@agent_test
@pytest.mark.parametrize("several", [False, True], ids=["FunctionAgent", "AgentWorkflow"])
@pytest.mark.parametrize("tool", [sign, Signer().sign])
async def test_classes_are_found_through_the_tools_of_an_agent(
    start_here: Start, several: bool, tool: Any
):
    replies = iter([ToolCall(name="sign", arguments={"to": "x"}), "Signed."])

    def make() -> Any:
        llm = ScriptedLLM(reply=lambda messages: next(replies))
        agent = FunctionAgent(name="a", description="b", tools=[tool], llm=llm, timeout=None)
        return AgentWorkflow(agents=[agent], timeout=None) if several else agent

    live = start_here(make, user_msg="Sign.")
    await live.pause()
    await restored(live)
    await live.tell(Consent(word="yes"))
    assert str(await live.result()) == "Signed."
    assert await live.handler.ctx.store.get("tone") == [Tone.DRY]


class Clerk(FunctionAgent):
    """An agent is a pydantic model, and no value of a run."""


@agent_test
def test_data_makes_no_agent():
    codec = serializer_for(Clerk(tools=[], llm=ScriptedLLM(["x"])))
    with pytest.raises(SnapshotError, match="Clerk"):
        codec.resolve_class(f"{__name__}.Clerk")


@agent_test
def test_agents_that_are_made_for_each_run_do_not_fill_the_memory():
    def agent(number: int) -> FunctionAgent:
        class Mine(BaseModel):
            kind: int = number

        def tool() -> str:
            """Make one."""
            return str(Mine())

        return FunctionAgent(tools=[tool], llm=ScriptedLLM(["x"]))

    for number in range(50):
        serializer_for(agent(number))
    assert len(_serializers[FunctionAgent]) < 20
    one = agent(1)
    assert serializer_for(one) is serializer_for(one)


async def test_a_run_that_waits_for_an_event_that_nobody_could_find_is_refused(start_here: Start):
    hidden = type("Hidden", (HumanResponseEvent,), {"__module__": "nowhere"})
    events = {"hidden": hidden}

    class Flow(Workflow):
        @step
        async def wait(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(events["hidden"], waiter_id="w")
            return StopEvent()

    live = start_here(made(Flow))
    await live.pause()
    assert refusals(live) == [
        "wait: it waits for nowhere.Hidden, which the code of the workflow does not name"
    ]


class Facts(FactExtractionMemoryBlock):
    """A block that needs a model."""


@agent_test
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Memory.from_defaults(async_database_uri="postgresql+asyncpg://me:pw@host/db"),
            "state.sql_store: the address of its database holds a password, which is not stored",
        ),
        (
            lambda: Memory.from_defaults(
                async_engine=create_async_engine("sqlite+aiosqlite:///x.db")
            ),
            "state.sql_store: its database was given as an engine; give it as async_database_uri",
        ),
        (
            lambda: Memory.from_defaults(memory_blocks=[Facts(llm=ScriptedLLM(["x"]))]),
            "state.memory_blocks[0]: the code of the workflow does not name its class, "
            f"{__name__}.Facts",
        ),
        (
            lambda: Memory.from_defaults(
                memory_blocks_template=RichPromptTemplate("x", function_mappings={"a": len})
            ),
            "state.memory_blocks_template: only a RichPromptTemplate of nothing but text is stored",
        ),
        (
            lambda: ChatSummaryMemoryBuffer.from_defaults(llm=ScriptedLLM(["x"]), token_limit=9),
            "state.llm: the code of the workflow does not name its class, "
            "llama_index_hitl.testing.llm.ScriptedLLM",
        ),
        (
            lambda: SimpleComposableMemory.from_defaults(ChatMemoryBuffer.from_defaults()),
            "state: the code of the workflow does not name its class, "
            "llama_index.core.memory.simple_composable_memory.SimpleComposableMemory",
        ),
    ],
    ids=["password", "engine", "block", "template", "summary", "composable"],
)
def test_a_memory_that_would_come_back_as_another_is_refused(make: Any, message: str):
    assert [str(problem) for problem in AGENT.problems_in(make(), "state")] == [message]


@agent_test
def test_a_block_that_holds_a_model_is_refused_by_the_field():
    memory = Memory.from_defaults(memory_blocks=[Facts(llm=ScriptedLLM(["x"]))])
    codec = AGENT.with_types(Facts)
    assert "memory_blocks[0].llm" in [problem.field for problem in codec.problems_in(memory)]


@agent_test
def test_a_memory_class_of_a_users_own_needs_to_be_named():
    class Mine(ChatMemoryBuffer):
        colour: str = "red"

    memory = Mine(token_limit=9, colour="blue")
    memory.put(ChatMessage(content="x"))
    assert AGENT.problems_in(memory)
    codec = AGENT.with_types(Mine)
    again = codec.deserialize(codec.serialize(memory))
    assert (type(again), again.colour, again.get_all()) == (Mine, "blue", memory.get_all())


@agent_test
@pytest.mark.parametrize(
    "value",
    [
        {},
        {"fields": {"token_limit": 0}, "sql_store": {"table_name": "x"}},
        {"fields": {"token_limit": 9, "sql_store": 1}, "sql_store": {"table_name": "x"}},
        {"fields": [], "sql_store": {}},
        {"fields": {"token_limit": 9}, "sql_store": "x"},
        {"fields": {"token_limit": 9}, "sql_store": {"table_name": "x", "async_engine": 1, "y": 2}},
    ],
)
def test_a_memory_that_was_never_written_is_an_error(value: Any):
    name = "llama_index.core.memory.memory.Memory"
    with pytest.raises(SnapshotError):
        AGENT.deserialize_value({"__hitl": "memory", "qualified_name": name, "value": value})


@agent_test
async def test_a_no_is_a_no_after_a_restore_too(start_here: Start):
    """The tool asks with a gate's own question; the answer counts for it alone."""
    from llama_index_hitl import Question, ask

    paid: list[str] = []

    async def transfer(ctx: Context, to: str) -> str:
        """Pay somebody."""
        if (await ask(ctx, Question(title=f"Pay {to}?"))).approved:
            paid.append(to)
            return "paid"
        return "refused"

    replies = iter([ToolCall(name="transfer", arguments={"to": "ann"}), "As you wish."])

    def agent() -> FunctionAgent:
        llm = ScriptedLLM(reply=lambda messages: next(replies))
        return FunctionAgent(tools=[transfer], llm=llm, timeout=None)

    live = start_here(agent, user_msg="Pay.")
    (request,) = await live.open()
    await restored(live)
    await live.tell(request.answer(Reject(), by="erin"))
    assert (paid, str(await live.result())) == ([], "As you wish.")
