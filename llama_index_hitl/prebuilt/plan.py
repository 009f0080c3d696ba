"""Ready workflow: the model plans actions, code says which need a person, approved ones are run.

The model is a router: it turns a request into typed actions and does nothing itself. Whether an
action needs a person is for the action's own code to say, never for the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, ClassVar, Literal

from pydantic import BaseModel
from pydantic_core import to_jsonable_python
from workflows import Context, step
from workflows.events import Event, StartEvent

from llama_index_hitl._upstream import WAITS, run_id_of
from llama_index_hitl.effects import OnDoubt, effect_is_repeated, once
from llama_index_hitl.errors import GateError
from llama_index_hitl.events import (
    Approved,
    Expired,
    Rejected,
    Responded,
    ReviewOutcomeEvent,
)
from llama_index_hitl.gates import Review
from llama_index_hitl.models import Evidence, JsonObject
from llama_index_hitl.prebuilt._actions import (
    Action,
    ActionKinds,
    confirmation_of,
    summary_of,
)
from llama_index_hitl.prebuilt._base import (
    ReviewWorkflow,
    decisions_in,
    one_line,
    reviewers_of,
)
from llama_index_hitl.prebuilt._own_types import give_own
from llama_index_hitl.prebuilt._settling import (
    SETTLED,
    ActionProposed,
    ActionReport,
    ActionsReady,
    ActionStatus,
    AndThen,
    PlanProposed,
    PlanResult,
    PlanState,
    Reports,
    choices,
    decided,
    listed,
    next_of,
    replaced,
    reported,
    status_of,
    stopped,
)
from llama_index_hitl.questions import Question


class PlanStart(StartEvent):
    """Starts with what somebody wants.

    Its field is what `run` takes, as in the example of `ActionPlan`.

    Attributes:
        request: What they want, in their own words.
    """

    request: str


def _deadline_of(flow: ActionPlan, _: Event) -> timedelta | None:
    return flow.deadline


class ActionPlan(ReviewWorkflow):
    """A request: the model plans, people confirm what must be, the rest is done, in order.

    `run` takes the fields of `PlanStart`.

    Subclass it with `action`, the type of your actions, and override `execute`, and `check` where
    there is something to check. `plan`, `check_plan`, the prompt and the gates `whole` and `each`
    can be overridden too.

    Every action has an effect key and is done once, also if a process dies on the way. An action is
    done when all before it are settled; nothing that had to be confirmed is done unconfirmed.

    A scripted model plans with `{"actions": [{"kind": "transfer", ...}, ...]}`. Whoever edits the
    `whole` plan gives a `Plan`, with the actions and their numbers.

    Args:
        show: What people are shown; None: what the class says.
        **options: What `ReviewWorkflow` takes.

    Attributes:
        action: Type of the actions: a pydantic model, or a union of several, told apart by a
            literal.
        show: `whole`: one request about the plan, before anything is done; `each`: one for every
            action that must be confirmed.
        after_refusal: `continue` or `stop`: what becomes of later actions when one is refused.
        after_failure: `continue` or `stop`: what becomes of them when one fails.
        max_actions: How many actions a plan may have.
        deadline: Time to answer a request; None: no limit.
        on_doubt: What to do about an action that was begun by a process that died; see
            `effects.once`.
        plan_prompt: What the model is asked, with `{request}` in it.

    Example:
        >>> from typing import Literal
        >>> from llama_index_hitl.testing import ScriptedLLM, ScriptedReviewer, review_with
        >>> class Transfer(Action):
        ...     kind: Literal["transfer"] = "transfer"
        ...     amount: int
        ...
        ...     def confirmation(self) -> str | None:
        ...         return "above the limit of 100" if self.amount > 100 else None
        >>> class Banking(ActionPlan):
        ...     action = Transfer
        ...
        ...     async def execute(self, action, effect_key):
        ...         return f"sent {action.amount}"
        >>> async def main():
        ...     actions = [{"kind": "transfer", "amount": amount} for amount in (40, 500)]
        ...     flow = Banking(llm=ScriptedLLM([{"actions": actions}]), show="each")
        ...     alice = ScriptedReviewer([Reject(comment="not today")], by="alice")
        ...     return await review_with(flow.run(request="40 to Ann, 500 to Bob"), alice)
        >>> result = asyncio.run(main())
        >>> print(result.text)
        1. Transfer: amount=40: done (sent 40)
        2. Transfer: amount=500: refused by alice (not today)
        >>> [action.status.value for action in result.actions]
        ['done', 'refused']
    """

    action: ClassVar[Any] = Action
    """Type of the actions: a pydantic model, or a union of several, told apart by a literal."""

    show: Literal["whole", "each"] = "whole"
    """`whole`: one request about the plan, before anything is done, if something in it must be
    confirmed; it is approved, rejected or edited, or some actions are approved and others refused.
    `each`: a request for every action that must be confirmed; those before the first are done."""

    after_refusal: AndThen = "continue"
    """What becomes of later actions when a person refuses one, or nobody decides in time. They saw
    the plan, so what they approve beside a refusal stays approved."""

    after_failure: AndThen = "stop"
    """What becomes of later actions when one fails or cannot be done. They were planned, and
    approved, as if it would be done."""

    max_actions: int = 100
    """How many actions a plan may have, at least 1."""

    deadline: timedelta | None = None
    """Time to answer a request, counted from the question; None: no limit."""

    on_doubt: OnDoubt = "fail"
    """What to do about an action that was begun by a process that died; see `effects.once`. With
    `ask`, the workflow's `reviewers` are asked."""

    plan_prompt = (
        "Turn this request into the actions that it takes, in the order in which to take them. Use "
        "only what the request says. If it takes no action, return none.\n\nRequest:\n{request}"
    )

    whole = Review(
        PlanProposed,
        subject="plan",
        title=lambda _, ev: f"Plan of {len(ev.plan.actions)} actions: {one_line(ev.request)}",
        body=lambda _, ev: listed(ev.plan),
        reviewers=reviewers_of,
        decisions=("approve", "edit", "reject", "respond"),
        response=choices,
        rejected=Rejected,
        responded=Responded,
        deadline=_deadline_of,
        expired=Expired,
    )

    each = Review(
        ActionProposed,
        subject="action",
        title=lambda _, ev: f"{ev.number}. {summary_of(ev.action)}",
        body=lambda _, ev: (
            f"Must be confirmed: {confirmation_of(ev.action)}\n\nRequest: {one_line(ev.request)}"
        ),
        evidence=lambda _, ev: (Evidence(title="The whole plan", body=ev.plan),),
        reviewers=reviewers_of,
        editable=True,
        rejected=Rejected,
        deadline=_deadline_of,
        expired=Expired,
    )

    _kinds: ClassVar[ActionKinds] = ActionKinds(Action, max_actions)
    _plan_event: ClassVar[type[PlanProposed]] = PlanProposed
    _action_event: ClassVar[type[ActionProposed]] = ActionProposed

    def __init__(self, *, show: Literal["whole", "each"] | None = None, **options: Any) -> None:
        super().__init__(**options)
        if show is not None:
            self.show = show
        if self.show not in ("whole", "each"):
            raise ValueError(f"show= must be 'whole' or 'each', not {self.show!r}.")
        for name in ("after_refusal", "after_failure"):
            if (given := getattr(self, name)) not in ("continue", "stop"):
                raise ValueError(f"{name} must be 'continue' or 'stop', not {given!r}.")
        if type(self).execute is ActionPlan.execute:
            # Said now, and not when people have approved what nobody can do.
            raise GateError(
                f"{type(self).__name__} must say how actions are done: give it execute()."
            )

    def __init_subclass__(cls, **options: Any) -> None:
        """Give the workflow events that hold actions of its own type."""
        super().__init_subclass__(**options)
        give_own(cls, start=PlanStart)

    # ----------------------------------------------------------------- for you to override

    async def plan(self, request: str) -> Sequence[BaseModel]:
        """Return the actions that the model proposes, in order.

        Args:
            request: What somebody wants, in their own words.

        Raises:
            ModelOutputError: It does not give a valid plan.
        """
        prompt = self.filled(self.plan_prompt, request=request)
        found: Any = await self.predict(self._kinds.asked, prompt)
        return tuple(found.actions)

    async def check_plan(self, actions: Sequence[Any]) -> dict[int, str]:
        """Return which actions cannot be done, by number from 1, with the reason.

        Nobody is asked about those. By default only the first action is checked, with `check`:
        whether a later one can be done may depend on those before it. Override it if you can tell.

        Args:
            actions: The actions of the plan, in order.
        """
        found = await self._checked(actions[0]) if actions else None
        return {1: found} if found is not None else {}

    async def _checked(self, action: Any) -> str | None:
        try:
            return await self.check(action)
        except WAITS:
            raise
        except Exception:  # noqa: BLE001 - it is checked again, and reported, when it is to be done
            return None

    async def check(self, action: Any) -> str | None:
        """Return why an action cannot be done now; None: it can. Called right before it is done.

        Also before an action that is repeated (`on_doubt`) and may have been done: it must not be
        held against what it has changed itself. `effects.effect_key()` tells which one it is, and
        `effects.effect_is_repeated()` that it is repeated; one that is not let through then is
        reported as failed, for it may have been done.

        Args:
            action: The effective action.
        """
        return None

    async def execute(self, action: Any, effect_key: str) -> Any:
        """Do an action, and return what there is to say about it, as JSON holds it.

        Args:
            action: The effective action, judged by its own validators.
            effect_key: The same in every retry: whoever does it can tell that it is done.

        Returns:
            What there is to say about it, such as the id of a receipt.

        Raises:
            Exception: It failed. The action is reported as failed and never tried again.
        """
        raise NotImplementedError(f"{type(self).__name__} must say how actions are done.")

    # ----------------------------------------------------------------- the steps

    @step
    async def propose(
        self, ctx: Context[PlanState], ev: PlanStart
    ) -> PlanProposed | ActionProposed | ActionsReady:
        """Make a plan, and ask about what must be confirmed."""
        proposed: PlanProposed | ActionProposed | ActionsReady = await self._propose(ctx, ev)
        return proposed

    @step(num_workers=1)
    async def carry_out(
        self,
        ctx: Context[PlanState],
        ev: ActionsReady | Approved | Rejected | Responded | Expired,
    ) -> PlanResult | None:
        """Take a decision, and do what can be done by now."""
        return await self._carry_out(ctx, ev)

    async def _carry_out(self, ctx: Context[Any], ev: Event) -> PlanResult | None:
        decisions = await ctx.store.get("decisions")
        if isinstance(ev, ReviewOutcomeEvent):
            decisions += decisions_in(ev)
            await ctx.store.set("decisions", decisions)
        reports = self._stopped(decided(await ctx.store.get("actions"), ev))
        await ctx.store.set("actions", reports)
        while (report := next_of(reports)) is not None:
            done = await self._carried_out(ctx, report)
            self.tell(ctx, str(done))
            reports = self._stopped(replaced(reports, done))
            await ctx.store.set("actions", reports)
        if any(report.status not in SETTLED for report in reports):
            return None
        status = status_of(reports)
        return PlanResult(status=status, version=1, decisions=decisions, actions=reports)

    async def _propose(self, ctx: Context[Any], ev: PlanStart) -> Any:
        self.tell(ctx, "Making a plan")
        key = run_id_of(ctx)
        # Written down before anything is done: a model that is asked twice may say two things.
        made: Any = await once(
            f"{key}:plan", lambda: self._made(ev.request), on_doubt="repeat", not_done=(Exception,)
        )
        reports = self._stopped(reported(self._kinds, key, made["actions"], made["impossible"]))
        if not reports:
            self.tell(ctx, "There is nothing to do")
        open_ = [report for report in reports if report.status not in SETTLED]
        asked = [report for report in open_ if report.status is ActionStatus.PENDING]
        if asked and self.show == "whole":
            # The plan is for people to see before any of it is done.
            reports = tuple(
                r if r.status in SETTLED else r.updated(status=ActionStatus.PENDING)
                for r in reports
            )
        await ctx.store.set("actions", reports)
        if not asked:
            return ActionsReady()
        plan = {"actions": [{"number": r.number, "action": r.action} for r in open_]}
        event: Any = self._plan_event
        proposed = event(request=ev.request, plan=plan)
        if self.show == "whole":
            return proposed
        in_words, event = listed(proposed.plan), self._action_event
        for report in asked:
            ctx.send_event(
                event(request=ev.request, number=report.number, action=report.action, plan=in_words)
            )
        return ActionsReady()

    def _stopped(self, reports: Reports) -> Reports:
        return stopped(reports, after_refusal=self.after_refusal, after_failure=self.after_failure)

    async def _made(self, request: str) -> dict[str, Any]:
        actions = self._kinds.checked(await self.plan(request))
        impossible = await self.check_plan([self._kinds.read(data) for data in actions])
        return {
            "actions": actions,
            "impossible": {str(number): reason for number, reason in impossible.items()},
        }

    async def _carried_out(self, ctx: Context[Any], report: ActionReport) -> ActionReport:
        """Do an action that may be done, once, and report what came of it."""
        action, key = self._kinds.read(report.action), report.effect_key
        found: Any = await once(
            key,
            lambda: self._outcome(action, key),
            on_doubt=self.on_doubt,
            ctx=ctx,
            question=Question(
                title=f"May this be done again: {report.summary}",
                subject=action,
                reviewers=self.reviewers,
            ),
            not_done=(WAITS,),
            note=_note_on,
        )
        if isinstance(found, dict) and found.keys() == {"status", "reason", "result"}:
            return report.updated(**{**found, "status": ActionStatus(found["status"])})
        # Somebody has said that it was done, in place of a process that died in the middle of it.
        reason = "begun by a process that died, and taken to be done"
        return report.updated(status=ActionStatus.DONE, reason=reason, result=found)

    async def _outcome(self, action: BaseModel, key: str) -> JsonObject:
        """Check an action and do it. What comes of it is kept, so that a retry says the same.

        The check is part of it: what is done must not be checked against what it has changed.
        """
        status, reason, result = ActionStatus.NOT_RUN, "", None
        try:
            said = await self.check(action)
            if said is None:
                status = ActionStatus.DONE
                result = to_jsonable_python(await self.execute(action, key), fallback=str)
            else:
                reason = one_line(said)
        except WAITS:
            raise
        except Exception as error:  # noqa: BLE001 - it is reported, and the plan goes on or ends
            status, reason = ActionStatus.FAILED, one_line(f"{type(error).__name__}: {error}")
        if status is not ActionStatus.DONE and effect_is_repeated():
            # Nobody may take it for not done: perhaps it is in the way of its own repetition.
            status = ActionStatus.FAILED
            reason = f"was interrupted and may have been done: {reason}"
        return {"status": status.value, "reason": reason, "result": result}


def _note_on(outcome: JsonObject | None) -> str:
    """Return what the audit trail says about an action; empty: it was done."""
    if outcome is None or not outcome["reason"]:
        return ""
    return f"{outcome['status']}: {outcome['reason']}"
