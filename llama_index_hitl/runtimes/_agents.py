"""What a served run of LlamaIndex's agents needs, so that it can be put back into memory.

Upstream's own servers cannot serve an agent that waits: the memory of an agent, and what it has
thought and called, are of classes that they refuse to read again; and the event that starts an
agent cannot be written down unless it has every field.
"""

from __future__ import annotations

import json
from typing import Any

from workflows import Workflow
from workflows.context.serializers import JsonSerializer
from workflows.events import StartEvent

from llama_index_hitl._codec import SnapshotSerializer, serializer_for

_AGENTS = "llama_index.core.agent.workflow"
_TICKS = "workflows.runtime.types.ticks"
_VALUE = "__hitl_value"
_START_FIELDS = ("user_msg", "chat_history", "max_iterations")


def is_agent(workflow: Workflow) -> bool:
    """Tell whether a workflow is an agent of LlamaIndex's, or several."""
    return any(_is_of_agents(cls) for cls in type(workflow).__mro__)


def make_servable(workflow: Workflow) -> None:
    """Let the runs of an agent be written down; other workflows are left as they are.

    Args:
        workflow: The workflow. A serializer that it was given is kept.
    """
    if is_agent(workflow) and workflow.serializer is None:
        # It can be given to a workflow when it is made only, and agents do not take it.
        vars(workflow)["_serializer"] = AgentSerializer(serializer_for(workflow))


def complete(start_event: StartEvent | None) -> None:
    """Give the event that starts an agent the fields without which it cannot be written down."""
    if start_event is None or not _is_of_agents(type(start_event)):
        return
    for name in _START_FIELDS:
        if name not in start_event:
            start_event[name] = None


def _is_of_agents(cls: type) -> bool:
    return cls.__module__.startswith(_AGENTS)


class AgentSerializer(JsonSerializer):
    """Writes the values of a run as snapshots do, and its log as upstream does.

    Args:
        values: What writes and reads the values.
    """

    def __init__(self, values: SnapshotSerializer) -> None:
        super().__init__(allowed_types=())
        self._values = values

    def with_types(self, *classes: type[Any]) -> AgentSerializer:
        """Return a serializer that knows these classes too."""
        return AgentSerializer(self._values.with_types(*classes))

    def resolve_class(self, qualified_name: str) -> type[Any]:
        """Return the class of a name in the log.

        Raises:
            ValueError: It is not the name of a class that is allowed.
        """
        try:
            return super().resolve_class(qualified_name)
        except ValueError:
            return self._values.resolve_class(qualified_name)

    def serialize(self, value: Any) -> str:
        """Return a value, or an entry of the log, as JSON text.

        Raises:
            ValueError: It, or something in it, would not come back as it is.
        """
        return json.dumps(self.serialize_value(value))

    def serialize_value(self, value: Any) -> Any:
        """Return a value, or an entry of the log, as JSON.

        Raises:
            ValueError: It, or something in it, would not come back as it is.
        """
        if type(value).__module__ == _TICKS:
            return super().serialize_value(value)
        return {_VALUE: self._values.serialize_value(value)}

    def deserialize_value(self, data: Any) -> Any:
        """Return what was written as this JSON.

        Raises:
            ValueError: It is not what this serializer writes.
        """
        if isinstance(data, dict) and data.keys() == {_VALUE}:
            return self._values.deserialize_value(data[_VALUE])
        return super().deserialize_value(data)
