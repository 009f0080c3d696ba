"""`hitl answer`, `hitl withdraw`, `hitl cancel`, `hitl retry`: what people do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from llama_index_hitl.cli._answering import Said, decide, grant_form
from llama_index_hitl.cli._documents import (
    Standing,
    request_summary,
    run_document,
    standing_of,
)
from llama_index_hitl.cli._failures import (
    Misused,
    ends_in_one_line,
    error_document,
    fail,
    print_json,
)
from llama_index_hitl.cli._next import failure_of, recovery, show_standing
from llama_index_hitl.cli._options import (
    AppOption,
    ByOption,
    JsonOption,
    NeededAppOption,
    ReasonOption,
    RolesOption,
    StoreOption,
)
from llama_index_hitl.cli._place import Place, person
from llama_index_hitl.errors import HitlError
from llama_index_hitl.models import RequestStatus

if TYPE_CHECKING:
    from llama_index_hitl._submit import Receipt
    from llama_index_hitl.models import ReviewRecord
    from llama_index_hitl.runner import Runner

RequestArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="REQUEST_ID", show_default=False, help="Id of the request.")
]
RunArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="RUN_ID", show_default=False, help="Id of the run.")
]


class Grantable(StrEnum):
    """What a standing approval may cover, as choices of an option."""

    ANY = "any"
    SAME = "same"


@dataclass(frozen=True)
class _Taken:
    """An answer that was taken, and where the run has come to since, if it was advanced."""

    receipt: Receipt
    record: ReviewRecord
    standing: Standing | None = None
    trouble: HitlError | None = None

    def document(self) -> dict[str, Any]:
        nowhere: dict[str, Any] = {"run": None, "requests": [], "result": None}
        return {
            "receipt": self.receipt.model_dump(mode="json"),
            "request": request_summary(self.record),
            **(nowhere if self.standing is None else self.standing.document()),
            "error": None if self.trouble is None else error_document(self.trouble),
        }


@ends_in_one_line
def answer(
    request_id: RequestArgument,
    decision: Annotated[
        str | None,
        typer.Argument(
            metavar="[DECISION]",
            show_default=False,
            help="approve, reject, revise, edit, respond, escalate, delegate or abstain; words may "
            "follow a colon. Left out, at a terminal, you are asked.",
        ),
    ] = None,
    by: ByOption = None,
    role: RolesOption = None,
    comment: Annotated[str | None, typer.Option(help="Why, for the record.")] = None,
    feedback: Annotated[str | None, typer.Option(help="To revise: what has to change.")] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="FIELD=VALUE", help="To edit or respond: a field; may be repeated."
        ),
    ] = None,
    response: Annotated[
        str | None, typer.Option(help="To respond: the response; JSON, where it has fields.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="To escalate or delegate: to whom.")] = None,
    grant: Annotated[
        Grantable | None,
        typer.Option(
            help="To approve: let calls like this happen without asking, with any arguments or "
            "with the same ones only; where the request offers it."
        ),
    ] = None,
    grant_until: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="With --grant: until then, with a time zone."),
    ] = None,
    grant_uses: Annotated[
        int | None, typer.Option(metavar="N", help="With --grant: so many times at most.")
    ] = None,
    at_most: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ARGUMENT=AMOUNT", help="With --grant: a limit of each call; may be repeated."
        ),
    ] = None,
    in_total: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ARGUMENT=AMOUNT", help="With --grant: a limit of all calls together."
        ),
    ] = None,
    digest: Annotated[
        str | None, typer.Option(help="Digest of what you saw; the answer is for that only.")
    ] = None,
    advance: Annotated[
        bool, typer.Option("--advance", help="Let the run go on at once; needs --app.")
    ] = False,
    store: StoreOption = None,
    app: AppOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a request. From then on the answer is kept, whatever happens to any process.

    Nothing is ever decided by default: a decision is its exact word.
    """
    if advance and app is None:
        raise Misused("--advance needs --app: the workflow's code takes the run further.")
    said = Said(
        decision=decision,
        by=person(by, role),
        comment=comment,
        feedback=feedback,
        values=tuple(values or ()),
        response=response,
        to=to,
        grant=grant_form(
            None if grant is None else grant.value,
            grant_until,
            grant_uses,
            {"at_most": at_most, "in_total": in_total},
        ),
        digest=digest,
        may_ask=not as_json,
    )
    place = Place(store=store, app=app, as_json=as_json)
    taken = place.run(lambda runner: _take(runner, request_id, said, advance=advance))
    if as_json:
        print_json(taken.document())
    else:
        _show_taken(taken, place)
    if taken.trouble is not None:
        fail(f"The answer is kept, but the run did not go on: {taken.trouble}")
    _fail_with(taken.standing)


