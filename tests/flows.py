"""Example workflows, and the means to drive a run from outside; shared by the tests."""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, Field
from workflows import Context, Workflow, step
from workflows.events import (
    Event,
    StartEvent,
    StepStateChanged,
    StopEvent,
    UnhandledEvent,
    WorkflowIdleEvent,
)
from workflows.handler import WorkflowHandler

from llama_index_hitl import (
    Approved,
    Rejected,
    Review,
    Reviewer,
    ReviewRefusedEvent,
    ReviewRequestEvent,
    ReviewUpdatedEvent,
    Revision,
)

E = TypeVar("E", bound=Event)
Make = Callable[[], Workflow]

# --------------------------------------------------------------------------- driving a run


class Barrier(Event):
    """No step accepts it: upstream says so on the stream, after all that was sent before it."""


async def through_json(
    make: Make, handler: WorkflowHandler, renamed: Mapping[str, str] | None = None
) -> WorkflowHandler:
    """Write a run as JSON, end it here, and go on with it in a new instance of its workflow.

    `renamed` says which of its steps have other names there.
    """
    stored = json.loads(json.dumps(handler.ctx.to_dict()))
    await handler.cancel_run()
    names = renamed or {}
    stored["workers"] = {names.get(name, name): kept for name, kept in stored["workers"].items()}
    workflow = make()
    return workflow.run(ctx=Context.from_dict(workflow, stored))


class Live:
    """A run as its host sees it.

    Args:
        make: Makes the workflow, such as its class; restoring the run makes a new one.
        restoring: Before every `tell` the run goes through a JSON snapshot.
        settle: After a restore, wait until nothing can advance before anything is sent.
        **start: What the run starts with.
    """

    def __init__(
        self, make: Make, *, restoring: bool = False, settle: bool = False, **start: Any
    ) -> None:
        self.make = make
        self.restoring = restoring
        self.settle = settle
        self.seen: list[Event] = []
        self.ended = False
        self._begin(make().run(**start))

    def _begin(self, handler: WorkflowHandler) -> None:
        self.handler = handler
        self._stream = handler.stream_events(expose_internal=True)

    async def _next(self) -> Event:
        event = await anext(self._stream)
        self.seen.append(event)
        self.ended = isinstance(event, StopEvent)
        return event

    def send(self, *events: Event) -> None:
        """Send without waiting for anything."""
        for event in events:
            self.handler.ctx.send_event(event)

    async def heard(self) -> Event:
        """Wait until the run has received all that was sent; its steps may still be at work."""
        self.send(Barrier())
        event = await self._next()
        while not self.ended and not _is_barrier(event):
            event = await self._next()
        return event

    async def pause(self) -> list[Event]:
        """Wait until nothing can advance, or the run has ended; return what was on the stream."""
        first = len(self.seen)
        while not self.ended:
            event = await self.heard()
            if self.ended or event.idle:
                break
            while not self.ended and not isinstance(event, WorkflowIdleEvent):
                event = await self._next()
        return self.seen[first:]

    async def until(
        self, kind: type[E], *where: Callable[[E], bool], after: int | None = None
    ) -> E:
        """Wait for an event on the stream, from now on or after a position in `seen`."""
        checked = len(self.seen) if after is None else after
        while True:
            while checked < len(self.seen):
                event = self.seen[checked]
                checked += 1
                if isinstance(event, kind) and all(holds(event) for holds in where):
                    return event
            if self.ended:
                raise AssertionError(f"the run ended without {kind.__name__}")
            await self._next()

    async def until_step(self, name: str, state: str) -> StepStateChanged:
        """Wait until a step has begun (`running`) or ended (`not_running`) a call."""
        return await self.until(
            StepStateChanged, lambda e: e.name == name and e.step_state.value == state
        )

    async def tell(self, *events: Event) -> list[Event]:
        """Send events to the run, which waits, and return what came of them."""
        if self.restoring:
            await self.restore()
        self.send(*events)
        return await self.pause()

    async def restore(self) -> None:
        """Go through a JSON snapshot, into a new instance of the workflow."""
        if self.ended:
            return
        self._begin(await through_json(self.make, self.handler))
        if self.settle:
            await self.pause()

    async def migrate(self, make: Make, renamed: Mapping[str, str]) -> None:
        """Go through a JSON snapshot into another workflow, with other names for some steps."""
        self.make = make
        self._begin(await through_json(make, self.handler, renamed))
        await self.pause()

    async def open(self) -> list[ReviewRequestEvent]:
        """Wait until nothing can advance and return the questions that came up since the start."""
        await self.pause()
        return asked(self.seen)

    async def result(self) -> Any:
        """Return the result of the run, which must have ended."""
        assert self.ended, "the run waits"
        return await self.handler

    async def close(self) -> None:
        """End the run if it still waits."""
        if not self.handler.is_done():
            await self.handler.cancel_run()


