"""What streams tell of runs and requests, whatever they are sent through."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeAlias

from llama_index_hitl.audit import AuditKind
from llama_index_hitl.errors import UnknownWorkflow
from llama_index_hitl.models import RequestStatus, Reviewer
from llama_index_hitl.stores.paging import all_requests
from llama_index_hitl.stores.protocol import (
    PROGRESS,
    Cursor,
    FeedEvent,
    RequestQuery,
    RunStatus,
    Store,
    StoredRequest,
)
from llama_index_hitl.web._hub import Follower
from llama_index_hitl.web._running import SeenRun, seen_run
from llama_index_hitl.web._site import Site
from llama_index_hitl.web._views import detail_of, json_of, summary_of

QUIET = timedelta(seconds=15)
"""After so long without news a stream says that it is still there, so that no proxy cuts it."""

OVER = frozenset({RunStatus.FINISHED, RunStatus.FAILED, RunStatus.CANCELLED})
"""How a run stands that goes on only if somebody wants it to."""

Who: TypeAlias = Callable[[], Awaitable[Reviewer]]
"""Says who looks at a stream, as they are signed in now.

Raises:
    NotSignedIn: They no longer are.
"""

FINAL = frozenset({"final_result", "failed", "cancelled"})
"""What is said of a run that is over."""

_ASKS = frozenset({AuditKind.OPENED, AuditKind.REOPENED})
_ANSWERS = frozenset({AuditKind.ANSWERED, AuditKind.RULE_DECIDED})
_ENDS = frozenset({AuditKind.FINISHED, AuditKind.FAILED, AuditKind.CANCELLED})
_UNTOLD = frozenset({AuditKind.REFUSED})
"""What changes nothing for those who look on."""


@dataclass(frozen=True)
class Said:
    """One thing that a stream says.

    Attributes:
        name: What it is.
        data: What there is to know, as JSON.
        cursor: A stream that is followed from here on says what comes after it. None: it is not
            kept, and not said again.
    """

    name: str
    data: dict[str, Any]
    cursor: Cursor | None = None


@dataclass(frozen=True)
class Pause:
    """That is all for now.

    Attributes:
        cursor: All up to here is told, or is not for them to know.
    """

    cursor: Cursor | None


Told: TypeAlias = Said | Pause


async def told_in_inbox(
    site: Site, who: Who, after: Cursor, *, within: timedelta = QUIET
) -> AsyncGenerator[Told, None]:
    """Yield what happens to the requests that somebody may see.

    Args:
        site: The application.
        who: Who looks.
        after: Behind this place of the feed.
        within: How long to wait for more.

    Raises:
        NotSignedIn: They no longer are.
    """
    with site.hub.follow(after=after) as follower:
        while (news := await follower.news(within=within)) is not None:
            person = await site.hub.patiently(who)
            for event in news.events:
                said = await site.hub.patiently(partial(_said_in_inbox, site, person, event))
                if said is not None:
                    yield said
            if not news.more:
                yield Pause(follower.place)


async def _said_in_inbox(site: Site, person: Reviewer, event: FeedEvent) -> Said | None:
    if event.request_id is None or event.kind in _UNTOLD:
        return None
    stored = await site.hub.request(event)
    if stored is None:
        return None
    shown = site.visibility.shown(person, stored)
    if shown is None:  # unless it is theirs because the run is
        shown = site.visibility.shown(person, stored, run=await site.hub.run(event))
    if shown is None:
        return None
    data = _about(site, person, event, shown)
    if event.kind in _ANSWERS:
        data |= _answer_at(shown, event)
    return Said(event.kind, data, event.cursor)


@dataclass(frozen=True)
class Waits:
    """What a run waits for.

    Attributes:
        questions: How somebody is asked what they were not asked yet.
        request_ids: Everything that they see of what is open.
        behind: The feed does not say yet all that the store says.
    """

    questions: tuple[Said, ...]
    request_ids: list[str]
    behind: bool


class Story:
    """What one person is told of one run.

    Attributes:
        run_id: The run.
        asked: Ids of the requests that the feed has said to be open, whoever may see them.
        shown: Ids of the requests that the person was asked to answer.
        ended: Whether the last that was said of the run as a whole is that it is over.
    """

    def __init__(self, site: Site, who: Who, run_id: str) -> None:
        self.run_id = run_id
        self.asked: set[str] = set()
        self.shown: set[str] = set()
        self.ended = False
        self._site = site
        self._who = who

    async def told(
        self, *, after: Cursor | None = None, within: timedelta = QUIET
    ) -> AsyncGenerator[Told, None]:
        """Yield what happens, until the run is over and all is told.

        Args:
            after: Behind this place of the feed; None: from the run's beginning.
            within: How long to wait for more.

        Yields:
            What happens, and a pause whenever there is no more.

        Raises:
            UnknownRun: There is none, or none that they may see any more.
            NotSignedIn: They no longer are.
            InvalidCursor: `after` is no place in a feed.
        """
        patiently = self._site.hub.patiently
        with self._site.hub.follow(run_id=self.run_id, after=after) as follower:
            while (news := await follower.news(within=within)) is not None:
                person, seen = await patiently(self._looked)
                if news.text and not seen.masked:
                    yield Said("delta", {"text": news.text})
                for event in news.events:
                    said = await patiently(partial(self._said, person, seen, event))
                    if said is not None:
                        yield said
                if news.more:
                    continue
                if seen.run.status in OVER and await patiently(partial(self._is_told, follower)):
                    return
                yield Pause(follower.place)

    def note(self, event: FeedEvent) -> None:
        """Note what an event says to be asked."""
        if event.kind in _ASKS and event.request_id is not None:
            self.asked.add(event.request_id)

    async def _looked(self) -> tuple[Reviewer, SeenRun]:
        """Return who looks, and the run as they may see it now."""
        person = await self._who()
        return person, await seen_run(self._site, person, self.run_id)

    async def _is_told(self, follower: Follower) -> bool:
        """Tell whether there is nothing left to tell of a run that is over."""
        if self.ended:
            return True
        return await is_told(self._site.runner.store, self.run_id, follower.place)

    async def _said(self, person: Reviewer, seen: SeenRun, event: FeedEvent) -> Said | None:
        if event.kind == PROGRESS:
            said = {"type": event.data.get("type"), "message": None, "data": {}}
            said |= {} if seen.masked else event.data
            return Said(PROGRESS, {**said, "at": event.at.isoformat()}, event.cursor)
        if event.request_id is not None:
            return await self._said_of_request(person, seen, event)
        self.ended = event.kind in _ENDS
        match event.kind:
            case AuditKind.FINISHED:
                return Said("final_result", await self._result(seen), event.cursor)
            case AuditKind.FAILED:
                return Said("failed", self._error(seen), event.cursor)
            case _:
                data = {"run_id": self.run_id, "at": event.at.isoformat()}
                return Said(event.kind, data, event.cursor)

    async def _said_of_request(
        self, person: Reviewer, seen: SeenRun, event: FeedEvent
    ) -> Said | None:
        self.note(event)
        stored = None if event.kind in _UNTOLD else await self._site.hub.request(event)
        if stored is None:
            return None
        shown = self._site.visibility.shown(person, stored, run=seen.run)
        if shown is None:
            return None
        if event.kind in _ASKS and shown.record.status is RequestStatus.OPEN:
            return self.question(person, shown, event)
        data = _about(self._site, person, event, shown)
        if event.kind in _ANSWERS:
            data |= _answer_at(shown, event)
        return Said(event.kind, data, event.cursor)

    def question(
        self, person: Reviewer, shown: StoredRequest, event: FeedEvent | None = None
    ) -> Said:
        """Return how somebody is asked, with all that it takes to answer."""
        self.shown.add(shown.request_id)
        detail = detail_of(shown, person, self._site.clock())
        data = {
            "request_id": shown.request_id,
            "run_id": self.run_id,
            "at": detail.created_at.isoformat() if event is None else event.at.isoformat(),
            "request": detail.model_dump(mode="json"),
        }
        return Said("input_required", data, None if event is None else event.cursor)

    async def past(self) -> AsyncIterator[FeedEvent]:
        """Yield all that the feed says of the run."""
        async for event in whole_feed(self._site.runner.store, self.run_id):
            yield event

    async def waits(self) -> Waits | None:
        """Return what the run waits for; None: it does not wait.

        Raises:
            UnknownRun: They may not see it any more.
            NotSignedIn: They no longer are.
        """
        return await self._site.hub.patiently(self._waits)

    async def _waits(self) -> Waits | None:
        store = self._site.runner.store
        # In this order: a run that has been told everything waits, or goes on, after that.
        if await store.messages(self.run_id):
            return None
        person, seen = await self._looked()
        if seen.run.status is not RunStatus.WAITING:
            return None
        query = RequestQuery(run_id=self.run_id)
        asked = {stored.request_id async for stored in all_requests(store, query)}
        left = [s for s in seen.requests if s.request_id in asked]
        return Waits(
            questions=tuple(
                self.question(person, shown) for shown in left if shown.request_id not in self.shown
            ),
            request_ids=[shown.request_id for shown in left],
            behind=not asked <= self.asked,
        )

    async def end(self) -> Said | None:
        """Return what a run has come to, for those who have not been told; None: it goes on."""
        _, seen = await self._site.hub.patiently(self._looked)
        match seen.run.status:
            case RunStatus.FINISHED:
                return Said("final_result", await self._result(seen))
            case RunStatus.FAILED:
                return Said("failed", self._error(seen))
            case RunStatus.CANCELLED:
                at = seen.run.updated_at.isoformat()
                return Said("cancelled", {"run_id": self.run_id, "at": at})
            case _:
                return None

    async def _result(self, seen: SeenRun) -> dict[str, Any]:
        nothing = {"run_id": self.run_id, "result": None}
        if seen.masked:
            return {**nothing, "withheld": "It may hold what is hidden from you."}
        try:
            result = await self._site.runner.result(self.run_id)
        except UnknownWorkflow:
            return {**nothing, "withheld": "It takes the code of the workflow to read it."}
        return {**nothing, "result": json_of(result)}

    def _error(self, seen: SeenRun) -> dict[str, Any]:
        return {"run_id": self.run_id, "error": seen.view().error}


async def is_told(store: Store, run_id: str, place: Cursor | None) -> bool:
    """Tell whether the feed says that a run is over, and nothing of it behind a place."""
    ended = False
    async for event in whole_feed(store, run_id):
        if event.request_id is None and event.kind != PROGRESS:
            ended = event.kind in _ENDS
    return ended and not await store.feed(run_id=run_id, after=place, limit=1)


async def whole_feed(store: Store, run_id: str) -> AsyncIterator[FeedEvent]:
    """Yield all that the feed says of a run."""
    place: Cursor | None = None
    while page := await store.feed(run_id=run_id, after=place, limit=200):
        for event in page:
            yield event
        place = page[-1].cursor


def _about(site: Site, person: Reviewer, event: FeedEvent, shown: StoredRequest) -> dict[str, Any]:
    return {
        "request_id": shown.request_id,
        "run_id": event.run_id,
        "at": event.at.isoformat(),
        "summary": summary_of(shown, person, site.clock()).model_dump(mode="json"),
    }


def _answer_at(shown: StoredRequest, event: FeedEvent) -> dict[str, Any]:
    """Return who gave the answer that an event is about, and which."""
    answers = [answer for answer in shown.record.answers if answer.at == event.at]
    if not answers:  # the run has taken another one since
        return {"by": None, "kind": None}
    return {"by": answers[-1].by.id, "kind": answers[-1].decision.kind}
