"""What a ReviewServer holds against upstream's own, over HTTP."""

import asyncio
import gc
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from flows import Draft, LegalApproved, SetClock, drafts, made, person, stages, transfers
from llama_agents.server import SqliteWorkflowStore, WorkflowServer
from runtime_hosts import (
    IDLE,
    Served,
    Start,
    configure_dbos,
    dbos_server,
    plain,
    runs_of,
    sqlite_server,
    until,
)
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from workflows import Context, Workflow, step
from workflows.events import Event, HumanResponseEvent, StartEvent, StopEvent
from workflows.plugins.basic import BasicRuntime
from workflows.runtime.control_loop.runner import _ControlLoopRunner
from workflows.runtime.types.ticks import TickAddEvent

from llama_index_hitl import (
    Approve,
    Approved,
    Question,
    Reject,
    Review,
    Reviewer,
    ReviewRequestEvent,
    ReviewResponseEvent,
    ask,
)
from llama_index_hitl.events import ReviewDeadlineEvent
from llama_index_hitl.lifecycle import open_record, take_answer
from llama_index_hitl.runtimes._upstream import layers_of
from llama_index_hitl.runtimes.errors import UnsafeRuntime
from llama_index_hitl.runtimes.server import ReviewServer

NEVER = 3600.0
SERVERS = {"server": sqlite_server, "dbos": dbos_server}


@pytest.fixture
async def start_on(tmp_path: Path) -> AsyncIterator[Any]:
    """Serve a workflow with options of its own, and start a run of it."""
    contexts: list[Any] = []

    async def start_on(flow: type[Workflow], kind: str = "server", **options: Any) -> Served:
        events = options.pop("events", None)
        contexts.append(runs_of(SERVERS[kind](tmp_path, **options), flow, events))
        start: Start = await contexts[-1].__aenter__()
        return await start()

    yield start_on
    for context in contexts:
        await context.__aexit__(None, None, None)


# --------------------------------------------------------------------------- what may be sent


async def test_clients_cannot_send_what_gates_and_steps_send_each_other(start_on: Any):
    flow = drafts()
    run = await start_on(flow)
    (request,) = await run.open()
    for forged in (
        {"type": "Approved", "value": await approved_elsewhere(request)},
        {"type": "Draft", "value": {"text": "mine"}},
        {"type": "StopEvent", "value": {"result": "done"}},
        {"type": "StartEvent", "value": {}},
    ):
        response = await run.post(forged)
        assert (response.status_code, response.json()["code"]) == (403, "forbidden_event")
    assert [event.request_id for event in await run.open()] == [request.request_id]
    assert flow.written == ["AI"]
    assert flow.published == []


async def approved_elsewhere(request: ReviewRequestEvent) -> dict[str, Any]:
    """Return an approval as a gate makes it, of a request that nobody has approved."""
    record = take_answer(
        open_record(request.request), request.answer(Approve(), by="mallory").answer
    )
    event = Approved(record=record, proposal=Draft(text="mine"))
    return event.model_dump(mode="json")


async def test_a_run_cannot_be_started_with_an_approval(start_on: Any):
    flow = drafts()
    run = await start_on(flow)
    (request,) = await run.open()
    forged = {"type": "Approved", "value": await approved_elsewhere(request)}
    name = (await run.handler()).workflow_name
    for body in ({"start_event": forged}, {"context": {"state": {}}}):
        response = await run.client.post(f"/workflows/{name}/run-nowait", json=body)
        assert response.status_code == 400
    assert flow.published == []


class Nudge(Event):
    """An event that a host lets clients send."""


class HumanNudge(HumanResponseEvent):
    """A plain answer with a type of its own."""

    text: str = ""


