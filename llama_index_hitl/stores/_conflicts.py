"""What a store says when a row is not as it was read."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from llama_index_hitl.errors import Conflict


def stale(what: str, key: str, *, wanted: int, found: int) -> Conflict:
    """Return the error for a row with another revision than the commit wants.

    Args:
        what: What kind of row it is.
        key: Its id.
        wanted: Revision that the commit was made from; 0: it makes the row.
        found: Revision that is stored; 0: there is no such row.
    """
    if found == 0:
        said = "is not there any more"
    elif wanted == 0:
        said = "is there already"
    else:
        said = f"was changed by somebody else: it is at revision {found}, not {wanted}"
    return Conflict(f"The {what} {key!r} {said}. Nothing was stored; read it again.")


def taken(message_id: str) -> Conflict:
    """Return the error for a message whose id another one has that waits."""
    return Conflict(f"There is a message {message_id!r} already. Nothing was stored.")


def refuse_stale(
    what: str, wanted: Iterable[tuple[str, int]], revision_of: Callable[[str], int]
) -> None:
    """Raise unless every row is stored as the commit wants it, and named once.

    Args:
        what: What kind of rows they are.
        wanted: Id and revision of each.
        revision_of: Tells the stored revision of an id; 0: there is no such row.

    Raises:
        Conflict: One is not.
    """
    seen: set[str] = set()
    for key, revision in wanted:
        found = revision + 1 if key in seen else revision_of(key)
        if found != revision:
            raise stale(what, key, wanted=revision, found=found)
        seen.add(key)
