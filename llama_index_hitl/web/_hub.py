"""Tells open streams what is new in the store, whichever process has stored it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

from workflows.events import Event

from llama_index_hitl.errors import StoreError
from llama_index_hitl.stores import InvalidCursor
from llama_index_hitl.stores.protocol import Cursor, FeedEvent, Run, Store, StoredRequest

T = TypeVar("T")

_LOGGER = logging.getLogger(__name__)

_PAGE = 200
_LONGEST_REST = 30.0
"""Seconds between two looks at a store that cannot be reached."""
_LONGEST_WAIT = 5.0
"""Seconds until a stream tries to go on where it could not read what it has to tell."""
_LONGEST_TEXT = 64_000
"""Characters of text as it is being written that are kept for one who is slow to read it."""


class Hub:
    """Looks at a store while anybody follows it, and wakes those whom something new concerns.

    Each of them reads the feed from a place of its own, so that it misses nothing and gets nothing
    twice, however slow it is, and nothing is kept for it. What several want at the same time is
    read once.

    Args:
        store: The store.
        every: How long to rest between two looks at the store.
    """

    def __init__(self, store: Store, *, every: timedelta = timedelta(seconds=0.5)) -> None:
        self._store = store
        self._every = every.total_seconds()
        self._bell = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._followers: set[Follower] = set()
        self._reading: dict[tuple[object, ...], asyncio.Task[Any]] = {}
        self._seen = 0
        self._missed = True
        self._closed = False
        self._closing = asyncio.Event()

    @property
    def followers(self) -> int:
        """How many follow the store here."""
        return len(self._followers)

    @property
    def closed(self) -> bool:
        """Whether nobody can follow any more."""
        return self._closed

    def ring(self, run_id: str | None = None) -> None:
        """Look at the store now: something was stored by this process.

        Args:
            run_id: The run that it was about: who follows it looks, whatever the feed says.
        """
        if self._followers:
            self._tell(() if run_id is None else (run_id,))
            self._bell.set()

    def overhear(self, run_id: str, event: Event) -> None:
        """Pass on what a run of this process is writing: text that its events have as `delta`.

        Agents say so what their model says, and steps of your own can.
        """
        text = getattr(event, "delta", None)
        if not isinstance(text, str) or not text:
            return
        for follower in self._followers:
            if follower.run_id == run_id:
                follower.overhear(text)

    @contextmanager
    def follow(
        self, *, run_id: str | None = None, after: Cursor | None = None
    ) -> Iterator[Follower]:
        """Follow the feed while the block lasts.

        Args:
            run_id: Of this run only.
            after: Behind this place, such as `Store.feed_end`; None: from the beginning.
        """
        follower = Follower(self, run_id=run_id, after=after)
        self._followers.add(follower)
        if not self._closed and (self._reader is None or self._reader.done()):
            self._bell = asyncio.Event()  # belongs to the event loop that waits for it
            self._reader = asyncio.get_running_loop().create_task(self._read())
        try:
            yield follower
        finally:
            self._followers.discard(follower)
            if not self._followers:
                self._bell.set()

    async def close(self) -> None:
        """End all who follow, and whoever will."""
        self._closed = True
        self._closing.set()
        self._tell(None)
        self._bell.set()
        if self._reader is not None:
            await self._reader
        await asyncio.gather(*self._reading.values(), return_exceptions=True)

    async def page(self, run_id: str | None, after: Cursor | None) -> Sequence[FeedEvent]:
        """Read the feed for one who follows it; nothing while the store cannot be reached.

        It is shared with those who want the same, unless their reading began before this was told
        what is new.

        Raises:
            InvalidCursor: `after` is no place in a feed.
        """
        try:
            return await self._shared(
                ("page", self._seen, run_id, after), lambda: self._feed(run_id, after)
            )
        except InvalidCursor:
            raise
        except StoreError:
            self._missed = True
            return ()

    async def request(self, event: FeedEvent) -> StoredRequest | None:
        """Return the request that an event is about, as it is stored now.

        It is shared with those who ask on account of the same event at the same time.
        """
        request_id = event.request_id
        if request_id is None:
            return None
        return await self._shared(
            ("request", event.cursor), lambda: self._store.request(request_id)
        )

    async def run(self, event: FeedEvent) -> Run | None:
        """Return the run that an event is about, as it is stored now; it is shared likewise."""
        return await self._shared(("run", event.cursor), lambda: self._store.run(event.run_id))

    async def patiently(self, read: Callable[[], Awaitable[T]]) -> T:
        """Read something, again and again while the store cannot be reached and the hub is open.

        Raises:
            StoreError: The hub was closed meanwhile.
        """
        failures = 0
        while True:
            try:
                return await read()
            except StoreError:
                if self._closed:
                    raise
                await _happened(self._closing, min(self._every * 2**failures, _LONGEST_WAIT))
                failures = min(failures + 1, 10)

    async def _shared(self, wanted: tuple[object, ...], read: Callable[[], Awaitable[T]]) -> T:
        """Read something, or wait for it where somebody reads it already."""

        async def reading() -> T:
            try:
                return await read()
            finally:
                del self._reading[wanted]  # what has been read may not be so any more

        task = self._reading.get(wanted)
        if task is None:
            task = asyncio.get_running_loop().create_task(reading())
            self._reading[wanted] = task
        return cast("T", await asyncio.shield(task))

    async def _feed(self, run_id: str | None, after: Cursor | None) -> Sequence[FeedEvent]:
        return await self._store.feed(run_id=run_id, after=after, limit=_PAGE)

    async def _read(self) -> None:
        """Look at the store, again and again, while anybody follows it."""
        place: Cursor | None = None
        failures = 0
        # Who has read before the first look may have missed what came in between.
        self._missed = True
        while self._followers and not self._closed:
            self._bell.clear()
            try:
                place = await self._store.feed_end() if place is None else await self._look(place)
            except Exception as error:  # noqa: BLE001 - streams outlive whatever a store raises
                failures = min(failures + 1, 10)
                _LOGGER.warning("The store could not be followed: %s", type(error).__name__)
            else:
                failures = 0
                if self._missed:
                    self._missed = False
                    self._tell(None)
            await _happened(self._bell, min(self._every * 2**failures, _LONGEST_REST))

    async def _look(self, place: Cursor) -> Cursor:
        """Tell of what is new behind a place; return the place behind that."""
        while True:
            events = await self._feed(None, place)
            if events:
                place = events[-1].cursor
                self._tell({event.run_id for event in events})
            if len(events) < _PAGE:
                return place

    def _tell(self, run_ids: Collection[str] | None) -> None:
        """Wake those whom news of some runs concerns; None: everybody."""
        self._seen += 1
        for follower in self._followers:
            if run_ids is None or follower.run_id is None or follower.run_id in run_ids:
                follower.wake()


@dataclass(frozen=True)
class News:
    """What somebody who follows a store is told.

    Attributes:
        events: What was stored, in order.
        text: What was being written meanwhile, which is kept nowhere.
        more: There is more to read at once.
    """

    events: tuple[FeedEvent, ...] = ()
    text: str = ""
    more: bool = False


class Follower:
    """Somebody who follows a store, and where they are.

    Attributes:
        run_id: The run that they follow; None: all.
        place: Behind this they read on.
    """

    def __init__(self, hub: Hub, *, run_id: str | None, after: Cursor | None) -> None:
        self.run_id = run_id
        self.place = after
        self._hub = hub
        self._awake = asyncio.Event()
        self._unread = True
        self._text = ""

    def wake(self) -> None:
        """Let them read on."""
        self._unread = True
        self._awake.set()

    def overhear(self, text: str) -> None:
        """Tell them what is being written; of what they are too slow for, the end is kept."""
        self._text = (self._text + text)[-_LONGEST_TEXT:]
        self._awake.set()

    async def news(self, *, within: timedelta) -> News | None:
        """Wait for what is new.

        Args:
            within: How long to wait.

        Returns:
            What is new; without anything when the time is over, or when somebody rang; None: the
            hub was closed.

        Raises:
            InvalidCursor: They began at what is no place in a feed.
        """
        if not self._unread and not self._text and not self._is_over():
            await _happened(self._awake, within.total_seconds())
        self._awake.clear()
        if self._is_over():
            return None
        text, self._text = self._text, ""
        if not self._unread:
            return News(text=text)
        self._unread = False
        events = await self._hub.page(self.run_id, self.place)
        if events:
            self.place = events[-1].cursor
        elif self._is_over():
            return None
        self._unread = self._unread or len(events) == _PAGE
        return News(tuple(events), text, more=len(events) == _PAGE)

    def _is_over(self) -> bool:
        return self._hub.closed


async def _happened(event: asyncio.Event, within: float) -> bool:
    """Wait for an event, but no longer than so many seconds; tell whether it was set."""
    try:
        async with asyncio.timeout(within):
            return await event.wait()
    except TimeoutError:
        return False
