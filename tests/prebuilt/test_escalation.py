from datetime import timedelta
from decimal import Decimal

import pytest
from desks import Desk, person
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.memory import ChatMemoryBuffer
from pydantic import ValidationError
from workflows import Context, Workflow, step
from workflows.events import StartEvent, StopEvent

from llama_index_hitl import (
    Approve,
    Escalate,
    Expire,
    Reject,
    Remind,
    Respond,
    Reviewer,
    ReviewWithdrawEvent,
    Widen,
    WorkingHours,
)
from llama_index_hitl.errors import GateError, InvalidAnswer, NotAllowed, SubjectError
from llama_index_hitl.prebuilt import (
    Escalation,
    EscalationNeeded,
    GuidanceWithdrawn,
    Guided,
    NoGuidance,
    Route,
    RoutingTable,
    escalate_tool,
    escalation_desk,
    escalation_in,
    mentions,
)
from llama_index_hitl.rules import evaluate, one_of, rule, threshold
from llama_index_hitl.testing import ScriptedLLM, ToolCall, review_with

# Raised by LlamaIndex's own agents and by its store for messages.
agent_test = pytest.mark.filterwarnings(
    "ignore::pydantic.warnings.PydanticDeprecationWarning",
    "ignore:is_running called from within a step:DeprecationWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)

HOUR = timedelta(hours=1)
LENA = Reviewer(id="lena", roles=("legal",))
MAX = Reviewer(id="max", roles=("manager",))
ANN = Reviewer(id="ann", roles=("lead",))
HEAD = Reviewer(id="hana", roles=("head",))

NEEDED = EscalationNeeded(
    reason="They want 700 back", context="Order A1, broken", suggested_action="Refund it"
)
TABLE = RoutingTable(
    Route("legal", "role:legal", when=one_of("category", ["legal"], then="ask"), priority="urgent"),
    Route("managers", "role:manager", when=threshold("amount", above=500)),
    Route(
        "leads",
        "role:lead",
        ladder={
            1 * HOUR: Remind(),
            4 * HOUR: Escalate("role:head"),
            8 * HOUR: Widen(["role:manager"]),
            24 * HOUR: Expire(),
        },
    ),
)


class Support(Workflow):
    """A workflow of somebody's own: its step asks for guidance with what it was started with."""

    def __init__(self, clock=None):
        super().__init__(timeout=None)
        if clock is not None:
            self.clock = clock

    @step
    async def work(self, ev: StartEvent) -> Escalation:
        return Escalation(**{"needed": NEEDED, **ev.get("facts", {})})

    desk = escalation_desk(TABLE)

    @step
    async def go_on(self, ev: Guided | NoGuidance | GuidanceWithdrawn) -> StopEvent:
        if isinstance(ev, GuidanceWithdrawn):
            return StopEvent(result="withdrawn")
        return StopEvent(result=ev.message)


def guidance(text="Refund half of it", **more):
    return Respond(response={"instruction": text, **more})


def match(**facts):
    return TABLE.match(Escalation(needed=NEEDED, **facts))[0].name


# --- routing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({}, "leads"),
        ({"category": "billing", "amount": 500}, "leads"),
        ({"amount": Decimal("500.01")}, "managers"),
        ({"category": "legal"}, "legal"),
        ({"category": "legal", "amount": 9_000}, "legal"),
        ({"category": "Legal"}, "leads"),
    ],
)
def test_the_first_route_that_matches_takes_it(facts, name):
    assert match(**facts) == name


def test_what_the_agent_and_the_customer_say_moves_nothing():
    words = "category: legal, amount: 900000, to: role:legal, angry!!!"
    needed = EscalationNeeded(reason=words, context=words, suggested_action=words)
    assert TABLE.match(Escalation(needed=needed, about=words))[0].name == "leads"


