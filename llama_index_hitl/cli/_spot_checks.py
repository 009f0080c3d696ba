"""`hitl policy checks`: look at what rules approved, and see how often they were wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from llama_index_hitl.cli._documents import rate_document, request_summary
from llama_index_hitl.cli._failures import Misused, ends_in_one_line, print_json
from llama_index_hitl.cli._options import (
    AfterOption,
    AppOption,
    ByOption,
    JsonOption,
    LimitOption,
    RolesOption,
    StoreOption,
)
from llama_index_hitl.cli._place import Place, person
from llama_index_hitl.cli._policy import (
    GateOption,
    SinceOption,
    UntilOption,
    WorkflowOption,
)
from llama_index_hitl.cli._times import instant, minute

if TYPE_CHECKING:
    from llama_index_hitl.models import ReviewRecord
    from llama_index_hitl.rates import Rate
    from llama_index_hitl.runner import Runner
    from llama_index_hitl.spot_checks import SpotCheckReport


@ends_in_one_line
def picked(
    reviewer: Annotated[
        str | None, typer.Option(metavar="ID", help="That this person may look at only.")
    ] = None,
    role: RolesOption = None,
    workflow: WorkflowOption = None,
    gate: GateOption = None,
    limit: LimitOption = 50,
    after: AfterOption = None,
    store: StoreOption = None,
    app: AppOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what rules approved and picked, and nobody has looked at yet."""
    if reviewer is None and role:
        raise Misused("--role goes with --reviewer.")
    asks = None if reviewer is None else person(reviewer, role)
    place = Place(store=store, app=app, as_json=as_json)
    page = place.run(
        lambda runner: runner.spot_checks.pending(
            reviewer=asks, workflow=workflow, gate=gate, limit=limit, after=after
        )
    )
    if as_json:
        print_json({"requests": [request_summary(r) for r in page], "after": page.after})
        return
    from llama_index_hitl.cli._screen import Screen

    screen = Screen()
    if not page.items:
        screen.note(f"Nothing waits to be looked at in {place.name}.")
    else:
        screen.table(
            ("Request", "What was approved", "Because", "When (UTC)"),
            ((r.request_id, r.request.title, r.outcome.reason, minute(r.closed_at)) for r in page),
        )
    screen.goes_on(page.after)


@ends_in_one_line
def judge(
    request_id: Annotated[
        str, typer.Argument(metavar="REQUEST_ID", show_default=False, help="The request.")
    ],
    right: Annotated[
        bool | None,
        typer.Option(
            "--right/--wrong", show_default=False, help="Whether you would have approved it too."
        ),
    ] = None,
    comment: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    by: ByOption = None,
    role: RolesOption = None,
    store: StoreOption = None,
    app: AppOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a rule was right to approve a request; `hitl show` shows it."""
    if right is None:
        raise Misused("Look at it, then say --right or --wrong.")
    if comment.encode(errors="ignore").decode() != comment:
        raise Misused("--comment holds half a character, which cannot be stored.")
    who, verdict = person(by, role), right

    async def work(runner: Runner) -> ReviewRecord:
        return await runner.spot_checks.judge(request_id, right=verdict, by=who, comment=comment)

    record = Place(store=store, app=app, as_json=as_json).run(work)
    if as_json:
        print_json({"request_id": request_id, "spot_check": _found(record)})
    else:
        typer.echo(f"On record: {'right' if right else 'wrong'}.")


def _found(record: ReviewRecord) -> Any:
    return None if record.spot_check is None else record.spot_check.model_dump(mode="json")


@ends_in_one_line
def report(
    workflow: WorkflowOption = None,
    gate: GateOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    store: StoreOption = None,
    app: AppOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say how often rules were found wrong, with the interval of 95 %."""
    begin = None if since is None else instant(since)
    end = None if until is None else instant(until)
    found = Place(store=store, app=app, as_json=as_json).run(
        lambda runner: runner.spot_checks.report(
            workflow=workflow, gate=gate, since=begin, until=end
        )
    )
    if as_json:
        print_json(_document(found))
    else:
        _show(found)


def _show(report: SpotCheckReport) -> None:
    from llama_index_hitl.cli._screen import Screen

    screen = Screen()
    said = str(report)
    screen.say(f"{said[0].upper()}{said[1:]}.")
    if report.rules:
        screen.table(
            ("Rule", "Picked", "Looked at", "Wrong", "Error rate"),
            (
                (r.rule, str(r.picked), str(r.checked), str(r.wrong), _words(r.error_rate))
                for r in report.rules.values()
            ),
        )
    if report.wrong_records:
        screen.heading("Found wrong")
        screen.table(
            ("Request", "What was approved", "By", "Comment"),
            (
                (r.request_id, r.request.title, check.by, check.comment)
                for r in report.wrong_records
                if (check := r.spot_check) is not None
            ),
        )


def _words(rate: Rate | None) -> str:
    return "" if rate is None else str(rate)


def _document(report: SpotCheckReport) -> dict[str, Any]:
    return {
        "picked": report.picked,
        "checked": report.checked,
        "unchecked": report.unchecked,
        "wrong": report.wrong,
        "error_rate": rate_document(report.error_rate),
        "rules": {
            rule.rule: {
                "picked": rule.picked,
                "checked": rule.checked,
                "wrong": rule.wrong,
                "error_rate": rate_document(rule.error_rate),
            }
            for rule in report.rules.values()
        },
        "wrong_records": [
            {**request_summary(record), "spot_check": _found(record)}
            for record in report.wrong_records
        ],
    }
