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
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeAlias, cast

from pydantic import BaseModel

from llama_index_hitl._proposals import built
from llama_index_hitl._text import storable
from llama_index_hitl.models import JsonObject, ReviewRequest, RuleResult
from llama_index_hitl.replay._counting import CannotBeRead, LeftOut, count_all
from llama_index_hitl.replay._decisions import HumanDecision, human_decision
from llama_index_hitl.replay._report import Case, ReplayReport, Unreadable
from llama_index_hitl.rules import SHADOW_TAG, Rule, evaluate
from llama_index_hitl.stores.protocol import RequestQuery, Store

__all__ = [
    "Case",
    "HumanDecision",
    "Rebuild",
    "ReplayReport",
    "Unreadable",
    "human_decision",
    "replay",
    "shadow_report",
]

_PAGE = 100
_LISTED = 100
"""How many are put into each list, where nobody says otherwise."""

_SHOWN_ERROR = 500
"""Characters of an error that are kept."""

Rebuild: TypeAlias = type[BaseModel] | Callable[[JsonObject], Any]
"""Makes of stored values what a rule is to be shown: a model, or a function of them."""


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
        ValueError: `limit` is below 1, `listed` below 0, or an instant has no time zone.
        StoreError: The store cannot be reached, or a request in it cannot be read.

    Example:
        >>> from llama_index_hitl.prebuilt import ApproveAction
        >>> from llama_index_hitl.rules import threshold
        >>> from llama_index_hitl.runner import Runner
        >>> from llama_index_hitl.stores import MemoryStore
        >>> async def main():
        ...     runner = Runner(MemoryStore(), {"pay": ApproveAction()})
        ...     for amount, decision in ((40, Approve()), (60, Reject()), (500, Reject())):
        ...         await runner.start("pay", action="Pay", details={"amount": amount})
        ...         [record] = await runner.pending()
        ...         await runner.answer(record.request_id, decision, by="alice")
        ...     rule = threshold("details.amount", at_most=100, then="approve")
        ...     return await replay(runner.store, rule, gate="approval")
        >>> report = asyncio.run(main())
        >>> print(report)
        would have approved 2 of 3, of which people refused 1
        >>> [(case.title, case.decision.value) for case in report.wrongly_approved]
        [('Approval required: Pay', 'rejected')]
    """
    if not isinstance(rule, Rule):
        raise TypeError(f"a Rule is needed, not {type(rule).__name__}")
    query = RequestQuery(
        open=False, workflow=workflow, gate=gate, tag=tag, created_before=until, limit=_PAGE
    )
    return await count_all(
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
        ValueError: `limit` is below 1, `listed` below 0, or an instant has no time zone.
        StoreError: The store cannot be reached, or a request in it cannot be read.

    Example:
        >>> from llama_index_hitl.prebuilt import ApproveAction
        >>> from llama_index_hitl.rules import shadow, threshold
        >>> from llama_index_hitl.runner import Runner
        >>> from llama_index_hitl.stores import MemoryStore
        >>> async def main():
        ...     tried = shadow(threshold("details.amount", at_most=100, then="approve"))
        ...     runner = Runner(MemoryStore(), {"pay": ApproveAction(policy=tried)})
        ...     await runner.start("pay", action="Pay", details={"amount": 40})
        ...     [record] = await runner.pending()  # people are asked all the same
        ...     await runner.answer(record.request_id, Approve(), by="alice")
        ...     return await shadow_report(runner.store)
        >>> print(asyncio.run(main()))
        would have approved 1 of 1, of which people refused 0
    """
    query = RequestQuery(
        open=False, workflow=workflow, gate=gate, tag=SHADOW_TAG, created_before=until, limit=_PAGE
    )
    return await count_all(store, query, _recorded, since, limit, listed)


# --------------------------------------------------------------------------- what a rule says


def _replayed(rule: Rule, request: ReviewRequest, rebuild: Rebuild | None) -> RuleResult:
    if request.subject is None:
        raise LeftOut("no subject")
    return _as_if_live(evaluate(rule, _rebuilt(request.subject.data, rebuild)))


def _recorded(request: ReviewRequest) -> RuleResult:
    if request.rule is None or request.rule.shadow is None:
        raise LeftOut("no rule on trial")  # the tag is somebody's own
    return _as_if_live(request.rule)


def _as_if_live(result: RuleResult) -> RuleResult:
    return result.model_copy(update={"verdict": result.shadow or result.verdict})


def _rebuilt(data: JsonObject, rebuild: Rebuild | None) -> Any:
    if rebuild is None:
        return data
    try:
        if isinstance(rebuild, type) and issubclass(rebuild, BaseModel):
            return built(rebuild, data)
        return cast("Callable[[JsonObject], Any]", rebuild)(data)
    except Exception as error:  # noqa: BLE001 - values of long ago may do anything to code of today
        told = "".join(traceback.format_exception_only(error)).strip()
        raise CannotBeRead(storable(told, _SHOWN_ERROR)) from None
