"""The events, steps and gates of an action plan that are made anew for each subclass of it."""

# A subclass names the type of its actions, and upstream leaves no other way to bring that type in.
# It routes an event by its exact class, reads which events a step takes and sends from the step's
# annotations, and restores a stored event as the class that was declared there. An event that held
# any action would be restored without the fields of a subclass's own; so each subclass has events
# of its own, steps that are annotated with them, and gates that guard them.

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, create_model
from workflows import Context, step

from llama_index_hitl.errors import GateError
from llama_index_hitl.models import DecisionKind
from llama_index_hitl.prebuilt._actions import ActionKinds
from llama_index_hitl.prebuilt._settling import (
    ActionProposed,
    ActionsReady,
    Plan,
    PlannedAction,
    PlanProposed,
    PlanResult,
    PlanState,
)

if TYPE_CHECKING:
    from workflows.events import Event, StartEvent

    from llama_index_hitl.gates import Review
    from llama_index_hitl.prebuilt.plan import ActionPlan


def give_own(cls: type[ActionPlan], *, start: type[StartEvent]) -> None:
    """Give a new subclass events for the type of its actions, and steps and gates to go with them.

    Args:
        cls: The subclass, as it is made.
        start: What its runs start with.

    Raises:
        GateError: Its type of actions, or a gate of its own, cannot work.
    """
    if "action" in vars(cls) or "max_actions" in vars(cls):
        _give_types(cls)
    for gate in (cls.whole, cls.each):
        _give_gate(cls, gate)
    _give_steps(cls, start)


def _give_types(cls: type[ActionPlan]) -> None:
    """Make the events of a workflow, which hold actions of its type and no others.

    Upstream and the gates go by the classes of events; and stored data never chooses a class.
    """
    kinds = ActionKinds(cls.action, cls.max_actions)
    planned = _typed(cls, PlannedAction, action=kinds.type)
    several = Annotated[tuple[planned, ...], Field(max_length=cls.max_actions)]  # type: ignore[valid-type]
    plan = _typed(cls, Plan, actions=several)
    cls._kinds = kinds
    cls._plan_event = _typed(cls, PlanProposed, plan=plan)
    cls._action_event = _typed(cls, ActionProposed, action=kinds.type)


def _typed(cls: type[ActionPlan], base: type[Any], **types: Any) -> type[Any]:
    fields: dict[str, Any] = {name: (kind, ...) for name, kind in types.items()}
    made = create_model(
        base.__name__, __base__=base, __module__=cls.__module__, __doc__=base.__doc__, **fields
    )
    # Found under its name: a runtime that pickles its events has to look it up.
    made.__qualname__ = f"{cls.__qualname__}.{base.__name__}"
    setattr(cls, base.__name__, made)
    return made


def _give_steps(cls: type[ActionPlan], start: type[StartEvent]) -> None:
    """Let the steps send the events of this workflow, and take those that its gates may send."""

    async def propose(self, ctx, ev):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        return await self._propose(ctx, ev)

    async def carry_out(self, ctx, ev):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        return await self._carry_out(ctx, ev)

    outcomes = (*cls.whole.outcome_types, *cls.each.outcome_types)
    proposed = cls._plan_event | cls._action_event | ActionsReady
    _give_step(cls, propose, start, proposed)
    _give_step(cls, carry_out, reduce(or_, outcomes, ActionsReady), PlanResult | None)


def _give_step(cls: type[ActionPlan], function: Any, takes: Any, gives: Any) -> None:
    name = function.__name__
    if name in vars(cls):
        return  # it has one of its own
    function.__qualname__ = f"{cls.__qualname__}.{name}"
    function.__module__ = cls.__module__
    function.__doc__ = getattr(cls, name).__doc__
    function.__annotations__ = {"ctx": Context[PlanState], "ev": takes, "return": gives}
    setattr(cls, name, step(num_workers=1)(function))


def _give_gate(cls: type[ActionPlan], gate: Review) -> None:
    """Let a gate take the events of this workflow, where it was made for those of another one."""
    if DecisionKind.RESPOND in gate.allowed and gate.quorum != 1:
        raise GateError(
            f"Gate {gate.name!r} of {cls.__name__} has a quorum, and by a choice of actions one "
            "person would decide alone: give it decisions=('approve', 'edit', 'reject')."
        )
    event: type[Event] = (
        cls._plan_event if issubclass(gate.event, PlanProposed) else cls._action_event
    )
    if gate.event is event:
        return
    if gate.step_name in vars(cls):
        delattr(cls, gate.step_name)
    own = gate.replace(event=event)
    own.__set_name__(cls, gate.name)
    setattr(cls, gate.name, own)
