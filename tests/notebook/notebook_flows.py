"""Workflows that the kernel of the tests runs."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, Field
from workflows import Context, Workflow, step
from workflows.events import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
)

from llama_index_hitl import Approved, Evidence, Expired, Rejected, Responded, Review, Revision

HOSTILE = '<img src=x onerror="window.hacked = 1"><script>window.hacked = 2</script> $x^2$'

TEXT = """\
Mice swim **well**, and further than one would think.

| Kind | Far, in metres |
| --- | ---: |
| House mouse | 300 |
| Wood mouse | 500 |

They said nothing of it.
"""

CODE = """\
def swim(metres: int) -> str:
    # As far as one can see.
    return f"The mouse has swum {metres} metres."
"""


class Article(Event):
    """What is published."""

    title: Annotated[str, Field(max_length=60)]
    text: Annotated[str, Field(json_schema_extra={"format": "markdown"})]
    code: Annotated[str, Field(json_schema_extra={"format": "code", "language": "python"})] = CODE
    pages: Annotated[int, Field(ge=1, le=20, description="Of a printed issue.")] = 2
    kind: Literal["news", "essay"] = "news"


class Publishing(Workflow):
    """Writes, and publishes what is approved."""

    @step
    async def write(self, ev: StartEvent) -> Article:
        return Article(title=ev.get("title", "Mice at sea"), text=ev.get("text", TEXT))

    @step
    async def again(self, ev: Revision) -> Article:
        text = ev.subject.text.replace("They said nothing of it.", f"They said: {ev.feedback}")
        return Article(title=ev.subject.title, text=text, pages=3)

    editor = Review(
        Article,
        title=lambda _, ev: f"Publish {ev.title}?",
        body="An article is ready. *Nothing* is published before you say so.",
        evidence=(
            Evidence(
                title="Swimming of small mammals",
                body="House mice swam up to **300 m** in still water.",
                source="https://example.org/swimming",
                score=0.87,
            ),
        ),
        editable=True,
        revise=Revision,
        max_revisions=2,
        rejected=Rejected,
        priority="high",
        tags=("science",),
    )

    @step
    async def publish(self, ev: Approved | Rejected) -> StopEvent:
        if isinstance(ev, Rejected):
            return StopEvent(result="not published")
        return StopEvent(result=f"published: {ev.subject.title}, {ev.subject.pages} pages")


class Payment(Event):
    amount: int
    to: str


class Payments(Workflow):
    """Several payments, each of which somebody must approve."""

    @step
    async def plan(self, ctx: Context, ev: StartEvent) -> Payment | None:
        for amount in ev.get("amounts"):
            ctx.send_event(Payment(amount=amount, to=f"shop {amount}"))
        return None

    desk = Review(Payment, title=lambda _, ev: f"Pay {ev.amount}?", rejected=Rejected)

    @step
    async def pay(self, ctx: Context, ev: Approved | Rejected) -> StopEvent | None:
        count = await ctx.store.get("count", default=0) + 1
        paid = await ctx.store.get("paid", default=0)
        if isinstance(ev, Approved):
            paid += ev.subject.amount
        await ctx.store.set("paid", paid)
        await ctx.store.set("count", count)
        return StopEvent(result=paid) if count == 3 else None


class Board(Workflow):
    """What two of the board must agree to, in time."""

    @step
    async def plan(self, ev: StartEvent) -> Payment:
        return Payment(amount=7, to="the shop")

    board = Review(
        Payment,
        title="Buy a boat?",
        reviewers=("ann", "bob", "cai"),
        quorum=2,
        deadline=timedelta(hours=1),
        expired=Expired,
    )

    @step
    async def pay(self, ev: Approved | Expired) -> StopEvent:
        return StopEvent(result="bought" if isinstance(ev, Approved) else "too late")


class Booking(BaseModel):
    """What it takes to book a trip."""

    nights: Annotated[int, Field(ge=1, le=14, description="How many nights.")]
    leaves: Annotated[date, Field(description="The day of the journey.")]
    by: Literal["train", "boat"]
    breakfast: bool
    notes: str | None = None


class Trips(Workflow):
    """A trip, about which somebody has to be asked."""

    @step
    async def plan(self, ev: StartEvent) -> Payment:
        return Payment(amount=1, to="the sea")

    booking = Review(Payment, title="When to travel?", response=Booking, responded=Responded)

    @step
    async def book(self, ev: Responded) -> StopEvent:
        return StopEvent(result=dict(ev.response))


class Plain(Workflow):
    """Knows nothing of reviews."""

    @step
    async def begin(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent(prefix=f"What is your favourite colour? {HOSTILE}")

    @step
    async def end(self, ev: HumanResponseEvent) -> StopEvent:
        return StopEvent(result=f"said: {ev.response}")


class HostileFlow(Workflow):
    """Whatever is shown of it means harm."""

    @step
    async def begin(self, ev: StartEvent) -> Article:
        return Article(title=HOSTILE[:60], text=HOSTILE, code=HOSTILE)

    gate = Review(
        Article,
        title=HOSTILE,
        body=HOSTILE,
        evidence=(Evidence(title=HOSTILE, body=HOSTILE, source="javascript:window.hacked=3"),),
        requester="<b>mallory</b>",
        tags=("<b>tag</b>",),
        editable=True,
        rejected=Rejected,
    )

    @step
    async def end(self, ev: Approved | Rejected) -> StopEvent:
        return StopEvent(result=type(ev).__name__)
