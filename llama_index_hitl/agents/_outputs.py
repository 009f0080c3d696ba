"""What a model is told about a call that a person, or a rule, has had a hand in."""

from __future__ import annotations

import json
from typing import Any, cast

from llama_index.core.base.llms.types import TextBlock
from llama_index.core.tools.types import ToolOutput
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from llama_index_hitl.agents._arguments import Arguments
from llama_index_hitl.models import JsonObject, Respond
from llama_index_hitl.rendering import text_of

_OUTPUT: TypeAdapter[ToolOutput] = TypeAdapter(ToolOutput)
_NOTE_LIMIT = 1_000
"""Characters of an error that the audit trail keeps."""


def responded(tool: str, arguments: Arguments, decision: Respond) -> ToolOutput:
    """Give what a person said in place of the tool's result."""
    response = decision.response
    said = response.get("result") if isinstance(response, dict) else response
    return ToolOutput(
        tool_name=tool,
        content=text_of(said),
        raw_input={"args": [], "kwargs": arguments.data},
        raw_output=said,
    )


def invalid(tool: str, raw: dict[str, Any], problems: str) -> ToolOutput:
    """Say that a call does not fit the tool's schema; nobody was asked and nothing was done."""
    return ToolOutput(
        tool_name=tool,
        content=f"{tool} was not called: {problems}. Correct the arguments and call it again.",
        raw_input={"args": [], "kwargs": raw},
        raw_output=problems,
        is_error=True,
    )


def failed(
    tool: str, arguments: Arguments, error: Exception, *, repeated: bool = False
) -> ToolOutput:
    """Say what a tool has raised, as LlamaIndex's agents do.

    Args:
        tool: Name of the tool.
        arguments: What it was called with.
        error: What it has raised.
        repeated: The call was begun before and cut off: what it did then may be what is in the way.
    """
    doubt = f"{tool} was interrupted before and may have been done then. Now: " if repeated else ""
    return ToolOutput(
        tool_name=tool,
        content=f"{doubt}{str(error) or type(error).__name__}",
        raw_input={"args": [], "kwargs": arguments.data},
        raw_output=f"{doubt}{type(error).__name__}: {error}",
        is_error=True,
        exception=error,
    )


def storable(output: ToolOutput, arguments: Arguments) -> ToolOutput:
    """Return a tool's output so that it survives a snapshot.

    A raw output that JSON cannot carry, such as the response object of a query engine, is replaced
    by its text, which is all that the model sees.
    """
    try:
        raw = to_jsonable_python(output.raw_output)
        json.dumps(raw, allow_nan=False).encode()
    except (PydanticSerializationError, ValueError, RecursionError):
        raw = output.content
    return output.model_copy(
        update={"raw_input": {"args": [], "kwargs": arguments.data}, "raw_output": raw}
    )


def with_edit(output: ToolOutput, before: Arguments, after: Arguments) -> ToolOutput:
    """Tell the model, before the result, what a person has changed in the arguments."""
    changes = ", ".join(
        f"{name}: {_value(before.data.get(name))} -> {_value(after.data[name])}"
        for name in after.data
        if after.data[name] != before.data.get(name)
    )
    if not changes:
        return output
    note = f"A person changed the arguments before the call ({changes}). Result of that call:"
    # In one block with the result: some models' clients join blocks without anything in between.
    first, *others = output.blocks or [TextBlock(text="")]
    blocks = (
        [TextBlock(text=f"{note}\n{first.text}"), *others]
        if isinstance(first, TextBlock)
        else [TextBlock(text=note), *output.blocks]
    )
    return output.model_copy(update={"blocks": blocks})


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def dump(output: ToolOutput) -> JsonObject:
    """Return an output as JSON."""
    return cast("JsonObject", _OUTPUT.dump_python(output, mode="json"))


def load(data: JsonObject) -> ToolOutput:
    """Return an output that was written."""
    return _OUTPUT.validate_python(data)


def settled(tool: str, arguments: Arguments, result: Any) -> ToolOutput:
    """Return what a call gave, or what somebody has said that it gave when they settled it."""
    try:
        return load(result)
    except ValidationError:
        return ToolOutput(
            tool_name=tool,
            content=text_of(result),
            raw_input={"args": [], "kwargs": arguments.data},
            raw_output=result,
        )


def note_on(output: JsonObject | None) -> str:
    """Return what the audit trail says about the result of a call; empty: it went well."""
    if output is None or not output["is_error"]:
        return ""
    return f"failed: {output['raw_output']}"[:_NOTE_LIMIT]


def presumed_done(tool: str, arguments: Arguments) -> ToolOutput:
    """Say that a call was interrupted, and that a person has said to go on as if it was made."""
    return ToolOutput(
        tool_name=tool,
        content=f"{tool} was called and interrupted. A person has confirmed to go on; its result "
        "is not known.",
        raw_input={"args": [], "kwargs": arguments.data},
        raw_output=None,
    )
