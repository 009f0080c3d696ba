"""What runs say on the way, kept in the store for those who look at them later, or from elsewhere.

    keep_progress(runner)
    await runner.start("report", topic="mice")      # steps write events to the stream
    for event in await runner.store.feed(run_id=...):
        ...                                         # event.data["message"]

Each event that a step writes to its stream (`ctx.write_event_to_stream`) becomes a `Progress`. What
upstream and this package write there is not progress, nor are pieces of text that a model sends one
by one. The runner's `redact` is asked what may be kept. A step that is run again, such as after a
crash, says again what it says.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

from workflows.events import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    InternalDispatchEvent,
    StartEvent,
    StopEvent,
)

from llama_index_hitl.errors import StoreError
from llama_index_hitl.events import (
    ReviewOutcomeEvent,
    ReviewRefusedEvent,
    ReviewRelayEvent,
    ReviewUpdatedEvent,
)
from llama_index_hitl.models import JsonObject
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores.protocol import PROGRESS, Commit, Progress

__all__ = ["keep_progress", "progress_of"]

_LARGEST = 64 * 1024
"""Bytes of JSON that are kept of one event."""

_LONGEST_MESSAGE = 2_000
"""Characters that are kept of the message of an event that is too large."""

_NO_PROGRESS = (
    InternalDispatchEvent,
    StartEvent,
    StopEvent,
    InputRequiredEvent,
    HumanResponseEvent,
    ReviewRelayEvent,
    ReviewUpdatedEvent,
    ReviewRefusedEvent,
    ReviewOutcomeEvent,
)

_LOGGER = logging.getLogger(__name__)


def keep_progress(runner: Runner) -> None:
    """Store what the runs of a runner say, from now on, while it takes them further.

    It is stored as it is said, so that others see it while the run is at work. Where it cannot be
    stored, the run goes on without. Doing this twice for a runner changes nothing.

    What is stored survives the end of the process.

    Args:
        runner: The runner.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.runner import Runner
        >>> from llama_index_hitl.stores import MemoryStore
        >>> from llama_index_hitl.testing import ScriptedLLM
        >>> async def main():
        ...     runner = Runner(MemoryStore(), {"draft": DraftApproval(llm=ScriptedLLM(["Mice."]))})
        ...     keep_progress(runner)
        ...     run = await runner.start("draft", topic="mice")
        ...     events = await runner.store.feed(run_id=run.run_id)
        ...     return [event.data["message"] for event in events if event.kind == "progress"]
        >>> asyncio.run(main())
        ['Writing about mice']
    """
    runner.add_watch(_Keeper(runner))


def progress_of(event: Event) -> JsonObject | None:
    """Return what is kept of an event; None: it is no progress.

    Args:
        event: The event.

    Returns:
        An object with `type`, the name of the event's class; `message`, what it says in its field
        `message` or `msg`, if that is text; and `data`, all of it as JSON. Of an event that cannot
        be JSON, or has more than 64 KiB of it, `data` is empty, and `message` is cut.

    Example:
        >>> from llama_index_hitl.prebuilt import ProgressEvent
        >>> progress_of(ProgressEvent(message="Writing about mice"))
        {'type': 'ProgressEvent', 'message': 'Writing about mice', 'data': {'message':
        'Writing about mice'}}
    """
    if isinstance(event, _NO_PROGRESS) or isinstance(getattr(event, "delta", None), str):
        return None
    message = _message_of(event)
    kept: JsonObject = {"type": type(event).__name__, "message": message, "data": {}}
    try:
        whole = {**kept, "data": _fields_of(event)}
        if len(json.dumps(whole, allow_nan=False)) <= _LARGEST:
            return whole
    except (ValueError, TypeError, RecursionError):
        pass  # it holds something that only lives in this process
    return {**kept, "message": message[:_LONGEST_MESSAGE]}


def _fields_of(event: Event) -> JsonObject:
    """Return the fields of an event, declared or not, side by side."""
    declared = event.model_dump(mode="json")
    return {**declared.pop("_data", {}), **declared}


def _message_of(event: Event) -> str:
    for name in ("message", "msg"):
        found = getattr(event, name, None)
        if isinstance(found, str):
            return found
    return ""


@dataclass(frozen=True)
class _Keeper:
    """Watches a runner. Two of the same runner are equal, so that it is watched once."""

    runner: Runner

    async def __call__(self, run_id: str, event: Event) -> None:
        data = progress_of(event)
        if data is None:
            return
        if self.runner.redact is not None:
            data = self.runner.redact(PROGRESS, data)
        said = Progress(run_id=run_id, at=self.runner.clock(), data=data)
        try:
            # It tells of the run and decides nothing in it: no reason to wait for the disk.
            await self.runner.store.commit(Commit(progress=(said,), durable=False))
        except StoreError as error:
            _LOGGER.warning(
                "What run %s has said (%s) was not stored: %s",
                run_id,
                type(event).__name__,
                type(error).__name__,
            )