def test_an_agent_has_no_field_to_name_a_queue_by():
    for extra in ({"category": "x"}, {"amount": 1}, {"queue": ["mallory"]}, {"to": "mallory"}):
        with pytest.raises(ValidationError):
            EscalationNeeded(reason="a", context="b", suggested_action="c", **extra)
    assert set(EscalationNeeded.model_fields) == {"reason", "context", "suggested_action"}


@pytest.mark.parametrize("field", ["needed", "needed.reason", "about"])
def test_a_rule_on_words_sees_nothing_and_in_doubt_takes_it(field):
    seen = []

    def peek(facts):
        seen.append(dict(facts))
        return facts[field] is None

    table = RoutingTable(
        Route("odd", "role:odd", when=rule("peek", peek, then="ask", reason="odd")), Route("rest")
    )
    route, why = table.match(Escalation(needed=NEEDED, about="angry words"))
    assert seen == [{"category": "", "amount": 0}]
    assert (route.name, why) == ("odd", "peek raised KeyError")


def test_facts_of_ones_own_are_facts():
    at_sea = rule("sea", lambda facts: facts["country"] == "SEA", then="ask", reason="at sea")
    table = RoutingTable(Route("sea", "role:sea", when=at_sea), Route("rest"))
    assert table.match(Ticket(needed=NEEDED, country="SEA"))[0].name == "sea"
    assert table.match(Ticket(needed=NEEDED, country="DE"))[0].name == "rest"


async def test_facts_of_ones_own_route_a_run(start_here):
    live = start_here(lambda: AtSea(timeout=None))
    (question,) = await live.open()
    assert question.request.policy.reviewers == ("role:sea",)
    assert "- country: SEA" in question.request.body


class Ticket(Escalation):
    country: str = ""


class AtSea(Workflow):
    @step
    async def work(self, ev: StartEvent) -> Ticket:
        return Ticket(needed=NEEDED, country="SEA")

    desk = escalation_desk(
        RoutingTable(
            Route("sea", "role:sea", when=one_of("country", ["SEA"], then="ask")),
            Route("rest", "role:rest"),
        ),
        event=Ticket,
    )

    @step
    async def end(self, ev: Guided | NoGuidance | GuidanceWithdrawn) -> StopEvent:
        return StopEvent()


async def test_a_fact_that_is_misspelt_is_an_error_and_no_default():
    with pytest.raises(SubjectError, match="has no field ammount"):
        match(ammount=900)
    assert match(amount=900, approvals=()) == "managers"
    with pytest.raises(SubjectError, match="has no field ammount"):
        await review_with(Support().run(facts={"ammount": 900}))


ANY = threshold("amount", above=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RoutingTable(),
        lambda: RoutingTable(Route("a", "x", when=ANY)),
        lambda: RoutingTable(Route("a"), Route("b", "x", when=ANY)),
        lambda: RoutingTable(Route("a"), Route("b")),
        lambda: RoutingTable(Route("a", "x", when=ANY), Route("a")),
        lambda: Route(" "),
        lambda: Route("a", "roles:legal"),
        lambda: Route("a", when=lambda facts: True),
        lambda: Route("a", ladder={HOUR: Reject()}),
        lambda: Route("a", ladder={HOUR: Approve()}),
        lambda: Route("a", ladder={HOUR: Expire(), 2 * HOUR: Remind()}),
        lambda: Route("a", ladder={-HOUR: Remind()}),
        lambda: Route("a", priority="soon"),
    ],
)
def test_a_table_that_cannot_work_is_refused_when_it_is_made(make):
    with pytest.raises(GateError):
        make()


# --- phrases ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("I will SUE you", True),
        ("(sue)", True),
        ("take legal\n action now", True),
        ("the issue, Susan's tissue", False),
        ("legal and action", False),
        ("", False),
    ],
)
def test_a_phrase_is_found_as_whole_words(text, found):
    said = mentions("text", "sue", "legal action")({"text": text})
    assert (said is not None) is found


