"""Takes runs further beside the requests that ask for it, and tends to what is due."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index_hitl.errors import HitlError

if TYPE_CHECKING:
    from llama_index_hitl.runner import Runner

_LOGGER = logging.getLogger(__name__)

T = TypeVar("T")

_AT_ONCE = 32
"""How many runs are advanced at the same time because somebody asked for it here."""


class Worker:
    """Advances runs of one runner in this process.

    Args:
        runner: The runner.
        works: Also sweep, recover and notify, again and again, once something was served.
        every: How long to rest between two rounds of that.
        ring: Is called when something was, or may have been, stored about a run.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        works: bool,
        every: timedelta = timedelta(seconds=1),
        ring: Callable[[str], None] | None = None,
    ) -> None:
        self._runner = runner
        self._works = works
        self._every = every.total_seconds()
        self._ring = ring or (lambda _: None)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._rounds: tuple[asyncio.Task[None], ...] = ()
        self._wanted: dict[str, bool] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)

    def start(self) -> None:
        """Begin the rounds, unless they are under way, or are not for this process.

        An application that is mounted in another one is never told that it begins, so each request
        does this.
        """
        if not self._works or any(not task.done() for task in self._rounds):
            return
        # Beside each other: a run that takes an hour must not keep deadlines from passing.
        self._rounds = tuple(
            asyncio.get_running_loop().create_task(self._again_and_again(work))
            for work in (self._sweep, self._recover, self._runner.notify)
        )

    def nudge(self, run_id: str) -> None:
        """Advance a run soon; one that is busy or cannot be is left to others, and to `recover`.

        However often it is nudged while that is under way, one more look at it follows.
        """
        self._ring(run_id)
        if run_id in self._wanted:
            self._wanted[run_id] = True
            return
        self._wanted[run_id] = False
        task = asyncio.get_running_loop().create_task(self._take_further(run_id))
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
        tasks = (*self._tasks, *self._rounds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._rounds = ()

    async def _take_further(self, run_id: str) -> None:
        try:
            async with self._places:
                while True:
                    self._wanted[run_id] = False
                    await self._advance(run_id)
                    self._ring(run_id)
                    if not self._wanted[run_id]:
                        return
        finally:
            del self._wanted[run_id]

    async def _advance(self, run_id: str) -> None:
        try:
            await self._runner.advance(run_id)
        except HitlError as error:
            _LOGGER.info("Run %s was left as it is: %s", run_id, type(error).__name__)
        except Exception as error:  # noqa: BLE001 - it is one run, and others go on
            _LOGGER.warning("Run %s could not be advanced: %s", run_id, _told(error))

    async def _again_and_again(self, work: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - the next round may go better
                _LOGGER.warning("A round of upkeep failed: %s", _told(error))
            await asyncio.sleep(self._every)

    async def _sweep(self) -> None:
        for due in await self._runner.sweep():
            self.nudge(due.run_id)

    async def _recover(self) -> None:
        for run in await self._runner.recover():
            self._ring(run.run_id)


def _told(error: Exception) -> str:
    """Return what a log may say of an error: what it says itself may quote what is confidential."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f", {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return f"{type(error).__name__}{where}"
