"""Agents whose runs are answered, paused and resumed by hand; for tests of guarded tools."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from workflows import Workflow
from workflows.events import Event
from workflows.handler import WorkflowHandler

from llama_index_hitl import (
    Answer,
    Approve,
    Edit,
    ReviewRequest,
    ReviewResponseEvent,
)
from llama_index_hitl._upstream import let_arrive, streamed, until_idle
from llama_index_hitl.models import Decision
from llama_index_hitl.snapshots import PausedRun, parts_of, pause, resume
from llama_index_hitl.testing.llm import ScriptedLLM, ToolCall

E = TypeVar("E", bound=Event)
NOW = datetime(2030, 1, 1, tzinfo=UTC)

# Raised by LlamaIndex's own agents.
agent_tests = pytest.mark.filterwarnings(
    "ignore::pydantic.warnings.PydanticDeprecationWarning",
    "ignore:is_running called from within a step:DeprecationWarning",
)


class Hand:
    """A run as its host sees it: it waits, is answered, and goes on until it waits again.

    Args:
        make: Makes the workflow; a restored run gets a new one.
        restoring: Whether every answer comes to another instance, after a pause and a resume.
        **start: What the run starts with.
    """

    def __init__(
        self, make: Callable[[], Workflow], *, restoring: bool = False, **start: Any
    ) -> None:
        self.make = make
        self.restoring = restoring
        self.seen: list[Event] = []
        self.handler: WorkflowHandler = make().run(**start)

    async def waiting(self) -> list[ReviewRequest]:
        """Wait until nothing can advance, and return the open requests; none: the run is over."""
        await let_arrive(self.handler)
        state = await until_idle(self.handler)
        self.seen += streamed(self.handler)
        if state is None:
            return []
        return [r.request for r in parts_of(self.handler, state)[1]]

    async def paused(self) -> PausedRun:
        """Take the run out of memory, as JSON, and back into a value."""
        await self.waiting()
        paused = await pause(self.handler)
        assert isinstance(paused, PausedRun), f"the run is over: {paused}"
        return PausedRun.model_validate_json(paused.model_dump_json())

    async def restart(self, *answers: Answer) -> None:
        """Go through JSON into a new instance of the workflow, with these answers."""
        self.handler = resume(self.make(), await self.paused(), answers)

    async def tell(self, *answers: Answer) -> list[ReviewRequest]:
        """Give answers, all at once, and return what is open then."""
        if self.restoring:
            await self.restart(*answers)
        else:
            self.send(*answers)
        return await self.waiting()

    def send(self, *answers: Answer) -> None:
        """Send answers to the live run, whatever they are."""
        for answer in answers:
            self.handler.ctx.send_event(ReviewResponseEvent(answer=answer))

    async def decide(
        self, decision: Decision | None = None, *, where: str = "", by: str = "alice"
    ) -> list[ReviewRequest]:
        """Take a decision about the one request whose arguments mention `where`."""
        found = [r for r in await self.waiting() if where in subject_text(r)]
        assert len(found) == 1, f"{len(found)} requests mention {where!r}"
        return await self.tell(to(found[0], decision, by=by))

    def of_kind(self, kind: type[E]) -> list[E]:
        """Return the events of one kind that were on the stream."""
        self.seen += streamed(self.handler)
        return [event for event in self.seen if isinstance(event, kind)]

    async def result(self) -> Any:
        """Return the result of the run, which must be over."""
        assert await self.waiting() == [], "the run waits"
        assert self.handler.is_done() or await until_idle(self.handler) is None
        return await self.handler

    async def close(self) -> None:
        """End the run if it still waits."""
        if not self.handler.is_done():
            await self.handler.cancel_run()


def to(request: ReviewRequest, decision: Decision | None = None, *, by: str = "alice") -> Answer:
    """Return an answer to a request; by default an approval."""
    return Answer.to(request, decision or Approve(), by=by, at=NOW)


def edit(request: ReviewRequest, **changes: Any) -> Answer:
    """Return an answer that changes some of the arguments."""
    assert request.subject is not None
    return to(request, Edit(subject={**request.subject.data, **changes}))


def subject_text(request: ReviewRequest) -> str:
    """Return the arguments of a request as text."""
    return "" if request.subject is None else str(request.subject.data)


def arguments(request: ReviewRequest) -> dict[str, Any]:
    """Return the arguments that a request shows."""
    assert request.subject is not None
    return dict(request.subject.data)


def agent(tools: list[Any], *replies: Any, **options: Any) -> Callable[[], FunctionAgent]:
    """Return what makes an agent, with one script for all of its instances.

    The script is the attribute `llm` of what is returned.
    """
    llm = options.pop("llm", None) or ScriptedLLM([*replies])

    def make() -> FunctionAgent:
        return FunctionAgent(tools=tools, llm=llm, timeout=None, **options)

    make.llm = llm  # type: ignore[attr-defined]
    return make


def call(name: str, id: str | None = None, /, **arguments: Any) -> ToolCall:
    """Return a tool call of a model."""
    return ToolCall(name=name, arguments=arguments, id=id)


def results(messages: list[ChatMessage]) -> dict[str, str]:
    """Return the tool results that a model is given, by the id of the call."""
    found: dict[str, str] = {}
    for message in messages:
        if message.role is MessageRole.TOOL:
            key = message.additional_kwargs["tool_call_id"]
            assert key not in found, f"two results of {key}"
            found[key] = message.content or ""
    return found
