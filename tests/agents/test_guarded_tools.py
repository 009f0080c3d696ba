"""Tools of every kind under a guard: what is shown, and that the tool gets what was approved."""

import asyncio
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, ClassVar

import pytest
from agents_in_hand import Hand, agent, agent_tests, arguments, call, edit, results, to
from llama_index.core import SummaryIndex
from llama_index.core.llms.mock import MockLLM
from llama_index.core.query_engine import CustomQueryEngine
from llama_index.core.schema import Document
from llama_index.core.tools import FunctionTool, QueryEngineTool, ToolMetadata
from llama_index.core.tools.tool_spec.base import BaseToolSpec
from llama_index.core.tools.types import AsyncBaseTool, BaseTool, ToolOutput
from pydantic import BaseModel, Field
from workflows import Context

from llama_index_hitl import Approve, Reject
from llama_index_hitl.agents import require_approval
from llama_index_hitl.errors import ToolError

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
async def test_a_tool_of_any_kind_waits_and_is_called_once_with_what_was_shown(
    kind: str, start_both: Any
) -> None:
    kinds = Kinds()
    make = agent(
        [require_approval(getattr(kinds, kind)())],
        call("pay", "c1", **TO_ALICE),
        "Done.",
        streaming=kind == "plain",
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


# --------------------------------------------------------------------------- schemas


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Line(BaseModel):
    """One line of an order."""

    item_name: str = Field(alias="itemName")
    price: Decimal = Decimal("1.50")


class Order(BaseModel):
    """Arguments with aliases."""

    customer_id: int = Field(alias="customerId", ge=1)
    lines: list[Line]


async def test_typed_arguments_reach_the_tool_as_their_types(start_both: Any) -> None:
    got: list[Any] = []

    def book(
        amount: Decimal,
        day: date,
        colour: Colour,
        tags: list[str],
        note: str | None = None,
        extra: dict[str, Any] | None = None,
    ) -> str:
        """Book something."""
        got.append((amount, day, colour, tags, note, extra))
        return "booked"

    raw = {
        "amount": "12.50",
        "day": "2030-02-01",
        "colour": "red",
        "tags": ["a", "b"],
        "extra": {"n": [1, 2]},
    }
    run: Hand = start_both(agent([require_approval(book)], call("book", **raw), "Done."))
    (request,) = await run.waiting()
    assert arguments(request) == {**raw, "note": None}
    await run.tell(edit(request, amount="13.75", note="hi"))
    assert got == [
        (Decimal("13.75"), date(2030, 2, 1), Colour.RED, ["a", "b"], "hi", {"n": [1, 2]})
    ]


async def test_arguments_with_aliases_nested_too(start_both: Any) -> None:
    got: list[Any] = []

    def order(**given: Any) -> str:
        """Order something."""
        got.append(given)
        return "ordered"

    tool = FunctionTool.from_defaults(order, fn_schema=Order)
    raw = {"customerId": 7, "lines": [{"itemName": "pen", "price": "2.00"}]}
    make = agent([require_approval(tool)], call("order", "c1", **raw), "Done.")
    run: Hand = start_both(make)
    (request,) = await run.waiting()
    assert arguments(request) == raw
    assert set(request.subject.json_schema["properties"]) == {"customerId", "lines"}
    await run.tell(edit(request, customerId=8))
    assert got == [{"customerId": 8, "lines": [{"itemName": "pen", "price": Decimal("2.00")}]}]
    assert "customerId: 7 -> 8" in results(make.llm.calls[-1])["c1"]


async def test_models_reach_functions_that_ask_for_them_and_mappings_all_others(
    start_both: Any,
) -> None:
    got: list[Any] = []

    class Part(BaseModel):
        name: str
        note: str | None = None

    class Args(BaseModel):
        one: Part
        two: Part
        three: list[Part]

    def build(one: Annotated[Part, "The first."], two: dict[str, Any], three: Any) -> str:
        """Build something."""
        got.append((one, two, three))
        return "built"

    tool = FunctionTool.from_defaults(build, fn_schema=Args)
    part = {"name": "x"}
    raw = {"one": part, "two": part, "three": [part, {"name": "y", "note": "z"}]}
    run: Hand = start_both(agent([require_approval(tool)], call("build", **raw), "Done."))
    (request,) = await run.waiting()
    assert arguments(request)["one"] == {"name": "x", "note": None}
    await run.tell(to(request))
    assert got == [(Part(name="x"), part, raw["three"])]


async def test_sets_are_shown_in_order_whatever_the_order_in_this_process(start: Any) -> None:
    got: list[Any] = []

    def label(names: set[str], groups: dict[str, list[frozenset[int]]] | None = None) -> str:
        """Label something."""
        got.append((names, groups))
        return "labelled"

    names = [chr(code) for code in range(ord("z"), ord("a") - 1, -1)]
    raw = {"names": names, "groups": {"g": [[30, 2, 100]]}}
    run: Hand = start(agent([require_approval(label)], call("label", **raw), "Done."))
    (request,) = await run.waiting()
    assert arguments(request) == {"names": sorted(names), "groups": {"g": [[100, 2, 30]]}}
    await run.tell(to(request))
    assert got == [(set(names), {"g": [frozenset({2, 30, 100})]})]


async def test_defaults_hold_for_what_neither_model_nor_person_gives(start_both: Any) -> None:
    got: list[Any] = []

    def send(
        text: Annotated[str, "What to say"],
        copies: int = Field(default=2, ge=1, description="How many."),
        **options: Any,
    ) -> str:
        """Send a text."""
        got.append((text, copies, options))
        return "sent"

    tool = FunctionTool.from_defaults(send, partial_params={"channel": "mail"})
    run: Hand = start_both(agent([require_approval(tool)], call("send", text="hi"), "Done."))
    (request,) = await run.waiting()
    assert arguments(request) == {"text": "hi", "copies": 2}
    schema = request.subject.json_schema["properties"]
    assert (schema["text"]["description"], schema["copies"]["description"]) == (
        "What to say",
        "How many.",
    )
    await run.tell(to(request))
    assert got == [("hi", 2, {"channel": "mail"})]


async def test_a_default_that_is_made_anew_each_time_is_asked_about_once(start_both: Any) -> None:
    numbers = iter(range(1, 100))
    got: list[Any] = []

    class Args(BaseModel):
        to: str
        number: int = Field(default_factory=lambda: next(numbers))

    def pay(to: str, number: int = 0) -> str:
        """Pay somebody."""
        got.append((to, number))
        return "paid"

    tool = FunctionTool.from_defaults(pay, fn_schema=Args)
    run: Hand = start_both(agent([require_approval(tool)], call("pay", to="Alice"), "Done."))
    (request,) = await run.waiting()
    shown = arguments(request)
    assert await run.tell(to(request)) == []
    assert got == [("Alice", shown["number"])]
    assert str(await run.result()) == "Done."


async def test_callbacks_and_return_direct_are_the_tools_own(start_both: Any) -> None:
    kinds = Kinds()
    tool = FunctionTool.from_defaults(
        kinds.plain(), return_direct=True, callback=lambda result: f"*{result}*"
    )
    run: Hand = start_both(agent([require_approval(tool)], call("pay", **TO_ALICE)))
    (request,) = await run.waiting()
    await run.tell(to(request))
    assert str(await run.result()) == "*paid 500 to Alice*"
    assert kinds.done == [("Alice", 500)]


async def test_a_direct_return_that_is_rejected_goes_to_the_model(start_both: Any) -> None:
    kinds = Kinds()
    tool = FunctionTool.from_defaults(kinds.plain(), return_direct=True)
    run: Hand = start_both(agent([require_approval(tool)], call("pay", **TO_ALICE), "Rejected."))
    (request,) = await run.waiting()
    await run.tell(to(request, Reject()))
    assert str(await run.result()) == "Rejected."
    assert kinds.done == []


async def test_a_tool_without_arguments_cannot_be_edited(start_both: Any) -> None:
    done: list[str] = []

    def launch() -> str:
        """Launch it."""
        done.append("launched")
        return "launched"

    run: Hand = start_both(agent([require_approval(launch)], call("launch"), "Done."))
    (request,) = await run.waiting()
    assert [str(kind) for kind in request.allowed] == ["approve", "reject", "respond"]
    await run.tell(to(request))
    assert done == ["launched"]


async def test_a_tool_without_a_schema_takes_one_text(start_both: Any) -> None:
    done: list[str] = []

    class Search(AsyncBaseTool):
        @property
        def metadata(self) -> ToolMetadata:
            return ToolMetadata(name="search", description="Search.", fn_schema=None)

        def call(self, input: str) -> ToolOutput:
            raise AssertionError("the async one is called")

        async def acall(self, input: str) -> ToolOutput:
            done.append(input)
            return ToolOutput(tool_name="search", content="found", raw_output="found")

    run: Hand = start_both(agent([require_approval(Search())], call("search", input="x"), "Done."))
    (request,) = await run.waiting()
    assert arguments(request) == {"input": "x"}
    await run.tell(to(request))
    assert done == ["x"]


def test_an_argument_called_ctx_is_refused() -> None:
    def pay(ctx: str) -> str:
        """Pay somebody."""
        return ctx

    with pytest.raises(ToolError, match="argument called 'ctx'"):
        require_approval(pay)


def test_a_tool_without_a_name_is_refused() -> None:
    nameless = FunctionTool.from_defaults(
        lambda: "x", tool_metadata=ToolMetadata(name="", description="x")
    )
    with pytest.raises(ToolError, match="without a name"):
        require_approval(nameless)


async def test_names_that_python_cannot_spell(start_both: Any) -> None:
    """As servers of other languages give them to their tools."""
    from pydantic import create_model

    got: list[Any] = []

    async def move(**given: Any) -> str:
        got.append(given)
        return "moved"

    schema = create_model("move", **{"from": (str, ...), "user-id": (int, ...)})
    tool = FunctionTool.from_defaults(
        async_fn=move,
        tool_metadata=ToolMetadata(name="move", description="Move.", fn_schema=schema),
    )
    raw = {"from": "a", "user-id": 1}
    run: Hand = start_both(agent([require_approval(tool)], call("move", **raw), "Done."))
    (request,) = await run.waiting()
    await run.tell(edit(request, **{"user-id": 2}))
    assert got == [{"from": "a", "user-id": 2}]


# --------------------------------------------------------------------------- query engines


async def test_a_query_engine_is_asked_only_when_it_may(start_both: Any) -> None:
    index = SummaryIndex.from_documents([Document(text="The answer is 42.")])
    engine = index.as_query_engine(llm=MockLLM())
    tool = QueryEngineTool.from_defaults(engine, name="files", description="Search the files.")
    make = agent([require_approval(tool)], call("files", "c1", input="answer?"), "Done.")
    run: Hand = start_both(make)
    (request,) = await run.waiting()
    assert arguments(request) == {"input": "answer?"}
    await run.tell(edit(request, input="the answer?"))
    result = results(make.llm.calls[-1])["c1"]
    assert 'input: "answer?" -> "the answer?"' in result
    assert "The answer is 42." in result
    assert str(await run.result()) == "Done."


async def test_a_query_engine_that_is_rejected_sees_no_query(start_both: Any) -> None:
    queries: list[str] = []

    class Engine(CustomQueryEngine):
        def custom_query(self, query_str: str) -> str:
            queries.append(query_str)
            return "found"

    tool = QueryEngineTool.from_defaults(Engine(), name="files", description="Search the files.")
    replies = [call("files", input="salaries"), call("files", input="menu"), "Done."]
    run: Hand = start_both(agent([require_approval(tool)], *replies))
    await run.decide(Reject(comment="private"))
    await run.decide(Approve())
    assert queries == ["menu"]
    assert str(await run.result()) == "Done."
