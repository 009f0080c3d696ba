"""`hitl tokens`: who may sign in to the web inbox, and with what roles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from llama_index_hitl.cli._failures import ends_in_one_line, print_json
from llama_index_hitl.cli._options import JsonOption, RolesOption
from llama_index_hitl.cli._place import person
from llama_index_hitl.cli._times import minute

if TYPE_CHECKING:
    from llama_index_hitl.web.tokens import NamedToken, NamedTokens

TOKENS_FILE = Path("hitl-tokens.json")
"""Where tokens are kept by default, in the working directory."""

TokensOption: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--tokens",
        envvar="HITL_TOKENS",
        metavar="FILE",
        help="Where tokens are kept, hashed.",
    ),
]
NameArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="NAME", show_default=False, help="Id of the person, or program.")
]


def _tokens(file: Path) -> NamedTokens:
    from llama_index_hitl.web.tokens import NamedTokens

    return NamedTokens(file)


def _document(token: NamedToken) -> dict[str, Any]:
    return token.model_dump(mode="json", include={"name", "roles", "created", "last4"})


@ends_in_one_line
def add(
    name: NameArgument,
    roles: RolesOption = None,
    tokens: TokensOption = TOKENS_FILE,
    as_json: JsonOption = False,
) -> None:
    """Make a token for somebody, and print it: this once, it cannot be found out again."""
    known = _tokens(tokens)
    who = person(name, roles)
    token = known.add(who.id, who.roles)
    if as_json:
        made = known.named(who.id)
        print_json({"token": token, **({} if made is None else _document(made))})
        return
    typer.echo(token)
    typer.echo(f"Give it to {who.id} in private. It is not shown again.", err=True)


@ends_in_one_line
def list_tokens(tokens: TokensOption = TOKENS_FILE, as_json: JsonOption = False) -> None:
    """List who has a token, with what roles."""
    found = _tokens(tokens).all()
    if as_json:
        print_json({"tokens": [_document(token) for token in found]})
        return
    from llama_index_hitl.cli._screen import Screen

    screen = Screen()
    if found:
        rows = [(t.name, ", ".join(t.roles), minute(t.created), f"…{t.last4}") for t in found]
        screen.table(("Name", "Roles", "Made (UTC)", "Ends in"), rows)
    else:
        screen.note(f"There is no token in {tokens}.")


@ends_in_one_line
def revoke_token(
    name: NameArgument, tokens: TokensOption = TOKENS_FILE, as_json: JsonOption = False
) -> None:
    """Revoke somebody's token: from now on it counts for nothing, nor does who is signed in."""
    gone = _tokens(tokens).revoke(name)
    if as_json:
        print_json({"revoked": _document(gone)})
    else:
        typer.echo(f"The token of {gone.name} that ends in {gone.last4} counts for nothing now.")
