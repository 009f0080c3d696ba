"""`hitl claim`: say that you look at a request, and who else says so."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llama_index_hitl.cli._deciding import RequestArgument
from llama_index_hitl.cli._failures import Misused, ends_in_one_line, print_json
from llama_index_hitl.cli._options import AppOption, ByOption, JsonOption, RolesOption, StoreOption
from llama_index_hitl.cli._place import Place, person
from llama_index_hitl.cli._times import moment, named_minute

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_index_hitl.models import ReviewRecord
    from llama_index_hitl.runner import Runner
    from llama_index_hitl.stores.protocol import Claim, StoredRequest

_MINUTES = 15


@ends_in_one_line
def claim(
    request_id: RequestArgument,
    by: ByOption = None,
    role: RolesOption = None,
    minutes: Annotated[
        int | None,
        typer.Option(min=1, help=f"How long it counts; by default {_MINUTES}.", show_default=False),
    ] = None,
    release: Annotated[
        bool, typer.Option("--release", help="Say that you look at it no more.")
    ] = False,
    store: StoreOption = None,
    app: AppOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say that you look at a request, so that others look at something else.

    It binds nobody: others can answer it all the same.
    """
    if release and minutes is not None:
        raise Misused("--minutes goes with a claim; --release ends one.")
    who = person(by, role)
    lease = timedelta(minutes=minutes or _MINUTES)

    async def work(runner: Runner) -> Claim | None:
        if release:
            await runner.release(request_id, by=who)
            return None
        return await runner.claim(request_id, by=who, lease=lease)

    claimed = Place(store=store, app=app, as_json=as_json).run(work)
    if as_json:
        print_json({"request_id": request_id, "claim": claim_document(claimed)})
    elif claimed is None:
        typer.echo("Released.")
    else:
        typer.echo(f"Claimed by {claimed.by} until {named_minute(claimed.until)}.")


def claim_document(claim: Claim | None) -> dict[str, Any] | None:
    """Return who looks at a request, for programs; None: nobody does."""
    return None if claim is None else {"by": claim.by, "until": moment(claim.until)}


def live_claim(runner: Runner, stored: StoredRequest) -> Claim | None:
    """Return who looks at a request now; a claim that has ended counts for nothing."""
    claim = stored.claim
    return claim if claim is not None and runner.clock() < claim.until else None


async def live_claims(runner: Runner, records: Iterable[ReviewRecord]) -> dict[str, Claim]:
    """Return who looks at which of some requests now."""
    found: dict[str, Claim] = {}
    for record in records:
        stored = await runner.store.request(record.request_id)
        claim = None if stored is None else live_claim(runner, stored)
        if claim is not None:
            found[record.request_id] = claim
    return found
