"""What holds for each ready workflow with several agents, or for a strategy, in it."""

from functools import partial

import pytest
from desks import NOON, made, person
from workflows.representation import get_workflow_representation

from llama_index_hitl import DecisionKind
from llama_index_hitl.forms import fields_of, parse_answer
from llama_index_hitl.models import Reviewer
from llama_index_hitl.prebuilt import (
    ApproveAction,
    Classification,
    EscalationNeeded,
    GroupChat,
    Orchestration,
    SupportAnswer,
    SupportDesk,
    Task,
    TaskPlan,
    Triage,
)
from llama_index_hitl.testing import (
    ScriptedLLM,
    ScriptedReviewer,
    review_with,
    review_with_restarts,
)

ASKS = EscalationNeeded(reason="a", context="b", suggested_action="c")
CASES = {
    "action": (ApproveAction, {"action": "x"}, []),
    "support": (
        SupportDesk,
        {"text": "x"},
        [SupportAnswer(escalation=ASKS), "Yes."],
    ),
    "chat": (
        partial(GroupChat, participants={"Ada": "x"}),
        {"topic": "x"},
        ["Hi.", "Bye."],
    ),
    "triage": (
        partial(Triage, specialists={"tech": "x"}),
        {"request": "x"},
        [Classification(specialist="tech", confidence=1, reason="x"), "Done."],
    ),
    "orchestration": (
        partial(Orchestration, workers={"ops": "x"}),
        {"goal": "x"},
        [TaskPlan(tasks=[Task(owner="ops", task="x")]), "Done.", "Report."],
    ),
}
FORMS = {
    DecisionKind.APPROVE: {"decision": "approve"},
    DecisionKind.RESPOND: {"decision": "respond"},
}
RESPONSES = {"guidance": {"instruction": "do it"}, "turn": {"action": "end"}}

every_case = pytest.mark.parametrize(("make", "start", "replies"), CASES.values(), ids=CASES)


@every_case
def test_upstream_finds_it_valid_and_draws_it(make, start, replies):
    flow = make()
    assert flow.validate() is True
    assert flow._timeout is None
    assert "ReviewRequestEvent" in get_workflow_representation(flow).model_dump_json()


def in_a_form(request):
    """Answer as whoever fills in a form of text fields, whatever front end shows it."""
    kind = request.allowed[0]
    given = {f"response.{k}": v for k, v in RESPONSES.get(request.gate, {}).items()}
    shown = {field.name for field in fields_of(request, kind)}
    assert given.keys() <= shown
    raw = {**FORMS[kind], **given}
    return parse_answer(request, raw, by=Reviewer(id="erin"), at=NOON).decision


@every_case
async def test_it_is_answered_in_a_form(make, start, replies):
    llm, erin = ScriptedLLM(replies), ScriptedReviewer(in_a_form, by="erin")
    result = await review_with(make(llm=llm).run(**start), erin)
    assert len(made(result)) == len(erin.asked) > 0
    llm.assert_exhausted()


@every_case
async def test_it_waits_as_text_and_goes_on_elsewhere(make, start, replies):
    llm = ScriptedLLM(replies)
    erin = ScriptedReviewer(in_a_form, by="erin")
    result = await review_with_restarts(lambda: make(llm=llm), erin, inputs=start)
    assert len(made(result)) == len(erin.asked) > 0
    llm.assert_exhausted()


@every_case
async def test_only_its_reviewers_are_asked(make, start, replies):
    mallory, erin = person(by="mallory"), ScriptedReviewer(in_a_form, by="erin")
    await review_with(
        make(llm=ScriptedLLM(replies), reviewers=["erin"]).run(**start), mallory, erin
    )
    assert {request.policy.reviewers for request in erin.asked} == {("erin",)}