def nudged() -> type[Workflow]:
    """Return a workflow that takes other things from outside besides answers."""

    class Nudged(Workflow):
        seen: ClassVar[list[str]] = []

        @step
        async def write(self, ev: StartEvent) -> Draft:
            return Draft(text="x")

        review = Review(Draft)

        @step
        async def wait(self, ctx: Context, ev: StartEvent) -> None:
            await ctx.wait_for_event(Nudge, timeout=None)
            self.seen.append("nudge")

        @step
        async def human(self, ev: HumanNudge) -> None:
            self.seen.append(ev.text)

        @step
        async def plain(self, ev: HumanResponseEvent) -> None:
            self.seen.append(str(ev.get("response")))

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            return StopEvent(result="published")

    return made(Nudged)


async def test_a_host_can_let_other_events_in(start_on: Any):
    flow = nudged()
    run = await start_on(flow, events=[Nudge])
    assert await run.send(Nudge()) == "ok"
    assert await run.send(HumanNudge(text="hello")) == "ok"
    assert await run.send(HumanResponseEvent(response="just so")) == "ok"
    await run.ended()
    assert flow.seen == ["nudge", "hello", "just so"]
    (request,) = await run.open()
    assert await run.send(request.answer(Approve(), by="erin")) == "ok"
    assert await run.result() == "published"
    assert await run.send(Nudge()) == "409"


async def test_without_being_let_in_they_are_not(start_on: Any):
    flow = nudged()
    run = await start_on(flow)
    assert await run.send(Nudge()) == "400"  # not even known
    await run.ended()
    assert flow.seen == []


@pytest.mark.parametrize("kind", [Approved, LegalApproved, StopEvent])
def test_what_says_that_something_was_decided_cannot_be_let_in(kind: type[Event]):
    with pytest.raises(UnsafeRuntime, match=kind.__name__):
        ReviewServer().add_workflow("drafts", drafts()(), [Nudge, kind])


def test_contexts_of_clients_are_refused():
    with pytest.raises(UnsafeRuntime, match="accept_context_api"):
        ReviewServer(accept_context_api=True)


def test_a_runtime_that_loses_runs_is_refused():
    with pytest.raises(UnsafeRuntime, match="garbage"):
        ReviewServer(runtime=BasicRuntime())


async def test_a_plain_answer_must_say_which_request_it_is_for(start_on: Any):
    run = await start_on(drafts())
    await run.open()
    response = await run.post(HumanResponseEvent(response="approve"))
    assert (response.status_code, response.json()["problems"][0]["field"]) == (422, "request_id")
    assert await run.send(plain("review-0000")) == "unknown_request"


async def test_what_is_no_event_is_refused(start_on: Any):
    run = await start_on(drafts())
    (request,) = await run.open()
    path = f"/events/{run.handler_id}"
    assert (await run.client.post("/events/nobody", json={"event": {}})).status_code == 404
    assert (await run.client.get("/handlers/nobody/requests")).status_code == 404
    json = {"content-type": "application/json"}
    for content in ("{", "[]", '"x"', '{"event": 3}', '{"event": {"type": "Odd", "value": {}}}'):
        response = await run.client.post(path, content=content, headers=json)
        assert response.status_code == 400, content
    nested = "[" * 100_000
    assert (await run.client.post(path, content=nested, headers=json)).status_code == 400
    answer = request.answer(Approve(), by="erin")
    response = await run.post(answer, step="publish")
    assert (response.status_code, response.json()["problems"][0]["field"]) == (422, "step")
    value = {"answer": {**answer.answer.model_dump(mode="json"), "request_id": 3}}
    assert (await run.post({"type": "ReviewResponseEvent", "value": value})).status_code == 400


async def test_pages_of_other_origins_cannot_answer(start_on: Any):
    run = await start_on(drafts())
    (request,) = await run.open()
    event = request.answer(Approve(), by="erin")
    body = {"event": {"type": "ReviewResponseEvent", "value": event.model_dump(mode="json")}}
    path = f"/events/{run.handler_id}"
    # What a page can send without the browser asking first is not taken ...
    raw = httpx.Request("POST", "http://x", json=body).content
    response = await run.client.post(path, content=raw, headers={"content-type": "text/plain"})
    assert response.status_code == 415
    # ... and when the browser asks, the answer is no.
    asks = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    response = await run.client.options(path, headers=asks)
    assert response.status_code == 400
    assert "access-control-allow-origin" not in response.headers
    assert not await run.ended()


