"""Requests and values in words, for the terminal. Pure functions; private to `console`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime

from pydantic import JsonValue

from llama_index_hitl._text import visible_line
from llama_index_hitl.forms import FormField, grant_fields_of
from llama_index_hitl.models import DecisionKind, Escalate, Reject, ReviewPolicy, ReviewRequest
from llama_index_hitl.policies import approvals_needed

ALWAYS = "always"
"""What is typed to approve, and to let calls like this happen without asking."""

one_line = visible_line

_DEEPEST = 8  # levels of a nested value that are laid out; what is below stays JSON


def is_numbered(field: FormField) -> bool:
    """Tell whether the choices of a field can be picked by number: none of them looks like one."""
    return not any(re.fullmatch(r'"?-?\d.*', json.dumps(choice)) for choice in field.choices)


def offers_always(request: ReviewRequest) -> bool:
    """Tell whether an approval of a request may come with a standing one."""
    return DecisionKind.APPROVE in request.allowed and bool(grant_fields_of(request))


def nested(value: JsonValue, depth: int = 0) -> Iterator[str]:
    """Write a JSON value in lines, as people read it."""
    if isinstance(value, str):
        yield from (value or '""').split("\n")
    elif not isinstance(value, dict | list) or not value or depth == _DEEPEST:
        yield json.dumps(value, ensure_ascii=False)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _hung(f"{name}:", item, depth, own_line=isinstance(item, dict | list))
    else:
        for item in value:
            yield from _hung("-", item, depth, own_line=False)


def _hung(head: str, item: JsonValue, depth: int, *, own_line: bool) -> Iterator[str]:
    first, *rest = nested(item, depth + 1)
    if (own_line and item) or (rest and isinstance(item, str)):
        yield head
        rest = [first, *rest]
    else:
        yield f"{head} {first}"
    yield from (f"  {line}" for line in rest)


# --------------------------------------------------------------------------- facts


def facts(request: ReviewRequest, now: datetime) -> Iterator[str]:
    if request.revision > 1 or request.max_revisions is not None:
        most = "" if request.max_revisions is None else f" of at most {request.max_revisions + 1}"
        yield f"revision {request.revision}{most}"
    if request.level:
        yield "escalated"
    policy = request.policy
    yield "for " + one_line(", ".join(policy.reviewers) or "anyone")
    yield _needed(policy)
    if request.requester:
        yield f"on behalf of {one_line(request.requester)}"
    if policy.deadline is not None:
        yield f"due {_moment(policy.deadline, now)}, then {_at_deadline(request)}"
    for approval in request.approvals:
        yield one_line(f"{approval.stage} approved by {', '.join(approval.approvers)}")
    yield one_line(request.request_id)


def _needed(policy: ReviewPolicy) -> str:
    if policy.per_role:
        shares = (f"{count} of {role}" for role, count in policy.per_role.items())
        return one_line(f"approvals needed: {', '.join(shares)}")
    needed = approvals_needed(policy)
    return "1 approval needed" if needed == 1 else f"{needed} approvals needed"


def _at_deadline(request: ReviewRequest) -> str:
    match request.on_deadline:
        case Escalate(to=to):
            return one_line(f"escalated to {', '.join(to or request.escalate_to)}")
        case Reject():
            return "rejected"
        case _:
            return "expired"


def _moment(at: datetime, now: datetime) -> str:
    seconds = (at - now).total_seconds()
    size = abs(seconds)
    units = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    each, unit = next((pair for pair in units if size >= 1.9 * pair[0]), (1, "s"))
    count = f"{round(size / each)} {unit}"
    return (
        f"{at:%Y-%m-%d %H:%M} {at.tzname()} ({'in ' + count if seconds >= 0 else count + ' ago'})"
    )
