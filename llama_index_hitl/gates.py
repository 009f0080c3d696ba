"""Gates: review steps that you compose into a workflow of your own.

A `Review` in the body of a workflow class becomes one step of that workflow. The step takes the
event under review, asks people, takes their answers one by one, and sends the outcome on to the
step that accepts it. Nothing has to be registered, and nothing runs twice: the question ends a
step, and each answer begins one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from functools import reduce
from operator import or_
from typing import Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError
from workflows import Context, Workflow, step
from workflows.events import Event, HumanResponseEvent, StopEvent

from llama_index_hitl._declaration import check_options, check_place
from llama_index_hitl._gatekeeper import Gatekeeper
from llama_index_hitl._upstream import produced_by
from llama_index_hitl.calendars import WorkingHours
from llama_index_hitl.clock import Clock
from llama_index_hitl.errors import GateError
from llama_index_hitl.events import (
    Approved,
    Expired,
    Rejected,
    Responded,
    ReviewDeadlineEvent,
    ReviewOutcomeEvent,
    ReviewRequestEvent,
    ReviewResponseEvent,
    ReviewWithdrawEvent,
    Revision,
    RevisionsExhausted,
)
from llama_index_hitl.forms import problems_of
from llama_index_hitl.models import (
    INLINE_GATE,
    DeadlineAction,
    DecisionKind,
    Escalate,
    Evidence,
    Expire,
    LadderAction,
    Priority,
    ReviewPolicy,
)
from llama_index_hitl.rules import Rule

T = TypeVar("T")
Option: TypeAlias = T | Callable[[Any, Any], T | Awaitable[T]]
"""A value, or a function of the workflow instance and the event under review that gives it."""


@dataclass(frozen=True, eq=False)
class Review:
    """A gate: the events that it takes pass only when people, or a rule, let them.

    Put it into the body of a workflow class, under the name of the gate. Options that are typed
    `Option` may be functions `(workflow, event) -> value`, plain or async, called once when the
    question is asked; what they return is stored with the request.

    Outcomes without an event of their own (`rejected`, `expired`, `exhausted`, `responded`) end the
    run: its result is then the outcome event, such as `Rejected`.

    A ladder says what happens at which time after the question: `Remind()`, `Widen([...])`,
    `Escalate([...])`, `Reject()` or `Expire()`, never an approval. Its instants are stored with the
    request. The first rung that closes the request is its deadline. Those behind an `Escalate` are
    for the request that follows, at the same instants; where a person escalates before that rung,
    they come into force at once. If there is no such rung, the request that follows keeps what is
    left, but nobody is added to those it is passed on to. An edit begins the ladder anew.

    The question, every answer and what is left of the ladder are part of the run. They survive a
    snapshot of it, and a crash where a `Runner` keeps it: nothing is asked again, and the answers
    that were taken still count.

    Attributes:
        event: The event under review. Of an `Approved` event the subject is reviewed again.
        subject: Name of the field of the event that is the subject, a pydantic model; None: the
            event itself is the subject.
        title: One line that says what this is about.
        body: What there is to know, in Markdown.
        evidence: What helps to decide.
        stage: Name of the stage; the gate's name if left out.
        reviewers: Ids and `role:...` entries; empty: anyone whom the channel lets in. A function
            returns None for that: one that finds nobody raises.
        quorum: Approvals needed; `all`; or so many for each role, as `{"legal": 2}`.
        rejections: Rejections that reject; 1 is a veto for everyone.
        veto_roles: Roles whose single rejection rejects.
        distinct_from: Earlier stages, or their gates, whose approvers may not answer here.
        requester: Id of the person on whose behalf the run asks.
        bar_requester: The requester may not answer.
        second_person_for_edit: An edited subject needs the approval of somebody else.
        editable: People may edit the subject and approve it so.
        abstainable: People may abstain.
        delegable: People may hand their vote to somebody else.
        escalate_to: Whom to ask when somebody escalates; empty: nobody can.
        response: Pydantic model of a structured answer; the gate then asks for one, and it can
            neither be approved nor rejected unless `decisions` says so. A plain function
            `(workflow, event)` gives each request a model of its own; it must give the same for
            the same event, in every process.
        decisions: The decisions to allow, where those that follow from the above do not fit.
        deadline: Time to answer, counted from the question; None: no limit. A request that takes
            the place of another one by an escalation or an edit has as much time again.
        on_deadline: What happens then: `Expire()`, `Escalate([...])` or `Reject()`. A request that
            was escalated expires in place of being escalated again.
        ladder: What happens as time passes, where one deadline is not enough: times after the
            question, and the actions; see above.
        calendar: Working hours: only they count in `deadline` and `ladder`, so that the times of
            both are working time. None: all time counts.
        max_revisions: How often a draft may be sent back; None: as often as people like.
        key: Name of the field of the event that says which thing is under review. A newer draft of
            the same thing supersedes the open request for the older one. None: every event is a
            thing of its own, and a draft that comes after `Revise` is the revision of that one.
        when: Rule that says whether a person is needed, or a function `(workflow, event) -> Rule`;
            None: always.
        priority: How urgent it is.
        tags: Words to find it by.
        clock: Where the time comes from; by default the workflow's attribute `clock`, or else the
            runner's clock, or UTC now.
        approved: Event for an approval; `Approved` or a subclass.
        revise: Event for a draft that was sent back; None: it cannot be.
        rejected: Event for a rejection; None: ends the run.
        responded: Event for a response; None: ends the run.
        expired: Event for a missed deadline; None: ends the run.
        exhausted: Event for one `Revise` too many; None: ends the run.
        name: Name of the gate: that of the attribute.

    Raises:
        GateError: The declaration cannot work; raised when it is made, or when the class is (where
            Python 3.11 wraps it into a RuntimeError, whose `__cause__` it is).

    Example:
        >>> from workflows import Workflow, step
        >>> from workflows.events import Event, StartEvent, StopEvent
        >>> from llama_index_hitl.testing import ScriptedReviewer, review_with
        >>> class Draft(Event):
        ...     text: str
        >>> class Publishing(Workflow):
        ...     @step
        ...     async def write(self, ev: StartEvent | Revision) -> Draft:
        ...         return Draft(text="Mice." if isinstance(ev, Revision) else "Mice are small.")
        ...
        ...     editor = Review(Draft, revise=Revision, max_revisions=3)
        ...
        ...     @step
        ...     async def publish(self, ev: Approved) -> StopEvent:
        ...         return StopEvent(result=f"{ev.subject.text} ({ev.answers[-1].by.id})")
        >>> async def main():
        ...     erin = ScriptedReviewer([Revise(feedback="shorter"), Approve()], by="erin")
        ...     return await review_with(Publishing(timeout=None).run(), erin)
        >>> asyncio.run(main())
        'Mice. (erin)'
    """

    event: type[Event]
    _: KW_ONLY
    subject: str | None = None
    title: Option[str] | None = None
    body: Option[str] = ""
    evidence: Option[Sequence[Evidence]] = ()
    stage: str | None = None
    reviewers: Option[Sequence[str] | str | None] = ()
    quorum: int | Literal["all"] | dict[str, int] = 1
    rejections: int = 1
    veto_roles: Sequence[str] | str = ()
    distinct_from: Sequence[str] | str = ()
    requester: Option[str | None] = None
    bar_requester: bool = False
    second_person_for_edit: bool = False
    editable: bool = False
    abstainable: bool = False
    delegable: bool = False
    escalate_to: Sequence[str] | str = ()
    response: type[BaseModel] | Callable[[Any, Any], type[BaseModel]] | None = None
    decisions: Sequence[DecisionKind | str] | None = None
    deadline: Option[timedelta | None] = None
    on_deadline: DeadlineAction = field(default_factory=Expire)
    ladder: Option[Mapping[timedelta, LadderAction] | None] = None
    calendar: WorkingHours | None = None
    max_revisions: Option[int | None] = None
    key: str | None = None
    when: Rule | Callable[[Any, Any], Rule | None] | None = None
    priority: Option[Priority] = "normal"
    tags: Option[Sequence[str] | str] = ()
    clock: Clock | None = None
    approved: type[Approved] = Approved
    revise: type[Revision] | None = None
    rejected: type[Rejected] | None = None
    responded: type[Responded] | None = None
    expired: type[Expired] | None = None
    exhausted: type[RevisionsExhausted] | None = None
    name: str = field(init=False, default="")

    def __post_init__(self) -> None:
        kind: Any = self.event
        if not (isinstance(kind, type) and issubclass(kind, Event)):
            raise GateError(f"Review needs the class of an event, not {self.event!r}.")
        for option, base in _OUTCOMES.items():
            found = getattr(self, option)
            if found is not None and not (isinstance(found, type) and issubclass(found, base)):
                raise GateError(f"{option}= must be a subclass of {base.__name__}, not {found!r}.")
            fields = {} if found is None else found.model_fields
            own = [n for n, f in fields.items() if f.is_required() and n not in base.model_fields]
            if own:
                raise GateError(
                    f"The event for {option}= has fields that nobody fills: {', '.join(own)}. "
                    "Give them default values."
                )
        if self.event is self.approved:
            raise GateError(
                f"{self.event.__name__} would be sent back to the gate that approved it; give the "
                "gate an approved= event of its own."
            )
        if self.bar_requester and self.requester is None:
            raise GateError("bar_requester= needs requester=, whose run this is.")
        if self.max_revisions is not None and self.revise is None:
            raise GateError("max_revisions= needs revise=, the event that asks for a new draft.")
        check_options(self)
        self._check_decisions()
        self._check_policy()

    def _check_decisions(self) -> None:
        kinds = self.allowed
        if DecisionKind.REVISE in kinds and self.revise is None:
            raise GateError("A gate that allows 'revise' needs revise=, an event to go back with.")
        if DecisionKind.RESPOND in kinds and self.response is None:
            raise GateError("A gate that allows 'respond' needs response=, a pydantic model.")
        if DecisionKind.ESCALATE in kinds and not self.escalate_to:
            raise GateError("A gate that allows 'escalate' needs escalate_to=, whom to ask.")
        if isinstance(self.on_deadline, Escalate) and not (self.on_deadline.to or self.escalate_to):
            raise GateError("on_deadline=Escalate(...) needs somebody to escalate to.")
        if not kinds:
            raise GateError("A gate must allow at least one decision.")

    def _check_policy(self) -> None:
        """Refuse what can never be reached, as far as it is known before anything is asked."""
        by_role = self.quorum if isinstance(self.quorum, dict) else {}
        reviewers = (self.reviewers,) if isinstance(self.reviewers, str) else self.reviewers or ()
        votes = {"approvals": self.quorum, "per_role": by_role, "rejections": self.rejections}
        if by_role or (callable(reviewers) and self.quorum == "all"):
            votes["approvals"] = 1
        try:
            ReviewPolicy.model_validate(
                {**votes, "reviewers": () if callable(reviewers) else tuple(reviewers)}
            )
        except ValidationError as error:
            said = "; ".join(str(problem) for problem in problems_of(error))
            raise GateError(f"Such votes cannot be: {said}.") from None
        if isinstance(self.max_revisions, int) and self.max_revisions < 0:
            raise GateError("max_revisions= cannot be less than 0.")

    @property
    def allowed(self) -> tuple[DecisionKind, ...]:
        """The decisions that this gate allows."""
        if self.decisions is not None:
            try:
                return tuple(DecisionKind(kind) for kind in self.decisions)
            except ValueError as error:
                raise GateError(f"decisions=: {error}") from None
        offered = {
            DecisionKind.APPROVE: self.response is None,
            DecisionKind.REJECT: self.response is None,
            DecisionKind.REVISE: self.revise is not None,
            DecisionKind.EDIT: self.editable,
            DecisionKind.RESPOND: self.response is not None,
            DecisionKind.ESCALATE: bool(self.escalate_to),
            DecisionKind.DELEGATE: self.delegable,
            DecisionKind.ABSTAIN: self.abstainable,
        }
        return tuple(kind for kind, yes in offered.items() if yes)

    def response_model(self, workflow: Workflow, event: Event) -> type[BaseModel] | None:
        """Return the model of the answer to one event under review; None: there is none.

        Args:
            workflow: The instance that asks.
            event: The event under review.
        """
        option = self.response
        return option if option is None or isinstance(option, type) else option(workflow, event)

    def siblings(self, workflow: Workflow) -> dict[str, Review]:
        """Return all gates of a workflow, this one included, by name.

        Args:
            workflow: The instance that asks.
        """
        return gates_of(workflow)

    def replace(self, **changes: Any) -> Review:
        """Return a gate like this one with some options changed, to override it in a subclass.

        Args:
            **changes: The options, as `Review` takes them.

        Example:
            >>> from llama_index_hitl.prebuilt import DraftApproval
            >>> class TwoPeople(DraftApproval):
            ...     approval = DraftApproval.approval.replace(quorum=2)
            >>> gates_of(TwoPeople)["approval"].quorum
            2
        """
        return dataclasses.replace(self, **changes)

    @property
    def step_name(self) -> str:
        """Name of the step that this gate becomes."""
        return self.name + _STEP_SUFFIX

    def __set_name__(self, owner: type, name: str) -> None:
        """Become a step of the class that this gate is put into."""
        if self.name and self.name != name:
            raise GateError(
                f"Gate {self.name!r} cannot be {name!r} as well; use .replace() for a second one."
            )
        if name == INLINE_GATE:
            raise GateError(
                f"A gate cannot be named {INLINE_GATE!r}: that is for inline questions."
            )
        if hasattr(Workflow, name) or name == "clock":
            raise GateError(
                f"A gate cannot be named {name!r}: a workflow has something else there."
            )
        object.__setattr__(self, "name", name)
        if self.step_name in vars(owner):
            raise GateError(
                f"{owner.__name__}.{self.step_name} is in the way of gate {name!r}; rename one."
            )
        self._refuse_other_stop_event(owner)
        check_place(self, owner, (g for n, g in gates_of(owner).items() if n != name and g.name))
        # Upstream finds steps among the functions of the class; a name is all it takes.
        setattr(owner, self.step_name, self._make_step(owner))

    @property
    def accepts(self) -> tuple[type[Event], ...]:
        """The events that this gate takes."""
        # All of them always: a run that is paused must fit a gate that is given a deadline later.
        return (
            self.event,
            ReviewResponseEvent,
            HumanResponseEvent,
            ReviewDeadlineEvent,
            ReviewWithdrawEvent,
        )

    @property
    def _expires(self) -> bool:
        """Whether a request of this gate may expire."""
        if self.ladder is None:
            return self.deadline is not None
        return callable(self.ladder) or any(isinstance(a, Expire) for a in self.ladder.values())

    @property
    def outcome_types(self) -> tuple[type[ReviewOutcomeEvent], ...]:
        """The outcome events that this gate can emit, where they do not end the run."""
        kinds = self.allowed
        possible: dict[type[ReviewOutcomeEvent] | None, bool] = {
            self.approved: not {DecisionKind.APPROVE, DecisionKind.EDIT}.isdisjoint(kinds)
            or self.when is not None,
            self.rejected: True,
            self.revise: DecisionKind.REVISE in kinds,
            self.responded: DecisionKind.RESPOND in kinds,
            self.expired: self._expires,
            self.exhausted: self.max_revisions is not None,
        }
        return tuple(kind for kind, yes in possible.items() if kind is not None and yes)

    @property
    def ends_run(self) -> bool:
        """Whether an outcome of this gate can end the run."""
        kinds = self.allowed
        return (
            self.rejected is None
            or (self.responded is None and DecisionKind.RESPOND in kinds)
            or (self.expired is None and self._expires)
            or (self.exhausted is None and self.max_revisions is not None)
        )

    def _make_step(self, owner: type) -> Any:
        gate = self

        async def gate_step(self, ctx, ev):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
            return await Gatekeeper(gate, self, ctx).handle(ev)

        returns = [ReviewRequestEvent, *self.outcome_types, *([StopEvent] if self.ends_run else [])]
        gate_step.gate = self  # type: ignore[attr-defined] # how `gates_of` finds it
        gate_step.__name__ = self.step_name
        gate_step.__qualname__ = f"{owner.__qualname__}.{self.step_name}"
        gate_step.__module__ = owner.__module__
        gate_step.__doc__ = f"Gate {self.name!r}: asks people about {self.event.__name__}."
        gate_step.__annotations__ = {
            "ctx": Context,
            "ev": reduce(or_, self.accepts),
            "return": reduce(or_, [*returns, None]),
        }
        # One worker: answers are taken one after the other, and each sees the one before.
        return step(num_workers=1)(gate_step)

    def _refuse_other_stop_event(self, owner: type) -> None:
        if not self.ends_run:
            return
        for other in vars(owner).values():
            for produced in produced_by(other):
                if issubclass(produced, StopEvent) and produced is not StopEvent:
                    raise GateError(
                        f"{owner.__name__} ends with {produced.__name__}, so gate {self.name!r} "
                        "cannot end the run by itself: give it rejected= (and expired=, "
                        "exhausted=, responded= where they can happen)."
                    )


_STEP_SUFFIX = "_gate"

_OUTCOMES: dict[str, type[ReviewOutcomeEvent]] = {
    "approved": Approved,
    "revise": Revision,
    "rejected": Rejected,
    "responded": Responded,
    "expired": Expired,
    "exhausted": RevisionsExhausted,
}


def gates_of(workflow: Workflow | type[Workflow]) -> dict[str, Review]:
    """Return the gates of a workflow by name, in a stable order.

    Args:
        workflow: The workflow, or its class.

    Example:
        >>> from llama_index_hitl.prebuilt import DocumentApproval
        >>> {name: gate.stage for name, gate in gates_of(DocumentApproval).items()}
        {'content_review': 'content', 'final_review': 'final'}
    """
    cls = workflow if isinstance(workflow, type) else type(workflow)
    # By their steps: those are what runs, whatever has become of the attribute in a subclass.
    names = sorted({n for base in cls.__mro__ for n in vars(base) if n.endswith(_STEP_SUFFIX)})
    found = [getattr(getattr(cls, name), "gate", None) for name in names]
    return {gate.name: gate for gate in found if isinstance(gate, Review)}