async def test_a_host_can_let_other_origins_in(start_on: Any):
    allowed = Middleware(CORSMiddleware, allow_origins=["https://desk.example"])
    run = await start_on(drafts(), middleware=[allowed])
    response = await run.client.get(
        f"/handlers/{run.handler_id}/requests", headers={"origin": "https://desk.example"}
    )
    assert response.headers["access-control-allow-origin"] == "https://desk.example"


# --------------------------------------------------------------------------- what comes of it


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("idle_timeout", [IDLE, NEVER])
async def test_promise_03_of_two_answers_at_once_one_wins(
    start_on: Any, kind: str, idle_timeout: float
):
    flow = stages()
    run = await start_on(flow, kind, idle_timeout=idle_timeout)
    listing = f"/handlers/{run.handler_id}/requests"

    async def asked() -> Any:
        return (await run.client.get(listing)).json()["requests"]

    for gate in ("legal", "editor"):
        await until(asked, gate)
        if idle_timeout == IDLE:
            await run.ended()
        (record,) = await asked()
        request = ReviewRequestEvent(request=record["request"])
        assert request.request.gate == gate
        yes, no = request.answer(Approve(), by="erin"), request.answer(Reject(), by="fred")
        responses = await asyncio.gather(*(run.post(event) for event in (yes, no, yes)))
        assert [response.status_code for response in responses] == [200, 409, 200]
        first, second, third = (response.json() for response in responses)
        assert first == third
        assert first["record"]["answers"][0]["by"]["id"] == "erin"
        assert second["code"] == "already_answered"
        assert "erin" in second["detail"]
        assert request.request_id not in [r["request"]["request_id"] for r in await asked()]
    await until(lambda: flow.passed, "the end")
    assert flow.passed == ["AI"]


async def test_the_same_answer_gets_the_same_receipt_after_the_run_has_ended(start_on: Any):
    run = await start_on(drafts())
    (request,) = await run.open()
    answer = request.answer(Approve(), by="erin")
    first = await run.post(answer)
    await run.ended()
    assert (await run.post(answer)).json() == first.json()
    assert await run.send(request.answer(Reject(), by="erin")) == "already_answered"
    assert await run.send(plain("review-0")) == "run_over"


@pytest.mark.parametrize("kind", SERVERS)
async def test_promise_02_a_run_that_was_cancelled_while_it_was_released_does_nothing_more(
    start_on: Any, kind: str
):
    flow = drafts()
    run = await start_on(flow, kind)
    (request,) = await run.open()
    response = await run.client.post(f"/handlers/{run.handler_id}/cancel")
    assert response.json() == {"status": "cancelled"}
    assert (await run.handler()).status == "cancelled"
    assert await run.open() == []
    assert await run.send(request.answer(Approve(), by="erin")) == "run_over"
    assert flow.published == []
    purge = f"/handlers/{run.handler_id}/cancel?purge=true"
    assert (await run.client.post(purge)).json() == {"status": "deleted"}
    assert (await run.client.post(purge)).status_code == 404


@pytest.mark.filterwarnings("ignore:WorkflowHandler.done")
async def test_upstream_says_that_a_released_run_is_cancelled_and_it_is_not(tmp_path: Path):
    """Fails when upstream mends it: then `ReviewServer` can leave cancelling to it."""
    store = SqliteWorkflowStore(str(tmp_path / "x.db"))
    server = WorkflowServer(workflow_store=store, idle_timeout=IDLE)
    async with runs_of(server, drafts()) as start:
        run = await start()
        await run.ended()
        response = await run.client.post(f"/handlers/{run.handler_id}/cancel")
        assert response.json() == {"status": "cancelled"}
        assert (await run.handler()).status == "running"


async def test_a_gate_that_ends_the_run_leaves_a_result_that_can_be_read(start_on: Any):
    run = await start_on(drafts())
    (request,) = await run.open()
    await run.send(request.answer(Reject(comment="no"), by="erin"))
    result = await run.result()
    assert result["record"]["outcome"]["status"] == "rejected"


