"""What rules would have decided, beside what people decided: counts and lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from llama_index_hitl.models import RuleVerdict
from llama_index_hitl.rates import Rate
from llama_index_hitl.replay._decisions import HumanDecision


@dataclass(frozen=True, kw_only=True)
class Case:
    """One request that people decided, and what the rule would have said.

    The example of `replay` lists some.

    Attributes:
        request_id: The request.
        run_id: The run that asked.
        title: What it was about.
        verdict: What the rule would have said.
        rule: Name of the rule that would have said so; where one on trial among others was passed
            over, of the rule that asked: the reason then names the one on trial.
        reason: Why, as a sentence for people.
        decision: What people decided.
        by: Ids of those whose answers decided it.
        at: When it was decided.
        comment: What the last of them said about it; empty: nothing.
    """

    request_id: str
    run_id: str
    title: str
    verdict: RuleVerdict
    rule: str
    reason: str
    decision: HumanDecision
    by: tuple[str, ...]
    at: datetime | None
    comment: str


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """One request whose stored subject could not be made into what the rule is to be shown.

    They are in the report of `replay`, as the cases in the example of `replay` are.

    Attributes:
        request_id: The request.
        title: What it was about.
        reason: Why not.
    """

    request_id: str
    title: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ReplayReport:
    """What rules would have decided, beside what people decided.

    The counts are exact; the lists end where as many are listed as were asked for.

    The example of `replay` prints one.

    Attributes:
        would_approve: How many requests the rules would have approved.
        would_reject: How many they would have rejected.
        would_ask: How many people would have been asked about all the same.
        refused: Of those that would have been approved, how many people did not approve as they
            were, by what they decided. An edit is one: people did not want it as it was.
        overruled: Of those that would have been rejected, how many people did not reject, by what
            they decided.
        wrongly_approved: Those that would have been approved and people refused.
        wrongly_rejected: Those that would have been rejected and people did not.
        asked: Those that people would have been asked about; the reasons tell where a rule raised.
        unreadable: How many had a subject that could not be shown to the rules.
        unreadable_cases: Those.
        left_out: How many requests did not count, by the reason: `decided without people`,
            `no subject`, or the status of what nobody decided, such as `expired`.
        whole: Whether all requests were looked at; False: `limit` was reached.
    """

    would_approve: int = 0
    would_reject: int = 0
    would_ask: int = 0
    refused: Mapping[HumanDecision, int] = field(default_factory=dict)
    overruled: Mapping[HumanDecision, int] = field(default_factory=dict)
    wrongly_approved: tuple[Case, ...] = ()
    wrongly_rejected: tuple[Case, ...] = ()
    asked: tuple[Case, ...] = ()
    unreadable: int = 0
    unreadable_cases: tuple[Unreadable, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    whole: bool = True

    @property
    def total(self) -> int:
        """How many requests the rules were shown: all that count but those unreadable."""
        return self.would_approve + self.would_reject + self.would_ask

    @property
    def saved(self) -> int:
        """How many requests nobody would have been asked about."""
        return self.would_approve + self.would_reject

    @property
    def disagreed(self) -> int:
        """How many of these people decided otherwise."""
        return sum(self.refused.values()) + sum(self.overruled.values())

    @property
    def agreement(self) -> Rate | None:
        """How many of these people decided in the same way; None: there are none.

        Its interval is that of a random sample. What was decided in the past is one of what comes
        only as far as that is alike.
        """
        return Rate(self.saved - self.disagreed, self.saved) if self.saved else None

    def __str__(self) -> str:
        refused = sum(self.refused.values())
        said = (
            f"would have approved {self.would_approve} of {self.total}, "
            f"of which people refused {refused}"
        )
        if self.would_reject:
            approved = self.overruled.get(HumanDecision.APPROVED, 0)
            said += (
                f"; would have rejected {self.would_reject}, of which people approved {approved}"
            )
        if self.unreadable:
            said += f"; {self.unreadable} could not be read"
        return said
