"""The key of an effect, for the code that does it."""

import asyncio

import pytest
from durable import NOON
from workflows import Context, Workflow, step
from workflows.events import StartEvent, StopEvent

from llama_index_hitl import Approve, Question, ask
from llama_index_hitl._upstream import WAITS
from llama_index_hitl.agents import require_approval
from llama_index_hitl.effects import effect_is_repeated, effect_key, once
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import MemoryStore
from llama_index_hitl.stores.protocol import Commit, Effect, RunStatus


def key_in_a_thread() -> str:
    """Tell the key."""
    return effect_key()


async def key_of_an_effect() -> str:
    return effect_key()


class Keys(Workflow):
    @step
    async def tell(self, ctx: Context, ev: StartEvent) -> StopEvent:
        tool = require_approval(key_in_a_thread)
        approved = (await tool.acall(ctx=ctx)).content
        return StopEvent(result=[approved, await once("mine", key_of_an_effect)])


async def test_an_effect_knows_its_key_and_a_guarded_tool_that_of_its_approval() -> None:
    runner = Runner(MemoryStore(), {"keys": Keys(timeout=None)})
    run = await runner.start("keys")
    (record,) = await runner.pending()
    await runner.answer(record.request_id, Approve(), by="erin")
    await runner.advance(run.run_id)
    assert await runner.result(run.run_id) == [record.request_id, "mine"]
    with pytest.raises(LookupError, match="once"):
        effect_key()


async def test_without_a_runner_too() -> None:
    class Mine(Workflow):
        @step
        async def tell(self, ev: StartEvent) -> StopEvent:
            inner = await once("outer", lambda: once("inner", key_of_an_effect))
            return StopEvent(result=[inner, await once("outer:2", key_of_an_effect)])

    assert await Mine(timeout=None).run() == ["inner", "outer:2"]


class Refused(Exception):
    """What is raised where nothing has happened."""


class Payment(Workflow):
    """Repeats what is in doubt, and remembers whether it was told that it is a repetition."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__(timeout=None)
        self.errors = list(errors)
        self.told: list[bool] = []

    @step
    async def pay(self, ev: StartEvent) -> StopEvent:
        return StopEvent(
            result=await once("pay", self.effect, on_doubt="repeat", not_done=(Refused,))
        )

    def effect(self) -> str:
        self.told.append(effect_is_repeated())
        if self.errors:
            raise self.errors.pop()
        return "paid"


async def test_a_repetition_is_one_as_long_as_nobody_knows_what_it_repeats() -> None:
    store, flow = MemoryStore(), Payment(Refused())
    begun = Effect(key="pay", run_id="run", status="begun", owner="dead", at=NOON)
    await store.commit(Commit(effects=(begun,)))
    runner = Runner(store, {"pay": flow})
    assert (await runner.start("pay", run_id="run")).status is RunStatus.FAILED
    # Refused was the repetition; whether the first attempt has happened is as open as before.
    assert [effect.key for effect in await runner.effects_in_doubt()] == ["pay"]
    await runner.retry("run", by="operator")
    assert await runner.result("run") == "paid"
    assert flow.told == [True, True]


async def test_what_was_not_done_or_was_settled_is_not_repeated() -> None:
    flow = Payment(Refused(), OSError(), Refused())
    runner = Runner(MemoryStore(), {"pay": flow})
    await runner.start("pay", run_id="run")
    await runner.retry("run", by="operator")
    await runner.settle("pay", by="operator", happened=False)
    await runner.retry("run", by="operator")
    await runner.retry("run", by="operator")
    assert await runner.result("run") == "paid"
    assert flow.told == [False] * 4
    with pytest.raises(LookupError, match="once"):
        effect_is_repeated()


async def test_whoever_gives_up_waiting_does_not_have_it_done_twice() -> None:
    begun, go_on, done = asyncio.Event(), asyncio.Event(), []

    async def effect() -> int:
        begun.set()
        await go_on.wait()
        done.append("done")
        return len(done)

    class Impatient(Workflow):
        @step
        async def tell(self, ev: StartEvent) -> StopEvent:
            waiting = asyncio.create_task(once("mine", effect))
            await begun.wait()
            waiting.cancel()
            await asyncio.wait([waiting])
            go_on.set()
            return StopEvent(result=await once("mine", effect))

    assert await Impatient(timeout=None).run() == 1
    assert done == ["done"]


async def test_what_is_asked_within_an_effect_does_not_answer_for_what_is_asked_beside_it() -> None:
    said: list[tuple[str, str | None]] = []

    class Two(Workflow):
        @step
        async def tell(self, ctx: Context, ev: StartEvent) -> StopEvent:
            async def asked(name: str) -> str:
                answer = (await ask(ctx, Question(title="Well?"))).answer
                said.append((name, answer.comment))
                return name

            first = await once("first", lambda: asked("first"), not_done=(WAITS,))
            second = await once("second", lambda: asked("second"), not_done=(WAITS,))
            return StopEvent(result=[first, second])

    runner = Runner(MemoryStore(), {"two": Two(timeout=None)})
    run = await runner.start("two")
    for comment in ("one", "two"):
        (record,) = await runner.pending()
        await runner.answer(record.request_id, Approve(comment=comment), by="erin")
        await runner.advance(run.run_id)
    assert said == [("first", "one"), ("second", "two")]
    assert await runner.result(run.run_id) == ["first", "second"]


async def test_a_call_that_was_cut_off_and_now_fails_is_said_to_be_in_doubt() -> None:
    def pay() -> str:
        """Pay."""
        raise ValueError("insufficient funds")

    class Paying(Workflow):
        @step
        async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
            tool = require_approval(pay, on_doubt="repeat")
            return StopEvent(result=(await tool.acall(ctx=ctx)).content)

    store = MemoryStore()
    runner = Runner(store, {"paying": Paying(timeout=None)})
    told = []
    for cut_off in (False, True):
        run = await runner.start("paying")
        (record,) = await runner.pending(run_id=run.run_id)
        if cut_off:
            begun = Effect(
                key=record.request_id, run_id=run.run_id, status="begun", owner="dead", at=NOON
            )
            await store.commit(Commit(effects=(begun,)))
        await runner.answer(record.request_id, Approve(), by="erin")
        await runner.advance(run.run_id)
        told.append(await runner.result(run.run_id))
    in_doubt = "pay was interrupted before and may have been done then. Now: insufficient funds"
    assert told == ["insufficient funds", in_doubt]
