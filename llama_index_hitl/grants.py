"""Standing approvals of calls to tools: what they cover, and what is left of them.

Pure values and functions; where they are kept is up to a store. Whatever cannot be understood, such
as an amount that is no number, is not covered: then a person is asked, as without any grant.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import datetime
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, DecimalException, Inexact
from typing import Literal, TypeAlias

from pydantic import AwareDatetime, Field, JsonValue

from llama_index_hitl.errors import FieldProblem
from llama_index_hitl.models import (
    RULE_PREFIX,
    FiniteDecimal,
    GrantTerms,
    Identifier,
    JsonObject,
    Line,
    Reviewer,
    ReviewPolicy,
    Text,
    Value,
    digest_of,
)
from llama_index_hitl.policies import why_not_allowed

GrantState: TypeAlias = Literal["active", "expired", "used_up", "revoked"]
"""How a grant stands. Only an `active` one covers anything; `revoked` goes before the others."""

# Sums are exact or none at all: one that has more digits than this is no sum that anybody approved.
_EXACT = Context(prec=1_000, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[Inexact])

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
"""A number as text: how JSON writes what Python keeps as a `Decimal`."""


class GuardedCall(Value):
    """A call of a guarded tool that is about to be made.

    Attributes:
        tool: Name of the tool.
        version: Digest of the tool's description and schema.
        agent: Name of the agent that calls it; empty where it is called without one.
        arguments: The arguments, validated by the tool's schema, as JSON.
        policy: Who could approve it by themselves. No part of what the call is: those who are asked
            may change while a run waits.

    Example:
        >>> call = GuardedCall(tool="transfer", version="3f1a", arguments={"amount": 40})
        >>> amount_in(call.arguments, "amount")
        Decimal('40')
    """

    tool: Line
    version: Line
    agent: Line = ""
    arguments: JsonObject
    policy: ReviewPolicy = Field(default_factory=ReviewPolicy, exclude=True)


class Grant(Value):
    """A standing approval.

    Attributes:
        grant_id: Unique over all runs.
        workflow: Name of the workflow that it holds in, as the runner knows it.
        agent: The agent that it holds for; empty: calls without one.
        tool: The tool.
        version: Digest of the tool's description and schema when it was given.
        terms: What it covers.
        arguments: The arguments that were approved when it was given.
        owner: Id of the person who gave it.
        owner_roles: The roles that they had then. It covers only calls that they could approve.
        run_id: The run in which it was given; empty: it was given without one.
        request_id: The request whose approval it was given with; None: it was given by itself.
        granted_at: When.
        used: How many calls it has covered.
        spent: What those add up to, for each argument of `terms.in_total`.
        revoked_at: When it was revoked; None: it was not.
        revoked_by: Id of the person who revoked it, or of what did in their place.
        revoked_because: Why, in their words.

    Example:
        >>> from llama_index_hitl.models import GrantTerms
        >>> grant = Grant(
        ...     grant_id="g-1",
        ...     workflow="bank",
        ...     agent="",
        ...     tool="transfer",
        ...     version="3f1a",
        ...     terms=GrantTerms(at_most={"amount": 100}, uses=1),
        ...     arguments={"amount": 40},
        ...     owner="alice",
        ...     granted_at=utc_now(),
        ... )
        >>> small = GuardedCall(tool="transfer", version="3f1a", arguments={"amount": 60})
        >>> large = GuardedCall(tool="transfer", version="3f1a", arguments={"amount": 500})
        >>> for call in (small, large):
        ...     print(why_not_covered(grant, call, workflow="bank", now=utc_now()))
        None
        amount is more than the 100 that each call may have
        >>> state_of(spend(grant, small), utc_now()), is_over(grant)
        ('used_up', False)
        >>> state_of(revoked(grant, by="alice", at=utc_now()), utc_now())
        'revoked'
        >>> sorted([grant], key=preference) == [grant]
        True
    """

    grant_id: Identifier
    workflow: Line
    agent: Line
    tool: Line
    version: Line
    terms: GrantTerms
    arguments: JsonObject
    owner: Identifier
    owner_roles: tuple[Identifier, ...] = ()
    run_id: Line = ""
    request_id: Identifier | None = None
    granted_at: AwareDatetime
    used: int = Field(default=0, ge=0)
    spent: dict[str, FiniteDecimal] = Field(default_factory=dict)
    revoked_at: AwareDatetime | None = None
    revoked_by: Identifier | None = None
    revoked_because: Text = ""

    @property
    def trail(self) -> str:
        """Under which id the audit trail tells of it: its run's, or its own where it has no run."""
        return self.run_id or self.grant_id

    @property
    def decider(self) -> str:
        """Id of the rule that decides where it covers a call."""
        return f"{RULE_PREFIX}grant:{self.grant_id}"


