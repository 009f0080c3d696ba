"""Runs that are stored first and begun later, who started them, and those who watch them."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from durable import Article, Asking, kinds, only, runner_on
from workflows.events import Event

from llama_index_hitl import Approve, Reviewer
from llama_index_hitl.errors import RunExists, UnknownWorkflow
from llama_index_hitl.events import ReviewRequestEvent
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import MemoryStore
from llama_index_hitl.stores.protocol import Message, RunStatus, Store
from llama_index_hitl.testing import ManualClock

ALICE = Reviewer(id="alice", roles=("legal",))
PRIVATE = "About mice."


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def make(store: Store, clock: ManualClock) -> Callable[..., Runner]:
    """Each call is a new process as far as the package can tell."""
    return lambda **options: runner_on(store, clock=clock, **options)


# --------------------------------------------------------------------------- enqueue


async def test_a_run_that_is_enqueued_is_begun_by_whoever_recovers_first(
    make: Any, store: Store
) -> None:
    run = await make().enqueue("article", by=ALICE, tags=["press"], topic="mice")
    assert run == await make().get_run(run.run_id)
    assert (run.status, run.started_by, run.lease_owner) == (RunStatus.RUNNING, "alice", None)
    assert run.tags == ("press",)
    assert not (await make().pending()).items

    (begun,) = await make().recover()
    assert begun.status is RunStatus.WAITING
    record = await only(make(), run.run_id)
    assert record.request.subject.data == {"text": "About mice."}
    rows = await make().history(run.run_id)
    assert kinds(rows) == ["started", "opened"]
    assert rows[0].entry.actor == "alice"
    assert not await make().recover()


async def test_a_run_that_is_enqueued_can_be_advanced_by_its_id(make: Any) -> None:
    run = await make().enqueue("article", run_id="order-7", inputs={"topic": "mice"})
    assert (await make().advance(run.run_id)).status is RunStatus.WAITING


class Sick(MemoryStore):
    """Fails in a way that no store should, and quotes what it was about."""

    async def messages(self, run_id: str) -> Sequence[Message]:
        raise ZeroDivisionError(PRIVATE)


async def test_a_run_that_cannot_be_advanced_is_logged_without_what_was_wrong(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    runner = runner_on(Sick(), clock=clock)
    run = await runner.enqueue("article", topic="mice")
    assert not await runner.recover()
    assert f"Run {run.run_id} could not be advanced: ZeroDivisionError" in caplog.text
    assert "in messages" in caplog.text
    assert PRIVATE not in caplog.text


async def test_enqueueing_again_with_the_same_id_changes_nothing(make: Any) -> None:
    first = await make().enqueue("article", run_id="order-7", topic="mice")
    again = await make().enqueue("article", run_id="order-7", topic="cats", by="mallory")
    assert again == first
    await make().recover()
    assert (await only(make(), "order-7")).request.subject.data == {"text": "About mice."}
    assert kinds(await make().history("order-7")).count("started") == 1
    assert (await make().start("article", run_id="order-7")).status is RunStatus.WAITING
    with pytest.raises(RunExists, match="article"):
        await make().enqueue("staged", run_id="order-7")


async def test_a_run_that_is_enqueued_can_be_cancelled_before_it_has_begun(make: Any) -> None:
    await make().enqueue("article", run_id="order-7")
    await make().cancel("order-7", by="alice")
    assert not await make().recover()
    assert not (await make().pending()).items


async def test_what_cannot_be_started_cannot_be_enqueued(make: Any, store: Store) -> None:
    with pytest.raises(UnknownWorkflow, match="nothing"):
        await make().enqueue("nothing", run_id="order-7")
    assert await store.run("order-7") is None


# --------------------------------------------------------------------------- who has started it


async def test_who_started_a_run_stands_in_it_and_on_its_audit_trail(make: Any) -> None:
    mine = await make().start("article", by=ALICE)
    assert mine.started_by == "alice"
    theirs = await make().start("article", by="bob")
    nobodys = await make().start("article")
    assert (theirs.started_by, nobodys.started_by) == ("bob", None)
    actors = [(await make().history(run.run_id))[0].entry.actor for run in (mine, theirs, nobodys)]
    assert actors == ["alice", "bob", None]
    await make().answer((await only(make(), mine.run_id)).request_id, Approve(), by="bob")
    await make().advance(mine.run_id)
    (found,) = await make().runs(started_by="alice")
    assert (found.run_id, found.status) == (mine.run_id, RunStatus.FINISHED)
    assert len(await make().runs()) == 3


# --------------------------------------------------------------------------- those who watch


async def test_everybody_who_watches_is_shown_what_runs_say(
    store: Store, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = [], [], []

    async def slow(run_id: str, event: Event) -> None:
        second.append((run_id, type(event)))

    def broken(run_id: str, event: Event) -> None:
        raise ZeroDivisionError(f"it was not made for {event}")

    runner = runner_on(store, clock=clock, watch=lambda run_id, e: first.append((run_id, type(e))))
    runner.add_watch(broken)
    stop = runner.add_watch(slow)
    runner.add_watch(slow)
    runner.add_watch(lambda run_id, event: third.append((run_id, type(event))))
    run = await runner.start("article")
    assert (run.run_id, ReviewRequestEvent) in first
    assert first == second == third
    assert "ZeroDivisionError" in caplog.text
    assert "A draft." not in caplog.text
    stop()
    stop()
    await runner.start("article")
    assert len(first) == len(third) == 2 * len(second)


async def test_the_workflows_of_a_runner_can_be_read_and_not_changed(store: Store) -> None:
    workflows = {"article": Article(timeout=None)}
    runner = Runner(store, workflows)
    workflows["asking"] = Asking(timeout=None)
    assert list(runner.workflows) == ["article"]
    assert runner.workflows["article"] is workflows["article"]
    with pytest.raises(TypeError):
        runner.workflows["asking"] = workflows["asking"]  # type: ignore[index]
