"""Gates: how they are declared, composed into workflows, and what passes through them."""

import asyncio
import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any, ClassVar

import pytest
from flows import (
    Draft,
    LegalApproved,
    Live,
    Note,
    Transfer,
    asked,
    codes,
    drafts,
    made,
    of_kind,
    person,
    revised,
    stages,
    statuses,
    transfers,
)
from pydantic import AfterValidator, BaseModel, Field, create_model, field_serializer
from workflows import Context, Workflow, catch_error, step
from workflows.errors import WorkflowValidationError
from workflows.events import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    WorkflowFailedEvent,
)
from workflows.representation import get_workflow_representation
from workflows.retry_policy import retry_policy, stop_after_attempt, wait_fixed

from llama_index_hitl import (
    Abstain,
    Approve,
    Approved,
    DecisionKind,
    Edit,
    Escalate,
    Evidence,
    Expired,
    Reject,
    Rejected,
    Respond,
    Responded,
    Review,
    ReviewDeadlineEvent,
    ReviewRefusedEvent,
    ReviewRequest,
    ReviewRequestEvent,
    ReviewResponseEvent,
    Revise,
    Revision,
    RevisionsExhausted,
    gates_of,
)
from llama_index_hitl.errors import GateError, SubjectError, TimeoutWarning

Start = Callable[..., Live]
HOUR = timedelta(hours=1)

# --------------------------------------------------------------------------- what passes


async def test_a_guarded_step_gets_the_subject_the_answers_and_a_stable_effect_key(start: Start):
    live = start(drafts(), topic="AI ethics")
    (request,) = await live.open()
    await live.tell(request.answer(Approve(comment="fine"), by="erin"))

    approved = await live.result()
    assert approved.subject == Draft(text="AI ethics")
    assert [(a.by.id, a.comment) for a in approved.answers] == [("erin", "fine")]
    assert approved.effect_key == request.request_id


async def test_the_effect_key_is_the_same_when_the_guarded_step_is_retried(start: Start):
    keys: list[str] = []

    class Flow(Workflow):
        @step
        async def write(self, ev: StartEvent) -> Draft:
            return Draft(text="x")

        review = Review(Draft)

        @step(retry_policy=retry_policy(wait=wait_fixed(0), stop=stop_after_attempt(3)))
        async def publish(self, ev: Approved) -> StopEvent:
            keys.append(ev.effect_key)
            if len(keys) < 3:
                raise ConnectionError("try again")
            return StopEvent(result="published")

    live = start(made(Flow))
    (request,) = await live.open()
    await live.tell(request.answer(Approve(), by="erin"))

    assert keys == [request.request_id] * 3
    assert await live.result() == "published"


async def test_a_retried_step_before_the_gate_asks_once(start: Start):
    tries: list[int] = []

    class Flow(Workflow):
        @step(retry_policy=retry_policy(wait=wait_fixed(0), stop=stop_after_attempt(3)))
        async def write(self, ev: StartEvent) -> Draft:
            tries.append(1)
            if len(tries) < 3:
                raise ConnectionError("try again")
            return Draft(text="x")

        review = Review(Draft)

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            return StopEvent(result="published")

    live = start(made(Flow))
    (request,) = await live.open()
    await live.tell(request.answer(Approve(), by="erin"))

    assert len(tries) == 3
    assert await live.result() == "published"


async def test_a_rejection_without_an_event_of_its_own_ends_the_run(start: Start):
    flow = drafts()
    live = start(flow)
    (request,) = await live.open()
    await live.tell(request.answer(Reject(comment="no"), by="erin"))

    rejected = await live.result()
    assert type(rejected) is Rejected
    assert rejected.feedback == "no"
    assert rejected.outcome.decided_by == ("erin",)
    assert flow.published == []


async def test_a_rejection_goes_to_the_step_that_takes_it(start: Start):
    live = start(transfers(1))
    (request,) = await live.open()
    await live.tell(request.answer(Reject(), by="erin"))
    assert await live.result() == {"payee 0": False}


async def test_a_stage_takes_what_the_stage_before_it_has_approved(start: Start):
    live = start(stages(editable=True), topic="AI")
    (legal,) = await live.open()
    (editor,) = asked(await live.tell(legal.answer(Approve(), by="lena")))
    assert (legal.request.gate, legal.request.stage) == ("legal", "legal")
    assert (editor.request.gate, editor.request.stage) == ("editor", "editor")
    await live.tell(editor.answer(Edit(subject={"text": "AI!"}), by="erin"))

    approved = await live.result()
    assert approved.subject == Draft(text="AI!")
    assert [(a.stage, a.approvers) for a in approved.approvals] == [
        ("legal", ("lena",)),
        ("editor", ("erin",)),
    ]


async def test_an_edit_in_one_stage_is_what_the_next_stage_is_shown(start: Start):
    class Flow(Workflow):
        @step
        async def write(self, ev: StartEvent) -> Draft:
            return Draft(text="raw")

        first = Review(Draft, approved=LegalApproved, editable=True, stage="content")
        second = Review(LegalApproved)

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            return StopEvent(result=ev)

    live = start(made(Flow))
    (first,) = await live.open()
    assert first.request.stage == "content"
    (second,) = asked(await live.tell(first.answer(Edit(subject={"text": "done"}), by="erin")))
    assert second.request.subject.data == {"text": "done"}
    await live.tell(second.answer(Approve(), by="frank"))
    assert (await live.result()).subject == Draft(text="done")


