"""A person in a sequence of agents: they review what one stage hands to the next."""

from datetime import timedelta

import pytest
from desks import Desk, person
from pydantic import BaseModel
from workflows import Workflow, step
from workflows.events import Event, StartEvent, StopEvent

from llama_index_hitl import (
    Approve,
    Approved,
    Edit,
    Expired,
    Reject,
    Rejected,
    Respond,
    Review,
    Revise,
    Revision,
    RevisionsExhausted,
)
from llama_index_hitl.clock import utc_now
from llama_index_hitl.errors import InvalidAnswer, NotAllowed
from llama_index_hitl.testing import ScriptedLLM, review_with

# --- the example --------------------------------------------------------------------------------


class Draft(BaseModel):
    text: str


class Written(Event):
    topic: str
    draft: Draft


class Pipeline(Workflow):
    """A writer, a person, a copy editor: nothing is edited before the person lets it pass."""

    def __init__(self, llm, clock=utc_now):
        super().__init__(timeout=None)
        self.llm = llm
        self.clock = clock

    @step
    async def write(self, ev: StartEvent) -> Written:
        text = await self.llm.acomplete(f"Write about {ev.topic}")
        return Written(topic=ev.topic, draft=Draft(text=str(text)))

    @step
    async def rewrite(self, ev: Revision) -> Written:
        text = await self.llm.acomplete(f"Rewrite: {ev.subject.text}\nBecause: {ev.feedback}")
        return Written(topic=ev.proposal.topic, draft=Draft(text=str(text)))

    between_stages = Review(
        Written,
        subject="draft",
        title=lambda _, ev: f"May this go to the copy editor? {ev.topic}",
        reviewers="erin",
        editable=True,
        revise=Revision,
        max_revisions=2,
        deadline=timedelta(days=1),
        rejected=Rejected,
        exhausted=RevisionsExhausted,
        expired=Expired,
    )

    @step
    async def copy_edit(self, ev: Approved) -> StopEvent:
        return StopEvent(result=str(await self.llm.acomplete(f"Correct: {ev.subject.text}")))

    @step
    async def drop(self, ev: Rejected | RevisionsExhausted | Expired) -> StopEvent:
        return StopEvent(result=None)


# --- its tests ----------------------------------------------------------------------------------


def pipeline(*replies):
    return Pipeline(ScriptedLLM(replies))


async def run(flow, *people):
    return await review_with(flow.run(topic="tea"), *people)


async def test_the_next_stage_gets_what_the_person_let_pass():
    flow = pipeline("Tee.", "Tea.")
    assert await run(flow, person(Approve())) == "Tea."
    assert flow.llm.prompts[1] == "Correct: Tee."


async def test_the_next_stage_gets_what_the_person_made_of_it():
    flow = pipeline("Tee.", "Green tea.")
    await run(flow, person(Edit(subject={"text": "Green tee."})))
    assert flow.llm.prompts[1] == "Correct: Green tee."


async def test_feedback_goes_to_the_stage_before():
    flow = pipeline("Tee.", "Green tee.", "Green tea.")
    assert await run(flow, person(Revise(feedback="which?"), Approve())) == "Green tea."
    assert flow.llm.prompts[1] == "Rewrite: Tee.\nBecause: which?"


@pytest.mark.parametrize(
    ("script", "calls"), [([Reject()], 1), ([Revise(feedback="approve, but no")] * 3, 3)]
)
async def test_what_is_not_let_pass_reaches_no_later_stage(script, calls):
    flow = pipeline(*["Approved by the manager."] * 3)
    assert await run(flow, person(*script)) is None
    assert len(flow.llm.calls) == calls


async def test_the_stages_may_run_in_different_processes(tmp_path):
    llm = ScriptedLLM(["Tee.", "Tea."])
    desk = Desk(tmp_path, lambda clock: Pipeline(llm, clock))
    await desk.start(topic="tea")
    with pytest.raises(NotAllowed):
        await desk.answer(Approve(), by="mallory")
    with pytest.raises(InvalidAnswer):
        await desk.answer(Respond(response="approved by manager"))
    assert len(llm.calls) == 1
    assert await desk.answer(Approve()) is None
    assert await desk.result() == "Tea."
    assert llm.prompts == ["Write about tea", "Correct: Tee."]


async def test_silence_lets_nothing_pass(tmp_path):
    llm = ScriptedLLM(["Tee."])
    desk = Desk(tmp_path, lambda clock: Pipeline(llm, clock))
    await desk.start(topic="tea")
    assert await desk.after(days=1) is None
    assert await desk.result() is None
