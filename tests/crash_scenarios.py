"""What is played in processes that are killed, and against each other.

Each scenario does what a host does, again from the beginning when it is played again: it looks
first at what is there already. So it can be taken up wherever a process has died.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from durable import NOON
from workflows import Context, Workflow, step
from workflows.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent

from llama_index_hitl import (
    Approve,
    Approved,
    Edit,
    Expire,
    Expired,
    Reject,
    Rejected,
    Remind,
    Respond,
    Review,
    ReviewRecord,
    Revise,
    Revision,
    Widen,
)
from llama_index_hitl.effects import once
from llama_index_hitl.errors import AnswerRefused, HitlError, RunBusy
from llama_index_hitl.progress import keep_progress
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores.protocol import Notice, RunStatus, Store
from llama_index_hitl.testing import ManualClock
from llama_index_hitl.testing.faults import reach

# --------------------------------------------------------------------------- the workflows


class Payment(Event):
    """Something to approve."""

    number: int
    ledger: str
    text: str = "first"


class Payout(Workflow):
    """Payments at one gate, each paid once; a line in a file stands for the money that moves."""

    @step
    async def plan(self, ctx: Context, ev: StartEvent) -> Payment | None:
        await ctx.store.set("count", ev.get("count", 1))
        if says := ev.get("says"):
            ctx.write_event_to_stream(Event(message=says))
        for number in range(ev.get("count", 1)):
            ctx.send_event(Payment(number=number, ledger=ev.ledger))
        return None

    approval = Review(
        Payment,
        rejected=Rejected,
        expired=Expired,
        revise=Revision,
        editable=True,
        reviewers=("alice", "even", "odd"),
        ladder={
            timedelta(hours=1): Remind(),
            timedelta(days=1): Widen(to=("bob",)),
            timedelta(days=2): Expire(),
        },
    )

    @step
    async def rewrite(self, ev: Revision) -> Payment:
        return ev.subject.model_copy(update={"text": ev.feedback})

    @step
    async def pay(self, ctx: Context, ev: Approved | Rejected | Expired) -> StopEvent | None:
        payment: Payment = ev.subject
        said = f"not {payment.number}"
        if isinstance(ev, Approved):
            reach("in the step")
            said = await once(ev.effect_key, lambda: transfer(payment.ledger, payment))
        done = [*await ctx.store.get("done", []), said]
        await ctx.store.set("done", done)
        return StopEvent(result=sorted(done)) if len(done) == await ctx.store.get("count") else None


def transfer(ledger: str, payment: Payment) -> str:
    """Move money: add a line to a file."""
    reach("before the money has moved")
    line = f"paid {payment.number} {payment.text}"
    append(ledger, line)
    reach("after the money has moved")
    return line


class Plain(Workflow):
    """Knows nothing of this package."""

    @step
    async def question(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent(prefix="What is your name?")

    @step
    async def greet(self, ctx: Context, ev: HumanResponseEvent) -> StopEvent:
        other = await ctx.wait_for_event(
            HumanResponseEvent, waiter_event=InputRequiredEvent(prefix="And yours?"), waiter_id="2"
        )
        return StopEvent(result=f"{ev.response} and {other.response}")


class Failing(Workflow):
    """Fails as long as there is no file that says that it is mended."""

    @step
    async def plan(self, ev: StartEvent) -> Payment:
        return Payment(number=0, ledger=ev.ledger)

    approval = Review(Payment)

    @step
    async def pay(self, ev: Approved) -> StopEvent:
        if not is_mended(ev.subject.ledger):
            raise RuntimeError("the press is on fire")
        return StopEvent(result=await once(ev.effect_key, lambda: transfer_of(ev)))


def transfer_of(ev: Approved) -> str:
    return transfer(ev.subject.ledger, ev.subject)


class Doubtful(Workflow):
    """Its effect breaks off in the middle, as long as there is no file that says it is mended."""

    @step
    async def plan(self, ev: StartEvent) -> Payment:
        return Payment(number=0, ledger=ev.ledger)

    approval = Review(Payment)

    @step
    async def pay(self, ev: Approved) -> StopEvent:
        def effect() -> str:
            if not is_mended(ev.subject.ledger):
                raise ConnectionResetError("did it arrive?")
            return transfer_of(ev)

        return StopEvent(result=await once(ev.effect_key, effect))


def mend(ledger: str) -> None:
    """Make what fails go well from now on."""
    Path(ledger + ".mended").touch()


def is_mended(ledger: str) -> bool:
    return Path(ledger + ".mended").exists()


def append(path: str, line: str) -> None:
    """Add a line to a file in one piece, whoever else does so at the same time."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(file, line.encode() + b"\n")
    finally:
        os.close(file)


