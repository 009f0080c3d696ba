"""Ready workflow: code is written, reviewed by a person, and revised."""

from __future__ import annotations

from pydantic import BaseModel, Field
from workflows import Context, step
from workflows.events import StartEvent

from llama_index_hitl.events import Approved, Rejected, Revision, RevisionsExhausted
from llama_index_hitl.gates import Review
from llama_index_hitl.prebuilt._base import (
    ModelOutputError,
    Reviewable,
    ReviewResult,
    ReviewWorkflow,
    decisions_in,
    max_revisions_of,
    one_line,
    reviewers_of,
    status_of,
)


class Code(BaseModel):
    """Code under review.

    Attributes:
        code: The source text.
    """

    code: str = Field(json_schema_extra={"format": "code", "language": "python"})


class CodeStart(StartEvent):
    """Starts the writing of code.

    Its fields are what `run` takes, as in the example of `CodeReview`.

    Attributes:
        task: What the code shall do.
        code: Code to begin with; None: the model writes it.
    """

    task: str
    code: str | None = None


class CodeWritten(Reviewable):
    """Code is ready to be reviewed.

    Attributes:
        task: What it shall do.
        code: The code.
    """

    task: str
    code: Code


class CodeResult(ReviewResult):
    """How it ended.

    The example of `CodeReview` reads one.

    Attributes:
        subject: The final code; use it only if the status is `approved`.
    """

    subject: Code


class CodeReview(ReviewWorkflow):
    """Code is approved, rejected, or sent back with feedback, three times at most.

    `run` takes the fields of `CodeStart`.

    Override `generate`, `revise`, `execute`, the prompts, `max_revisions`, or the gate `review`.

    Example:
        >>> from llama_index_hitl.testing import ScriptedReviewer, review_with
        >>> async def main():
        ...     handler = CodeReview().run(task="Say hello.", code="print('hi')")
        ...     erin = ScriptedReviewer([Approve()], by="erin")
        ...     return await review_with(handler, erin)
        >>> asyncio.run(main()).subject == Code(code="print('hi')")
        True
    """

    generate_prompt = "Write Python code for this task. Return only the code.\n\nTask: {task}"
    revise_prompt = (
        "Revise this Python code. Return only the whole revised code.\n\nTask: {task}\n\n"
        "Feedback:\n{feedback}\n\nCode:\n{code}"
    )

    review = Review(
        CodeWritten,
        subject="code",
        title=lambda _, ev: f"Code for: {one_line(ev.task)}",
        reviewers=reviewers_of,
        rejected=Rejected,
        revise=Revision,
        max_revisions=max_revisions_of,
        exhausted=RevisionsExhausted,
    )

    async def generate(self, task: str) -> str:
        """Return the first version.

        Args:
            task: What the code shall do.
        """
        return await self.complete_code(self.filled(self.generate_prompt, task=task))

    async def revise(self, task: str, code: Code, feedback: str) -> str:
        """Return the next version.

        Args:
            task: What the code shall do.
            code: The version that was sent back.
            feedback: What people said about it.
        """
        prompt = self.filled(self.revise_prompt, task=task, feedback=feedback, code=code.code)
        return await self.complete_code(prompt)

    async def complete_code(self, prompt: str) -> str:
        """Return the code that the model answers to a prompt.

        Args:
            prompt: What to ask.

        Raises:
            ModelOutputError: It answers nothing, or an empty code block.
        """
        code = without_fence(await self.complete(prompt))
        if not code.strip():
            raise ModelOutputError("code", 1, "an empty code block")
        return code

    async def execute(self, code: Code, effect_key: str) -> None:
        """Do what was approved, such as merging it; nothing by default.

        Args:
            code: The effective code.
            effect_key: The same in every retry: whoever does it can tell that it is done.
        """

    @step
    async def write(self, ctx: Context, ev: CodeStart) -> CodeWritten:
        """Write the first version, unless there is one."""
        if ev.code is None:
            self.tell(ctx, f"Writing code for: {ev.task}")
        code = ev.code if ev.code is not None else await self.generate(ev.task)
        return CodeWritten(task=ev.task, code=Code(code=code))

    @step
    async def rewrite(self, ctx: Context, ev: Revision) -> CodeWritten:
        """Write the next version from the feedback."""
        self.tell(ctx, f"Revising version {ev.revision}")
        task = ev.proposal.task
        code = await self.revise(task, ev.subject, ev.feedback)
        return CodeWritten(task=task, code=Code(code=code), decisions=decisions_in(ev))

    @step
    async def finish(self, ev: Approved) -> CodeResult:
        """Do what was approved."""
        await self.execute(ev.subject, ev.effect_key)
        return _result(ev)

    @step
    async def stop(self, ev: Rejected | RevisionsExhausted) -> CodeResult:
        """End without doing it."""
        return _result(ev)


def _result(ev: Approved | Rejected | RevisionsExhausted) -> CodeResult:
    return CodeResult(
        status=status_of(ev), subject=ev.subject, version=ev.revision, decisions=decisions_in(ev)
    )


def without_fence(text: str) -> str:
    """Return code without the Markdown fence that models like to put around it."""
    lines = text.strip().split("\n")  # not splitlines: code may hold other ends of line
    if len(lines) >= 2 and lines[0].startswith("```") and lines[-1].strip() == "```":
        lines = lines[1:-1]
    return "\n".join(lines)