async def _take(runner: Runner, request_id: str, said: Said, *, advance: bool) -> _Taken:
    receipt = await decide(runner, await runner.get(request_id), said)
    record = await runner.get(request_id)
    if not advance:
        return _Taken(receipt, record)
    try:
        return _Taken(receipt, record, await _advanced(runner, receipt.run_id))
    except HitlError as error:
        return _Taken(receipt, record, trouble=error)


async def _advanced(runner: Runner, run_id: str) -> Standing:
    return await standing_of(runner, await runner.advance(run_id))


def _show_taken(taken: _Taken, place: Place) -> None:
    from llama_index_hitl.cli._screen import Screen

    screen, given = Screen(), taken.receipt.answer
    status = taken.record.status
    screen.say(f"Taken: {given.decision.kind} by {given.by.id}, answer {taken.receipt.number}.")
    screen.say(f"The request is {status.replace('_', ' ')}. {taken.record.outcome.reason}")
    if taken.standing is not None:
        screen.gap()
        show_standing(screen, taken.standing, place)
    elif status is not RequestStatus.OPEN and taken.trouble is None:
        screen.note("The run goes on with:")
        screen.command(*recovery(place, taken.record.request))


def _fail_with(standing: Standing | None) -> None:
    if standing is not None and (failure := failure_of(standing)) is not None:
        fail(failure)


@ends_in_one_line
def withdraw(
    request_id: RequestArgument,
    by: ByOption = None,
    reason: ReasonOption = "",
    store: StoreOption = None,
    app: AppOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a question back: it is closed without a decision, as after a rejection."""
    who = person(by)

    async def work(runner: Runner) -> ReviewRecord:
        await runner.withdraw(request_id, by=who, reason=reason)
        return await runner.get(request_id)

    record = Place(store=store, app=app, as_json=as_json).run(work)
    if as_json:
        print_json({"request": request_summary(record)})
    else:
        typer.echo("Withdrawn. The run goes on when it is advanced, as `hitl recover` does.")


@ends_in_one_line
def cancel(
    run_id: RunArgument,
    by: ByOption = None,
    reason: ReasonOption = "",
    store: StoreOption = None,
    app: AppOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a run for good; its open requests are withdrawn."""
    who = person(by)
    run = Place(store=store, app=app, as_json=as_json).run(
        lambda runner: runner.cancel(run_id, by=who, reason=reason)
    )
    if as_json:
        print_json({"run": run_document(run)})
    else:
        typer.echo("Cancelled.")


@ends_in_one_line
def retry(
    run_id: RunArgument,
    app: NeededAppOption,
    by: ByOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try a failed run again from its last pause, with the same answers."""
    who, place = person(by), Place(store=store, app=app, as_json=as_json)

    async def work(runner: Runner) -> Standing:
        return await standing_of(runner, await runner.retry(run_id, by=who))

    standing = place.run(work)
    if as_json:
        print_json(standing.document())
    else:
        from llama_index_hitl.cli._screen import Screen

        show_standing(Screen(), standing, place)
    _fail_with(standing)
