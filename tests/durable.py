"""Workflows that wait in a store, and small means to drive them; shared by the tests of runners."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from workflows import Context, Workflow, step
from workflows.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent

from llama_index_hitl import (
    Approved,
    Expire,
    Question,
    Rejected,
    Remind,
    Review,
    ReviewRecord,
    Revision,
    Widen,
    ask,
)
from llama_index_hitl.audit import AuditRow
from llama_index_hitl.effects import once
from llama_index_hitl.runner import Runner
from llama_index_hitl.testing import ManualClock

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


class Draft(Event):
    text: str = "A draft."


class Payment(Event):
    number: int
    amount: int = 100


class LegalApproved(Approved):
    """Through the first stage."""


class Article(Workflow):
    """Written, revised until good, approved, published."""

    @step
    async def write(self, ev: StartEvent | Revision) -> Draft:
        said = "" if isinstance(ev, StartEvent) else f" {ev.feedback}"
        return Draft(text=f"About {ev.get('topic', 'it')}.{said}")

    approval = Review(Draft, revise=Revision, editable=True)

    @step
    async def publish(self, ev: Approved) -> StopEvent:
        return StopEvent(result=ev.subject.text)


class Staged(Workflow):
    """Two stages: two lawyers, then one chief who is neither."""

    @step
    async def write(self, ev: StartEvent) -> Draft:
        return Draft()

    legal = Review(Draft, reviewers="role:legal", quorum=2, approved=LegalApproved)
    chief = Review(LegalApproved, reviewers="role:chief", distinct_from="legal")

    @step
    async def publish(self, ev: Approved) -> StopEvent:
        return StopEvent(result="published")


class Laddered(Workflow):
    """Reminds after an hour, asks the chief too after a day, and gives up after two."""

    @step
    async def write(self, ev: StartEvent) -> Draft:
        return Draft()

    approval = Review(
        Draft,
        reviewers="alice",
        ladder={
            timedelta(hours=1): Remind(),
            timedelta(days=1): Widen(to=("role:chief",)),
            timedelta(days=2): Expire(),
        },
    )

    @step
    async def publish(self, ev: Approved) -> StopEvent:
        return StopEvent(result="published")


class Payments(Workflow):
    """Three payments at one gate; each is paid once, when it is approved."""

    bank: ClassVar[list[str]] = []
    broken: ClassVar[bool] = False

    @step
    async def plan(self, ctx: Context, ev: StartEvent) -> Payment | None:
        for number in range(3):
            ctx.send_event(Payment(number=number))
        return None

    approval = Review(Payment, rejected=Rejected)

    @step
    async def pay(self, ctx: Context, ev: Approved | Rejected) -> StopEvent | None:
        said = f"refused {ev.subject.number}"
        if isinstance(ev, Approved):
            number = ev.subject.number
            said = await once(ev.effect_key, lambda: self._transfer(number))
        paid = [*await ctx.store.get("paid", []), said]
        await ctx.store.set("paid", paid)
        return StopEvent(result=sorted(paid)) if len(paid) == 3 else None

    def _transfer(self, number: int) -> str:
        if type(self).broken:
            raise ConnectionError("the bank is closed")
        type(self).bank.append(f"paid {number}")
        return f"paid {number}"


class Asking(Workflow):
    """Asks in the middle of a step."""

    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        answer = await ask(ctx, Question(title="Shall I?"))
        return StopEvent(result=answer.approved)


class Plain(Workflow):
    """Knows nothing of this package."""

    @step
    async def question(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent(prefix="What is your name?")

    @step
    async def greet(self, ev: HumanResponseEvent) -> StopEvent:
        return StopEvent(result=f"Hello, {ev.response}!")


class Answered(HumanResponseEvent):
    who: str
    yes: bool


class Waiting(Workflow):
    """Knows nothing of this package, and waits three times at once for the same kind of event."""

    calls: ClassVar[list[int]] = []

    @step
    async def plan(self, ctx: Context, ev: StartEvent) -> Payment | None:
        for number in range(3):
            ctx.send_event(Payment(number=number))
        return None

    @step(num_workers=3)
    async def confirm(self, ctx: Context, ev: Payment) -> Draft:
        type(self).calls.append(ev.number)
        answer = await ctx.wait_for_event(
            Answered,
            waiter_event=InputRequiredEvent(prefix=f"Pay {ev.number}?"),
            waiter_id=f"pay-{ev.number}",
            requirements={"who": f"owner-{ev.number}"},
        )
        return Draft(text=f"{ev.number}:{answer.who}:{answer.yes}")

    @step
    async def collect(self, ctx: Context, ev: Draft) -> StopEvent | None:
        drafts = ctx.collect_events(ev, [Draft] * 3)
        return StopEvent(result=sorted(d.text for d in drafts)) if drafts else None


WORKFLOWS: dict[str, type[Workflow]] = {
    "article": Article,
    "staged": Staged,
    "laddered": Laddered,
    "payments": Payments,
    "asking": Asking,
    "plain": Plain,
    "waiting": Waiting,
}


def runner_on(store: Any, *, clock: ManualClock | None = None, **options: Any) -> Runner:
    """Return a runner as a fresh process would make it: with new workflows, on the same store."""
    clock = clock or ManualClock(NOON)
    workflows = {}
    for name, make in WORKFLOWS.items():
        workflows[name] = make(timeout=None)
        workflows[name].clock = clock  # type: ignore[attr-defined]
    return Runner(store, options.pop("workflows", workflows), clock=clock, **options)


async def only(runner: Runner, run_id: str) -> ReviewRecord:
    """Return the one request that a run has open."""
    (record,) = await runner.pending(run_id=run_id)
    return record


def kinds(rows: Iterable[AuditRow]) -> Sequence[str]:
    """Return what audit rows are about."""
    return [str(row.entry.kind) for row in rows]
