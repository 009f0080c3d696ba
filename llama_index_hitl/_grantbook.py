"""How a guarded tool finds the standing approvals that hold in its run."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol

from llama_index_hitl.grants import Grant, GuardedCall


class GrantBook(Protocol):
    """The standing approvals that hold in one run."""

    async def use(self, call: GuardedCall, *, key: str) -> Grant | None:
        """Let a call be covered by a grant, if one covers it, and count it.

        Args:
            call: The call.
            key: Tells this call from all others, over replays, crashes and restores: the same key
                is counted once, and gets the same grant again.

        Returns:
            The grant as it stands then; None: none covers the call.
        """
        ...


_BOOK: ContextVar[GrantBook | None] = ContextVar("llama_index_hitl_grants", default=None)


def present_book() -> GrantBook | None:
    """Return the book of the run that this code runs in; None: no runner drives it."""
    return _BOOK.get()
