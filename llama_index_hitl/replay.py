"""What a set of rules would have decided about requests that people have decided.

    report = await replay(store, threshold("amount", at_most=100, then="approve"), gate="approval")
    print(report)       # would have approved 412 of 530, of which people refused 3
    for case in report.wrongly_approved:
        print(case.request_id, case.title, case.decision, case.comment)

Nothing is changed, and nobody is asked. Before a rule decides anything it can be tried on what was
decided in the past (`replay`), and on what comes in from now on (`rules.shadow`, `shadow_report`).

Each request counts by itself, and those only that people decided: not what rules decided, what
expired or was withdrawn, and not what was passed on, for the request that followed counts. A rule
is shown what the people were shown: the values that were proposed, not those of an edit.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias, cast

from pydantic import BaseModel

from llama_index_hitl._proposals import built
from llama_index_hitl.models import (
    Answer,
    Edit,
    JsonObject,
    RequestStatus,
    ReviewRecord,
    ReviewRequest,
    Revise,
    RuleResult,
    RuleVerdict,
)
from llama_index_hitl.rates import Rate
from llama_index_hitl.rules import SHADOW_TAG, Rule, evaluate
from llama_index_hitl.stores.paging import all_requests
from llama_index_hitl.stores.protocol import RequestQuery, Store, StoredRequest

ASK, APPROVE, REJECT = RuleVerdict.ASK, RuleVerdict.APPROVE, RuleVerdict.REJECT

_PAGE = 100
_LISTED = 100
_SHOWN_ERROR = 500
"""Characters of an error that are kept."""

Rebuild: TypeAlias = type[BaseModel] | Callable[[JsonObject], Any]
"""Makes of stored values what a rule is to be shown: a model, or a function of them."""


class HumanDecision(StrEnum):
    """What people's answers to a request came to."""

    APPROVED = "approved"
    EDITED = "edited"
    SENT_BACK = "sent_back"
    REJECTED = "rejected"
    NO_QUORUM = "no_quorum"
    RESPONDED = "responded"


_DECISIONS: Mapping[RequestStatus, HumanDecision] = {
    RequestStatus.APPROVED: HumanDecision.APPROVED,
    RequestStatus.EDITED: HumanDecision.EDITED,
    RequestStatus.REVISED: HumanDecision.SENT_BACK,
    RequestStatus.REJECTED: HumanDecision.REJECTED,
    RequestStatus.NO_QUORUM: HumanDecision.NO_QUORUM,
    RequestStatus.RESPONDED: HumanDecision.RESPONDED,
}

