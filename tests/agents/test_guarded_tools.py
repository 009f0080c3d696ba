"""Tools of every kind under a guard: what is shown, and that the tool gets what was approved."""

import asyncio
from typing import Any, ClassVar

import pytest
from agents_in_hand import Hand, agent, agent_tests, arguments, call, edit, results, to
from llama_index.core.tools import FunctionTool, ToolMetadata
from llama_index.core.tools.tool_spec.base import BaseToolSpec
from llama_index.core.tools.types import BaseTool, ToolOutput
from pydantic import BaseModel
from workflows import Context

from llama_index_hitl.agents import require_approval

pytestmark = agent_tests


class State(BaseModel):
    """A typed state."""

    paid: int = 0


class Kinds:
    """The same effect, by tools of many kinds; `done` says what has happened."""

    def __init__(self) -> None:
        self.done: list[Any] = []

    def plain(self) -> Any:
        def pay(to: str, amount: int) -> str:
            """Pay somebody."""
            self.done.append((to, amount))
            return f"paid {amount} to {to}"

        return pay

    def asynchronous(self) -> Any:
        async def pay(to: str, amount: int) -> str:
            """Pay somebody."""
            await asyncio.sleep(0)
            self.done.append((to, amount))
            return f"paid {amount} to {to}"

        return pay

    def with_context(self) -> Any:
        async def pay(ctx: Context, to: str, amount: int) -> str:
            """Pay somebody."""
            await ctx.store.set("paid", amount)
            self.done.append((to, await ctx.store.get("paid")))
            return f"paid {amount} to {to}"

        return pay

    def with_typed_context(self) -> Any:
        async def pay(to: str, context: Context[State], amount: int) -> str:
            """Pay somebody."""
            assert isinstance(context, Context)
            self.done.append((to, amount))
            return f"paid {amount} to {to}"

        return pay

    def sync_with_context(self) -> Any:
        def pay(ctx: Context, to: str, amount: int) -> str:
            """Pay somebody."""
            assert isinstance(ctx, Context)
            self.done.append((to, amount))
            return f"paid {amount} to {to}"

        return pay

    def function_tool(self) -> Any:
        return FunctionTool.from_defaults(self.plain(), name="pay", description="Pay somebody.")

    def lambda_tool(self) -> Any:
        return FunctionTool.from_defaults(
            lambda to, amount: self.plain()(to, amount), name="pay", description="Pay somebody."
        )

    def of_a_spec(self) -> Any:
        done = self.done

        class Bank(BaseToolSpec):
            spec_functions: ClassVar[list[Any]] = [("pay", "apay"), "balance"]

            def pay(self, to: str, amount: int) -> str:
                """Pay somebody."""
                raise AssertionError("the async one of the pair is called")

            async def apay(self, to: str, amount: int) -> str:
                """Pay somebody."""
                done.append((to, amount))
                return f"paid {amount} to {to}"

            def balance(self) -> int:
                """Tell how much there is."""
                return 1000

        return Bank().to_tool_list()[0]

    def bare(self) -> Any:
        done = self.done

        class Pay(BaseTool):
            """A tool that knows nothing of async and takes one text."""

            @property
            def metadata(self) -> ToolMetadata:
                return ToolMetadata(name="pay", description="Pay somebody.")

            def __call__(self, input: str) -> ToolOutput:
                done.append(input)
                return ToolOutput(tool_name="pay", content=f"paid {input}", raw_output=input)

        return Pay()


TO_ALICE = {"to": "Alice", "amount": 500}


@pytest.mark.parametrize(
    "kind",
    [
        "plain",
        "asynchronous",
        "with_context",
        "with_typed_context",
        "sync_with_context",
        "function_tool",
        "lambda_tool",
        "of_a_spec",
    ],
)
@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "at once"])
async def test_a_tool_of_any_kind_waits_and_is_called_once_with_what_was_shown(
    kind: str, streaming: bool, start_both: Any
) -> None:
    kinds = Kinds()
    make = agent(
        [require_approval(getattr(kinds, kind)())],
        call("pay", "c1", **TO_ALICE),
        "Done.",
        streaming=streaming,
    )
    run: Hand = start_both(make)
    (request,) = await run.waiting()
    assert kinds.done == []
    assert arguments(request) == TO_ALICE
    assert request.title == "Agent wants to call pay"
    assert "Pay somebody." in request.body
    assert request.evidence[0].title == "Conversation"
    assert "Go." in request.evidence[0].body
    await run.tell(to(request))
    assert kinds.done == [("Alice", 500)]
    assert str(await run.result()) == "Done."
    assert results(make.llm.calls[-1]) == {"c1": "paid 500 to Alice"}


async def test_a_tool_that_is_only_sync_and_takes_one_text(start_both: Any) -> None:
    kinds = Kinds()
    run: Hand = start_both(
        agent([require_approval(kinds.bare())], call("pay", input="Alice"), "Done.")
    )
    (request,) = await run.waiting()
    assert arguments(request) == {"input": "Alice"}
    await run.tell(edit(request, input="Bob"))
    assert kinds.done == ["Bob"]
    assert str(await run.result()) == "Done."
