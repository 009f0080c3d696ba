"""What a served run of LlamaIndex's agents needs, so that it can be put back into memory.

Upstream's own servers cannot serve an agent that waits. The memory of an agent, and what it has
thought and called, are of classes that they refuse to read again. The event that starts an agent
cannot be written down unless it has every field, and what a tool has returned cannot unless it is
JSON: the run stops then, and nobody is told. And an agent puts messages into the memory that it
was given, without putting that back: where the state of a run is kept in a database, what is given
is a copy, and the messages are gone.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python
from workflows import Workflow
from workflows.context.serializers import JsonSerializer
from workflows.events import StartEvent
from workflows.runtime.runtime_decorators import BaseInternalRunAdapterDecorator
from workflows.runtime.types.plugin import InternalRunAdapter

from llama_index_hitl._codec import SnapshotSerializer, serializer_for

_AGENTS = "llama_index.core.agent.workflow"
_TICKS = "workflows.runtime.types.ticks"
_VALUE = "__hitl_value"
_MEMORY = "memory"
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
        _return_json_from_tools(workflow)


def _return_json_from_tools(agent: Any) -> None:
    """Let the tools of an agent return text in place of what JSON cannot carry.

    The text is all that a model is told of it.
    """
    call_tool = agent._call_tool  # noqa: SLF001 - there is no other place that all calls pass

    async def called(*args: Any, **kwargs: Any) -> Any:
        output = await call_tool(*args, **kwargs)
        try:
            to_jsonable_python(output.raw_output)
        except PydanticSerializationError:
            return output.model_copy(update={"raw_output": output.content})
        return output

    vars(agent)["_call_tool"] = called


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


def keeping_memory(adapter: InternalRunAdapter, workflow: Workflow) -> InternalRunAdapter:
    """Return a run's own side; that of an agent keeps what is put into the agent's memory.

    Args:
        adapter: The run's own side.
        workflow: Its workflow.
    """
    serializer = workflow.serializer
    if not isinstance(serializer, AgentSerializer):
        return adapter
    return _KeepingMemory(adapter, serializer)


class _KeepingMemory(BaseInternalRunAdapterDecorator):
    """Gives the steps of a run one and the same memory, and writes it down when a step ends.

    Args:
        decorated: The run's own side.
        serializer: Writes the memory.
    """

    def __init__(self, decorated: InternalRunAdapter, serializer: AgentSerializer) -> None:
        super().__init__(decorated)
        self._serializer = serializer
        self._live: Any = None
        self._written = ""

    def get_state_store(self, namespace: tuple[str, ...] = ()) -> Any:
        """Return the state of the run; that of a run within it is left as it is."""
        store = super().get_state_store(namespace)
        return store if store is None or namespace else _Store(store, self)

    async def finalize_step(self) -> None:
        """Write down what a step has put into the memory, together with what else it has done.

        Raises:
            UnserializableState: It cannot be written down.
        """
        if self._live is not None and self._serializer.serialize(self._live) != self._written:
            await super().get_state_store().set(_MEMORY, self._live)  # type: ignore[union-attr]
            self.keep(self._live)
        await super().finalize_step()

    def keep(self, memory: Any) -> None:
        """Take note of the memory, as it is stored now.

        Raises:
            UnserializableState: It cannot be written down.
        """
        self._written = self._serializer.serialize(memory)
        self._live = memory

    async def memory(self, store: Any, default: Any) -> Any:
        """Return the memory."""
        if self._live is None:
            found = await store.get(_MEMORY, default)
            if found is default:
                return found
            self.keep(found)
        return self._live


class _Store:
    """The state of a run, except for the memory in it."""

    def __init__(self, store: Any, keeper: _KeepingMemory) -> None:
        self._store = store
        self._keeper = keeper

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def get(self, path: str, default: Any = ...) -> Any:
        if path == _MEMORY:
            return await self._keeper.memory(self._store, default)
        return await self._store.get(path, default)

    async def set(self, path: str, value: Any) -> None:
        if path == _MEMORY:
            self._keeper.keep(value)
        await self._store.set(path, value)
