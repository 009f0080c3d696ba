"""What the desks of the browser's tests are about; also for processes of their own."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, Field
from workflows import Context, Workflow, step
from workflows.events import Event, StartEvent, StopEvent

from llama_index_hitl import Approved, Evidence, Rejected, Responded, Review, Revision
from llama_index_hitl.prebuilt import ProgressEvent


class NoteStart(StartEvent):
    text: str


class Noted(Event):
    text: str = Field(json_schema_extra={"format": "markdown"})


class Note(Workflow):
    """A note, approved, rejected or sent back."""

    @step
    async def write(self, ev: NoteStart) -> Noted:
        return Noted(text=ev.text)

    @step
    async def write_again(self, ev: Revision) -> Noted:
        return Noted(text=f"{ev.subject.text}\n\nAlso: {ev.feedback}")

    approval = Review(
        Noted,
        title=lambda _, ev: f"Note: {ev.text.splitlines()[0]}",
        reviewers="role:desk",
        revise=Revision,
        rejected=Rejected,
    )

    @step
    async def keep(self, ctx: Context, ev: Approved | Rejected) -> StopEvent:
        if isinstance(ev, Rejected):
            return StopEvent(result="The note was thrown away.")
        return StopEvent(result=f"The note is kept: {ev.subject.text}")


class Kind(StrEnum):
    GIFT = "gift"
    INVOICE = "invoice"


class PaymentStart(StartEvent):
    amount: Annotated[int, Field(ge=1, le=1000, description="In whole euros.")]
    recipient: Annotated[str, Field(min_length=2)]


class Payment(Event):
    amount: Annotated[int, Field(ge=1, le=1000, description="In whole euros.")]
    recipient: Annotated[str, Field(min_length=2)]
    kind: Kind = Kind.INVOICE


class Payments(Workflow):
    """A payment, which may be changed; two of the desk must agree."""

    @step
    async def propose(self, ev: PaymentStart) -> Payment:
        return Payment(amount=ev.amount, recipient=ev.recipient)

    approval = Review(
        Payment,
        title=lambda _, ev: f"Pay {ev.amount} to {ev.recipient}",
        body="Is this what was **ordered**?",
        evidence=(Evidence(title="Order 17", body="Two chairs, *oak*.", source="the shop"),),
        reviewers="role:desk",
        editable=True,
        abstainable=True,
        delegable=True,
        escalate_to="role:chief",
        deadline=timedelta(hours=2),
        rejected=Rejected,
        priority="high",
        tags=("money",),
    )

    @step
    async def pay(self, ev: Approved | Rejected) -> StopEvent:
        paid = isinstance(ev, Approved)
        said = f"Paid {ev.subject.amount} to {ev.subject.recipient}." if paid else "Not paid."
        return StopEvent(result=said)


class Votes(Workflow):
    """A payment that two of the desk must agree to."""

    @step
    async def propose(self, ev: PaymentStart) -> Payment:
        return Payment(amount=ev.amount, recipient=ev.recipient)

    approval = Review(
        Payment,
        title=lambda _, ev: f"Agree on {ev.amount} for {ev.recipient}",
        reviewers="role:desk",
        quorum=2,
    )

    @step
    async def pay(self, ev: Approved) -> StopEvent:
        return StopEvent(result="Agreed.")


class TripStart(StartEvent):
    to: str


class Trip(Event):
    to: str


class Booking(BaseModel):
    """What it takes to book a trip."""

    nights: Annotated[int, Field(ge=1, le=14, description="How many nights.")]
    leaves: Annotated[date, Field(description="The day of the journey.")]
    travels_by: Annotated[Kind, Field(description="What it is booked as.")] = Kind.GIFT
    breakfast: bool = False


class Trips(Workflow):
    """A trip, about which somebody has to be asked."""

    @step
    async def plan(self, ev: TripStart) -> Trip:
        return Trip(to=ev.to)

    booking = Review(
        Trip,
        title=lambda _, ev: f"When to travel to {ev.to}?",
        reviewers="role:desk",
        response=Booking,
        responded=Responded,
    )

    @step
    async def book(self, ev: Responded) -> StopEvent:
        return StopEvent(result=f"Booked {ev.response.nights} nights.")


class Paced(Workflow):
    """Says one thing after the other, each when the test wants it to.

    Attributes:
        steps: Let it say the next thing. Of processes of their own nobody can ask for that, so
            there it says all at once.
    """

    SAID = ("Looking for paper", "Sharpening the pencil", "Writing the first line")

    def __init__(self) -> None:
        super().__init__(timeout=None)
        self.steps = asyncio.Semaphore(0)

    @step
    async def write(self, ctx: Context, ev: NoteStart) -> Noted:
        for said in self.SAID:
            await self.steps.acquire()
            ctx.write_event_to_stream(ProgressEvent(message=said))
        return Noted(text=ev.text)

    approval = Review(Noted, title=lambda _, ev: f"Note: {ev.text}", reviewers="role:desk")

    @step
    async def keep(self, ev: Approved) -> StopEvent:
        return StopEvent(result=f"The note is kept: {ev.subject.text}")


LONG = """\
# Tea, and all that comes with it

