"""Those who are shown what runs say, while they are at work in this process."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from workflows.events import Event

from llama_index_hitl._text import origin_of

_LOGGER = logging.getLogger(__name__)

Watch: TypeAlias = Callable[[str, Event], Awaitable[None] | None]
"""Is shown each event of a run's stream, with the run's id, while it is advanced."""


class Watches:
    """A list of those who watch, which may change at any time.

    Args:
        first: Is on it from the beginning.
    """

    def __init__(self, first: Watch | None = None) -> None:
        self._all = [] if first is None else [first]

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, watch: Watch) -> Callable[[], None]:
        """Put one on the list, unless it is there; return what takes it off again."""
        if watch not in self._all:
            self._all.append(watch)

        def stop() -> None:
            if watch in self._all:
                self._all.remove(watch)

        return stop

    async def show(self, run_id: str, event: Event) -> None:
        """Show an event to all of them; what one raises is its affair, and not the run's."""
        for watch in tuple(self._all):
            try:
                shown = watch(run_id, event)
                if inspect.isawaitable(shown):
                    await shown
            except Exception as error:  # noqa: BLE001
                _LOGGER.error(  # noqa: TRY400 - the traceback would say too much
                    "What watches run %s has failed at %s: %s",
                    run_id,
                    type(event),
                    origin_of(error),
                )
