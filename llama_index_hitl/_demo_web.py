"""What `hitl serve --demo` opens with: five workflows, and a desk where some work is waiting.

The work was asked for by colleagues who are not there, some minutes or days ago. It is put into the
store through runners whose clocks are behind, so that it looks, and runs out of time, as if it had
been there since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from workflows import Context, step
from workflows.events import Event

from llama_index_hitl._demo import (
    BANK_FILE,
    DemoBanking,
    DemoClaim,
    DemoCode,
    DemoDocument,
    DemoReport,
    DemoWorkflow,
    model_at_hand,
    scripted_model,
)
from llama_index_hitl._demo_banking import Bank
from llama_index_hitl.clock import Clock, utc_now
from llama_index_hitl.events import Expired, Rejected
from llama_index_hitl.models import Approve, Decision, Escalate, Priority, Revise
from llama_index_hitl.prebuilt._base import decisions_in, status_of
from llama_index_hitl.prebuilt.claim import ClaimProposed, ClaimResult
from llama_index_hitl.progress import keep_progress
from llama_index_hitl.runner import Runner

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from workflows import Workflow

    from llama_index_hitl.stores.protocol import Store

ROLES = ("claims", "treasury", "lead")
"""Roles that somebody needs to answer everything that waits on the desk."""

ANGLES = ("What is known", "Where people disagree", "What it means in practice")
"""Under which the report workflow researches a topic, one after the other."""

PACE = 0.03
"""Seconds between the pieces of a text of the scripted model, so that one can watch it grow."""

_WRITE_EVERY = 24
"""Characters of a text between two events that say how it goes on."""

_URGENT = timedelta(hours=2)
_USUAL = timedelta(days=1)


class Writing(Event):
    """Says on the stream how a text goes on that the model is writing.

    Attributes:
        delta: What comes next.
    """

    delta: str


class DeskWorkflow(DemoWorkflow):
    """Base of the workflows on the desk.

    Args:
        scripted: Use the scripted model also where there is a key.
        pace: Seconds between the pieces of its texts.
        **options: What `DemoWorkflow` takes.
    """

    def __init__(self, *, scripted: bool = False, pace: float = 0.0, **options: Any) -> None:
        super().__init__(streaming=True, **options)
        self._scripted = scripted
        self._pace = pace

    def get_llm(self) -> LLM:
        """Return the model that there is, or the scripted one."""
        if self._llm is None:
            self._llm = (
                scripted_model(pace=self._pace)
                if self._scripted
                else model_at_hand(self._model, pace=self._pace)
            )
        return self._llm

    async def _streamed(self, llm: LLM, prompt: str) -> str:
        """Take the answer piece by piece, and show it on the stream as it grows."""
        ctx: Context[Any] = Context.get_step_context()
        text, shown = "", 0
        async for piece in await llm.astream_complete(prompt):
            text = piece.text
            if len(text) - shown >= _WRITE_EVERY:
                ctx.write_event_to_stream(Writing(delta=text[shown:]))
                shown = len(text)
        ctx.write_event_to_stream(Writing(delta=text[shown:] + "\n\n"))
        return text


class DeskReport(DeskWorkflow, DemoReport):
    """Research on a topic, which you accept or send back; then a report."""

    async def research(self, topic: str) -> str:
        """Return the findings under each angle, and say on the stream which one it is at."""
        ctx: Context[Any] = Context.get_step_context()
        found = []
        for number, angle in enumerate(ANGLES, start=1):
            self.tell(ctx, f"{angle} ({number} of {len(ANGLES)})")
            prompt = self.filled(self.research_prompt, topic=topic)
            found.append(await self.complete(f"{prompt}\n\nAngle: {angle}"))
        return "\n\n".join(found)


class DeskDocument(DeskWorkflow, DemoDocument):
    """A text, reviewed for its content and then for publication."""


class DeskCode(DeskWorkflow, DemoCode):
    """A piece of Python, approved, or sent back with feedback."""


def _is_urgent(ev: ClaimProposed) -> bool:
    return "hospital" in ev.claim.lower()


def _priority(_: object, ev: ClaimProposed) -> Priority:
    return "urgent" if _is_urgent(ev) else "high"


def _time_to_answer(_: object, ev: ClaimProposed) -> timedelta:
    return _URGENT if _is_urgent(ev) else _USUAL


class DeskClaim(DeskWorkflow, DemoClaim):
    """An insurance claim: the model proposes, the policy says whether you are asked."""

    approval = DemoClaim.approval.replace(
        reviewers=("role:claims",),
        priority=_priority,
        deadline=_time_to_answer,
        on_deadline=Escalate("role:lead"),
        expired=Expired,
        escalate_to="role:lead",
        delegable=True,
        tags=("claims",),
    )

    @step
    async def block(  # type: ignore[override]  # it takes one more event
        self, ev: Rejected | Expired
    ) -> ClaimResult:
        """End without executing anything."""
        decisions = decisions_in(ev)
        return ClaimResult(
            status=status_of(ev), subject=ev.subject, version=ev.revision, decisions=decisions
        )


class DeskBanking(DeskWorkflow, DemoBanking):
    """Deposits and transfers in plain words; those above 100 wait for you."""

    whole = DemoBanking.whole.replace(reviewers=("role:treasury",), priority="high")


def workflows(
    model: str | None = None,
    *,
    scripted: bool = False,
    pace: float = 0.0,
    bank: Bank | None = None,
    clock: Clock = utc_now,
) -> dict[str, Workflow]:
    """Return the workflows on the desk, by name.

    Args:
        model: Name of the OpenAI model; None: the default one.
        scripted: Use the scripted model also where there is a key.
        pace: Seconds between the pieces of its texts.
        bank: Where the money is; None: in a file in the working directory.
        clock: Where the time comes from.
    """
    options: dict[str, Any] = {"model": model, "scripted": scripted, "pace": pace, "clock": clock}
    kinds: dict[str, type[DeskWorkflow]] = {
        "report": DeskReport,
        "document": DeskDocument,
        "code": DeskCode,
        "claim": DeskClaim,
    }
    made: dict[str, Workflow] = {
        name: kind(workflow_name=name, **options) for name, kind in kinds.items()
    }
    account = bank or Bank(BANK_FILE)
    return {**made, "banking": DeskBanking(workflow_name="banking", bank=account, **options)}


# --------------------------------------------------------------------------- what waits


@dataclass(frozen=True)
class Waiting:
    """Work on the desk.

    Attributes:
        name: What its run is called, after `demo-`.
        workflow: Which workflow it is in.
        inputs: What that was started with.
        by: Who started it.
        asked: How long ago.
        decided: What somebody decided since then: who, how long ago, and what.
        claimed_by: Who is looking at it.
    """

    name: str
    workflow: str
    inputs: dict[str, Any]
    by: str
    asked: timedelta
    decided: Sequence[tuple[str, timedelta, Decision]] = field(default=())
    claimed_by: str | None = None


async def fill(store: Store, *, now: datetime, bank: Bank | None = None) -> int:
    """Put the work onto the desk, the oldest first; what is there already is left as it is.

    Args:
        store: Where.
        now: The present instant.
        bank: Where the money is; None: in a file in the working directory.

    Returns:
        How much was put there: 0 for a store that was filled before.
    """
    account = bank or Bank(BANK_FILE)
    filled = 0
    for work in sorted(ON_THE_DESK, key=lambda work: work.asked, reverse=True):
        if await store.run(f"demo-{work.name}") is None:
            await _put(work, store, account, now)
            filled += 1
    return filled


async def _put(work: Waiting, store: Store, bank: Bank, now: datetime) -> None:
    def runner_of(ago: timedelta) -> Runner:
        def clock() -> datetime:
            return now - ago

        made = Runner(store, workflows(scripted=True, bank=bank, clock=clock), clock=clock)
        keep_progress(made)
        return made

    run = await runner_of(work.asked).start(
        work.workflow, run_id=f"demo-{work.name}", by=work.by, tags=["demo"], inputs=work.inputs
    )
    for person, ago, decision in work.decided:
        runner = runner_of(ago)
        (asked,) = await runner.pending(run_id=run.run_id)
        await runner.answer(asked.request_id, decision, by=person, channel="web")
        await runner.advance(run.run_id)
    if work.claimed_by is not None:
        runner = runner_of(timedelta())
        (asked,) = await runner.pending(run_id=run.run_id)
        await runner.claim(asked.request_id, by=work.claimed_by)


_REFUNDS = """\
# Refunds for late deliveries

