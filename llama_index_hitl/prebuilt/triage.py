"""Ready workflow: a model says which specialist a request is for, and a person may overrule it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model
from workflows import Context, step
from workflows.events import StartEvent

from llama_index_hitl.errors import GateError
from llama_index_hitl.events import Approved, Expired, Rejected
from llama_index_hitl.gates import Review
from llama_index_hitl.models import Evidence
from llama_index_hitl.prebuilt._base import (
    Reviewable,
    ReviewResult,
    ReviewWorkflow,
    decisions_in,
    one_line,
    reviewers_of,
    status_of,
)
from llama_index_hitl.rules import Rule


class Classification(BaseModel):
    """Which specialist a request is for."""

    model_config = ConfigDict(extra="forbid")

    specialist: str = Field(description="Name of the specialist")
    confidence: float = Field(ge=0, le=1, description="How sure you are, from 0 to 1")
    reason: str = Field(description="Why, in one sentence")


class TriageStart(StartEvent):
    """Starts with a request.

    Its field is what `run` takes, as in the example of `Triage`.

    Attributes:
        request: What somebody wants, in their own words.
    """

    request: str


class Classified(Reviewable):
    """The model has said which specialist a request is for.

    Attributes:
        request: What somebody wants.
        classification: What the model says, or a person said who named no specialist.
        proposed: The specialist that the model named.
        problem: What was wrong with an earlier answer; empty: nothing.
    """

    request: str
    classification: Classification
    proposed: str
    problem: str = ""


class TriageResult(ReviewResult):
    """How it ended.

    Attributes:
        subject: Which specialist it was for in the end; it was handed over only if the status is
            `approved`.
        proposed: The specialist that the model named.
        output: What the specialist said; None: it was not handed over.

    Example:
        >>> result = TriageResult(
        ...     status=ResultStatus.APPROVED,
        ...     version=1,
        ...     subject=Classification(specialist="repairs", confidence=1, reason="it broke"),
        ...     proposed="billing",
        ... )
        >>> result.overruled
        True
    """

    subject: Classification
    proposed: str
    output: str | None = None

    @property
    def overruled(self) -> bool:
        """Whether a person chose another specialist than the model."""
        return self.subject.specialist != self.proposed


class Triage(ReviewWorkflow):
    """A request is handed over to a specialist whom the model names and a person confirms.

    The person approves, or edits the classification and so chooses another specialist, or rejects:
    then nobody handles the request.

    `run` takes the fields of `TriageStart`.

    Override `classify`, `handle`, for agents of your own say, the prompts, `specialists`, `policy`,
    or the gate `routing`. A scripted model classifies with a `Classification`, or its fields in a
    dict, and says as text what the specialist says.

    Args:
        specialists: Names of the specialists, and what each is for.
        policy: When a person is needed; None: always. `first_match(confidence(below=0.9),
            otherwise=never())` asks where the model is not sure. What it says of its confidence
            is its own word, so mind what may happen to a request that is handed over wrongly.
        deadline: Time to answer; a request that nobody decides on by then is not handed over. None:
            no limit.
        **options: What `ReviewWorkflow` takes.

    Raises:
        GateError: There are no specialists.

    Example:
        >>> from llama_index_hitl.testing import ScriptedLLM, ScriptedReviewer, review_with
        >>> guess = Classification(specialist="billing", confidence=0.6, reason="a bill")
        >>> async def main():
        ...     flow = Triage(
        ...         llm=ScriptedLLM([guess, "Your bill is right."]),
        ...         specialists={"billing": "Bills.", "repairs": "Broken things."},
        ...     )
        ...     bob = ScriptedReviewer([Approve()], by="bob")
        ...     return await review_with(flow.run(request="My bill!"), bob)
        >>> result = asyncio.run(main())
        >>> result.subject.specialist, result.overruled, result.output
        ('billing', False, 'Your bill is right.')
    """

    specialists: Mapping[str, str] = {}
    policy: Rule | None = None
    classify_prompt = (
        "Say which specialist this request is for.\n\nSpecialists:\n{specialists}\n\n"
        "Request:\n{request}"
    )
    handle_prompt = "You are {specialist}: {duty}\n\nHandle this request.\n\nRequest:\n{request}"

    routing = Review(
        Classified,
        subject="classification",
        title=lambda _, ev: (
            f"Hand over to {one_line(ev.classification.specialist)}? "
            f"({ev.classification.confidence:.0%} sure)"
        ),
        body=lambda _, ev: "\n\n".join(text for text in (ev.problem, ev.request) if text),
        evidence=lambda flow, _: [
            Evidence(title=name, body=duty) for name, duty in flow.specialists.items()
        ],
        reviewers=reviewers_of,
        # A name that is none has been written by a person: no rule looks at that.
        when=lambda flow, ev: None if ev.problem else flow.policy,
        deadline=lambda flow, _: flow.deadline,
        editable=True,
        rejected=Rejected,
        expired=Expired,
    )

    def __init__(
        self,
        *,
        specialists: Mapping[str, str] | None = None,
        policy: Rule | None = None,
        deadline: timedelta | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.deadline = deadline
        if specialists is not None:
            self.specialists = dict(specialists)
        if policy is not None:
            self.policy = policy
        if not self.specialists:
            raise GateError(f"{type(self).__name__} needs specialists=, names and duties.")

    async def classify(self, request: str) -> Classification:
        """Return which specialist the model names.

        Args:
            request: What somebody wants, in their own words.

        Raises:
            ModelOutputError: It names none that there is.
        """
        listed = "\n".join(f"- {name}: {duty}" for name, duty in self.specialists.items())
        prompt = self.filled(self.classify_prompt, specialists=listed, request=request)
        found = await self.predict(_with_names(tuple(self.specialists)), prompt)
        return Classification(**found.model_dump())

    async def handle(self, specialist: str, request: str, effect_key: str) -> str:
        """Return what a specialist says to a request.

        Args:
            specialist: Name of the specialist.
            request: What somebody wants.
            effect_key: The same in every retry: whoever does something can tell that it is done.
        """
        duty = self.specialists[specialist]
        prompt = self.filled(self.handle_prompt, specialist=specialist, duty=duty, request=request)
        return await self.complete(prompt)

    @step
    async def sort(self, ctx: Context, ev: TriageStart) -> Classified:
        """Let the model name a specialist."""
        self.tell(ctx, "Reading the request")
        found = await self.classify(ev.request)
        return Classified(request=ev.request, classification=found, proposed=found.specialist)

    @step
    async def hand_over(self, ctx: Context, ev: Approved) -> TriageResult | Classified:
        """Hand it over; where a person has named nobody that there is, ask again."""
        chosen = ev.subject.specialist
        if chosen not in self.specialists:
            problem = (
                f"There is no specialist {chosen!r}; choose one of {', '.join(self.specialists)}."
            )
            if ev.answers[-1].by.kind == "rule":
                raise GateError(problem)  # nobody to ask: it would go round and round
            return Classified(
                request=ev.proposal.request,
                classification=ev.subject,
                proposed=ev.proposal.proposed,
                problem=problem,
                decisions=decisions_in(ev),
            )
        self.tell(ctx, f"Handing over to {chosen}")
        return _result(ev, await self.handle(chosen, ev.proposal.request, ev.effect_key))

    @step
    async def stop(self, ev: Rejected | Expired) -> TriageResult:
        """End without handing it over."""
        return _result(ev, None)


def _with_names(names: tuple[str, ...]) -> type[Classification]:
    """Return the model of a classification that names one of these."""
    field: Any = (Literal[names], Field(description="Name of the specialist"))
    found: type[Classification] = create_model(
        "Classification", __base__=Classification, specialist=field
    )
    return found


def _result(ev: Approved | Rejected | Expired, output: str | None) -> TriageResult:
    return TriageResult(
        status=status_of(ev),
        subject=ev.subject,
        version=ev.revision,
        decisions=decisions_in(ev),
        proposed=ev.proposal.proposed,
        output=output,
    )