def test_a_phrase_is_looked_for_in_a_text_only():
    assert evaluate(mentions("text", "sue"), {"text": 7}).reason.startswith("raised TypeError")
    for phrases in ((), ("sue", " ")):
        with pytest.raises(ValueError, match="not blank"):
            mentions("text", *phrases)


# --- guidance -----------------------------------------------------------------------------------


async def test_guidance_comes_back_into_the_run_in_another_process(tmp_path):
    desk = Desk(tmp_path, Support)
    request = await desk.start(facts={"amount": 700, "category": "refund", "about": "I want it!"})

    assert request.policy.reviewers == ("role:manager",)
    assert request.tags == ("route:managers",)
    assert request.title == "Guidance needed: They want 700 back"
    assert request.subject.data == NEEDED.model_dump()
    assert request.body == (
        "- Queue: managers (amount 700 is above 500)\n- category: refund\n- amount: 700"
    )
    assert [item.body for item in request.evidence] == ["I want it!"]
    with pytest.raises(NotAllowed):
        await desk.answer(guidance(), by=LENA)
    assert await desk.answer(guidance(), by=MAX) is None
    assert await desk.result() == "Guidance by max: Refund half of it"


NO_GUIDANCE = [
    Approve(),
    Reject(),
    Respond(response="approved"),
    Respond(response={"instruction": "  "}),
    Respond(response={"instruction": "x", "decision": "approve"}),
    Respond(response={"instruction": "x", "queue": "legal"}),
]


async def test_what_is_no_guidance_is_refused_and_the_question_stays(tmp_path):
    desk = Desk(tmp_path, Support)
    await desk.start()
    for decision in NO_GUIDANCE:
        with pytest.raises(InvalidAnswer):
            await desk.answer(decision, by=ANN)
    assert await desk.open() is not None


async def test_unanswered_it_climbs_and_in_the_end_the_agent_is_told_that_nobody_answered(tmp_path):
    desk = Desk(tmp_path, Support)
    first = await desk.start()
    assert (await desk.after(hours=1)).request_id == first.request_id
    second = await desk.after(hours=3)
    assert (second.level, second.policy.reviewers) == (1, ("role:head",))
    with pytest.raises(NotAllowed):
        await desk.answer(guidance(), by=ANN)
    assert (await desk.after(hours=4)).request_id == second.request_id
    assert await desk.after(hours=16) is None
    assert await desk.result() == (
        "Nobody has answered. That is no permission: do not do what you have asked about."
    )


async def test_the_next_level_can_answer_as_the_first_could(tmp_path):
    desk = Desk(tmp_path, Support)
    await desk.start()
    await desk.after(hours=5)
    assert await desk.answer(guidance("No refund"), by=HEAD) is None
    assert await desk.result() == "Guidance by hana: No refund"


async def test_only_working_time_counts_where_there_are_working_hours(tmp_path):
    class Office(Support):
        desk = Support.desk.replace(calendar=WorkingHours(time_zone="UTC"))

    desk = Desk(tmp_path, Office)
    await desk.start()  # Monday noon; the office closes at five
    assert (await desk.after(hours=4)).level == 1
    assert (await desk.after(days=2)).level == 1
    assert await desk.after(days=1) is None


async def test_people_may_pass_it_on_where_the_desk_says_to_whom(tmp_path):
    class Passing(Support):
        desk = Support.desk.replace(escalate_to="role:head")

    desk = Desk(tmp_path, Passing)
    await desk.start()
    assert (await desk.answer(Escalate(), by=ANN)).policy.reviewers == ("role:head",)


async def test_a_question_that_is_withdrawn_gives_no_guidance(start):
    live = start(Support)
    (question,) = await live.open()
    event = ReviewWithdrawEvent(request_id=question.request_id, by=Reviewer(id="boss"))
    await live.tell(event)
    assert (await live.handler) == "withdrawn"


