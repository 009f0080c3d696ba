"""What the ready workflows share: the model, the people, progress, and the shape of a result."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel
from workflows import Context, Workflow
from workflows.events import Event, StopEvent

from llama_index_hitl import _text
from llama_index_hitl.clock import Clock
from llama_index_hitl.errors import GateError, HitlError
from llama_index_hitl.events import ReviewOutcomeEvent
from llama_index_hitl.models import Answer, RequestStatus, entries_of

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

DEFAULT_MODEL = "gpt-4o-mini"
"""OpenAI model of a workflow that is given no LLM."""

_TITLE_LIMIT = 500

_TELL_EVERY = 400  # characters of a streamed text between two progress events

ModelT = TypeVar("ModelT", bound=BaseModel)


class ModelOutputError(HitlError, ValueError):
    """The model said nothing, or again and again something that does not fit.

    Attributes:
        attempts: How often it was asked.

    Example:
        >>> from llama_index_hitl.testing import ScriptedLLM
        >>> async def main():
        ...     return await DraftApproval(llm=ScriptedLLM([" "])).run(topic="mice")
        >>> asyncio.run(main())
        Traceback (most recent call last):
            ...
        llama_index_hitl.prebuilt._base.ModelOutputError: The model did not give a text in 1
        attempts; the last time: nothing. Try another model, or a clearer prompt.
    """

    def __init__(self, wanted: str, attempts: int, found: str) -> None:
        super().__init__(
            f"The model did not give {wanted} in {attempts} attempts; the last time: "
            f"{found.rstrip('.')}. Try another model, or a clearer prompt."
        )
        self.attempts = attempts


class ProgressEvent(Event):
    """Says on the stream what the workflow is doing.

    Attributes:
        message: What it is doing, as a short sentence.

    Example:
        >>> from llama_index_hitl.testing import ScriptedLLM
        >>> async def main():
        ...     handler = DraftApproval(llm=ScriptedLLM(["Mice."])).run(topic="mice")
        ...     async for event in handler.stream_events():
        ...         if isinstance(event, ProgressEvent):
        ...             print(event.message)
        ...         elif isinstance(event, ReviewRequestEvent):
        ...             handler.ctx.send_event(event.answer(Approve(), by="erin"))
        ...     return (await handler).status.value
        >>> asyncio.run(main())
        Writing about mice
        'approved'
    """

    message: str


class ResultStatus(StrEnum):
    """How a ready workflow ended. Only an `ActionPlan` can be approved in part."""

    APPROVED = "approved"
    """It was approved, and done."""
    PARTLY_APPROVED = "partly_approved"
    """Some of the actions of a plan were approved."""
    REJECTED = "rejected"
    """It was rejected, or withdrawn, and not done."""
    MAX_REVISIONS = "max_revisions"
    """It was sent back once more than it may be, and not done."""
    EXPIRED = "expired"
    """Nobody decided in time, and it was not done."""


class ReviewResult(StopEvent):
    """How a ready workflow ended; each has a `subject` of its own type beside these.

    Attributes:
        status: How it ended. Only `approved` means that it may be used.
        version: Number of the draft that it ended with, from 1.
        decisions: Every decision made, in order, by people and rules.

    Example:
        >>> from llama_index_hitl.testing import ScriptedReviewer, review_with
        >>> async def main():
        ...     flow = DraftApproval()
        ...     erin = ScriptedReviewer([Reject(comment="too short")], by="erin")
        ...     return await review_with(flow.run(topic="mice", content="Mice."), erin)
        >>> result = asyncio.run(main())
        >>> result.status.value, [(said.by.id, said.comment) for said in result.decisions]
        ('rejected', [('erin', 'too short')])
    """

    status: ResultStatus
    version: int
    decisions: tuple[Answer, ...] = ()


class Reviewable(Event):
    """A draft on its way to a gate; the decisions on earlier drafts travel beside it.

    Attributes:
        decisions: Every decision made so far, in order.
    """

    decisions: tuple[Answer, ...] = ()


def decisions_in(ev: ReviewOutcomeEvent) -> tuple[Answer, ...]:
    """Return every decision made so far, the last ones included."""
    drafts = getattr(ev.proposal, "decisions", ())
    stages = (answer for stage in ev.request.approvals for answer in stage.answers)
    followed = (answer for record in ev.earlier for answer in record.answers)
    return (*drafts, *stages, *followed, *ev.answers)


def status_of(ev: ReviewOutcomeEvent) -> ResultStatus:
    """Return how a workflow ends that ends with this outcome."""
    match ev.outcome.status:
        case RequestStatus.APPROVED:
            return ResultStatus.APPROVED
        case RequestStatus.REVISED:
            return ResultStatus.MAX_REVISIONS
        case RequestStatus.EXPIRED:
            return ResultStatus.EXPIRED
        case _:
            return ResultStatus.REJECTED


def one_line(text: str) -> str:
    """Return words of a user or a model as a title can hold them."""
    return _text.one_line(text, _TITLE_LIMIT)


def reviewers_of(flow: ReviewWorkflow, _: Event) -> Sequence[str] | None:
    """Gate option: the reviewers that the workflow was created with; None: anyone."""
    return flow.reviewers or None


def max_revisions_of(flow: ReviewWorkflow, _: Event) -> int | None:
    """Gate option: how often the workflow lets a draft be sent back."""
    return flow.max_revisions


class ReviewWorkflow(Workflow):
    """Base of the ready workflows.

    In a run that a `Runner` drives, the step that a crash has cut off is run again, and `execute`
    with it, under the same `effect_key`: act through `llama_index_hitl.effects.once`, where the
    workflow's own docstring does not say that it does.

    Args:
        llm: Any LlamaIndex LLM; OpenAI's by default, which reads `OPENAI_API_KEY`.
        reviewers: Whom the gates ask: ids and `role:...` entries; empty: anyone.
        max_revisions: How often a draft may be sent back; None: what the class says.
        clock: Where the time comes from; None: from the `Runner` that drives it, or else UTC now.
        streaming: Take texts from the model piece by piece, and say on the stream how they grow.
        timeout: Seconds after which a run is killed, waiting included; None, as it should be with
            people, means never.
        **options: What `Workflow` takes.

    Example:
        >>> from llama_index_hitl.testing import ScriptedReviewer, review_with
        >>> class Publishing(DraftApproval):  # which is a ReviewWorkflow
        ...     async def execute(self, draft, effect_key):
        ...         print(f"published: {draft.content}")
        >>> async def main():
        ...     flow = Publishing(reviewers="role:editor")
        ...     erin = ScriptedReviewer([Approve()], by=Reviewer(id="erin", roles=("editor",)))
        ...     return await review_with(flow.run(topic="mice", content="Mice are small."), erin)
        >>> asyncio.run(main()).status.value
        published: Mice are small.
        'approved'
    """

    max_revisions: int | None = 3
    """How often a draft may be sent back."""

    def __init__(
        self,
        *,
        llm: LLM | None = None,
        reviewers: Iterable[str] | str = (),
        max_revisions: int | None = None,
        clock: Clock | None = None,
        streaming: bool = False,
        timeout: float | None = None,
        **options: Any,
    ) -> None:
        """Make one; the options are in the docstrings of the class and of `ReviewWorkflow`."""
        super().__init__(timeout=timeout, **options)
        self._llm = llm
        self.reviewers = entries_of(reviewers)
        self.clock = clock
        self.streaming = streaming
        if max_revisions is not None:
            self.max_revisions = max_revisions

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a plain function where the workflow awaits: it would act, and then fail."""
        super().__init_subclass__(**options)
        for name, override in vars(cls).items():
            original = getattr(super(cls, cls), name, None)
            if inspect.iscoroutinefunction(original) and not inspect.iscoroutinefunction(override):
                raise GateError(f"{cls.__name__}.{name} must be 'async def'.")

    def filled(self, prompt: str, **values: str) -> str:
        """Return a prompt with its placeholders filled.

        Args:
            prompt: The prompt, with `{placeholders}`.
            **values: What to put in their places.

        Raises:
            GateError: The prompt has other placeholders than those that there are.
        """
        try:
            return prompt.format(**values)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            names = ", ".join(f"{{{name}}}" for name in values)
            raise GateError(
                f"A prompt of {type(self).__name__} cannot be filled ({error!r}); it can use "
                f"{names}, and a brace is written twice: {prompt[:80]!r}"
            ) from error

    def get_llm(self) -> LLM:
        """Return the model; OpenAI's is made when it is first needed.

        No property: upstream reads every property of a workflow when it looks for steps.
        """
        if self._llm is None:
            # Imported where it is needed: it takes seconds, and not every run needs a model.
            from llama_index.llms.openai import OpenAI

            self._llm = OpenAI(model=DEFAULT_MODEL)
        return self._llm

    def tell(self, ctx: Context[Any], message: str) -> None:
        """Say on the stream what the workflow is doing.

        Args:
            ctx: Context of the step.
            message: What it is doing, as a short sentence.
        """
        ctx.write_event_to_stream(ProgressEvent(message=message))

    async def complete(self, prompt: str) -> str:
        """Return what the model answers to a prompt.

        Args:
            prompt: What to ask.

        Raises:
            ModelOutputError: It answers nothing.
        """
        llm = self.get_llm()
        text = (
            await self._streamed(llm, prompt)
            if self.streaming
            else str(await llm.acomplete(prompt))
        )
        if not text.strip():
            raise ModelOutputError("a text", 1, "nothing")
        return text.strip()

    async def _streamed(self, llm: LLM, prompt: str) -> str:
        """Take the answer piece by piece, and say on the stream how it grows."""
        ctx, text, told = Context.get_step_context(), "", 0
        async for piece in await llm.astream_complete(prompt):
            text = piece.text
            if len(text) - told >= _TELL_EVERY:
                told = len(text)
                self.tell(ctx, f"{told} characters so far")
        return text

    async def predict(self, model: type[ModelT], prompt: str, *, attempts: int = 3) -> ModelT:
        """Return what the model answers to a prompt, as a pydantic model.

        An answer that does not fit is given back to the model with what is wrong about it.

        Args:
            model: What the answer must be.
            prompt: What to ask.
            attempts: How often to ask at most, at least 1.

        Raises:
            ModelOutputError: No answer fitted.
        """
        from llama_index.core.prompts import PromptTemplate

        asked, wrong = prompt, ""
        for _ in range(attempts):
            try:
                # The prompt goes in as a value: braces in it are no placeholders.
                found: Any = await self.get_llm().astructured_predict(
                    model, PromptTemplate("{question}"), question=asked
                )
                return model.model_validate(
                    found.model_dump() if isinstance(found, BaseModel) else found
                )
            except (ValueError, KeyError, TypeError) as error:
                # KeyError: it called a tool that there is not.
                wrong = str(error) if isinstance(error, ValueError) else repr(error)
                asked = f"{prompt}\n\nYour last answer could not be used: {wrong}"
        raise ModelOutputError(model.__name__, attempts, wrong)
