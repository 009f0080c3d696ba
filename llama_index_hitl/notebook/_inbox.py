"""What waits for one person in the store of a runner, as a widget that stays current."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from llama_index_hitl._extras import require
from llama_index_hitl.models import Reviewer
from llama_index_hitl.notebook._kernel import kernel_here, warm_up
from llama_index_hitl.runner import Runner

if TYPE_CHECKING:
    from llama_index_hitl.notebook._desk import Desk

DEFAULT_EVERY = timedelta(seconds=1)

_OPEN: set[Inbox] = set()
"""Inboxes that are shown: they live on when their cell has run, whether they have a name or not."""


class Inbox:
    """What waits for one person, as a live widget: the last expression of a cell shows it.

    Lists the open requests that this person can answer. A click opens one, whole, with the
    decisions that it allows; what was decided is stored at once, exactly as by `runner.answer`.
    Below stands, as HTML that is saved with the notebook, who has decided what here, and what was
    open last. Requests of other processes come and go by themselves.

    Nothing is lost when the cell, the inbox or the kernel ends: what is open stays in the store.
    Make another inbox to go on. `close()` takes the widget away and leaves the HTML, and so does
    the end of a `with` block.

    Example:
        >>> from llama_index_hitl.runner import Runner
        >>> from llama_index_hitl.stores import MemoryStore
        >>> with Inbox(Runner(MemoryStore()), reviewer="erin") as inbox:
        ...     print(inbox)
        The inbox of erin is shown in notebooks only.
        Inbox of erin

    Args:
        runner: Whose store it is. One that was given the workflows takes a run further as soon as
            it was answered; without them, another process has to.
        reviewer: Who is there; a plain id stands for a person without roles.
        every: How often to look for what is new.
        limit: How many requests to list at most, from 1; the most urgent come first.

    Raises:
        MissingExtra: The extra `notebook` is not installed.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        reviewer: Reviewer | str,
        every: timedelta = DEFAULT_EVERY,
        limit: int = 50,
    ) -> None:
        require_extra()
        self._runner = runner
        self._person = Reviewer(id=reviewer) if isinstance(reviewer, str) else reviewer
        self._every = every.total_seconds()
        self._limit = limit
        self._working: asyncio.Task[None] | None = None
        self._desk: Desk | None = None

    def __repr__(self) -> str:
        return f"Inbox of {self._person.name or self._person.id}"

    def __enter__(self) -> Self:
        self._ipython_display_()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _ipython_display_(self) -> None:
        """Show the inbox here; it is shown in one place at a time."""
        self.close()
        if kernel_here() is None:
            print(f"The inbox of {self._person.id} is shown in notebooks only.")  # noqa: T201
            return
        from llama_index_hitl.notebook._desk import Desk

        warm_up()
        self._desk = Desk(self._runner, self._person, limit=self._limit)
        self._working = asyncio.get_running_loop().create_task(self._desk.work(self._every))
        _OPEN.add(self)

    def close(self) -> None:
        """Take the widget away, and leave what can be read without a kernel. Nothing is decided."""
        _OPEN.discard(self)
        if self._working is not None:
            self._working.cancel()
            self._working = None
        if self._desk is not None:
            self._desk.close()
            self._desk = None


def require_extra() -> None:
    """Make sure that everything is there that a notebook needs.

    Raises:
        MissingExtra: It is not.
    """
    for module in ("ipywidgets", "markdown_it", "nh3", "pygments"):
        require(module, extra="notebook", purpose="reviewing in a notebook")