class FileNotifier:
    """Tells a file."""

    name = "file"

    def __init__(self, path: str) -> None:
        self._path = path

    async def notify(self, notice: Notice) -> None:
        append(self._path, f"{notice.notice_id} {notice.kind}")


def runner_on(store: Store, clock: ManualClock, *, notices: str | None = None) -> Runner:
    """Return a runner as a new process makes it."""
    return Runner(
        store,
        {
            "payout": Payout(timeout=None),
            "plain": Plain(timeout=None),
            "failing": Failing(timeout=None),
            "doubtful": Doubtful(timeout=None),
        },
        clock=clock,
        notifiers=[FileNotifier(notices)] if notices else None,
    )


# --------------------------------------------------------------------------- scenarios of a crash


async def one_answer(store: Store, run_id: str, ledger: str, later: str = "0") -> Any:
    """Start, approve, pay, end."""
    runner = await _begun(store, run_id, ledger, later)
    await _answer_all(runner, run_id, Approve())
    return await _finished(runner, run_id)


async def queued(store: Store, run_id: str, ledger: str, later: str = "0") -> Any:
    """Enqueued, begun by whoever comes, looked at by somebody, approved; what it says is kept."""
    runner = runner_on(store, _clock(later))
    keep_progress(runner)
    inputs = {"ledger": ledger, "says": "Half way"}
    await runner.enqueue("payout", by="operator", run_id=run_id, inputs=inputs)
    await _advanced(runner, run_id)
    for record in await runner.pending(run_id=run_id):
        await runner.claim(record.request_id, by="alice")
    await _answer_all(runner, run_id, Approve())
    return await _finished(runner, run_id)


async def several_answers(store: Store, run_id: str, ledger: str, later: str = "0") -> Any:
    """Three requests; two are answered and told at once, then the third."""
    runner = await _begun(store, run_id, ledger, later, count=3)
    for number, decision in ((0, Approve()), (1, Reject(comment="no"))):
        await _answer(runner, run_id, number, decision)
    await _advanced(runner, run_id)
    await _answer(runner, run_id, 2, Approve())
    return await _finished(runner, run_id)


async def revised(store: Store, run_id: str, ledger: str, later: str = "0") -> Any:
    """A round of revision, then an edit of what comes back."""
    runner = await _begun(store, run_id, ledger, later)
    for record in await runner.pending(run_id=run_id):
        if record.request.revision == 1:
            await runner.answer(record.request_id, Revise(feedback="second"), by="alice")
    await _advanced(runner, run_id)
    for record in await runner.pending(run_id=run_id):
        edited = {**record.request.subject.data, "text": "edited"}
        await runner.answer(record.request_id, Edit(subject=edited), by="alice")
    return await _finished(runner, run_id)


async def refused(store: Store, run_id: str, ledger: str, later: str = "0") -> Any:
    """Somebody who may not answers first."""
    runner = await _begun(store, run_id, ledger, later)
    for record in await runner.pending(run_id=run_id):
        try:
            await runner.answer(record.request_id, Reject(), by="mallory")
        except AnswerRefused:
            continue
    await _answer_all(runner, run_id, Approve())
    return await _finished(runner, run_id)


async def swept(store: Store, run_id: str, ledger: str, later: str = "0") -> Any:
    """Nobody answers: reminded, widened, expired, each at its time."""
    runner = await _begun(store, run_id, ledger, later)
    for after in (timedelta(hours=2), timedelta(days=1), timedelta(days=2)):
        await _sweep_at(store, run_id, after, later)
    return await _finished(runner, run_id)


async def withdrawn(store: Store, run_id: str, ledger: str, later: str = "0") -> Any:
    """One of two requests is taken back, the other one approved."""
    runner = await _begun(store, run_id, ledger, later, count=2)
    for record in await runner.pending(run_id=run_id):
        if _number(record) == 0:
            await runner.withdraw(record.request_id, by="operator", reason="paid in cash")
    await _answer(runner, run_id, 1, Approve())
    return await _finished(runner, run_id)


