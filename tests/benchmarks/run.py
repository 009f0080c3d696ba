"""Measures durable runs beside the raw pattern, in the same process and on the same disk.

    python tests/benchmarks/run.py [cycle rounds scale cold] [--quick]

Raw is what a user writes without this package: `to_dict`, JSON, one commit in SQLite, `from_dict`,
and the answer sent to the run. It keeps neither the question nor the answer, has no lease, no audit
trail and no check that the code still fits.
"""

import argparse
import asyncio
import json
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from measured import Gated, Raw, RawRevising
from workflows import Context, Workflow
from workflows.events import HumanResponseEvent, InputRequiredEvent

from llama_index_hitl import Approve, ReviewRequestEvent, Revise
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import SqlStore
from llama_index_hitl.stores.protocol import Commit, RequestQuery


def say(name: str, value: str) -> None:
    print(f"{name:<62} {value}", flush=True)


# --------------------------------------------------------------------------- the raw pattern


class RawStore:
    """One table, one row for each paused run."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("CREATE TABLE IF NOT EXISTS runs (id TEXT PRIMARY KEY, data TEXT)")

    def save(self, run_id: str, data: str) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("INSERT OR REPLACE INTO runs VALUES (?, ?)", (run_id, data))
        self._db.execute("COMMIT")

    def load(self, run_id: str) -> str:
        return str(self._db.execute("SELECT data FROM runs WHERE id = ?", (run_id,)).fetchone()[0])


async def raw_until_asked(handler) -> str:
    async for event in handler.stream_events():
        if isinstance(event, InputRequiredEvent):
            break
    data = json.dumps(handler.ctx.to_dict())
    await handler.cancel_run()
    return data


async def raw_start(workflow: Workflow, store: RawStore, run_id: str) -> None:
    store.save(run_id, await raw_until_asked(workflow.run()))


async def raw_answer(workflow: Workflow, store: RawStore, run_id: str, said: str):
    context = Context.from_dict(workflow, json.loads(store.load(run_id)))
    handler = workflow.run(ctx=context)
    handler.ctx.send_event(HumanResponseEvent(response=said))
    if said == "yes":
        return await handler
    store.save(run_id, await raw_until_asked(handler))
    return None


# --------------------------------------------------------------------------- cycles


async def seconds(action: Callable[[], Awaitable[object]]) -> float:
    begin = time.perf_counter()
    await action()
    return time.perf_counter() - begin


async def interleaved(
    actions: dict[str, Callable[[], Awaitable[object]]], rounds: int
) -> dict[str, float]:
    """Return the median seconds of each, taken in turns so that all share the same weather."""
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for action in actions.values():
        for _ in range(5):
            await action()
    for _ in range(rounds):
        for name, action in actions.items():
            taken[name].append(await seconds(action))
    return {name: statistics.median(times) for name, times in taken.items()}


async def cycle(folder: Path, rounds: int) -> None:
    raw_workflow, gated_workflow = Raw(timeout=None), Gated(timeout=None)
    raw_store = RawStore(folder / "raw.db")
    store = SqlStore(f"sqlite:///{folder / 'hitl.db'}")
    runner = Runner(store, {"gated": gated_workflow})
    numbers = iter(range(10**9))

    async def in_memory(workflow: Workflow) -> None:
        handler = workflow.run()
        async for event in handler.stream_events():
            if isinstance(event, ReviewRequestEvent):
                handler.ctx.send_event(event.answer(Approve(), by="alice"))
            elif isinstance(event, InputRequiredEvent):
                handler.ctx.send_event(HumanResponseEvent(response="yes"))
        await handler

    async def raw() -> None:
        run_id = str(next(numbers))
        await raw_start(raw_workflow, raw_store, run_id)
        await raw_answer(raw_workflow, raw_store, run_id, "yes")

    async def durable() -> None:
        run = await runner.start("gated")
        (record,) = await runner.pending(run_id=run.run_id)
        await runner.answer(record.request_id, Approve(), by="alice")
        done = await runner.advance(run.run_id)
        assert done.status == "finished", done

    taken = await interleaved(
        {
            "raw in memory": lambda: in_memory(raw_workflow),
            "gate in memory": lambda: in_memory(gated_workflow),
            "raw on SQLite": raw,
            "runner on SQLite": durable,
        },
        rounds,
    )
    for name, second in taken.items():
        floor = taken["raw in memory" if "memory" in name else "raw on SQLite"]
        say(
            f"cycle, {name}",
            f"{second * 1000:7.2f} ms  {1 / second:6.0f}/s  {second / floor:5.2f} of raw",
        )
    await store.close()


# --------------------------------------------------------------------------- rounds


async def rounds_of_revision(folder: Path, counts: list[int]) -> None:
    raw_workflow, gated_workflow = RawRevising(timeout=None), Gated(timeout=None)
    raw_store = RawStore(folder / "raw-rounds.db")
    store = SqlStore(f"sqlite:///{folder / 'hitl-rounds.db'}")
    runner = Runner(store, {"gated": gated_workflow})
    await raw_start(raw_workflow, raw_store, "run")
    run = await runner.start("gated")
    raw_times: list[float] = []
    times: list[float] = []

    async def revise() -> None:
        (record,) = await runner.pending(run_id=run.run_id)
        await runner.answer(record.request_id, Revise(feedback="again"), by="alice")
        await runner.advance(run.run_id)

    for number in range(1, max(counts) + 1):
        raw_times.append(await seconds(lambda: raw_answer(raw_workflow, raw_store, "run", "no")))
        times.append(await seconds(revise))
        if number in counts:
            raw_last, last = (statistics.median(t[-10:]) for t in (raw_times, times))
            whole = await store.run(run.run_id, whole=True)
            assert whole is not None
            assert whole.snapshot is not None
            say(
                f"round {number}",
                f"raw {raw_last * 1000:6.2f} ms {len(raw_store.load('run')):7d} B   "
                f"runner {last * 1000:6.2f} ms {len(whole.snapshot):7d} B   "
                f"{last / raw_last:5.2f} of raw",
            )
    await store.close()


# --------------------------------------------------------------------------- scale


def resident_megabytes() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def scale(folder: Path, sizes: list[int]) -> None:
    path = folder / "hitl-scale.db"
    store = SqlStore(f"sqlite:///{path}")
    runner = Runner(store, {"gated": Gated(timeout=None)})
    first = await runner.start("gated")
    run = await store.run(first.run_id, whole=True)
    (stored,) = (await store.requests(RequestQuery(run_id=first.run_id))).items
    assert run is not None
    filled = 1
    for size in sizes:
        before = path.stat().st_size
        added = size - filled
        for number in range(filled, size):
            await fill(store, run, stored, number)
        filled = size
        await runner.start("gated")
        grown = path.stat().st_size - before

        async def listed() -> None:
            assert len(await runner.pending(reviewer="alice", limit=50)) == 50

        async def answered() -> None:
            (record,) = await runner.pending(limit=1)
            await runner.answer(record.request_id, Approve(), by="alice")

        async def advanced() -> None:
            (record,) = await runner.pending(limit=1)
            await runner.answer(record.request_id, Approve(), by="alice")
            assert (await runner.advance(record.request.run_id)).status == "finished"

        memory = resident_megabytes()
        taken = await interleaved({"list": listed, "answer": answered}, 30)
        say(
            f"{size} paused runs",
            f"list 50 {taken['list'] * 1000:6.2f} ms   list 1 and answer "
            f"{taken['answer'] * 1000:6.2f} ms   resident {memory:5.0f} MB   "
            f"{grown / max(1, added) / 1024:5.1f} KB each",
        )
    await store.close()


async def fill(store: SqlStore, run, stored, number: int) -> None:
    """Store another paused run, the same as the first but for its ids and times."""
    run_id, request_id = f"run-{number}", f"approval-{number:016d}"
    at = run.created_at + timedelta(milliseconds=number)
    request = stored.record.request.model_copy(
        update={"request_id": request_id, "run_id": run_id, "created_at": at, "digest": ""}
    )
    request = type(request).model_validate(dict(request))
    record = stored.record.model_copy(update={"request": request})
    await store.commit(
        Commit(
            run=replace(run, run_id=run_id, revision=0, created_at=at, updated_at=at),
            requests=(replace(stored, run_id=run_id, record=record, revision=0),),
        )
    )


# --------------------------------------------------------------------------- cold


def cold(folder: Path, rounds: int) -> None:
    """Measure a fresh process that imports, loads, answers and has the result."""
    here = Path(__file__).parent
    taken: dict[str, list[float]] = {"raw": [], "runner": []}
    for number in range(rounds):
        for kind in taken:
            path = folder / f"cold-{kind}-{number}.db"
            subprocess.run([sys.executable, str(here / "cold.py"), kind, "start", path], check=True)
            begin = time.perf_counter()
            subprocess.run(
                [sys.executable, str(here / "cold.py"), kind, "finish", path], check=True
            )
            taken[kind].append(time.perf_counter() - begin)
    raw = statistics.median(taken["raw"])
    for kind, times in taken.items():
        median = statistics.median(times)
        say(f"cold resume, {kind}", f"{median * 1000:7.0f} ms  {median / raw:5.2f} of raw")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["cycle", "rounds", "scale", "cold"])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller sizes")
    given = parser.parse_args()
    quick: bool = given.quick
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "cycle" in given.what:
            asyncio.run(cycle(folder, 50 if quick else 300))
        if "rounds" in given.what:
            asyncio.run(rounds_of_revision(folder, [1, 10, 50] if quick else [1, 10, 50, 200]))
        if "scale" in given.what:
            sizes = [1_000, 10_000] if quick else [1_000, 10_000, 100_000]
            asyncio.run(scale(folder, sizes))
        if "cold" in given.what:
            cold(folder, 3 if quick else 10)


if __name__ == "__main__":
    main()
