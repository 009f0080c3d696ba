"""A workflow whose rules skip people, and means to drive it; shared by the tests of roll-outs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from durable import NOON
from workflows import Workflow, step
from workflows.events import Event, StartEvent, StopEvent

from llama_index_hitl import Approve, Approved, Rejected, Review, ReviewRecord, Revision
from llama_index_hitl.models import Decision
from llama_index_hitl.rules import Rule
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores.protocol import RequestQuery
from llama_index_hitl.testing import ManualClock


class Transfer(Event):
    amount: int
    to: str = "Ada"


class Transfers(Workflow):
    """One transfer a run; which rule decides is said when the workflow is made."""

    def __init__(self, rule: Rule | None = None, **options: Any) -> None:
        super().__init__(timeout=None, **options)
        self.rule = rule

    @step
    async def plan(self, ev: StartEvent | Revision) -> Transfer:
        return Transfer(amount=ev.amount) if isinstance(ev, StartEvent) else Transfer(amount=1)

    approval = Review(
        Transfer,
        when=lambda flow, ev: flow.rule,
        title=lambda flow, ev: f"Pay {ev.amount}",
        tags=("money",),
        revise=Revision,
        rejected=Rejected,
        editable=True,
        requester=lambda flow, ev: "rita",
    )

    @step
    async def pay(self, ev: Approved | Rejected) -> StopEvent:
        return StopEvent(result=ev.subject.amount if isinstance(ev, Approved) else "refused")


def bank_on(
    store: Any, rule: Rule | None = None, *, clock: ManualClock | None = None, **options: Any
) -> Runner:
    """Return a runner for transfers, as a fresh process would make it."""
    clock = clock or ManualClock(NOON)
    flow = Transfers(rule)
    flow.clock = clock  # type: ignore[attr-defined]
    return Runner(store, {"transfer": flow}, clock=clock, **options)


async def pay(runner: Runner, amount: int, decision: Decision | None = None) -> ReviewRecord:
    """Ask for a transfer, let a person decide where one is asked, and return the first request."""
    run = await runner.start("transfer", amount=amount)
    (*opened,) = await runner.pending(run_id=run.run_id)
    if not opened:
        (stored,) = await stored_of(runner, run.run_id)
        return stored
    if decision is not None:
        await runner.answer(opened[0].request_id, decision, by="alice")
        await runner.advance(run.run_id)
    return await runner.get(opened[0].request_id)


async def stored_of(runner: Runner, run_id: str) -> Iterable[ReviewRecord]:
    """Return the closed requests of a run."""
    page = await runner.store.requests(RequestQuery(open=False, run_id=run_id))
    return [stored.record for stored in page]


OK = Approve(comment="fine")
