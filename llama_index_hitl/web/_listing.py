"""Lists of requests and runs, as far as somebody may see them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, TypeAlias

from llama_index_hitl.models import ROLE_PREFIX, Priority, RequestStatus, Reviewer, ReviewRecord
from llama_index_hitl.policies import why_not_allowed
from llama_index_hitl.stores.protocol import (
    Cursor,
    Page,
    RequestQuery,
    Run,
    RunQuery,
    StoredRequest,
)
from llama_index_hitl.web._running import SeenRun, seeing
from llama_index_hitl.web._site import Site
from llama_index_hitl.web.visibility import entries_for

View: TypeAlias = Literal["mine", "roles", "all"]
"""Whose requests to list.

`mine`: open ones that the person can answer and has not, and closed ones that they answered or were
asked; `roles`: the part of these that is for a role of theirs; `all`: everything that they see, and
what the runs that they started ask others.
"""

Standing: TypeAlias = Literal["open", "closed", "all"]

LOOKED_AT = 500
"""How many stored requests one page looks at, at most."""

RUNS_LOOKED_AT = 200
"""How many stored runs one page looks at, at most; and of how many that somebody has started, the
newest, a page of requests has what they ask others."""


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which requests to list; what is left out does not narrow it.

    Attributes:
        view: Whose.
        status: Open ones, closed ones, or both.
        workflow: Asked by the workflow of this name, as requests have it.
        gate: Asked by this gate.
        tag: That have this tag.
        priority: Of this priority.
        due_before: With something due before this instant.
        text: That have this in their title, body, workflow or a tag, in whatever case.
        run_id: Of this run.
    """

    view: View = "mine"
    status: Standing = "open"
    workflow: str | None = None
    gate: str | None = None
    tag: str | None = None
    priority: Priority | None = None
    due_before: datetime | None = None
    text: str | None = None
    run_id: str | None = None


async def listed(
    site: Site, person: Reviewer, filters: Filters, *, limit: int = 50, after: Cursor | None = None
) -> Page[StoredRequest]:
    """Return requests as somebody may see them: the most urgent first, then the oldest.

    At most `LOOKED_AT` stored requests are looked at, so a page may have fewer than `limit`, or
    none, and yet not be the last.

    Args:
        site: The application.
        person: Who wants to see them.
        filters: Which ones.
        limit: How many at most, from 1.
        after: The `after` of the page before.

    Raises:
        InvalidCursor: `after` is not what such a page ended with.
    """
    query = RequestQuery(
        entries=_entries(filters, person),
        open={"open": True, "closed": False, "all": None}[filters.status],
        run_id=filters.run_id,
        workflow=filters.workflow,
        gate=filters.gate,
        tag=filters.tag,
        priority=filters.priority,
        due_before=filters.due_before,
    )
    started = await _started_by(site, person, filters)
    found: list[StoredRequest] = []
    left = LOOKED_AT
    while True:
        # Never more than is still wanted: a page can only end where one of the store ends.
        size = min(limit - len(found), left)
        page = await site.runner.store.requests(replace(query, limit=size, after=after))
        for stored in page:
            shown = site.visibility.shown(person, stored, run=started.get(stored.run_id))
            if shown is not None and _fits(shown, filters, person):
                found.append(shown)
        left -= max(1, len(page))
        after = page.after
        if after is None or len(found) >= limit or left <= 0:
            return Page(tuple(found), after)


async def listed_runs(site: Site, person: Reviewer, query: RunQuery) -> Page[SeenRun]:
    """Return runs that somebody may see, the newest first.

    At most `RUNS_LOOKED_AT` stored runs are looked at, so a page may have fewer than it could, or
    none, and yet not be the last.

    Raises:
        InvalidCursor: `after` is not what such a page ended with.
    """
    found: list[SeenRun] = []
    left, after = RUNS_LOOKED_AT, query.after
    while True:
        size = min(query.limit - len(found), left)
        page = await site.runner.store.runs(replace(query, limit=size, after=after))
        runs = [await seeing(site, person, run) for run in page]
        found += [shown for shown in runs if shown is not None]
        left -= max(1, len(page))
        after = page.after
        if after is None or len(found) >= query.limit or left <= 0:
            return Page(tuple(found), after)


async def _started_by(site: Site, person: Reviewer, filters: Filters) -> Mapping[str, Run]:
    """Return the runs, by id, of which somebody sees all requests because they are theirs."""
    if filters.view != "all" or site.visibility.sees_all(person):
        return {}
    store = site.runner.store
    if filters.run_id is not None:
        run = await store.run(filters.run_id)
        return {} if run is None else {run.run_id: run}
    query = RunQuery(started_by=person.id, limit=RUNS_LOOKED_AT)
    return {run.run_id: run for run in await store.runs(query)}


def _entries(filters: Filters, person: Reviewer) -> tuple[str, ...] | None:
    """Return what the store finds the requests by; None: those of everybody are looked through."""
    if filters.view == "all" or filters.status != "open":
        return None
    entries = _roles(person) if filters.view == "roles" else entries_for(person)
    return tuple(sorted(entries))


def _roles(person: Reviewer) -> frozenset[str]:
    return frozenset(ROLE_PREFIX + role for role in person.roles)


def _fits(shown: StoredRequest, filters: Filters, person: Reviewer) -> bool:
    record = shown.record
    if filters.view == "roles" and _roles(person).isdisjoint(_asked(record)):
        return False
    if filters.view != "all" and not _concerns(record, person):
        return False
    return filters.text is None or _has(record, filters.text.casefold())


def _concerns(record: ReviewRecord, person: Reviewer) -> bool:
    voted = any(answer.by.id == person.id for answer in record.answers)
    if record.status is RequestStatus.OPEN:
        return not voted and why_not_allowed(record.policy, person) is None
    return voted or not entries_for(person).isdisjoint(_asked(record))


def _asked(record: ReviewRecord) -> Collection[str]:
    return {*record.policy.reviewers, *record.request.policy.reviewers}


def _has(record: ReviewRecord, text: str) -> bool:
    request = record.request
    places = (request.title, request.body, request.workflow, *request.tags)
    return any(text in place.casefold() for place in places)
