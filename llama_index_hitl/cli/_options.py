"""The options that several commands share."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

StoreOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="HITL_STORE",
        metavar="URL",
        help="Where runs wait: sqlite:///FILE, a file, or postgresql://...  "
        "By default sqlite:///hitl.db, in the working directory.",
    ),
]

_APP_HELP = (
    "MODULE:OBJECT, importable from the working directory: workflows by name, a Runner, or a "
    "function that returns one of these."
)

AppOption: TypeAlias = Annotated[
    str | None, typer.Option("--app", envvar="HITL_APP", metavar="APP", help=_APP_HELP)
]

NeededAppOption: TypeAlias = Annotated[
    str, typer.Option("--app", envvar="HITL_APP", metavar="APP", help=_APP_HELP)
]

JsonOption: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON document, for programs.")
]

ByOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--by", metavar="ID", help="Who you are. By default your user name here."),
]

RolesOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--role", metavar="ROLE", help="A role that you hold; may be repeated."),
]

ReasonOption: TypeAlias = Annotated[str, typer.Option("--reason", help="Why, for the record.")]

LimitOption: TypeAlias = Annotated[int, typer.Option("--limit", min=1, help="How many at most.")]

AfterOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--after", metavar="CURSOR", help="Go on where the list before ended."),
]

TagOption: TypeAlias = Annotated[str | None, typer.Option("--tag", help="With this tag only.")]