# --------------------------------------------------------------------------- how it stands


def is_over(grant: Grant) -> bool:
    """Tell whether a grant covers nothing any more, whatever the time: used up, or revoked.

    The example of `Grant` shows all that can become of one.

    Args:
        grant: The grant.
    """
    return grant.revoked_at is not None or _is_used_up(grant)


def state_of(grant: Grant, now: datetime) -> GrantState:
    """Return how a grant stands at an instant.

    The example of `Grant` shows all that can become of one.

    Args:
        grant: The grant.
        now: The instant, time zone included.
    """
    if grant.revoked_at is not None:
        return "revoked"  # whatever the clock of whoever revoked it said
    if grant.terms.until is not None and now >= grant.terms.until:
        return "expired"
    return "used_up" if _is_used_up(grant) else "active"


def _is_used_up(grant: Grant) -> bool:
    terms = grant.terms
    if terms.uses is not None and grant.used >= terms.uses:
        return True
    return any(_spent(grant, path) >= limit for path, limit in terms.in_total.items())


def _spent(grant: Grant, path: str) -> Decimal:
    return grant.spent.get(path, Decimal(0))


# --------------------------------------------------------------------------- what it covers


def why_not_covered(grant: Grant, call: GuardedCall, *, workflow: str, now: datetime) -> str | None:
    """Return why a grant does not cover a call; None: it does.

    Never raises, whatever the arguments hold.

    The example of `Grant` shows two calls.

    Args:
        grant: The grant, as it stands.
        call: The call.
        workflow: Name of the workflow that makes the call, as the runner knows it.
        now: The present instant.
    """
    if (state := state_of(grant, now)) != "active":
        return f"it is {state.replace('_', ' ')}"
    for what, held, found in (
        ("workflow", grant.workflow, workflow),
        ("tool", grant.tool, call.tool),
        ("agent", grant.agent, call.agent),
    ):
        if held != found:
            return f"it is for another {what}"
    if grant.version != call.version:
        return "the tool has changed since it was given"
    owner = Reviewer(id=grant.owner, roles=grant.owner_roles)
    if (reason := why_not_allowed(call.policy, owner)) is not None:
        return f"{grant.owner} could not approve this call: {reason}"
    if grant.terms.arguments == "same" and not _are_same(grant.arguments, call.arguments):
        return "the arguments are not those that were approved"
    return next(_excesses(grant, call.arguments), None)


def spend(grant: Grant, call: GuardedCall) -> Grant:
    """Return a grant with a call counted that it covers.

    The example of `Grant` uses one up.

    Args:
        grant: The grant.
        call: The call.
    """
    spent = {path: _total(grant, path, call.arguments) for path in grant.terms.in_total}
    return grant.model_copy(update={"used": grant.used + 1, "spent": spent})


def revoked(grant: Grant, *, by: str, at: datetime, reason: str = "") -> Grant:
    """Return a grant revoked; one that is revoked already stays as it is.

    The example of `Grant` shows one that is revoked.

    Args:
        grant: The grant.
        by: Id of the person, or rule, that revokes it.
        at: When, time zone included.
        reason: Why, in their words.
    """
    if grant.revoked_at is not None:
        return grant
    values = {"revoked_at": at, "revoked_by": by, "revoked_because": reason}
    return Grant.model_validate({**dict(grant), **values})


def preference(grant: Grant) -> tuple[object, ...]:
    """Return the key by which to choose among grants that cover a call, the smallest first.

    The one that ends soonest, then the narrowest, then the oldest: what would lapse is used first.

    The example of `Grant` sorts by it.

    Args:
        grant: One of the grants.
    """
    terms = grant.terms
    ends = math.inf if terms.until is None else terms.until.timestamp()
    left = math.inf if terms.uses is None else terms.uses - grant.used
    limits = len(terms.at_most) + len(terms.in_total)
    broad = terms.arguments == "any"
    return (ends, broad, -limits, left, grant.granted_at, grant.grant_id)


def _are_same(one: JsonObject, other: JsonObject) -> bool:
    try:
        return digest_of(one) == digest_of(other)  # not by ==, for which True is 1
    except (ValueError, TypeError, RecursionError):
        return False


def _excesses(grant: Grant, arguments: JsonObject) -> Iterator[str]:
    """Yield in what way arguments go beyond what is left of a grant."""
    for path, limit in grant.terms.at_most.items():
        amount = amount_in(arguments, path)
        if amount is None:
            yield f"{path} is not a number"
        elif amount > limit:
            yield f"{path} is more than the {limit} that each call may have"
    for path, limit in grant.terms.in_total.items():
        amount = amount_in(arguments, path)
        if amount is None or amount < 0:
            yield f"{path} is not a number from 0"
            continue
        try:
            total = _total(grant, path, arguments)
        except DecimalException:
            yield f"{path} cannot be added up exactly"
        else:
            if total > limit:
                yield f"{path} would come to more than the {limit} that all calls may have"


