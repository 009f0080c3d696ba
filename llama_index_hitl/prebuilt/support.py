"""Ready workflow: an agent answers customers, and asks people where it cannot or may not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, Field, model_validator
from workflows import Context, step
from workflows.events import StartEvent, StopEvent

from llama_index_hitl.models import Answer, FiniteDecimal
from llama_index_hitl.prebuilt._base import ReviewWorkflow, decisions_in
from llama_index_hitl.prebuilt.escalation import (
    Escalation,
    EscalationNeeded,
    Guidance,
    GuidanceWithdrawn,
    Guided,
    NoGuidance,
    Route,
    RoutingTable,
    escalation_desk,
    mentions,
    reason_of_match,
)
from llama_index_hitl.rules import Rule, threshold


@dataclass(frozen=True)
class Trigger:
    """What must go to a person, whatever the model thinks of it.

    Attributes:
        category: What kind of matter it then is.
        when: Matches the enquiry (`text`, `category`, `amount`). In doubt it matches: a rule that
            raises asks a person.

    Example:
        >>> from llama_index_hitl.rules import threshold
        >>> desk = SupportDesk(triggers=[Trigger("refund", threshold("amount", above=50))])
        >>> [trigger.category for trigger in desk.triggers]
        ['refund']
    """

    category: str
    when: Rule


SUPPORT_TRIGGERS = (
    Trigger("legal", mentions("text", "legal action", "lawyer", "attorney", "lawsuit", "sue")),
    Trigger("refund", threshold("amount", above=500)),
    Trigger("supervisor", mentions("text", "manager", "supervisor")),
)
"""Talk of legal action, more than 500 at stake, and whoever asks for a manager."""


class SupportAnswer(BaseModel):
    """What the model says to an enquiry: a reply, or that a person is needed."""

    reply: str | None = Field(default=None, description="The reply to the customer, if you can")
    escalation: EscalationNeeded | None = Field(
        default=None, description="Why a person is needed, if you cannot or may not reply"
    )

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if bool(self.reply and self.reply.strip()) == (self.escalation is not None):
            raise ValueError("give either a reply or an escalation")
        return self


class EnquiryStart(StartEvent):
    """Starts with what a customer wants.

    Its fields are what `run` takes, as in the example of `SupportDesk`.

    Attributes:
        text: Their words.
        category: What kind of matter it is, as your systems know; empty: they do not.
        amount: Money at stake, such as the price of the order, as your systems know; 0: none.
    """

    text: str
    category: str = ""
    amount: FiniteDecimal = Field(default=0, validate_default=True)


class SupportStatus(StrEnum):
    """How an enquiry ended."""

    ANSWERED = "answered"
    """There is a reply."""
    TAKEN_OVER = "taken_over"
    """A person deals with it themselves."""
    UNANSWERED = "unanswered"
    """Guidance was needed and nobody gave it in time."""
    WITHDRAWN = "withdrawn"
    """Guidance was needed and no longer wanted."""


class SupportResult(StopEvent):
    """How it ended.

    The example of `SupportDesk` reads one.

    Attributes:
        status: `answered`; `taken_over` by a person; `unanswered`, where guidance was needed and
            nobody gave it in time; or `withdrawn`, where it was no longer wanted.
        reply: What to say to the customer; None unless the status is `answered`.
        escalation: What a person was asked; None: nobody was.
        guidance: What they answered.
        decisions: Every decision made, in order.
    """

    status: SupportStatus
    reply: str | None = None
    escalation: EscalationNeeded | None = None
    guidance: Guidance | None = None
    decisions: tuple[Answer, ...] = ()


class SupportDesk(ReviewWorkflow):
    """Enquiries of customers: the model replies, or people tell it how.

    The model may ask for guidance; what a trigger matches goes to people without asking the model.
    Which people, is for the routes to say. Without guidance no reply is written.

    `run` takes the fields of `EnquiryStart`.

    Override `decide`, `reply_as_told`, the prompts, `triggers`, or the gate `guidance`. A scripted
    model decides with a `SupportAnswer`, such as `{"reply": "We open at nine."}`; the reply that it
    writes as told is text.

    Args:
        routes: Who gives guidance on what; None: the `reviewers`, without a time limit.
        triggers: What must go to a person; None: `SUPPORT_TRIGGERS`, which are talk of legal
            action, more than 500 at stake, and whoever asks for a manager. The routes that follow
            may look at the same amount: they say who is asked, triggers whether.
        **options: What `ReviewWorkflow` takes.

    Example:
        >>> from llama_index_hitl.testing import ScriptedLLM, ScriptedReviewer, review_with
        >>> async def main(text, *replies):
        ...     answer = Respond(response=Guidance(instruction="Refund it."))
        ...     handler = SupportDesk(llm=ScriptedLLM(replies)).run(text=text)
        ...     return await review_with(handler, ScriptedReviewer([answer], by="lea"))
        >>> asyncio.run(main("When do you open?", SupportAnswer(reply="At nine."))).reply
        'At nine.'
        >>> result = asyncio.run(main("My lawyer will call you!", "You get your money back."))
        >>> result.status.value, result.reply, result.guidance.instruction
        ('answered', 'You get your money back.', 'Refund it.')
    """

    triggers: Sequence[Trigger] = SUPPORT_TRIGGERS
    decide_prompt = (
        "You are a customer support agent. Reply to this customer. If the matter is beyond you, "
        "such as a technical problem that you cannot diagnose, do not reply: escalate it, with "
        "the reason, the context, and what you would do.\n\nCustomer:\n{text}"
    )
    reply_prompt = (
        "You are a customer support agent. Write the reply to this customer. Follow the guidance; "
        "promise nothing beyond it.\n\nCustomer:\n{text}\n\nGuidance:\n{guidance}"
    )

    guidance = escalation_desk(lambda flow: flow.routes)

    def __init__(
        self,
        *,
        routes: RoutingTable | None = None,
        triggers: Sequence[Trigger] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.routes = routes or RoutingTable(Route("people", self.reviewers))
        if triggers is not None:
            self.triggers = tuple(triggers)

    async def decide(self, text: str) -> str | EscalationNeeded:
        """Return the model's reply, or why it needs a person.

        Args:
            text: The customer's words.

        Raises:
            ModelOutputError: It gives neither.
        """
        answer = await self.predict(SupportAnswer, self.filled(self.decide_prompt, text=text))
        return answer.escalation or str(answer.reply)

    async def reply_as_told(self, text: str, guidance: Guidance) -> str:
        """Return the reply, written as a person has said.

        Args:
            text: The customer's words.
            guidance: What a person has said.
        """
        prompt = self.filled(self.reply_prompt, text=text, guidance=guidance.instruction)
        return await self.complete(prompt)

    @step
    async def receive(self, ctx: Context, ev: EnquiryStart) -> Escalation | SupportResult:
        """Reply, or ask for guidance."""
        category, needed = ev.category, None
        for trigger in self.triggers:
            if reason := reason_of_match(trigger.when, ev):
                category, needed = trigger.category, _must_be_asked(reason)
                break
        if needed is None:
            self.tell(ctx, "Reading the enquiry")
            answer = await self.decide(ev.text)
            if isinstance(answer, str):
                return SupportResult(status=SupportStatus.ANSWERED, reply=answer)
            needed = answer
        return Escalation(needed=needed, category=category, amount=ev.amount, about=ev.text)

    @step
    async def answer(self, ctx: Context, ev: Guided) -> SupportResult:
        """Reply as a person has said, unless they do that themselves."""
        if ev.response.decision == "take_over":
            return _result(ev, SupportStatus.TAKEN_OVER, guidance=ev.response)
        self.tell(ctx, "Writing the reply")
        reply = await self.reply_as_told(ev.proposal.about, ev.response)
        return _result(ev, SupportStatus.ANSWERED, guidance=ev.response, reply=reply)

    @step
    async def stop(self, ev: NoGuidance | GuidanceWithdrawn) -> SupportResult:
        """End without a reply: there was no guidance."""
        gone = isinstance(ev, GuidanceWithdrawn)
        return _result(ev, SupportStatus.WITHDRAWN if gone else SupportStatus.UNANSWERED)


def _must_be_asked(reason: str) -> EscalationNeeded:
    return EscalationNeeded(
        reason=reason,
        context="A rule sends this to a person; the model was not asked.",
        suggested_action="Say how to reply, or take it over.",
    )


def _result(
    ev: Guided | NoGuidance | GuidanceWithdrawn, status: SupportStatus, **content: Any
) -> SupportResult:
    return SupportResult(
        status=status, escalation=ev.subject, decisions=decisions_in(ev), **content
    )