class Safe(Approved):
    """The other of two gates let it pass."""


async def test_two_gates_may_review_the_same_event_side_by_side(start: Start):
    class Flow(Workflow):
        @step
        async def write(self, ev: StartEvent) -> Draft:
            return Draft(text="x")

        content = Review(Draft)
        safety = Review(Draft, approved=Safe)

        @step
        async def join(self, ctx: Context, ev: Approved | Safe) -> StopEvent | None:
            both = ctx.collect_events(ev, [Approved, Safe])
            return None if both is None else StopEvent([e.request.gate for e in both])

    live = start(made(Flow))
    requests = {event.request.gate: event for event in await live.open()}
    await live.tell(requests["safety"].answer(Approve(), by="s"))
    assert not live.ended
    await live.tell(requests["content"].answer(Approve(), by="c"))
    assert await live.result() == ["content", "safety"]


async def test_a_request_says_all_that_the_gate_was_told(start: Start):
    flow = drafts(
        title="Publish it?",
        body="Please *read* it.",
        evidence=[Evidence(title="Style guide", body="Be brief.", score=0.5)],
        stage="final",
        reviewers=["erin", "role:chief"],
        requester="rita",
        priority="high",
        tags="press",
        deadline=timedelta(hours=1),
    )
    live = start(flow)
    (event,) = await live.open()
    request = event.request
    assert (request.title, request.body) == ("Publish it?", "Please *read* it.")
    assert request.evidence[0].title == "Style guide"
    assert (request.gate, request.stage, request.run_id) == ("review", "final", live.handler.run_id)
    assert request.workflow == flow().workflow_name
    assert request.policy.reviewers == ("erin", "role:chief")
    assert (request.requester, request.priority, request.tags) == ("rita", "high", ("press",))
    assert request.deadline == request.created_at + timedelta(hours=1)
    assert request.subject.type == "Draft"
    assert request.subject.json_schema == Draft.model_json_schema()


async def test_options_may_be_functions_of_the_workflow_and_the_event(start: Start):
    calls: list[str] = []

    def told(name: str, value: Any) -> Callable[[Any, Any], Any]:
        def option(workflow: Any, event: Any) -> Any:
            calls.append(name)
            assert (workflow.house, event.text) == ("ACME", "AI")
            return value

        return option

    def told_later(name: str, value: Any) -> Callable[[Any, Any], Any]:
        async def option(workflow: Any, event: Any) -> Any:
            return told(name, value)(workflow, event)

        return option

    class Flow(Workflow):
        house = "ACME"

        @step
        async def write(self, ev: StartEvent | Revision) -> Draft:
            return Draft(text="AI")

        review = Review(
            Draft,
            revise=Revision,
            title=told_later("title", "Title"),
            body=told("body", "Body"),
            evidence=told_later("evidence", [Evidence(title="E")]),
            reviewers=told("reviewers", "erin"),
            requester=told_later("requester", "rita"),
            deadline=told("deadline", timedelta(days=1)),
            max_revisions=told_later("max_revisions", 7),
            priority=told("priority", "urgent"),
            tags=told_later("tags", ("a", "b")),
        )

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            return StopEvent(result=ev)

    live = start(made(Flow))
    (event,) = await live.open()
    request = event.request
    assert (request.title, request.body, request.evidence) == (
        "Title",
        "Body",
        (Evidence(title="E"),),
    )
    assert request.policy.reviewers == ("erin",)
    assert (request.requester, request.max_revisions) == ("rita", 7)
    assert request.deadline == request.created_at + timedelta(days=1)
    assert (request.priority, request.tags) == ("urgent", ("a", "b"))
    await live.tell(event.answer(Approve(), by="erin"))
    assert (await live.result()).request == request
    assert len(calls) == len(set(calls)) == 9


async def test_a_prompt_that_a_subclass_overrides_is_the_one_that_is_shown(start: Start):
    class Base(Workflow):
        def title(self, event: Draft) -> str:
            return f"Base: {event.text}"

        @step
        async def write(self, ev: StartEvent) -> Draft:
            return Draft(text="AI")

        review = Review(Draft, title=lambda self, event: self.title(event))

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            return StopEvent(result=ev)

    class Mine(Base):
        def title(self, event: Draft) -> str:
            return f"Mine: {event.text}"

    (event,) = await start(made(Mine)).open()
    assert event.request.title == "Mine: AI"


# --------------------------------------------------------------------------- quorum


async def test_a_quorum_waits_for_as_many_as_it_needs(start: Start):
    live = start(drafts(reviewers=["a", "b", "c"], quorum=2))
    (request,) = await live.open()
    assert statuses(await live.tell(request.answer(Approve(), by="a"))) == ["open"]
    assert codes(await live.tell(request.answer(Reject(), by="a"))) == ["already_answered"]
    assert not live.ended
    await live.tell(request.answer(Approve(), by="c"))
    approved = await live.result()
    assert approved.outcome.decided_by == ("a", "c")
    assert [a.by.id for a in approved.answers] == ["a", "c"]


async def test_all_waits_for_everybody(start: Start):
    live = start(drafts(reviewers=["a", "b", "c"], quorum="all"))
    (request,) = await live.open()
    await live.tell(*(request.answer(Approve(), by=name) for name in "ab"))
    assert not live.ended
    await live.tell(request.answer(Approve(), by="c"))
    assert (await live.result()).outcome.approvals == 3