def _total(grant: Grant, path: str, arguments: JsonObject) -> Decimal:
    return _EXACT.add(_spent(grant, path), amount_in(arguments, path) or Decimal(0))


def amount_in(arguments: JsonObject, path: str) -> Decimal | None:
    """Return the number at a dotted path, exactly as JSON writes it; None: there is none.

    A number that stands there as text counts, for that is how JSON holds a `Decimal`. True, NaN
    and text such as ` 5` or `5_000` are no numbers.

    Args:
        arguments: The arguments of a call.
        path: The path, such as `payment.amount`.

    Example:
        >>> amount_in({"payment": {"amount": "40.50"}}, "payment.amount")
        Decimal('40.50')
        >>> amount_in({"amount": "a lot"}, "amount") is None
        True
    """
    found: JsonValue = arguments
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return _number(found)


def _number(value: JsonValue) -> Decimal | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return Decimal(value)
    if isinstance(value, float):
        return Decimal(repr(value)) if math.isfinite(value) else None
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        try:
            return Decimal(value)
        except DecimalException:  # its exponent is beyond all bounds
            return None
    return None


def numbers_in(arguments: JsonObject) -> Iterator[str]:
    """Yield the dotted paths of the arguments that are numbers, in their order.

    Args:
        arguments: The arguments of a call.

    Example:
        >>> list(numbers_in({"to": "Ann", "payment": {"amount": 40}}))
        ['payment.amount']
    """
    for name, value in arguments.items():
        inner = value if isinstance(value, dict) else {}
        for path in (name, *(f"{name}.{each}" for each in inner)):
            if amount_in(arguments, path) is not None:
                yield path


def terms_in_words(terms: GrantTerms) -> str:
    """Return what a grant covers, for people, as the end of a sentence.

    Args:
        terms: The terms of the grant.

    Example:
        >>> from llama_index_hitl.models import GrantTerms
        >>> terms_in_words(GrantTerms(at_most={"amount": 100}, uses=5))
        'with any arguments, amount at most 100 each time, 5 times, until it is revoked'
    """
    limits = [f"{path} at most {limit} each time" for path, limit in terms.at_most.items()]
    limits += [f"{path} at most {limit} in total" for path, limit in terms.in_total.items()]
    uses = "" if terms.uses is None else f"{terms.uses} time{'s' if terms.uses > 1 else ''}"
    until = (
        "until it is revoked"
        if terms.until is None
        else f"until {terms.until.isoformat(timespec='minutes')}"
    )
    arguments = "any arguments" if terms.arguments == "any" else "the same arguments only"
    return ", ".join(part for part in (f"with {arguments}", *limits, uses, until) if part)


# --------------------------------------------------------------------------- giving one


def problems_of_terms(
    terms: GrantTerms, arguments: JsonObject | None, at: datetime | None = None
) -> list[FieldProblem]:
    """Find what is wrong with the terms of a grant that somebody is about to give.

    Args:
        terms: The terms.
        arguments: The arguments of the call that is approved with it; None: there is no call.
        at: When it is given; None: the time is not looked at.

    Returns:
        What is wrong, by field of the terms; empty: nothing.

    Example:
        >>> from llama_index_hitl.models import GrantTerms
        >>> [problem] = problems_of_terms(GrantTerms(at_most={"sum": 9}), {"amount": 4})
        >>> print(problem)
        at_most.sum: there is no argument of this name that is a number
    """
    found = []
    if at is not None and terms.until is not None and terms.until <= at:
        found.append(FieldProblem("until", "this has passed"))
    if terms.arguments == "same" and arguments is None:
        found.append(FieldProblem("arguments", "say which arguments must be the same"))
    for path, limit in terms.in_total.items():
        if limit <= 0:
            found.append(FieldProblem(f"in_total.{path}", "this must be more than 0"))
    if arguments is not None:
        found += _limits_that_do_not_fit(terms, arguments)
    return found


def _limits_that_do_not_fit(terms: GrantTerms, arguments: JsonObject) -> Iterator[FieldProblem]:
    for name, limits in (("at_most", terms.at_most), ("in_total", terms.in_total)):
        for path, limit in limits.items():
            amount = amount_in(arguments, path)
            if amount is None:
                problem = "there is no argument of this name that is a number"
            elif amount > limit:
                problem = "the call that is approved goes beyond this itself"
            elif amount < 0 and name == "in_total":
                problem = "the call that is approved has less than 0 itself"
            else:
                continue
            yield FieldProblem(f"{name}.{path}", problem)
