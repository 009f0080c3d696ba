"""What LlamaIndex's agents and tools put into fields that do not hold it by their annotations.

Nothing here imports `llama_index.core`: as long as it is not loaded, no value is one of its own.
"""

from __future__ import annotations

import sys
from typing import Any

from pydantic import BaseModel

RAW = "raw_output"
CALLS = "tool_calls"

_TOOLS = "llama_index.core.tools.types"
_EVENTS = "llama_index.core.agent.workflow.workflow_events"


def is_tool_output(value: object) -> bool:
    """Tell whether this is what a tool gave."""
    home = sys.modules.get(_TOOLS)
    return home is not None and type(value) is home.ToolOutput


def with_results(cls: type[BaseModel], values: Any) -> BaseModel:
    """Return a model with these values.

    What an agent has come to lists the results of its tools where its annotation has the calls;
    pydantic refuses them there, also those that it has just written. They are put in as they are.

    Args:
        cls: The model's class.
        values: Its values; the results of tools among them are read already.

    Raises:
        pydantic.ValidationError: They do not fit the model.
    """
    home = sys.modules.get(_EVENTS)
    listed = values.get(CALLS) if home is not None and cls is home.AgentOutput else None
    if home is None or not isinstance(listed, list):
        return _validated(cls, values)
    results = {n: call for n, call in enumerate(listed) if type(call) is home.ToolCallResult}
    calls = [call for n, call in enumerate(listed) if n not in results]
    made: Any = _validated(cls, {**values, CALLS: calls})
    for n, result in results.items():  # in order, so that each comes to its own place
        made.tool_calls.insert(n, result)
    output: BaseModel = made
    return output


def _validated(cls: type[BaseModel], values: Any) -> BaseModel:
    return cls.model_validate(values, by_alias=True, by_name=True)