async def test_a_quorum_by_role_needs_each_role(start: Start):
    live = start(drafts(reviewers=["role:legal", "role:press"], quorum={"legal": 1, "press": 1}))
    (request,) = await live.open()
    await live.tell(
        request.answer(Approve(), by=person("l1", "legal")),
        request.answer(Approve(), by=person("l2", "legal")),
    )
    assert not live.ended
    await live.tell(request.answer(Approve(), by=person("p", "press"), role="press"))
    assert (await live.result()).answers[-1].role == "press"


@pytest.mark.parametrize(
    ("options", "roles", "ends"),
    [({"rejections": 2}, (), False), ({"rejections": 2, "veto_roles": "chief"}, ("chief",), True)],
)
async def test_rejections_need_their_number_unless_somebody_has_a_veto(
    start: Start, options: dict[str, Any], roles: tuple[str, ...], ends: bool
):
    live = start(drafts(quorum=2, **options))
    (request,) = await live.open()
    await live.tell(request.answer(Reject(), by=person("a", *roles)))
    assert live.ended is ends


async def test_an_abstention_counts_for_neither_side(start: Start):
    live = start(drafts(reviewers=["a", "b", "c"], quorum=2, abstainable=True))
    (request,) = await live.open()
    assert DecisionKind.ABSTAIN in request.request.allowed
    await live.tell(request.answer(Abstain(), by="a"), request.answer(Approve(), by="b"))
    assert not live.ended
    await live.tell(request.answer(Approve(), by="c"))
    assert (await live.result()).outcome.abstentions == 1


async def test_a_quorum_that_can_no_longer_be_reached_does_not_pass(start: Start):
    flow = drafts(reviewers=["a", "b"], quorum=2, abstainable=True)
    live = start(flow)
    (request,) = await live.open()
    await live.tell(request.answer(Abstain(), by="a"))
    rejected = await live.result()
    assert (type(rejected), rejected.outcome.status.value) == (Rejected, "no_quorum")
    assert flow.published == []


# --------------------------------------------------------------------------- structured answers


class Question(Event):
    """Something to be answered."""

    text: str


class Graded(Responded):
    """A response of a type of its own."""

    response: Note


def questions(**options: Any) -> type[Workflow]:
    class Questions(Workflow):
        @step
        async def pose(self, ev: StartEvent) -> Question:
            return Question(text="How good is it?")

        grade = Review(Question, response=Note, **options)

        @step
        async def use(self, ev: Graded) -> StopEvent:
            return StopEvent(result=ev)

    return made(Questions)


async def test_a_response_comes_as_the_model_that_the_event_declares(start: Start):
    live = start(questions(responded=Graded))
    (request,) = await live.open()
    assert request.request.allowed == (DecisionKind.RESPOND,)
    assert request.request.response_schema == Note.model_json_schema()
    await live.tell(request.answer(Respond(response={"grade": 4, "why": "clear"}), by="erin"))
    graded = await live.result()
    assert graded.response == Note(grade=4, why="clear")
    assert graded.subject == Question(text="How good is it?")


@pytest.mark.parametrize(
    ("response", "field"),
    [
        ({"grade": 9}, "response.grade"),
        ({"grade": "four"}, "response.grade"),
        ({}, "response.grade"),
        ({"grade": 3, "wyh": "typo"}, "response.wyh"),
        ("4", "response"),
        (None, "response"),
    ],
)
async def test_a_response_that_does_not_fit_is_refused_field_by_field(
    start: Start, response: Any, field: str
):
    live = start(questions(responded=Graded))
    (request,) = await live.open()
    events = await live.tell(request.answer(Respond(response=response), by="erin"))
    (refused,) = of_kind(events, ReviewRefusedEvent)
    assert (refused.code, refused.problems[0].field) == ("invalid_answer", field)
    await live.tell(request.answer(Respond(response={"grade": 1}), by="erin"))
    assert (await live.result()).response.grade == 1


class Span(BaseModel):
    first: int
    last: int

    def model_post_init(self, _: Any) -> None:
        if self.last < self.first:
            raise ValueError("ends before it begins")


async def test_a_response_is_checked_by_its_model_too_not_only_by_the_schema(start: Start):
    class Flow(Workflow):
        @step
        async def pose(self, ev: StartEvent) -> Question:
            return Question(text="When?")

        when = Review(Question, response=Span)

    live = start(made(Flow))
    (request,) = await live.open()
    bad = request.answer(Respond(response={"first": 2, "last": 1}), by="erin")
    assert codes(await live.tell(bad)) == ["invalid_answer"]
    await live.tell(request.answer(Respond(response={"first": 1, "last": 2}), by="erin"))
    answered = await live.result()
    assert (type(answered), answered.response) == (Responded, {"first": 1, "last": 2})


async def test_a_question_can_be_neither_approved_nor_rejected(start: Start):
    live = start(questions(responded=Graded))
    (request,) = await live.open()
    events = await live.tell(
        request.answer(Approve(), by="erin"), request.answer(Reject(), by="erin")
    )
    assert codes(events) == ["invalid_answer", "invalid_answer"]
    assert not live.ended


# --------------------------------------------------------------------------- subjects


class Address(BaseModel):
    city: str
    lines: list[str] = Field(default_factory=list)


class Order(BaseModel):
    item: str
    to: Address


class OrderPlaced(Event):
    order: Order
    channel: str = "web"


