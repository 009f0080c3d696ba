"""Which requests the inbox lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, cast, get_args
from urllib.parse import urlencode

from llama_index_hitl.models import ROLE_PREFIX, Priority, Reviewer
from llama_index_hitl.stores.protocol import RequestQuery, StoredRequest
from llama_index_hitl.web._site import Site
from llama_index_hitl.web._views import RequestSummary, summary_of
from llama_index_hitl.web.visibility import entries_for

View = Literal["mine", "roles", "all", "done"]
Due = Literal["overdue", "today", "week"]

PAGE = 50
"""Requests on one page, about."""

_MOST_READ = 1_000  # rows looked at for one page: a text that is nowhere must not read everything
_WITHIN: Mapping[str, timedelta] = {
    "overdue": timedelta(0),
    "today": timedelta(days=1),
    "week": timedelta(days=7),
}


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What somebody has narrowed the inbox to.

    Attributes:
        view: `mine`: what they can answer now; `roles`: those of it that are for a role of theirs;
            `all`: all open ones that they see; `done`: closed ones.
        due: Only what is overdue, or due within a day or a week.
        workflow: Of this workflow.
        priority: Of this priority.
        text: With these words in the title, the ids, the workflow or the tags.
        after: Where the page before ended.
    """

    view: View = "mine"
    due: Due | None = None
    workflow: str = ""
    priority: Priority | None = None
    text: str = ""
    after: str | None = None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Filters:
        """Return what an address says; what cannot be is passed over."""
        view, due, priority = (query.get(name, "") for name in ("view", "due", "priority"))
        return cls(
            view=cast("View", view) if view in get_args(View) else "mine",
            due=cast("Due", due) if due in _WITHIN else None,
            workflow=query.get("workflow", "")[:200],
            priority=cast("Priority", priority) if priority in get_args(Priority) else None,
            text=query.get("text", "").strip()[:200],
            after=query.get("after") or None,
        )

    @property
    def narrowed(self) -> bool:
        """Whether anything but the view is chosen."""
        return bool(self.due or self.workflow or self.priority or self.text)

    def query(self, **changes: str | None) -> str:
        """Return the address's query for these filters, changed; empty for the plain inbox."""
        said: dict[str, str | None] = {
            "view": self.view if self.view != "mine" else None,
            "due": self.due,
            "workflow": self.workflow,
            "priority": self.priority,
            "text": self.text,
            **changes,
        }
        query = urlencode({name: value for name, value in said.items() if value})
        return f"?{query}" if query else ""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A page of the inbox.

    Attributes:
        rows: What is listed.
        after: Where it ended; None: there is no more.
        ended_early: Whether there may be more only because it took too long to look on.
    """

    rows: tuple[RequestSummary, ...]
    after: str | None
    ended_early: bool = False


async def listed(site: Site, person: Reviewer, filters: Filters) -> Listed:
    """Return what somebody sees of the inbox, as they have narrowed it.

    Raises:
        InvalidCursor: `after` is not what a page ended with.
    """
    now = site.clock()
    query = _query(person, filters, now)
    found: list[RequestSummary] = []
    read = 0
    while True:
        page = await site.runner.store.requests(query)
        read += len(page)
        for stored in page:
            shown = site.visibility.shown(person, stored)
            if shown is not None and (row := _row(shown, person, filters, now)) is not None:
                found.append(row)
        query = replace(query, after=page.after)
        if page.after is None or len(found) >= PAGE or read >= _MOST_READ:
            early = page.after is not None and len(found) < PAGE
            return Listed(rows=tuple(found), after=page.after, ended_early=early)


async def waiting(site: Site, person: Reviewer) -> int:
    """Return how many requests wait for somebody, as far as one page tells."""
    return len((await listed(site, person, Filters())).rows)


def _query(person: Reviewer, filters: Filters, now: datetime) -> RequestQuery:
    entries: tuple[str, ...] | None = None
    if filters.view == "mine":
        entries = tuple(sorted(entries_for(person)))
    elif filters.view == "roles":
        entries = tuple(ROLE_PREFIX + role for role in person.roles)
    return RequestQuery(
        entries=entries,
        open=filters.view != "done",
        priority=filters.priority,
        due_before=now + _WITHIN[filters.due] if filters.due else None,
        workflow=filters.workflow or None,
        limit=PAGE,
        after=filters.after,
    )


def _row(
    stored: StoredRequest, person: Reviewer, filters: Filters, now: datetime
) -> RequestSummary | None:
    row = summary_of(stored, person, now)
    if filters.view == "mine" and not row.can_answer:
        return None
    if filters.view == "roles":
        asked = {ROLE_PREFIX + role for role in person.roles}
        if not row.can_answer or asked.isdisjoint(row.reviewers):
            return None
    if filters.due and (row.deadline is None or row.deadline > now + _WITHIN[filters.due]):
        return None
    if filters.text and not _says(row, filters.text):
        return None
    return row


def _says(row: RequestSummary, text: str) -> bool:
    parts = (row.title, row.workflow, row.gate, row.request_id, row.run_id, *row.tags)
    known = " ".join(parts).casefold()
    return all(word in known for word in text.casefold().split())
