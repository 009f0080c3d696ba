"""What is checked about a gate when it is declared, before any run depends on it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

from llama_index_hitl.calendars import WorkingHours
from llama_index_hitl.errors import GateError
from llama_index_hitl.events import Approved
from llama_index_hitl.models import ROLE_PREFIX, Escalate, Expire, Priority, Reject, Remind, Widen
from llama_index_hitl.rules import Rule

if TYPE_CHECKING:
    from llama_index_hitl.gates import Review

_FUNCTIONS = (
    "title", "body", "evidence", "reviewers", "requester", "deadline", "ladder", "max_revisions",
    "when", "priority", "tags", "response",
)  # fmt: skip
_SWITCHES = ("bar_requester", "second_person_for_edit", "editable", "abstainable", "delegable")
_LOOKS_LIKE_A_ROLE = ("role", "roles", "group", "groups")


def check_options(gate: Review) -> None:
    """Refuse values that an option cannot have.

    Raises:
        GateError: One of them cannot be; the message says which, and what can.
    """
    for name in _FUNCTIONS:
        _check_function(name, getattr(gate, name))
    for name in _SWITCHES:
        value: object = getattr(gate, name)
        if not isinstance(value, bool):
            # A list of fields, say, would open more than whoever wrote it wants.
            raise GateError(f"{name}= must be True or False, not {value!r}.")
    _check_deadline(gate)
    _check_ladder(gate)
    if not callable(gate.priority) and gate.priority not in get_args(Priority):
        levels = ", ".join(get_args(Priority))
        raise GateError(f"priority= must be one of {levels}, not {gate.priority!r}.")
    if gate.when is not None and not callable(gate.when):
        raise GateError(f"when= takes a Rule, not {gate.when!r}.")
    for name in ("reviewers", "veto_roles", "distinct_from", "escalate_to", "tags"):
        value = getattr(gate, name)
        if not callable(value):
            _check_entries(name, value)
    _check_subject(gate)


def _check_function(name: str, value: Any) -> None:
    if not callable(value) or isinstance(value, Rule | type):
        return
    try:
        inspect.signature(value).bind(None, None)
    except TypeError:
        raise GateError(f"{name}= must be a function of the workflow and the event.") from None
    except ValueError:
        return  # a builtin that does not say what it takes


def _check_deadline(gate: Review) -> None:
    if not (gate.deadline is None or callable(gate.deadline)):
        if not isinstance(gate.deadline, timedelta):
            raise GateError(
                f"deadline= must be a timedelta, such as timedelta(days=2), not {gate.deadline!r}."
            )
        if gate.deadline <= timedelta(0):
            raise GateError("deadline= must be longer than no time at all.")
    action: Any = gate.on_deadline
    if not isinstance(action, Expire | Escalate | Reject):
        raise GateError(
            f"on_deadline= must be Expire(), Escalate([...]) or Reject(), not {action!r}: silence "
            "is never consent."
        )
    if gate.deadline is None and not isinstance(action, Expire):
        raise GateError("on_deadline= needs deadline=, or it never comes to that.")
    if gate.calendar is not None:
        if not isinstance(gate.calendar, WorkingHours):
            raise GateError(f"calendar= must be WorkingHours(...), not {gate.calendar!r}.")
        if gate.deadline is None and gate.ladder is None:
            raise GateError("calendar= needs deadline= or ladder=, or there is nothing to count.")


def _check_ladder(gate: Review) -> None:
    """Refuse a ladder that cannot be climbed; one that a function gives is checked when it does."""
    ladder: Any = gate.ladder
    if ladder is None:
        return
    if gate.deadline is not None:
        raise GateError("Give a gate ladder= or deadline=: the first closing rung is its deadline.")
    if callable(ladder):
        return
    if not isinstance(ladder, Mapping):
        raise GateError(
            f"ladder= must be a dict, such as {{timedelta(days=2): Expire()}}, not {ladder!r}."
        )
    for after, action in ladder.items():
        _check_rung(gate, after, action)
    _check_order([ladder[after] for after in sorted(ladder)], gate.quorum)


def _check_rung(gate: Review, after: Any, action: Any) -> None:
    if not isinstance(after, timedelta) or after <= timedelta(0):
        raise GateError(
            f"ladder= must say after which time, such as timedelta(days=2), not {after!r}."
        )
    if not isinstance(action, Remind | Widen | Escalate | Reject | Expire):
        raise GateError(
            "ladder= takes Remind(), Widen([...]), Escalate([...]), Reject() and Expire(), not "
            f"{action!r}: silence is never consent."
        )
    if isinstance(action, Escalate) and not (action.to or gate.escalate_to):
        raise GateError("ladder= has an Escalate() that needs somebody to escalate to.")
    if isinstance(action, Widen | Escalate):
        _check_entries("ladder", action.to)


def _check_order(actions: Sequence[Any], quorum: object) -> None:
    for last, action in pairwise(actions):
        if isinstance(last, Reject | Expire):
            raise GateError(f"ladder= has {action!r} behind {last!r}, which ends the request.")
    widens = any(isinstance(a, Widen) for a in takewhile(lambda a: not _closes(a), actions))
    if widens and quorum == "all":
        raise GateError(
            "ladder= has a Widen([...]), which cannot go with quorum='all': more people would have "
            "to approve, not fewer."
        )


def _closes(action: Any) -> bool:
    return isinstance(action, Escalate | Reject | Expire)


def _check_entries(name: str, value: Any) -> None:
    entries = (value,) if isinstance(value, str) else value
    if not isinstance(entries, Iterable):
        raise GateError(f"{name}= must be words, not {value!r}.")
    for entry in entries:
        if not isinstance(entry, str) or not entry.strip():
            raise GateError(f"{name}= must be words that are not empty, not {entry!r}.")
        prefix, colon, rest = entry.partition(":")
        is_role = entry.startswith(ROLE_PREFIX) and rest.strip()
        if colon and prefix.strip().lower() in _LOOKS_LIKE_A_ROLE and not is_role:
            raise GateError(f"{name}= has {entry!r}; a role is written 'role:legal'.")


def _check_subject(gate: Review) -> None:
    if gate.subject is None:
        return
    fields = gate.event.model_fields
    if gate.subject not in fields:
        if issubclass(gate.event, Approved):
            raise GateError(
                f"{gate.event.__name__} is an approval, whose subject is reviewed again: leave "
                f"subject={gate.subject!r} out."
            )
        listed = ", ".join(fields) or "none"
        raise GateError(
            f"{gate.event.__name__} has no field {gate.subject!r} (its fields: {listed})."
        )
    kind = fields[gate.subject].annotation
    if isinstance(kind, type) and not issubclass(kind, BaseModel):
        raise GateError(
            f"{gate.event.__name__}.{gate.subject} is {kind.__name__}, not a pydantic model; give "
            "the field a model, or review the event itself."
        )


def check_place(gate: Review, owner: type, others: Iterable[Review]) -> None:
    """Refuse a gate beside another one that does the same: each approval would count twice.

    Raises:
        GateError: There is one. Often the name of an overridden gate is misspelt.
    """
    for other in others:
        if other.event is gate.event and other.approved is gate.approved:
            raise GateError(
                f"Gates {other.name!r} and {gate.name!r} of {owner.__name__} both take "
                f"{gate.event.__name__} and give {gate.approved.__name__}, so what is approved "
                "would be done twice. To override a gate use its own name; for two reviews give "
                "each its own approved= event."
            )
