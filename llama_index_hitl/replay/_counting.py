"""Reports in the making: requests are read one by one, and compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import TypeAlias

from llama_index_hitl.models import ReviewRequest, Revise, RuleResult, RuleVerdict
from llama_index_hitl.replay._decisions import (
    HumanDecision,
    deciders_of,
    human_decision,
    why_not_counted,
)
from llama_index_hitl.replay._report import Case, ReplayReport, Unreadable
from llama_index_hitl.stores.paging import all_requests
from llama_index_hitl.stores.protocol import RequestQuery, Store, StoredRequest

ASK, APPROVE, REJECT = RuleVerdict.ASK, RuleVerdict.APPROVE, RuleVerdict.REJECT

_AGREES: Mapping[RuleVerdict, tuple[HumanDecision, ...]] = {
    APPROVE: (HumanDecision.APPROVED,),
    REJECT: (HumanDecision.REJECTED, HumanDecision.NO_QUORUM),
}


class LeftOut(Exception):
    """A request does not count; says why."""


class CannotBeRead(Exception):
    """A subject cannot be made into what the rule is to be shown; says why."""


Verdict: TypeAlias = Callable[[ReviewRequest], RuleResult]
"""What rules say about a request; its verdict is that of the rules on trial.

Raises `LeftOut` or `CannotBeRead`.
"""


async def count_all(
    store: Store,
    query: RequestQuery,
    verdict: Verdict,
    since: datetime | None,
    limit: int | None,
    listed: int,
) -> ReplayReport:
    """Compare what rules say about the requests that a query finds with what people decided.

    Args:
        store: Where the requests are.
        query: Which ones.
        verdict: What the rules say about one.
        since: Asked at this instant or later only.
        limit: How many to show to the rules at most; None: all.
        listed: How many to put into each list at most.

    Raises:
        ValueError: `limit` is below 1, `listed` below 0, or an instant has no time zone.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"at least one request has to be looked at (limit={limit})")
    if listed < 0:
        raise ValueError(f"a list has no less than no entry (listed={listed})")
    count = _Count(listed)
    async with aclosing(all_requests(store, query, since=since)) as requests:
        async for stored in requests:
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

    def add(self, stored: StoredRequest, verdict: Verdict) -> None:
        """Count one request."""
        record = stored.record
        decision = human_decision(record)
        if decision is None:
            self._left_out[why_not_counted(record)] += 1
            return
        try:
            said = verdict(record.request)
        except LeftOut as reason:
            self._left_out[str(reason)] += 1
        except CannotBeRead as reason:
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
    record, deciders = stored.record, deciders_of(stored.record)
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
