"""A tool by which an agent asks a person a question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from llama_index.core.agent.workflow.base_agent import BaseWorkflowAgent
from llama_index.core.tools.function_tool import FunctionTool
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, create_model
from workflows import Context

from llama_index_hitl._heard import Heard
from llama_index_hitl._ledger import recalled, remembered_from_now_on
from llama_index_hitl._models_of_code import AnswerModels
from llama_index_hitl._text import one_line
from llama_index_hitl._upstream import execution_of_step, fail_step, state_of_run, workflow_of
from llama_index_hitl.agents._conversation import agent_of, conversation_of
from llama_index_hitl.agents._guard import CONVERSATION
from llama_index_hitl.errors import HitlError, ToolError
from llama_index_hitl.forms import problems_of
from llama_index_hitl.models import (
    Evidence,
    Identifier,
    JsonObject,
    Priority,
    Respond,
    Value,
    digest_of,
    entries_of,
)
from llama_index_hitl.questions import Question, ask
from llama_index_hitl.rendering import text_of

_DESCRIPTION = (
    "Ask a person when you need something that only a person can tell or decide. Ask one clear "
    "question; the answer may take days."
)
_LONGEST_TITLE = 200
_EVIDENCE: TypeAdapter[tuple[Evidence, ...]] = TypeAdapter(tuple[Evidence, ...])


class HumanAnswer(BaseModel):
    """What a person says to an agent's question.

    Attributes:
        answer: Their words.
    """

    answer: str = Field(json_schema_extra={"format": "textarea"})


class _Options(Value):
    """What is the same for every question of one tool."""

    reviewers: tuple[Identifier, ...]
    priority: Priority
    tags: tuple[Identifier, ...]


def human_tool(
    *,
    name: str = "ask_a_person",
    description: str = _DESCRIPTION,
    response: type[BaseModel] = HumanAnswer,
    reviewers: Sequence[str] | str = (),
    priority: Priority = "normal",
    tags: Sequence[str] | str = (),
    conversation: int = CONVERSATION,
) -> FunctionTool:
    """Return a tool by which an agent asks a person a question, with a form for the answer.

    The agent gets what the person filled in, as JSON, or the words alone of the default form. A
    person may also decline; the agent is told so. What a person says is an answer, never consent:
    no guarded tool takes it for an approval.

    The question and its answer survive a crash where a `Runner` drives the agent's run.

    Args:
        name: Name of the tool.
        description: What the model is told about when to ask.
        response: Pydantic model of the answer: the form that the person fills in.
        reviewers: Ids and `role:...` entries; empty: anyone whom the channel lets in.
        priority: How urgent it is.
        tags: Words to find it by.
        conversation: How many of the last messages the person sees; 0: none.

    Raises:
        ToolError: `response` is no pydantic model, or another option cannot be asked with.

    Example:
        >>> from workflows import Context, Workflow, step
        >>> from workflows.events import StartEvent, StopEvent
        >>> from llama_index_hitl.testing import ScriptedReviewer, review_with
        >>> tool = human_tool(reviewers="role:support")  # as a tool for agents; or in a step
        >>> class Asking(Workflow):
        ...     @step
        ...     async def find_out(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ...         said = await tool.acall(ctx=ctx, question="Which colour does she like?")
        ...         return StopEvent(result=said.content)
        >>> async def main():
        ...     answer = Respond(response=HumanAnswer(answer="the blue one"))
        ...     bob = ScriptedReviewer([answer], by=Reviewer(id="bob", roles=("support",)))
        ...     return await review_with(Asking(timeout=None).run(), bob)
        >>> asyncio.run(main())
        'the blue one'
    """
    form: object = response
    if not (isinstance(form, type) and issubclass(form, BaseModel)):
        raise ToolError(f"response= needs a pydantic model, not {form!r:.100}.")

    try:
        options = _Options(
            reviewers=entries_of(reviewers),
            priority=priority,
            tags=entries_of(tags),
        )
    except ValidationError as error:
        told = "; ".join(str(problem) for problem in problems_of(error))
        raise ToolError(f"An option of the tool {name} is wrong: {told}") from None

    async def asked(ctx: Context[Any], question: str) -> str:
        agent = await agent_of(ctx)
        asker = workflow_of(ctx).workflow_name if agent is None else agent.name
        cut = one_line(question, _LONGEST_TITLE)
        call = f"tool:{name}:{digest_of(question)[:16]}"
        place = state_of_run(Heard).place_of(execution_of_step(), call)
        try:
            resolution = await ask(
                ctx,
                Question(
                    title=f"{asker} asks: {cut}",
                    body=question,
                    response=response,
                    decisions=("respond", "reject"),
                    reviewers=options.reviewers,
                    evidence=await _evidence(ctx, place, agent, conversation),
                    priority=options.priority,
                    tags=options.tags,
                ),
                key=place,
            )
        except HitlError as error:
            if agent is None:
                raise
            # The agent would tell the model, which can do nothing about it.
            fail_step(error)
        decision = resolution.decision
        if not isinstance(decision, Respond):
            why = f" They said: {decision.comment}\n" if decision.comment else " "
            return f"The person declined to answer.{why}Do not ask this again."
        if isinstance(resolution.response, HumanAnswer):
            return resolution.response.answer
        # As the model of the answer has it: with what the person has left to its defaults.
        return text_of(resolution.response.model_dump(mode="json"))

    # Not resolved from text: what LlamaIndex looks for is the class itself.
    asked.__annotations__ = {"ctx": Context, "question": str, "return": str}
    schema = create_model(name, question=(str, Field(description="One clear question.")))
    tool = FunctionTool.from_defaults(
        async_fn=asked, name=name, description=description, fn_schema=schema
    )
    tool.answer_models = AnswerModels(response=response)  # type: ignore[attr-defined]
    return tool


async def _evidence(
    ctx: Context[Any], place: str, agent: BaseWorkflowAgent | None, limit: int
) -> tuple[Evidence, ...]:
    """Return the conversation as it was when the question was asked first.

    Other tools may go on with it while this one waits; what is asked must stay the same.
    """
    kept = recalled(ctx, f"{place}:evidence")
    if kept is not None:
        return _EVIDENCE.validate_python(kept["evidence"])
    evidence = await conversation_of(ctx, agent, limit)
    dumped = cast("JsonObject", {"evidence": _EVIDENCE.dump_python(evidence, mode="json")})
    remembered_from_now_on(ctx, f"{place}:evidence", dumped)
    return evidence
