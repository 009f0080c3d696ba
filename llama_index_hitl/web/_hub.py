"""Tells open streams what is new in the store, whichever process has stored it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

from llama_index_hitl.stores.protocol import Cursor, FeedEvent, Store


class Hub:
    """Reads the feed of a store once for all who follow it in this process.

    Args:
        store: The store.
        every: How long to rest between two looks at the store while somebody follows it.
    """

    def __init__(self, store: Store, *, every: timedelta = timedelta(seconds=0.5)) -> None:
        self._store = store
        self._every = every

    def ring(self) -> None:
        """Look at the store now: something was stored by this process."""

    def follow(
        self, *, run_id: str | None = None, after: Cursor | None = None
    ) -> AsyncIterator[FeedEvent]:
        """Return what was stored behind a place, and then, until closed, what is stored.

        Args:
            run_id: Of this run only.
            after: Behind this place; None: from now on.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """End all who follow."""
