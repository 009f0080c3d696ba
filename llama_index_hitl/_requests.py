"""How a gate words a request: from the event under review, or after another request."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import dropwhile
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from workflows import Context, Workflow
from workflows.events import Event

from llama_index_hitl._origin import origin_of
from llama_index_hitl._proposals import describe, subject_in
from llama_index_hitl._text import storable
from llama_index_hitl._upstream import run_id_of
from llama_index_hitl.errors import GateError, MissingApprovals
from llama_index_hitl.events import ReviewOutcomeEvent
from llama_index_hitl.models import (
    DecisionKind,
    Escalate,
    Expire,
    JsonObject,
    ReviewPolicy,
    ReviewRecord,
    ReviewRequest,
    RuleResult,
    RuleVerdict,
    Rung,
    StageApproval,
    Subject,
    Widen,
    closing_rung,
    digest_of,
    entries_of,
)
from llama_index_hitl.rules import SHADOW_TAG, Rule, evaluate, tags_of

if TYPE_CHECKING:
    from llama_index_hitl.gates import Review

FEEDBACK_LIMIT = 20
"""Pieces of feedback that a request carries along; older ones are in the records of their own."""

_APPROVALS: TypeAdapter[tuple[StageApproval, ...]] = TypeAdapter(tuple[StageApproval, ...])


class RequestMaker:
    """Words the requests of one gate, at one instant of one run.

    Args:
        gate: The gate that asks.
        workflow: The workflow that it is part of; options that are functions are given it.
        ctx: Context of the gate's step.
        now: The present instant.
        number: How many requests the gate has made in this run before.
    """

    def __init__(
        self, gate: Review, workflow: Workflow, ctx: Context[Any], now: datetime, number: int
    ) -> None:
        self._gate = gate
        self._workflow = workflow
        self._ctx = ctx
        self._now = now
        self._number = number

    async def about(
        self,
        event: Event,
        proposal: Event,
        subject_field: str | None,
        older: ReviewRequest | None,
    ) -> ReviewRequest:
        """Return the request about a new subject.

        Args:
            event: The event that has reached the gate.
            proposal: The event that holds the subject.
            subject_field: The field of it that is the subject; None: the event itself.
            older: The request about the draft before this one, if there is one.
        """
        gate, value = self._gate, subject_in(proposal, subject_field)
        origin = origin_of(run_id_of(self._ctx))
        approvals = _approvals_of(event)
        requester = await self._resolved(gate.requester, event)
        title = await self._resolved(gate.title, event)
        policy = await self._policy(event, requester, approvals)
        rule = await self._rule_result(event, value)
        return ReviewRequest(
            request_id=self._new_id(
                event.request_id if isinstance(event, ReviewOutcomeEvent) else run_id_of(self._ctx)
            ),
            run_id=origin.run_id,
            path=origin.path,
            workflow=self._workflow.workflow_name,
            gate=gate.name,
            stage=gate.stage or gate.name,
            title=title or f"{gate.name.replace('_', ' ').capitalize()}: {type(value).__name__}",
            body=await self._resolved(gate.body, event),
            subject=describe(value),
            evidence=tuple(await self._resolved(gate.evidence, event)),
            previous=None if older is None else older.subject,
            feedback=() if older is None else older.feedback[-FEEDBACK_LIMIT:],
            allowed=gate.allowed,
            response_schema=self._response_schema(proposal),
            escalate_to=entries_of(gate.escalate_to),
            **_timed(policy, await self._ladder(event)),
            requester=requester,
            created_at=self._now,
            revision=_revision_of(event, older),
            sent_back=0 if older is None else older.sent_back,
            max_revisions=await self._resolved(gate.max_revisions, event),
            supersedes=None if older is None else older.request_id,
            rule=rule,
            approvals=approvals,
            priority=await self._resolved(gate.priority, event),
            tags=tagged(await self._resolved(gate.tags, event), rule),
        )

    def _new_id(self, cause: str) -> str:
        """Return the id of a request, which is the key of its effect: the same in every repetition.

        Args:
            cause: The run, or the request that this one follows. With it and the number the id is
                the same again when a run is recovered from a snapshot before the question, and
                another one in every other run. Its first part says which gate it belongs to.
        """
        return f"{self._gate.name}-{digest_of([cause, self._gate.name, self._number])[:16]}"

    async def _policy(
        self, event: Event, requester: str | None, approvals: Sequence[StageApproval]
    ) -> ReviewPolicy:
        gate = self._gate
        barred = self._barred_by_stages(approvals)
        if gate.bar_requester:
            if requester is None:
                raise GateError(f"Gate {gate.name!r} bars the requester, and requester= gave none.")
            barred[requester] = "whoever requests it cannot approve it"
        return ReviewPolicy(
            reviewers=await self._reviewers(event),
            approvals=1 if isinstance(gate.quorum, dict) else gate.quorum,
            per_role=gate.quorum if isinstance(gate.quorum, dict) else {},
            rejections=gate.rejections,
            veto_roles=entries_of(gate.veto_roles),
            barred=barred,
            second_person_for_edit=gate.second_person_for_edit,
        )

    async def _ladder(self, event: Event) -> tuple[Rung, ...]:
        """Return what happens as time passes, at which instants; a deadline is a ladder of one."""
        gate = self._gate
        if gate.ladder is None:
            deadline = await self._resolved(gate.deadline, event)
            ladder = {} if deadline is None else {deadline: gate.on_deadline}
        else:
            ladder = await self._resolved(gate.ladder, event) or {}
        return tuple(Rung(at=self._in(after), action=ladder[after]) for after in sorted(ladder))

    def _in(self, duration: timedelta) -> datetime:
        """Return the instant after so much time, or working time, from now on."""
        calendar = self._gate.calendar
        return self._now + duration if calendar is None else calendar.after(self._now, duration)

    def _barred_by_stages(self, approvals: Sequence[StageApproval]) -> dict[str, str]:
        """Return who approved the stages that this gate must be distinct from.

        A stage may be named by its gate too.
        """
        gate, siblings = self._gate, self._gate.siblings(self._workflow)
        named = entries_of(gate.distinct_from)
        stages = {n: siblings[n].stage or n if n in siblings else n for n in named}
        missing = [n for n, stage in stages.items() if stage not in {a.stage for a in approvals}]
        if missing:
            known = sorted({other.stage or name for name, other in siblings.items()} - {gate.name})
            raise MissingApprovals(gate.name, missing, known)
        return {
            person: f"approved the earlier stage {approval.stage!r}"
            for approval in approvals
            if approval.stage in stages.values()
            for person in approval.involved
        }

    async def _reviewers(self, event: Event) -> tuple[str, ...]:
        """Return who may answer. A look-up that finds nobody must not let everybody in."""
        option = self._gate.reviewers
        found = await self._resolved(option, event)
        if callable(option) and found is not None and not entries_of(found):
            raise GateError(
                f"reviewers= of gate {self._gate.name!r} found nobody. Return None for anyone whom "
                "the channel lets in."
            )
        return () if found is None else entries_of(found)

    async def _rule_result(self, event: Event, value: Any) -> RuleResult | None:
        when = self._gate.when
        try:
            rule = when if isinstance(when, Rule) else await self._resolved(when, event)
            return None if rule is None else evaluate(rule, value)
        except Exception as error:  # noqa: BLE001 - like a rule that raises: a person decides
            reason = f"raised {type(error).__name__}: {shown(str(error))}"
            return RuleResult(verdict=RuleVerdict.ASK, rule="when", reason=reason)

    async def _resolved(self, option: Any, event: Event) -> Any:
        value = option(self._workflow, event) if callable(option) else option
        return await value if inspect.isawaitable(value) else value

    def _response_schema(self, proposal: Event) -> JsonObject | None:
        model = self._gate.response_model(self._workflow, proposal)
        return None if model is None else model.model_json_schema()

    def escalated(self, record: ReviewRecord) -> ReviewRequest:
        """Return the request that passes an escalated one on; one approval is enough there."""
        request, decision = record.request, record.answers[-1].decision
        to = decision.to if isinstance(decision, Escalate) else ()
        policy = record.policy.model_copy(
            update={
                "reviewers": to or request.escalate_to,
                "approvals": 1,
                "per_role": {},
                "rejections": 1,
                "veto_roles": (),
            }
        )
        short = self._gate.ladder is None
        # The instants of a ladder stand, however late it is climbed. What of it is due by now
        # happens to the new request too, so that must be asked as of when it was escalated.
        asked_at = self._now if short else min(self._now, record.closed_at or self._now)
        return self._follow_up(
            request,
            created_at=asked_at,
            level=request.level + 1,
            allowed=tuple(kind for kind in request.allowed if kind is not DecisionKind.ESCALATE),
            **_timed(policy, self._renewed(request) if short else _left_of_ladder(record)),
        )

    def edited(self, record: ReviewRecord, subject: Subject, proposal: Event) -> ReviewRequest:
        """Ask about an edited subject: every vote was for something else, so all begin anew."""
        request, editor = record.request, record.answers[-1].by.id
        barred = dict(record.policy.barred)
        if record.policy.second_person_for_edit:
            barred[editor] = "whoever edited it cannot approve it"
        policy = record.policy.model_copy(update={"barred": barred})
        return self._follow_up(
            request,
            subject=subject,
            previous=request.subject,
            revision=request.revision + 1,
            **_no_trial(request),
            response_schema=self._response_schema(proposal),
            **_timed(policy, self._shifted(request, request.rungs)),
        )

    def _renewed(self, request: ReviewRequest) -> tuple[Rung, ...]:
        """Give the follow-up as much time as the request had; then it expires, if not rejected."""
        closing = closing_rung(request.rungs)
        if closing is None:
            return ()
        action = Expire() if isinstance(closing.action, Escalate) else closing.action
        return self._shifted(request, [Rung(at=closing.at, action=action)])

    def _shifted(self, request: ReviewRequest, rungs: Iterable[Rung]) -> tuple[Rung, ...]:
        """Return a ladder with as much time, or working time, for each rung as the request had."""
        calendar, last, shifted = self._gate.calendar, self._now, list[Rung]()
        for rung in rungs:
            if calendar is None:
                duration = rung.at - request.created_at
            else:
                duration = calendar.between(request.created_at, rung.at)
            # Even if a holiday that was added since has left no time between two rungs.
            last = max(self._in(duration), last + timedelta.resolution)
            shifted.append(Rung(at=last, action=rung.action))
        return tuple(shifted)

    def _follow_up(self, request: ReviewRequest, **changes: Any) -> ReviewRequest:
        return again(
            request,
            **{
                "request_id": self._new_id(request.request_id),
                "supersedes": request.request_id,
                "created_at": self._now,
                **changes,
            },
        )


def _timed(policy: ReviewPolicy, ladder: tuple[Rung, ...]) -> dict[str, Any]:
    """Return what a request says about time; the first rung that closes it is its deadline."""
    closing = closing_rung(ladder)
    return {
        "ladder": ladder,
        "policy": policy.model_copy(update={"deadline": closing and closing.at}),
        "on_deadline": Expire() if closing is None else closing.action,
    }


def _left_of_ladder(record: ReviewRecord) -> tuple[Rung, ...]:
    """Return the rungs that a request leaves to the one that it is escalated to."""
    left = record.request.rungs[record.rungs_passed :]
    if record.answers[-1].by.kind == "rule":
        return left
    closing = closing_rung(left)
    if closing is not None and isinstance(closing.action, Escalate):
        # The person did early what this rung would have done.
        return tuple(dropwhile(lambda rung: rung is not closing, left))[1:]
    # A person has passed it up, so it is not for time to let others in.
    return tuple(rung for rung in left if not isinstance(rung.action, Widen))


_SHOWN_LIMIT = 200


def shown(text: str | None) -> str | None:
    """Return what somebody sent so that it can be written anywhere, and is not endless."""
    return None if text is None else storable(text, _SHOWN_LIMIT)


def tagged(tags: Iterable[str] | str, rule: RuleResult | None) -> tuple[str, ...]:
    """Return the tags of a request, with those by which it is found for what a rule said of it."""
    own = entries_of(tags)
    return (*own, *(tag for tag in tags_of(rule) if tag not in own))


def _no_trial(request: ReviewRequest) -> dict[str, Any]:
    """Return what to change where the subject is no longer the one that a rule on trial saw."""
    if request.rule is None or request.rule.shadow is None:
        return {}
    return {"rule": None, "tags": tuple(tag for tag in request.tags if tag != SHADOW_TAG)}


def again(request: ReviewRequest, **changes: Any) -> ReviewRequest:
    """Return a request with some values changed and its digest computed anew."""
    values = {name: getattr(request, name) for name in ReviewRequest.model_fields}
    return ReviewRequest(**{**values, "digest": "", **changes})


def _revision_of(event: Event, older: ReviewRequest | None) -> int:
    """Number the draft: one more than the draft before, and what an earlier stage called it."""
    before = 0 if older is None else older.revision
    earlier_stage = event.revision if isinstance(event, ReviewOutcomeEvent) else 0
    return max(before + 1, earlier_stage)


def _approvals_of(event: Event) -> tuple[StageApproval, ...]:
    """Read who let earlier stages pass; an event of the user's own may carry it along."""
    return _APPROVALS.validate_python(getattr(event, "approvals", ()))
