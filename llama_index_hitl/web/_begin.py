"""Runs that streams start: stored first, then taken further beside whoever looks on."""

from __future__ import annotations

from typing import Any

from llama_index_hitl.models import Reviewer
from llama_index_hitl.stores.protocol import Run
from llama_index_hitl.web._site import Site
from llama_index_hitl.web._starting import inputs_of
from llama_index_hitl.web._story import seen_run


async def begin_run(
    site: Site, person: Reviewer, workflow: str, inputs: dict[str, Any], run_id: str | None
) -> Run:
    """Start a run; one that is there under its id already is followed as it is.

    Raises:
        UnknownWorkflow: There is none with that name that they may start.
        InvalidStart: The inputs do not fit it.
        UnknownRun: The id belongs to a run that they may not see.
        RunExists: The id belongs to a run of another workflow.
    """
    given = inputs_of(site, person, workflow, inputs)
    run = await site.runner.enqueue(workflow, by=person, run_id=run_id, inputs=given)
    run = await seen_run(site, person, run.run_id)
    site.worker.nudge(run.run_id)
    return run
