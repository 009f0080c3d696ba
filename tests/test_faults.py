"""Stores that fail, and processes that are killed, do so where they are told to."""

import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from crash_scenarios import append, lines_of
from durable import NOON, only, runner_on

from llama_index_hitl import Approve
from llama_index_hitl.errors import StoreError
from llama_index_hitl.stores import MemoryStore, SqlStore
from llama_index_hitl.stores.protocol import Commit, Run, RunStatus, Store
from llama_index_hitl.testing import ManualClock
from llama_index_hitl.testing.crashes import CrashLab
from llama_index_hitl.testing.faults import Fault, FaultyStore, Point, point_of, reach
from llama_index_hitl.testing.stores import StoreConformance


class TestFaultyStore(StoreConformance):
    """As long as nothing fails it is as good as the store behind it."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[Any]:
        store = FaultyStore(MemoryStore(), times=0)
        yield store
        await store.close()


def a_run(**fields: Any) -> Run:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    given = {"run_id": "r", "workflow": "w", "status": RunStatus.RUNNING}
    return Run(**{**given, "created_at": at, "updated_at": at, **fields})


async def test_before_a_commit_nothing_is_stored_and_after_it_everything() -> None:
    for when, stored in (("before", False), ("after", True)):
        store = MemoryStore()
        with pytest.raises(Fault, match=f"{when} start"):
            await FaultyStore(store, at="start", when=when).commit(Commit(run=a_run()))
        assert (await store.run("r") is not None) is stored


async def test_it_fails_as_often_as_it_is_told_and_skips_as_often_as_it_is_told() -> None:
    store = FaultyStore(MemoryStore(), skip=1, times=2)
    went = []
    for number in range(4):
        try:
            await store.commit(Commit(run=a_run(run_id=f"r{number}")))
        except Fault:
            went.append(False)
        else:
            went.append(True)
    assert went == [True, False, False, True]


async def test_it_raises_what_it_is_given() -> None:
    store = FaultyStore(MemoryStore(), error=StoreError("the line is dead"))
    with pytest.raises(StoreError, match="the line is dead"):
        await store.commit(Commit(run=a_run()))


async def test_it_fails_at_its_own_point_only() -> None:
    seen: list[Point] = []
    store = FaultyStore(MemoryStore(), at=Point.ANSWER, watch=seen.append)
    runner = runner_on(store, clock=ManualClock(NOON))
    run = await runner.start("article")
    record = await only(runner, run.run_id)
    with pytest.raises(Fault):
        await runner.answer(record.request_id, Approve(), by="alice")
    await runner.answer(record.request_id, Approve(), by="alice")
    assert (await runner.advance(run.run_id)).status is RunStatus.FINISHED
    assert seen == ["start", "park", "answer", "answer", "claim", "finish"]


def test_an_unknown_point_is_refused() -> None:
    with pytest.raises(ValueError, match="nowhere"):
        FaultyStore(MemoryStore(), at="nowhere")


def test_a_lease_that_is_given_back_is_another_point_than_one_that_is_taken() -> None:
    held = a_run(revision=3, lease_owner="somebody")
    assert point_of(Commit(run=held)) is Point.CLAIM
    assert point_of(Commit(run=a_run(revision=3))) is Point.GIVE_BACK


# --------------------------------------------------------------------------- processes


@pytest.fixture(scope="module")
def lab() -> Iterator[CrashLab]:
    with CrashLab() as lab:
        yield lab


async def count(store: Store, *words: str) -> list[int]:
    """A scenario: reach a place for each word, and tell in which process."""
    for word in words:
        reach(word)
    return [os.getpid(), len(words)]


async def fail(store: Store) -> None:
    raise ZeroDivisionError("in the other process")


async def return_nonsense(store: Store) -> object:
    return object()


async def block(store: Store) -> None:
    await store.commit(Commit(run=a_run(run_id="blocking")))
    try:
        await store.commit(Commit(run=a_run(run_id="dies before")))
    finally:
        append(os.environ["HITL_TEST_FINALLY"], "cleaned up")


async def test_a_scenario_is_played_in_a_process_of_its_own(lab: CrashLab, tmp_path: Path) -> None:
    one = await lab.play("test_faults:count", tmp_path / "a.db", "x", "y")
    other = await lab.play("test_faults:count", tmp_path / "a.db")
    assert one.result[1] == 2
    assert len({one.result[0], other.result[0], os.getpid()}) == 3
    assert (one.points, one.killed) == (("x", "y"), False)


async def test_it_dies_at_a_place_that_code_names(lab: CrashLab, tmp_path: Path) -> None:
    words = ("x", "y", "x", "z")
    played = await lab.play("test_faults:count", tmp_path / "a.db", *words, die="before", at="x")
    assert (played.killed, played.points, played.result) == (True, ("x",), None)
    later = await lab.play(
        "test_faults:count", tmp_path / "a.db", *words, die="before", at="x", skip=1
    )
    assert later.points == ("x", "y", "x")
    never = await lab.play(
        "test_faults:count", tmp_path / "a.db", *words, die="before", at="x", skip=2
    )
    assert not never.killed


async def test_a_process_that_dies_cleans_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "finally"
    monkeypatch.setenv("HITL_TEST_FINALLY", str(mark))
    with CrashLab() as lab:  # one of its own, with this environment
        url = tmp_path / "a.db"
        played = await lab.play("test_faults:block", url, die="before", skip=1)
        assert (played.killed, played.points) == (True, ("start", "start"))
        assert not mark.exists()
        store = SqlStore(url)
        assert await store.run("blocking") is not None
        assert await store.run("dies before") is None
        await store.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fail", "ZeroDivisionError: in the other process"),
        ("return_nonsense", "not JSON serializable"),
        ("missing", "AttributeError"),
    ],
)
async def test_a_scenario_that_fails_says_how(
    lab: CrashLab, tmp_path: Path, name: str, said: str
) -> None:
    with pytest.raises(RuntimeError, match=said):
        await lab.play(f"test_faults:{name}", tmp_path / "a.db")
    assert (await lab.play("test_faults:count", tmp_path / "a.db")).result[1] == 0


async def test_outside_of_a_lab_a_place_is_nothing() -> None:
    reach("anywhere")


def test_lines_of_a_file_that_is_not_there_are_none(tmp_path: Path) -> None:
    assert lines_of(str(tmp_path / "nothing")) == []