# --- agents -------------------------------------------------------------------------------------


class AgentSupport(Workflow):
    """An agent with tools of its own asks for guidance, and goes on with it and its memory."""

    def __init__(self, llm, clock=None):
        super().__init__(timeout=None)
        self.agent = FunctionAgent(tools=[escalate_tool(), look_up], llm=llm)
        if clock is not None:
            self.clock = clock

    @step
    async def work(self, ctx: Context, ev: StartEvent) -> Escalation | StopEvent:
        memory = ChatMemoryBuffer.from_defaults(token_limit=10_000)
        output = await self.agent.run(user_msg=ev.get("text"), memory=memory)
        await ctx.store.set("memory", memory)
        if needed := escalation_in(output):
            return Escalation(needed=needed, amount=700, about=ev.get("text"))
        return StopEvent(result=str(output))

    desk = escalation_desk(TABLE)

    @step
    async def go_on(self, ctx: Context, ev: Guided | NoGuidance) -> StopEvent:
        memory = await ctx.store.get("memory")
        return StopEvent(result=str(await self.agent.run(user_msg=ev.message, memory=memory)))

    @step
    async def stop(self, ev: GuidanceWithdrawn) -> StopEvent:
        return StopEvent()


def look_up(order: str) -> str:
    """Look up an order."""
    return f"{order}: 700"


CALL = ToolCall(name="escalate", arguments=NEEDED.model_dump())


@agent_test
@pytest.mark.parametrize(
    "calls",
    [
        [CALL],
        [ToolCall(name="look_up", arguments={"order": "A1"}), CALL],
        [CALL, ToolCall(name="look_up", arguments={"order": "A1"})],
    ],
)
async def test_an_agent_asks_for_guidance_and_goes_on_with_it(calls):
    llm = ScriptedLLM([calls, "Half of it is on its way."])
    manager = person(guidance(), by=MAX)
    result = await review_with(AgentSupport(llm).run(text="Refund A1!"), manager)
    assert result == "Half of it is on its way."
    assert manager.asked[0].subject.data == NEEDED.model_dump()
    said = [message.content for message in llm.calls[1]]
    assert (said[0], said[-1]) == ("Refund A1!", "Guidance by max: Refund half of it")


@agent_test
async def test_an_agent_goes_on_in_another_process_with_its_memory(tmp_path):
    llm = ScriptedLLM([CALL, "Half of it is on its way."])
    desk = Desk(tmp_path, lambda clock: AgentSupport(llm, clock))
    await desk.start(text="Refund A1!")
    assert await desk.answer(guidance(), by=MAX) is None
    assert await desk.result() == "Half of it is on its way."
    said = [message.content for message in llm.calls[1]]
    assert (said[0], said[-1]) == ("Refund A1!", "Guidance by max: Refund half of it")


@agent_test
async def test_an_agent_that_needs_nobody_asks_nobody():
    manager = person(guidance(), by=MAX)
    result = await review_with(AgentSupport(ScriptedLLM(["Done."])).run(text="Hi"), manager)
    assert (result, manager.asked) == ("Done.", [])


@agent_test
async def test_an_agent_that_names_a_queue_is_told_off_and_may_ask_properly():
    bad = ToolCall(name="escalate", arguments={**NEEDED.model_dump(), "to": "mallory"})
    llm = ScriptedLLM([bad, CALL, "Fine."])
    manager, mallory = person(guidance(), by=MAX), person(guidance("All of it"), by="mallory")
    assert await review_with(AgentSupport(llm).run(text="Hi"), mallory, manager) == "Fine."
    assert mallory.asked == []


async def test_a_person_who_takes_over_stops_the_agent(start_here):
    live = start_here(Support)
    (question,) = await live.open()
    await live.tell(question.answer(guidance("I call them", decision="take_over"), by=ANN))
    assert await live.handler == "ann takes this over, so do nothing more about it: I call them"
