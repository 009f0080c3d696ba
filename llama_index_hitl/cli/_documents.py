"""What the commands print for programs. Keys are stable; times are ISO 8601, in UTC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llama_index_hitl.cli._times import moment
from llama_index_hitl.errors import HitlError, StoreError
from llama_index_hitl.lifecycle import next_due
from llama_index_hitl.stores.protocol import RunStatus

if TYPE_CHECKING:
    from llama_index_hitl.audit import AuditRow
    from llama_index_hitl.models import ReviewRecord
    from llama_index_hitl.rates import Rate
    from llama_index_hitl.runner import Check, Due, Runner
    from llama_index_hitl.stores.protocol import Effect, Run, StoredRequest

_BATCH = 100


def run_document(run: Run) -> dict[str, Any]:
    """Return a run."""
    return {
        "run_id": run.run_id,
        "workflow": run.workflow,
        "status": run.status.value,
        "created_at": moment(run.created_at),
        "updated_at": moment(run.updated_at),
        "started_by": run.started_by,
        "tags": list(run.tags),
        "version": run.version,
        "attempts": run.attempts,
        "lease_owner": run.lease_owner,
        "lease_until": moment(run.lease_until),
        "error": run.error,
    }


def request_summary(record: ReviewRecord) -> dict[str, Any]:
    """Return what a list says of a request."""
    request, outcome = record.request, record.outcome
    return {
        "request_id": request.request_id,
        "run_id": request.run_id,
        "workflow": request.workflow,
        "gate": request.gate,
        "path": list(request.path),
        "stage": request.stage,
        "title": request.title,
        "status": record.status.value,
        "priority": request.priority,
        "tags": list(request.tags),
        "reviewers": list(record.policy.reviewers),
        "allowed": [kind.value for kind in request.allowed],
        "revision": request.revision,
        "approvals": outcome.approvals,
        "needed": outcome.needed,
        "created_at": moment(request.created_at),
        "deadline": moment(request.deadline),
        "next_due": moment(next_due(record)),
        "digest": request.digest,
    }


def request_document(stored: StoredRequest) -> dict[str, Any]:
    """Return a request with everything that has become of it."""
    return {
        **request_summary(stored.record),
        "run_id": stored.run_id,
        "record": stored.record.model_dump(mode="json"),
    }


def row_document(row: AuditRow) -> dict[str, Any]:
    """Return a row of the audit trail, as `hitl audit export` writes it."""
    return row.model_dump(mode="json")


def due_document(due: Due) -> dict[str, Any]:
    """Return what a sweep has done about a request."""
    return {
        "run_id": due.run_id,
        "request_id": due.request_id,
        "action": due.rung.action.kind,
        "due": moment(due.rung.at),
    }


def check_document(check: Check) -> dict[str, Any]:
    """Return whether a run would go on."""
    return {
        "run_id": check.run.run_id,
        "workflow": check.run.workflow,
        "status": check.run.status.value,
        "verdict": check.verdict,
        "differences": list(check.differences),
    }


def effect_document(effect: Effect) -> dict[str, Any]:
    """Return an effect."""
    return {
        "key": effect.key,
        "run_id": effect.run_id,
        "status": effect.status,
        "owner": effect.owner,
        "at": moment(effect.at),
    }


def rate_document(rate: Rate | None) -> dict[str, Any] | None:
    """Return a rate with its interval; None: there is none."""
    if rate is None:
        return None
    low, high = rate.interval
    return {"count": rate.count, "of": rate.of, "share": rate.share, "low": low, "high": high}


# --------------------------------------------------------------------------- a run, as it stands


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a run has come to.

    Attributes:
        run: The run.
        requests: What it waits for.
        result: What it came to, as JSON; None also where its workflow is not at hand.
    """

    run: Run
    requests: Sequence[ReviewRecord] = ()
    result: Any = None

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "run": run_document(self.run),
            "requests": [request_summary(record) for record in self.requests],
            "result": self.result,
        }


async def standing_of(runner: Runner, run: Run) -> Standing:
    """Find out where a run has come to."""
    if run.status is RunStatus.FINISHED:
        return Standing(run=run, result=await _result(runner, run.run_id))
    return Standing(run=run, requests=await _open_requests(runner, run.run_id))


async def _open_requests(runner: Runner, run_id: str) -> list[ReviewRecord]:
    found: list[ReviewRecord] = []
    after: str | None = None
    while True:
        page = await runner.pending(run_id=run_id, limit=_BATCH, after=after)
        found.extend(page)
        if (after := page.after) is None:
            return found


async def _result(runner: Runner, run_id: str) -> Any:
    try:
        return jsonable(await runner.result(run_id))
    except StoreError:
        raise
    except HitlError:
        return None  # its workflow is not here, or cannot read it any more


def jsonable(value: Any) -> Any:
    """Return any value as JSON, in words where it is none."""
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value, fallback=repr, bytes_mode="base64", inf_nan_mode="strings")
