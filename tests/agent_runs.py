"""Agents whose runs wait in a store, each time in a runner as a fresh process would make it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from durable import NOON
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from workflows import Context, Workflow

from llama_index_hitl import ReviewRecord
from llama_index_hitl.runner import Run, Runner
from llama_index_hitl.testing import ManualClock, ScriptedLLM

# Raised by LlamaIndex's own agents and by its store for messages.
agent_test = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:is_running called from within a step:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Bank:
    """The world outside: what was done there stays done, whatever becomes of a process."""

    def __init__(self) -> None:
        self.paid: list[str] = []
        self.state: dict[str, Any] = {}
        """What the agent's state was at last, where it is noted there."""

    async def transfer(self, to: str, amount: int) -> str:
        """Pay somebody."""
        self.paid.append(f"{to} {amount}")
        return f"{to} got {amount}"

    async def noted(self, ctx: Context, to: str, amount: int) -> str:
        """Pay somebody, and note it in the agent's state."""
        async with ctx.store.edit_state() as state:
            self.state = state["state"] = {**state["state"], to: amount}
        return await self.transfer(to, amount)

    def balance(self) -> int:
        """Say how much there is."""
        return 1_000


class Service:
    """A model behind an address: it goes on with its script for whoever calls it next.

    Args:
        replies: What it replies, in order.
    """

    def __init__(self, replies: Iterable[Any]) -> None:
        self.asked: list[list[ChatMessage]] = []
        self._replies = iter(replies)

    def client(self) -> ScriptedLLM:
        """Return a new model object for it."""
        return ScriptedLLM(reply=self._reply)

    def _reply(self, messages: list[ChatMessage]) -> Any:
        self.asked.append(messages)
        return next(self._replies)

    @property
    def results(self) -> dict[str, str]:
        """The results of tools that it was last sent, by the id of the call.

        Raises:
            AssertionError: A call has more than one.
        """
        found = [m for m in self.asked[-1] if m.role is MessageRole.TOOL]
        ids = [str(m.additional_kwargs["tool_call_id"]) for m in found]
        assert len(ids) == len(set(ids)), "each call has one result"
        return {id_: str(m.content) for id_, m in zip(ids, found, strict=True)}


class Office:
    """Where people and agents meet: a store, and nothing else that outlives a call.

    Args:
        store: The store.
        replies: What the model replies, over all the calls.
        make: Makes the workflows, with a model.
    """

    def __init__(
        self, store: Any, replies: Iterable[Any], make: Callable[[ScriptedLLM], Mapping[str, Any]]
    ) -> None:
        self.store = store
        self.model = Service(replies)
        self.clock = ManualClock(NOON)
        self._make = make

    def runner(self, **options: Any) -> Runner:
        """Return a runner with workflows, agents and models that have never run."""
        workflows: dict[str, Workflow] = dict(self._make(self.model.client()))
        for workflow in workflows.values():
            object.__setattr__(workflow, "clock", self.clock)
        return Runner(self.store, workflows, clock=self.clock, **options)

    async def start(self, name: str, **inputs: Any) -> Run:
        return await self.runner().start(name, **inputs)

    async def advance(self, run_id: str) -> Run:
        return await self.runner().advance(run_id)

    async def answer(self, record: ReviewRecord, decision: Any, by: str = "ann") -> Any:
        return await self.runner().answer(record.request_id, decision, by=by)

    async def result(self, run_id: str) -> Any:
        return await self.runner().result(run_id)

    async def open(self, run_id: str) -> dict[str, ReviewRecord]:
        """Return what a run waits for, by the payee."""
        page = await self.runner().pending(run_id=run_id)
        return {record.request.subject.data["to"]: record for record in page.items}