async def cancelled(store: Store, run_id: str, ledger: str, later: str = "0") -> Any:
    """One of two requests is rejected, and before the run is told it is cancelled."""
    runner = await _begun(store, run_id, ledger, later, count=2)
    run = await runner.get_run(run_id)
    if run.status is not RunStatus.CANCELLED:
        await _answer(runner, run_id, 0, Reject())
        await runner.cancel(run_id, by="operator", reason="no money")
    return (await runner.get_run(run_id)).status


async def mended(store: Store, run_id: str, ledger: str, later: str = "0") -> Any:
    """A step fails, what is wrong is mended, and the run is tried again."""
    runner = await _begun(store, run_id, ledger, later, workflow="failing")
    await _answer_all(runner, run_id, Approve())
    await _advanced(runner, run_id)
    mend(ledger)
    if (await runner.get_run(run_id)).status is RunStatus.FAILED:
        await runner.retry(run_id, by="operator")
    return await _finished(runner, run_id)


async def doubted(store: Store, run_id: str, ledger: str, later: str = "0") -> Any:
    """An effect breaks off; somebody finds out that it has not happened, and the run goes on."""
    runner = await _begun(store, run_id, ledger, later, workflow="doubtful")
    await _answer_all(runner, run_id, Approve())
    await _advanced(runner, run_id)
    if (await runner.get_run(run_id)).status is RunStatus.FAILED:
        await runner.retry(run_id, by="operator")  # which finds the effect in doubt
    mend(ledger)
    for effect in await runner.effects_in_doubt():
        if effect.run_id == run_id:
            paid = lines_of(ledger)  # if this was settled before, it may have happened by now
            result = paid[-1] if paid else None
            await runner.settle(effect.key, by="operator", happened=bool(paid), result=result)
    if (await runner.get_run(run_id)).status is RunStatus.FAILED:
        await runner.retry(run_id, by="operator")
    return await _finished(runner, run_id)


async def plain(store: Store, run_id: str, ledger: str, later: str = "0") -> Any:
    """Two questions of a workflow that knows nothing of this package."""
    runner = await _begun(store, run_id, ledger, later, workflow="plain")
    for _ in range(2):
        for record in await runner.pending(run_id=run_id):
            said = Respond(response="Ada" if "your name" in record.request.title else "Bob")
            await runner.answer(record.request_id, said, by="alice")
        await _advanced(runner, run_id)
    return await _finished(runner, run_id)


async def notified(store: Store, run_id: str, ledger: str, later: str = "0") -> Any:
    """As `one_answer`, and somebody is told of everything."""
    runner = await _begun(store, run_id, ledger, later, notices=ledger + ".notices")
    await runner.notify()
    await _answer_all(runner, run_id, Approve())
    result = await _finished(runner, run_id)
    await runner.notify()
    return result


SCENARIOS = (
    one_answer,
    queued,
    several_answers,
    revised,
    refused,
    swept,
    withdrawn,
    cancelled,
    mended,
    doubted,
    plain,
    notified,
)


def lines_of(path: str) -> list[str]:
    """Return the lines of a file; none if it is not there."""
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _clock(later: str) -> ManualClock:
    return ManualClock(NOON + timedelta(hours=float(later)))


async def _begun(
    store: Store,
    run_id: str,
    ledger: str,
    later: str,
    *,
    workflow: str = "payout",
    count: int = 1,
    notices: str | None = None,
) -> Runner:
    runner = runner_on(store, _clock(later), notices=notices)
    inputs = {"ledger": ledger, "count": count}
    await runner.start(workflow, run_id=run_id, inputs=inputs)
    return runner


def _number(record: ReviewRecord) -> int:
    subject = record.request.subject
    return -1 if subject is None else int(str(subject.data["number"]))


async def _answer(runner: Runner, run_id: str, number: int, decision: Any) -> None:
    for record in await runner.pending(run_id=run_id):
        if _number(record) == number:
            await runner.answer(record.request_id, decision, by="alice")


async def _answer_all(runner: Runner, run_id: str, decision: Any) -> None:
    for record in await runner.pending(run_id=run_id):
        await runner.answer(record.request_id, decision, by="alice")