async def test_an_answer_that_a_run_does_not_get_round_to_is_accepted_and_told_about_later(
    start_on: Any,
):
    flow, gate = busy()
    run = await start_on(flow, patience=0.05, idle_timeout=NEVER)
    await until(gate.started.is_set, "the step is at work")
    records = (await run.client.get(f"/handlers/{run.handler_id}/requests")).json()["requests"]
    request = ReviewRequestEvent(request=records[0]["request"])
    answer = request.answer(Approve(), by="erin")
    assert (await run.post(answer)).status_code == 202
    gate.go_on.set()
    response = await until(lambda: _told(run, answer), "it is told")
    assert response.json()["record"]["outcome"]["status"] == "approved"
    await run.result()


async def _told(run: Served, answer: ReviewResponseEvent) -> httpx.Response | None:
    response = await run.post(answer)
    return response if response.status_code == 200 else None


class Gate:
    """Holds a step until the test lets it go on."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.go_on = asyncio.Event()


class Task(Event):
    """Something to do or to ask about."""

    number: int


def busy() -> tuple[type[Workflow], Gate]:
    """Return a workflow whose step waits for an answer while its one worker does other work."""
    gate = Gate()

    class Busy(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Task | None:
            ctx.send_event(Task(number=0))
            ctx.send_event(Task(number=1))
            return None

        @step(num_workers=1)
        async def work(self, ctx: Context, ev: Task) -> StopEvent | None:
            if ev.number == 0:
                await ask(ctx, Question(title="Go on?"))
                return StopEvent(result="done")
            gate.started.set()
            await gate.go_on.wait()
            return None

    return made(Busy), gate


# --------------------------------------------------------------------------- who and when


async def signed_in(http: Request) -> Reviewer:
    """Say who it is by a header, as a host's sign-in would by a session."""
    name = http.headers.get("x-user")
    if name is None:
        raise HTTPException(401, "Sign in")
    return person(name, *(["legal"] if name == "lea" else []))


async def test_promise_02_an_answer_is_by_whoever_is_signed_in(start_on: Any):
    flow = drafts(reviewers="role:legal")
    run = await start_on(flow, identify=signed_in)
    (request,) = await run.open()
    claimed = request.answer(Approve(), by=person("lea", "legal"))
    assert (await run.post(claimed)).status_code == 401
    run.client.headers["x-user"] = "mallory"
    assert await run.send(claimed) == "not_allowed"
    own = request.answer(Approve(), by=person("mallory", "legal"))
    assert await run.send(own) == "not_allowed"  # a role is not had by saying so
    assert await run.send(plain(request.request_id, by="lea")) == "not_allowed"
    assert flow.published == []
    run.client.headers["x-user"] = "lea"
    anothers = request.answer(Approve(), by=person("lou", "legal"))
    assert await run.send(anothers) == "not_allowed"
    anonymous = HumanResponseEvent(request_id=request.request_id, response="approve")
    assert await run.send(anonymous) == "ok"
    assert await run.ended()
    (published,) = flow.published
    assert published.answers[0].by == person("lea", "legal")


def with_deadline(clock: SetClock) -> type[Workflow]:
    """Return a workflow whose request must be answered within an hour, by this clock."""
    return drafts(deadline=timedelta(hours=1), clock=clock, expired=None)


async def test_promise_02_an_answer_cannot_say_that_it_was_given_in_time(start_on: Any):
    clock = SetClock()
    flow = with_deadline(clock)
    run = await start_on(flow)
    (request,) = await run.open()
    in_time = clock.advance(minutes=30)
    clock.advance(hours=1)
    late = request.answer(Approve(), by="erin", at=in_time)
    assert await run.send(late) == "expired"
    assert await run.ended()
    assert flow.published == []
    assert (await run.result())["record"]["outcome"]["status"] == "expired"


