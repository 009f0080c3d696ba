"""Takes runs further beside the requests that ask for it, and tends to what is due."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index_hitl.errors import HitlError

if TYPE_CHECKING:
    from llama_index_hitl.runner import Runner

_LOGGER = logging.getLogger(__name__)

T = TypeVar("T")


class Worker:
    """Advances runs of one runner in this process.

    Args:
        runner: The runner.
        works: Also sweep, recover and notify, again and again, once something was served.
        every: How long to rest between two rounds of that.
    """

    def __init__(
        self, runner: Runner, *, works: bool, every: timedelta = timedelta(seconds=1)
    ) -> None:
        self._runner = runner
        self._works = works
        self._every = every
        self._tasks: set[asyncio.Task[Any]] = set()

    def nudge(self, run_id: str) -> None:
        """Advance a run soon; one that is busy or cannot be is left to others, and to `recover`."""
        task = asyncio.get_running_loop().create_task(self._advance(run_id))
        self._tasks.add(task)  # a task that nobody holds may vanish
        task.add_done_callback(self._tasks.discard)

    async def through(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something to its end, even if whoever waits for it here goes away meanwhile.

        Returns:
            What it comes to.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._let_go)
        return await asyncio.shield(task)

    def _let_go(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Whoever waits is told; if nobody does any more, this is all that is said.
            _LOGGER.info("Something asked for here ended in a %s", type(error).__name__)

    async def close(self) -> None:
        """Stop; runs at work are given back, for others to take over."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _advance(self, run_id: str) -> None:
        try:
            await self._runner.advance(run_id)
        except HitlError as error:
            _LOGGER.info("Run %s was left as it is: %s", run_id, type(error).__name__)
        except Exception:
            _LOGGER.exception("Run %s could not be advanced", run_id)
