"""Escalation: an agent that is out of its depth asks people, and goes on with their guidance.

An agent, or a step, says why it needs help, what the matter is and what it would do. Which people
are asked is for rules to say, on facts that your code knows: a model has no say in it, and neither
has the tone of a customer. What people answer comes back into the run as an event. Nobody who does
not answer is waited for for ever, if the route has a ladder, and silence stands for nothing.

    class Support(Workflow):
        @step
        async def work(self, ev: StartEvent) -> Escalation | StopEvent: ...

        guidance = escalation_desk(RoutingTable(
            Route("legal", "role:legal", when=one_of("category", ["legal"], then="ask")),
            Route("leads", "role:lead", ladder={timedelta(hours=4): Escalate("role:head")}),
        ))

        @step
        async def go_on(self, ev: Guided | NoGuidance | GuidanceWithdrawn) -> StopEvent: ...
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from workflows.events import Event

from llama_index_hitl._proposals import FOR_THE_GATE
from llama_index_hitl.errors import GateError, SubjectError
from llama_index_hitl.events import Expired, Rejected, Responded
from llama_index_hitl.gates import Review
from llama_index_hitl.models import (
    Evidence,
    FiniteDecimal,
    LadderAction,
    NonBlank,
    Priority,
    Reject,
    RuleResult,
    RuleVerdict,
    entries_of,
)
from llama_index_hitl.prebuilt._base import one_line
from llama_index_hitl.rules import Rule

if TYPE_CHECKING:
    from llama_index.core.agent.workflow import AgentOutput
    from llama_index.core.tools import FunctionTool

ESCALATE_TOOL = "escalate"
"""Name of the tool by which an agent asks for help."""

_NOT_FACTS = ("needed", "about")  # what somebody says, as opposed to what is known


class EscalationNeeded(BaseModel):
    """What an agent says when it needs a person. Nothing in it decides who that is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: str = Field(description="Why a person is needed")
    context: str = Field(description="What a person has to know to decide")
    suggested_action: str = Field(description="What you would do")


class Escalation(Event):
    """A step needs guidance. Subclass it to add facts for rules to go by.

    Attributes:
        needed: What the agent, or the step, says about it. No rule sees it.
        category: What kind of matter it is, as your code knows; empty: none.
        amount: Money at stake, as your code knows; 0: none.
        about: What it is about, such as a customer's words. People see it; no rule does.

    Example:
        >>> needed = EscalationNeeded(reason="?", context="A refund", suggested_action="Refuse it")
        >>> class Complaint(Escalation):
        ...     customer: str = ""
        >>> Complaint(needed=needed, category="refund", amount=900, customer="Ann").facts()
        {'category': 'refund', 'amount': Decimal('900'), 'customer': 'Ann'}
    """

    needed: EscalationNeeded
    category: str = ""
    amount: FiniteDecimal = Field(default=0, validate_default=True)
    about: str = ""

    def facts(self) -> dict[str, Any]:
        """Return what rules go by: every declared field but `needed` and `about`.

        Raises:
            SubjectError: There are others, such as one that is misspelt; an event takes any
                keyword, and a rule would go by the default.
        """
        if unknown := [name for name in self.keys() if name not in FOR_THE_GATE]:
            raise SubjectError(
                f"{type(self).__name__} has no field {', '.join(unknown)}. Declare facts in a "
                "subclass, and give the gate event= that class."
            )
        names = (name for name in type(self).model_fields if name not in _NOT_FACTS)
        return {name: getattr(self, name) for name in names}


