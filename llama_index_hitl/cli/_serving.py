"""`hitl serve`: the web inbox, for oneself on this machine, or for people with tokens."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llama_index_hitl.cli._failures import Misused, ends_in_one_line
from llama_index_hitl.cli._options import AppOption, RolesOption, StoreOption
from llama_index_hitl.cli._place import Place, person

if TYPE_CHECKING:
    from fastapi import FastAPI

    from llama_index_hitl.models import Reviewer
    from llama_index_hitl.runner import Runner

DEMO_STORE = "sqlite:///hitl-web-demo.db"
"""Where the runs of the demo are kept when no store is named."""

_PATH, _QUERY = 2, "?"


@ends_in_one_line
def serve(
    app: AppOption = None,
    store: StoreOption = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at. Any but this machine's own needs --tokens.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port to listen at; 0: any that is free.")
    ] = 8000,
    tokens: Annotated[
        Path | None,
        typer.Option(
            envvar="HITL_TOKENS",
            dir_okay=False,
            help="File of named tokens: people sign in with them, programs send them.",
        ),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            envvar="HITL_SECRET",
            metavar="TEXT",
            help="What sessions are signed with, 32 characters at least; better given as "
            "HITL_SECRET. To change it, give the new one and then the old one.",
            show_envvar=False,
        ),
    ] = None,
    root_path: Annotated[
        str, typer.Option(metavar="PATH", help="Where a proxy shows it, such as /reviews.")
    ] = "",
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="ID",
            help="Without --tokens: see and do what this person may. By default you are yourself, "
            "and may do everything.",
        ),
    ] = None,
    role: RolesOption = None,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="Serve the demo: five workflows, and work that waits."),
    ] = False,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Print a line for each request.")
    ] = False,
    pace: Annotated[float | None, typer.Option(hidden=True, min=0)] = None,
) -> None:
    """Serve the inbox, the runs and the API to browsers and programs.

    By default it can be reached from this machine only, and whoever reaches it is you. To let
    others in, give each a token (see `hitl tokens`), and the file of them with --tokens.

    Without --app it lists and takes answers; runs are started, and go on, where their workflows
    are. Ctrl-C stops it; runs stay in the store.
    """
    from llama_index_hitl._extras import require

    require("fastapi", extra="web", purpose="hitl serve")
    if demo and app is not None:
        raise Misused("--demo brings workflows of its own; leave out --app, and unset HITL_APP.")
    _refuse_open_door(host, tokens)
    if tokens is not None and (by is not None or role):
        raise Misused("With --tokens people are who they sign in as; leave out --by and --role.")
    if root_path and not root_path.startswith("/"):
        raise Misused(f"--root-path {root_path} must begin with a slash.")
    options = _who(tokens, secret, by, role, demo=demo)
    place = _place(app, store, demo=demo, pace=pace)
    _log(access_log=access_log)
    place.run(lambda runner: _served(runner, place, options, host, port, root_path, demo=demo))
    typer.echo("Stopped.")


def _refuse_open_door(host: str, tokens: Path | None) -> None:
    from llama_index_hitl.web.serving import is_loopback

    if tokens is None and not is_loopback(host):
        raise Misused(
            f"At {host} others can reach this, and without --tokens everybody would be you. Make "
            "tokens with `hitl tokens add NAME`, and give their file with --tokens; or listen at "
            "127.0.0.1."
        )


def _who(
    tokens: Path | None,
    secrets: list[str] | None,
    by: str | None,
    roles: list[str] | None,
    *,
    demo: bool,
) -> dict[str, Any]:
    """Return what `create_app` needs to know about people."""
    from llama_index_hitl.errors import WeakSecret
    from llama_index_hitl.web import NamedTokens, Visibility
    from llama_index_hitl.web._guards import LOOPBACK
    from llama_index_hitl.web._signing import keys_of

    if tokens is not None:
        try:
            keys = keys_of(secrets) if secrets else None
        except WeakSecret as error:
            raise Misused(str(error)) from None
        named = NamedTokens(tokens)
        if not named.all():
            raise Misused(f"Nobody has a token in {tokens}. Make one with `hitl tokens add NAME`.")
        return {"authenticate": named, "secrets": keys}
    if demo and roles is None:
        from llama_index_hitl._demo_web import ROLES

        roles = list(ROLES)
    you = person(by, roles)
    admins = ("role:admin",) if by is not None else (you.id,)
    return {
        "authenticate": lambda _: you,
        "visibility": Visibility(admins=admins),
        # What a page elsewhere makes its own name lead to would be served to it, as you.
        "allowed_hosts": LOOPBACK,
    }


def _place(app: str | None, store: str | None, *, demo: bool, pace: float | None) -> Place:
    if not demo:
        return Place(store=store, app=app, new=True)
    from llama_index_hitl._demo_web import PACE, workflows

    flows = workflows(pace=PACE if pace is None else pace)
    return Place(store=store or DEMO_STORE, workflows=flows, new=True)


async def _served(
    runner: Runner,
    place: Place,
    options: dict[str, Any],
    host: str,
    port: int,
    root_path: str,
    *,
    demo: bool,
) -> None:
    from llama_index_hitl.web import create_app
    from llama_index_hitl.web.serving import serve as serve_app

    if demo:
        from llama_index_hitl._demo_web import fill

        await fill(runner.store, now=runner.clock())
    app = create_app(runner, clock=runner.clock, **options)
    await serve_app(
        app,
        host=host,
        port=port,
        root_path=root_path.rstrip("/"),
        access_log=True,
        ready=lambda url: _tell(url, app, place, runner),
    )


def _tell(url: str, app: FastAPI, place: Place, runner: Runner) -> None:
    site = app.state.site
    typer.echo(f"Serving at {url}")
    if site.sign_in is not None:
        typer.echo(f"People sign in with the tokens in {site.sign_in.tokens.file}.")
    else:
        typer.echo(_you(site.authenticate(None), site.visibility))
    if not runner.workflows:
        typer.echo("No workflows (--app): nothing is started here, and answered runs wait.")
    typer.echo(f"Runs are kept in {place.name}. Ctrl-C stops the server; they stay.")


def _you(you: Reviewer, visibility: Any) -> str:
    roles = f" ({', '.join(you.roles)})" if you.roles else ""
    rights = ", and may do everything" if visibility.is_admin(you) else ""
    return f"Whoever opens it is {you.id}{roles}{rights}. To let others in, see --tokens."


def _log(*, access_log: bool) -> None:
    """Write warnings, and requests if they are wanted, to the standard error."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    if access_log:
        requests = logging.getLogger("uvicorn.access")
        requests.setLevel(logging.INFO)
        requests.addFilter(_without_query)


def _without_query(record: logging.LogRecord) -> bool:
    """Take out of a line about a request what was searched for, or says where somebody was."""
    if isinstance(record.args, tuple) and len(record.args) > _PATH:
        arguments = list(record.args)
        arguments[_PATH] = str(arguments[_PATH]).partition(_QUERY)[0]
        record.args = tuple(arguments)
    return True