_AGREES: Mapping[RuleVerdict, tuple[HumanDecision, ...]] = {
    APPROVE: (HumanDecision.APPROVED,),
    REJECT: (HumanDecision.REJECTED, HumanDecision.NO_QUORUM),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One request that people decided, and what the rule would have said.

    Attributes:
        request_id: The request.
        run_id: The run that asked.
        title: What it was about.
        verdict: What the rule would have said.
        rule: Name of the rule that would have said so.
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


async def replay(
    store: Store,
    rule: Rule,
    *,
    workflow: str | None = None,
    gate: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    tag: str | None = None,
    subject: Rebuild | None = None,
    limit: int | None = None,
    listed: int = _LISTED,
) -> ReplayReport:
    """Ask rules about what people have decided, and compare.

    Requests are read a page at a time, so memory does not grow with how many there are.

    Args:
        store: Where the requests are.
        rule: The rule, or a `first_match` of several. What is on trial in it (`shadow`) counts as
            if it were not.
        workflow: Asked by the workflow with this name (`Workflow.workflow_name`) only.
        gate: Asked by this gate only. A rule is meant for the subjects of one gate.
        since: Asked at this instant or later only.
        until: Asked before this instant only.
        tag: With this tag only.
        subject: Model of the subject, or a function of its stored values, for rules that need more
            than JSON has, such as dates, or numbers that were stored as text. None: the rules are
            shown the stored values as a mapping.
        limit: How many requests to show to the rules at most; None: all.
        listed: How many to put into each list at most, from 0.

    Returns:
        The report. A rule that raises would have asked, as always. A request whose values the model
        does not take is counted as unreadable.

    Raises:
        TypeError: `rule` is not a `Rule`.
        ValueError: `limit` is below 1, or `listed` below 0.
        StoreError: The store cannot be reached, or a request in it cannot be read.
    """
    if not isinstance(rule, Rule):
        raise TypeError(f"a Rule is needed, not {type(rule).__name__}")
    query = RequestQuery(
        open=False, workflow=workflow, gate=gate, tag=tag, created_before=until, limit=_PAGE
    )
    return await _report(
        store, query, lambda request: _replayed(rule, request, subject), since, limit, listed
    )


async def shadow_report(
    store: Store,
    *,
    workflow: str | None = None,
    gate: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int | None = None,
    listed: int = _LISTED,
) -> ReplayReport:
    """Compare what rules on trial said, when it was asked, with what people decided.

    Counted are requests about which a rule on trial (`rules.shadow`) was asked.

    Args:
        store: Where the requests are.
        workflow: Asked by the workflow with this name (`Workflow.workflow_name`) only.
        gate: Asked by this gate only.
        since: Asked at this instant or later only.
        until: Asked before this instant only.
        limit: How many requests to count at most; None: all.
        listed: How many to put into each list at most, from 0.

    Returns:
        The report; none is unreadable, for nothing is evaluated again.

    Raises:
        ValueError: `limit` is below 1, or `listed` below 0.
        StoreError: The store cannot be reached, or a request in it cannot be read.
    """
    query = RequestQuery(
        open=False, workflow=workflow, gate=gate, tag=SHADOW_TAG, created_before=until, limit=_PAGE
    )
    return await _report(store, query, _recorded, since, limit, listed)


# --------------------------------------------------------------------------- what a rule says


class _LeftOut(Exception):
    """A request does not count; says why."""


class _Unreadable(Exception):
    """A subject cannot be made into what the rule is to be shown; says why."""


_Verdict: TypeAlias = Callable[[ReviewRequest], RuleResult]
"""What rules say about a request; its verdict is that of the rules on trial.

Raises `_LeftOut` or `_Unreadable`.
"""


def _replayed(rule: Rule, request: ReviewRequest, rebuild: Rebuild | None) -> RuleResult:
    if request.subject is None:
        raise _LeftOut("no subject")
    return _as_if_live(evaluate(rule, _rebuilt(request.subject.data, rebuild)))


def _recorded(request: ReviewRequest) -> RuleResult:
    if request.rule is None or request.rule.shadow is None:
        raise _LeftOut("no rule on trial")  # the tag is somebody's own
    return _as_if_live(request.rule)


def _as_if_live(result: RuleResult) -> RuleResult:
    return result.model_copy(update={"verdict": result.shadow or result.verdict})


def _rebuilt(data: JsonObject, rebuild: Rebuild | None) -> Any:
    # A copy, as what is counted must not change where a rule changes what it is shown.
    shown = deepcopy(data)
    if rebuild is None:
        return shown
    try:
        if isinstance(rebuild, type) and issubclass(rebuild, BaseModel):
            return built(rebuild, shown)
        return cast("Callable[[JsonObject], Any]", rebuild)(shown)
    except Exception as error:  # noqa: BLE001 - values of long ago may do anything to code of today
        told = "".join(traceback.format_exception_only(error)).strip()
        raise _Unreadable(_storable(told)) from None


def _storable(text: str) -> str:
    """Return words that can be written anywhere: not endless, and without half characters."""
    return text[:_SHOWN_ERROR].encode("utf-8", "backslashreplace").decode()


# --------------------------------------------------------------------------- what people decided


def human_decision(record: ReviewRecord) -> HumanDecision | None:
    """Return what people decided about a request; None: they did not.

    Not decided by people is what is open, expired, was withdrawn, superseded or passed on to
    others, and what a rule or a deadline decided.
    """
    deciders = _deciders(record)
    if not deciders or any(answer.by.kind != "human" for answer in deciders):
        return None
    decision = _DECISIONS.get(record.status)
    # One person's edit passes at once, and the request is approved: with other values.
    edited = any(isinstance(answer.decision, Edit) for answer in deciders)
    if decision is HumanDecision.APPROVED and edited:
        return HumanDecision.EDITED
    return decision


def _deciders(record: ReviewRecord) -> Sequence[Answer]:
    """Return the answers that made the outcome."""
    decided = record.outcome.decided_by
    return [answer for answer in record.answers if answer.by.id in decided]


def _why_not_counted(record: ReviewRecord) -> str:
    by_rule = record.status in _DECISIONS and record.answers
    return "decided without people" if by_rule else record.status.value


# --------------------------------------------------------------------------- counting


async def _report(
    store: Store,
    query: RequestQuery,
    verdict: _Verdict,
    since: datetime | None,
    limit: int | None,
    listed: int,
) -> ReplayReport:
    if limit is not None and limit < 1:
        raise ValueError(f"at least one request has to be looked at (limit={limit})")
    if listed < 0:
        raise ValueError(f"a list has no less than no entry (listed={listed})")
    count = _Count(listed)
    async with aclosing(all_requests(store, query)) as requests:
        async for stored in requests:
            if since is not None and stored.record.request.created_at < since:
                continue
            if limit is not None and count.looked_at >= limit:
                return count.report(whole=False)
            count.add(stored, verdict)
    return count.report(whole=True)


class _Count:
    """A report in the making."""

    def __init__(self, listed: int) -> None:
        self._listed = listed
        self._verdicts = Counter[RuleVerdict]()
        self._otherwise = {APPROVE: Counter[HumanDecision](), REJECT: Counter[HumanDecision]()}
        self._cases: dict[RuleVerdict, list[Case]] = {verdict: [] for verdict in RuleVerdict}
        self._unreadable = 0
        self._unreadable_cases: list[Unreadable] = []
        self._left_out = Counter[str]()

    @property
    def looked_at(self) -> int:
        """How many requests were shown to the rules, or could not be."""
        return self._verdicts.total() + self._unreadable

    def add(self, stored: StoredRequest, verdict: _Verdict) -> None:
        """Count one request."""
        record = stored.record
        decision = human_decision(record)
        if decision is None:
            self._left_out[_why_not_counted(record)] += 1
            return
        try:
            said = verdict(record.request)
        except _LeftOut as reason:
            self._left_out[str(reason)] += 1
        except _Unreadable as reason:
            self._unreadable += 1
            if self._unreadable <= self._listed:
                self._unreadable_cases.append(
                    Unreadable(
                        request_id=record.request_id,
                        title=record.request.title,
                        reason=str(reason),
                    )
                )
        else:
            self._compare(_case(stored, said, decision))

    def _compare(self, case: Case) -> None:
        self._verdicts[case.verdict] += 1
        if case.decision in _AGREES.get(case.verdict, ()):
            return
        if case.verdict is not ASK:
            self._otherwise[case.verdict][case.decision] += 1
        cases = self._cases[case.verdict]
        if len(cases) < self._listed:
            cases.append(case)

    def report(self, *, whole: bool) -> ReplayReport:
        """Return it, made."""
        return ReplayReport(
            would_approve=self._verdicts[APPROVE],
            would_reject=self._verdicts[REJECT],
            would_ask=self._verdicts[ASK],
            refused=dict(self._otherwise[APPROVE]),
            overruled=dict(self._otherwise[REJECT]),
            wrongly_approved=tuple(self._cases[APPROVE]),
            wrongly_rejected=tuple(self._cases[REJECT]),
            asked=tuple(self._cases[ASK]),
            unreadable=self._unreadable,
            unreadable_cases=tuple(self._unreadable_cases),
            left_out=dict(self._left_out),
            whole=whole,
        )


def _case(stored: StoredRequest, said: RuleResult, decision: HumanDecision) -> Case:
    record, deciders = stored.record, _deciders(stored.record)
    last = deciders[-1].decision
    return Case(
        request_id=record.request_id,
        run_id=stored.run_id,
        title=record.request.title,
        verdict=said.verdict,
        rule=said.rule,
        reason=said.reason,
        decision=decision,
        by=tuple(answer.by.id for answer in deciders),
        at=record.closed_at,
        comment=(last.feedback if isinstance(last, Revise) else last.comment) or "",
    )
