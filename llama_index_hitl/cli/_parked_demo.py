"""The demo in several processes: a run is left in the store, answered, and taken further."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llama_index_hitl.cli._documents import Standing, standing_of
from llama_index_hitl.cli._failures import fail
from llama_index_hitl.cli._next import show_standing
from llama_index_hitl.cli._place import Place, person
from llama_index_hitl.cli._report import report
from llama_index_hitl.stores.protocol import RunStatus

if TYPE_CHECKING:
    from llama_index_hitl.runner import Runner


def park(
    scenario: str, topic: str | None, first_draft: str | None, model: str | None, store: str | None
) -> None:
    """Start a run, and leave it in the store when it waits for people."""
    from llama_index_hitl._demo import inputs_of, workflows

    place = Place(store=store, workflows=workflows(model), new=True)

    async def work(runner: Runner) -> Standing:
        inputs = inputs_of(scenario, topic=topic, first_draft=first_draft)
        return await standing_of(runner, await runner.start(scenario, inputs=inputs, tags=["demo"]))

    standing = place.run(work)
    typer.echo(f"The run is in {place.name}; no process is at work on it now.")
    _show(standing, place, model)


def go_on(run_id: str, model: str | None, store: str | None, out: Path | None) -> None:
    """Take a run from the store further: to its next question, or to its end."""
    from llama_index_hitl._demo import workflows
    from llama_index_hitl.prebuilt import ReviewResult

    place = Place(store=store, workflows=workflows(model))

    async def work(runner: Runner) -> tuple[Standing, Any]:
        run = await runner.get_run(run_id)
        if run.status is RunStatus.FAILED:
            run = await runner.retry(run_id, by=person(None))
        else:
            run = await runner.advance(run_id)
        result = await runner.result(run_id) if run.status is RunStatus.FINISHED else None
        return await standing_of(runner, run), result

    standing, result = place.run(work)
    if isinstance(result, ReviewResult):
        report(result, out)
    else:
        _show(standing, place, model)


def _show(standing: Standing, place: Place, model: str | None) -> None:
    from llama_index_hitl.cli._screen import Screen

    run = standing.run
    chosen = () if model is None else ("--model", model)
    further = ("hitl", "demo", "--resume", run.run_id, *chosen, *place.options)
    if run.status is RunStatus.FAILED:
        error = run.error or {}
        fail(
            f"The run failed: {error.get('type')}: {error.get('message')} It is kept: mend the "
            f"cause, then `{shlex.join(further)}`."
        )
    show_standing(Screen(), standing, place, then=further)
