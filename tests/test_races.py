"""Two processes at once, each with an engine of its own, on one database: one of them wins."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from crash_scenarios import lines_of, runner_on
from durable import NOON, kinds

from llama_index_hitl import Approve, RequestStatus
from llama_index_hitl.audit import verify
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import SqlStore
from llama_index_hitl.stores.protocol import RequestQuery, RunStatus, Store
from llama_index_hitl.testing import ManualClock
from llama_index_hitl.testing.crashes import CrashLab

RUNS = 20


@pytest.fixture(scope="module")
def labs() -> Iterator[Sequence[CrashLab]]:
    """Two processes that play scenarios."""
    with ExitStack() as stack:
        yield [stack.enter_context(CrashLab()) for _ in range(2)]


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "hitl.db")
    found: str = request.getfixturevalue("postgres_url")
    return found


class Course:
    """Runs that wait, and two processes that go for them."""

    def __init__(self, labs: Sequence[CrashLab], url: str, folder: Path) -> None:
        self.labs = labs
        self.url = url
        self.folder = folder
        self.store: Store = SqlStore(url)
        self.run_ids: list[str] = []
        self.request_ids: list[str] = []

    @property
    def runner(self) -> Runner:
        return runner_on(self.store, ManualClock(NOON))

    def ledger(self, run_id: str) -> list[str]:
        return lines_of(str(self.folder / run_id))

    async def begin(self, *, answered: bool = False) -> None:
        for number in range(RUNS):
            inputs = {"ledger": str(self.folder / f"run-{number}")}
            run = await self.runner.start("payout", run_id=f"run-{number}", inputs=inputs)
            self.run_ids.append(run.run_id)
            (record,) = await self.runner.pending(run_id=run.run_id)
            self.request_ids.append(record.request_id)
            if answered:
                await self.runner.answer(record.request_id, Approve(), by="alice")

    async def race(self, *entries: tuple[str, Sequence[str]]) -> Sequence[Any]:
        """Play two scenarios at the same time; return what each of them has won."""
        gates = [self.folder / f"gate-{number}" for number in range(2)]
        for gate in gates:
            os.mkfifo(gate)
        playing = [
            asyncio.create_task(lab.play(f"crash_scenarios:{name}", self.url, str(gate), *given))
            for lab, gate, (name, given) in zip(self.labs, gates, entries, strict=True)
        ]
        # A FIFO opens when both ends do: this waits for both processes, and lets them go.
        opening = [asyncio.create_task(asyncio.to_thread(_open, gate)) for gate in gates]
        ready = [await task for task in opening]
        for end in ready:
            os.close(end)
        return [set(played.result) for played in await asyncio.gather(*playing)]

    async def check(self) -> None:
        """What must hold after every race."""
        for run_id in self.run_ids:
            assert not verify(await self.store.audit(run_id))
            assert len(self.ledger(run_id)) <= 1


def _open(gate: Path) -> int:
    return os.open(gate, os.O_WRONLY)


@pytest.fixture
async def course(labs: Sequence[CrashLab], url: str, tmp_path: Path) -> AsyncIterator[Course]:
    course = Course(labs, url, tmp_path)
    yield course
    await course.store.close()


async def test_promise_03_many_answers_to_one_request_and_one_wins(course: Course) -> None:
    await course.begin()
    even, odd = await course.race(
        ("answer_many", ["even", *course.request_ids]),
        ("answer_many", ["odd", *course.request_ids[::-1]]),
    )
    assert not even & odd
    assert even | odd == set(course.request_ids)
    for run_id, request_id in zip(course.run_ids, course.request_ids, strict=True):
        record = await course.runner.get(request_id)
        assert [answer.by.id for answer in record.answers] == [
            "even" if request_id in even else "odd"
        ]
        rows = kinds(await course.store.audit(run_id))
        assert rows.count("answered") == 1
        assert rows.count("refused") == 1
        assert len(await course.store.messages(run_id)) == 1
    await course.check()


async def test_promise_07_many_advances_of_one_run_and_one_runs(course: Course) -> None:
    await course.begin(answered=True)
    one, other = await course.race(
        ("advance_many", course.run_ids), ("advance_many", course.run_ids)
    )
    assert not one & other
    for run_id in course.run_ids:
        assert course.ledger(run_id) == ["paid 0 first"]
        rows = kinds(await course.store.audit(run_id))
        assert rows.count("finished") == rows.count("effect_begun") == 1
    await course.check()


async def test_promise_03_an_answer_and_a_sweep_at_the_deadline_have_one_winner(
    course: Course,
) -> None:
    await course.begin()
    swept, taken = await course.race(
        ("sweep_after", ["48"]), ("answer_in_time", course.request_ids[::-1])
    )
    expired = {done.removeprefix("expire ") for done in swept if done.startswith("expire")}
    assert not expired & taken
    assert expired | taken == set(course.request_ids)
    for request_id in course.request_ids:
        record = await course.runner.get(request_id)
        assert (record.status is RequestStatus.EXPIRED) is (request_id in expired)
        assert bool(record.answers) is (request_id in taken)
    assert len(await course.runner.recover()) == RUNS
    for run_id, request_id in zip(course.run_ids, course.request_ids, strict=True):
        result = await course.runner.result(run_id)
        assert result == (["paid 0 first"] if request_id in taken else ["not 0"])
    await course.check()


async def test_promise_09_two_who_sweep_do_everything_once(course: Course) -> None:
    await course.begin()
    one, other = await course.race(("sweep_after", ["25"]), ("sweep_after", ["25"]))
    assert not one & other
    for request_id in course.request_ids:
        assert {f"remind {request_id}", f"widen {request_id}"} <= one | other
    for run_id in course.run_ids:
        rows = kinds(await course.store.audit(run_id))
        assert (rows.count("reminded"), rows.count("widened")) == (1, 1)
    await course.check()


async def test_two_who_start_a_run_under_one_id_start_one(course: Course) -> None:
    given = [text for n in range(RUNS) for text in (f"run-{n}", str(course.folder / f"run-{n}"))]
    one, other = await course.race(("start_many", given), ("start_many", given))
    assert one | other <= {"running", "waiting"}
    page = await course.store.requests(RequestQuery(limit=2 * RUNS))
    assert sorted(stored.run_id for stored in page) == sorted(given[::2])
    for run_id in given[::2]:
        assert kinds(await course.store.audit(run_id)) == ["started", "opened"]


async def test_a_run_that_is_cancelled_while_it_is_advanced_is_one_or_the_other(
    course: Course,
) -> None:
    await course.begin(answered=True)
    finished, cancelled = await course.race(
        ("advance_what_is_left", course.run_ids), ("cancel_many", course.run_ids[::-1])
    )
    assert not finished & cancelled
    for run_id in course.run_ids:
        run = await course.runner.get_run(run_id)
        assert run.status is (RunStatus.CANCELLED if run_id in cancelled else RunStatus.FINISHED)
        rows = kinds(await course.store.audit(run_id))
        assert ("cancelled" in rows) is (run_id in cancelled)
        assert ("finished" in rows) is (run_id in finished)
        assert not await course.store.messages(run_id)
    open_ones = await course.store.requests(RequestQuery())
    assert not open_ones.items
    await course.check()


async def test_two_who_recover_share_the_work(course: Course) -> None:
    await course.begin(answered=True)
    one, other = await course.race(("recover_all", []), ("recover_all", []))
    assert not one & other
    assert one | other == set(course.run_ids)
    for run_id in course.run_ids:
        assert course.ledger(run_id) == ["paid 0 first"]
        assert kinds(await course.store.audit(run_id)).count("finished") == 1
    await course.check()