async def test_a_field_of_the_event_may_be_the_subject(start: Start):
    class Flow(Workflow):
        @step
        async def place(self, ev: StartEvent) -> OrderPlaced:
            return OrderPlaced(order=Order(item="pen", to=Address(city="Bonn")), channel="fax")

        check = Review(OrderPlaced, subject="order", editable=True)

        @step
        async def ship(self, ev: Approved) -> StopEvent:
            return StopEvent(result=ev)

    live = start(made(Flow))
    (request,) = await live.open()
    assert request.request.subject.data == {"item": "pen", "to": {"city": "Bonn", "lines": []}}
    assert request.request.subject.type == "Order"
    edit = Edit(subject={"item": "pen", "to": {"city": "Köln", "lines": ["Dom 1"]}})
    await live.tell(request.answer(edit, by="erin"))
    approved = await live.result()
    assert approved.subject == Order(item="pen", to=Address(city="Köln", lines=["Dom 1"]))
    assert approved.proposal.channel == "fax"


async def test_a_subject_field_is_reviewed_again_by_the_next_stage(start: Start):
    class Flow(Workflow):
        @step
        async def place(self, ev: StartEvent) -> OrderPlaced:
            return OrderPlaced(order=Order(item="pen", to=Address(city="Bonn")))

        check = Review(OrderPlaced, subject="order", approved=LegalApproved)
        sign = Review(LegalApproved)

        @step
        async def ship(self, ev: Approved) -> StopEvent:
            return StopEvent(result=ev.subject)

    live = start(made(Flow))
    (first,) = await live.open()
    (second,) = asked(await live.tell(first.answer(Approve(), by="a")))
    assert second.request.subject == first.request.subject
    await live.tell(second.answer(Approve(), by="b"))
    assert (await live.result()).to.city == "Bonn"


class Loose(Event):
    """An event whose fields nobody has declared."""


def loose(**fields: Any) -> type[Workflow]:
    class Flow(Workflow):
        @step
        async def make(self, ev: StartEvent) -> Loose:
            return Loose(**fields)

        check = Review(Loose, editable=True)

        @step
        async def use(self, ev: Approved) -> StopEvent:
            return StopEvent(result=ev)

    return made(Flow)


async def test_undeclared_fields_of_an_event_are_shown_edited_and_passed_on(start: Start):
    live = start(loose(name="pen", amounts=[1, 2]))
    (request,) = await live.open()
    assert request.request.subject.data == {"name": "pen", "amounts": [1, 2]}
    unknown = request.answer(Edit(subject={"name": "pen", "amuonts": []}), by="erin")
    assert codes(await live.tell(unknown)) == ["invalid_answer"]
    edit = request.answer(Edit(subject={"name": "ink", "amounts": [3]}), by="erin")
    await live.tell(edit)
    subject = (await live.result()).subject
    assert (subject.name, subject.amounts) == ("ink", [3])


async def test_an_undeclared_field_may_look_like_an_envelope_of_upstream(start: Start):
    envelope = {"__is_pydantic": True, "qualified_name": "os.system", "value": "echo"}
    live = start(loose(payload=envelope))
    (request,) = await live.open()
    await live.tell(request.answer(Approve(), by="erin"))
    assert (await live.result()).subject.payload == envelope


class Plain:
    """Something that JSON cannot carry."""


async def test_a_subject_that_json_cannot_carry_is_an_error(start_here: Start):
    live = start_here(loose(name="pen", handle=Plain()))
    await live.pause()
    with pytest.raises(SubjectError, match=r"Loose holds a value in handle that JSON cannot carry"):
        await live.result()


async def test_a_subject_that_json_would_change_is_an_error_that_names_the_field(start_here: Start):
    class Lossy(Event):
        kept: str = "x"
        count: int = 0

        @field_serializer("count")
        def _write_more(self, count: int) -> int:
            return count + 1

    class Flow(Workflow):
        @step
        async def make(self, ev: StartEvent) -> Lossy:
            return Lossy()

        check = Review(Lossy)

        @step
        async def use(self, ev: Approved) -> StopEvent:
            return StopEvent()

    live = start_here(made(Flow))
    await live.pause()
    with pytest.raises(SubjectError, match=r"Lossy changes .*: count\."):
        await live.result()


async def test_a_subject_field_that_holds_no_model_is_an_error(start_here: Start):
    class Odd(Event):
        order: Order | None = None

    class Flow(Workflow):
        @step
        async def make(self, ev: StartEvent) -> Odd:
            return Odd()

        check = Review(Odd, subject="order")

        @step
        async def use(self, ev: Approved) -> StopEvent:
            return StopEvent()

    live = start_here(made(Flow))
    await live.pause()
    with pytest.raises(SubjectError, match=r"Odd\.order is NoneType"):
        await live.result()


# --------------------------------------------------------------------------- state


class Budget(BaseModel):
    """A state that has no room for anything else."""

    spent: int = 0


async def test_typed_state_belongs_to_the_workflow_alone(start: Start):
    class Flow(Workflow):
        @step
        async def write(self, ctx: Context[Budget], ev: StartEvent) -> Draft:
            async with ctx.store.edit_state() as state:
                state.spent = 3
            return Draft(text="x")

        review = Review(Draft)

        @step
        async def publish(self, ctx: Context[Budget], ev: Approved) -> StopEvent:
            return StopEvent(result=await ctx.store.get_state())

    live = start(made(Flow))
    (request,) = await live.open()
    await live.tell(request.answer(Approve(), by="erin"))
    assert await live.result() == Budget(spent=3)