async def a_moment() -> None:
    """Let everything go on that can, where there is no run left to tell when it is over."""
    for _ in range(20):
        await asyncio.sleep(0)


def _is_barrier(event: Event) -> bool:
    return isinstance(event, UnhandledEvent) and event.event_type == Barrier.__name__


def of_kind(events: Iterable[Event], kind: type[E]) -> list[E]:
    """Return the events of one kind."""
    return [event for event in events if isinstance(event, kind)]


def asked(events: Iterable[Event]) -> list[ReviewRequestEvent]:
    """Return the questions among some events."""
    return of_kind(events, ReviewRequestEvent)


def codes(events: Iterable[Event]) -> list[str]:
    """Return the codes of the refusals among some events."""
    return [event.code for event in of_kind(events, ReviewRefusedEvent)]


def statuses(events: Iterable[Event]) -> list[str]:
    """Return what the updates among some events say."""
    return [event.outcome.status.value for event in of_kind(events, ReviewUpdatedEvent)]


class SetClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> datetime:
        """Move on, and return the new instant."""
        self.now += timedelta(**by)
        return self.now


def person(name: str, *roles: str) -> Reviewer:
    """Return a reviewer with roles."""
    return Reviewer(id=name, roles=roles)


# --------------------------------------------------------------------------- example workflows


class Draft(Event):
    """A text under review."""

    text: str


class Transfer(Event):
    """A payment under review."""

    to: str
    amount: float = Field(default=10, gt=0)


class Settled(Event):
    """A payment that was made or refused."""

    to: str
    paid: bool


class LegalApproved(Approved):
    """The first of two stages let it pass."""


class Note(BaseModel):
    """A structured answer."""

    grade: int = Field(ge=1, le=5)
    why: str = ""


def drafts(**options: Any) -> type[Workflow]:
    """Return a workflow with one gate, `review`, on a draft; the result is the approved event."""

    class Drafts(Workflow):
        written: ClassVar[list[str]] = []
        published: ClassVar[list[Approved]] = []

        @step
        async def write(self, ev: StartEvent) -> Draft:
            self.written.append(ev.get("topic", "AI"))
            return Draft(text=ev.get("topic", "AI"))

        review = Review(Draft, **options)

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            self.published.append(ev)
            return StopEvent(result=ev)

    return made(Drafts)


def revised(**options: Any) -> type[Workflow]:
    """Return a workflow whose gate, `review`, sends drafts back to be written again."""

    class Revised(Workflow):
        @step
        async def write(self, ev: StartEvent | Revision) -> Draft:
            if isinstance(ev, Revision):
                return Draft(text=f"{ev.subject.text}, {ev.feedback}")
            return Draft(text=ev.get("topic", "AI"))

        review = Review(Draft, revise=Revision, **options)

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            return StopEvent(result=ev)

    return made(Revised)


def transfers(count: int = 3, **options: Any) -> type[Workflow]:
    """Return a workflow with several requests open at one gate, `release`, at once.

    The result is a dict of who was paid; `paid` lists the payments in order.
    """

    class Transfers(Workflow):
        paid: ClassVar[list[str]] = []
        orders: ClassVar[list[int]] = []

        @step
        async def order(self, ctx: Context, ev: StartEvent) -> Transfer | None:
            self.orders.append(count)
            for number in range(count):
                ctx.send_event(Transfer(to=f"payee {number}"))
            return None

        release = Review(Transfer, **{"rejected": Rejected, **options})

        @step
        async def pay(self, ev: Approved) -> Settled:
            self.paid.append(ev.subject.to)
            return Settled(to=ev.subject.to, paid=True)

        @step
        async def keep(self, ev: Rejected) -> Settled:
            return Settled(to=ev.subject.to, paid=False)

        @step
        async def join(self, ctx: Context, ev: Settled) -> StopEvent | None:
            settled = ctx.collect_events(ev, [Settled] * count)
            return None if settled is None else StopEvent({e.to: e.paid for e in settled})

    return made(Transfers)


def stages(**options: Any) -> type[Workflow]:
    """Return a workflow with two gates, `legal` and then `editor`."""

    class Stages(Workflow):
        passed: ClassVar[list[str]] = []

        @step
        async def write(self, ev: StartEvent) -> Draft:
            return Draft(text=ev.get("topic", "AI"))

        legal = Review(Draft, approved=LegalApproved)
        editor = Review(LegalApproved, **options)

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            self.passed.append(ev.subject.text)
            return StopEvent(result=ev)

    return made(Stages)


def made(workflow: type[Workflow]) -> type[Workflow]:
    """Let the class make instances without a time limit."""

    class WithoutLimit(workflow):  # type: ignore[misc,valid-type]
        def __init__(self, **options: Any) -> None:
            super().__init__(**{"timeout": None, **options})

    return WithoutLimit
