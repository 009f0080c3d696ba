"""Paused runs of every released format: they load and finish, for ever.

`python tests/test_golden_runs.py` writes those of the present format that are not there yet; what
is there is never written again.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from workflows import Workflow

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))

from durable import Article, Asking, Laddered, Payments, Plain, Staged, Waiting

from llama_index_hitl import Answer, Approve, Respond, Reviewer
from llama_index_hitl.snapshots import FORMAT_VERSION, PausedRun, pause, resume
from llama_index_hitl.testing import ManualClock

GOLDEN = Path(__file__).parent / "golden" / "paused"
FLOWS: dict[str, type[Workflow]] = {
    "article": Article,
    "asking": Asking,
    "laddered": Laddered,
    "payments": Payments,
    "plain": Plain,
    "staged": Staged,
    "waiting": Waiting,
}
RESULTS: dict[str, Any] = {
    "article": "About mice.",
    "asking": True,
    "laddered": "published",
    "payments": ["paid 0", "paid 1", "paid 2"],
    "plain": "Hello, Ada!",
    "staged": "published",
    "waiting": ["0:owner-0:True", "1:owner-1:True", "2:owner-2:True"],
}
PEOPLE = [Reviewer(id=name, roles=("legal", "chief")) for name in ("alice", "bob", "carol")]


def made(name: str) -> Workflow:
    workflow = FLOWS[name](timeout=None)
    workflow.clock = ManualClock()  # type: ignore[attr-defined]
    return workflow


def decision(schema: dict[str, Any] | None) -> Approve | Respond:
    if schema is None:
        return Approve()
    return Respond(response="Ada" if schema["type"] == "string" else {"yes": True})


async def finished(name: str, paused: PausedRun) -> Any:
    """Approve of everything, everybody in turn, with JSON in between, until the run ends."""
    outcome: Any = paused
    for number in range(10):
        if not isinstance(outcome, PausedRun):
            return outcome
        again = PausedRun.model_validate_json(outcome.model_dump_json())
        person = PEOPLE[number % len(PEOPLE)]
        answers = [
            Answer.to(
                r.request,
                decision(r.request.response_schema),
                by=person if name in ("staged",) else "alice",
                at=r.request.created_at,
            )
            for r in again.requests
        ]
        outcome = await pause(resume(made(name), again, answers))
    raise AssertionError(f"{name} does not come to an end")


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
async def test_a_run_that_was_paused_by_a_released_format_finishes(path: Path) -> None:
    name, _, _ = path.stem.partition("-v")
    Payments.bank.clear()
    paused = PausedRun.model_validate_json(path.read_text())
    assert await finished(name, paused) == RESULTS[name]


def test_every_kind_of_run_is_there_in_the_present_format() -> None:
    there = {path.stem for path in GOLDEN.glob("*.json")}
    assert {f"{name}-v{FORMAT_VERSION}" for name in FLOWS} <= there


async def _write() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name in FLOWS:
        path = GOLDEN / f"{name}-v{FORMAT_VERSION}.json"
        if not path.exists():
            workflow = made(name)
            handler = workflow.run(topic="mice", run_id=f"golden-{name}")
            paused = await pause(handler, clock=ManualClock())
            path.write_text(paused.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(_write())