async def test_promise_02_a_client_cannot_say_that_the_time_is_up(start_on: Any):
    clock = SetClock()
    run = await start_on(with_deadline(clock))
    (request,) = await run.open()
    early = ReviewDeadlineEvent(request_id=request.request_id, at=clock.now + timedelta(hours=2))
    assert await run.send(early) == "stale_request"
    assert len(await run.open()) == 1
    clock.advance(hours=1)
    assert await run.send(early) == "ok"
    assert (await run.result())["record"]["outcome"]["status"] == "expired"


# --------------------------------------------------------------------------- what is kept


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_run_that_waits_and_that_nobody_streams_is_not_garbage(start_on: Any, kind: str):
    flow = stages()
    run = await start_on(flow, kind, idle_timeout=NEVER)
    for gate in ("legal", "editor"):

        async def asked(gate: str = gate) -> Any:
            listed = await run.client.get(f"/handlers/{run.handler_id}/requests")
            return [r for r in listed.json()["requests"] if r["request"]["gate"] == gate]

        (record,) = await until(asked, gate)
        gc.collect()
        request = ReviewRequestEvent(request=record["request"])
        assert (await run.post(request.answer(Approve(), by="erin"))).status_code == 200
    await until(lambda: flow.passed, "the end")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_upstream_loses_a_run_that_nobody_streams(tmp_path: Path):
    """Fails when upstream mends it: then `_KeepingRuntime` can go."""
    server = WorkflowServer(workflow_store=SqliteWorkflowStore(str(tmp_path / "x.db")))
    async with runs_of(server, drafts()) as start:
        run = await start()
        await until(lambda: _is_idle(run), "it waits")
        assert _runs_alive() == 1
        gc.collect()
        assert _runs_alive() == 0
        (event,) = [
            stored.event
            for stored in await run.store.query_events((await run.handler()).run_id)
            if stored.event.type == "ReviewRequestEvent"
        ]
        request = ReviewRequestEvent.model_validate(event.value)
        response = await run.post(request.answer(Approve(), by="erin"))
        assert (response.status_code, response.json()) == (200, {"status": "sent"})


def _runs_alive() -> int:
    tasks = [str(task.get_coro()) for task in asyncio.all_tasks()]
    return len([task for task in tasks if "run_with_concurrency_limit" in task])


async def _is_idle(run: Served) -> bool:
    return (await run.handler()).idle_since is not None


def _in_memory(run_id: str | None) -> int:
    gc.collect()
    found = [each for each in gc.get_objects() if isinstance(each, _ControlLoopRunner)]
    return len([each for each in found if each.adapter.run_id == run_id])


@pytest.mark.parametrize("kind", SERVERS)
async def test_promise_05_a_run_that_was_released_is_not_in_memory(start_on: Any, kind: str):
    run = await start_on(stages(), kind)
    run_id = (await run.handler()).run_id
    for _ in range(2):
        (request,) = await run.open()
        assert _in_memory(run_id) == 0
        await run.send(request.answer(Approve(), by="erin"))
    assert await run.ended()


def long() -> tuple[type[Workflow], Gate]:
    """Return a workflow that is a long time at work after it was approved."""
    gate = Gate()

    class Long(Workflow):
        begun: ClassVar[list[str]] = []

        @step
        async def write(self, ev: StartEvent) -> Draft:
            return Draft(text="x")

        review = Review(Draft)

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            self.begun.append("publish")
            await gate.go_on.wait()
            return StopEvent(result="published")

    return made(Long), gate


async def test_promise_08_a_run_that_works_is_not_released(start_on: Any):
    flow, gate = long()
    run = await start_on(flow)
    (request,) = await run.open()
    assert await run.send(request.answer(Approve(), by="erin")) == "ok"
    await until(lambda: flow.begun, "it works")
    # As after an event that came at the very moment at which the run had become idle.
    handler = await run.handler()
    await run.store.update_handler_status(handler.run_id, idle_since=handler.started_at)
    await release_now(run)
    gate.go_on.set()
    assert await run.result() == "published"
    assert flow.begun == ["publish"]