class Wipe(Event):
    """Throw the state away."""


@pytest.mark.parametrize("how", ["clear", "set_state"])
async def test_a_step_that_throws_the_state_away_loses_no_question(start: Start, how: str):
    class Flow(Workflow):
        @step
        async def write(self, ctx: Context[Budget], ev: StartEvent) -> Draft:
            return Draft(text="x")

        review = Review(Draft, quorum=2)

        @step
        async def wipe(self, ctx: Context[Budget], ev: Wipe) -> None:
            if how == "clear":
                await ctx.store.clear()
            else:
                await ctx.store.set_state(Budget(spent=9))

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            return StopEvent(result=len(ev.answers))

    def make() -> Workflow:
        return Flow(timeout=None, skip_graph_checks={"reachability"}, disable_validation=True)

    live = start(make)
    (request,) = await live.open()
    await live.tell(Wipe(), request.answer(Approve(), by="a"))
    await live.tell(Wipe(), request.answer(Approve(), by="b"))
    assert await live.result() == 2


# --------------------------------------------------------------------------- composing classes


async def test_a_subclass_may_override_one_step(start: Start):
    base = drafts()

    class Shouting(base):
        @step
        async def write(self, ev: StartEvent) -> Draft:
            return Draft(text="LOUD")

    live = start(Shouting)
    (request,) = await live.open()
    assert request.request.subject.data == {"text": "LOUD"}
    await live.tell(request.answer(Approve(), by="erin"))
    assert (await live.result()).subject.text == "LOUD"


async def test_a_subclass_may_override_one_gate(start: Start):
    base = drafts(reviewers=["a", "b"], title="Base")

    class Stricter(base):
        review = base.review.replace(quorum=2)

    live = start(Stricter)
    (request,) = await live.open()
    assert (request.request.title, request.request.policy.approvals) == ("Base", 2)
    await live.tell(request.answer(Approve(), by="a"))
    assert not live.ended
    await live.tell(request.answer(Approve(), by="b"))
    assert live.ended
    assert base.review.quorum == 1


async def test_gates_may_come_from_a_mixin(start: Start):
    class Reviewed:
        review = Review(Draft, title="From the mixin")

    class Flow(Reviewed, Workflow):
        @step
        async def write(self, ev: StartEvent) -> Draft:
            return Draft(text="x")

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            return StopEvent(result=ev.subject.text)

    live = start(made(Flow))
    (request,) = await live.open()
    assert request.request.title == "From the mixin"
    await live.tell(request.answer(Approve(), by="erin"))
    assert await live.result() == "x"


async def test_one_gate_may_be_shared_by_two_workflows(start: Start):
    shared = Review(Draft)

    def flow(word: str) -> type[Workflow]:
        class Flow(Workflow):
            review = shared

            @step
            async def write(self, ev: StartEvent) -> Draft:
                return Draft(text=word)

            @step
            async def publish(self, ev: Approved) -> StopEvent:
                return StopEvent(result=ev.subject.text)

        return made(Flow)

    for word in ("one", "two"):
        live = start(flow(word))
        (request,) = await live.open()
        await live.tell(request.answer(Approve(), by="erin"))
        assert await live.result() == word


def test_gates_of_lists_gates_of_the_class_its_bases_and_mixins():
    class Mixin:
        zeta = Review(Draft, approved=LegalApproved)

    class Base(Workflow):
        alpha = Review(LegalApproved)

    class Flow(Mixin, Base):
        @step
        async def write(self, ev: StartEvent) -> Draft:
            return Draft(text="x")

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            return StopEvent()

    assert list(gates_of(Flow)) == list(gates_of(Flow(timeout=None))) == ["alpha", "zeta"]
    assert gates_of(Flow)["zeta"].step_name == "zeta_gate"
    assert gates_of(Workflow) == {}


# --------------------------------------------------------------------------- upstream's own tools


def test_upstream_validates_a_workflow_with_gates_and_knows_that_it_waits_for_people():
    assert stages()().validate() is True


def test_upstream_finds_an_outcome_that_no_step_takes():
    class Flow(Workflow):
        @step
        async def write(self, ev: StartEvent) -> Draft:
            return Draft(text="x")

        review = Review(Draft, approved=LegalApproved)

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            return StopEvent()

    with pytest.raises(WorkflowValidationError, match="Approved"):
        Flow(timeout=None).validate()


def test_gates_are_drawn_with_all_that_they_take_and_send():
    class Flow(Workflow):
        @step
        async def write(self, ev: StartEvent | Revision) -> Draft:
            return Draft(text="x")

        review = Review(
            Draft, revise=Revision, rejected=Rejected, deadline=timedelta(days=1), expired=Expired
        )

        @step
        async def publish(self, ev: Approved | Rejected | Expired) -> StopEvent:
            return StopEvent()

    graph = get_workflow_representation(Flow(timeout=None))
    edges = {(edge.source, edge.target) for edge in graph.edges}
    takes = {source for source, target in edges if target == "review_gate"}
    sends = {target for source, target in edges if source == "review_gate"}
    assert takes >= {"Draft", "ReviewResponseEvent", "HumanResponseEvent", "ReviewDeadlineEvent"}
    assert sends == {"ReviewRequestEvent", "Approved", "Rejected", "Revision", "Expired"}
    (node,) = [node for node in graph.nodes if node.id == "review_gate"]
    assert "Gate 'review'" in (node.description or "")


