"""Decisions that rules made without a person, looked at by one later, and the error rate.

A rule marks some of what it approves (`rules.spot_check`). People look at those afterwards, and say
whether they would have approved them too; from that follows how often the rule is wrong.

    for record in await runner.spot_checks.pending():
        await runner.spot_checks.judge(record.request_id, right=True, by="alice")
    print(await runner.spot_checks.report())

What was approved stays approved: a judgement changes the record, not the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime

from llama_index_hitl import _entries
from llama_index_hitl._outbox import Outbox, persistently
from llama_index_hitl.authorizers import Action, Authorizer
from llama_index_hitl.clock import Clock
from llama_index_hitl.errors import (
    AlreadyChecked,
    NotAllowed,
    NotPicked,
    UnknownRequest,
)
from llama_index_hitl.models import Reviewer, ReviewRecord, SpotCheck
from llama_index_hitl.policies import why_not_allowed
from llama_index_hitl.rates import Rate
from llama_index_hitl.rules import SPOT_CHECK_TAG, tags_of
from llama_index_hitl.stores.paging import all_requests
from llama_index_hitl.stores.protocol import Commit, Page, RequestQuery, Store, StoredRequest

_PAGE = 100
_LISTED = 100


@dataclass(frozen=True, kw_only=True)
class RuleErrors:
    """How often one rule was found wrong.

    Attributes:
        rule: Name of the rule.
        picked: How many of its approvals were picked.
        checked: How many of these a person has looked at.
        wrong: How many of these they found wrong.

    Example:
        >>> print(RuleErrors(rule="cheap", picked=100, checked=50, wrong=3).error_rate)
        6.0% (95% interval: 2.1% to 16.2%)
    """

    rule: str
    picked: int
    checked: int
    wrong: int

    @property
    def error_rate(self) -> Rate | None:
        """How often it is wrong; None: nobody has looked yet."""
        return Rate(self.wrong, self.checked) if self.checked else None


@dataclass(frozen=True, kw_only=True)
class SpotCheckReport:
    """How often rules were found wrong.

    Attributes:
        picked: How many approvals were picked.
        checked: How many of these a person has looked at.
        wrong: How many of these they found wrong.
        rules: The same for each rule, by its name.
        wrong_records: Those that were found wrong, as many as were asked for.

    Example:
        >>> print(SpotCheckReport(picked=100, checked=50, wrong=3))
        looked at 50 of 100 spot checks, 3 were wrong: 6.0% (95% interval: 2.1% to 16.2%)
    """

    picked: int = 0
    checked: int = 0
    wrong: int = 0
    rules: Mapping[str, RuleErrors] = field(default_factory=dict)
    wrong_records: tuple[ReviewRecord, ...] = ()

    @property
    def unchecked(self) -> int:
        """How many nobody has looked at yet."""
        return self.picked - self.checked

    @property
    def error_rate(self) -> Rate | None:
        """How often the rules are wrong; None: nobody has looked yet.

        It holds for all that the rules approve, as far as those that were looked at are a fair part
        of those that were picked: take them as they come, not the easy ones first.
        """
        return Rate(self.wrong, self.checked) if self.checked else None

    def __str__(self) -> str:
        said = f"looked at {self.checked} of {self.picked} spot checks, {self.wrong} were wrong"
        return said if self.error_rate is None else f"{said}: {self.error_rate}"


class SpotChecks:
    """The spot checks of the runs in a store; a runner has one as `runner.spot_checks`.

    Args:
        store: Where the runs are.
        outbox: Through which judgements are stored.
        authorizer: Vouches for people.
        clock: Where the time comes from.

    Example:
        >>> from llama_index_hitl.prebuilt import ApproveAction
        >>> from llama_index_hitl.rules import never, spot_check
        >>> from llama_index_hitl.runner import Runner
        >>> from llama_index_hitl.stores import MemoryStore
        >>> async def main():
        ...     pay = ApproveAction(policy=spot_check(never(), 1, salt="2026"))  # picks all
        ...     runner = Runner(MemoryStore(), {"pay": pay})
        ...     for amount in (40, 500):
        ...         await runner.start("pay", action="Pay", details={"amount": amount})
        ...     for record in await runner.spot_checks.pending():
        ...         right = record.request.subject.data["details"]["amount"] < 100
        ...         await runner.spot_checks.judge(record.request_id, right=right, by="alice")
        ...     return await runner.spot_checks.report()
        >>> report = asyncio.run(main())
        >>> print(report)
        looked at 2 of 2 spot checks, 1 were wrong: 50.0% (95% interval: 9.5% to 90.5%)
        >>> [(rule.picked, rule.wrong) for rule in report.rules.values()]
        [(2, 1)]
    """

    def __init__(
        self, store: Store, outbox: Outbox, *, authorizer: Authorizer, clock: Clock
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._authorizer = authorizer
        self._clock = clock

    async def pending(
        self,
        *,
        reviewer: Reviewer | str | None = None,
        workflow: str | None = None,
        gate: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> Page[ReviewRecord]:
        """Return what was picked and nobody has looked at yet.

        The most urgent come first, among those the oldest.

        Args:
            reviewer: That this person may look at only.
            workflow: Of the workflow with this name (`Workflow.workflow_name`) only, not the
                name that the runner has for it.
            gate: Of this gate only.
            limit: How many at most, from 1; a page may have fewer, and yet not be the last.
            after: The `after` of the page before.
        """
        person = Reviewer(id=reviewer) if isinstance(reviewer, str) else reviewer
        query = replace(_query(workflow, gate), limit=limit, after=after)
        while True:
            page = await self._store.requests(query)
            found = tuple(s.record for s in page if _waits_for(s.record, person))
            if found or page.after is None:
                return Page(found, page.after)
            query = replace(query, after=page.after)  # all of these have been looked at

    async def judge(
        self, request_id: str, *, right: bool, by: Reviewer | str, comment: str = ""
    ) -> ReviewRecord:
        """Say whether one would have approved what a rule has approved.

        The judgement is stored with an audit row, in one commit. The same one again changes
        nothing. Those may judge who may answer such a request at that gate, but not whoever
        requested it.

        Args:
            request_id: The request.
            right: Whether one would have approved it too.
            by: Who has looked; the authorizer has the last word about their roles.
            comment: Why.

        Returns:
            The request with the judgement.

        Raises:
            UnknownRequest: There is none with that id.
            NotPicked: It was not picked for a spot check.
            AlreadyChecked: Somebody has said something else.
            NotAllowed: This person may not judge it.
            ValueError: The comment cannot be stored.
            TypeError: `right` is neither True nor False.
        """
        if not isinstance(right, bool):
            raise TypeError(f"right must be True or False, not {right!r}")
        said = Reviewer(id=by) if isinstance(by, str) else by
        stored = await self._picked(request_id)
        person = await self._authorizer.authorize(
            said, Action.SPOT_CHECK, run_id=stored.run_id, request=stored.record.request
        )
        if (reason := _why_not(stored.record, person)) is not None:
            raise NotAllowed(request_id, by=person.id, reason=reason)
        found = self._found(stored.record, right, person, comment)

        async def attempt() -> ReviewRecord:
            stored = await self._picked(request_id)
            if stored.record.spot_check is not None:
                return _the_same(stored.record, stored.record.spot_check, found)
            return await self._write(stored, found, person)

        return await persistently(attempt)

    async def _picked(self, request_id: str) -> StoredRequest:
        stored = await self._store.request(request_id)
        if stored is None:
            raise UnknownRequest(request_id)
        if _was_picked(stored.record) is None:
            raise NotPicked(request_id)
        return stored

    def _found(
        self, record: ReviewRecord, right: bool, person: Reviewer, comment: str
    ) -> SpotCheck:
        # Another machine's clock may be ahead of this one's; nobody looks before it is closed.
        at = max(self._clock(), record.closed_at or record.request.created_at)
        return SpotCheck(right=right, by=person.id, at=at, comment=comment)

    async def _write(
        self, stored: StoredRequest, found: SpotCheck, person: Reviewer
    ) -> ReviewRecord:
        record = stored.record.model_copy(update={"spot_check": found})
        await self._outbox.commit(
            Commit(
                requests=(replace(stored, record=record),),
                audit=(_entries.spot_checked(stored.run_id, record, person),),
            )
        )
        return record

    async def report(
        self,
        *,
        workflow: str | None = None,
        gate: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        listed: int = _LISTED,
    ) -> SpotCheckReport:
        """Return how often the rules were found wrong.

        Requests are read a page at a time, so memory does not grow with how many there are.

        Args:
            workflow: Of the workflow with this name (`Workflow.workflow_name`) only, not the
                name that the runner has for it.
            gate: Of this gate only.
            since: Approved at this instant or later only.
            until: Approved before this instant only.
            listed: How many of those that were wrong to list at most.

        Raises:
            ValueError: An instant has no time zone.
            StoreError: The store cannot be reached, or a request in it cannot be read.
        """
        picked, checked, wrong = Counter[str](), Counter[str](), Counter[str]()
        wrong_records: list[ReviewRecord] = []
        query = replace(_query(workflow, gate), created_before=until, limit=_PAGE)
        async with aclosing(all_requests(self._store, query, since=since)) as requests:
            async for stored in requests:
                record = stored.record
                name = _was_picked(record)
                if name is None:
                    continue
                picked[name] += 1
                if record.spot_check is None:
                    continue
                checked[name] += 1
                if not record.spot_check.right:
                    wrong[name] += 1
                    if len(wrong_records) < listed:
                        wrong_records.append(record)
        return SpotCheckReport(
            picked=picked.total(),
            checked=checked.total(),
            wrong=wrong.total(),
            rules={
                name: RuleErrors(
                    rule=name, picked=picked[name], checked=checked[name], wrong=wrong[name]
                )
                for name in sorted(picked)
            },
            wrong_records=tuple(wrong_records),
        )


def _query(workflow: str | None, gate: str | None) -> RequestQuery:
    return RequestQuery(open=False, workflow=workflow, gate=gate, tag=SPOT_CHECK_TAG)


def _was_picked(record: ReviewRecord) -> str | None:
    """Return the name of the rule that approved and picked a request; None: none did."""
    rule = record.request.rule
    if rule is None or SPOT_CHECK_TAG not in tags_of(rule):
        return None  # the tag is somebody's own
    by_rule = bool(record.answers) and record.answers[-1].by.kind == "rule"
    return rule.rule if by_rule else None


def _waits_for(record: ReviewRecord, person: Reviewer | None) -> bool:
    """Tell whether a request is still to be looked at, and this person may."""
    if _was_picked(record) is None or record.spot_check is not None:
        return False
    return person is None or _why_not(record, person) is None


def _why_not(record: ReviewRecord, person: Reviewer) -> str | None:
    """Say why somebody may not look at a request; None: they may."""
    if person.kind != "human":
        return "a spot check is for people"
    if person.id == record.request.requester:
        return "whoever requested it cannot judge it"
    return why_not_allowed(record.policy, person)


def _the_same(record: ReviewRecord, known: SpotCheck, found: SpotCheck) -> ReviewRecord:
    """Return the record, if the same person has said the same before."""
    if (known.by, known.right, known.comment) != (found.by, found.right, found.comment):
        raise AlreadyChecked(record.request_id, right=known.right, by=known.by, at=known.at)
    return record
