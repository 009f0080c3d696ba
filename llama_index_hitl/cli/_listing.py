"""`hitl runs` and `hitl pending`: see what there is. Nothing is changed."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from llama_index_hitl.cli._claiming import claim_document, live_claims
from llama_index_hitl.cli._documents import request_summary, run_document
from llama_index_hitl.cli._failures import Misused, ends_in_one_line, print_json
from llama_index_hitl.cli._options import (
    AfterOption,
    AppOption,
    JsonOption,
    LimitOption,
    RolesOption,
    StoreOption,
    TagOption,
)
from llama_index_hitl.cli._place import Place, person
from llama_index_hitl.cli._times import instant
from llama_index_hitl.stores.protocol import Page, RunStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llama_index_hitl.models import ReviewRecord
    from llama_index_hitl.runner import Runner
    from llama_index_hitl.stores.protocol import Claim


class Urgency(StrEnum):
    """The priorities of requests, as choices of an option."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    URGENT = "urgent"


@ends_in_one_line
def runs(
    status: Annotated[RunStatus | None, typer.Option(help="With this status only.")] = None,
    workflow: Annotated[str | None, typer.Option(help="Of this workflow only.")] = None,
    tag: TagOption = None,
    limit: LimitOption = 50,
    after: AfterOption = None,
    store: StoreOption = None,
    app: AppOption = None,
    as_json: JsonOption = False,
) -> None:
    """List runs, the newest first."""
    place = Place(store=store, app=app, as_json=as_json)
    page = place.run(
        lambda runner: runner.runs(
            workflow=workflow, status=status, tag=tag, limit=limit, after=after
        )
    )
    if as_json:
        print_json({"runs": [run_document(run) for run in page], "after": page.after})
        return
    from llama_index_hitl.cli._screen import Screen

    screen = Screen()
    if page.items:
        screen.runs(page)
    else:
        screen.note(f"There is no such run in {place.name}.")
    screen.goes_on(page.after)


@ends_in_one_line
def pending(
    reviewer: Annotated[
        str | None,
        typer.Option(metavar="ID", help="That this person can answer, and has not answered."),
    ] = None,
    role: RolesOption = None,
    workflow: Annotated[
        str | None,
        typer.Option(help="Asked by this workflow, by its full name, as `hitl show` has it."),
    ] = None,
    gate: Annotated[str | None, typer.Option(help="Asked by this gate only.")] = None,
    tag: TagOption = None,
    priority: Annotated[Urgency | None, typer.Option(help="Of this priority only.")] = None,
    due_before: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Due before, such as 2026-03-02T12:00+01:00."),
    ] = None,
    limit: LimitOption = 50,
    after: AfterOption = None,
    store: StoreOption = None,
    app: AppOption = None,
    as_json: JsonOption = False,
) -> None:
    """List open requests: the most urgent first, among those the oldest first.

    With a role and no reviewer: those for the role, or for everybody.
    """
    if reviewer is None and role and len(role) > 1:
        raise Misused("Several --role go with --reviewer; without one, ask for one role at a time.")
    asks = None if reviewer is None else person(reviewer, role)
    before = None if due_before is None else instant(due_before)
    place = Place(store=store, app=app, as_json=as_json)

    def fetch(runner: Runner, most: int, cursor: str | None) -> Awaitable[Page[ReviewRecord]]:
        return runner.pending(
            reviewer=asks,
            role=role[0] if asks is None and role else None,
            workflow=workflow,
            gate=gate,
            tag=tag,
            priority=None if priority is None else priority.value,
            due_before=before,
            limit=most,
            after=cursor,
        )

    async def work(runner: Runner) -> tuple[Page[ReviewRecord], dict[str, Claim]]:
        page = await _filled(runner, fetch, limit, after)
        return page, await live_claims(runner, page)

    page, claims = place.run(work)
    if as_json:
        found = [
            {**request_summary(r), "claim": claim_document(claims.get(r.request_id))} for r in page
        ]
        print_json({"requests": found, "after": page.after})
        return
    from llama_index_hitl.cli._screen import Screen

    screen = Screen()
    if page.items:
        screen.requests(page, claims)
    else:
        screen.note(f"No such request is open in {place.name}.")
    screen.goes_on(page.after)


async def _filled(
    runner: Runner,
    fetch: Callable[[Runner, int, str | None], Awaitable[Page[ReviewRecord]]],
    limit: int,
    after: str | None,
) -> Page[ReviewRecord]:
    """Return as many as were asked for, if there are; a page of the runner may have fewer."""
    found: list[ReviewRecord] = []
    while True:
        page = await fetch(runner, limit - len(found), after)
        found.extend(page)
        after = page.after
        if after is None or len(found) >= limit:
            return Page(tuple(found), after)
