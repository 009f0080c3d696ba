"""What a guarded tool gives: as the tool gave it, and such that it survives a wait."""

from typing import Any

import pytest
from agents_in_hand import Hand, agent, agent_tests, call, edit, results, to
from llama_index.core.base.llms.types import ImageBlock, TextBlock
from llama_index.core.schema import Document
from llama_index.core.tools import FunctionTool
from llama_index.core.tools.types import ToolOutput
from workflows import Context, Workflow, step
from workflows.events import StartEvent, StopEvent

from llama_index_hitl import Question, ask
from llama_index_hitl.agents import require_approval

pytestmark = agent_tests


class Odd:
    """Something that JSON cannot carry."""

    def __str__(self) -> str:
        return "odd"


def endless() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


GIVEN: list[tuple[Any, str]] = [
    ("text", "text"),
    ("", ""),
    (None, "None"),
    (7, "7"),
    ({"a": [1, 2]}, "{'a': [1, 2]}"),
    (Odd(), "odd"),
    (float("nan"), "nan"),
    (b"\xff", "b'\\xff'"),
    ("\ud800", "\ud800"),
    (endless(), "[[...]]"),
    (Document(text="page"), "page"),
    ([TextBlock(text="one"), TextBlock(text="two")], "one\ntwo"),
]


@pytest.mark.parametrize(("given", "text"), GIVEN, ids=lambda v: type(v).__name__)
async def test_what_a_tool_gives_is_told_and_survives_the_wait_of_another(
    given: Any, text: str, start_both: Any
) -> None:
    made: list[int] = []

    def look() -> Any:
        """Look."""
        made.append(1)
        return given

    def other() -> str:
        """Do another thing."""
        return "other"

    make = agent(
        [require_approval(look), require_approval(other)],
        [call("look", "c1"), call("other", "c2")],
        "Done.",
    )
    run: Hand = start_both(make)
    first, second = sorted(await run.waiting(), key=lambda r: r.title)
    await run.tell(to(first))
    await run.tell(to(second))
    assert str(await run.result()) == "Done."
    assert made == [1]
    assert results(make.llm.calls[-1])["c1"] == text


async def test_an_image_stays_one_also_after_an_edit(start_both: Any) -> None:
    def draw(what: str) -> ImageBlock:
        """Draw something."""
        return ImageBlock(image=b"\x89PNG", image_mimetype="image/png")

    make = agent([require_approval(draw)], call("draw", what="a cat"), "Done.")
    run: Hand = start_both(make)
    (request,) = await run.waiting()
    await run.tell(edit(request, what="a dog"))
    blocks = make.llm.calls[-1][-1].blocks
    assert [block.block_type for block in blocks] == ["text", "image"]
    assert blocks[1].resolve_image().read() == b"\x89PNG"


async def test_a_step_gets_the_same_output_each_time_it_runs(start_both: Any) -> None:
    def look() -> ToolOutput:
        """Look."""
        return {"n": 1}  # type: ignore[return-value]

    tool = require_approval(
        FunctionTool.from_defaults(
            look,
            callback=lambda raw: ToolOutput(
                tool_name="other", content="said", raw_input={"odd": Odd()}, raw_output=raw
            ),
        )
    )
    seen = []

    class One(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            output = await tool.acall(ctx=ctx)
            seen.append(output.model_dump())
            await ask(ctx, Question(title="Go on?"))
            return StopEvent(result="Done.")

    run: Hand = start_both(lambda: One(timeout=None))
    for _ in range(2):
        (request,) = await run.waiting()
        await run.tell(to(request))
    assert await run.result() == "Done."
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert seen[0]["raw_output"] == {"n": 1}
    assert seen[0]["raw_input"] == {"args": [], "kwargs": {}}


class Refused(Exception):
    """An error without words."""


@pytest.mark.parametrize(
    ("error", "told"),
    [(ValueError("no such account"), "no such account"), (Refused(), "Refused")],
)
async def test_an_error_of_the_tool_is_told(error: Exception, told: str, start_both: Any) -> None:
    tried: list[int] = []

    async def pay() -> str:
        """Pay."""
        tried.append(1)
        raise error

    make = agent([require_approval(pay)], call("pay", "c1"), "Done.")
    run: Hand = start_both(make)
    (request,) = await run.waiting()
    approval = to(request)
    await run.tell(approval)
    assert results(make.llm.calls[-1]) == {"c1": told}
    output = (await run.result()).tool_calls[-1].tool_output
    assert output.is_error
    assert output.raw_output == f"{type(error).__name__}: {error}"
    assert tried == [1]
