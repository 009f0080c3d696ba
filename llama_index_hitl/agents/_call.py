"""The call of a tool that may be called: made once, and put on record."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from llama_index.core.tools.function_tool import FunctionTool
from llama_index.core.tools.types import BaseTool, ToolOutput, adapt_to_async_tool
from workflows import Context

from llama_index_hitl._upstream import WAITS, workflow_of
from llama_index_hitl.agents import _outputs
from llama_index_hitl.agents._arguments import Arguments, annotations_of
from llama_index_hitl.agents._guard import Guard
from llama_index_hitl.clock import clock_of
from llama_index_hitl.effects import effect_is_repeated, once
from llama_index_hitl.errors import EffectInDoubt
from llama_index_hitl.events import ReviewUpdatedEvent
from llama_index_hitl.lifecycle import decide_without_person, open_record
from llama_index_hitl.models import (
    Answer,
    Approve,
    JsonObject,
    Reject,
    Reviewer,
    RuleResult,
    RuleVerdict,
)
from llama_index_hitl.questions import Question, request_for


async def called(
    ctx: Context[Any],
    tool: BaseTool,
    guard: Guard,
    question: Question,
    arguments: Arguments,
    key: str,
) -> ToolOutput:
    """Call a tool, once for each key, and return what it gave, or what it raised.

    A call that was cut off is in doubt; the same people are asked about it.

    Args:
        ctx: Context of the step.
        tool: The tool that is guarded.
        guard: How.
        question: What was asked, or would have been.
        arguments: The arguments as they were approved.
        key: Tells this call from all others, over replays, crashes and restores.
    """
    name = tool.metadata.get_name()
    doubt = replace(
        question,
        title=f"May {name} be called again?",
        subject=arguments.model,
        rule=None,
        grantable=None,
    )

    async def effect() -> JsonObject | None:
        try:
            output = await _call(ctx, tool, arguments)
        except (WAITS, EffectInDoubt):
            raise
        except Exception as error:  # noqa: BLE001 - the model is told, as by any agent
            output = _outputs.failed(name, arguments, error, repeated=effect_is_repeated())
        return _outputs.dump(_outputs.storable(output, arguments))

    result = await once(
        key,
        effect,
        on_doubt=guard.on_doubt,
        ctx=ctx,
        question=doubt,
        not_done=(WAITS,),
        note=_outputs.note_on,
    )
    if result is None:
        # Somebody has said to go on as if an interrupted call had happened.
        return _outputs.presumed_done(name, arguments)
    return _outputs.settled(name, arguments, result)


async def _call(ctx: Context[Any], tool: BaseTool, arguments: Arguments) -> ToolOutput:
    if not isinstance(tool, FunctionTool):
        return await adapt_to_async_tool(tool).acall(**arguments.for_call())
    given = arguments.for_call(annotations_of(tool.real_fn))
    if tool.requires_context:
        given[cast("str", tool.ctx_param_name)] = ctx
    return await tool.acall(**given)


def tell(ctx: Context[Any], question: Question, rule: RuleResult, key: str) -> None:
    """Put on record that a rule, or a grant, has decided in place of a person."""
    now = clock_of(workflow_of(ctx))()
    asked = replace(question, rule=rule, grantable=None)
    request = request_for(ctx, asked, request_id=key, at=now)
    approves = rule.verdict is RuleVerdict.APPROVE
    answer = Answer.to(
        request,
        Approve(comment=rule.reason) if approves else Reject(comment=rule.reason),
        by=Reviewer(id=f"rule:{rule.rule}", kind="rule"),
        at=now,
        channel="rule",
    )
    record = decide_without_person(open_record(request), answer)
    ctx.write_event_to_stream(ReviewUpdatedEvent(record=record))
