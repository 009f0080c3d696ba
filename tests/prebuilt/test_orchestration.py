from datetime import timedelta

import pytest
from desks import Desk, made, person

from llama_index_hitl import Approve, Edit, Reject, Respond, Revise
from llama_index_hitl.errors import GateError, InvalidAnswer, NotAllowed
from llama_index_hitl.prebuilt import (
    Finding,
    Findings,
    ModelOutputError,
    Orchestration,
    ResultStatus,
    Task,
    TaskPlan,
)
from llama_index_hitl.rules import never
from llama_index_hitl.testing import ScriptedLLM, review_with

WHO = {"logs": "reads {logs}", "ops": "runs commands"}
GOAL = "Find out why {it} is down, 100 % %s"


def plan(*tasks):
    return TaskPlan(tasks=[Task(owner=owner, task=task) for owner, task in tasks])


READ = plan(("logs", "Read the logs"), ("ops", "Restart it"))
ONLY_READ = plan(("logs", "Read the logs"))


def edit(changed):
    return Edit(subject=changed.model_dump(mode="json"))


class Working(Orchestration):
    """Remembers what was done."""

    def __init__(self, done=None, **options):
        super().__init__(workers=WHO, **options)
        self.done = [] if done is None else done

    async def work(self, task, earlier, effect_key):
        self.done.append((task.owner, task.task, len(earlier), effect_key))
        return f"{task.owner} did it"


def working(*replies, **options):
    return Working(llm=ScriptedLLM(replies), **options)


async def reach(flow, *people):
    return await review_with(flow.run(goal=GOAL), *people)


def tasks_done(flow):
    return [task for _, task, *_ in flow.done]


async def test_a_plan_is_approved_carried_out_reviewed_and_reported():
    flow, erin = working(READ, "It was the disk."), person(Approve(), Approve())
    result = await reach(flow, erin)
    assert (result.status, result.report) == (ResultStatus.APPROVED, "It was the disk.")
    assert result.subject == Findings(
        findings=[
            Finding(owner="logs", task="Read the logs", finding="logs did it"),
            Finding(owner="ops", task="Restart it", finding="ops did it"),
        ]
    )
    key = erin.asked[0].request_id
    assert flow.done == [
        ("logs", "Read the logs", 0, f"{key}:1"),
        ("ops", "Restart it", 1, f"{key}:2"),
    ]
    erin.assert_asked("plan_review", "findings_review")
    assert made(result) == [("erin", "approve")] * 2
    assert f"Goal: {GOAL}" in flow.get_llm().prompts[0]
    assert "- logs: reads {logs}" in flow.get_llm().prompts[0]


async def test_no_task_is_begun_before_the_plan_is_approved():
    flow = working(READ)
    result = await reach(flow, person(Reject()))
    assert (result.status, result.subject, result.report) == (ResultStatus.REJECTED, READ, None)
    assert flow.done == []


async def test_a_plan_is_sent_back_and_made_anew():
    flow = working(READ, ONLY_READ, "Fine.")
    erin = person(Revise(feedback="do {not} restart"), Approve(), Approve())
    result = await reach(flow, erin)
    assert (result.status, tasks_done(flow)) == (ResultStatus.APPROVED, ["Read the logs"])
    assert "do {not} restart" in flow.get_llm().prompts[1]
    assert READ.model_dump_json() in flow.get_llm().prompts[1]
    assert erin.asked[1].previous.data == READ.model_dump(mode="json")
    assert made(result) == [("erin", "revise"), ("erin", "approve"), ("erin", "approve")]


async def test_an_edited_plan_is_what_is_carried_out():
    flow = working(READ, "Fine.")
    result = await reach(flow, person(edit(ONLY_READ), Approve()))
    assert (result.status, tasks_done(flow)) == (ResultStatus.APPROVED, ["Read the logs"])


async def test_an_edit_that_names_a_worker_that_there_is_not_is_asked_about_again():
    flow = working(READ, "Fine.")
    erin = person(edit(plan(("root", "Delete it"))), edit(ONLY_READ), Approve())
    result = await reach(flow, erin)
    assert erin.asked[1].body == "There is no worker root; the workers are logs, ops."
    assert tasks_done(flow) == ["Read the logs"]
    assert [kind for _, kind in made(result)] == ["edit", "edit", "approve"]


async def test_findings_that_are_sent_back_lead_to_another_plan_that_must_be_approved():
    flow = working(ONLY_READ, READ, "Fine.")
    erin = person(Approve(), Revise(feedback="and restart it"), Approve(), Approve())
    result = await reach(flow, erin)
    erin.assert_asked("plan_review", "findings_review", "plan_review", "findings_review")
    assert tasks_done(flow) == ["Read the logs", "Read the logs", "Restart it"]
    assert "logs did it" in flow.get_llm().prompts[1]
    assert "and restart it" in flow.get_llm().prompts[1]
    assert (result.status, result.version) == (ResultStatus.APPROVED, 2)
    assert len(result.decisions) == 4


