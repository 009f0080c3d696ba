"""A guarded tool as a plain function."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from keyword import iskeyword
from typing import Any

from llama_index.core.tools.types import ToolMetadata, ToolOutput
from workflows import Context

from llama_index_hitl.agents._arguments import schema_of
from llama_index_hitl.agents._guard import CONTEXT


def as_function(
    acall: Callable[..., Awaitable[ToolOutput]], metadata: ToolMetadata
) -> Callable[..., Awaitable[str]]:
    """Return a tool as a function that says what its arguments are.

    `CodeActAgent(code_execute_fn=guarded.async_fn)` takes functions only.

    Args:
        acall: Calls the tool, with arguments by name and with the context.
        metadata: The tool.
    """

    async def call(**arguments: Any) -> str:
        return (await acall(**arguments)).content

    context = inspect.Parameter(CONTEXT, inspect.Parameter.KEYWORD_ONLY, annotation=Context)
    fields = schema_of(metadata).model_fields
    # Servers of other languages have arguments that Python cannot spell, such as `from`.
    spelt = {n: f for n, f in fields.items() if n.isidentifier() and not iskeyword(n)}
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=field.annotation,
            default=inspect.Parameter.empty
            if field.is_required()
            else field.get_default(call_default_factory=True),
        )
        for name, field in spelt.items()
    ]
    if len(spelt) < len(fields):
        parameters.append(inspect.Parameter("others", inspect.Parameter.VAR_KEYWORD))
    call.__name__ = metadata.get_name()
    call.__doc__ = metadata.description
    call.__signature__ = inspect.Signature([context, *parameters])  # type: ignore[attr-defined]
    return call