class Guidance(BaseModel):
    """What a person answers to an escalation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instruction: NonBlank = Field(
        description="What to do; the agent follows it.", json_schema_extra={"format": "textarea"}
    )
    decision: Literal["go_on", "take_over"] = Field(
        default="go_on", description="Let the agent go on, or take the matter over."
    )


class Guided(Responded):
    """Guidance has come.

    The example of `escalation_desk` takes one.

    Attributes:
        response: The guidance.
    """

    response: Guidance

    @property
    def message(self) -> str:
        """What to tell the agent."""
        who, said = self.answers[-1].by.id, self.response.instruction
        if self.response.decision == "take_over":
            return f"{who} takes this over, so do nothing more about it: {said}"
        return f"Guidance by {who}: {said}"


class NoGuidance(Expired):
    """Nobody has answered, on any level, and nobody is waited for any longer.

    The example of `escalation_desk` takes one.
    """

    @property
    def message(self) -> str:
        """What to tell the agent."""
        return "Nobody has answered. That is no permission: do not do what you have asked about."


class GuidanceWithdrawn(Rejected):
    """The question was taken back before anybody answered.

    The example of `escalation_desk` takes one.
    """


# --------------------------------------------------------------------------- who is asked


@dataclass(frozen=True)
class Route:
    """A queue of people, and what is for them.

    Attributes:
        name: What the queue is called; the request has it as a tag, `route:` before it.
        queue: Whom to ask: ids and `role:...` entries; empty: anyone whom the channel lets in.
        when: Matches the facts of an escalation; what it says then does not matter. In doubt it
            matches: a rule that raises sends the escalation here. None: it takes all that is left.
        ladder: What happens while nobody answers: times after the question, and `Remind()`,
            `Widen([...])`, `Escalate([...])` to the next level, or `Expire()`. Empty: it is waited
            for ever.
        priority: How urgent it is.

    Raises:
        GateError: Such a route cannot work.

    Example:
        >>> from datetime import timedelta
        >>> from llama_index_hitl.rules import one_of
        >>> route = Route(
        ...     "legal",
        ...     "role:legal",
        ...     when=one_of("category", ["legal"], then="ask"),
        ...     ladder={timedelta(hours=4): Remind(), timedelta(days=2): Expire()},
        ... )
        >>> route.entries
        ('role:legal',)
    """

    name: str
    queue: Sequence[str] | str = ()
    _: KW_ONLY
    when: Rule | None = None
    ladder: Mapping[timedelta, LadderAction] = field(default_factory=dict)
    priority: Priority = "normal"

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise GateError("A route needs a name.")
        if self.when is not None and not isinstance(self.when, Rule):
            raise GateError(f"when= of route {self.name!r} takes a Rule, not {self.when!r}.")
        if any(isinstance(action, Reject) for action in self.ladder.values()):
            raise GateError(
                f"Route {self.name!r} has a Reject() on its ladder, and there is nothing to "
                "reject: let it Expire()."
            )
        # A gate knows best what it cannot ask; better now than when somebody needs help.
        Review(
            Escalation,
            response=Guidance,
            reviewers=self.queue,
            ladder=self.ladder,
            priority=self.priority,
        )

    @property
    def entries(self) -> tuple[str, ...]:
        """Whom to ask, as a tuple."""
        return entries_of(self.queue)


class RoutingTable:
    """Routes in order: the first that matches takes an escalation.

    Args:
        *routes: The routes; the last one, and only that, has no rule.

    Raises:
        GateError: There is no such last route, or two have one name.

    Example:
        >>> from llama_index_hitl.rules import one_of
        >>> table = RoutingTable(
        ...     Route("legal", "role:legal", when=one_of("category", ["legal"], then="ask")),
        ...     Route("leads", "role:lead"),
        ... )
        >>> needed = EscalationNeeded(reason="?", context="A refund", suggested_action="Refuse it")
        >>> route, why = table.match(Escalation(needed=needed, category="legal"))
        >>> route.name
        'legal'
    """

    def __init__(self, *routes: Route) -> None:
        if [route for route in routes if route.when is None] != list(routes[-1:]):
            raise GateError(
                "A RoutingTable ends with its one route without when=, for all that no other takes."
            )
        if not routes:
            raise GateError("A RoutingTable needs a route.")
        names = [route.name for route in routes]
        if len(set(names)) != len(names):
            raise GateError(f"Two routes have one name: {', '.join(sorted(names))}.")
        self.routes = routes

    def match(self, escalation: Escalation) -> tuple[Route, str]:
        """Return the route of an escalation, and why it is that one.

        Args:
            escalation: The escalation.
        """
        facts = escalation.facts()
        for route in self.routes:
            if route.when is not None and (reason := reason_of_match(route.when, facts)):
                return route, reason
        return self.routes[-1], "no other route takes it"


def reason_of_match(rule: Rule, facts: Any) -> str | None:
    """Return why a rule matches, whatever it says then; None: it does not.

    A rule that raises matches: in doubt a person is asked.
    """
    try:
        result = rule(facts)
        reason = None if result is None else result.reason or result.rule
    except Exception as error:  # noqa: BLE001 - a broken rule must not keep a person out
        reason = f"{rule.name} raised {type(error).__name__}"
    return reason


def mentions(field: str, *phrases: str) -> Rule:
    """Match a text that has one of these words or phrases in it, in upper or lower case.

    Good enough to ask a person once more than needed. Never skip one by it: whoever writes the text
    can avoid any word.

    Args:
        field: Name of the text.
        *phrases: The phrases, at least one; a word matches as a whole, not within another.

    Returns:
        The rule, which says *ask*. Evaluated on anything but a text, it raises.

    Raises:
        ValueError: There is no phrase, or a blank one.

    Example:
        >>> from llama_index_hitl.rules import evaluate
        >>> legal = mentions("text", "lawyer", "legal action")
        >>> evaluate(legal, {"text": "My LAWYER says no"}).reason
        "text mentions 'lawyer'"
    """
    if not phrases or not all(phrase.split() for phrase in phrases):
        raise ValueError("mentions() needs phrases that are not blank")
    patterns = {phrase: _as_whole_words(phrase) for phrase in phrases}
    name = f"{field} mentions a phrase"

    def body(subject: Any) -> RuleResult | None:
        text = subject[field] if isinstance(subject, Mapping) else getattr(subject, field)
        found = next((phrase for phrase, one in patterns.items() if one.search(text)), None)
        if found is None:
            return None
        return RuleResult(
            verdict=RuleVerdict.ASK, rule=name, reason=f"{field} mentions {found[:80]!r}"
        )

    return Rule(name, body)


def _as_whole_words(phrase: str) -> re.Pattern[str]:
    words = r"\s+".join(re.escape(word) for word in phrase.split())
    return re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)


# --------------------------------------------------------------------------- the gate


def escalation_desk(routes: RoutingTable | Callable[[Any], RoutingTable], **options: Any) -> Review:
    """Return a gate that takes an `Escalation` and asks the people whom it is routed to.

    Put it into the body of your workflow class. The outcomes are `Guided`, `NoGuidance` and
    `GuidanceWithdrawn`; your steps accept all three.

    Args:
        routes: The routing table, or a function of the workflow that gives it.
        **options: Other options of `Review`, such as `event=`, a subclass of `Escalation` to take
            instead, `calendar=WorkingHours(...)`, so that only working time counts on the ladders,
            or `escalate_to=`, whom people may pass it on to.

    Example:
        >>> from workflows import Workflow, step
        >>> from workflows.events import StartEvent, StopEvent
        >>> from llama_index_hitl.testing import ScriptedReviewer, review_with
        >>> class Support(Workflow):
        ...     @step
        ...     async def work(self, ev: StartEvent) -> Escalation:
        ...         needed = EscalationNeeded(reason="?", context=ev.text, suggested_action="Wait")
        ...         return Escalation(needed=needed)
        ...
        ...     guidance = escalation_desk(RoutingTable(Route("leads", "role:lead")))
        ...
        ...     @step
        ...     async def go_on(self, ev: Guided | NoGuidance | GuidanceWithdrawn) -> StopEvent:
        ...         return StopEvent(result=ev.response.instruction)
        >>> async def main():
        ...     answer = Respond(response=Guidance(instruction="Refund it."))
        ...     lea = ScriptedReviewer([answer], by=Reviewer(id="lea", roles=("lead",)))
        ...     return await review_with(Support(timeout=None).run(text="It broke."), lea)
        >>> asyncio.run(main())
        'Refund it.'
    """

    def route(flow: Any, ev: Escalation) -> tuple[Route, str]:
        table = routes if isinstance(routes, RoutingTable) else routes(flow)
        return table.match(ev)

    gate = Review(
        Escalation,
        subject="needed",
        title=lambda _, ev: f"Guidance needed: {one_line(ev.needed.reason)}",
        body=lambda flow, ev: _known(ev, *route(flow, ev)),
        evidence=lambda _, ev: [Evidence(title="About", body=ev.about)] if ev.about else [],
        reviewers=lambda flow, ev: route(flow, ev)[0].entries or None,
        ladder=lambda flow, ev: route(flow, ev)[0].ladder,
        priority=lambda flow, ev: route(flow, ev)[0].priority,
        tags=lambda flow, ev: f"route:{route(flow, ev)[0].name}",
        response=Guidance,
        responded=Guided,
        rejected=GuidanceWithdrawn,
        expired=NoGuidance,
    )
    return gate.replace(**options)


def _known(ev: Escalation, route: Route, reason: str) -> str:
    """Say what is known for certain, apart from what the agent says."""
    facts = {name: value for name, value in ev.facts().items() if value}
    lines = [f"Queue: {route.name} ({reason})", *(f"{name}: {facts[name]}" for name in facts)]
    return "\n".join(f"- {one_line(line)}" for line in lines)


# --------------------------------------------------------------------------- agents


def escalate_tool(description: str | None = None) -> FunctionTool:
    """Return a tool by which an agent asks for help. Calling it ends the agent's turn.

    Run the agent in a step, look for the call with `escalation_in`, and send an `Escalation`. Run
    it again with what comes back: `ev.message`.

    Args:
        description: When to use it, for the agent; None: when it cannot or may not decide.

    Example:
        >>> from llama_index.core.agent.workflow import FunctionAgent
        >>> from llama_index_hitl.testing import ScriptedLLM, ToolCall
        >>> call = ToolCall(
        ...     name="escalate",
        ...     arguments={"reason": "law", "context": "He sues.", "suggested_action": "Wait."},
        ... )
        >>> async def main():
        ...     agent = FunctionAgent(tools=[escalate_tool()], llm=ScriptedLLM([[call]]))
        ...     return escalation_in(await agent.run(user_msg="I will sue you!"))
        >>> asyncio.run(main()).reason
        'law'
    """
    # Imported where it is needed: it takes seconds, and not every escalation is of an agent.
    from llama_index.core.tools import FunctionTool

    def escalate(reason: str, context: str, suggested_action: str) -> str:
        return "A person is asked."

    return FunctionTool.from_defaults(
        escalate,
        name=ESCALATE_TOOL,
        description=description
        or "Ask a person for guidance. Use it when you cannot resolve a matter, or may not.",
        fn_schema=EscalationNeeded,
        return_direct=True,
    )


def escalation_in(output: AgentOutput) -> EscalationNeeded | None:
    """Return what an agent has asked for help with by `escalate_tool`; None: nothing.

    The example of `escalate_tool` reads it.

    Args:
        output: What the agent's run has returned.
    """
    # Not by the output of the tool: of several calls at once the agent returns only one.
    for call in output.tool_calls:
        if call.tool_name == ESCALATE_TOOL:
            try:
                return EscalationNeeded.model_validate(call.tool_kwargs)
            except ValidationError:
                continue  # the agent was told, and may have called it again
    return None
