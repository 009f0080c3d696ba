"""`hitl audit verify` and `hitl audit export`: the record of what happened."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, TypeAlias

import typer

from llama_index_hitl import audit
from llama_index_hitl.cli._failures import ends_in_one_line, fail, print_json
from llama_index_hitl.cli._options import AppOption, JsonOption, StoreOption
from llama_index_hitl.cli._place import Place
from llama_index_hitl.errors import StoreError, UnknownRun

if TYPE_CHECKING:
    from llama_index_hitl.audit import AuditRow
    from llama_index_hitl.runner import Runner

_BATCH = 100

RunArgument: TypeAlias = Annotated[
    str | None,
    typer.Argument(metavar="[RUN_ID]", show_default=False, help="This run only; by default all."),
]


@dataclass(frozen=True)
class _Verified:
    """The trail of one run, and what is wrong with it."""

    run_id: str
    rows: int
    last_hash: str | None
    problems: Sequence[str]

    def document(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "rows": self.rows,
            "last_hash": self.last_hash,
            "problems": list(self.problems),
        }


@ends_in_one_line
def verify(
    run_id: RunArgument = None,
    file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="An export, in place of the store."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="An earlier export, to compare with."),
    ] = None,
    store: StoreOption = None,
    app: AppOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find rows of the audit trail that were changed, removed or reordered; leaves with 1 if so.

    Rows that are missing at the end, and a trail that was made anew, show --against an export only.
    """
    earlier = {} if against is None else _in_file(against)
    if file is not None:
        found = _verified_file(_in_file(file), earlier, run_id)
    else:
        found = Place(store=store, app=app, as_json=as_json).run(
            lambda runner: _verified_store(runner, earlier, run_id)
        )
    broken = [trail for trail in found if trail.problems]
    if as_json:
        print_json({"ok": not broken, "trails": [trail.document() for trail in found]})
    else:
        _show(found, broken)
    if broken:
        fail(f"The audit trail is broken: {', '.join(trail.run_id for trail in broken)}.")


def _show(found: Sequence[_Verified], broken: Sequence[_Verified]) -> None:
    from llama_index_hitl.cli._screen import Screen

    screen = Screen()
    for trail in broken:
        screen.heading(f"Run {trail.run_id}")
        screen.text("\n".join(trail.problems))
    whole = len(found) - len(broken)
    rows = sum(trail.rows for trail in found if not trail.problems)
    screen.say(f"As they were written: {rows} rows of {whole} of {len(found)} runs.")


def _in_file(path: Path) -> dict[str, list[AuditRow]]:
    """Return the rows of an export by run."""
    trails: dict[str, list[AuditRow]] = {}
    try:
        with path.open(encoding="utf-8") as lines:
            for row in audit.read(lines):
                trails.setdefault(row.entry.run_id, []).append(row)
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} cannot be read: {error}.") from error
    return trails


def _verified_file(
    trails: Mapping[str, Sequence[AuditRow]],
    earlier: Mapping[str, Sequence[AuditRow]],
    run_id: str | None,
) -> list[_Verified]:
    wanted = [run_id] if run_id is not None else dict.fromkeys((*trails, *earlier))
    return [_verified(which, trails.get(which, ()), earlier) for which in wanted]


async def _verified_store(
    runner: Runner, earlier: Mapping[str, Sequence[AuditRow]], run_id: str | None
) -> list[_Verified]:
    if run_id is not None:
        await _refuse_unknown(runner, run_id)
        wanted: Iterable[str] = [run_id]
    else:
        wanted = dict.fromkeys([*[which async for which in _all_trails(runner)], *earlier])
    found = []
    for which in wanted:
        try:
            found.append(_verified(which, await runner.history(which), earlier))
        except StoreError as error:
            found.append(_Verified(which, 0, None, [str(error)]))
    return found


def _verified(
    run_id: str, rows: Sequence[AuditRow], earlier: Mapping[str, Sequence[AuditRow]]
) -> _Verified:
    seal = audit.seal_of(earlier.get(run_id, ()))
    problems = audit.verify(rows, run_id=run_id, seal=seal)
    return _Verified(run_id, len(rows), rows[-1].hash if rows else None, problems)


async def _refuse_unknown(runner: Runner, run_id: str) -> None:
    """Refuse an id that nothing is known of; of a run that was taken out its rows may be left."""
    try:
        await runner.get_run(run_id)
    except UnknownRun:
        if not await runner.history(run_id):
            raise


async def _all_trails(runner: Runner) -> AsyncIterator[str]:
    """Yield the ids of all runs, then those of standing approvals that were given without one."""
    after: str | None = None
    while True:
        page = await runner.runs(limit=_BATCH, after=after)
        for run in page:
            yield run.run_id
        if (after := page.after) is None:
            break
    after = None
    while True:
        grants = await runner.grants.list(active=False, limit=_BATCH, after=after)
        for grant in grants:
            if grant.trail == grant.grant_id:
                yield grant.trail
        if (after := grants.after) is None:
            return


# --------------------------------------------------------------------------- export


@ends_in_one_line
def export(
    run_id: RunArgument = None,
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Where to; by default, to the output.")
    ] = None,
    store: StoreOption = None,
    app: AppOption = None,
) -> None:
    """Write the audit trail as JSON Lines, one row a line, the newest run first."""
    place = Place(store=store, app=app, as_json=out is None)
    if out is None:
        output = sys.stdout
        place.run(lambda runner: _write(runner, run_id, output))
        return
    try:
        count = place.run(lambda runner: _write_file(runner, run_id, out))
    except OSError as error:
        fail(f"{out} cannot be written: {error}.")
    typer.echo(f"Wrote {count} rows to {out}.")


async def _write_file(runner: Runner, run_id: str | None, out: Path) -> int:
    if run_id is not None:
        await _refuse_unknown(runner, run_id)
    with out.open("w", encoding="utf-8") as file:
        return await _write(runner, run_id, file)


async def _write(runner: Runner, run_id: str | None, file: TextIO) -> int:
    """Write the rows of one run, or of all, and return how many."""
    if run_id is not None:
        await _refuse_unknown(runner, run_id)
        return await _write_run(runner, run_id, file)
    return sum([await _write_run(runner, which, file) async for which in _all_trails(runner)])


async def _write_run(runner: Runner, run_id: str, file: TextIO) -> int:
    rows = await runner.history(run_id)
    file.writelines(audit.export(rows))
    return len(rows)
