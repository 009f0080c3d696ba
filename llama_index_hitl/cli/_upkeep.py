"""`hitl sweep`, `recover`, `check`, `effects`, `settle`: what keeps runs going."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llama_index_hitl.cli._documents import (
    check_document,
    due_document,
    effect_document,
    run_document,
)
from llama_index_hitl.cli._failures import Misused, ends_in_one_line, fail, print_json
from llama_index_hitl.cli._options import (
    AppOption,
    ByOption,
    JsonOption,
    NeededAppOption,
    StoreOption,
)
from llama_index_hitl.cli._place import Place, person
from llama_index_hitl.cli._times import minute
from llama_index_hitl.stores.protocol import RunStatus

if TYPE_CHECKING:
    from llama_index_hitl.runner import Check, Due, Runner
    from llama_index_hitl.stores.protocol import Run

_WELL = ("resumes", "migrates")


@ends_in_one_line
def sweep(store: StoreOption = None, app: AppOption = None, as_json: JsonOption = False) -> None:
    """Do what is due: remind, widen, escalate, reject, expire. Each once, however late.

    With --app the runs that this concerns go on at once, and notices are told by its runner.
    """

    async def work(runner: Runner) -> tuple[Sequence[Due], Sequence[Run]]:
        done = await runner.sweep()
        if app is None:
            return done, ()
        advanced = await runner.recover()
        await runner.notify()
        return done, advanced

    done, advanced = Place(store=store, app=app, as_json=as_json).run(work)
    if as_json:
        print_json(
            {
                "done": [due_document(due) for due in done],
                "advanced": [run_document(run) for run in advanced],
            }
        )
    else:
        _show_sweep(done, advanced)
    _fail_with(advanced)


def _show_sweep(done: Sequence[Due], advanced: Sequence[Run]) -> None:
    from llama_index_hitl.cli._screen import Screen

    screen = Screen()
    if done:
        rows = [(d.request_id, d.rung.action.kind, minute(d.rung.at), d.run_id) for d in done]
        screen.table(("Request", "Done", "Due (UTC)", "Run"), rows)
    else:
        screen.note("Nothing is due.")
    if advanced:
        screen.heading("Went on")
        screen.runs(advanced)


@ends_in_one_line
def recover(app: NeededAppOption, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Let every run go on that can: one that was answered, or whose process has died."""
    advanced = Place(store=store, app=app, as_json=as_json).run(lambda runner: runner.recover())
    if as_json:
        print_json({"advanced": [run_document(run) for run in advanced]})
    else:
        from llama_index_hitl.cli._screen import Screen

        screen = Screen()
        if advanced:
            screen.runs(advanced)
        else:
            screen.note("No run can go on by itself.")
    _fail_with(advanced)


def _fail_with(runs: Sequence[Run]) -> None:
    failed = [run.run_id for run in runs if run.status is RunStatus.FAILED]
    if failed:
        fail(f"Failed: {', '.join(failed)}. `hitl show` says why; `hitl retry` tries again.")


@ends_in_one_line
def check(app: NeededAppOption, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Say of every run that waits, or has failed, whether it would go on with this code.

    Leaves with 1 if one would not: it `needs_migration`, or it `breaks`.
    """
    checks = Place(store=store, app=app, as_json=as_json).run(lambda runner: runner.check())
    bad = [check for check in checks if check.verdict not in _WELL]
    if as_json:
        print_json({"ok": not bad, "checks": [check_document(check) for check in checks]})
    else:
        _show_checks(checks)
    if bad:
        fail(
            f"{len(bad)} of {len(checks)} runs would not go on with this code. Register a "
            "Migration with the Runner, or go on with them in the code that paused them."
        )


def _show_checks(checks: Sequence[Check]) -> None:
    from llama_index_hitl.cli._screen import Screen

    screen = Screen()
    if not checks:
        screen.note("No run waits.")
        return
    rows = [(c.run.run_id, c.run.workflow, c.run.status, c.verdict) for c in checks]
    screen.table(("Run", "Workflow", "Status", "Verdict"), rows)
    for found in checks:
        if found.differences:
            screen.heading(f"{found.run.run_id}: {found.verdict}")
            screen.text("\n".join(found.differences))


# --------------------------------------------------------------------------- effects


@ends_in_one_line
def effects(store: StoreOption = None, app: AppOption = None, as_json: JsonOption = False) -> None:
    """List effects that were begun and not finished: under way, or in doubt."""
    found = Place(store=store, app=app, as_json=as_json).run(
        lambda runner: runner.effects_in_doubt()
    )
    if as_json:
        print_json({"effects": [effect_document(effect) for effect in found]})
        return
    from llama_index_hitl.cli._screen import Screen

    screen = Screen()
    if found:
        rows = [(e.key, e.run_id, minute(e.at), e.owner) for e in found]
        screen.table(("Effect", "Run", "Begun (UTC)", "By"), rows)
    else:
        screen.note("No effect is in doubt.")


@ends_in_one_line
def settle(
    key: Annotated[
        str, typer.Argument(metavar="KEY", show_default=False, help="Key of the effect.")
    ],
    happened: Annotated[
        bool | None,
        typer.Option(
            "--happened/--not-happened", show_default=False, help="What you have found out."
        ),
    ] = None,
    result: Annotated[
        str | None, typer.Option(metavar="JSON", help="What it gave, if it has happened.")
    ] = None,
    by: ByOption = None,
    store: StoreOption = None,
    app: AppOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether an effect that is in doubt has happened; then `hitl retry` the run.

    One that has not happened is done when the run comes to it again. One that has needs --app.
    """
    if happened is None:
        raise Misused("Find out, then say --happened or --not-happened.")
    if happened and app is None:
        raise Misused("--happened needs --app: what the effect gave is kept as its workflow does.")
    who, given = person(by), _json_of(result)

    async def work(runner: Runner) -> None:
        await runner.settle(key, by=who, happened=happened, result=given)

    Place(store=store, app=app, as_json=as_json).run(work)
    if as_json:
        print_json({"key": key, "happened": happened})
    else:
        typer.echo("Settled.")


def _json_of(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        raise Misused(f"--result {text} is not JSON; text goes in quotes within quotes.") from None
