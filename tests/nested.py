"""Workflows within workflows, shared by the tests of children.

What is done is written into a list, or into a file where processes are killed.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

from durable import NOON, Plain
from workflows import Context, Workflow, step
from workflows.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent

from llama_index_hitl import Approve, Approved, Question, Review, ask
from llama_index_hitl.children import run_child
from llama_index_hitl.effects import once
from llama_index_hitl.rules import always
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import Store
from llama_index_hitl.testing import ManualClock
from llama_index_hitl.testing.faults import reach

DONE: list[str] = []
"""What was done, in order."""


class Booking(Event):
    city: str
    ledger: str = ""


class Progress(Event):
    said: str


def note(line: str, ledger: str = "") -> str:
    """Write down that something was done."""
    if ledger:
        with Path(ledger).open("a") as file:
            file.write(f"{line}\n")
    else:
        DONE.append(line)
    return line


class Hotel(Workflow):
    """Looks for a room, has it approved, and books it once."""

    @step
    async def look(self, ctx: Context, ev: StartEvent) -> Booking:
        note(f"look in {ev.city}", ev.get("ledger", ""))
        ctx.write_event_to_stream(Progress(said=f"looking in {ev.city}"))
        return Booking(city=ev.city, ledger=ev.get("ledger", ""))

    approval = Review(
        Booking, reviewers=["alice", "bob"], deadline=timedelta(days=1), editable=True
    )

    @step
    async def book(self, ev: Approved) -> StopEvent:
        booking = ev.subject

        def effect() -> str:
            booked = note(f"book {booking.city}", booking.ledger)
            reach("while the room is booked")
            return booked

        reach("before the room is booked")
        room = await once(ev.effect_key, effect)
        reach("after the room is booked")
        return StopEvent(result=room)


class Trip(Workflow):
    """Has one child."""

    @step
    async def plan(self, ctx: Context, ev: StartEvent) -> StopEvent:
        city, ledger = ev.get("city", "Rome"), ev.get("ledger", "")
        done = await run_child(ctx, Hotel(timeout=None), city=city, ledger=ledger)
        if isinstance(done, Event):
            return StopEvent(result=f"no trip: {type(done).__name__}")
        return StopEvent(result=f"trip: {done}")


class Tour(Workflow):
    """Has a child that has a child."""

    @step
    async def sell(self, ctx: Context, ev: StartEvent) -> StopEvent:
        return StopEvent(result=f"tour of {await run_child(ctx, Trip(timeout=None))}")


class Gathered(Workflow):
    """Has two children at the same time, in one step."""

    @step
    async def plan(self, ctx: Context, ev: StartEvent) -> StopEvent:
        rooms = await asyncio.gather(
            *(
                run_child(ctx, Hotel(timeout=None), key=city, city=city)
                for city in ("Rome", "Paris")
            )
        )
        return StopEvent(result=rooms)


class Side(Workflow):
    """Has two children at the same time, in two calls of a step."""

    @step
    async def plan(self, ctx: Context, ev: StartEvent) -> Booking | None:
        for city in ("Rome", "Paris"):
            ctx.send_event(Booking(city=city))
        return None

    @step(num_workers=2)
    async def book(self, ctx: Context, ev: Booking) -> Progress:
        return Progress(said=await run_child(ctx, Hotel(timeout=None), city=ev.city))

    @step
    async def collect(self, ctx: Context, ev: Progress) -> StopEvent | None:
        found = ctx.collect_events(ev, [Progress] * 2)
        return found and StopEvent(result=sorted(e.said for e in found))


class Row(Workflow):
    """Has two children one after the other, then asks itself."""

    @step
    async def plan(self, ctx: Context, ev: StartEvent) -> StopEvent:
        rome = await run_child(ctx, Hotel(timeout=None), city="Rome")
        paris = await run_child(ctx, Hotel(timeout=None), city="Paris")
        pay = await ask(ctx, Question(title="Pay for both?"))
        note("pay")
        return StopEvent(result=[rome, paris, pay.approved])


class Committee(Workflow):
    """Two of the board must agree."""

    @step
    async def write(self, ev: StartEvent) -> Booking:
        return Booking(city="Rome")

    board = Review(Booking, reviewers="role:board", quorum=2)

    @step
    async def agree(self, ev: Approved) -> StopEvent:
        return StopEvent(result=sorted(answer.by.id for answer in ev.answers))


class Passing(Workflow):
    """A rule approves without asking."""

    @step
    async def write(self, ev: StartEvent) -> Booking:
        return Booking(city="Rome")

    board = Review(Booking, when=always("approve", reason="it is small"))

    @step
    async def agree(self, ev: Approved) -> StopEvent:
        return StopEvent(result="agreed")


class Visa(Workflow):
    """Asks inline."""

    @step
    async def apply(self, ctx: Context, ev: StartEvent) -> StopEvent:
        said = await ask(ctx, Question(title="Grant a visa?", reviewers="carol"))
        return StopEvent(result=said.approved)


class Greeter(Workflow):
    """Waits without knowing of this package."""

    @step
    async def greet(self, ctx: Context, ev: StartEvent) -> StopEvent:
        said = await ctx.wait_for_event(
            HumanResponseEvent, waiter_event=InputRequiredEvent(prefix="Your name?")
        )
        return StopEvent(result=f"Hello, {said.response}!")


class Failing(Workflow):
    @step
    async def fail(self, ev: StartEvent) -> StopEvent:
        raise OSError("the hotel has burnt down")


class Desk(Workflow):
    """Has a gate of its own, beside a child that has one."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Progress | Booking:
        ctx.send_event(Booking(city="Oslo"))
        return Progress(said="go")

    @step
    async def travel(self, ctx: Context, ev: Progress) -> StopEvent | None:
        note(await run_child(ctx, Hotel(timeout=None), city="Rome"))
        return None

    approval = Review(Booking)

    @step
    async def end(self, ev: Approved) -> StopEvent:
        return StopEvent(result=ev.subject.city)


def within(child: type[Workflow]) -> type[Workflow]:
    """Return a workflow that has nothing but one child."""

    class Outer(Workflow):
        @step
        async def run_it(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await run_child(ctx, child(timeout=None)))

    return Outer


WORKFLOWS: dict[str, type[Workflow]] = {
    cls.__name__.lower(): cls for cls in (Trip, Tour, Gathered, Side, Row, Desk)
}
for cls in (Committee, Passing, Visa, Greeter, Plain, Failing):
    WORKFLOWS[f"within {cls.__name__.lower()}"] = within(cls)


def workflows() -> dict[str, Any]:
    """Return them as a fresh process would make them."""
    return {name: make(timeout=None) for name, make in WORKFLOWS.items()}


async def one_trip(store: Store, run_id: str, ledger: str, later: str = "0") -> Any:
    """Start a trip, approve the hotel in the run within it, and go on to the end."""
    clock = ManualClock(NOON + timedelta(hours=float(later)))
    runner = Runner(store, workflows(), clock=clock)
    await runner.start("trip", run_id=run_id, inputs={"ledger": ledger})
    for record in await runner.pending(run_id=run_id):
        await runner.answer(record.request_id, Approve(), by="alice")
    await runner.advance(run_id)
    return await runner.result(run_id)
