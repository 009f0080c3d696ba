"""`hitl show`: a request or a run, with what became of it. Nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llama_index_hitl.cli._claiming import claim_document, live_claim
from llama_index_hitl.cli._documents import (
    Standing,
    request_document,
    row_document,
    standing_of,
)
from llama_index_hitl.cli._failures import ends_in_one_line, print_json
from llama_index_hitl.cli._next import ways_to_answer
from llama_index_hitl.cli._options import AppOption, JsonOption, StoreOption
from llama_index_hitl.cli._place import Place
from llama_index_hitl.cli._times import minute, named_minute
from llama_index_hitl.clock import utc_now
from llama_index_hitl.console._words import one_line
from llama_index_hitl.errors import HitlError, UnknownRun
from llama_index_hitl.models import RequestStatus
from llama_index_hitl.rendering import path_of

if TYPE_CHECKING:
    from llama_index_hitl.audit import AuditRow
    from llama_index_hitl.cli._screen import Screen
    from llama_index_hitl.models import Answer, ReviewRecord, Rung
    from llama_index_hitl.runner import Runner
    from llama_index_hitl.stores.protocol import Claim, Run, StoredRequest

_LATEST = 20
"""Rows of a run's history that people are shown; programs get all."""

_SHORT = 100  # characters of a reason in a row of the history


class UnknownId(HitlError, LookupError):
    """Neither a request nor a run has that id."""

    def __init__(self, which: str) -> None:
        super().__init__(
            f"There is no request and no run {which!r} in this store. `hitl pending` lists open "
            "requests, `hitl runs` lists runs."
        )


@dataclass(frozen=True)
class _Whole:
    """A run with its history."""

    standing: Standing
    history: Sequence[AuditRow]


@ends_in_one_line
def show(
    which: Annotated[
        str, typer.Argument(metavar="ID", show_default=False, help="Id of a request or a run.")
    ],
    store: StoreOption = None,
    app: AppOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a request or a run: what is asked, what became of it, what happened.

    The result of a run that is finished is shown where --app gives its workflow.
    """
    place = Place(store=store, app=app, as_json=as_json)
    found = place.run(lambda runner: _find(runner, which))
    if as_json:
        print_json(_document(found))
        return
    from llama_index_hitl.cli._screen import Screen

    screen = Screen()
    if isinstance(found, _Whole):
        _show_run(screen, found, place)
    else:
        _show_request(screen, found, place)


async def _find(runner: Runner, which: str) -> _Whole | StoredRequest:
    if (stored := await runner.store.request(which)) is not None:
        return replace(stored, claim=live_claim(runner, stored))
    try:
        run = await runner.get_run(which)
    except UnknownRun:
        raise UnknownId(which) from None
    return _Whole(await standing_of(runner, run), await runner.history(which))


def _document(found: _Whole | StoredRequest) -> dict[str, Any]:
    if not isinstance(found, _Whole):
        return {"request": {**request_document(found), "claim": claim_document(found.claim)}}
    return {**found.standing.document(), "history": [row_document(row) for row in found.history]}


# --------------------------------------------------------------------------- a request


def _show_request(screen: Screen, stored: StoredRequest, place: Place) -> None:
    record, request = stored.record, stored.record.request
    screen.request(request, "", utc_now())
    screen.heading("So far")
    screen.facts(_facts_of_request(record, stored.run_id, stored.claim))
    if record.answers:
        screen.heading("Answers")
        screen.text("\n".join(_answered(answer) for answer in record.answers))
    if request.rungs:
        screen.heading("As time passes (UTC)")
        screen.text(
            "\n".join(
                _rung(rung, done=number < record.rungs_passed)
                for number, rung in enumerate(request.rungs)
            )
        )
    if record.status is RequestStatus.OPEN:
        screen.heading("Answer it with")
        for words in ways_to_answer(request, place):
            screen.command(*words)


def _facts_of_request(
    record: ReviewRecord, run_id: str, claim: Claim | None
) -> list[tuple[str, str]]:
    request, policy = record.request, record.policy
    changed = policy.reviewers != request.policy.reviewers
    return [
        ("status", f"{_plain(record.status)}. {record.outcome.reason}"),
        ("closed", named_minute(record.closed_at)),
        ("superseded by", record.superseded_by or ""),
        ("looked at by", f"{claim.by}, until {named_minute(claim.until)}" if claim else ""),
        ("may answer now", ", ".join(policy.reviewers) if changed else ""),
        ("may not answer", "; ".join(f"{who}: {why}" for who, why in policy.barred.items())),
        ("run", run_id),
        ("workflow", f"{request.workflow}, gate {request.gate}"),
        ("within", path_of(request)),
        ("tags", ", ".join(request.tags)),
        ("digest", request.digest),
    ]


def _answered(answer: Answer) -> str:
    decision = answer.decision
    role = f" as {answer.role}" if answer.role else ""
    said = [getattr(decision, "feedback", None), decision.comment]
    words = "; ".join(one_line(text) for text in said if text)
    line = f"{decision.kind} by {answer.by.id}{role}, {named_minute(answer.at)}, {answer.channel}"
    return one_line(f"{line}: {words}" if words else line)


def _rung(rung: Rung, *, done: bool) -> str:
    action = rung.action
    to = ", ".join(getattr(action, "to", ()))
    return one_line(f"{minute(rung.at)} {action.kind} {to}") + (" (done)" if done else "")


# --------------------------------------------------------------------------- a run


def _show_run(screen: Screen, whole: _Whole, place: Place) -> None:
    standing = whole.standing
    screen.heading(f"Run {standing.run.run_id}")
    screen.facts(_facts_of_run(standing.run))
    if standing.requests:
        screen.heading("Waits for")
        screen.requests(standing.requests)
    if standing.result is not None:
        screen.heading("Result")
        screen.value(standing.result)
    rows = whole.history
    left = len(rows) - _LATEST
    screen.heading(f"What happened, without the first {left}" if left > 0 else "What happened")
    screen.table(("At (UTC)", "What", "By", "About"), map(_happened, rows[-_LATEST:]))


def _facts_of_run(run: Run) -> list[tuple[str, str]]:
    error = run.error
    at_work = f"{run.lease_owner} until {named_minute(run.lease_until)}" if run.lease_owner else ""
    return [
        ("workflow", run.workflow),
        ("status", run.status),
        ("started", named_minute(run.created_at)),
        ("by", run.started_by or ""),
        ("changed", named_minute(run.updated_at)),
        ("tags", ", ".join(run.tags)),
        ("at work", at_work),
        ("error", f"{error.get('type')}: {error.get('message')}" if error else ""),
    ]


def _happened(row: AuditRow) -> tuple[str, ...]:
    entry = row.entry
    about = (entry.request_id or "", one_line(entry.reason, _SHORT))
    said = ": ".join(part for part in about if part)
    return (minute(entry.at), _plain(entry.kind), entry.actor or "", said)


def _plain(name: str) -> str:
    return name.replace("_", " ")