async def test_a_second_plan_that_is_rejected_is_not_carried_out():
    flow = working(ONLY_READ, READ)
    result = await reach(flow, person(Approve(), Revise(feedback="restart"), Reject()))
    assert (result.status, result.subject) == (ResultStatus.REJECTED, READ)
    assert tasks_done(flow) == ["Read the logs"]


async def test_findings_that_are_rejected_are_not_reported():
    result = await reach(working(ONLY_READ), person(Approve(), Reject()))
    assert (result.status, result.report) == (ResultStatus.REJECTED, None)
    assert result.subject.findings[0].finding == "logs did it"


@pytest.mark.parametrize("limit", [0, 1])
async def test_findings_can_be_sent_back_so_often_and_are_not_approved_then(limit):
    flow = working(*[ONLY_READ] * (limit + 1), max_revisions=limit)
    erin = person(*[Approve(), Revise(feedback="no")] * (limit + 1))
    result = await reach(flow, erin)
    assert (result.status, result.report) == (ResultStatus.MAX_REVISIONS, None)
    assert len(flow.done) == limit + 1


@pytest.mark.parametrize("limit", [0, 1])
async def test_a_plan_can_be_sent_back_so_often_and_is_not_carried_out_then(limit):
    flow = working(*[READ] * (limit + 1), max_revisions=limit)
    result = await reach(flow, person(*[Revise(feedback="no")] * (limit + 1)))
    assert (result.status, result.subject, flow.done) == (ResultStatus.MAX_REVISIONS, READ, [])


async def test_the_model_can_name_only_workers_that_there_are():
    stranger = plan(("mallory", "approved by manager"))
    flow = working(stranger, {"tasks": []}, ONLY_READ)
    assert (await reach(flow, person(Reject()))).subject == ONLY_READ
    flow, erin = working(*[stranger] * 3), person(Approve())
    with pytest.raises(ModelOutputError):
        await reach(flow, erin)
    assert (erin.asked, flow.done) == ([], [])


async def test_workers_are_the_model_unless_they_are_code():
    llm = ScriptedLLM([READ, "The {disk} is full.", "Done.", "Report."])
    result = await reach(Orchestration(llm=llm, workers=WHO), person(Approve(), Approve()))
    assert [f.finding for f in result.subject.findings] == ["The {disk} is full.", "Done."]
    assert llm.prompts[1].startswith("You are logs: reads {logs}")
    assert "## Read the logs (logs)\nThe {disk} is full." in llm.prompts[2]
    assert result.report == "Report."


def test_there_must_be_workers():
    with pytest.raises(GateError, match="needs workers"):
        Orchestration()


async def test_a_rule_that_lets_a_stranger_pass_is_an_error_and_no_endless_loop():
    class Odd(Working):
        plan_review = Working.plan_review.replace(when=never())

        async def plan(self, goal, before, feedback):
            return plan(("mallory", "Read the logs"))

    flow = Odd()
    with pytest.raises(GateError, match="no worker mallory"):
        await reach(flow)
    assert flow.done == []


# --- in a store ---------------------------------------------------------------------------------


def stored(done, *replies, **options):
    llm = ScriptedLLM(replies)
    return lambda clock: Working(done, llm=llm, clock=clock, reviewers="erin", **options)


async def test_each_step_may_happen_in_another_process(tmp_path):
    done = []
    desk = Desk(tmp_path, stored(done, ONLY_READ, READ, "Fine."))
    await desk.start(goal=GOAL)
    for decision in (Respond(response="approve"), Edit(subject={"tasks": []})):
        with pytest.raises(InvalidAnswer):
            await desk.answer(decision)
    with pytest.raises(NotAllowed):
        await desk.answer(Approve(), by="logs")
    assert done == []
    assert (await desk.answer(Approve())).gate == "findings_review"
    assert len(done) == 1
    second = await desk.answer(Revise(feedback="approved, but restart it"))
    assert (second.gate, len(done)) == ("plan_review", 1)
    await desk.answer(Approve())
    assert len(done) == 3
    assert await desk.answer(Approve()) is None
    result = await desk.result()
    assert (result.status, result.report) == (ResultStatus.APPROVED, "Fine.")


async def test_silence_begins_no_task_and_accepts_nothing(tmp_path):
    done = []
    desk = Desk(tmp_path, stored(done, ONLY_READ, deadline=timedelta(hours=1)))
    await desk.start(goal=GOAL)
    assert await desk.after(hours=1) is None
    result = await desk.result()
    assert (result.status, result.subject, done) == (ResultStatus.EXPIRED, ONLY_READ, [])


async def test_findings_that_nobody_looks_at_are_not_reported(tmp_path):
    desk = Desk(tmp_path, stored([], ONLY_READ, deadline=timedelta(hours=1)))
    await desk.start(goal=GOAL)
    await desk.answer(Approve())
    assert await desk.after(hours=1) is None
    result = await desk.result()
    assert (result.status, result.report) == (ResultStatus.EXPIRED, None)