Two cups, **please**, and _not_ the `green` one; see <https://example.org/tea>.

- A word without any end: Donaudampfschifffahrtsgesellschaftskapitaenswitwenrentenantragsformular

| Kind | Where it grows | How long to steep, in minutes | What people say of it |
| --- | --- | --- | --- |
| Assam | in the north-east of India | 3 to 5 | malty, strong, good with milk |

```python
def steep(kind: str, minutes: float = 3.0, *, temperature: float = 95.0) -> "Cup of a kind":
    return Cup(kind).steeped(minutes, temperature)  # longer than any phone is wide
```
"""
"""A text with all that a text can have."""

HOSTILE = """\
<script>window.hacked = 1</script>
<img src="x" onerror="window.hacked = 2">
<svg onload="window.hacked = 3"><script>window.hacked = 3</script></svg>
[a](javascript:window.hacked=4) [b](data:text/html,<script>1</script>) [c](&#106;avascript:alert(1))
![d](https://elsewhere.example/d.png) <https://elsewhere.example/> https://elsewhere.example/plain
<a href="javascript:window.hacked=5" onclick="window.hacked=5">e</a>
<iframe srcdoc="<script>parent.hacked = 6</script>" src="https://elsewhere.example/"></iframe>
"><script>window.hacked = 7</script><p title="' onmouseover='window.hacked = 8
</textarea></title></script><script>window.hacked = 9</script>
<style>@import "https://elsewhere.example/x.css"; * { background: url(//elsewhere.example) }
</style>
<base href="https://elsewhere.example/">
<meta http-equiv="refresh" content="0;url=//elsewhere.example">
<form action="https://elsewhere.example/">
<button formaction="javascript:alert(1)">f</button></form>
<math><mtext><table><mglyph>
<style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(1)&gt;">
{{ 7 * 7 }} ${7 * 7} \x00\x1b[31m \u202e desrever \u2028
```html
<script>window.hacked = 10</script>
```
"""
"""What would do something, anywhere, if it became more than text."""

_LINE = HOSTILE.replace("\n", " ").replace("\x00", "")[:900]


class HostileStart(StartEvent):
    text: str = HOSTILE


class Hostile(Event):
    markdown: str = Field(json_schema_extra={"format": "markdown"})
    code: str = Field(json_schema_extra={"format": "code", "language": "html"})
    plain: str
    more: dict[str, list[str]]


class HostileFlow(Workflow):
    """Whatever is shown of it means harm. <script>window.hacked = 11</script>"""

    @step
    async def begin(self, ctx: Context, ev: HostileStart) -> Hostile:
        ctx.write_event_to_stream(ProgressEvent(message=_LINE))
        return _hostile(ev.text)

    @step
    async def again(self, ctx: Context, ev: Revision) -> Hostile:
        ctx.write_event_to_stream(ProgressEvent(message=ev.feedback))
        return _hostile(ev.feedback)

    approval = Review(
        Hostile,
        title=_LINE,
        body=HOSTILE,
        evidence=(Evidence(title=_LINE, body=HOSTILE, source="javascript:window.hacked=12"),),
        reviewers=("role:desk", "<script>window.hacked=13</script>"),
        requester="<img src=x onerror=window.hacked=14>",
        revise=Revision,
        editable=True,
        delegable=True,
        rejected=Rejected,
        tags=("<script>window.hacked=15</script>",),
    )

    @step
    async def end(self, ev: Approved | Rejected) -> StopEvent:
        return StopEvent(result={_LINE: [HOSTILE], "markdown": HOSTILE})


def _hostile(text: str) -> Hostile:
    return Hostile(markdown=text, code=text, plain=text, more={_LINE: [text, text]})


def workflows() -> dict[str, Workflow]:
    """Return the workflows, by name."""
    kinds: dict[str, type[Workflow]] = {
        "note": Note,
        "payment": Payments,
        "votes": Votes,
        "trip": Trips,
        "hostile": HostileFlow,
    }
    made = {name: kind(timeout=None) for name, kind in kinds.items()}
    return {**made, "paced": Paced()}