A delivery is **late** when it arrives after the day that was promised at checkout.

| Days late | What the customer gets |
| --- | --- |
| 1 to 2 | the shipping costs |
| 3 to 6 | a quarter of the price |
| 7 and more | the whole price, if they want to send it back |

Refunds go to the card that was charged, within five working days.
"""

_RELEASE = """\
# Version 2.4

- Approvals can be delegated for the days that you are away.
- Search finds words in attachments.
- Exports of more than 10,000 rows no longer time out.

Nothing has to be done before the update. It takes effect on Thursday at 06:00 UTC.
"""

_RETRY = '''\
import time


def fetch_with_retry(fetch, attempts=5):
    """Call `fetch` until it works, waiting longer each time."""
    for attempt in range(attempts):
        try:
            return fetch()
        except ConnectionError:
            if attempt == attempts - 1:
                raise
            time.sleep(2**attempt)
'''


def _ago(*, days: float = 0, hours: float = 0, minutes: float = 0) -> timedelta:
    return timedelta(days=days, hours=hours, minutes=minutes)


ON_THE_DESK = (
    Waiting(
        "claim-windscreen",
        "claim",
        {"claim": "A stone chipped the windscreen on the motorway. The policy covers glass."},
        by="maria",
        asked=_ago(days=2, hours=3),
    ),
    Waiting(
        "claim-kitchen",
        "claim",
        {
            "claim": "Water damage in the kitchen. The policy lapsed two days before the incident; "
            "the premium was paid one day after it."
        },
        by="maria",
        asked=_ago(hours=23, minutes=18),
    ),
    Waiting(
        "claim-cyclist",
        "claim",
        {
            "claim": "Our client's van knocked down a cyclist, who is in hospital. The client asks "
            "us to pay for the treatment now; the police report is expected next week."
        },
        by="jonas",
        asked=_ago(minutes=9),
    ),
    Waiting(
        "report-oversight",
        "report",
        {"topic": "Human review of AI agents"},
        by="priya",
        asked=_ago(hours=6),
        decided=(
            (
                "maria",
                _ago(hours=4, minutes=30),
                Revise(feedback="Add what a review costs, and who carries it when nobody answers"),
            ),
        ),
    ),
    Waiting(
        "report-passkeys",
        "report",
        {"topic": "Passkeys for a team of twelve"},
        by="jonas",
        asked=_ago(minutes=26),
    ),
    Waiting(
        "document-refunds",
        "document",
        {"topic": "refunds for late deliveries", "content": _REFUNDS},
        by="maria",
        asked=_ago(hours=3, minutes=40),
        decided=(
            (
                "jonas",
                _ago(hours=2, minutes=10),
                Revise(feedback="Say what happens with deliveries that never arrive"),
            ),
        ),
    ),
    Waiting(
        "document-release",
        "document",
        {"topic": "the release notes of version 2.4", "content": _RELEASE},
        by="priya",
        asked=_ago(hours=20),
        decided=(
            ("maria", _ago(hours=1, minutes=15), Approve(comment="Checked against the log.")),
        ),
    ),
    Waiting(
        "code-greeting",
        "code",
        {"task": "greet a user by name"},
        by="jonas",
        asked=_ago(hours=5),
        decided=(
            ("priya", _ago(hours=2), Revise(feedback="Give it types, and say what it returns")),
        ),
    ),
    Waiting(
        "code-retry",
        "code",
        {"task": "call a service until it answers", "code": _RETRY},
        by="maria",
        asked=_ago(minutes=48),
        claimed_by="priya",
    ),
    Waiting(
        "banking-alice",
        "banking",
        {"request": "Check my balance, transfer 50 to Bob and 500 to Alice."},
        by="jonas",
        asked=_ago(minutes=52),
    ),
)
"""What waits, each once."""
