"""Ready workflow: research, a person who accepts it or sends it back for more, then the report."""

from __future__ import annotations

from pydantic import BaseModel, Field
from workflows import Context, step
from workflows.events import StartEvent

from llama_index_hitl.events import Approved, Rejected, Revision, RevisionsExhausted
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


class Research(BaseModel):
    """What was found out.

    Attributes:
        findings: The findings, in Markdown.
    """

    findings: str = Field(json_schema_extra={"format": "markdown"})


class ReportStart(StartEvent):
    """Starts a report.

    Its field is what `run` takes, as in the example of `ResearchReport`.

    Attributes:
        topic: What to report on.
    """

    topic: str


class Researched(Reviewable):
    """The research is ready to be reviewed.

    Attributes:
        topic: What it is about.
        research: What was found out.
    """

    topic: str
    research: Research


class ReportResult(ReviewResult):
    """How it ended.

    The example of `ResearchReport` reads one.

    Attributes:
        subject: The research that the report is, or would have been, made from.
        report: The report, in Markdown; None unless the status is `approved`.
    """

    subject: Research
    report: str | None = None


class ResearchReport(ReviewWorkflow):
    """Research on a topic, accepted by a person or sent back for more; then the report.

    `run` takes the fields of `ReportStart`.

    Override `research`, `research_more`, `report`, the prompts, `max_revisions`, or the gate
    `acceptance`.

    Example:
        >>> from llama_index_hitl.testing import ScriptedLLM, ScriptedReviewer, review_with
        >>> async def main():
        ...     flow = ResearchReport(llm=ScriptedLLM(["small", "small, grey", "# Mice"]))
        ...     erin = ScriptedReviewer([Revise(feedback="colour?"), Approve()], by="erin")
        ...     return await review_with(flow.run(topic="mice"), erin)
        >>> result = asyncio.run(main())
        >>> result.subject == Research(findings="small, grey"), result.report
        (True, '# Mice')
    """

    research_prompt = "Research this topic. List the findings in Markdown.\n\nTopic: {topic}"
    more_prompt = (
        "Research this topic further.\n\nTopic: {topic}\n\nFindings so far:\n{findings}\n\n"
        "What is missing:\n{feedback}\n\nReturn all findings, old and new, in Markdown."
    )
    report_prompt = (
        "Write a report in Markdown on this topic, from these findings only.\n\n"
        "Topic: {topic}\n\nFindings:\n{findings}"
    )

    acceptance = Review(
        Researched,
        subject="research",
        title=lambda _, ev: f"Research on {one_line(ev.topic)}",
        body="Is this enough to write the report?",
        reviewers=reviewers_of,
        decisions=("approve", "revise"),
        rejected=Rejected,
        revise=Revision,
        max_revisions=max_revisions_of,
        exhausted=RevisionsExhausted,
    )

    async def research(self, topic: str) -> str:
        """Return the first findings.

        Args:
            topic: What to report on.
        """
        return await self.complete(self.filled(self.research_prompt, topic=topic))

    async def research_more(self, topic: str, research: Research, feedback: str) -> str:
        """Return all findings after more research.

        Args:
            topic: What to report on.
            research: What was found out so far.
            feedback: What people said is missing.
        """
        return await self.complete(
            self.filled(
                self.more_prompt, topic=topic, findings=research.findings, feedback=feedback
            )
        )

    async def report(self, topic: str, research: Research, effect_key: str) -> str:
        """Return the report.

        Args:
            topic: What to report on.
            research: The accepted research.
            effect_key: The same in every retry: whoever files it can tell that it is done.
        """
        return await self.complete(
            self.filled(self.report_prompt, topic=topic, findings=research.findings)
        )

    @step
    async def investigate(self, ctx: Context, ev: ReportStart) -> Researched:
        """Do the first research."""
        self.tell(ctx, f"Researching {ev.topic}")
        findings = await self.research(ev.topic)
        self.tell(ctx, "The research is ready for review")
        return Researched(topic=ev.topic, research=Research(findings=findings))

    @step
    async def investigate_more(self, ctx: Context, ev: Revision) -> Researched:
        """Do more research, as the person asked."""
        topic = ev.proposal.topic
        self.tell(ctx, f"Researching {topic} further (round {ev.revision + 1})")
        findings = await self.research_more(topic, ev.subject, ev.feedback)
        self.tell(ctx, "The research is ready for review")
        research = Research(findings=findings)
        return Researched(topic=topic, research=research, decisions=decisions_in(ev))

    @step
    async def write(self, ctx: Context, ev: Approved) -> ReportResult:
        """Write the report from the accepted research."""
        self.tell(ctx, "Writing the report")
        report = await self.report(ev.proposal.topic, ev.subject, ev.effect_key)
        return _result(ev, report)

    @step
    async def stop(self, ev: Rejected | RevisionsExhausted) -> ReportResult:
        """End without a report."""
        return _result(ev, None)


def _result(ev: Approved | Rejected | RevisionsExhausted, report: str | None) -> ReportResult:
    return ReportResult(
        status=status_of(ev),
        subject=ev.subject,
        version=ev.revision,
        decisions=decisions_in(ev),
        report=report,
    )
