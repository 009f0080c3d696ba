"""The queue pattern: nobody waits for a run; people are told, and told when it is done."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import timedelta
from typing import Any

import httpx
import pytest
from essays import Essay
from serving import ServerProcess, as_person
from talks import listening, runner_of, until
from webhook_server import WebhookServer

from llama_index_hitl import Approve
from llama_index_hitl.errors import StoreError
from llama_index_hitl.stores import MemoryStore
from llama_index_hitl.stores.protocol import Notice
from llama_index_hitl.web._worker import Worker

SOON = timedelta(milliseconds=5)
NEVER = timedelta(hours=1)


class Listing:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.name = "listing"
        self.told: list[str] = []
        self.wanted = ""
        self.came = asyncio.Event()

    async def notify(self, notice: Notice) -> None:
        self.told.append(notice.kind)
        if notice.kind == self.wanted:
            self.came.set()


class Gated(MemoryStore):
    """Lets reads of runs through when a test wants it, and counts them; fails if told to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.reached = asyncio.Event()
        self.reads = 0
        self.fails = False

    async def run(self, run_id: str, *, whole: bool = False) -> Any:
        if whole:
            self.reads += 1
            self.reached.set()
            await self.gate.wait()
        return await super().run(run_id, whole=whole)

    async def due(self, *given: Any, **options: Any) -> Any:
        if self.fails:
            self.fails = False
            raise StoreError("secret things are in this store")
        return await super().due(*given, **options)


async def test_a_run_is_started_on_one_process_answered_on_another_and_people_are_told(
    postgres_url: str,
):
    with (
        WebhookServer() as receiver,
        ServerProcess(postgres_url, f"notify={receiver.url}") as first,
        ServerProcess(postgres_url, "works=no", "notify=") as second,
    ):
        alice = as_person("alice")
        async with (
            httpx.AsyncClient(headers=alice, trust_env=False, timeout=20) as client,
            listening(second.url, "/api/inbox/events") as inbox,
        ):
            await until(inbox, "state")
            body = {"workflow": "essay", "inputs": {"topic": "tides"}, "run_id": "queued"}
            queued = await client.post(f"{first.url}/api/runs", json=body)
            assert queued.status_code == 202
            opened = (await until(inbox, "opened"))[-1]
            summary = opened.data["summary"]
            answer = {"decision": "approve", "digest": summary["digest"]}
            path = f"/api/requests/{summary['request_id']}/answer"
            async with listening(first.url, "/api/runs/queued/events") as events:
                taken = await client.post(f"{second.url}{path}", json=answer)
                assert taken.status_code == 200
                final = (await until(events, "final_result"))[-1]
            assert final.data["result"] == {"published": "On tides."}
        kinds: list[str] = []
        while len(kinds) < 3:
            await asyncio.sleep(0.02)  # the notifier of the other process has its own pace
            kinds = [json.loads(received.body)["type"] for received in receiver.received]
    # The processes tell of what they did each at their own pace.
    assert sorted(kinds) == ["hitl.answered", "hitl.finished", "hitl.opened"]


# --------------------------------------------------------------------------- the worker


async def test_the_rounds_tell_people_and_take_further_what_others_have_queued():
    listing = Listing()
    runner = runner_of(MemoryStore(), notifiers=[listing])
    worker = Worker(runner, works=True, every=SOON)
    worker.start()
    worker.start()  # every request does this
    listing.wanted = "opened"
    await runner.enqueue("essay", run_id="queued", inputs={"topic": "tides"})
    await listing.came.wait()
    (record,) = await runner.pending()
    listing.came.clear()
    listing.wanted = "finished"
    await runner.answer(record.request_id, Approve(), by="alice")
    await listing.came.wait()
    assert listing.told == ["opened", "answered", "finished"]
    await worker.close()


async def test_nudges_while_a_run_is_at_work_lead_to_one_more_look():
    store = Gated()
    runner = runner_of(store)
    rung: list[str] = []
    worker = Worker(runner, works=False, ring=rung.append)
    await runner.enqueue("essay", run_id="r", inputs={"topic": "tides"})
    worker.nudge("r")
    await store.reached.wait()
    for _ in range(5):
        worker.nudge("r")
    store.gate.set()
    await asyncio.gather(*worker._tasks)
    # The run as it was queued, as it is when it waits, and one more time for all five.
    assert store.reads == 3
    assert rung.count("r") == 6 + 2
    assert (await runner.get_run("r")).status == "waiting"
    await worker.close()


async def test_a_round_that_fails_does_not_end_the_rounds_nor_quote_what_it_failed_with(
    caplog: pytest.LogCaptureFixture,
):
    store = Gated()
    store.gate.set()
    store.fails = True
    listing = Listing()
    runner = runner_of(store, notifiers=[listing])
    worker = Worker(runner, works=True, every=SOON)
    listing.wanted = "opened"
    with caplog.at_level(logging.WARNING):
        worker.start()
        await runner.start("essay", topic="tides")
        await listing.came.wait()
    assert "StoreError" in caplog.text
    assert "secret" not in caplog.text
    assert not any(task.done() for task in worker._rounds)
    await worker.close()


async def test_closing_gives_runs_back_and_leaves_no_task_behind():
    others = asyncio.all_tasks()
    store = MemoryStore()
    runner = runner_of(store)
    worker = Worker(runner, works=True, every=NEVER)
    at_work, never = asyncio.Event(), asyncio.Event()

    async def hold(run_id: str, event: Any) -> None:
        at_work.set()
        await never.wait()

    stop_watching = runner.add_watch(hold)
    await runner.enqueue("essay", run_id="r", inputs={"topic": "tides"})
    worker.nudge("r")
    worker.start()
    await at_work.wait()
    never.set()
    stop_watching()
    await worker.close()
    assert asyncio.all_tasks() == others
    run = await runner.get_run("r")
    assert run.lease_owner is None
    other = runner_of(store)
    assert (await other.advance("r")).status == "waiting"


async def test_an_idle_process_neither_sweeps_nor_recovers():
    runner = runner_of(MemoryStore())
    worker = Worker(runner, works=False)
    worker.start()
    assert worker._rounds == ()
    await runner.enqueue("essay", run_id="r", inputs={"topic": "tides"})
    assert (await runner.get_run("r")).attempts == 0
    await worker.close()


async def test_a_run_that_cannot_be_advanced_harms_no_other(monkeypatch: pytest.MonkeyPatch):
    runner = runner_of(MemoryStore())
    worker = Worker(runner, works=False)
    monkeypatch.setattr(Essay, "fails", False)
    worker.nudge("no-such-run")
    await runner.enqueue("essay", run_id="r", inputs={"topic": "tides"})
    worker.nudge("r")
    await asyncio.gather(*worker._tasks)
    assert (await runner.get_run("r")).status == "waiting"
    await worker.close()
