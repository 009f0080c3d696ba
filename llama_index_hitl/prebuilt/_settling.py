"""A plan and what becomes of it: what people see, what they decide, how each action stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, NamedTuple, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator
from workflows import Workflow
from workflows.events import Event

from llama_index_hitl.events import Approved, Expired, Responded, ReviewOutcomeEvent
from llama_index_hitl.models import Answer, AnyJson, JsonObject, Value
from llama_index_hitl.prebuilt._actions import Action, ActionKinds, confirmation_of, summary_of
from llama_index_hitl.prebuilt._base import (
    ResultStatus,
    Reviewable,
    ReviewResult,
    decisions_in,
    one_line,
)


class ActionStatus(StrEnum):
    """How an action stands. In a result all are settled: neither `pending` nor `approved`."""

    PENDING = "pending"  # a person has not decided yet
    """A person has yet to confirm it."""
    APPROVED = "approved"  # it may be done, in its turn
    """It may be done, and was not yet."""
    DONE = "done"
    """It was done."""
    REFUSED = "refused"
    """It was not to be done."""
    EXPIRED = "expired"  # nobody decided in time
    """Nobody confirmed it in time."""
    FAILED = "failed"  # `execute` raised, or it may have been done and cannot be repeated
    """It raised, or it cannot be done."""
    NOT_RUN = "not_run"  # its precondition did not hold, or one before it was not done
    """One before it ended the plan."""


SETTLED = frozenset(ActionStatus) - {ActionStatus.PENDING, ActionStatus.APPROVED}


class ActionReport(Value):
    """What became of one action.

    Attributes:
        number: Its number in the plan, from 1.
        summary: The action in words.
        proposed: The action as the model proposed it, as JSON; None: a person has added it.
        action: The action as it was to be run, as JSON: an edit is in it.
        confirmation: Why a person had to confirm it; None: nobody had to.
        status: How it stands.
        reason: Why it is so, where there is more to say.
        decided_by: Ids of those who approved or refused it, rules included; empty: nobody did.
        effect_key: Key of its effect, the same in every retry; empty as long as it may not be done.
        result: What `execute` returned, as JSON.

    Example:
        >>> report = ActionReport(number=1, summary="pay 40", proposed=None, action={"amount": 40})
        >>> state = PlanState(actions=(report.updated(status=ActionStatus.DONE),))
        >>> state.actions[0].status.value
        'done'
    """

    number: int = Field(ge=1)
    summary: str
    proposed: JsonObject | None
    action: JsonObject
    confirmation: str | None = None
    status: ActionStatus = ActionStatus.PENDING
    reason: str = ""
    decided_by: tuple[str, ...] = ()
    effect_key: str = ""
    result: AnyJson = None

    def updated(self, **changes: Any) -> ActionReport:
        """Return the report with some values changed.

        Args:
            **changes: The values, by name.
        """
        return self.model_copy(update=changes)

    def __str__(self) -> str:
        by = f" by {', '.join(self.decided_by)}" if self.status is ActionStatus.REFUSED else ""
        said = self.reason or (self.result if isinstance(self.result, str) else "")
        why = f" ({one_line(said)})" if said else ""
        return f"{self.number}. {self.summary}: {self.status.replace('_', ' ')}{by}{why}"


Reports: TypeAlias = tuple[ActionReport, ...]


class PlannedAction(BaseModel):
    """One action of a plan, as a person sees it.

    Attributes:
        number: Its number, from 1.
        action: The action.
        confirmation: Why a person must confirm it; what is written here is worked out anew.
    """

    number: int = Field(ge=1)
    action: Action
    confirmation: str | None = Field(default=None, description="Worked out from the action.")

    @model_validator(mode="after")
    def _judged(self) -> Self:
        self.confirmation = confirmation_of(self.action)
        return self


class Plan(BaseModel):
    """A plan under review.

    Attributes:
        actions: The actions in order. Whoever edits the plan may change them, take some out, which
            is to refuse them, and add some under new numbers.
    """

    actions: tuple[PlannedAction, ...]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        numbers = [planned.number for planned in self.actions]
        if numbers != sorted(set(numbers)):
            raise ValueError("the numbers of the actions must rise, each once")
        return self


class PlanProposed(Reviewable):
    """A plan is to be confirmed as a whole.

    Attributes:
        request: What was wanted.
        plan: What is to be done.

    Example:
        >>> shown = Plan(actions=(PlannedAction(number=1, action=Action()),))
        >>> len(PlanProposed(request="40 to Ann", plan=shown).plan.actions)
        1
    """

    request: str
    plan: Plan


class ActionProposed(Reviewable):
    """One action of a plan is to be confirmed.

    Attributes:
        request: What was wanted.
        number: Number of the action in the plan, from 1.
        action: The action.
        plan: The whole plan in words, a line for each action.

    Example:
        >>> asked = ActionProposed(request="40 to Ann", number=1, action=Action(), plan="1. action")
        >>> asked.number
        1
    """

    request: str
    number: int
    action: Action
    plan: str


class ActionsReady(Event):
    """What can be done now may be done."""


class PlanState(BaseModel):
    """What a run knows of its plan; a subclass may be the state of a workflow of your own.

    Attributes:
        actions: How each action stands.
        decisions: Every decision made so far, in order.
    """

    actions: Reports = ()
    decisions: tuple[Answer, ...] = ()


class PlanResult(ReviewResult):
    """How it ended.

    `approved` says that nothing that had to be confirmed was refused, `partly_approved` that some
    of it was, `rejected` and `expired` that all of it was. What was done is in `actions`.

    Attributes:
        actions: What became of each action, in order; empty: there was nothing to do.

    Example:
        >>> done = ActionReport(
        ...     number=1, summary="pay 40", proposed=None, action={"amount": 40}, status="done"
        ... )
        >>> result = PlanResult(status=ResultStatus.APPROVED, version=1, actions=(done,))
        >>> print(result.text)
        1. pay 40: done
    """

    actions: Reports

    @property
    def text(self) -> str:
        """What was done and what was not, a line for each action."""
        return "\n".join(str(report) for report in self.actions) or "There was nothing to do."


AndThen: TypeAlias = Literal["continue", "stop"]
"""What becomes of the actions behind one that was not done."""


def reported(
    kinds: ActionKinds, key: str, actions: Sequence[JsonObject], impossible: Mapping[str, str]
) -> Reports:
    """Return how the actions of a new plan stand: those that need no confirmation are approved.

    Args:
        kinds: The type of the actions.
        key: What the effect keys of actions begin with that need no confirmation.
        actions: The actions as JSON.
        impossible: Which of them cannot be done, by number, with the reason.
    """
    reports = []
    for number, data in enumerate(actions, start=1):
        action = kinds.read(data)
        confirmation, reason = confirmation_of(action), impossible.get(str(number))
        status = ActionStatus.APPROVED if confirmation is None else ActionStatus.PENDING
        reports.append(
            ActionReport(
                number=number,
                summary=summary_of(action),
                proposed=data,
                action=data,
                confirmation=confirmation,
                status=status if reason is None else ActionStatus.NOT_RUN,
                reason=reason or "",
                effect_key=f"{key}:{number}" if confirmation is None else "",
            )
        )
    return tuple(reports)


def stopped(reports: Reports, *, after_refusal: AndThen, after_failure: AndThen) -> Reports:
    """Settle the actions behind one that ends the plan."""
    ends = {
        ActionStatus.REFUSED: after_refusal,
        ActionStatus.EXPIRED: after_refusal,
        ActionStatus.FAILED: after_failure,
        ActionStatus.NOT_RUN: after_failure,
    }
    last = next((r for r in reports if ends.get(r.status, "continue") != "continue"), None)
    if last is None:
        return reports
    reason = f"action {last.number} was not done"
    return tuple(
        r.updated(status=ActionStatus.NOT_RUN, reason=reason)
        if r.number > last.number and r.status not in SETTLED
        else r
        for r in reports
    )


def next_of(reports: Reports) -> ActionReport | None:
    """Return the action that can be done now: it may be, and all before it are settled."""
    first = next((r for r in reports if r.status not in SETTLED), None)
    return first if first is not None and first.status is ActionStatus.APPROVED else None


def replaced(reports: Reports, *changed: ActionReport) -> Reports:
    """Return reports with some in the place of those with their numbers, or added."""
    by_number = {report.number: report for report in (*reports, *changed)}
    return tuple(by_number[number] for number in sorted(by_number))


# --------------------------------------------------------------------------- what people see


def listed(plan: Plan) -> str:
    """Return a plan in words, a line for each action."""
    return "\n".join(
        f"{planned.number}. {summary_of(planned.action)}"
        + (f" (to be confirmed: {planned.confirmation})" if planned.confirmation else "")
        for planned in plan.actions
    )


def choices(_: Workflow, ev: PlanProposed) -> type[BaseModel]:
    """Return the form by which a person approves some actions and refuses others.

    Every action has a field of its own, which must be filled: to leave one out is not to consent.
    """
    fields: dict[str, Any] = {}
    for planned in ev.plan.actions:
        title = f"{planned.number}. {summary_of(planned.action)}"
        fields[f"action_{planned.number}"] = (Literal["approve", "refuse"], Field(title=title))
        fields[f"comment_{planned.number}"] = (
            str | None,
            Field(default=None, title=f"Comment on {planned.number}"),
        )
    return create_model("Choices", __config__=ConfigDict(extra="forbid"), **fields)


# --------------------------------------------------------------------------- what was decided


def decided(reports: Reports, ev: Event) -> Reports:
    """Return how the actions stand after a decision."""
    if not isinstance(ev, ReviewOutcomeEvent):
        return reports
    by = tuple(dict.fromkeys(answer.by.id for answer in decisions_in(ev)))
    shown = _shown(ev)
    asked = [
        report.updated(decided_by=by)
        for report in reports
        if report.status is ActionStatus.PENDING and (shown.whole or report.number in shown.actions)
    ]
    if not asked:
        return reports  # settled meanwhile: one before it was not done
    if isinstance(ev, Approved | Responded):
        return replaced(reports, *_chosen(asked, shown.actions, ev, by))
    status = ActionStatus.EXPIRED if isinstance(ev, Expired) else ActionStatus.REFUSED
    reason = ev.feedback or ("" if by else ev.outcome.reason)
    return replaced(reports, *(r.updated(status=status, reason=reason) for r in asked))


class _Shown(NamedTuple):
    """What was decided on: actions as they were shown or edited, by number."""

    whole: bool
    actions: dict[int, BaseModel]


def _shown(ev: ReviewOutcomeEvent) -> _Shown:
    proposal: Any = ev.proposal
    if isinstance(proposal, ActionProposed):
        return _Shown(whole=False, actions={proposal.number: proposal.action})
    return _Shown(whole=True, actions={p.number: p.action for p in proposal.plan.actions})


def _chosen(
    asked: Sequence[ActionReport],
    actions: Mapping[int, BaseModel],
    ev: Approved | Responded,
    by: tuple[str, ...],
) -> Iterator[ActionReport]:
    """Yield the actions as they were approved or refused; what an edit has taken out is refused."""
    known = {report.number: report for report in asked}
    for number in known.keys() - actions.keys():
        reason = "taken out of the plan"
        yield known[number].updated(status=ActionStatus.REFUSED, reason=reason)
    for number, action in actions.items():
        data, summary = action.model_dump(mode="json"), summary_of(action)
        added = ActionReport(
            number=number, summary=summary, proposed=None, action=data, decided_by=by
        )
        report = known.get(number, added).updated(summary=summary, action=data)
        if _approves(ev, number):
            key = f"{ev.request_id}:{number}"
            yield report.updated(status=ActionStatus.APPROVED, effect_key=key)
        else:
            reason = _said(ev, f"comment_{number}") or ""
            yield report.updated(status=ActionStatus.REFUSED, reason=reason)


def _approves(ev: Approved | Responded, number: int) -> bool:
    """Tell whether a decision lets one action be done; of a choice, only the word does."""
    return isinstance(ev, Approved) or _said(ev, f"action_{number}") == "approve"


def _said(ev: ReviewOutcomeEvent, field: str) -> Any:
    return ev.response.get(field) if isinstance(ev, Responded) else None


def status_of(reports: Reports) -> ResultStatus:
    """Return how a plan ended: what became of the actions that had to be approved."""
    denied = (ActionStatus.REFUSED, ActionStatus.EXPIRED)
    asked = [r for r in reports if r.confirmation is not None or r.decided_by]
    approved = [r for r in asked if r.decided_by and r.status not in denied]
    if len(approved) == len(asked):
        return ResultStatus.APPROVED
    if approved:
        return ResultStatus.PARTLY_APPROVED
    expired = all(r.status is ActionStatus.EXPIRED for r in asked)
    return ResultStatus.EXPIRED if expired else ResultStatus.REJECTED
