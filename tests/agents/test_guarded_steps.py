"""Guarded tools that a step of one's own calls, with and without questions of its own."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from agents_in_hand import Hand, agent_tests, arguments, to
from llama_index.core.tools import FunctionTool
from llama_index.core.tools.types import ToolOutput
from pydantic import BaseModel, Field
from workflows import Context, Workflow, step
from workflows.events import HumanResponseEvent, StartEvent, StopEvent

from llama_index_hitl import Approve, Question, Reject, Respond, ReviewUpdatedEvent, ask
from llama_index_hitl.agents import GuardedTool, agent_tool, require_approval
from llama_index_hitl.children import run_child
from llama_index_hitl.errors import ToolError
from llama_index_hitl.rules import always, never
from llama_index_hitl.snapshots import resume

pytestmark = agent_tests

Body = Callable[[Context], Awaitable[Any]]


class Bank:
    """An account with payments; `paid` says what has happened."""

    def __init__(self, **guard: Any) -> None:
        self.paid: list[Any] = []
        self.tool: GuardedTool = require_approval(self.pay, **guard)

    def pay(self, to: str, amount: int = 1) -> str:
        """Pay somebody."""
        self.paid.append((to, amount))
        return f"paid {amount} to {to} ({len(self.paid)})"


def workflow(body: Body) -> Callable[[], Workflow]:
    """Return what makes a workflow of one step that does this."""

    class One(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await body(ctx))

    return lambda: One(timeout=None, workflow_name="One")


async def test_one_call_after_another_each_done_once(start_both: Any) -> None:
    bank = Bank()

    async def body(ctx: Context) -> list[str]:
        outputs = [await bank.tool.acall(ctx=ctx, to=name) for name in ("Ann", "Ben", "Cem")]
        return [output.content for output in outputs]

    run: Hand = start_both(workflow(body))
    for name in ("Ann", "Ben", "Cem"):
        (request,) = await run.waiting()
        assert arguments(request) == {"to": name, "amount": 1}
        assert request.title == "One wants to call pay"
        assert request.evidence == ()
        await run.tell(to(request))
    assert [name for name, _ in bank.paid] == ["Ann", "Ben", "Cem"]
    assert await run.result() == ["paid 1 to Ann (1)", "paid 1 to Ben (2)", "paid 1 to Cem (3)"]


async def test_identical_calls_one_after_another_are_two_calls(start_both: Any) -> None:
    bank = Bank()

    async def body(ctx: Context) -> list[bool]:
        return [(await bank.tool.acall(ctx=ctx, to="Ann")).is_error for _ in range(3)]

    run: Hand = start_both(workflow(body))
    await run.decide(Approve())
    await run.decide(Reject())
    await run.decide(Approve())
    assert await run.result() == [False, True, False]
    assert len(bank.paid) == 2


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
async def test_calls_at_the_same_time_are_answered_in_any_order(
    order: tuple[int, ...], start_both: Any
) -> None:
    bank = Bank()
    names = ["Ann", "Ben", "Cem"]

    async def body(ctx: Context) -> list[str]:
        outputs = await asyncio.gather(*(bank.tool.acall(ctx=ctx, to=name) for name in names))
        return [output.content for output in outputs]

    run: Hand = start_both(workflow(body))
    for number in order:
        # Upstream keeps one wait of a step that gives up at the first, so one is open at a time
        # or all are: each that is open can be answered.
        found = [r for r in await run.waiting() if arguments(r)["to"] == names[number]]
        if found:
            await run.tell(to(found[0]))
    while open_requests := await run.waiting():
        await run.tell(to(open_requests[0]))
    assert sorted(name for name, _ in bank.paid) == names
    assert [text.split(" (")[0] for text in await run.result()] == [
        f"paid 1 to {name}" for name in names
    ]


async def test_identical_calls_at_the_same_time_are_two_calls(start_both: Any) -> None:
    bank = Bank()

    async def body(ctx: Context) -> list[bool]:
        calls = [bank.tool.acall(ctx=ctx, to="Ann") for _ in range(2)]
        return [output.is_error for output in await asyncio.gather(*calls)]

    run: Hand = start_both(workflow(body))
    decisions = iter([Approve(), Reject()])
    while open_requests := await run.waiting():
        await run.tell(to(open_requests[0], next(decisions)))
    assert sorted(await run.result()) == [False, True]
    assert len(bank.paid) == 1


@pytest.mark.parametrize("first", ["question", "call"])
async def test_a_question_beside_a_call_that_a_rule_lets(first: str, start_both: Any) -> None:
    bank = Bank(when=never())

    async def body(ctx: Context) -> list[str]:
        question, made = ask(ctx, Question(title="Well?")), bank.tool.acall(ctx=ctx, to="Ann")
        pair = (question, made) if first == "question" else (made, question)
        return [type(result).__name__ for result in await asyncio.gather(*pair)]

    run: Hand = start_both(workflow(body))
    await run.decide(Approve())
    assert sorted(await run.result()) == ["Resolution", "ToolOutput"]
    assert bank.paid == [("Ann", 1)]


async def test_questions_of_the_step_before_and_after_a_call(start_both: Any) -> None:
    bank = Bank()

    async def body(ctx: Context) -> tuple[bool, str, bool]:
        before = await ask(ctx, Question(title="Begin?"))
        output = await bank.tool.acall(ctx=ctx, to="Ann")
        after = await ask(ctx, Question(title="All well?"))
        return before.approved, output.content, after.approved

    run: Hand = start_both(workflow(body))
    titles = []
    while open_requests := await run.waiting():
        (request,) = open_requests
        titles.append(request.title)
        await run.tell(to(request))
    assert titles == ["Begin?", "One wants to call pay", "All well?"]
    assert await run.result() == (True, "paid 1 to Ann (1)", True)
    assert bank.paid == [("Ann", 1)]


async def test_a_call_that_a_rule_lets_is_not_made_again_when_the_step_waits(
    start_both: Any,
) -> None:
    bank = Bank(when=never())

    async def body(ctx: Context) -> str:
        output = await bank.tool.acall(ctx=ctx, to="Ann")
        await ask(ctx, Question(title="Go on?"))
        await ask(ctx, Question(title="Go on still?"))
        return output.content

    run: Hand = start_both(workflow(body))
    assert bank.paid == []
    await run.waiting()
    assert bank.paid == [("Ann", 1)]
    await run.decide(Approve())
    await run.decide(Approve())
    assert bank.paid == [("Ann", 1)]
    assert await run.result() == "paid 1 to Ann (1)"


async def test_a_tool_that_asks_a_question_itself(start_both: Any) -> None:
    """The tool runs again from its first line, as a step does; its call stays approved."""
    begun, paid = [], []

    async def pay(ctx: Context, to: str) -> str:
        """Pay somebody."""
        begun.append(to)
        resolution = await ask(ctx, Question(title="By which account?"))
        paid.append((to, resolution.answer.comment))
        return f"paid {to}"

    tool = require_approval(pay)

    async def body(ctx: Context) -> str:
        return (await tool.acall(ctx=ctx, to="Ann")).content

    run: Hand = start_both(workflow(body))
    await run.decide(Approve())
    (question,) = await run.waiting()
    assert (question.title, paid) == ("By which account?", [])
    await run.tell(to(question, Approve(comment="giro")))
    assert paid == [("Ann", "giro")]
    assert await run.result() == "paid Ann"


async def test_a_call_that_a_rule_lets_is_told_about_once(start_both: Any) -> None:
    async def pay(ctx: Context, to: str) -> str:
        """Pay somebody."""
        await ask(ctx, Question(title="By which account?"))
        await ask(ctx, Question(title="Really?"))
        return f"paid {to}"

    tool = require_approval(pay, when=never())

    async def body(ctx: Context) -> str:
        return (await tool.acall(ctx=ctx, to="Ann")).content

    run: Hand = start_both(workflow(body))
    await run.decide(Approve())
    await run.decide(Approve())
    assert await run.result() == "paid Ann"
    updates = [event.record.answers[0].by.kind for event in run.of_kind(ReviewUpdatedEvent)]
    assert updates == ["rule", "human", "human"]


async def test_a_call_beside_a_tool_that_waits_by_itself_is_made_once() -> None:
    """Restored, nobody in the process remembers that it was begun."""
    paid: list[str] = []

    async def wait(ctx: Context) -> str:
        """Wait."""
        said = await ctx.wait_for_event(HumanResponseEvent, waiter_id="x", timeout=None)
        return str(said.response)

    async def pay(to: str) -> str:
        """Pay somebody."""
        for _ in range(20):
            await asyncio.sleep(0)
        paid.append(to)
        return f"paid {to}"

    tools = [require_approval(tool, when=never()) for tool in (wait, pay)]

    async def body(ctx: Context) -> list[str]:
        calls = tools[0].acall(ctx=ctx), tools[1].acall(ctx=ctx, to="Ann")
        return [output.content for output in await asyncio.gather(*calls)]

    run = Hand(workflow(body), restoring=True)
    paused = await run.paused()
    assert paid == ["Ann"]
    answer = to(paused.requests[0].request, Respond(response="ok"))
    run.handler = resume(run.make(), paused, [answer])
    await run.waiting()
    assert paid == ["Ann"]
    assert await run.result() == ["ok", "paid Ann"]


async def test_a_run_within_the_step_beside_a_call() -> None:
    """Whichever waits, the other one comes to its end first, and is not begun again."""
    done: list[str] = []

    async def slowly(what: str) -> str:
        """Do something."""
        for _ in range(50):
            await asyncio.sleep(0)
        done.append(what)
        return f"done {what}"

    class Child(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            if ev.get("asks"):
                await ask(ctx, Question(title="Well?"))
            return StopEvent(result=await slowly("child"))

    for asks in (True, False):
        done.clear()
        tool = require_approval(slowly, when=never() if asks else None)

        async def body(ctx: Context, tool: Any = tool, asks: bool = asks) -> list[str]:
            child = run_child(ctx, Child(timeout=None), asks=asks)
            call = tool.acall(ctx=ctx, what="tool")
            results = await asyncio.gather(*((child, call) if asks else (call, child)))
            return [str(result) for result in results]

        run = Hand(workflow(body), restoring=True)
        (request,) = await run.waiting()
        assert done == (["tool"] if asks else ["child"])
        await run.tell(to(request))
        assert sorted(done) == ["child", "tool"]
        assert sorted(await run.result()) == ["done child", "done tool"]


async def test_a_tool_under_two_guards_asks_twice(start_both: Any) -> None:
    bank = Bank(reviewers=["inner"])
    tool = require_approval(bank.tool, reviewers=["outer"])

    async def body(ctx: Context) -> str:
        return (await tool.acall(ctx=ctx, to="Ann")).content

    run: Hand = start_both(workflow(body))
    await run.decide(Approve(), by="outer")
    assert bank.paid == []
    (second,) = await run.waiting()
    assert second.policy.reviewers == ("inner",)
    await run.tell(to(second, by="inner"))
    assert bank.paid == [("Ann", 1)]
    assert await run.result() == "paid 1 to Ann (1)"


async def test_a_step_sees_what_goes_wrong(start: Any) -> None:
    bank = Bank(title=lambda args: args.missing)

    async def body(ctx: Context) -> str:
        try:
            await bank.tool.acall(ctx=ctx, to="Ann")
        except ToolError as error:
            return str(error)
        return "nothing"

    run: Hand = start(workflow(body))
    assert "title= of the guarded tool pay raised AttributeError" in await run.result()
    assert bank.paid == []


async def test_a_typed_state_has_room_for_guarded_tools(start_both: Any) -> None:
    class Counter(BaseModel):
        n: int = 0

    bank = Bank()

    class Typed(Workflow):
        @step
        async def go(self, ctx: Context[Counter], ev: StartEvent) -> StopEvent:
            output = await bank.tool.acall(ctx=ctx, to="Ann")
            async with ctx.store.edit_state() as state:
                state.n += 1
                return StopEvent(result=(output.content, state.n))

    run: Hand = start_both(lambda: Typed(timeout=None))
    await run.decide(Approve())
    assert await run.result() == ("paid 1 to Ann (1)", 1)


async def test_rejections_in_a_step_are_the_steps_own_business(start: Any) -> None:
    bank = Bank(when=always("reject"), max_rejections=1)

    async def body(ctx: Context) -> list[ToolOutput]:
        return [await bank.tool.acall(ctx=ctx, to="Ann") for _ in range(3)]

    run: Hand = start(workflow(body))
    assert [output.is_error for output in await run.result()] == [True] * 3
    assert bank.paid == []


async def test_arguments_of_python_types(start_both: Any) -> None:
    class Order(BaseModel):
        item: str
        count: int

    got: list[Any] = []

    def order(what: Order, notes: tuple[str, ...] = ()) -> str:
        """Order something."""
        got.append((what, notes))
        return "ordered"

    tool = require_approval(order)

    async def body(ctx: Context) -> str:
        output = await tool.acall(ctx=ctx, what=Order(item="pen", count=2), notes=("a", "b"))
        return output.content

    run: Hand = start_both(workflow(body))
    (request,) = await run.waiting()
    assert arguments(request) == {"what": {"item": "pen", "count": 2}, "notes": ["a", "b"]}
    await run.tell(to(request))
    assert got == [(Order(item="pen", count=2), ("a", "b"))]


async def test_arguments_by_their_names_in_python(start_both: Any) -> None:
    class Args(BaseModel):
        user_id: int = Field(alias="userId")

    got: list[Any] = []

    def ban(**given: Any) -> str:
        """Ban somebody."""
        got.append(given)
        return "banned"

    tool = require_approval(FunctionTool.from_defaults(ban, fn_schema=Args))

    async def body(ctx: Context) -> str:
        return (await tool.acall(ctx=ctx, user_id=7)).content

    run: Hand = start_both(workflow(body))
    (request,) = await run.waiting()
    assert arguments(request) == {"userId": 7}
    await run.tell(to(request))
    assert got == [{"userId": 7}]


async def test_a_schema_that_changes_while_a_call_waits_is_noticed(start: Any) -> None:
    tools = []

    def pay(to: str) -> str:
        """Pay somebody."""
        raise AssertionError("must not run")

    first = require_approval(pay)

    def pay(to: str, force: bool = True) -> str:  # type: ignore[misc]
        """Pay somebody."""
        raise AssertionError("must not run")

    tools = [first, require_approval(pay)]

    async def body(ctx: Context) -> str:
        return (await tools[0].acall(ctx=ctx, to="Ann")).content

    run: Hand = start(workflow(body))
    (request,) = await run.waiting()
    tools.pop(0)
    await run.restart(to(request))
    with pytest.raises(ToolError, match="schema of pay has changed since"):
        await run.handler


@pytest.mark.parametrize("together", [False, True], ids=["one after another", "at the same time"])
async def test_what_is_asked_in_one_call_is_not_answered_for_another(
    together: bool, start_both: Any
) -> None:
    """A call that was made is left out when the step repeats; what it asked is not."""
    paid = []

    async def pay(ctx: Context, to: str) -> str:
        """Pay somebody."""
        resolution = await ask(ctx, Question(title="Really?", requester=to))
        if resolution.approved:
            paid.append(to)
        return f"{to}: {resolution.approved}"

    async def body(ctx: Context) -> list[str]:
        # Two guards for the first, so that it is also about calls within calls.
        tools = (
            require_approval(require_approval(pay, decisions=["approve"])),
            require_approval(pay),
        )
        calls = (tool.acall(ctx=ctx, to=n) for tool, n in zip(tools, ("Ann", "Ben"), strict=True))
        outputs = await asyncio.gather(*calls) if together else [await call for call in calls]
        return [output.content for output in outputs]

    run: Hand = start_both(workflow(body))
    said = []
    while requests := await run.waiting():
        request = requests[0]
        for_ben = request.title == "Really?" and request.requester == "Ben"
        said.append(request.request_id)
        await run.tell(to(request, Reject() if for_ben else Approve()))
    assert await run.result() == ["Ann: True", "Ben: False"]
    assert paid == ["Ann"]
    assert len(set(said)) == len(said) == 5


@pytest.mark.parametrize("together", [False, True], ids=["one after another", "at the same time"])
async def test_each_guarded_call_runs_a_child_of_its_own(together: bool, start_both: Any) -> None:
    class Asking(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            said = await ask(ctx, Question(title=f"Pay {ev.user_msg}?"))
            return StopEvent(result=f"{ev.user_msg}: {said.approved}")

    def hand_over() -> GuardedTool:
        child = agent_tool(Asking(timeout=None), name="clerk", description="Pays.")
        return require_approval(child)

    async def body(ctx: Context) -> list[str]:
        calls = (hand_over().acall(ctx=ctx, task=name) for name in ("Ann", "Ben", "Cem"))
        outputs = await asyncio.gather(*calls) if together else [await call for call in calls]
        return [output.content for output in outputs]

    run: Hand = start_both(workflow(body))
    told = 0
    while requests := await run.waiting():
        request = requests[0]
        told += 1
        await run.tell(to(request, Reject() if request.title == "Pay Ben?" else Approve()))
    assert await run.result() == ["Ann: True", "Ben: False", "Cem: True"]
    assert told == 6