async def test_a_title_that_fails_loses_no_question_where_errors_are_caught(start: Start):
    def title(workflow: Any, event: Transfer) -> str:
        if event.to == "payee 1":
            raise KeyError("no such account")
        return f"Pay {event.to}?"

    class Flow(transfers(2, title=title)):
        failed: ClassVar[list[str]] = []

        @catch_error(for_steps=["release_gate"])
        async def report(self, ev: StepFailedEvent) -> None:
            self.failed.append(ev.input_event.to)

    live = start(Flow)
    (request,) = await live.open()
    assert request.request.title == "Pay payee 0?"
    assert Flow.failed == ["payee 1"]
    await live.tell(request.answer(Approve(), by="erin"))
    assert Flow.paid == ["payee 0"]


async def test_a_gate_whose_first_call_fails_remembers_what_comes_next(start: Start):
    tries: list[str] = []

    def title(workflow: Any, event: Transfer) -> str:
        tries.append(event.to)
        if len(tries) == 1:
            raise KeyError("no such account")
        return event.to

    class Flow(transfers(3, title=title)):
        @catch_error
        async def report(self, ev: StepFailedEvent) -> None: ...

    live = start(Flow)
    first, second = await live.open()
    await live.tell(second.answer(Approve(), by="erin"))
    await live.tell(first.answer(Approve(), by="erin"))
    assert Flow.paid == ["payee 2", "payee 1"]


async def test_twenty_runs_of_one_instance_do_not_mix(start_here: Start):
    flow = drafts()()
    lives = [start_here(lambda: flow, topic=f"topic {number}") for number in range(20)]
    requests = [(await live.open())[0] for live in lives]
    assert len({event.request_id for event in requests}) == 20
    for live, other in zip(lives, requests[1:] + requests[:1], strict=True):
        assert codes(await live.tell(other.answer(Approve(), by="erin"))) == ["unknown_request"]
    for live, request in reversed(list(zip(lives, requests, strict=True))):
        await live.tell(request.answer(Approve(), by="erin"))
    results = [(await live.result()).subject.text for live in lives]
    assert results == [f"topic {number}" for number in range(20)]


async def test_a_finite_timeout_is_warned_of_when_a_person_is_asked():
    flow = drafts()(timeout=45.0)

    async def run() -> None:
        live = Live(lambda: flow)
        await live.open()
        await live.close()

    with pytest.warns(TimeoutWarning, match=r"timeout=45\.0 seconds.*timeout=None"):
        await run()


async def test_no_timeout_no_warning(start: Start, recwarn: pytest.WarningsRecorder):
    await start(drafts()).open()
    assert [w for w in recwarn if issubclass(w.category, TimeoutWarning)] == []


# --------------------------------------------------------------------------- plain events beside


async def test_plain_answers_for_another_step_are_none_of_a_gates_business(start: Start):
    class Flow(Workflow):
        names: ClassVar[list[str]] = []

        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> InputRequiredEvent | Draft:
            ctx.send_event(Draft(text="x"))
            return InputRequiredEvent(prefix="Your name?")

        @step
        async def named(self, ev: HumanResponseEvent) -> None:
            self.names.append(ev.response)

        review = Review(Draft)

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            return StopEvent(result=self.names)

    live = start(made(Flow))
    (request,) = await live.open()
    assert codes(await live.tell(HumanResponseEvent(response="Rita"))) == []
    await live.tell(HumanResponseEvent(request_id=request.request_id, response="approve", by="e"))
    assert (await live.result())[0] == "Rita"


def three_gates() -> type[Workflow]:
    class Second(Approved): ...

    class Third(Approved): ...

    class Flow(Workflow):
        @step
        async def write(self, ev: StartEvent) -> Draft:
            return Draft(text="x")

        zeta = Review(Draft, approved=Second)
        beta = Review(Second, approved=Third)
        gamma = Review(Third, deadline=timedelta(days=1))

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            return StopEvent(result="published")

    return made(Flow)


@pytest.mark.parametrize(
    "request_id", ["delta-0123456789abcdef", "zeta", "", "-", "zeta_gate-1", "ZETA-1", "beta"]
)
async def test_an_id_of_no_gate_is_refused_exactly_once_by_three_gates(
    start: Start, request_id: str
):
    live = start(three_gates())
    await live.open()
    events = await live.tell(HumanResponseEvent(request_id=request_id, response="approve", by="e"))
    assert codes(events) == ["unknown_request"]


async def test_an_id_that_only_looks_like_one_of_a_gate_is_refused_by_that_gate(start: Start):
    live = start(three_gates())
    (request,) = await live.open()
    shown = request.request.model_dump()
    forged = ReviewRequest(**{**shown, "request_id": "gamma-0123456789abcdef", "digest": ""})
    answer = ReviewRequestEvent(request=forged).answer(Approve(), by="erin")
    assert codes(await live.tell(answer)) == ["unknown_request"]


async def test_a_deadline_of_an_id_that_no_gate_knows_is_refused_exactly_once(start: Start):
    live = start(three_gates())
    (request,) = await live.open()
    at = request.request.created_at
    events = await live.tell(ReviewDeadlineEvent(request_id="delta-1", at=at))
    assert codes(events) == ["unknown_request"]
    # The gate of this one gives no deadline.
    events = await live.tell(ReviewDeadlineEvent(request_id=request.request_id, at=at))
    assert codes(events) == ["stale_request"]


# --------------------------------------------------------------------------- declarations