async def test_promise_07_a_run_on_dbos_that_was_released_at_work_goes_on(start_on: Any):
    flow, gate = long()
    run = await start_on(flow, "dbos")
    (request,) = await run.open()
    assert await run.send(request.answer(Approve(), by="erin")) == "ok"
    await until(lambda: flow.begun, "it works")
    await release_now(run)
    await until(lambda: len(flow.begun) == 2, "it works again")
    gate.go_on.set()
    assert await run.result() == "published"


async def release_now(run: Served) -> None:
    """Do what upstream does when a run has been idle long enough."""
    for layer in layers_of(run.server._runtime):
        if hasattr(layer, "_release_idle_handler"):
            await layer._release_idle_handler((await run.handler()).run_id)


def in_a_process(*arguments: str) -> list[str]:
    """Run a server in a process that dies, and return its last words."""
    script = str(Path(__file__).with_name("runtime_process.py"))
    done = subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 9, done.stdout + done.stderr
    return done.stdout.strip().splitlines()[-1].split()


@pytest.mark.timeout(180)  # three processes, each of which imports everything
@pytest.mark.parametrize("kind", SERVERS)
def test_promise_07_a_process_that_dies_with_the_receipt_loses_nothing(kind: str, tmp_path: Path):
    place = (kind, str(tmp_path))
    handler_id, gate = in_a_process(*place)
    assert gate == "legal"
    assert in_a_process(*place, handler_id) == [handler_id, "editor"]
    assert in_a_process(*place, handler_id) == [handler_id, "x"]
    log = (tmp_path / "log.txt").read_text().split()
    # The last step may have begun when its process died, and is then done again.
    assert (log[0], set(log[1:])) == ("write", {"publish"})


@pytest.mark.timeout(120)
@pytest.mark.parametrize("method", ["_await_and_mark_released", "_complete_release"])
def test_promise_07_a_process_that_dies_while_it_releases_a_run_loses_nothing(
    method: str, tmp_path: Path
):
    place = ("dbos", str(tmp_path))
    (handler_id,) = in_a_process(*place, method)
    assert in_a_process(*place, handler_id) == [handler_id, "legal"]
    assert (tmp_path / "log.txt").read_text().split() == ["write"]


async def test_promise_04_a_request_is_open_though_nobody_was_told(start_on: Any, tmp_path: Path):
    flow = transfers(2)
    run = await start_on(flow)
    requests = await run.open()
    with sqlite3.connect(tmp_path / "runs.db") as connection:  # died before it could say so
        connection.execute("DELETE FROM events")
    connection.close()
    assert await run.open() == requests
    for request in requests:
        assert await run.send(request.answer(Approve(), by="erin")) == "ok"
    assert await run.ended()
    assert len(flow.paid) == 2


# --------------------------------------------------------------------------- DBOS


async def test_upstream_wakes_a_run_on_dbos_once(tmp_path: Path):
    """Fails when upstream mends it: then `runtimes.dbos` can let upstream's own runtime be."""
    runtime = configure_dbos(tmp_path)
    made_by_upstream = runtime.build_server_runtime(idle_timeout=IDLE)
    with pytest.raises(UnsafeRuntime, match="review_server"):
        ReviewServer(runtime=made_by_upstream)
    server = WorkflowServer(
        runtime=made_by_upstream, workflow_store=runtime.create_workflow_store()
    )
    async with runs_of(server, stages()) as start:
        run = await start()
        run_id = (await run.handler()).run_id

        async def asked() -> list[ReviewRequestEvent]:
            events = await run.store.query_events(run_id)
            return [
                ReviewRequestEvent.model_validate(e.event.value)
                for e in events
                if e.event.type == "ReviewRequestEvent"
            ]

        adapter = server._runtime.get_external_adapter(run_id)
        for number in range(2):
            await run.ended()
            request = (await until(asked, "a question"))[number]
            tick = TickAddEvent(event=request.answer(Approve(), by="erin"))
            if number == 0:
                await adapter.send_event(tick)
            else:
                with pytest.raises(ValueError, match="not found in in_progress"):
                    await adapter.send_event(tick)
