"""Pause and resume by hand, without a store."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from durable import Article, Asking, Plain, Staged, Waiting
from workflows import Context, Workflow, step
from workflows.events import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    WorkflowCancelledEvent,
)

from llama_index_hitl import Answer, Approve, Reject, Respond, Reviewer, utc_now
from llama_index_hitl.errors import (
    AlreadyAnswered,
    InvalidAnswer,
    SnapshotError,
    StaleRequest,
    UnknownRequest,
    UnserializableState,
)
from llama_index_hitl.snapshots import OpenRequest, PausedRun, pause, resume

PEOPLE = [Reviewer(id=name, roles=("legal", "chief")) for name in ("alice", "bob", "carol")]


def again(paused: PausedRun) -> PausedRun:
    return PausedRun.model_validate_json(paused.model_dump_json())


def say(asked: OpenRequest, decision: Any, by: Reviewer | str = "alice") -> Answer:
    return Answer.to(asked.request, decision, by=by, at=utc_now())


class Fan(Event):
    number: int


class Siblings(Workflow):
    """One branch asks at once, the other works on for a while."""

    def __init__(self, gate: asyncio.Event | None = None) -> None:
        super().__init__(timeout=None)
        self.worked = 0
        self.go = gate

    @step
    async def plan(self, ctx: Context, ev: StartEvent) -> Fan | None:
        ctx.send_event(Fan(number=1))
        return None

    @step
    async def question(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent(prefix="Go on?")

    @step
    async def work(self, ctx: Context, ev: Fan) -> StopEvent | None:
        ctx.write_event_to_stream(ev)
        if self.go is not None:
            await self.go.wait()
        self.worked += 1
        return None

    @step
    async def end(self, ev: HumanResponseEvent) -> StopEvent:
        return StopEvent(result=ev.response)


async def test_pause_waits_until_nothing_can_advance_and_runs_nothing_twice() -> None:
    gate = asyncio.Event()
    first = Siblings(gate)
    handler = first.run()
    seen: list[Event] = []

    async def watch() -> None:
        async for event in handler.stream_events():
            seen.append(event)
            if isinstance(event, Fan):
                gate.set()

    watching = asyncio.create_task(watch())  # progress can be watched meanwhile
    paused = again(await pause(handler))
    await watching
    assert first.worked == 1
    assert isinstance(seen[-1], WorkflowCancelledEvent)
    second = Siblings()
    assert await resume(second, paused, [say(paused.requests[0], Respond(response="yes"))]) == "yes"
    assert second.worked == 0


async def test_a_run_that_ends_first_gives_its_result_and_one_that_fails_its_error() -> None:
    class Ending(Workflow):
        @step
        async def end(self, ev: StartEvent) -> StopEvent:
            if ev.get("fail", False):
                raise KeyError("no such thing")
            return StopEvent(result=7)

    assert await pause(Ending(timeout=None).run()) == 7
    with pytest.raises(KeyError, match="no such thing"):
        await pause(Ending(timeout=None).run(fail=True))


async def test_what_was_sent_just_before_is_not_lost() -> None:
    handler = Plain(timeout=None).run()
    async for event in handler.stream_events():
        if isinstance(event, InputRequiredEvent):
            break
    handler.ctx.send_event(HumanResponseEvent(response="Ada"))
    assert await pause(handler) == "Hello, Ada!"


async def test_every_kind_of_question_is_listed_with_what_answers_it() -> None:
    found = {}
    for make in (Article, Asking, Plain, Waiting):
        paused = again(await pause(make(timeout=None).run()))
        found[make.__name__] = {
            (r.asked_by, r.answer_type.rpartition(".")[2]) for r in paused.requests
        }
    assert found == {
        "Article": {("gate", "ReviewResponseEvent")},
        "Asking": {("ask", "ReviewResponseEvent")},
        "Plain": {("input_required", "HumanResponseEvent")},
        "Waiting": {("wait_for_event", "Answered")},
    }


async def test_votes_are_kept_over_several_pauses() -> None:
    paused = again(await pause(Staged(timeout=None).run(run_id="seven")))
    for person in PEOPLE:
        (asked,) = paused.requests
        outcome = await pause(resume(Staged(timeout=None), paused, [say(asked, Approve(), person)]))
        if isinstance(outcome, PausedRun):
            paused = again(outcome)
            assert paused.run_id == "seven"
    assert outcome == "published"


async def test_promise_01_one_answer_wakes_one_wait() -> None:
    Waiting.calls.clear()
    paused = again(await pause(Waiting(timeout=None).run()))
    asked = next(r for r in paused.requests if r.request.title == "Pay 1?")
    left = await pause(
        resume(Waiting(timeout=None), paused, [say(asked, Respond(response={"yes": True}))])
    )
    assert sorted(r.request.title for r in left.requests) == ["Pay 0?", "Pay 2?"]
    assert sorted(Waiting.calls) == [0, 1, 1, 2]


async def test_a_run_can_be_resumed_without_an_answer_and_paused_again() -> None:
    paused = again(await pause(Article(timeout=None).run(topic="mice")))
    same = again(await pause(resume(Article(timeout=None), paused)))
    assert [r.request for r in same.requests] == [r.request for r in paused.requests]


async def test_promise_02_what_does_not_count_is_refused_before_anything_runs() -> None:
    paused = again(await pause(Article(timeout=None).run()))
    (asked,) = paused.requests
    good = say(asked, Approve())
    wrong = {
        UnknownRequest: good.model_copy(update={"request_id": "approval-0"}),
        StaleRequest: good.model_copy(update={"digest": "0" * 64}),
        InvalidAnswer: say(asked, Respond(response=1)),
    }
    for error, answer in wrong.items():
        with pytest.raises(error):
            resume(Article(timeout=None), paused, [answer])
    with pytest.raises(AlreadyAnswered):
        resume(Article(timeout=None), paused, [good, say(asked, Reject(), "bob")])
    assert await resume(Article(timeout=None), paused, [good]) == "About it."


async def test_what_would_be_lost_is_refused_by_name_and_the_run_goes_on() -> None:
    class Holding(Workflow):
        @step
        async def hold(self, ctx: Context, ev: StartEvent) -> InputRequiredEvent:
            await ctx.store.set("client", {"session": object()})
            return InputRequiredEvent(prefix="?")

        @step
        async def end(self, ev: HumanResponseEvent) -> StopEvent:
            return StopEvent(result=ev.response)

    handler = Holding(timeout=None).run()
    with pytest.raises(UnserializableState, match=r"client.*session.*object"):
        await pause(handler)
    handler.ctx.send_event(HumanResponseEvent(response="still here"))
    assert await handler == "still here"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[: len(text) // 2], "truncated"),
        (lambda text: "", "truncated"),
        (lambda text: "[1, 2]", "no paused run"),
        (lambda text: text.replace("paused-run", "something"), "format"),
        (lambda text: text.replace('"format_version":1', '"format_version":2'), "version 2"),
        (lambda text: text.replace("mice", "cats"), "changed"),
        (lambda text: json.dumps({**json.loads(text), "context": 5}), "cannot be read"),
    ],
    ids=["half", "empty", "list", "format", "newer", "tampered", "shape"],
)
async def test_what_is_damaged_is_refused_with_one_clear_error(damage: Any, said: str) -> None:
    text = (await pause(Article(timeout=None).run(topic="mice"))).model_dump_json()
    with pytest.raises(SnapshotError, match=said):
        PausedRun.model_validate_json(damage(text))


async def test_another_process_finishes_the_run(tmp_path: Path) -> None:
    paused = await pause(Article(timeout=None).run(topic="x" * 1_000_000))  # a large one
    path = tmp_path / "run.json"
    path.write_text(paused.model_dump_json())
    script = f"""
import asyncio, pathlib
from durable import Article
from llama_index_hitl import Answer, Approve, utc_now
from llama_index_hitl.snapshots import PausedRun, resume

async def main():
    paused = PausedRun.model_validate_json(pathlib.Path({str(path)!r}).read_text())
    answer = Answer.to(paused.requests[0].request, Approve(), by="bob", at=utc_now())
    print(len(await resume(Article(timeout=None), paused, [answer])))

asyncio.run(main())
"""
    here = Path(__file__).parent
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script],
        cwd=here,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) > 1_000_000
