"""Ready workflows for a text: approve one draft, revise it until good, approve it in stages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, Field
from workflows import Context, step
from workflows.events import StartEvent

from llama_index_hitl.events import Approved, Rejected, Revision, RevisionsExhausted
from llama_index_hitl.gates import Review
from llama_index_hitl.models import entries_of
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


class Draft(BaseModel):
    """A text under review.

    Attributes:
        content: The text, in Markdown.
    """

    content: str = Field(json_schema_extra={"format": "markdown"})


class DraftStart(StartEvent):
    """Starts the writing of a text.

    Its fields are what `run` takes, as in the example of `DraftApproval`.

    Attributes:
        topic: What to write about.
        content: A first draft to begin with; None: the model writes one.
    """

    topic: str
    content: str | None = None


class Drafted(Reviewable):
    """A draft is ready to be reviewed.

    Attributes:
        topic: What it is about.
        draft: The draft.
    """

    topic: str
    draft: Draft


class DraftResult(ReviewResult):
    """How it ended.

    The example of `DraftApproval` reads one.

    Attributes:
        subject: The final draft; use it only if the status is `approved`.
    """

    subject: Draft


class ContentApproved(Approved):
    """The content of a document is approved; the final review comes next."""


def title_of(_: Any, ev: Any) -> str:
    """Gate option: the title of a draft, or of one that passed an earlier stage."""
    return f"Draft about {one_line(ev.topic if isinstance(ev, Drafted) else ev.proposal.topic)}"


class DraftWorkflow(ReviewWorkflow):
    """Base of the workflows that write a text: everything but the gates and the ending."""

    generate_prompt = "Write a short text in Markdown about: {topic}"
    revise_prompt = (
        "Revise this text.\n\nFeedback:\n{feedback}\n\nText:\n{content}\n\n"
        "Return the whole revised text in Markdown and nothing else."
    )

    async def generate(self, topic: str) -> str:
        """Return the first draft.

        Args:
            topic: What to write about.
        """
        return await self.complete(self.filled(self.generate_prompt, topic=topic))

    async def revise(self, draft: Draft, feedback: str) -> str:
        """Return the next draft.

        Args:
            draft: The draft that was sent back.
            feedback: What people said about it.
        """
        prompt = self.filled(self.revise_prompt, feedback=feedback, content=draft.content)
        return await self.complete(prompt)

    async def execute(self, draft: Draft, effect_key: str) -> None:
        """Do what was approved; nothing by default.

        Args:
            draft: The effective draft.
            effect_key: The same in every retry: whoever does it can tell that it is done.
        """

    @step
    async def write(self, ctx: Context, ev: DraftStart) -> Drafted:
        """Write the first draft, unless there is one."""
        if ev.content is None:
            self.tell(ctx, f"Writing about {ev.topic}")
        content = ev.content if ev.content is not None else await self.generate(ev.topic)
        return Drafted(topic=ev.topic, draft=Draft(content=content))

    async def next_draft(self, ctx: Context, ev: Revision) -> Drafted:
        """Write the next draft from what people said about the last one."""
        self.tell(ctx, f"Revising draft {ev.revision}")
        content = await self.revise(ev.subject, ev.feedback)
        return Drafted(
            topic=ev.proposal.topic, draft=Draft(content=content), decisions=decisions_in(ev)
        )


class DraftApproval(DraftWorkflow):
    """One draft, one decision: approve or reject.

    `run` takes the fields of `DraftStart`.

    Override `generate`, `execute`, the prompt, or the gate `approval`.

    Example:
        >>> from llama_index_hitl.testing import ScriptedReviewer, review_with
        >>> async def main():
        ...     handler = DraftApproval().run(topic="mice", content="Mice are small.")
        ...     return await review_with(handler, ScriptedReviewer([Approve()], by="erin"))
        >>> result = asyncio.run(main())
        >>> result.status.value, result.subject == Draft(content="Mice are small.")
        ('approved', True)
    """

    approval = Review(
        Drafted,
        subject="draft",
        title=title_of,
        reviewers=reviewers_of,
        rejected=Rejected,
    )

    @step
    async def finish(self, ev: Approved) -> DraftResult:
        """Do what was approved."""
        await self.execute(ev.subject, ev.effect_key)
        return _result(ev)

    @step
    async def stop(self, ev: Rejected) -> DraftResult:
        """End without doing it."""
        return _result(ev)


class IterativeReview(DraftApproval):
    """Drafts until one is good: approve, or feedback for the next, a number of times at most.

    `run` takes the fields of `DraftStart`.

    Override `generate`, `revise`, `execute`, the prompts, `max_revisions`, or the gate `approval`.

    Example:
        >>> from llama_index_hitl.testing import ScriptedLLM, ScriptedReviewer, review_with
        >>> async def main():
        ...     flow = IterativeReview(llm=ScriptedLLM(["Mice are small.", "Mice."]))
        ...     erin = ScriptedReviewer([Revise(feedback="shorter"), Approve()], by="erin")
        ...     return await review_with(flow.run(topic="mice"), erin)
        >>> result = asyncio.run(main())
        >>> result.version, result.subject.content
        (2, 'Mice.')
    """

    approval = DraftApproval.approval.replace(
        decisions=("approve", "revise"),
        revise=Revision,
        max_revisions=max_revisions_of,
        exhausted=RevisionsExhausted,
    )

    @step
    async def rewrite(self, ctx: Context, ev: Revision) -> Drafted:
        """Write the next draft from the feedback."""
        return await self.next_draft(ctx, ev)

    @step
    async def give_up(self, ev: RevisionsExhausted) -> DraftResult:
        """End with the last draft, which is not approved."""
        return _result(ev)


class DocumentApproval(DraftWorkflow):
    """A document in two stages: content review, then final review.

    The content can be approved, sent back with feedback, or rejected; the final review approves or
    rejects, and sees who approved the content.

    `run` takes the fields of `DraftStart`.

    Override `generate`, `revise`, `execute`, the prompts, `max_revisions`, or the gates
    `content_review` and `final_review`.

    Args:
        final_reviewers: Whom the final review asks; None: whom the content review asks.
        **options: What `ReviewWorkflow` takes.

    Example:
        >>> from llama_index_hitl.testing import ScriptedReviewer, review_with
        >>> async def main():
        ...     flow = DocumentApproval(reviewers="erin", final_reviewers="bob")
        ...     erin = ScriptedReviewer([Approve(comment="true")], by="erin")
        ...     bob = ScriptedReviewer([Approve()], by="bob")
        ...     return await review_with(flow.run(topic="mice", content="Small."), erin, bob)
        >>> [said.by.id for said in asyncio.run(main()).decisions]
        ['erin', 'bob']
    """

    content_review = Review(
        Drafted,
        subject="draft",
        title=title_of,
        body="Is the content accurate?",
        stage="content",
        reviewers=reviewers_of,
        approved=ContentApproved,
        rejected=Rejected,
        revise=Revision,
        max_revisions=max_revisions_of,
        exhausted=RevisionsExhausted,
    )
    final_review = Review(
        ContentApproved,
        title=title_of,
        body="Final approval: may it be published?",
        stage="final",
        reviewers=lambda flow, _: flow.final_reviewers or None,
        rejected=Rejected,
    )

    def __init__(
        self, *, final_reviewers: Iterable[str] | str | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        chosen = self.reviewers if final_reviewers is None else final_reviewers
        self.final_reviewers = entries_of(chosen)

    @step
    async def rewrite(self, ctx: Context, ev: Revision) -> Drafted:
        """Write the next draft from the feedback."""
        return await self.next_draft(ctx, ev)

    @step
    async def finish(self, ev: Approved) -> DraftResult:
        """Do what was approved."""
        await self.execute(ev.subject, ev.effect_key)
        return _result(ev)

    @step
    async def stop(self, ev: Rejected | RevisionsExhausted) -> DraftResult:
        """End without doing it."""
        return _result(ev)


def _result(ev: Approved | Rejected | RevisionsExhausted) -> DraftResult:
    return DraftResult(
        status=status_of(ev), subject=ev.subject, version=ev.revision, decisions=decisions_in(ev)
    )
