"""A run at work in this process, until nothing in it can advance."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from workflows.events import Event
from workflows.handler import WorkflowHandler

from llama_index_hitl._codec import SnapshotSerializer
from llama_index_hitl._upstream import result_of, stop, streamed, until_idle
from llama_index_hitl._watches import Watches
from llama_index_hitl.clock import Clock
from llama_index_hitl.errors import NothingAsked
from llama_index_hitl.models import UNCHECKED
from llama_index_hitl.snapshots import OpenRequest, PausedRun, parts_of


@dataclass
class Halt:
    """Where a run has come to.

    Attributes:
        paused: The run, if it waits for people. Of its requests it has the plain ones only: the
            others are in its context, and in the store besides.
        requests: Everything that it waits for.
        result: What it came to, written, if it has ended.
        error: What it failed with, if it has failed.
        events: Everything that was on its stream.
    """

    paused: PausedRun | None = None
    requests: list[OpenRequest] = field(default_factory=list)
    result: bytes | None = None
    error: Exception | None = None
    events: list[Event] = field(default_factory=list)


async def drive(
    handler: WorkflowHandler,
    serializer: SnapshotSerializer,
    *,
    clock: Clock,
    types: Sequence[type] = (),
    watches: Watches | None = None,
) -> Halt:
    """Let a run go on until nothing in it can advance, or it ends; then end it in this process."""
    halt = Halt()
    seen: list[Event] = []
    watching = asyncio.create_task(_show(handler, watches, seen)) if watches else None
    try:
        state = await until_idle(handler)
        if state is None:
            halt.result = serializer.serialize(result_of(handler)).encode()
        else:
            taken, halt.requests = parts_of(handler, state, types=types, clock=clock, streamed=seen)
            halt.paused = _paused(taken, halt.requests)
    except Exception as error:  # noqa: BLE001 - whatever a step raises is kept with the run
        halt.error = error
    finally:
        halt.events = streamed(handler) if watching is None else seen
        await stop(handler)
        if watching is not None:
            await watching
    return halt


def _paused(taken: dict[str, Any], requests: list[OpenRequest]) -> PausedRun:
    """Return a run as its store keeps it.

    Raises:
        NothingAsked: It would wait for ever.
    """
    if not requests:
        raise NothingAsked(taken["run_id"])
    plain = tuple(request for request in requests if request.is_plain)
    # Its store has a digest of its own for it.
    return PausedRun.model_validate({**taken, "requests": plain}, context=UNCHECKED)


async def _show(handler: WorkflowHandler, watches: Watches, seen: list[Event]) -> None:
    async for event in handler.stream_events(expose_internal=True):
        seen.append(event)
        await watches.show(handler.run_id, event)
