"""`hitl policy replay` and `hitl policy shadow`: rules beside what people decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from llama_index_hitl.cli._documents import rate_document
from llama_index_hitl.cli._failures import Misused, ends_in_one_line, print_json
from llama_index_hitl.cli._options import AppOption, JsonOption, StoreOption, TagOption
from llama_index_hitl.cli._place import Place, imported
from llama_index_hitl.cli._times import instant, moment, named_minute
from llama_index_hitl.rules import Rule

if TYPE_CHECKING:
    from llama_index_hitl.cli._screen import Screen
    from llama_index_hitl.replay import Case, ReplayReport, Unreadable
    from llama_index_hitl.runner import Runner

WorkflowOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--workflow", help="Asked by this workflow, by its full name, as `hitl show` has it."
    ),
]
GateOption: TypeAlias = Annotated[
    str | None, typer.Option("--gate", help="Asked by this gate only.")
]
SinceOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Asked since, such as 2026-03-02T12:00+01:00."),
]
UntilOption: TypeAlias = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Asked before.")
]
MostOption: TypeAlias = Annotated[
    int | None, typer.Option("--limit", min=1, help="How many to look at; by default all.")
]
ListOption: TypeAlias = Annotated[
    bool, typer.Option("--list", help="List those that people decided otherwise.")
]
ListedOption: TypeAlias = Annotated[
    int, typer.Option("--most", min=0, help="How many to put into each list.")
]


@ends_in_one_line
def replay(
    rule: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="MODULE:OBJECT, importable from the working directory: a Rule, or a function "
            "without arguments that returns one.",
        ),
    ],
    subject: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="MODULE:OBJECT: the model of what is reviewed, for rules that need more than "
            "JSON has.",
        ),
    ] = None,
    workflow: WorkflowOption = None,
    gate: GateOption = None,
    tag: TagOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: MostOption = None,
    listing: ListOption = False,
    most: ListedOption = 100,
    store: StoreOption = None,
    app: AppOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what rules would have decided about all that people have decided. Nothing is changed."""
    place = Place(store=store, app=app, as_json=as_json)
    options = _narrowed(workflow, gate, since, until, limit, most)

    async def work(runner: Runner) -> ReplayReport:
        from llama_index_hitl.replay import replay as replayed

        model = None if subject is None else _model(subject)
        return await replayed(runner.store, _rule(rule), tag=tag, subject=model, **options)

    _show(place.run(work), listing=listing, as_json=as_json)


@ends_in_one_line
def shadow(
    workflow: WorkflowOption = None,
    gate: GateOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: MostOption = None,
    listing: ListOption = False,
    most: ListedOption = 100,
    store: StoreOption = None,
    app: AppOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what rules on trial would have decided, and what people decided."""
    options = _narrowed(workflow, gate, since, until, limit, most)

    async def work(runner: Runner) -> ReplayReport:
        from llama_index_hitl.replay import shadow_report

        return await shadow_report(runner.store, **options)

    place = Place(store=store, app=app, as_json=as_json)
    _show(place.run(work), listing=listing, as_json=as_json)


def _narrowed(
    workflow: str | None,
    gate: str | None,
    since: str | None,
    until: str | None,
    limit: int | None,
    listed: int,
) -> dict[str, Any]:
    return {
        "workflow": workflow,
        "gate": gate,
        "since": None if since is None else instant(since),
        "until": None if until is None else instant(until),
        "limit": limit,
        "listed": listed,
    }


def _rule(spec: str) -> Rule:
    found = imported("--rule", spec, example="shop.rules:small_ones")
    if not isinstance(found, Rule) and callable(found) and not isinstance(found, type):
        try:
            found = found()
        except Exception as error:
            raise Misused(
                f"--rule {spec} raised {type(error).__name__}: {error}. It must be a Rule, or a "
                "function without arguments that returns one."
            ) from error
    if not isinstance(found, Rule):
        raise Misused(
            f"--rule {spec} gives a {type(found).__name__}. It must be a Rule, or a function "
            "without arguments that returns one."
        )
    return found


def _model(spec: str) -> Any:
    found = imported("--subject", spec, example="shop.flows:Payment")
    if not callable(found):
        raise Misused(
            f"--subject {spec} gives a {type(found).__name__}. It must be a model, or a function "
            "of the stored values."
        )
    return found


# --------------------------------------------------------------------------- output


def _show(report: ReplayReport, *, listing: bool, as_json: bool) -> None:
    if as_json:
        print_json(_document(report))
        return
    from llama_index_hitl.cli._screen import Screen

    screen = Screen()
    said = str(report)
    screen.say(f"{said[0].upper()}{said[1:]}.")
    in_doubt = next((case for case in report.asked if case.reason.startswith("raised ")), None)
    screen.facts(
        (
            ("Nobody asked", str(report.saved)),
            ("People agreed", "" if report.agreement is None else str(report.agreement)),
            ("Left out", ", ".join(f"{n} {why}" for why, n in sorted(report.left_out.items()))),
            ("In doubt", "" if in_doubt is None else f"{in_doubt.request_id} {in_doubt.reason}"),
            ("Not all", "" if report.whole else "--limit was reached; there are more."),
        )
    )
    if listing:
        _list(screen, "Would have approved, people did not", report.wrongly_approved)
        _list(screen, "Would have rejected, people did not", report.wrongly_rejected)
        _list_unreadable(screen, report.unreadable_cases)


def _list(screen: Screen, title: str, cases: Sequence[Case]) -> None:
    if not cases:
        return
    screen.heading(title)
    for case in cases:
        said = f"{case.decision.replace('_', ' ')} by {', '.join(case.by)}"
        screen.gap()
        screen.facts(
            (
                ("Request", case.request_id),
                ("Asked", case.title),
                ("The rule", case.reason),
                ("People", f"{said}, {named_minute(case.at)}"),
                ("Comment", case.comment),
            )
        )


def _list_unreadable(screen: Screen, cases: Sequence[Unreadable]) -> None:
    if cases:
        screen.heading("Could not be read")
        rows = [(case.request_id, case.title, case.reason) for case in cases]
        screen.table(("Request", "What was asked", "Why not"), rows)


def _document(report: ReplayReport) -> dict[str, Any]:
    return {
        "total": report.total,
        "would_approve": report.would_approve,
        "would_reject": report.would_reject,
        "would_ask": report.would_ask,
        "saved": report.saved,
        "refused": dict(report.refused),
        "overruled": dict(report.overruled),
        "agreement": rate_document(report.agreement),
        "wrongly_approved": [_case_document(case) for case in report.wrongly_approved],
        "wrongly_rejected": [_case_document(case) for case in report.wrongly_rejected],
        "asked": [_case_document(case) for case in report.asked],
        "unreadable": report.unreadable,
        "unreadable_cases": [
            {"request_id": case.request_id, "title": case.title, "reason": case.reason}
            for case in report.unreadable_cases
        ],
        "left_out": dict(report.left_out),
        "whole": report.whole,
    }


def _case_document(case: Case) -> dict[str, Any]:
    return {
        "request_id": case.request_id,
        "run_id": case.run_id,
        "title": case.title,
        "verdict": case.verdict,
        "rule": case.rule,
        "reason": case.reason,
        "decision": case.decision,
        "by": list(case.by),
        "at": moment(case.at),
        "comment": case.comment,
    }
