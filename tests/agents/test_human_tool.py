"""The tool by which an agent asks a person."""

import json
from typing import Any, Literal

import pytest
from agents_in_hand import Hand, agent, agent_tests, call, results, to
from llama_index.core.base.llms.types import ChatMessage
from pydantic import BaseModel, Field
from workflows import Context, Workflow, step
from workflows.events import StartEvent, StopEvent

from llama_index_hitl import Approve, Reject, Respond, Reviewer, ReviewRefusedEvent
from llama_index_hitl.agents import human_tool, require_approval
from llama_index_hitl.errors import ToolError

pytestmark = agent_tests


class Choice(BaseModel):
    """How to go on."""

    route: Literal["air", "sea"]
    days: int = Field(ge=1, le=30)
    insured: bool = False


def answer(request: Any, **response: Any) -> Any:
    return to(request, Respond(response=response))


async def test_the_agent_gets_the_words_of_the_person(start_both: Any) -> None:
    make = agent(
        [human_tool()], call("ask_a_person", "c1", question="Which\ncolour?"), "Blue it is."
    )
    run: Hand = start_both(make)
    (request,) = await run.waiting()
    assert request.title == "Agent asks: Which colour?"
    assert request.body == "Which\ncolour?"
    assert {str(kind) for kind in request.allowed} == {"respond", "reject"}
    assert "Go." in request.evidence[0].body
    await run.tell(answer(request, answer="Blue."))
    assert results(make.llm.calls[-1]) == {"c1": "Blue."}
    assert str(await run.result()) == "Blue it is."


async def test_a_typed_form_is_held_to_its_type(start_both: Any) -> None:
    tool = human_tool(
        name="choose_route",
        description="Ask how to ship.",
        response=Choice,
        reviewers="role:ops",
        priority="high",
        tags=["shipping"],
        conversation=0,
    )
    make = agent([tool], call("choose_route", "c1", question="How?"), "Done.")
    run: Hand = start_both(make)
    (request,) = await run.waiting()
    assert request.policy.reviewers == ("role:ops",)
    assert (request.priority, request.tags, request.evidence) == ("high", ("shipping",), ())
    assert set(request.response_schema["properties"]) == {"route", "days", "insured"}
    ops = Reviewer(id="olga", roles=("ops",))
    await run.tell(to(request, Respond(response={"route": "sea", "days": 9}), by=ops))
    said = json.loads(results(make.llm.calls[-1])["c1"])
    assert said == {"route": "sea", "days": 9, "insured": False}


async def test_an_answer_that_does_not_fit_the_form_is_refused(start: Any) -> None:
    tool = human_tool(response=Choice)
    run: Hand = start(agent([tool], call("ask_a_person", "c1", question="How?"), "Done."))
    (request,) = await run.waiting()
    assert await run.tell(answer(request, route="rail", days=9)) == [request]
    assert await run.tell(to(request, Approve())) == [request]
    assert len(run.of_kind(ReviewRefusedEvent)) == 2
    assert await run.tell(answer(request, route="air", days=2)) == []


async def test_a_person_may_decline(start_both: Any) -> None:
    make = agent([human_tool()], call("ask_a_person", "c1", question="PIN?"), "All right.")
    run: Hand = start_both(make)
    await run.decide(Reject(comment="None of your business."))
    told = results(make.llm.calls[-1])["c1"]
    assert "declined to answer. They said: None of your business." in told
    assert "Do not ask this again." in told


async def test_words_of_a_person_are_no_consent(start_both: Any) -> None:
    paid: list[str] = []

    def pay(to: str) -> str:
        """Pay somebody."""
        paid.append(to)
        return "paid"

    make = agent(
        [human_tool(), require_approval(pay)],
        call("ask_a_person", question="May I pay Bob?"),
        call("pay", to="Bob"),
        "Not paid.",
    )
    run: Hand = start_both(make)
    (question,) = await run.waiting()
    (request,) = await run.tell(answer(question, answer="Yes, approved. I approve everything."))
    assert paid == []
    assert "I approve everything" in request.evidence[0].body
    await run.tell(to(request, Reject()))
    assert paid == []


async def test_questions_in_parallel_are_each_their_own(start_both: Any) -> None:
    calls = [call("ask_a_person", f"c{n}", question=q) for n, q in enumerate(("A?", "A?", "B?"))]
    make = agent([human_tool()], calls, "Done.")
    run: Hand = start_both(make)
    requests = await run.waiting()
    assert sorted(r.body for r in requests) == ["A?", "A?", "B?"]
    for number, request in enumerate(requests):
        await run.tell(answer(request, answer=f"{request.body} {number}"))
    told = results(make.llm.calls[-1])
    assert len(set(told.values())) == 3
    assert [told[f"c{n}"][:2] for n in range(3)] == ["A?", "A?", "B?"]


async def test_the_conversation_may_go_on_beside_a_question(start_both: Any) -> None:
    async def chat(ctx: Context) -> str:
        """Say something."""
        memory = await ctx.store.get("memory")
        await memory.aput(ChatMessage(role="assistant", content="Meanwhile."))
        await ctx.store.set("memory", memory)
        return "said"

    calls = [call("ask_a_person", "c1", question="A?"), call("chat", "c2")]
    run: Hand = start_both(agent([human_tool(), require_approval(chat)], calls, "Done."))
    first = next(r for r in await run.waiting() if r.body == "A?")
    other = next(r for r in await run.waiting() if r.body != "A?")
    (again,) = await run.tell(to(other))
    assert again == first
    assert await run.tell(answer(again, answer="B.")) == []
    assert str(await run.result()) == "Done."


async def test_a_long_question_has_a_short_title(start: Any) -> None:
    run: Hand = start(
        agent([human_tool()], call("ask_a_person", question="why? " * 10_000), "Done.")
    )
    (request,) = await run.waiting()
    assert len(request.title) < 300
    assert len(request.body) == 50_000


@pytest.mark.parametrize("wrong", [{"reviewers": [" "]}, {"tags": [""]}, {"priority": "soon"}])
def test_an_option_that_cannot_be_asked_with_is_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(ToolError, match="An option of the tool ask_a_person is wrong"):
        human_tool(**wrong)


async def test_a_person_is_asked_from_a_step_too(start_both: Any) -> None:
    tool = human_tool(conversation=6)

    class One(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            outputs = [await tool.acall(ctx=ctx, question="A?") for _ in range(2)]
            return StopEvent(result=[output.content for output in outputs])

    run: Hand = start_both(lambda: One(timeout=None, workflow_name="One"))
    for text in ("B", "C"):
        (request,) = await run.waiting()
        assert request.title == "One asks: A?"
        await run.tell(answer(request, answer=text))
    assert await run.result() == ["B", "C"]


def test_the_form_is_a_pydantic_model() -> None:
    with pytest.raises(ToolError, match="needs a pydantic model"):
        human_tool(response=dict)  # type: ignore[arg-type]
