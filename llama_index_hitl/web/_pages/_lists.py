"""Which requests the inbox lists, as addresses of the page say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias, cast, get_args
from urllib.parse import urlencode

from llama_index_hitl.models import Priority, Reviewer
from llama_index_hitl.stores.protocol import StoredRequest
from llama_index_hitl.web._listing import Filters, listed
from llama_index_hitl.web._site import Site
from llama_index_hitl.web._views import RequestSummary, summary_of

View: TypeAlias = Literal["mine", "roles", "all", "done"]
Due: TypeAlias = Literal["overdue", "today", "week"]

PAGE = 50
"""Requests on one page, at most."""

VIEWS: Mapping[View, str] = {
    "mine": "For me",
    "roles": "My roles",
    "all": "All open",
    "done": "Done",
}
"""What the views are called."""

DUES: Mapping[Due, str] = {
    "overdue": "Overdue",
    "today": "Within a day",
    "week": "Within a week",
}
"""What the choices of what is due are called."""

_WITHIN: Mapping[Due, timedelta] = {
    "overdue": timedelta(0),
    "today": timedelta(days=1),
    "week": timedelta(days=7),
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What somebody has narrowed the inbox to.

    Attributes:
        view: `mine`: what they can answer now; `roles`: what of it is for a role of theirs; `all`:
            all that is open and that they see; `done`: what is closed.
        due: Only what is overdue, or due within a day or a week.
        workflow: Of this workflow.
        priority: Of this priority.
        text: With this text.
        after: Where the page before ended.
    """

    view: View = "mine"
    due: Due | None = None
    workflow: str = ""
    priority: Priority | None = None
    text: str = ""
    after: str | None = None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Choice:
        """Return what the query of an address says; what cannot be is passed over."""
        view, due, priority = (query.get(name, "") for name in ("view", "due", "priority"))
        return cls(
            view=cast("View", view) if view in VIEWS else "mine",
            due=cast("Due", due) if due in DUES else None,
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
        """Return the query of the address for this, changed; empty for the plain inbox."""
        said: dict[str, str | None] = {
            "view": None if self.view == "mine" else self.view,
            "due": self.due,
            "workflow": self.workflow,
            "priority": self.priority,
            "text": self.text,
            **changes,
        }
        query = urlencode({name: value for name, value in said.items() if value})
        return f"?{query}" if query else ""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A page of the inbox.

    Attributes:
        rows: What is listed.
        after: Where it ended; None: there is no more.
    """

    rows: tuple[RequestSummary, ...]
    after: str | None


async def rows_of(site: Site, person: Reviewer, choice: Choice) -> Rows:
    """Return what somebody sees of the inbox, as they have narrowed it.

    Raises:
        InvalidCursor: `after` is not what a page ended with.
    """
    now = site.clock()
    until = None if choice.due is None else now + _WITHIN[choice.due]
    filters = Filters(
        view="all" if choice.view == "done" else choice.view,
        status="closed" if choice.view == "done" else "open",
        workflow=choice.workflow or None,
        priority=choice.priority,
        due_before=None if choice.view == "done" else until,
        text=choice.text or None,
    )
    page = await listed(site, person, filters, limit=PAGE, after=choice.after)
    found = [summary_of(shown, person, now) for shown in page if _is_due(shown, until)]
    return Rows(rows=tuple(found), after=page.after)


def _is_due(stored: StoredRequest, until: datetime | None) -> bool:
    """Tell whether the deadline comes by then: the store also finds what is to be reminded of."""
    deadline = stored.record.policy.deadline
    return until is None or (deadline is not None and deadline <= until)
