"""Ready workflow: say what was understood, and act only when the person confirms it."""

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


class Detail(BaseModel):
    """One value that matters."""

    name: str
    """What it is, such as `amount`."""
    value: str
    """The value, as text."""


class Understanding(BaseModel):
    """What was understood of a request."""

    action: str = Field(description="What will be done, as one sentence that begins with I will")
    # No dict: OpenAI's structured outputs refuse objects whose keys are not known beforehand.
    details: tuple[Detail, ...] = Field(
        default_factory=tuple, description="Every value that matters, such as the amount"
    )


class ConfirmationStart(StartEvent):
    """Starts with what somebody wants.

    Its field is what `run` takes, as in the example of `ConfirmUnderstanding`.

    Attributes:
        request: What they want, in their own words.
    """

    request: str


class Understood(Reviewable):
    """An understanding is ready to be confirmed.

    Attributes:
        request: What they said.
        understanding: What was understood.
    """

    request: str
    understanding: Understanding


class ConfirmationResult(ReviewResult):
    """How it ended.

    The example of `ConfirmUnderstanding` reads one.

    Attributes:
        subject: What was understood in the end; it was done only if the status is `approved`.
    """

    subject: Understanding


class ConfirmUnderstanding(ReviewWorkflow):
    """Before anything is done, the person confirms, corrects or stops what was understood.

    `run` takes the fields of `ConfirmationStart`.

    Override `understand`, `execute`, the prompt, `max_revisions`, or the gate `confirmation`.

    Example:
        >>> from llama_index_hitl.testing import ScriptedLLM, ScriptedReviewer, review_with
        >>> understood = Understanding(
        ...     action="I will pay Ann.", details=(Detail(name="amount", value="40"),)
        ... )
        >>> class Paying(ConfirmUnderstanding):
        ...     async def execute(self, understanding, effect_key):
        ...         print(f"done: {understanding.action}")
        >>> async def main():
        ...     handler = Paying(llm=ScriptedLLM([understood])).run(request="pay ann 40")
        ...     return await review_with(handler, ScriptedReviewer([Approve()], by="erin"))
        >>> asyncio.run(main()).status.value
        done: I will pay Ann.
        'approved'
    """

    understand_prompt = (
        "Say what this person wants to be done, with every value that matters.\n\n"
        "Request:\n{request}\n\nCorrections by the person:\n{corrections}"
    )

    confirmation = Review(
        Understood,
        subject="understanding",
        title=lambda _, ev: f"{one_line(ev.understanding.action)} Confirm?",
        body=lambda _, ev: f"You said: {ev.request}",
        reviewers=reviewers_of,
        editable=True,
        rejected=Rejected,
        revise=Revision,
        max_revisions=max_revisions_of,
        exhausted=RevisionsExhausted,
    )

    async def understand(self, request: str, corrections: str) -> Understanding:
        """Return what the model understands.

        Args:
            request: What they want, in their own words.
            corrections: What they said about what was understood before; empty: nothing yet.

        Raises:
            ModelOutputError: It does not give a valid understanding.
        """
        prompt = self.filled(
            self.understand_prompt, request=request, corrections=corrections or "none"
        )
        return await self.predict(Understanding, prompt)

    async def execute(self, understanding: Understanding, effect_key: str) -> None:
        """Do what was confirmed; nothing by default.

        Args:
            understanding: What was confirmed.
            effect_key: The same in every retry: whoever does it can tell that it is done.
        """

    @step
    async def interpret(self, ctx: Context, ev: ConfirmationStart) -> Understood:
        """Understand the request."""
        self.tell(ctx, "Reading the request")
        understanding = await self.understand(ev.request, "")
        return Understood(request=ev.request, understanding=understanding)

    @step
    async def correct(self, ctx: Context, ev: Revision) -> Understood:
        """Understand it anew, with what the person corrected."""
        self.tell(ctx, "Reading the correction")
        request = ev.proposal.request
        corrections = "\n".join(item.text for item in ev.history)
        understanding = await self.understand(request, corrections)
        return Understood(request=request, understanding=understanding, decisions=decisions_in(ev))

    @step
    async def finish(self, ev: Approved) -> ConfirmationResult:
        """Do what was confirmed."""
        await self.execute(ev.subject, ev.effect_key)
        return _result(ev)

    @step
    async def stop(self, ev: Rejected | RevisionsExhausted) -> ConfirmationResult:
        """End without doing anything."""
        return _result(ev)


def _result(ev: Approved | Rejected | RevisionsExhausted) -> ConfirmationResult:
    return ConfirmationResult(
        status=status_of(ev), subject=ev.subject, version=ev.revision, decisions=decisions_in(ev)
    )
