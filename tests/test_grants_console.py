"""Standing approvals at the terminal: an explicit extra, which nothing but its word gives."""

from __future__ import annotations

import asyncio
import io
from datetime import UTC, datetime
from typing import Any

import pytest

from llama_index_hitl import Approve, Reject, ReviewRequest
from llama_index_hitl.console import ConsoleReviewer
from llama_index_hitl.errors import Unanswered
from llama_index_hitl.models import GrantOffer, GrantTerms, ReviewPolicy, Subject

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def a_request(**values: Any) -> ReviewRequest:
    given = {
        "request_id": "r",
        "title": "Transfer?",
        "created_at": NOON,
        "subject": Subject(type="Transfer", data={"amount": 50, "to": "Bob"}),
        "grantable": GrantOffer(tool="transfer", agent="teller", version="v1"),
        **values,
    }
    return ReviewRequest(**given)


def decide(*lines: str, request: ReviewRequest | None = None) -> tuple[Any, str]:
    """Review a request with piped lines; return the decision, or None, and what was shown."""
    stdin, stdout = io.StringIO("".join(f"{line}\n" for line in lines)), io.StringIO()
    reviewer = ConsoleReviewer(reviewer="erin", stdin=stdin, stdout=stdout, clock=lambda: NOON)
    try:
        found = asyncio.run(reviewer.review(request or a_request())).decision
    except Unanswered:
        found = None
    return found, stdout.getvalue()


def test_approve_approves_this_once_and_asks_nothing_more() -> None:
    assert decide("approve") == (Approve(), decide("approve")[1])
    assert decide("1")[0] == Approve()
    assert decide("approve: fine")[0] == Approve(comment="fine")
    assert decide("2")[0] == Reject()


def test_always_asks_for_the_terms_and_has_them_confirmed() -> None:
    decision, shown = decide("always", "any", "2026-03-06T18:00+00:00", "3", "500", "", "always")
    assert decision == Approve(
        grant=GrantTerms(
            arguments="any",
            until=datetime(2026, 3, 6, 18, tzinfo=UTC),
            uses=3,
            at_most={"amount": 500},
        )
    )
    assert "always" in shown.partition("Decision")[0]
    told = " ".join(shown.split())
    assert (
        "Approved now, and from now on without asking: transfer by teller, with any arguments, "
        "amount at most 500 each time, 3 times, until 2026-03-06T18:00+00:00."
    ) in told


@pytest.mark.parametrize(
    "lines",
    [
        ["always"],
        ["always", "", "", "", "", "", "", ""],  # Enter is no answer to what is needed
        ["always", "any", "", "", "", ""],
        ["always", "any", "", "", "", "", ""],
        ["always", "any", "", "", "", "", "yes"],
        ["always", "any", "", "", "", "", "approve"],
        ["always", "any", "", "", "", "", "back"],
        ["always", "/back"],
        ["always: any"],
        ["alway"],
        ["3"],
    ],
    ids=str,
)
def test_nothing_but_the_word_at_the_end_grants_or_approves(lines: list[str]) -> None:
    assert decide(*lines)[0] is None


def test_enter_is_no_answer_to_what_shall_happen_without_asking() -> None:
    decision, shown = decide("always", "", "any", "", "", "", "", "always")
    assert decision == Approve(grant=GrantTerms())
    assert "Without asking, from now on is needed." in shown


def test_what_is_wrong_with_the_terms_is_said_where_it_is_typed() -> None:
    decision, shown = decide(
        "always", "all", "any", "Friday", "", "none", "", "49", "50", "", "always"
    )
    assert decision == Approve(grant=GrantTerms(at_most={"amount": 50}))
    assert "the call that is approved goes beyond this itself" in shown


@pytest.mark.parametrize(
    "request_",
    [a_request(grantable=None), a_request(policy=ReviewPolicy(approvals=2))],
    ids=["not offered", "two must approve"],
)
def test_where_it_is_not_offered_the_word_means_nothing(request_: ReviewRequest) -> None:
    decision, shown = decide("always", request=request_)
    assert decision is None
    assert "is not a decision here. Type approve or reject." in shown
