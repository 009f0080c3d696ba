"""Workflows as a user of the command line has them: what `--app` names in its tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import BaseModel
from workflows import Context, Workflow, step
from workflows.events import Event, StartEvent, StopEvent

from llama_index_hitl import (
    Approved,
    Clock,
    Expired,
    Question,
    Rejected,
    Review,
    Reviewer,
    ReviewRequest,
    Revision,
    ask,
    utc_now,
)
from llama_index_hitl.authorizers import Action
from llama_index_hitl.effects import once
from llama_index_hitl.errors import NotAllowed
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import Notice, SqlStore


class Draft(Event):
    text: str


class Payment(Event):
    amount: int
    to: str


class Address(BaseModel):
    street: str
    city: str


class Article(Workflow):
    """Written, revised until good, published; a process may hang while it publishes."""

    @step
    async def write(self, ev: StartEvent | Revision) -> Draft:
        return Draft(text=f"{ev.topic}." if isinstance(ev, StartEvent) else f"{ev.feedback}!")

    approval = Review(
        Draft, revise=Revision, title=lambda flow, ev: f"Publish {ev.text}", tags=("news",)
    )

    @step
    async def publish(self, ev: Approved) -> StopEvent:
        if os.environ.get("SHOP_HANGS"):
            sys.stdout.write("publishing\n")
            sys.stdout.flush()
            sys.stdin.read()
        return StopEvent(result=ev.subject.text)


class ChangedArticle(Workflow):
    """The same after a step was renamed."""

    @step
    async def write(self, ev: StartEvent | Revision) -> Draft:
        return Draft(text="")

    approval = Review(Draft, revise=Revision)

    @step
    async def print_it(self, ev: Approved) -> StopEvent:
        return StopEvent(result=ev.subject.text)


class Chatty(Workflow):
    """Prints what it does."""

    @step
    async def write(self, ev: StartEvent) -> Draft:
        return Draft(text="A chat.")

    approval = Review(Draft)

    @step
    async def publish(self, ev: Approved) -> StopEvent:
        sys.stdout.write("Hello from a step!\n")
        return StopEvent(result="said")


class Staged(Workflow):
    """Takes two lawyers."""

    @step
    async def write(self, ev: StartEvent) -> Draft:
        return Draft(text="A contract.")

    legal = Review(Draft, reviewers="role:legal", quorum=2, delegable=True, priority="high")

    @step
    async def publish(self, ev: Approved) -> StopEvent:
        return StopEvent(result="published")


class Payments(Workflow):
    """Pays once; a process may die while it pays."""

    @step
    async def propose(self, ev: StartEvent) -> Payment:
        return Payment(amount=ev.amount, to="alice")

    approval = Review(Payment, reviewers="erin", editable=True, rejected=Rejected)

    @step
    async def pay(self, ev: Approved | Rejected) -> StopEvent:
        if isinstance(ev, Rejected):
            return StopEvent(result=f"not paid: {ev.outcome.reason}")
        amount = ev.subject.amount
        paid = await once(ev.effect_key, lambda: transfer(amount), not_done=(ConnectionError,))
        return StopEvent(result=paid)


def transfer(amount: int) -> str:
    if Path("bank_is_closed").exists():
        raise ConnectionError("the bank is closed")
    with Path("transfers.txt").open("a", encoding="utf-8") as transfers:
        transfers.write(f"{amount}\n")
    if Path("line_is_cut").exists():
        raise TimeoutError("no answer from the bank")
    if os.environ.get("SHOP_DIES"):
        os._exit(9)
    return f"paid {amount}"


class Many(Workflow):
    """Asks many questions at once."""

    @step
    async def propose(self, ctx: Context, ev: StartEvent) -> Payment | None:
        for number in range(ev.count):
            ctx.send_event(Payment(amount=number, to="alice"))
        return None

    approval = Review(Payment)

    @step
    async def collect(self, ctx: Context, ev: Approved) -> StopEvent | None:
        return None if ev.subject.amount >= 0 else StopEvent()


class Delivery(Workflow):
    """Asks in the middle of a step."""

    @step
    async def deliver(self, ctx: Context, ev: StartEvent) -> StopEvent:
        answer = await ask(ctx, Question(title="Where to?", response=Address))
        return StopEvent(result=answer.response.city)


class Offer(Workflow):
    """Stands for two days."""

    @step
    async def propose(self, ev: StartEvent) -> Draft:
        return Draft(text="An offer.")

    approval = Review(Draft, reviewers="alice", deadline=timedelta(days=2), expired=Expired)

    @step
    async def close(self, ev: Approved | Expired) -> StopEvent:
        return StopEvent(result=type(ev).__name__)


FLOWS: Mapping[str, type[Workflow]] = {
    "article": Article,
    "chatty": Chatty,
    "staged": Staged,
    "many": Many,
    "payments": Payments,
    "delivery": Delivery,
    "offer": Offer,
}


def workflows() -> dict[str, Workflow]:
    return {name: flow(timeout=None) for name, flow in FLOWS.items()}


def workflows_at(clock: Clock) -> dict[str, Workflow]:
    """Return workflows that go by a clock."""
    flows = workflows()
    for flow in flows.values():
        flow.clock = clock  # type: ignore[attr-defined]
    return flows


async def workflows_later() -> dict[str, Workflow]:
    return workflows()


def changed() -> dict[str, Workflow]:
    return {"article": ChangedArticle(timeout=None)}


READY = workflows()

# --------------------------------------------------------------------------- runners


class OnlyAnn:
    """Lets nobody but Ann do anything."""

    async def authorize(
        self, by: Reviewer, action: Action, *, run_id: str, request: ReviewRequest | None
    ) -> Reviewer:
        if by.id != "ann":
            raise NotAllowed(run_id, by=by.id, reason="only ann may")
        return by


class Scribe:
    """Writes down what it is told."""

    name = "scribe"

    async def notify(self, notice: Notice) -> None:
        with Path("told.txt").open("a", encoding="utf-8") as told:  # noqa: ASYNC230 - it is short
            told.write(f"{notice.kind}\n")


async def own_runner() -> Runner:
    store = SqlStore("own.db")
    return Runner(store, workflows(), authorizer=OnlyAnn(), notifiers=[Scribe()])


def in_an_hour() -> datetime:
    return utc_now() + timedelta(hours=1)


def runner_in_an_hour() -> Runner:
    """Return a runner for which the leases of dead processes have ended."""
    return Runner(SqlStore("hitl.db"), workflows(), clock=in_an_hour)


# --------------------------------------------------------------------------- what is no app

number = 5
numbers = {"five": 5}
instance = Article(timeout=None)


def broken() -> None:
    raise RuntimeError("no\nconfiguration")


def workflow_of(name: str) -> Workflow:
    return workflows()[name]
