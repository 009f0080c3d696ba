"""How much waits, and how long people take: counted cheaply, of what somebody may see."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from statistics import median

from llama_index_hitl.models import RequestStatus, Reviewer, Value
from llama_index_hitl.stores.protocol import RequestQuery, RunQuery, StoredRequest
from llama_index_hitl.web._site import Site
from llama_index_hitl.web.visibility import entries_for

COUNTED = 1_000
"""How many open requests are looked at, at most."""

RUNS = 50
"""Of how many runs, the newest, the decisions are looked at."""

_PER_RUN = 20
_BATCH = 200


class Metrics(Value):
    """How much waits for people, and how long they take.

    Of those who see everything, all requests count, of others what is for them or for everybody.

    Attributes:
        open: How many requests are open.
        overdue: How many of these have a deadline that has passed.
        oldest_seconds: How long the oldest of them has been open; None: none is.
        complete: Whether all open requests were counted; if not, there are more than these.
        decided: Of how many decisions of people the median is: those in the newest runs.
        median_seconds_to_decide: How long these took, from question to decision; None: there are
            none.
    """

    open: int
    overdue: int
    oldest_seconds: float | None = None
    complete: bool
    decided: int
    median_seconds_to_decide: float | None = None


async def measured(site: Site, person: Reviewer) -> Metrics:
    """Return how much waits and how long people take, of what somebody may see.

    At most `COUNTED` open requests are looked at, and the decisions of the `RUNS` newest runs, so
    this takes as long however much is stored.
    """
    waiting, complete = await _open(site, person)
    now = site.clock()
    taken = await _times_to_decide(site, person)
    deadlines = (stored.record.policy.deadline for stored in waiting)
    asked = [stored.record.request.created_at for stored in waiting]
    return Metrics(
        open=len(waiting),
        overdue=sum(1 for deadline in deadlines if deadline is not None and deadline <= now),
        oldest_seconds=_seconds(min(asked), now) if asked else None,
        complete=complete,
        decided=len(taken),
        median_seconds_to_decide=median(taken) if taken else None,
    )


async def _open(site: Site, person: Reviewer) -> tuple[list[StoredRequest], bool]:
    entries = None if site.visibility.sees_all(person) else tuple(sorted(entries_for(person)))
    query = RequestQuery(entries=entries, limit=_BATCH)
    found: list[StoredRequest] = []
    for _ in range(COUNTED // _BATCH):
        page = await site.runner.store.requests(query)
        found += [stored for stored in page if site.visibility.sees_request(person, stored)]
        if page.after is None:
            return found, True
        query = replace(query, after=page.after)
    return found, False


async def _times_to_decide(site: Site, person: Reviewer) -> list[float]:
    taken: list[float] = []
    for run in await site.runner.store.runs(RunQuery(limit=RUNS)):
        query = RequestQuery(run_id=run.run_id, open=False, limit=_PER_RUN)
        for stored in await site.runner.store.requests(query):
            at = _decided_by_people_at(stored)
            if at is not None and site.visibility.sees_request(person, stored):
                taken.append(_seconds(stored.record.request.created_at, at))
    return taken


def _decided_by_people_at(stored: StoredRequest) -> datetime | None:
    record = stored.record
    if not record.outcome.decided_by or record.status is RequestStatus.OPEN:
        return None
    return record.closed_at if record.answers[-1].by.kind == "human" else None


def _seconds(since: datetime, until: datetime) -> float:
    return max(0.0, (until - since).total_seconds())
