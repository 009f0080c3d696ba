"""Who may do what, as the host of a runner sees it."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from llama_index_hitl.models import Reviewer, ReviewRequest


class Action(StrEnum):
    """What somebody wants to do.

    Whoever gives a standing approval along with an answer wants to `answer` and to `grant`.
    """

    ANSWER = "answer"
    """Answer a request."""
    WITHDRAW = "withdraw"
    """Take a request back."""
    CANCEL = "cancel"
    """End a run."""
    RETRY = "retry"
    """Try a failed run again."""
    SETTLE = "settle"
    """Say whether an effect that is in doubt has happened."""
    SPOT_CHECK = "spot_check"
    """Judge what a rule has approved."""
    GRANT = "grant"
    """Give a standing approval."""
    REVOKE = "revoke"
    """Revoke a standing approval."""
    CLAIM = "claim"
    """Say that they look at a request."""


class Authorizer(Protocol):
    """Vouches for people. Called before anything is changed, for every change that people make.

    Whether a request is for somebody is checked after this, with the roles that are returned: an
    authorizer can only be stricter than the request.

    Example:
        >>> from llama_index_hitl.errors import NotAllowed
        >>> ROLES = {"lena": ("legal",)}
        >>> class Staff:
        ...     async def authorize(self, by, action, *, run_id, request):
        ...         if by.id not in ROLES:
        ...             raise NotAllowed(run_id, by=by.id, reason="they do not work here")
        ...         return Reviewer(id=by.id, roles=ROLES[by.id])
        >>> staff: Authorizer = Staff()  # for `Runner(..., authorizer=staff)`
        >>> lena = Reviewer(id="lena", roles=("boss",))
        >>> asyncio.run(staff.authorize(lena, Action.ANSWER, run_id="r-1", request=None)).roles
        ('legal',)
    """

    async def authorize(
        self, by: Reviewer, action: Action, *, run_id: str, request: ReviewRequest | None
    ) -> Reviewer:
        """Return who it is, with the roles that the host vouches for.

        Args:
            by: Who they say they are.
            action: What they want to do.
            run_id: The run that it is about; empty for a standing approval that is given, or was,
                without one.
            request: The request, if it is about one.

        Raises:
            NotAllowed: They may not do this.
        """
        ...


class TrustingAuthorizer:
    """Takes everybody for who they say they are: for hosts that have checked that before.

    Example:
        >>> lena = Reviewer(id="lena", roles=("legal",))
        >>> said = TrustingAuthorizer().authorize(lena, Action.ANSWER, run_id="r-1", request=None)
        >>> asyncio.run(said) is lena
        True
    """

    async def authorize(
        self,
        by: Reviewer,
        action: Action,
        *,
        run_id: str,
        request: ReviewRequest | None,
    ) -> Reviewer:
        """Return `by` as it is.

        Args:
            by: Who they say they are.
            action: Not looked at.
            run_id: Not looked at.
            request: Not looked at.
        """
        return by