def test_a_gate_refuses_what_cannot_work():
    wrong: list[tuple[str, Callable[[], Any]]] = [
        ("needs the class of an event", lambda: Review("Draft")),
        ("needs the class of an event", lambda: Review(Draft(text="x"))),
        ("needs the class of an event", lambda: Review(Address)),
        ("approved= must be a subclass of Approved", lambda: Review(Draft, approved=Rejected)),
        ("approved= must be a subclass of Approved", lambda: Review(Draft, approved="yes")),
        ("revise= must be a subclass of Revision", lambda: Review(Draft, revise=Draft)),
        ("rejected= must be a subclass of Rejected", lambda: Review(Draft, rejected=Approved)),
        ("expired= must be a subclass of Expired", lambda: Review(Draft, expired=Rejected)),
        ("responded= must be a subclass", lambda: Review(Draft, responded=Draft)),
        ("exhausted= must be a subclass", lambda: Review(Draft, exhausted=Revision)),
        ("would be sent back to the gate", lambda: Review(Approved)),
        (
            "would be sent back to the gate",
            lambda: Review(LegalApproved, approved=LegalApproved),
        ),
        ("has no field 'oder'", lambda: Review(OrderPlaced, subject="oder")),
        ("leave subject='draft' out", lambda: Review(LegalApproved, subject="draft")),
        ("editable= must be True or False", lambda: Review(Draft, editable=["text"])),
        ("delegable= must be True or False", lambda: Review(Draft, delegable="role:legal")),
        ("max_revisions= needs revise=", lambda: Review(Draft, max_revisions=1)),
        ("allows 'revise' needs revise=", lambda: Review(Draft, decisions=["revise"])),
        ("allows 'respond' needs response=", lambda: Review(Draft, decisions=["respond"])),
        ("allows 'escalate' needs escalate_to=", lambda: Review(Draft, decisions=["escalate"])),
        (
            "needs somebody to escalate to",
            lambda: Review(Draft, deadline=HOUR, on_deadline=Escalate()),
        ),
        ("on_deadline= needs deadline=", lambda: Review(Draft, on_deadline=Reject())),
        ("at least one decision", lambda: Review(Draft, decisions=[])),
        ("'aprove' is not a valid", lambda: Review(Draft, decisions=["aprove"])),
        ("2 approvals cannot come from 1", lambda: Review(Draft, reviewers="a", quorum=2)),
        ("approvals='all' needs reviewers", lambda: Review(Draft, quorum="all")),
        (
            "approvals='all' needs reviewers",
            lambda: Review(Draft, reviewers="role:x", quorum="all"),
        ),
        ("greater than or equal to 1", lambda: Review(Draft, quorum=0)),
        ("greater than or equal to 1", lambda: Review(Draft, quorum={"legal": 0})),
        ("greater than or equal to 1", lambda: Review(Draft, rejections=0)),
        ("deadline= must be longer", lambda: Review(Draft, deadline=timedelta(0))),
        ("max_revisions= cannot be", lambda: Review(Draft, revise=Revision, max_revisions=-1)),
    ]
    for message, declare in wrong:
        with pytest.raises(GateError) as raised:
            declare()
        assert message in str(raised.value), str(raised.value)


def test_a_gate_has_one_name():
    gate = Review(Draft)

    class One:
        first = gate

    with pytest.raises((GateError, RuntimeError)) as raised:

        class Two:
            second = gate

    assert "cannot be 'second' as well" in _said(raised.value)


def test_a_gate_cannot_be_named_like_inline_questions():
    with pytest.raises((GateError, RuntimeError)) as raised:

        class Flow:
            ask = Review(Draft)

    assert "cannot be named 'ask'" in _said(raised.value)


def test_a_gate_does_not_hide_a_step():
    with pytest.raises((GateError, RuntimeError)) as raised:

        class Flow:
            review = Review(Draft)

            def review_gate(self) -> None: ...

    assert "review_gate is in the way" in _said(raised.value)


async def test_a_response_has_a_model_of_its_own_for_each_event(start: Start):
    def guess(_: Workflow, ev: Question) -> type[BaseModel]:
        def short(value: str) -> str:
            assert len(value) < len(ev.text)
            return value

        kind = Annotated[str, AfterValidator(short)]
        return create_model("Guess", word=(kind, Field(title=ev.text)))

    class Guessing(Workflow):
        @step
        async def pose(self, ev: StartEvent) -> Question:
            return Question(text="Which word?")

        word = Review(Question, response=guess, responded=Responded, rejected=Rejected)

        @step
        async def use(self, ev: Responded | Rejected) -> StopEvent:
            return StopEvent(result=ev.response)

    live = start(made(Guessing))
    (request,) = await live.open()
    assert request.request.response_schema["properties"]["word"]["title"] == "Which word?"
    # The first does not fit the schema; the second only what the model knows beyond it.
    for wrong in ({"word": 5}, {"word": "much too long for that"}):
        said = await live.tell(request.answer(Respond(response=wrong), by="erin"))
        (refusal,) = of_kind(said, ReviewRefusedEvent)
        assert refusal.problems[0].field == "response.word"
    await live.tell(request.answer(Respond(response={"word": "tea"}), by="erin"))
    assert await live.result() == {"word": "tea"}


class Published(StopEvent):
    """A stop event of one's own."""


