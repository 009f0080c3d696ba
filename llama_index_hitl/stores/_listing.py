"""How `SqlStore` lists requests, runs and standing approvals, a page at a time.

Every list is read from an index that is in its order already, from where the page before ended,
and no further than the page needs. For several reviewer entries there is one such read for each,
and the first rows of all of them make the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    FromClause,
    Select,
    Table,
    bindparam,
    exists,
    literal_column,
    or_,
    select,
    tuple_,
    union,
)

from llama_index_hitl.stores import _tables as tables
from llama_index_hitl.stores._cursors import (
    grant_cursor,
    grant_place,
    page_of,
    request_cursor,
    request_place,
    run_cursor,
    run_place,
)
from llama_index_hitl.stores._encoding import (
    EVERYONE,
    RANKS,
    Place,
    optional_micros_of,
)
from llama_index_hitl.stores._reading import (
    GRANT_COLUMNS,
    REQUEST_COLUMNS,
    RUN_COLUMNS,
    grant_of,
    request_of,
    run_of,
)
from llama_index_hitl.stores._statements import Session, Statement
from llama_index_hitl.stores.encryption import Sealer
from llama_index_hitl.stores.protocol import (
    GrantQuery,
    Page,
    RequestQuery,
    Run,
    RunQuery,
    StoredGrant,
    StoredRequest,
)


class _Shape(NamedTuple):
    """What of a query decides on its statement; the rest are parameters.

    Attributes:
        given: What narrows it, by the names of the parameters.
        entries: How many reviewer entries are given, that for everyone included; 0: none are.
        open: Whether open ones are wanted, closed ones, or both (None).
    """

    given: frozenset[str]
    entries: int = 0
    open: bool | None = None


# --------------------------------------------------------------------------- requests


def list_requests(session: Session, query: RequestQuery, sealer: Sealer) -> Page[StoredRequest]:
    """Return a page of requests.

    Raises:
        InvalidCursor: The page before did not end there.
        StoreError: A request cannot be read.
    """
    after = None if query.after is None else request_place(query.after)
    entries = [] if query.entries is None else sorted({*query.entries, EVERYONE})
    parameters = {
        "run_id": query.run_id,
        "workflow": query.workflow,
        "gate": query.gate,
        "tag": query.tag,
        "priority": None if query.priority is None else RANKS[query.priority],
        "created_before": optional_micros_of(query.created_before),
        "due_before": optional_micros_of(query.due_before),
        **{f"entry_{number}": entry for number, entry in enumerate(entries)},
    }
    given = {name: value for name, value in parameters.items() if value is not None}
    if after is not None:
        given |= {f"after_{name}": value for name, value in after._asdict().items()}
    shape = _Shape(frozenset(given), len(entries), query.open)
    rows = session.rows(_requests_statement(shape), limit=query.limit + 1, **given)
    return page_of(
        rows,
        query.limit,
        read=lambda row: request_of(row, sealer),
        cursor_of=lambda row: request_cursor(Place(*row[-3:])),
    )


@lru_cache(maxsize=256)
def _requests_statement(shape: _Shape) -> Statement:
    scans = [scan.limit(bindparam("limit")).subquery() for scan in _scans(shape)]
    places = union(*map(select, scans)).subquery() if len(scans) > 1 else scans[0]
    requests = tables.requests
    found = (
        select(*REQUEST_COLUMNS, *_place_of(places))
        .join_from(places, requests, requests.c.request_id == places.c.request_id)
        .order_by(*_place_of(places))
        .limit(bindparam("limit"))
    )
    return Statement(found)


def _scans(shape: _Shape) -> Iterator[Select[Any]]:
    """Read the index that narrows the query most, once for each value that it begins with."""
    requests = tables.requests
    index, starts = _index(shape)
    of_place = list(_place_conditions(shape, index))
    of_request = list(_request_conditions(shape, index))
    for start in starts:
        scan = select(*_place_of(index)).where(*start, *of_place, *of_request)
        if of_request and index is not requests:
            scan = scan.join(requests, requests.c.request_id == index.c.request_id)
        yield scan.order_by(*_place_of(index))


def _index(shape: _Shape) -> tuple[Table, list[list[ColumnElement[bool]]]]:
    """Return the table whose index is read, and the values that it begins with."""
    requests, tags, audience = tables.requests, tables.request_tags, tables.audience
    if shape.entries and "run_id" not in shape.given:
        entries = range(shape.entries)
        return audience, [[audience.c.entry == bindparam(f"entry_{n}")] for n in entries]
    if "run_id" in shape.given:
        table, first = requests, [requests.c.run_id == bindparam("run_id")]
    elif "tag" in shape.given:
        table, first = tags, [tags.c.tag == bindparam("tag")]
    elif "workflow" in shape.given:
        table, first = requests, [requests.c.workflow == bindparam("workflow")]
    else:
        table, first = requests, []
    flags = (1, 0) if shape.open is None else (int(shape.open),)
    return table, [[*first, table.c.is_open == literal_column(str(flag))] for flag in flags]


def _place_conditions(shape: _Shape, index: Table) -> Iterator[ColumnElement[bool]]:
    if "priority" in shape.given:
        yield index.c.rank == bindparam("priority")
    if "tag" in shape.given and index is not tables.request_tags:
        # Looked up from the index alone: of many requests few may have the tag.
        tags = tables.request_tags
        is_open: ColumnElement[int] = literal_column("1")  # whom one is for is looked at while open
        if index is tables.requests:
            is_open = index.c.is_open
        yield _has(tags, index, tags.c.tag == bindparam("tag"), tags.c.is_open == is_open)
    if "created_before" in shape.given:
        yield index.c.created_at < bindparam("created_before")
    if "after_rank" in shape.given:
        # Where all have the same rank, leaving it out lets the index be read from one place on.
        names = Place._fields[1:] if "priority" in shape.given else Place._fields
        after: list[BindParameter[Any]] = [bindparam(f"after_{name}") for name in names]
        yield tuple_(*(index.c[name] for name in names)) > tuple_(*after)


def _request_conditions(shape: _Shape, index: Table) -> Iterator[ColumnElement[bool]]:
    requests, audience = tables.requests, tables.audience
    for name in ("run_id", "workflow", "gate"):
        if name in shape.given:
            yield requests.c[name] == bindparam(name)
    if "due_before" in shape.given:
        yield requests.c.next_due < bindparam("due_before")
    if shape.entries and index is not audience:
        entries: list[BindParameter[str]] = [
            bindparam(f"entry_{number}") for number in range(shape.entries)
        ]
        yield _has(audience, index, audience.c.entry.in_(entries))


def _has(table: Table, index: Table, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """There is a row of this request in a table by which requests are found."""
    pairs = zip(_place_of(table), _place_of(index), strict=True)
    return exists().where(*conditions, *(column == its for column, its in pairs))


def _place_of(table: FromClause) -> list[ColumnElement[Any]]:
    return [table.c[name] for name in Place._fields]


# --------------------------------------------------------------------------- runs


def list_runs(session: Session, query: RunQuery, sealer: Sealer) -> Page[Run]:
    """Return a page of runs.

    Raises:
        InvalidCursor: The page before did not end there.
        StoreError: A run cannot be read.
    """
    parameters = {
        "workflow": query.workflow,
        "status": query.status,
        "tag": query.tag,
        "started_by": query.started_by,
    }
    given: dict[str, Any] = {k: str(value) for k, value in parameters.items() if value is not None}
    if query.after is not None:
        given["after_created_at"], given["after_run_id"] = run_place(query.after)
    rows = session.rows(_runs_statement(frozenset(given)), limit=query.limit + 1, **given)
    return page_of(
        rows,
        query.limit,
        read=lambda row: run_of(row, sealer),
        cursor_of=lambda row: run_cursor(*row[-2:]),
    )


@lru_cache(maxsize=32)
def _runs_statement(given: frozenset[str]) -> Statement:
    runs, tags = tables.runs, tables.run_tags
    index = tags if "tag" in given else runs
    created_at, run_id = index.c.created_at, index.c.run_id
    found = select(*RUN_COLUMNS, created_at.label("at"), run_id.label("which"))
    if index is tags:
        found = found.join_from(tags, runs, runs.c.run_id == run_id)
        found = found.where(tags.c.tag == bindparam("tag"))
    for name in ("workflow", "status", "started_by"):
        if name in given:
            found = found.where(runs.c[name] == bindparam(name))
    if "after_run_id" in given:
        # The index goes one way and this order two; the first condition finds where to begin.
        at: BindParameter[int] = bindparam("after_created_at")
        found = found.where(
            created_at <= at, or_(created_at < at, run_id > bindparam("after_run_id"))
        )
    return Statement(found.order_by(created_at.desc(), run_id).limit(bindparam("limit")))


# --------------------------------------------------------------------------- grants


def list_grants(session: Session, query: GrantQuery, sealer: Sealer) -> Page[StoredGrant]:
    """Return a page of standing approvals.

    Raises:
        InvalidCursor: The page before did not end there.
        StoreError: One cannot be read.
    """
    parameters = {
        "workflow": query.workflow,
        "agent": query.agent,
        "tool": query.tool,
        "owner": query.owner,
        "request_id": query.request_id,
        "active_at": optional_micros_of(query.active_at),
    }
    given: dict[str, Any] = {k: value for k, value in parameters.items() if value is not None}
    if query.after is not None:
        given["after_granted_at"], given["after_grant_id"] = grant_place(query.after)
    rows = session.rows(_grants_statement(frozenset(given)), limit=query.limit + 1, **given)
    return page_of(
        rows,
        query.limit,
        read=lambda row: grant_of(row, sealer),
        cursor_of=lambda row: grant_cursor(row[-1], row[0]),
    )


@lru_cache(maxsize=64)
def _grants_statement(given: frozenset[str]) -> Statement:
    grants = tables.grants
    granted_at, grant_id = grants.c.granted_at, grants.c.grant_id
    found = select(*GRANT_COLUMNS, granted_at)
    for name in ("workflow", "agent", "tool", "owner", "request_id"):
        if name in given:
            found = found.where(grants.c[name] == bindparam(name))
    if "active_at" in given:
        found = found.where(
            grants.c.is_over == literal_column("0"),
            or_(grants.c.until.is_(None), grants.c.until > bindparam("active_at")),
        )
    if "after_grant_id" in given:
        at: BindParameter[int] = bindparam("after_granted_at")
        found = found.where(
            granted_at <= at, or_(granted_at < at, grant_id > bindparam("after_grant_id"))
        )
    return Statement(found.order_by(granted_at.desc(), grant_id).limit(bindparam("limit")))
