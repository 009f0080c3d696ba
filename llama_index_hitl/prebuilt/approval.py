"""Ready workflow: one action, done once if it is approved."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from workflows import Context, step
from workflows.events import StartEvent

from llama_index_hitl.effects import once
from llama_index_hitl.events import Approved, Expired, Rejected
from llama_index_hitl.gates import Review
from llama_index_hitl.models import JsonObject
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


class ProposedAction(BaseModel):
    """Something to be done.

    Attributes:
        name: What, in a few words.
        details: Every value that matters, by name, as JSON.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    details: JsonObject = Field(default_factory=dict)


class ApprovalStart(StartEvent):
    """Starts the approval of an action.

    Its fields are what `run` takes, as in the example of `ApproveAction`.

    Attributes:
        action: What is to be done, in a few words.
        details: Every value that matters, by name, as JSON.
    """

    action: str
    details: JsonObject = Field(default_factory=dict)


class ApprovalNeeded(Reviewable):
    """An action is ready to be approved.

    Attributes:
        action: The action.
    """

    action: ProposedAction


class ApprovalResult(ReviewResult):
    """How it ended.

    The example of `ApproveAction` reads one.

    Attributes:
        subject: The action; it was done only if the status is `approved`.
        output: What doing it gave, as `execute` returned it.
    """

    subject: ProposedAction
    output: Any = None


class ApproveAction(ReviewWorkflow):
    """An action is approved, and then done once; or it is rejected, and not done.

    It is done once also where the run is resumed, repeated or recovered after a crash, if a
    `Runner` drives it; see `llama_index_hitl.effects.once`.

    `run` takes the fields of `ApprovalStart`.

    Override `execute`, `policy`, or the gate `approval`.

    Args:
        policy: When a person is needed, by rules on `name` and `details`, such as
            `first_match(threshold("details.amount", above=100), otherwise=never())`; None: always.
        deadline: Time to answer; an action that nobody approves by then is not done. None: no
            limit.
        **options: What `ReviewWorkflow` takes.

    Example:
        >>> from llama_index_hitl.rules import first_match, never, threshold
        >>> from llama_index_hitl.testing import ScriptedReviewer, review_with
        >>> class Refunds(ApproveAction):
        ...     policy = first_match(threshold("details.amount", above=100), otherwise=never())
        ...
        ...     async def execute(self, action, effect_key):
        ...         return f"refunded {action.details['amount']}"
        >>> async def main(amount):
        ...     handler = Refunds().run(action="Refund", details={"order": "A1", "amount": amount})
        ...     return await review_with(handler, ScriptedReviewer([Approve()], by="alice"))
        >>> for result in (asyncio.run(main(40)), asyncio.run(main(400))):
        ...     print(result.output, [said.by.id for said in result.decisions])
        refunded 40 ['rule:never']
        refunded 400 ['alice']
        >>> result.subject == ProposedAction(name="Refund", details={"order": "A1", "amount": 400})
        True
    """

    policy: Rule | None = None

    approval = Review(
        ApprovalNeeded,
        subject="action",
        title=lambda _, ev: f"Approval required: {one_line(ev.action.name)}",
        reviewers=reviewers_of,
        when=lambda flow, _: flow.policy,
        deadline=lambda flow, _: flow.deadline,
        rejected=Rejected,
        expired=Expired,
    )

    def __init__(
        self, *, policy: Rule | None = None, deadline: timedelta | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.deadline = deadline
        if policy is not None:
            self.policy = policy

    async def execute(self, action: ProposedAction, effect_key: str) -> Any:
        """Do what was approved; nothing by default.

        Args:
            action: What was approved.
            effect_key: The same in every retry: whoever does it can tell that it is done.

        Returns:
            What goes into the result, a value that can be stored, such as the id of a refund.
        """

    @step
    async def propose(self, ctx: Context, ev: ApprovalStart) -> ApprovalNeeded:
        """Ask whether it may be done."""
        self.tell(ctx, f"May this be done: {ev.action}?")
        return ApprovalNeeded(action=ProposedAction(name=ev.action, details=ev.details))

    @step
    async def finish(self, ev: Approved) -> ApprovalResult:
        """Do what was approved, once."""
        output = await once(ev.effect_key, lambda: self.execute(ev.subject, ev.effect_key))
        return _result(ev, output)

    @step
    async def stop(self, ev: Rejected | Expired) -> ApprovalResult:
        """End without doing it."""
        return _result(ev, None)


def _result(ev: Approved | Rejected | Expired, output: Any) -> ApprovalResult:
    return ApprovalResult(
        status=status_of(ev),
        subject=ev.subject,
        version=ev.revision,
        decisions=decisions_in(ev),
        output=output,
    )
