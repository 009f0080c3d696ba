"""Who calls a tool, and what was said before: what a person sees beside the arguments."""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core.agent.workflow import AgentWorkflow
from llama_index.core.agent.workflow.base_agent import BaseWorkflowAgent
from llama_index.core.base.llms.types import ChatMessage, TextBlock, ToolCallBlock
from workflows import Context

from llama_index_hitl._text import one_line
from llama_index_hitl._upstream import state_of_run, workflow_of
from llama_index_hitl.models import Evidence

_LONGEST = 1_000
"""Characters of one message, or of a title, that are shown."""


class _Turns(asyncio.Lock):
    """Whose turn it is to read a memory; whoever has waited longest is next."""


async def agent_of(ctx: Context[Any]) -> BaseWorkflowAgent | None:
    """Return the agent that is at work in a step; None: it is none of LlamaIndex's."""
    workflow = workflow_of(ctx)
    if isinstance(workflow, AgentWorkflow):
        return workflow.agents.get(str(await ctx.store.get("current_agent_name", default="")))
    return workflow if isinstance(workflow, BaseWorkflowAgent) else None


async def conversation_of(
    ctx: Context[Any], agent: BaseWorkflowAgent | None, limit: int
) -> tuple[Evidence, ...]:
    """Return the last messages of an agent's conversation, the newest last.

    Args:
        ctx: Context of the step.
        agent: The agent at work; None: there is no conversation.
        limit: How many messages; 0: none.
    """
    if agent is None or limit < 1:
        return ()
    memory = await ctx.store.get("memory", default=None)
    # A memory is read in a thread. Calls that are made at once take turns, so that they are asked
    # about in the order in which they are made, and not in that in which threads end.
    async with state_of_run(_Turns):
        messages = [] if memory is None else list(await memory.aget_all())
    # What the agent has done since the last message of the user is not in its memory yet.
    messages += await ctx.store.get(getattr(agent, "scratchpad_key", "scratchpad"), default=[])
    lines = [_line(message) for message in messages]
    thoughts = await ctx.store.get(getattr(agent, "reasoning_key", "reasoning"), default=[])
    lines += [_shown(f"assistant: {thought.get_content()}") for thought in thoughts]
    body = "\n\n".join([line for line in lines if line][-limit:])
    return (Evidence(title="Conversation", body=body),) if body else ()


def _line(message: ChatMessage) -> str:
    """Return a message as one who said what; empty: it says nothing in words."""
    said = [block.text for block in message.blocks if isinstance(block, TextBlock) and block.text]
    calls = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    said += [f"calls {call.tool_name} with {call.tool_kwargs}" for call in calls]
    return _shown(f"{message.role.value}: {' '.join(said)}") if said else ""


def _shown(said: str) -> str:
    # A message of several lines could go on as if somebody else had spoken.
    return one_line(said, _LONGEST)
