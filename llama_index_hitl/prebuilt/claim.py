"""Ready workflow: a structured decision of a model, behind a policy and a person.

The model proposes and people, or a rule on the record, decide; your code executes. The case is an
insurance claim; for another one, copy this file and put your own model in place of `ClaimDecision`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field
from workflows import Context, step
from workflows.events import StartEvent

from llama_index_hitl.events import Approved, Rejected
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
from llama_index_hitl.rules import Rule, first_match, one_of, risk

if TYPE_CHECKING:
    from llama_index.core.base.base_query_engine import BaseQueryEngine
    from llama_index.core.base.base_retriever import BaseRetriever


class ClaimDecision(BaseModel):
    """What the model proposes to do with a claim."""

    decision: Literal["approve", "deny", "needs_review"]
    """What to do with the claim."""
    reason: str = Field(description="Short explanation for the decision")
    risk_level: Literal["low", "medium", "high"]
    """How much can go wrong if that is done."""


class ClaimStart(StartEvent):
    """Starts the handling of a claim.

    Its field is what `run` takes, as in the example of `ClaimReview`.

    Attributes:
        claim: What happened, in words.
    """

    claim: str


class ClaimProposed(Reviewable):
    """The model has proposed what to do.

    Attributes:
        claim: What happened.
        decision: What the model proposes.
        evidence: What it was given to go by.
    """

    claim: str
    decision: ClaimDecision
    evidence: tuple[Evidence, ...] = ()


class ClaimResult(ReviewResult):
    """How it ended.

    The example of `ClaimReview` reads one.

    Attributes:
        subject: The effective decision; it was executed only if the status is `approved`.
    """

    subject: ClaimDecision


CLAIM_POLICY: Rule = first_match(
    risk("risk_level", at_least="high", then="ask"),
    one_of("decision", ["needs_review"], then="ask"),
    one_of("risk_level", ["low"], then="approve"),
)
"""High risk and `needs_review` go to a person, low risk passes; all else goes to a person too."""


class ClaimReview(ReviewWorkflow):
    """A claim: the model proposes, the policy says whether a person is needed, then it is executed.

    Nothing is executed without an approval on record, of a person or of a rule.

    `run` takes the fields of `ClaimStart`.

    Override `gather`, `decide`, `execute`, the prompt, `policy`, or the gate `approval`.

    Args:
        policy: When a person is needed; None: `CLAIM_POLICY`.
        retriever: Where evidence comes from, such as `index.as_retriever()`.
        query_engine: The same, such as `index.as_query_engine()`; its answer is evidence too.
        **options: What `ReviewWorkflow` takes.

    Example:
        >>> from llama_index_hitl.testing import ScriptedLLM, ScriptedReviewer, review_with
        >>> proposed = ClaimDecision(decision="approve", reason="covered by 4.2", risk_level="high")
        >>> async def main():
        ...     flow = ClaimReview(llm=ScriptedLLM([proposed]))
        ...     alice = ScriptedReviewer([Approve()], by="alice")
        ...     return await review_with(flow.run(claim="Water damage, 900 EUR"), alice)
        >>> result = asyncio.run(main())
        >>> result.status.value, result.subject.decision
        ('approved', 'approve')
    """

    policy: Rule = CLAIM_POLICY
    decide_prompt = (
        "You assist an insurance operations team. Classify this claim as approve, deny or "
        "needs_review, with a concise reason and the risk level.\n\nClaim:\n{claim}\n\n"
        "Evidence:\n{evidence}"
    )

    approval = Review(
        ClaimProposed,
        subject="decision",
        title=lambda _, ev: (
            f"The model proposes: {ev.decision.decision} ({ev.decision.risk_level} risk)"
        ),
        body=lambda _, ev: ev.claim,
        evidence=lambda _, ev: ev.evidence,
        reviewers=reviewers_of,
        when=lambda flow, _: flow.policy,
        editable=True,
        rejected=Rejected,
    )

    def __init__(
        self,
        *,
        policy: Rule | None = None,
        retriever: BaseRetriever | None = None,
        query_engine: BaseQueryEngine | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._retriever = retriever
        self._query_engine = query_engine
        if policy is not None:
            self.policy = policy

    async def gather(self, claim: str) -> tuple[Evidence, ...]:
        """Return evidence for a claim, from the retriever and the query engine if there are any.

        Args:
            claim: What happened, in words.
        """
        found: list[Evidence] = []
        if self._query_engine is not None:
            response = await self._query_engine.aquery(claim)
            found.append(Evidence(title="What the documents say", body=str(response)))
            found += [_evidence(node) for node in response.source_nodes]
        if self._retriever is not None:
            found += [_evidence(node) for node in await self._retriever.aretrieve(claim)]
        return tuple(found)

    async def decide(self, claim: str, evidence: tuple[Evidence, ...]) -> ClaimDecision:
        """Return what the model proposes.

        Args:
            claim: What happened, in words.
            evidence: What `gather` has found.

        Raises:
            ModelOutputError: It does not give a valid decision.
        """
        listed = "\n".join(f"- {item.title}: {item.body}" for item in evidence) or "none"
        return await self.predict(
            ClaimDecision, self.filled(self.decide_prompt, claim=claim, evidence=listed)
        )

    async def execute(self, decision: ClaimDecision, effect_key: str) -> None:
        """Do what was approved; nothing by default.

        Args:
            decision: The effective decision.
            effect_key: The same in every retry: whoever does it can tell that it is done.
        """

    @step
    async def propose(self, ctx: Context, ev: ClaimStart) -> ClaimProposed:
        """Gather evidence and let the model propose."""
        self.tell(ctx, "Gathering evidence")
        evidence = await self.gather(ev.claim)
        self.tell(ctx, "Classifying the claim")
        decision = await self.decide(ev.claim, evidence)
        return ClaimProposed(claim=ev.claim, decision=decision, evidence=evidence)

    @step
    async def finish(self, ev: Approved) -> ClaimResult:
        """Execute what was approved."""
        await self.execute(ev.subject, ev.effect_key)
        return _result(ev)

    @step
    async def block(self, ev: Rejected) -> ClaimResult:
        """End without executing anything."""
        return _result(ev)


def _result(ev: Approved | Rejected) -> ClaimResult:
    return ClaimResult(
        status=status_of(ev), subject=ev.subject, version=ev.revision, decisions=decisions_in(ev)
    )


def _evidence(node: Any) -> Evidence:
    """Return a retrieved node as evidence."""
    metadata = node.node.metadata
    name = metadata.get("file_name") or metadata.get("title") or node.node.node_id
    score = node.score if node.score is not None and math.isfinite(node.score) else None
    return Evidence(title=one_line(str(name)), body=node.get_content(), score=score)
