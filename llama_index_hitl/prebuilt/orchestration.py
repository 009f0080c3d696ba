"""Ready workflow: a plan of tasks that a person approves, workers, findings that a person reviews.

After the manager of Magentic-One: a plan is made, its tasks are done, and what was found may lead
to another plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model
from workflows import Context, step
from workflows.events import StartEvent

from llama_index_hitl.errors import GateError
from llama_index_hitl.events import Approved, Expired, Rejected, Revision, RevisionsExhausted
from llama_index_hitl.gates import Review
from llama_index_hitl.prebuilt._base import (
    Reviewable,
    ReviewResult,
    ReviewWorkflow,
    decisions_in,
    max_revisions_of,
    one_line,
    reviewers_of,
    status_of,
)


class Task(BaseModel):
    """One thing to do, and who does it."""

    model_config = ConfigDict(extra="forbid")

    owner: str = Field(description="Name of the worker who does it")
    task: str = Field(description="What to do, in one sentence")


class TaskPlan(BaseModel):
    """What will be done to reach a goal, in order."""

    model_config = ConfigDict(extra="forbid")

    tasks: tuple[Task, ...] = Field(min_length=1, description="The tasks, in order")


class Finding(BaseModel):
    """What came of a task."""

    owner: str
    """Name of the worker who did it."""
    task: str
    """What was to be done."""
    finding: str = Field(json_schema_extra={"format": "markdown"})
    """What came of it, in Markdown."""


class Findings(BaseModel):
    """What came of all tasks of a plan, in order."""

    findings: tuple[Finding, ...]
    """One for each task."""


class OrchestrationStart(StartEvent):
    """Starts with a goal.

    Its field is what `run` takes, as in the example of `Orchestration`.

    Attributes:
        goal: What is to be reached.
    """

    goal: str


class Planned(Reviewable):
    """A plan is ready to be reviewed.

    Attributes:
        goal: What is to be reached.
        plan: The plan.
        problem: What was wrong with an edited plan; empty: nothing.
    """

    goal: str
    plan: TaskPlan
    problem: str = ""


class PlanApproved(Approved):
    """The plan may be carried out."""


class PlanSentBack(Revision):
    """The plan has to be made better."""


class Worked(Reviewable):
    """All tasks are done; the findings are ready to be reviewed.

    Attributes:
        goal: What is to be reached.
        plan: The plan that was carried out.
        findings: What came of it.
    """

    goal: str
    plan: TaskPlan
    findings: Findings


class OrchestrationResult(ReviewResult):
    """How it ended.

    The example of `Orchestration` reads one.

    Attributes:
        subject: The last findings, or the last plan where there are none.
        report: The report, in Markdown; None unless the status is `approved`.
    """

    subject: Findings | TaskPlan
    report: str | None = None


class Orchestration(ReviewWorkflow):
    """A goal: the model plans, a person approves the plan, workers do it, a person reviews it.

    The plan can be approved, edited, sent back with feedback, or rejected; no task is begun before.
    The findings can be accepted, sent back, so that there is another plan to approve, or rejected.

    `run` takes the fields of `OrchestrationStart`.

    Override `plan`, `work`, for agents of your own say, `report`, the prompts, `workers`,
    `max_revisions`, or the gates `plan_review` and `findings_review`.

    Args:
        workers: Names of the workers, and what each can do.
        deadline: Time to answer each question; after that it is over. None: no limit.
        **options: What `ReviewWorkflow` takes. `max_revisions` is how often a plan, and how often
            the findings, may be sent back.

    Raises:
        GateError: There are no workers.

    Example:
        >>> from llama_index_hitl.testing import ScriptedLLM, ScriptedReviewer, review_with
        >>> plan = TaskPlan(tasks=(Task(owner="reader", task="Read about mice."),))
        >>> async def main():
        ...     llm = ScriptedLLM([plan, "They are small.", "# Mice"])
        ...     flow = Orchestration(llm=llm, workers={"reader": "Reads."})
        ...     erin = ScriptedReviewer([Approve(), Approve()], by="erin")
        ...     return await review_with(flow.run(goal="Know mice."), erin)
        >>> result = asyncio.run(main())
        >>> found = Finding(owner="reader", task="Read about mice.", finding="They are small.")
        >>> result.subject == Findings(findings=(found,)), result.report
        (True, '# Mice')
    """

    workers: Mapping[str, str] = {}
    plan_prompt = (
        "Plan how to reach this goal: the tasks in order, and the worker who does each.\n\n"
        "Goal: {goal}\n\nWorkers:\n{workers}\n\nSo far:\n{before}\n\n"
        "What a person said:\n{feedback}"
    )
    work_prompt = (
        "You are {owner}: {duty}\n\nDo this task.\n\nTask: {task}\n\nFindings so far:\n{findings}"
    )
    report_prompt = (
        "Report in Markdown how this goal was reached, from these findings only.\n\n"
        "Goal: {goal}\n\nFindings:\n{findings}"
    )

    plan_review = Review(
        Planned,
        subject="plan",
        title=lambda _, ev: f"Plan for: {one_line(ev.goal)}",
        body=lambda _, ev: ev.problem,
        stage="plan",
        reviewers=reviewers_of,
        editable=True,
        deadline=lambda flow, _: flow.deadline,
        approved=PlanApproved,
        rejected=Rejected,
        revise=PlanSentBack,
        max_revisions=max_revisions_of,
        exhausted=RevisionsExhausted,
        expired=Expired,
    )
    findings_review = Review(
        Worked,
        subject="findings",
        title=lambda _, ev: f"Findings on: {one_line(ev.goal)}",
        stage="findings",
        reviewers=reviewers_of,
        deadline=lambda flow, _: flow.deadline,
        rejected=Rejected,
        revise=Revision,
        max_revisions=max_revisions_of,
        exhausted=RevisionsExhausted,
        expired=Expired,
    )

    def __init__(
        self,
        *,
        workers: Mapping[str, str] | None = None,
        deadline: timedelta | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.deadline = deadline
        if workers is not None:
            self.workers = dict(workers)
        if not self.workers:
            raise GateError(f"{type(self).__name__} needs workers=, names and what they can do.")

    async def plan(self, goal: str, before: str, feedback: str) -> TaskPlan:
        """Return a plan.

        Args:
            goal: What is to be reached.
            before: The plan, or the findings, that a person sent back, as JSON; empty: none.
            feedback: What the person said.

        Raises:
            ModelOutputError: The model gives no plan for workers that there are.
        """
        prompt = self.filled(
            self.plan_prompt,
            goal=goal,
            workers="\n".join(f"- {name}: {duty}" for name, duty in self.workers.items()),
            before=before or "nothing",
            feedback=feedback or "nothing",
        )
        found = await self.predict(_plan_of(tuple(self.workers)), prompt)
        return TaskPlan(**found.model_dump())

    async def work(self, task: Task, earlier: Sequence[Finding], effect_key: str) -> str:
        """Return what a worker has found out, or done.

        Args:
            task: The task.
            earlier: What came of the tasks before it.
            effect_key: The same in every retry: whoever does something can tell that it is done.
        """
        prompt = self.filled(
            self.work_prompt,
            owner=task.owner,
            duty=self.workers[task.owner],
            task=task.task,
            findings=_listed(earlier) or "none",
        )
        return await self.complete(prompt)

    async def report(self, goal: str, findings: Findings, effect_key: str) -> str:
        """Return the report on accepted findings.

        Args:
            goal: What was to be reached.
            findings: What came of the tasks.
            effect_key: The same in every retry: whoever files it can tell that it is done.
        """
        prompt = self.filled(self.report_prompt, goal=goal, findings=_listed(findings.findings))
        return await self.complete(prompt)

    @step
    async def begin(self, ctx: Context, ev: OrchestrationStart) -> Planned:
        """Make the first plan."""
        self.tell(ctx, f"Planning: {ev.goal}")
        return Planned(goal=ev.goal, plan=await self.plan(ev.goal, "", ""))

    @step
    async def replan(self, ctx: Context, ev: PlanSentBack | Revision) -> Planned:
        """Make another plan, from what a person said about the last one, or its findings."""
        goal = ev.proposal.goal
        self.tell(ctx, f"Planning anew: {goal}")
        feedback = "\n".join(item.text for item in ev.history)
        plan = await self.plan(goal, ev.subject.model_dump_json(), feedback)
        return Planned(goal=goal, plan=plan, decisions=decisions_in(ev))

    @step
    async def carry_out(self, ctx: Context, ev: PlanApproved) -> Worked | Planned:
        """Do the tasks in order; where a person has named nobody that there is, ask again."""
        goal, plan, decided = ev.proposal.goal, ev.subject, decisions_in(ev)
        if strangers := {task.owner for task in plan.tasks} - set(self.workers):
            problem = (
                f"There is no worker {', '.join(sorted(strangers))}; the workers are "
                f"{', '.join(self.workers)}."
            )
            if ev.answers[-1].by.kind == "rule":
                raise GateError(problem)  # nobody to ask: it would go round and round
            return Planned(goal=goal, plan=plan, problem=problem, decisions=decided)
        findings: list[Finding] = []
        for number, task in enumerate(plan.tasks, 1):
            self.tell(ctx, f"{task.owner}: {task.task}")
            text = await self.work(task, tuple(findings), f"{ev.effect_key}:{number}")
            findings.append(Finding(owner=task.owner, task=task.task, finding=text))
        found = Findings(findings=tuple(findings))
        return Worked(goal=goal, plan=plan, findings=found, decisions=decided)

    @step
    async def finish(self, ctx: Context, ev: Approved) -> OrchestrationResult:
        """Write the report."""
        self.tell(ctx, "Writing the report")
        return _result(ev, await self.report(ev.proposal.goal, ev.subject, ev.effect_key))

    @step
    async def stop(self, ev: Rejected | RevisionsExhausted | Expired) -> OrchestrationResult:
        """End without a report."""
        return _result(ev, None)


def _plan_of(workers: tuple[str, ...]) -> type[TaskPlan]:
    """Return the model of a plan for these workers."""
    owner: Any = (Literal[workers], Field(description="Name of the worker who does it"))
    task = create_model("Task", __base__=Task, owner=owner)
    tasks = (tuple[task, ...], Field(min_length=1, description="The tasks, in order"))
    found: type[TaskPlan] = create_model("TaskPlan", __base__=TaskPlan, tasks=tasks)
    return found


def _listed(findings: Sequence[Finding]) -> str:
    return "\n\n".join(f"## {one_line(f.task)} ({f.owner})\n{f.finding}" for f in findings)


def _result(
    ev: Approved | Rejected | RevisionsExhausted | Expired, report: str | None
) -> OrchestrationResult:
    return OrchestrationResult(
        status=status_of(ev),
        subject=ev.subject,
        version=ev.revision,
        decisions=decisions_in(ev),
        report=report,
    )
