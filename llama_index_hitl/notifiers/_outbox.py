"""The outbox: what has to be told waits in the store until it is told."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from llama_index_hitl.clock import Clock, utc_now
from llama_index_hitl.errors import Conflict, NoticeRefused, NotifierError, NotifyFailed
from llama_index_hitl.notifiers._protocol import Notifier
from llama_index_hitl.stores.protocol import Commit, Notice, Store

_FIRST_WAIT = timedelta(seconds=5)
_LONGEST_WAIT = timedelta(days=1)
_FACTOR = 4

_TOLD = "_told"
"""Where a notice that waits keeps the names of those who need not be told again, in its payload."""

_log = logging.getLogger(__name__)


def backoff(attempts: int) -> timedelta:
    """Return how long a notice waits after it could not be told.

    Args:
        attempts: How often it has failed, from 1.

    Returns:
        5 seconds, then four times as long each time, at most a day: two days pass until the tenth.

    Example:
        >>> [str(backoff(attempts)) for attempts in (1, 2, 3, 10)]
        ['0:00:05', '0:00:20', '0:01:20', '1 day, 0:00:00']
    """
    # The exponent is bounded, as a notice is tried for as long as it takes.
    times: int = _FACTOR ** min(attempts - 1, 20)
    return min(_FIRST_WAIT * times, _LONGEST_WAIT)


async def deliver(
    store: Store,
    notifiers: Sequence[Notifier],
    *,
    clock: Clock = utc_now,
    limit: int = 20,
    patience: timedelta = timedelta(minutes=1),
) -> int:
    """Tell every notifier what is due in the outbox.

    A notice is claimed first, so that no other process tells it at the same time. If this process
    dies then, it is told when the claim ends, after twice `patience`. A notice is taken out when
    every notifier was told, or refused it for good. If one fails, it stays, and those who failed
    are told again after `backoff`, or when they asked for it, within a day; for ever, if need be:
    no notice is dropped. The failure goes to the log and nowhere else.

    Args:
        store: Whose outbox.
        notifiers: Whom to tell, each with a name of its own; the same ones in every process that
            delivers. Without any, nothing happens at all: the notices wait for a process that has
            some.
        clock: The present time.
        limit: How many notices at most, from 1; they are told side by side.
        patience: How long one notifier may take over one notice, in real time.

    Returns:
        How many were taken out; less than `limit` does not mean that no more are due.

    Raises:
        NotifierError: Two notifiers have the same name.
        StoreError: From the store. What was told and could not be taken out is told again.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.runner import Runner
        >>> from llama_index_hitl.stores import MemoryStore
        >>> async def main():
        ...     store = MemoryStore()
        ...     runner = Runner(store, {"draft": DraftApproval()}, notifiers=[])
        ...     await runner.start("draft", topic="mice", content="Mice are small.")
        ...     return await deliver(store, [LogNotifier()])  # of another process, say
        >>> asyncio.run(main())
        1
    """
    _check_names(notifiers)
    if not notifiers:
        return 0
    due = await store.notices(clock(), limit=limit)
    claims = [await _claimed(store, notice, clock() + 2 * patience) for notice in due]
    mine = [notice for notice in claims if notice is not None]
    results = await asyncio.gather(*(_tell(notice, notifiers, patience) for notice in mine))
    told = 0
    for notice, failures in zip(mine, results, strict=True):
        if not failures:
            await store.commit(Commit(told=(notice.notice_id,)))
            told += 1
        else:
            await _put_back(store, notice, notifiers, failures, clock())
    return told


def _check_names(notifiers: Sequence[Notifier]) -> None:
    twice = [name for name, count in Counter(n.name for n in notifiers).items() if count > 1]
    if twice:
        raise NotifierError(
            f"Several notifiers are called {', '.join(map(repr, twice))}; give each its own name, "
            "so that one can be told again without the other."
        )


async def _claimed(store: Store, notice: Notice, until: datetime) -> Notice | None:
    """Put a notice off, so that nobody else finds it due; None: somebody was first."""
    claimed = replace(notice, due=until)
    try:
        await store.commit(Commit(notices=(claimed,)))
    except Conflict:
        return None
    return replace(claimed, revision=notice.revision + 1)


async def _tell(
    notice: Notice, notifiers: Sequence[Notifier], patience: timedelta
) -> Mapping[str, BaseException]:
    """Tell all who are not told yet, side by side; return who failed, by name, and how."""
    known = _told(notice)
    waiting = [notifier for notifier in notifiers if notifier.name not in known]
    payload = {key: value for key, value in notice.payload.items() if key != _TOLD}
    shown = replace(notice, payload=payload)
    results = await asyncio.gather(
        *(_tell_one(shown, notifier, patience) for notifier in waiting), return_exceptions=True
    )
    failures: dict[str, BaseException] = {}
    for notifier, result in zip(waiting, results, strict=True):
        if isinstance(result, NoticeRefused):
            _log.error("%s refused %s for good: %s", notifier.name, _line(notice), _text(result))
        elif result is not None:
            failures[notifier.name] = result
    return failures


async def _tell_one(notice: Notice, notifier: Notifier, patience: timedelta) -> None:
    async with asyncio.timeout(patience.total_seconds()):
        await notifier.notify(notice)


async def _put_back(
    store: Store,
    notice: Notice,
    notifiers: Sequence[Notifier],
    failures: Mapping[str, BaseException],
    now: datetime,
) -> None:
    attempts = notice.attempts + 1
    asked = [f.retry_after or timedelta() for f in failures.values() if isinstance(f, NotifyFailed)]
    due = now + min(max([backoff(attempts), *asked]), _LONGEST_WAIT)
    told = sorted(_told(notice) | {n.name for n in notifiers} - set(failures))
    for name, failure in failures.items():
        _log.warning(
            "%s could not be told %s (attempt %d, again at %s): %s",
            name, _line(notice), attempts, due.isoformat(), _text(failure),
        )  # fmt: skip
    kept = replace(notice, attempts=attempts, due=due, payload={**notice.payload, _TOLD: [*told]})
    try:
        await store.commit(Commit(notices=(kept,)))
    except Conflict:
        # This took longer than the claim, and another process has taken over.
        _log.debug("%s is with somebody else now", _line(notice))


def _told(notice: Notice) -> set[str]:
    names = notice.payload.get(_TOLD)
    return {str(name) for name in names} if isinstance(names, list) else set()


def _line(notice: Notice) -> str:
    return f"notice {notice.notice_id!r} ({notice.kind}, run {notice.run_id!r})"


def _text(failure: BaseException) -> str:
    """Return an error as one line: its words may come from anywhere."""
    return f"{type(failure).__name__}: {ascii(str(failure))[:500]}"
