"""What there is to know of one call of a guarded tool."""

from __future__ import annotations

import inspect
from typing import Any

from llama_index.core.tools.types import ToolMetadata
from pydantic import ValidationError
from workflows import Context

from llama_index_hitl._grantbook import present_book
from llama_index_hitl._proposals import data_of
from llama_index_hitl._text import one_line
from llama_index_hitl._upstream import workflow_of
from llama_index_hitl.agents._arguments import Arguments, shape_of
from llama_index_hitl.agents._conversation import agent_of, conversation_of
from llama_index_hitl.agents._guard import Guard
from llama_index_hitl.errors import SubjectError, ToolError
from llama_index_hitl.forms import problems_of
from llama_index_hitl.models import (
    Evidence,
    Identifier,
    JsonObject,
    Line,
    Priority,
    RuleResult,
    RuleVerdict,
    Text,
    Value,
    entries_of,
)
from llama_index_hitl.rules import Rule, evaluate

_TAG_LIMIT = 200
_TITLE_LIMIT = 1_000


class Case(Value):
    """What is asked about one call, drawn up once and kept while the step waits.

    Attributes:
        arguments: The arguments, with the defaults that held when the call was first made.
        given: The fields of them that are passed to the tool.
        shape: Digest of the tool's schema.
        agent: Name of the agent that calls the tool; empty: it is called without one.
        grantable: Whether a standing approval may cover the call, or be given with an approval.
    """

    arguments: JsonObject
    given: tuple[str, ...]
    shape: Line
    agent: Line
    title: Line
    body: Text
    evidence: tuple[Evidence, ...]
    reviewers: tuple[Identifier, ...]
    barred: dict[Identifier, Line]
    requester: Identifier | None
    priority: Priority
    tags: tuple[Identifier, ...]
    rule: RuleResult | None
    grantable: bool


async def draw_up(
    ctx: Context[Any], metadata: ToolMetadata, guard: Guard, arguments: Arguments
) -> Case:
    """Return what there is to know of a call that is made for the first time.

    Args:
        ctx: Context of the step.
        metadata: The tool.
        guard: How it is guarded.
        arguments: The arguments of the call.

    Raises:
        ToolError: An option is a function, and raised.
    """
    agent = await agent_of(ctx)
    caller = "" if agent is None else agent.name
    title = f"{caller or type(workflow_of(ctx)).__name__} wants to call {metadata.name}"

    async def given(name: str) -> Any:
        return await _given(metadata, guard, name, arguments)

    conversation = await conversation_of(ctx, agent, guard.conversation)
    try:
        return Case(
            arguments=arguments.data,
            given=tuple(sorted(arguments.given)),
            shape=shape_of(metadata),
            agent=caller,
            title=one_line(title if guard.title is None else await given("title"), _TITLE_LIMIT),
            body=(metadata.description or "") if guard.body is None else await given("body"),
            evidence=(*await given("evidence"), *conversation),
            reviewers=entries_of(await given("reviewers")),
            barred=dict(await given("barred") or {}),
            requester=await given("requester"),
            priority=await given("priority"),
            tags=(*entries_of(await given("tags")), *_names(metadata, caller)),
            rule=None if guard.when is None else judged(guard.when, arguments),
            grantable=guard.grants == "allow" and present_book() is not None,
        )
    except (TypeError, AttributeError, ValidationError) as error:
        problems = problems_of(error) if isinstance(error, ValidationError) else [error]
        told = "; ".join(str(problem) for problem in problems)
        raise ToolError(
            f"The options of the guarded tool {metadata.name} are wrong: {told}"
        ) from error


def _names(metadata: ToolMetadata, caller: str) -> tuple[str, ...]:
    """Return the tags by which calls of one tool, and of one agent, are found."""
    names = (f"tool:{metadata.name}", f"agent:{caller}" if caller else "")
    return tuple(name[:_TAG_LIMIT] for name in names if name)


def judged(rule: Rule, arguments: Arguments) -> RuleResult:
    """Return what a rule says about a call; in doubt, *ask*.

    A rule that changes what it judges would have judged other arguments than the tool gets.
    """
    model = arguments.model
    result = evaluate(rule, model)
    try:
        unchanged = data_of(model) == arguments.data
    except SubjectError:
        unchanged = False
    if unchanged:
        return result
    reason = "it changed the arguments that it judged"
    return RuleResult(verdict=RuleVerdict.ASK, rule=rule.name, reason=reason)


async def _given(metadata: ToolMetadata, guard: Guard, name: str, arguments: Arguments) -> Any:
    """Return the value of an option, for these arguments.

    A function gets a copy of them: what it does to that changes nothing for anybody else.
    """
    option = getattr(guard, name)
    try:
        value = option(arguments.model) if callable(option) else option
        return await value if inspect.isawaitable(value) else value
    except Exception as error:
        raise ToolError(
            f"{name}= of the guarded tool {metadata.name} raised {type(error).__name__}: {error}"
        ) from error
