"""A vote or a request that is handed to others: nobody decides twice, nothing waits for ever."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError
from workflows import Workflow, step
from workflows.events import Event, StartEvent, StopEvent

from llama_index_hitl import (
    Answer,
    Approve,
    Approved,
    Delegate,
    Escalate,
    Reject,
    Rejected,
    RequestStatus,
    Review,
    Reviewer,
    ReviewRequest,
)
from llama_index_hitl.errors import InvalidAnswer
from llama_index_hitl.lifecycle import open_record, take_answer
from llama_index_hitl.models import ReviewPolicy
from llama_index_hitl.prebuilt import DraftApproval
from llama_index_hitl.testing import ScriptedReviewer, review_with

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Draft(Event):
    text: str


class Checked(Approved):
    pass


class Writing(Workflow):
    @step
    async def write(self, ev: StartEvent) -> Draft:
        return Draft(text="AI")

    legal = Review(Draft, reviewers=["erin", "ann"], delegable=True, approved=Checked)
    final = Review(Checked, reviewers=["erin"], distinct_from="legal")

    @step
    async def publish(self, ev: Approved) -> StopEvent:
        return StopEvent(result="published")


async def test_whoever_chose_the_approver_of_a_stage_cannot_approve_the_next() -> None:
    erin = ScriptedReviewer([Delegate(to="bob"), Approve()], by="erin")
    result = await review_with(
        Writing(timeout=None).run(), erin, ScriptedReviewer([Approve()], by="bob")
    )
    assert isinstance(result, Rejected)
    assert result.outcome.status is RequestStatus.NO_QUORUM
    erin.assert_asked("legal")


def test_a_role_seat_cannot_be_handed_to_somebody_whose_roles_are_unknown() -> None:
    request = ReviewRequest(
        request_id="r",
        title="?",
        created_at=NOW,
        allowed=("approve", "delegate"),
        policy=ReviewPolicy(per_role={"legal": 1}),
    )
    by = Reviewer(id="erin", roles=("legal",))
    with pytest.raises(InvalidAnswer, match="roles are not known"):
        take_answer(open_record(request), Answer.to(request, Delegate(to="bob"), by=by, at=NOW))


class Escalating(Workflow):
    @step
    async def write(self, ev: StartEvent) -> Draft:
        return Draft(text="AI")

    check = Review(Draft, reviewers=["a", "b"], quorum=2, rejections=2, escalate_to=["chief"])

    @step
    async def publish(self, ev: Approved) -> StopEvent:
        return StopEvent(result="published")


@pytest.mark.parametrize("decision", [Approve(), Reject()])
async def test_one_chief_decides_an_escalated_request_either_way(decision: Any) -> None:
    result = await review_with(
        Escalating(timeout=None).run(),
        ScriptedReviewer([Escalate()], by="a"),
        ScriptedReviewer([decision], by="chief"),
    )
    approved = isinstance(decision, Approve)
    assert (result == "published") if approved else isinstance(result, Rejected)


async def test_a_ready_workflow_keeps_the_decisions_before_an_escalation() -> None:
    class Escalated(DraftApproval):
        approval = DraftApproval.approval.replace(reviewers=["a"], escalate_to=["chief"])

    result = await review_with(
        Escalated().run(topic="tea", content="x"),
        ScriptedReviewer([Escalate()], by="a"),
        ScriptedReviewer([Approve()], by="chief"),
    )
    said = [(answer.by.id, answer.decision.kind) for answer in result.decisions]
    assert said == [("a", "escalate"), ("chief", "approve")]


def test_no_person_has_the_name_of_a_rule() -> None:
    with pytest.raises(ValidationError, match="name of a rule"):
        Reviewer(id="rule:never")
