"""Processes that are killed at work for an agent: its calls happen at most once, and it goes on."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_runs import agent_test
from agent_scenarios import lines_of, paying, runner_on
from durable import kinds

from llama_index_hitl import Approve, Reject
from llama_index_hitl.audit import verify
from llama_index_hitl.errors import NotAllowed
from llama_index_hitl.stores import SqlStore
from llama_index_hitl.stores.protocol import RunStatus
from llama_index_hitl.testing.crashes import CrashLab, Played
from llama_index_hitl.testing.faults import Point

pytestmark = agent_test

LATER = 0.1
"""Hours until somebody recovers: more than a lease lasts."""
RESULT = (
    "The call of transfer was rejected by a person and was NOT made. Reason: Not him.; "
    "ann got 500; cleo got 5"
)
UNKNOWN = "transfer was called and interrupted. A person has confirmed to go on; its result is"


@pytest.fixture(scope="module")
def lab() -> Iterator[CrashLab]:
    with CrashLab() as lab:
        yield lab


class Scene:
    """Runs of the agent in one store, each with a ledger of its own."""

    def __init__(self, lab: CrashLab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.url = folder / "hitl.db"
        self.store = SqlStore(self.url)

    def ledger(self, run_id: str) -> str:
        return str(self.folder / run_id)

    def runner(self, run_id: str, hours: float = LATER, **options: Any) -> Any:
        return runner_on(self.store, self.ledger(run_id), hours=hours, **options)

    async def play(self, run_id: str, later: float = 0, **death: Any) -> Played:
        more = [death.pop("on_doubt")] if "on_doubt" in death else []
        return await self.lab.play(
            "agent_scenarios:paying",
            self.url,
            run_id,
            self.ledger(run_id),
            str(later),
            *more,
            **death,
        )

    def paid(self, run_id: str) -> Counter[str]:
        return Counter(lines_of(self.ledger(run_id)))

    async def doubt(self, run_id: str, hours: float = LATER) -> Any:
        """Recover, and return the one question that is about a call that was cut off."""
        await self.runner(run_id, hours).recover()
        page = await self.runner(run_id).pending(run_id=run_id, tag="effect-in-doubt")
        (record,) = page.items
        return record


@pytest.fixture
async def scene(lab: CrashLab, tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(lab, tmp_path)
    yield scene
    await scene.store.close()


async def test_undisturbed_the_agent_pays_who_is_approved(scene: Scene):
    played = await scene.play("undisturbed")
    assert played.result == RESULT
    assert scene.paid("undisturbed") == {"paid ann": 1, "paid cleo": 1}
    assert lines_of(scene.ledger("undisturbed.model")) == ["asked", "asked"]
    assert Counter(played.points)[Point.EFFECT_DONE] == 2


@pytest.mark.parametrize(
    ("when", "point", "skip"),
    [
        ("before", Point.PARK, 0),
        ("after", Point.ANSWER, 0),
        ("before", Point.EFFECT_BEGUN, 1),
        ("after", Point.EFFECT_BEGUN, 1),
        ("before", Point.EFFECT_DONE, 1),
        ("after", Point.EFFECT_DONE, 1),
        ("before", Point.FINISH, 0),
    ],
)
async def test_a_process_that_dies_at_a_commit_pays_nobody_twice(
    scene: Scene, when: str, point: Point, skip: int
):
    assert (await scene.play("died", die=when, at=point, skip=skip)).killed
    await scene.runner("died").recover()
    runner = scene.runner("died")
    doubts = await runner.pending(run_id="died", tag="effect-in-doubt")
    for record in doubts:
        happened = scene.paid("died")["paid ann"]  # whoever is asked looks at the ledger
        await runner.answer(record.request_id, Reject() if happened else Approve(), by="erin")
    result = await paying(scene.store, "died", scene.ledger("died"), str(LATER))
    assert scene.paid("died") == {"paid ann": 1, "paid cleo": 1}
    cut_off = (when, point) in (("after", Point.EFFECT_BEGUN), ("before", Point.EFFECT_DONE))
    assert len(doubts.items) == int(cut_off)
    assert result == RESULT or (UNKNOWN in result and point is Point.EFFECT_DONE and cut_off)
    assert not verify(await scene.store.audit("died"))


@pytest.mark.parametrize("repeat", [True, False], ids=["repeated", "taken for done"])
async def test_a_person_is_asked_about_a_call_that_was_cut_off(scene: Scene, repeat: bool):
    place = "before the money has moved" if repeat else "after the money has moved"
    assert (await scene.play("cut", die="before", at=place, skip=1)).killed  # the first is cleo
    record = await scene.doubt("cut")
    request = record.request
    assert request.title == "May transfer be called again?"
    assert "never finished: it may or may not have happened. Find out first." in request.body
    assert (request.subject.data["to"], request.priority) == ("ann", "urgent")
    assert [str(kind) for kind in request.allowed] == ["approve", "reject"]
    runner = scene.runner("cut")
    with pytest.raises(NotAllowed):  # who may not approve the call may not have it repeated
        await runner.answer(record.request_id, Approve(), by="mallory")
    assert await scene.runner("cut").recover() == ()
    await runner.answer(record.request_id, Approve() if repeat else Reject(), by="erin")
    run = await scene.runner("cut").advance("cut")
    assert run.status is RunStatus.FINISHED
    assert scene.paid("cut") == {"paid ann": 1, "paid cleo": 1}
    result = str(await scene.runner("cut").result("cut"))
    assert result == RESULT if repeat else UNKNOWN in result
    assert len(lines_of(scene.ledger("cut.model"))) == 2
    rows = kinds(await runner.history("cut"))
    assert rows.count("effect_settled") == (0 if repeat else 1)
    assert rows.count("effect_begun") == (3 if repeat else 2)


async def test_a_call_that_is_cut_off_again_is_asked_about_again(scene: Scene):
    place = "after the money has moved"
    assert (await scene.play("cut", die="before", at=place, skip=1)).killed
    first = await scene.doubt("cut")
    await scene.runner("cut").answer(first.request_id, Approve(), by="erin")  # a mistake
    assert (await scene.play("cut", later=LATER, die="before", at=place)).killed
    assert scene.paid("cut")["paid ann"] == 2
    second = await scene.doubt("cut", hours=2 * LATER)
    assert second.request_id != first.request_id
    for _ in range(2):
        await scene.runner("cut", 3 * LATER).recover()
        assert scene.paid("cut")["paid ann"] == 2
    await scene.runner("cut").answer(second.request_id, Reject(), by="erin")
    run = await scene.runner("cut", 4 * LATER).advance("cut")
    assert run.status is RunStatus.FINISHED
    assert scene.paid("cut")["paid ann"] == 2


async def test_a_call_that_was_let_pass_by_a_rule_is_not_repeated(scene: Scene):
    """The run had not come to a pause: it begins anew, and the model is asked anew."""
    assert (await scene.play("anew", die="before", at=Point.PARK)).killed
    assert scene.paid("anew") == {"paid cleo": 1}
    await scene.runner("anew").recover()
    assert scene.paid("anew") == {"paid cleo": 1}
    assert len(await scene.runner("anew").pending(run_id="anew")) == 2


async def test_an_operator_settles_a_call_that_nobody_is_asked_about(scene: Scene):
    place = "after the money has moved"
    played = await scene.play("cut", die="before", at=place, skip=1, on_doubt="fail")
    assert played.killed
    runner = scene.runner("cut", on_doubt="fail")
    (run,) = await runner.recover()
    assert run.error["type"] == "EffectInDoubt"
    (effect,) = await runner.effects_in_doubt()
    await runner.settle(effect.key, by="operator", happened=True, result="ann got 500")
    assert (await runner.retry("cut", by="operator")).status is RunStatus.FINISHED
    assert str(await runner.result("cut")) == RESULT
    assert scene.paid("cut") == {"paid ann": 1, "paid cleo": 1}
