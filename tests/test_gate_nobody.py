"""A question that nobody may answer is given up at once: it must not wait for ever."""

import pytest
from workflows import Context, Workflow, step
from workflows.events import Event, StartEvent, StopEvent

from llama_index_hitl import (
    Approve,
    Approved,
    Edit,
    Question,
    Rejected,
    RequestStatus,
    Review,
    ReviewRequestEvent,
    ask,
)
from llama_index_hitl.errors import QuestionError
from llama_index_hitl.testing import ScriptedReviewer, review_with


class Draft(Event):
    text: str


class Checked(Approved):
    pass


class Writing(Workflow):
    @step
    async def write(self, ev: StartEvent) -> Draft:
        return Draft(text="x")

    check = Review(Draft, reviewers="erin", approved=Checked)
    final = Review(Checked, reviewers="erin", distinct_from="check")

    @step
    async def publish(self, ev: Approved) -> StopEvent:
        return StopEvent(result="published")


async def test_a_stage_whose_only_reviewer_approved_the_stage_before_is_given_up() -> None:
    erin = ScriptedReviewer([Approve()], by="erin")
    result = await review_with(Writing(timeout=None).run(), erin)
    assert isinstance(result, Rejected)
    assert result.outcome.status is RequestStatus.NO_QUORUM
    assert "can no longer be reached" in result.outcome.reason
    erin.assert_asked("check")


class Editing(Workflow):
    @step
    async def write(self, ev: StartEvent) -> Draft:
        return Draft(text="x")

    check = Review(Draft, reviewers="erin", editable=True, second_person_for_edit=True)

    @step
    async def publish(self, ev: Approved) -> StopEvent:
        return StopEvent(result="published")


async def test_an_edit_that_needs_a_second_person_is_given_up_where_there_is_none() -> None:
    handler = Editing(timeout=None).run()
    asked = 0
    async for event in handler.stream_events():
        if isinstance(event, ReviewRequestEvent):
            asked += 1
            handler.ctx.send_event(event.answer(Edit(subject={"text": "y"}), by="erin"))
    result = await handler
    assert asked == 1
    assert isinstance(result, Rejected)
    assert result.outcome.status is RequestStatus.NO_QUORUM
    assert result.subject.text == "y"


class Asking(Workflow):
    @step
    async def step_one(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await ask(ctx, Question(title="Pay?", reviewers="erin", barred={"erin": "it is hers"}))
        return StopEvent()


async def test_an_inline_question_that_nobody_may_answer_raises() -> None:
    with pytest.raises(QuestionError, match="Nobody is left who may answer 'Pay\\?'"):
        await Asking(timeout=None).run()
