"""A process dies at each commit, and at places between them: nothing is lost, nothing done twice.

After each death somebody recovers, in another process, and then the host does again what it was
about to do. In the end everything must be as if nobody had died.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from crash_scenarios import SCENARIOS, lines_of, one_answer, runner_on
from durable import NOON, kinds

from llama_index_hitl._parking import load_parked
from llama_index_hitl.audit import verify
from llama_index_hitl.effects import EffectInDoubt
from llama_index_hitl.errors import RunBusy, UnknownRun
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import SqlStore
from llama_index_hitl.stores.protocol import RequestQuery, Run, RunStatus, Store
from llama_index_hitl.testing import ManualClock
from llama_index_hitl.testing.crashes import CrashLab, Played
from llama_index_hitl.testing.faults import Point

LATER = 0.1
"""Hours until somebody recovers: more than a lease lasts, and than a notice is claimed for."""

PLACES = ("in the step", "before the money has moved", "after the money has moved")
NEVER_IN_A_SCENARIO = {Point.GIVE_BACK}


@pytest.fixture(scope="module")
def lab() -> Iterator[CrashLab]:
    with CrashLab() as lab:
        yield lab


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "hitl.db")
    found: str = request.getfixturevalue("postgres_url")
    return found


class Scene:
    """One scenario on one store, played again and again, each time as a run of its own."""

    def __init__(self, lab: CrashLab, url: str, folder: Path, scenario: Callable[..., Any]) -> None:
        self.lab = lab
        self.url = url
        self.on_sqlite = "://" not in url
        self.folder = folder
        self.scenario = scenario
        self.name = scenario.__name__
        self.store: Store = SqlStore(url)

    def ledger(self, run_id: str) -> str:
        return str(self.folder / run_id)

    def runner(self) -> Runner:
        """Return a runner as whoever recovers has it."""
        clock = ManualClock(NOON + timedelta(hours=LATER))
        return runner_on(self.store, clock, notices=self.notices("recovering"))

    def notices(self, run_id: str) -> str | None:
        return self.ledger(run_id) + ".notices" if self.name == "notified" else None

    async def play(self, run_id: str, *, later: float = 0, **death: Any) -> Played:
        return await self.lab.play(
            f"crash_scenarios:{self.name}",
            self.url,
            *(run_id, self.ledger(run_id), str(later)),
            **death,
        )

    async def recover(self, run_id: str) -> None:
        """Recover, and settle what is in doubt by looking whether it has happened."""
        runner = self.runner()
        await runner.recover()
        try:
            run = await runner.get_run(run_id)
        except UnknownRun:
            return
        doubts = [e for e in await runner.effects_in_doubt() if e.run_id == run_id]
        if doubts and self.name != "doubted":  # where that is for the scenario to do
            run = await self.settle(doubts[0].key, run)
        await self.check(run)
        if self.name == "notified":
            await runner.notify()

    async def settle(self, key: str, run: Run) -> Run:
        """Say of an effect in doubt whether it has happened, and try the run again."""
        assert run.error["type"] == EffectInDoubt.__name__
        lines = lines_of(self.ledger(run.run_id))
        happened = len(lines) > len(await self.store.effects(run_id=run.run_id, status="done"))
        result = lines[-1] if happened else None
        await self.runner().settle(key, by="operator", happened=happened, result=result)
        return await self.runner().retry(run.run_id, by="operator")

    async def check(self, run: Run) -> None:
        """What must hold after every recovery."""
        rows = await self.store.audit(run.run_id)
        assert not verify(rows)
        assert run.status is not RunStatus.RUNNING
        if run.status is not RunStatus.FAILED:
            assert not await self.store.messages(run.run_id), "a run was not told something"
        page = await self.store.requests(RequestQuery(run_id=run.run_id, open=None))
        records = [stored.record for stored in page]
        by_people = Counter(
            (answer.request_id, answer.by.id)
            for record in records
            for answer in record.answers
            if answer.by.kind != "rule"
        )
        on_record = Counter(
            (row.entry.request_id, row.entry.actor) for row in rows if row.entry.kind == "answered"
        )
        assert by_people == on_record, "answers are as they are on record"
        assert all(count == 1 for count in by_people.values()), "no answer is taken twice"
        if run.status is RunStatus.WAITING:
            whole = await self.store.run(run.run_id, whole=True)
            _, open_ids = load_parked(whole.snapshot)
            listed = [r.request.request_id for r in records if r.status == "open"]
            assert sorted(listed) == sorted(open_ids), "what is listed is what the run waits for"

    async def end(self, run_id: str, undisturbed: Played) -> None:
        """Play it again, to its end, and compare."""
        result = await self.scenario(self.store, run_id, self.ledger(run_id), str(LATER))
        assert result == undisturbed.result
        assert sorted(lines_of(self.ledger(run_id))) == sorted(lines_of(self.ledger("undisturbed")))
        assert all(e.status == "done" for e in await self.store.effects(run_id=run_id))
        await self.check(await self.runner().get_run(run_id))
        assert await self.answered(run_id) == await self.answered("undisturbed")

    async def answered(self, run_id: str) -> int:
        return kinds(await self.store.audit(run_id)).count("answered")


@pytest.fixture
async def scene(request: pytest.FixtureRequest, lab: CrashLab, url: str, tmp_path: Path) -> Any:
    scene = Scene(lab, url, tmp_path, request.param)
    yield scene
    await scene.store.close()


def commits_of(played: Played) -> list[str]:
    return [point for point in played.points if point in set(Point)]


def deaths_in(scene: Scene, commits: list[str]) -> list[tuple[int, str]]:
    """Return the commits to die at: all on SQLite, the first of each kind on PostgreSQL."""
    return [
        (number, point)
        for number, point in enumerate(commits)
        if scene.on_sqlite or point not in commits[:number]
    ]


def named(scenarios: Any) -> Any:
    return {"argvalues": scenarios, "ids": lambda s: s.__name__, "indirect": True}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scene", **named(SCENARIOS))
async def test_promise_07_a_process_that_dies_at_a_commit_loses_nothing(scene: Scene) -> None:
    undisturbed = await scene.play("undisturbed")
    for number, point in deaths_in(scene, commits_of(undisturbed)):
        # Before a commit nothing of it is anywhere: one store shows that for both.
        for when in ("before", "after") if scene.on_sqlite else ("after",):
            run_id = f"{when}-{number}-{point}"
            died = await scene.play(run_id, die=when, skip=number)
            assert died.killed, run_id
            assert commits_of(died) == commits_of(undisturbed)[: number + 1], run_id
            stored = commits_of(died)[: None if when == "after" else -1]
            assert await scene.answered(run_id) == stored.count("answer"), run_id
            await scene.recover(run_id)
            await scene.end(run_id, undisturbed)


PAYING = [s for s in SCENARIOS if s.__name__ in ("one_answer", "several_answers", "revised")]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scene", **named(PAYING))
async def test_promise_07_a_process_that_dies_in_a_step_or_in_an_effect(scene: Scene) -> None:
    undisturbed = await scene.play("undisturbed")
    for place, times in Counter(p for p in undisturbed.points if p in PLACES).items():
        for number in range(times):
            run_id = f"{place}-{number}".replace(" ", "-")
            died = await scene.play(run_id, die="before", at=place, skip=number)
            assert died.killed, run_id
            assert died.points[-1] == place
            await scene.recover(run_id)
            await scene.end(run_id, undisturbed)


@pytest.mark.parametrize("scene", **named([one_answer]))
async def test_an_effect_that_was_cut_off_is_reported_and_not_repeated(scene: Scene) -> None:
    await scene.play("cut-off", die="before", at="after the money has moved")
    assert lines_of(scene.ledger("cut-off")) == ["paid 0 first"]
    runner = scene.runner()
    (run,) = await runner.recover()
    assert run.error["type"] == EffectInDoubt.__name__
    (effect,) = await runner.effects_in_doubt()
    for _ in range(3):
        assert (await runner.retry("cut-off", by="operator")).error["type"] == "EffectInDoubt"
        assert not await runner.recover()
    assert lines_of(scene.ledger("cut-off")) == ["paid 0 first"]
    assert effect.key in run.error["message"]
    rows = kinds(await runner.history("cut-off"))
    assert rows.count("effect_begun") == 1
    assert rows.count("effect_in_doubt") == 4


@pytest.mark.parametrize("scene", **named([one_answer]))
async def test_a_run_is_left_alone_until_the_lease_of_the_dead_has_ended(scene: Scene) -> None:
    await scene.play("dead", die="before", at="in the step")
    soon = runner_on(scene.store, ManualClock(NOON + timedelta(seconds=59)))
    assert not await soon.recover()
    with pytest.raises(RunBusy):
        await soon.advance("dead")
    then = runner_on(scene.store, ManualClock(NOON + timedelta(seconds=60)))
    assert [run.status for run in await then.recover()] == [RunStatus.FINISHED]


@pytest.mark.parametrize("scene", **named([one_answer]))
async def test_a_run_that_kills_whoever_advances_it_is_given_up_and_can_be_retried(
    scene: Scene,
) -> None:
    await scene.play("deadly", die="after", at="answer")
    for number in range(1, 6):
        later = number * LATER
        died = await scene.play("deadly", die="before", at="in the step", later=later)
        assert died.killed
    clock = ManualClock(NOON + timedelta(hours=10 * LATER))
    runner = runner_on(scene.store, clock)
    (given_up,) = await runner.recover()
    assert given_up.status is RunStatus.FAILED
    assert given_up.error["type"] == "ProcessDied"
    assert not await runner.recover()
    assert (await runner.retry("deadly", by="operator")).status is RunStatus.FINISHED
    assert lines_of(scene.ledger("deadly")) == ["paid 0 first"]


async def test_every_point_is_in_some_scenario(lab: CrashLab, tmp_path: Path) -> None:
    seen: set[str] = set()
    for scenario in SCENARIOS:
        scene = Scene(lab, str(tmp_path / "hitl.db"), tmp_path, scenario)
        seen.update(commits_of(await scene.play(scenario.__name__)))
    assert set(Point) - seen == NEVER_IN_A_SCENARIO
