"""Calls that were rejected: what a model is told of them, and how often that has happened."""

from __future__ import annotations

from typing import Any

from llama_index.core.agent.workflow import ToolCallResult
from llama_index.core.tools.types import ToolMetadata, ToolOutput
from workflows import Context

from llama_index_hitl.agents._arguments import Arguments, InvalidArguments
from llama_index_hitl.agents._conversation import agent_of


def rejected(tool: str, arguments: Arguments, by: str, why: str | None) -> ToolOutput:
    """Say that a call was not made, and that it must not be tried again.

    Args:
        tool: Name of the tool.
        arguments: What it was to be called with.
        by: Who rejected it, as `a person`.
        why: Why, in their own words.
    """
    reason = f" Reason: {why}" if why else ""
    return ToolOutput(
        tool_name=tool,
        content=(
            f"{_beginning(tool)}{by} and was NOT made.{reason}\nDo not call it again with these "
            "arguments. Say what was rejected, or find another way."
        ),
        raw_input={"args": [], "kwargs": arguments.data},
        raw_output=_mark(arguments.digest),
        is_error=True,
    )


async def times_rejected(ctx: Context[Any], metadata: ToolMetadata, arguments: Arguments) -> int:
    """Return how often the same call was rejected in the present run of an agent.

    Args:
        ctx: Context of the step.
        metadata: The tool.
        arguments: The arguments of the call.
    """
    if await agent_of(ctx) is None:
        return 0
    results = await ctx.store.get("current_tool_calls", default=[])
    return sum(_is_rejection(result, metadata, arguments.digest) for result in results)


def _is_rejection(result: ToolCallResult, metadata: ToolMetadata, digest: str) -> bool:
    """Tell whether this is the result of a rejected call with these arguments."""
    raw, tool = result.tool_output.raw_output, metadata.get_name()
    if not isinstance(raw, str):
        return result.tool_name == tool and raw == _mark(digest)
    if not raw.startswith(_beginning(tool)):
        return False
    # An agent that takes functions, not tools, keeps the words only, under a name of its own.
    try:
        return Arguments.read(metadata, result.tool_kwargs).digest == digest
    except InvalidArguments:
        return False


def _beginning(tool: str) -> str:
    return f"The call of {tool} was rejected by "


def _mark(digest: str) -> dict[str, str]:
    return {"llama_index_hitl": "rejected", "arguments": digest}