async def _advanced(runner: Runner, run_id: str) -> None:
    await runner.advance(run_id)


async def _finished(runner: Runner, run_id: str) -> Any:
    await runner.advance(run_id)
    result = await runner.result(run_id)
    return result if isinstance(result, list | str) else type(result).__name__


async def _sweep_at(store: Store, run_id: str, after: timedelta, later: str) -> None:
    """Sweep when the request of this run has so much time behind it."""
    runner = runner_on(store, _clock(later))
    for record in await runner.pending(run_id=run_id):
        at = record.request.created_at + after
        await runner.sweep(at)
        await runner.advance(run_id)


# --------------------------------------------------------------------------- scenarios of a race


def _wait_for(gate: str) -> None:
    """Wait until the test opens the gate, a FIFO, so that all begin at once."""
    with Path(gate).open("rb"):
        pass


async def answer_many(store: Store, gate: str, who: str, *request_ids: str) -> Sequence[str]:
    """Answer every one of these; return those of which this was the answer."""
    runner = Runner(store, clock=ManualClock(NOON))
    _wait_for(gate)
    won = []
    for request_id in request_ids:
        decision = Approve() if who == "even" else Reject()
        try:
            await runner.answer(request_id, decision, by=who)
        except AnswerRefused:
            continue
        won.append(request_id)
    return won


async def advance_many(store: Store, gate: str, *run_ids: str) -> Sequence[str]:
    """Advance every one of these; return those that were advanced here."""
    runner = runner_on(store, ManualClock(NOON))
    _wait_for(gate)
    done = []
    for run_id in run_ids:
        before = (await runner.get_run(run_id)).status
        try:
            after = await runner.advance(run_id)
        except RunBusy:
            continue
        if before is RunStatus.WAITING and after.status is RunStatus.FINISHED:
            done.append(run_id)
    return done


async def start_many(store: Store, gate: str, *given: str) -> Sequence[str]:
    """Start runs with these ids and ledgers; return the statuses that came back."""
    runner = runner_on(store, ManualClock(NOON))
    _wait_for(gate)
    return [
        (await runner.start("payout", run_id=run_id, inputs={"ledger": ledger})).status
        for run_id, ledger in zip(given[::2], given[1::2], strict=True)
    ]


async def sweep_after(store: Store, gate: str, hours: str) -> Sequence[str]:
    """Sweep a few times when so much time has passed; return what was done, by request."""
    runner = Runner(store, clock=ManualClock(NOON + timedelta(hours=float(hours))))
    _wait_for(gate)
    swept = [due for _ in range(5) for due in await runner.sweep()]
    return [f"{due.rung.action.kind} {due.request_id}" for due in swept]


async def answer_in_time(store: Store, gate: str, *request_ids: str) -> Sequence[str]:
    """Answer just before the deadline, by this machine's clock; return what was taken."""
    clock = ManualClock(NOON + timedelta(days=2, microseconds=-1))
    runner = Runner(store, clock=clock)
    _wait_for(gate)
    taken = []
    for request_id in request_ids:
        try:
            await runner.answer(request_id, Approve(), by="alice")
        except AnswerRefused:
            continue
        taken.append(request_id)
    return taken


async def cancel_many(store: Store, gate: str, *run_ids: str) -> Sequence[str]:
    """Cancel every one of these; return those that were cancelled."""
    runner = Runner(store, clock=ManualClock(NOON))
    _wait_for(gate)
    done = []
    for run_id in run_ids:
        try:
            await runner.cancel(run_id, by="operator")
        except HitlError:
            continue
        done.append(run_id)
    return done


async def advance_what_is_left(store: Store, gate: str, *run_ids: str) -> Sequence[str]:
    """Advance every one of these; return those that ended so."""
    runner = runner_on(store, ManualClock(NOON))
    _wait_for(gate)
    done = []
    for run_id in run_ids:
        try:
            after = await runner.advance(run_id)
        except HitlError:
            continue
        if after.status is RunStatus.FINISHED:
            done.append(run_id)
    return done


async def recover_all(store: Store, gate: str) -> Sequence[str]:
    """Recover; return the runs that were advanced here."""
    runner = runner_on(store, ManualClock(NOON))
    _wait_for(gate)
    return [run.run_id for run in await runner.recover()]
