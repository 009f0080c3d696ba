"""`hitl grants`: the standing approvals, for those who look after them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from llama_index_hitl.cli._failures import ends_in_one_line, print_json
from llama_index_hitl.cli._options import (
    AfterOption,
    AppOption,
    ByOption,
    JsonOption,
    LimitOption,
    ReasonOption,
    StoreOption,
)
from llama_index_hitl.cli._place import Place, person
from llama_index_hitl.cli._times import minute, named_minute
from llama_index_hitl.grants import terms_in_words

if TYPE_CHECKING:
    from llama_index_hitl.grants import Grant
    from llama_index_hitl.runner import Runner
    from llama_index_hitl.stores.protocol import Page

GrantArgument: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="GRANT_ID", show_default=False, help="Id of the standing approval."),
]


def _document(grant: Grant, state: str) -> dict[str, Any]:
    return {**grant.model_dump(mode="json"), "state": state}


@ends_in_one_line
def list_grants(
    every: Annotated[
        bool, typer.Option("--all", help="Also those that are over: expired, used up, revoked.")
    ] = False,
    workflow: Annotated[str | None, typer.Option(help="In this workflow only.")] = None,
    tool: Annotated[str | None, typer.Option(help="For this tool only.")] = None,
    agent: Annotated[str | None, typer.Option(help="For this agent only.")] = None,
    owner: Annotated[str | None, typer.Option(help="Given by this person only.")] = None,
    limit: LimitOption = 50,
    after: AfterOption = None,
    store: StoreOption = None,
    app: AppOption = None,
    as_json: JsonOption = False,
) -> None:
    """List standing approvals that cover something now, the newest first."""
    place = Place(store=store, app=app, as_json=as_json)

    async def work(runner: Runner) -> tuple[Page[Grant], list[str]]:
        page = await runner.grants.list(
            active=not every,
            workflow=workflow,
            tool=tool,
            agent=agent,
            owner=owner,
            limit=limit,
            after=after,
        )
        return page, [runner.grants.state_of(grant) for grant in page]

    page, states = place.run(work)
    if as_json:
        found = [_document(grant, state) for grant, state in zip(page, states, strict=True)]
        print_json({"grants": found, "after": page.after})
        return
    from llama_index_hitl.cli._screen import Screen

    screen = Screen()
    if page.items:
        rows = [
            (g.grant_id, g.tool, g.agent, terms_in_words(g.terms), g.owner, minute(g.granted_at), s)
            for g, s in zip(page, states, strict=True)
        ]
        heads = ("Grant", "Tool", "Agent", "Covers calls", "Owner", "Given (UTC)", "State")
        screen.table(heads, rows)
    else:
        screen.note(f"There is no such standing approval in {place.name}.")
    screen.goes_on(page.after)


@ends_in_one_line
def show_grant(
    grant_id: GrantArgument,
    store: StoreOption = None,
    app: AppOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a standing approval: what it covers, who gave it when, and what is left of it."""

    async def work(runner: Runner) -> tuple[Grant, str]:
        grant = await runner.grants.get(grant_id)
        return grant, runner.grants.state_of(grant)

    grant, state = Place(store=store, app=app, as_json=as_json).run(work)
    if as_json:
        print_json({"grant": _document(grant, state)})
    else:
        _show(grant, state)


def _show(grant: Grant, state: str) -> None:
    from llama_index_hitl.cli._screen import Screen

    screen = Screen()
    screen.facts(
        [
            ("Grant", grant.grant_id),
            ("State", state.replace("_", " ")),
            ("Covers", f"{grant.tool}, {terms_in_words(grant.terms)}"),
            ("Agent", grant.agent),
            ("Workflow", grant.workflow),
            ("Owner", grant.owner),
            ("Given", named_minute(grant.granted_at)),
            ("Run", grant.run_id),
            ("Request", grant.request_id or ""),
            ("Used", f"{grant.used} times" if grant.used != 1 else "once"),
            ("Spent", ", ".join(f"{path} {amount}" for path, amount in grant.spent.items())),
            ("Revoked", named_minute(grant.revoked_at)),
            ("By", grant.revoked_by or ""),
            ("Because", grant.revoked_because),
        ]
    )
    if grant.terms.arguments == "same":
        screen.heading("The arguments")
        screen.value(grant.arguments)


@ends_in_one_line
def revoke(
    grant_id: GrantArgument,
    by: ByOption = None,
    reason: ReasonOption = "",
    store: StoreOption = None,
    app: AppOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a standing approval: from now on it covers no call. What it has covered stays."""
    who = person(by)

    async def work(runner: Runner) -> tuple[Grant, str]:
        grant = await runner.grants.revoke(grant_id, by=who, reason=reason)
        return grant, runner.grants.state_of(grant)

    grant, state = Place(store=store, app=app, as_json=as_json).run(work)
    if as_json:
        print_json({"grant": _document(grant, state)})
    else:
        when = named_minute(grant.revoked_at)
        typer.echo(f"Revoked by {grant.revoked_by} at {when}. Calls that it covered: {grant.used}.")