def test_a_custom_stop_event_needs_every_outcome_that_would_end_the_run_to_be_routed():
    def declare(**options: Any) -> type[Workflow]:
        class Flow(Workflow):
            @step
            async def write(self, ev: StartEvent | Revision) -> Draft | Question:
                return Draft(text="x")

            review = Review(Draft, **options)

            @step
            async def publish(self, ev: Approved) -> Published:
                return Published()

        return Flow

    incomplete: list[dict[str, Any]] = [
        {},
        {"rejected": Rejected, "deadline": timedelta(1)},
        {"rejected": Rejected, "revise": Revision, "max_revisions": 1},
        {"rejected": Rejected, "response": Note},
    ]
    for options in incomplete:
        with pytest.raises((GateError, RuntimeError)) as raised:
            declare(**options)
        assert "ends with Published" in _said(raised.value)
    declare(rejected=Rejected)
    declare(
        rejected=Rejected,
        deadline=timedelta(1),
        expired=Expired,
        revise=Revision,
        max_revisions=1,
        exhausted=RevisionsExhausted,
        response=Note,
        responded=Responded,
    )


async def test_a_custom_stop_event_works_where_everything_is_routed(start: Start):
    class Flow(Workflow):
        @step
        async def write(self, ev: StartEvent) -> Draft:
            return Draft(text="x")

        review = Review(Draft, rejected=Rejected)

        @step
        async def publish(self, ev: Approved | Rejected) -> Published:
            return Published(passed=isinstance(ev, Approved))

    live = start(made(Flow))
    (request,) = await live.open()
    await live.tell(request.answer(Reject(), by="erin"))
    assert (await live.result()).passed is False


def _said(error: BaseException) -> str:
    """Python 3.11 wraps what `__set_name__` raises."""
    return str(error.__cause__ or error)


def test_a_replaced_gate_is_checked_again():
    gate = Review(Draft, reviewers="erin", title="T")
    assert gate.replace(title="U").title == "U"
    assert gate.replace(title="U").reviewers == "erin"
    with pytest.raises(GateError):
        gate.replace(quorum=2)
    with pytest.raises(TypeError):
        gate.replace(tilte="U")


def test_the_decisions_of_a_gate_follow_from_its_options():
    every = Review(
        Draft,
        revise=Revision,
        editable=True,
        escalate_to="chief",
        delegable=True,
        abstainable=True,
    )
    assert [kind.value for kind in Review(Draft).allowed] == ["approve", "reject"]
    assert [kind.value for kind in Review(Draft, response=Note).allowed] == ["respond"]
    assert set(every.allowed) == set(DecisionKind) - {DecisionKind.RESPOND}
    assert Review(Draft, decisions=["approve"]).allowed == (DecisionKind.APPROVE,)


async def test_a_decision_that_the_gate_does_not_allow_is_refused(start: Start):
    live = start(drafts())
    (request,) = await live.open()
    decisions = [
        Edit(subject={"text": "y"}),
        Revise(feedback="more"),
        Respond(response=1),
        Escalate("chief"),
        Abstain(),
    ]
    for decision in decisions:
        events = await live.tell(request.answer(decision, by="erin"))
        (refused,) = of_kind(events, ReviewRefusedEvent)
        assert refused.code == "invalid_answer"
        assert "not allowed here" in refused.reason
    assert not live.ended


async def test_several_requests_are_open_at_one_gate_and_are_answered_in_any_order(start: Start):
    for order in itertools.permutations(range(3)):
        flow = transfers()
        live = start(flow)
        requests = await live.open()
        for number in order:
            await live.tell(requests[number].answer(Approve(), by="erin"))
        assert flow.paid == [f"payee {number}" for number in order]


async def test_a_failing_guarded_step_fails_the_run_and_does_not_ask_again(start_here: Start):
    class Flow(Workflow):
        @step
        async def write(self, ev: StartEvent) -> Draft:
            return Draft(text="x")

        review = Review(Draft)

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            raise OSError("disk full")

    live = start_here(made(Flow))
    (request,) = await live.open()
    events = await live.tell(request.answer(Approve(), by="erin"))
    assert asked(events) == []
    assert of_kind(events, WorkflowFailedEvent)
    with pytest.raises(OSError, match="disk full"):
        await live.result()


def test_the_answer_of_a_gate_is_typed():
    assert ReviewResponseEvent.model_fields.keys() == {"answer"}
    assert revised().review.revise is Revision


async def test_a_snapshot_while_a_gate_is_at_work_loses_no_answer_that_is_in_line(
    start_here: Start,
):
    go_on = asyncio.Event()

    async def title(workflow: Any, event: Transfer) -> str:
        if event.to == "payee 1":
            await go_on.wait()
        return event.to

    flow = transfers(2, title=title)
    live = start_here(flow)
    first = await live.until(ReviewRequestEvent)
    live.send(first.answer(Approve(), by="erin"))
    await live.heard()
    await live.restore()
    go_on.set()
    (second,) = asked(await live.pause())
    assert flow.paid == ["payee 0"]
    await live.tell(second.answer(Approve(), by="erin"))
    assert flow.paid == ["payee 0", "payee 1"]


class Request(StartEvent):
    """What the run starts with, under review itself."""

    topic: str


async def test_what_a_run_starts_with_may_be_reviewed(start: Start):
    class Flow(Workflow):
        review = Review(Request)

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            return StopEvent(result=ev.subject.topic)

    live = start(made(Flow), topic="AI")
    (request,) = await live.open()
    await live.tell(request.answer(Approve(), by="erin"))
    assert await live.result() == "AI"
