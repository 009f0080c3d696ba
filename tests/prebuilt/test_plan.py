from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from durable import NOON
from flows import asked, codes, of_kind
from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator
from workflows import Context, step

from llama_index_hitl import (
    Approve,
    Edit,
    Reject,
    Respond,
    ReviewDeadlineEvent,
    ReviewRefusedEvent,
    ReviewWithdrawEvent,
)
from llama_index_hitl.errors import GateError, InvalidAnswer
from llama_index_hitl.forms import fields_of, parse_answer
from llama_index_hitl.models import DecisionKind, Reviewer
from llama_index_hitl.prebuilt import (
    Action,
    ActionPlan,
    ActionStatus,
    ModelOutputError,
    PlanError,
    PlanResult,
    PlanStart,
    PlanState,
    ProgressEvent,
    ResultStatus,
)
from llama_index_hitl.prebuilt._actions import confirmation_of
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import MemoryStore
from llama_index_hitl.stores.protocol import Commit, Effect, RunStatus
from llama_index_hitl.testing import ManualClock, ScriptedLLM, ScriptedReviewer, review_with


class Look(Action):
    kind: Literal["look"] = "look"


class Pay(Action):
    kind: Literal["pay"] = "pay"
    amount: Decimal = Field(gt=0)
    to: str = "Ann"

    def confirmation(self):
        return "it is a lot" if self.amount > 100 else None


class Paying(ActionPlan):
    """Remembers what was done; `broken` and `blocked` say what goes wrong, by amount."""

    action = Look | Pay

    def __init__(self, *, broken=(), blocked=(), done=None, **options):
        super().__init__(**options)
        self.broken, self.blocked = broken, blocked
        self.done = [] if done is None else done

    async def check(self, action):
        return "it is blocked" if amount_of(action) in self.blocked else None

    async def execute(self, action, effect_key):
        amount = amount_of(action)
        if amount in self.broken:
            raise ConnectionError("the line is dead")
        self.done.append((amount, effect_key))
        return f"paid {amount}" if amount else "looked"


def amount_of(action):
    return int(getattr(action, "amount", None) or 0)


def planned(*amounts):
    """Return what the model says: 0 is a look, any other number a payment."""
    return {"actions": [{"kind": "pay", "amount": a} if a else {"kind": "look"} for a in amounts]}


def paying(*amounts, **options):
    return Paying(llm=ScriptedLLM([planned(*amounts)]), **options)


def erin(*script):
    return ScriptedReviewer(script, by="erin")


def shown(result):
    """Return how each action ended, in short."""
    return [f"{int(report.action.get('amount', 0))} {report.status}" for report in result.actions]


def amounts(flow):
    return [amount for amount, _ in flow.done]


def choice(*words, **comments):
    """Return a response that approves and refuses, action by action."""
    said = {f"action_{number}": word for number, word in enumerate(words, start=1)}
    return Respond(response={**said, **comments})


# --- who says what needs a confirmation ---------------------------------------------------------


class Seeded(BaseModel):
    """A model whose validator flags it, beside a field that the language model may fill."""

    action_type: Literal["check_balance", "transfer", "deposit"]
    amount: float | None = None
    requires_confirmation: bool = False

    @model_validator(mode="after")
    def _enforce(self):
        if self.action_type == "transfer" and (self.amount or 0) > 100:
            self.requires_confirmation = True
        return self


class Required(Seeded):
    requires_confirmation: bool


class Computed(BaseModel):
    amount: float

    @computed_field
    @property
    def requires_confirmation(self) -> bool:
        return self.amount > 100


class Lax(Pay):
    model_config = ConfigDict(extra="allow")


class Puzzled(Action):
    amount: float | None = None

    def confirmation(self):
        return "a lot" if self.amount > 100 else None  # with None it raises


class Talkative(Action):
    def confirmation(self):
        return True


SEEDED = {"action_type": "transfer"}


@pytest.mark.parametrize(
    ("model", "data", "wanted"),
    [
        (Seeded, {**SEEDED, "amount": 500, "requires_confirmation": False}, True),
        (Seeded, {**SEEDED, "amount": 500}, True),
        (Seeded, {**SEEDED, "amount": 50}, False),
        (Seeded, {**SEEDED, "amount": 50, "requires_confirmation": True}, True),
        (Seeded, {"action_type": "deposit", "amount": 5000}, False),
        (Required, {**SEEDED, "amount": 500, "requires_confirmation": False}, True),
        (Required, {**SEEDED, "amount": 50, "requires_confirmation": False}, False),
        (Computed, {"amount": 500, "requires_confirmation": False}, True),
        (Computed, {"amount": 50, "requires_confirmation": True}, False),
        (Pay, {"amount": 500, "confirmation": None, "requires_confirmation": False}, True),
        (Pay, {"amount": 100}, False),
        (Lax, {"amount": 500, "confirmation": None}, True),
        (Puzzled, {}, True),
        (Talkative, {}, True),
    ],
)
async def test_code_says_what_must_be_confirmed_whatever_the_model_claims(model, data, wanted):
    class Flow(Paying):
        action = model

    flow, person = Flow(llm=ScriptedLLM([{"actions": [data]}])), erin(Reject())
    result = await review_with(flow.run(request="x"), person)

    assert len(person.asked) == wanted
    (report,) = result.actions
    assert (report.confirmation is not None) == wanted
    assert report.status is (ActionStatus.REFUSED if wanted else ActionStatus.DONE)
    assert len(flow.done) == (not wanted)


def test_a_flag_set_on_the_object_itself_is_judged_anew():
    silenced = Seeded.model_construct(action_type="transfer", amount=500.0)
    assert not silenced.requires_confirmation
    assert confirmation_of(silenced) == "its own validator says so"


def test_an_action_type_that_cannot_work_is_refused_when_the_class_is_made():
    class Fillable(BaseModel):
        confirmation: str | None = None

    wrong_types = {
        int: "pydantic models",
        Fillable: "make it a method",
        Look | Computed: "Literal.*: Look, Computed",
    }
    for wrong, words in wrong_types.items():
        with pytest.raises(GateError, match=words):
            type("Wrong", (ActionPlan,), {"action": wrong})


# --- the plan as a whole ------------------------------------------------------------------------


async def test_a_plan_without_anything_to_confirm_is_done_without_a_person():
    flow, person = paying(0, 50, 100), erin()
    result = await review_with(flow.run(request="x"), person)
    assert isinstance(result, PlanResult)
    assert (result.status, result.decisions) == (ResultStatus.APPROVED, ())
    assert shown(result) == ["0 done", "50 done", "100 done"]
    assert [report.decided_by for report in result.actions] == [()] * 3
    assert person.asked == []


async def test_a_plan_is_shown_whole_before_anything_is_done(start):
    done = []
    live = start(lambda: paying(0, 500, done=done), request="pay Ann\n2. and Bob")
    (question,) = await live.open()
    request = question.request
    assert done == []
    assert request.title == "Plan of 2 actions: pay Ann 2. and Bob"
    assert request.body == "1. Look\n2. Pay: amount=500, to=Ann (to be confirmed: it is a lot)"
    assert [item["number"] for item in request.subject.data["actions"]] == [1, 2]
    assert request.allowed == ("approve", "edit", "reject", "respond")

    await live.tell(question.answer(Approve(comment="fine"), by="erin"))
    result = await live.result()
    assert result.status is ResultStatus.APPROVED
    assert done == [(0, f"{request.request_id}:1"), (500, f"{request.request_id}:2")]
    assert [report.decided_by for report in result.actions] == [("erin",)] * 2
    assert [report.confirmation for report in result.actions] == [None, "it is a lot"]
    assert [answer.by.id for answer in result.decisions] == ["erin"]
    assert result.actions[1].result == "paid 500"
    assert "2. Pay: amount=500, to=Ann: done (paid 500)" in result.text


async def test_a_plan_that_is_rejected_does_nothing(start):
    done = []
    live = start(lambda: paying(50, 500, done=done), request="x")
    (question,) = await live.open()
    await live.tell(question.answer(Reject(comment="not today"), by="erin"))
    result = await live.result()
    assert result.status is ResultStatus.REJECTED
    assert shown(result) == ["50 refused", "500 refused"]
    assert {(report.reason, report.decided_by) for report in result.actions} == {
        ("not today", ("erin",))
    }
    assert done == []


async def test_some_actions_are_approved_and_others_refused(start):
    done = []
    live = start(lambda: paying(50, 500, 700, done=done), request="x")
    (question,) = await live.open()
    form = fields_of(question.request, DecisionKind.RESPOND)
    assert [(field.name, field.required) for field in form[::2]] == [
        ("response.action_1", True),
        ("response.action_2", True),
        ("response.action_3", True),
        ("comment", False),
    ]
    assert form[2].label == "2. Pay: amount=500, to=Ann"
    assert form[2].choices == ("approve", "refuse")

    answer = choice("approve", "refuse", "approve", comment_2="too dear")
    await live.tell(question.answer(answer, by="erin"))
    result = await live.result()
    assert result.status is ResultStatus.PARTLY_APPROVED
    assert shown(result) == ["50 done", "500 refused", "700 done"]
    assert result.actions[1].reason == "too dear"
    assert result.actions[1].effect_key == ""
    assert str(result.actions[1]).endswith(": refused by erin (too dear)")
    assert [amount for amount, _ in done] == [50, 700]


WRONG = {
    "one left out": ({"action_1": "approve"}, "response.action_2"),
    "one unknown": (
        {"action_1": "approve", "action_2": "approve", "action_3": "approve"},
        "response.action_3",
    ),
    "another word": ({"action_1": "yes", "action_2": "approve"}, "response.action_1"),
    "nothing": ({}, "response.action_1"),
    "no form": ("approve", "response"),
}


@pytest.mark.parametrize(("response", "field"), WRONG.values(), ids=WRONG)
async def test_a_choice_that_is_not_about_every_action_is_refused_with_the_field(
    start_here, response, field
):
    flow = paying(50, 500)
    live = start_here(lambda: flow, request="x")
    (question,) = await live.open()
    seen = await live.tell(question.answer(Respond(response=response), by="erin"))
    (refusal,) = of_kind(seen, ReviewRefusedEvent)
    assert refusal.code == "invalid_answer"
    assert field in [problem.field for problem in refusal.problems] or any(
        field.rpartition(".")[2] in problem.message for problem in refusal.problems
    )
    assert not live.ended
    assert flow.done == []


async def test_a_choice_that_says_two_things_about_one_action_is_refused(start_here):
    live = start_here(lambda: paying(500), request="x")
    (question,) = await live.open()
    twice = '{"decision": "respond", "response": {"action_1": "refuse", "action_1": "approve"}}'
    with pytest.raises(ValueError, match="'action_1' is there twice"):
        parse_answer(question.request, twice, by=Reviewer(id="erin"), at=NOON)


def changed(question, **by_number):
    """Return the edited plan: numbers and amounts, None to take an action out."""
    kept = [dict(item) for item in question.request.subject.data["actions"]]
    for name, amount in by_number.items():
        number = int(name[1:])
        kept = [item for item in kept if item["number"] != number]
        if amount is not None:
            kept.append({"number": number, "action": {"kind": "pay", "amount": amount, "to": "Al"}})
    return Edit(subject={"actions": sorted(kept, key=lambda item: item["number"])})


async def test_a_plan_is_edited_and_what_is_taken_out_is_refused(start):
    done = []
    live = start(lambda: paying(50, 500, 700, done=done), request="x")
    (question,) = await live.open()
    await live.tell(question.answer(changed(question, n2=80, n3=None, n4=9), by="erin"))
    result = await live.result()
    assert [amount for amount, _ in done] == [50, 80, 9]
    assert shown(result) == ["50 done", "80 done", "700 refused", "9 done"]
    second, third, fourth = result.actions[1:]
    assert (second.proposed["amount"], second.action["amount"]) == ("500", "80")
    assert (third.reason, third.decided_by) == ("taken out of the plan", ("erin",))
    assert (fourth.proposed, fourth.decided_by) == (None, ("erin",))
    assert result.status is ResultStatus.PARTLY_APPROVED


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        ({"n2": -80}, "subject.actions.1.action"),
        ({f"n{number}": 1 for number in range(1, 120)}, "subject.actions"),
        ({"n0": 7}, "subject.actions.0.number"),
    ],
)
async def test_an_edit_is_validated_by_the_actions_own_model(start_here, edit, field):
    flow = paying(50, 500)
    live = start_here(lambda: flow, request="x")
    (question,) = await live.open()
    seen = await live.tell(question.answer(changed(question, **edit), by="erin"))
    (refusal,) = of_kind(seen, ReviewRefusedEvent)
    assert any(problem.field.startswith(field) for problem in refusal.problems)
    assert not live.ended


async def test_an_edit_with_a_number_twice_is_refused(start_here):
    live = start_here(lambda: paying(50, 500), request="x")
    (question,) = await live.open()
    actions = question.request.subject.data["actions"]
    twice = Edit(subject={"actions": [*actions, actions[0]]})
    assert codes(await live.tell(question.answer(twice, by="erin"))) == ["invalid_answer"]


async def test_an_edit_cannot_say_what_needs_no_confirmation(start_here):
    live = start_here(lambda: paying(500), request="x")
    (question,) = await live.open()
    data = {"number": 1, "action": {"kind": "pay", "amount": 900}, "confirmation": None}
    await live.tell(question.answer(Edit(subject={"actions": [data]}), by="erin"))
    (report,) = (await live.result()).actions
    assert (report.action["amount"], report.status) == ("900", ActionStatus.DONE)
    assert report.decided_by == ("erin",)


# --- action by action ---------------------------------------------------------------------------


async def test_actions_are_asked_about_one_by_one_and_done_in_their_order(start):
    done = []
    flow = lambda: paying(50, 500, 60, 700, show="each", done=done)  # noqa: E731
    live = start(flow, request="pay them")
    first, second = await live.open()
    assert [amount for amount, _ in done] == [50], "what stands before the first question is done"
    assert first.request.title == "2. Pay: amount=500, to=Ann"
    assert "Must be confirmed: it is a lot" in first.request.body
    assert first.request.evidence[0].body.count("\n") == 3
    assert first.request.allowed == ("approve", "reject", "edit")

    await live.tell(second.answer(Approve(), by="erin"))
    assert [amount for amount, _ in done] == [50], "it is not the turn of what was approved"

    await live.tell(first.answer(Approve(), by="bob"))
    result = await live.result()
    assert [amount for amount, _ in done] == [50, 500, 60, 700]
    assert [report.decided_by for report in result.actions] == [(), ("bob",), (), ("erin",)]
    assert done[1][1] == f"{first.request_id}:2"
    assert done[3][1] == f"{second.request_id}:4"
    assert len({key for _, key in done}) == 4
    assert result.status is ResultStatus.APPROVED


async def test_answers_to_single_actions_come_as_a_batch(start):
    done = []
    live = start(lambda: paying(500, 600, 700, show="each", done=done), request="x")
    first, second, third = await live.open()
    batch = [
        third.answer(Approve(), by="erin"),
        first.answer(Reject(comment="no"), by="erin"),
        second.answer(Approve(), by="bob"),
    ]
    await live.tell(*batch)
    result = await live.result()
    assert shown(result) == ["500 refused", "600 done", "700 done"]
    assert result.status is ResultStatus.PARTLY_APPROVED
    assert [amount for amount, _ in done] == [600, 700]
    assert len(result.decisions) == 3


async def test_a_single_action_is_edited_within_its_own_kind(start):
    done = []
    live = start(lambda: paying(500, show="each", done=done), request="x")
    (question,) = await live.open()
    for wrong in ({"kind": "look"}, {"kind": "pay", "amount": "-1", "to": "Ann"}):
        assert codes(await live.tell(question.answer(Edit(subject=wrong), by="erin"))) == [
            "invalid_answer"
        ]
    edit = Edit(subject={"kind": "pay", "amount": "80", "to": "Ann"})
    await live.tell(question.answer(edit, by="erin"))
    (report,) = (await live.result()).actions
    assert [amount for amount, _ in done] == [80]
    assert (report.proposed["amount"], report.action["amount"]) == ("500", "80")
    assert report.summary == "Pay: amount=80, to=Ann"


async def test_an_answer_to_one_action_decides_no_other(start):
    done = []
    live = start(lambda: paying(500, 700, show="each", done=done), request="x")
    first, second = await live.open()
    crossed = first.answer(Approve(), by="erin").answer.model_copy(
        update={"request_id": second.request_id}
    )
    seen = await live.tell(type(first.answer(Approve(), by="erin"))(answer=crossed))
    assert codes(seen) == ["stale_request"]
    assert done == []


# --- refused, failed, blocked: what becomes of the others -----------------------------------------


@pytest.mark.parametrize("show", ["whole", "each"])
@pytest.mark.parametrize(
    ("after_refusal", "ends"),
    [
        ("continue", ["500 refused", "600 done", "50 done"]),
        ("stop", ["500 refused", "600 not_run", "50 not_run"]),
    ],
)
async def test_what_follows_a_refusal(show, after_refusal, ends):
    flow = paying(500, 600, 50, show=show)
    flow.after_refusal = after_refusal
    said = [Reject(), Approve()] if show == "each" else [choice("refuse", "approve", "approve")]
    result = await review_with(flow.run(request="x"), erin(*said))
    assert shown(result) == ends
    if after_refusal == "stop":
        assert result.actions[1].reason == "action 1 was not done"
        assert flow.done == []


@pytest.mark.parametrize("trouble", ["broken", "blocked"])
@pytest.mark.parametrize(("after_failure", "last"), [("stop", "not_run"), ("continue", "done")])
async def test_what_follows_a_failure(trouble, after_failure, last):
    flow = paying(50, 60, 70, **{trouble: (60,)})
    flow.after_failure = after_failure
    result = await review_with(flow.run(request="x"), erin())
    assert shown(result) == [
        "50 done",
        "60 failed" if trouble == "broken" else "60 not_run",
        f"70 {last}",
    ]
    reason = "ConnectionError: the line is dead" if trouble == "broken" else "it is blocked"
    assert result.actions[1].reason == reason
    assert amounts(flow) == ([50] if last == "not_run" else [50, 70])


async def test_a_check_that_raises_stops_the_action():
    class Unsure(Paying):
        async def check(self, action):
            raise LookupError("no such account")

    flow = Unsure(llm=ScriptedLLM([planned(0, 50)]))
    result = await review_with(flow.run(request="x"))
    assert shown(result) == ["0 failed", "50 not_run"]
    assert result.actions[0].reason == "LookupError: no such account"
    assert flow.done == []


async def test_nobody_is_asked_about_what_cannot_be_done():
    flow, person = paying(500, 600, blocked=(500,)), erin()
    result = await review_with(flow.run(request="x"), person)
    assert shown(result) == ["500 not_run", "600 not_run"]
    assert result.status is ResultStatus.REJECTED
    assert person.asked == []


async def test_a_plan_leaves_out_what_cannot_be_done_where_the_rest_goes_on():
    flow, person = paying(500, 600, blocked=(500,)), erin(Approve())
    flow.after_failure = "continue"
    result = await review_with(flow.run(request="x"), person)
    assert [item["number"] for item in person.asked[0].subject.data["actions"]] == [2]
    assert shown(result) == ["500 not_run", "600 done"]
    assert result.status is ResultStatus.PARTLY_APPROVED


@pytest.mark.parametrize("show", ["whole", "each"])
async def test_the_precondition_is_checked_again_when_an_action_is_done(start, show):
    done, blocked = [], []
    live = start(lambda: paying(500, done=done, blocked=blocked, show=show), request="x")
    (question,) = await live.open()
    blocked.append(500)
    await live.tell(question.answer(Approve(), by="erin"))
    (report,) = (await live.result()).actions
    assert (report.status, report.reason) == (ActionStatus.NOT_RUN, "it is blocked")
    assert report.decided_by == ("erin",)
    assert done == []


async def test_an_approval_behind_an_action_that_ended_the_plan_opens_nothing(start_here):
    flow = paying(500, 600, 700, show="each", broken=(600,))
    live = start_here(lambda: flow, request="x")
    first, second, third = await live.open()
    await live.tell(third.answer(Approve(), by="erin"), second.answer(Approve(), by="erin"))
    await live.tell(first.answer(Approve(), by="erin"))
    result = await live.result()
    assert shown(result) == ["500 done", "600 failed", "700 not_run"]
    assert amounts(flow) == [500]


async def test_an_approval_that_comes_after_a_refusal_has_ended_the_plan_opens_nothing(start_here):
    flow = paying(500, 600, 700, show="each")
    flow.after_refusal = "stop"
    live = start_here(lambda: flow, request="x")
    first, second, third = await live.open()
    await live.tell(second.answer(Reject(), by="erin"), third.answer(Approve(), by="erin"))
    await live.tell(first.answer(Approve(), by="erin"))
    result = await live.result()
    assert shown(result) == ["500 done", "600 refused", "700 not_run"]
    assert (result.actions[2].decided_by, result.actions[2].effect_key) == ((), "")
    assert result.actions[2].proposed == result.actions[2].action
    assert amounts(flow) == [500]


@pytest.mark.parametrize("show", ["whole", "each"])
async def test_nobody_decides_in_time(start, show):
    done = []

    def make():
        flow = paying(500, show=show, done=done)
        flow.deadline = timedelta(hours=1)
        return flow

    live = start(make, request="x")
    (question,) = await live.open()
    late = question.request.deadline
    await live.tell(ReviewDeadlineEvent(request_id=question.request_id, at=late))
    result = await live.result()
    assert (result.status, shown(result)) == (ResultStatus.EXPIRED, ["500 expired"])
    assert result.actions[0].decided_by == ()
    assert done == []


async def test_a_question_that_is_taken_back_approves_nothing(start):
    done = []
    live = start(lambda: paying(500, done=done), request="x")
    (question,) = await live.open()
    by = Reviewer(id="operator")
    await live.tell(ReviewWithdrawEvent(request_id=question.request_id, by=by, reason="obsolete"))
    result = await live.result()
    assert (result.status, shown(result)) == (ResultStatus.REJECTED, ["500 refused"])
    assert "obsolete" in result.actions[0].reason
    assert done == []


# --- what a result holds ------------------------------------------------------------------------


async def test_a_result_that_json_cannot_hold_is_reported_in_words():
    class Odd(Paying):
        async def execute(self, action, effect_key):
            return {"amount": Decimal("1.50"), "thing": object()}

    result = await review_with(Odd(llm=ScriptedLLM([planned(50)])).run(request="x"))
    (report,) = result.actions
    assert report.result["amount"] == "1.50"
    assert report.result["thing"].startswith("<object")


async def test_progress_says_what_becomes_of_each_action(start_here):
    live = start_here(lambda: paying(0, 50), request="x")
    await live.pause()
    assert [event.message for event in of_kind(live.seen, ProgressEvent)] == [
        "Making a plan",
        "1. Look: done (looked)",
        "2. Pay: amount=50, to=Ann: done (paid 50)",
    ]


async def test_a_value_with_line_breaks_cannot_look_like_an_action_of_its_own(start_here):
    forged = {"kind": "pay", "amount": 500, "to": "Ann\n2. Look\n3. Pay: amount=1"}
    flow = Paying(llm=ScriptedLLM([{"actions": [forged]}]))
    live = start_here(lambda: flow, request="x")
    (question,) = await live.open()
    assert len(question.request.body.splitlines()) == 1


# --- what goes wrong ----------------------------------------------------------------------------


async def test_an_empty_plan_ends_at_once_and_says_so(start_here):
    live = start_here(lambda: paying(), request="hello")
    await live.pause()
    result = await live.result()
    assert (result.actions, result.text) == ((), "There was nothing to do.")
    told = [event.message for event in of_kind(live.seen, ProgressEvent)]
    assert told[-1] == "There is nothing to do"
    assert asked(live.seen) == []


UNUSABLE = {
    "an unknown kind": {"actions": [{"kind": "steal", "amount": 5}]},
    "an invalid amount": planned(-5),
    "an invalid amount of no kind": {"actions": [{"amount": -5}]},
    "too many": planned(*[1] * 10_000),
    "no plan": {"steps": []},
}


@pytest.mark.parametrize("said", UNUSABLE.values(), ids=UNUSABLE)
async def test_a_plan_that_is_not_valid_is_asked_for_again_and_then_an_error(said):
    flow = Paying(llm=ScriptedLLM([said] * 3))
    with pytest.raises(ModelOutputError, match="in 3 attempts"):
        await review_with(flow.run(request="x"))
    assert flow.done == []


async def test_a_model_may_correct_its_plan():
    flow = Paying(llm=ScriptedLLM([UNUSABLE["an unknown kind"], planned(50)]))
    assert shown(await review_with(flow.run(request="x"))) == ["50 done"]
    assert "could not be used" in flow.get_llm().prompts[1]


class Planned(Paying):
    """Makes its plan without a model."""

    proposal: Any = ()

    async def plan(self, request):
        return self.proposal


class Measure(BaseModel):
    size: float


class Measuring(Planned):
    action = Measure


@pytest.mark.parametrize(
    ("kind", "proposal", "words"),
    [
        (Planned, [Look()] * 101, "has 101 actions, and may have 100"),
        (Planned, [Look(), Pay.model_construct(amount=Decimal(-5), to="Ann")], "Action 2"),
        (Measuring, [Measure(size=float("nan"))], "Action 1"),
        (Planned, ["pay"], "Action 1"),
    ],
)
async def test_a_plan_of_ones_own_is_checked_as_well(kind, proposal, words):
    flow = kind()
    flow.proposal = proposal
    with pytest.raises(PlanError, match=words):
        await review_with(flow.run(request="x"))
    assert flow.done == []


async def test_a_request_is_no_template():
    flow = paying()
    await review_with(flow.run(request="{pay} 100 % {request}"))
    assert "{pay} 100 % {request}" in flow.get_llm().prompts[0]


def test_a_wrong_word_for_how_to_show_it_is_refused():
    with pytest.raises(ValueError, match="'whole' or 'each'"):
        Paying(show="all")


def test_a_workflow_that_does_not_say_how_actions_are_done_is_not_made():
    class Idle(ActionPlan):
        action = Look

    with pytest.raises(GateError, match="Idle must say how actions are done"):
        Idle(llm=ScriptedLLM([planned(0)]))


@pytest.mark.parametrize("name", ["after_refusal", "after_failure"])
def test_what_comes_after_is_one_of_two_words(name):
    with pytest.raises(ValueError, match=f"{name} must be 'continue' or 'stop', not 'halt'"):
        type("Halting", (Paying,), {name: "halt"})()


# --- subclasses ---------------------------------------------------------------------------------


async def test_gates_are_overridden_and_inherited(start):
    class Strict(Paying):
        each = Paying.each.replace(quorum=2)

    class Stricter(Strict):
        whole = ActionPlan.whole.replace(decisions=("approve", "reject"), quorum=2)

    done = []
    live = start(
        lambda: Stricter(llm=ScriptedLLM([planned(500)]), show="each", done=done), request="x"
    )
    (question,) = await live.open()
    await live.tell(question.answer(Approve(), by="erin"))
    assert done == []
    await live.tell(question.answer(Approve(), by="bob"))
    assert [amount for amount, _ in done] == [500]

    person = ScriptedReviewer([Approve()], by="erin")
    flow = Stricter(llm=ScriptedLLM([planned(500)]), done=[])
    result = await review_with(
        flow.run(request="x"), person, ScriptedReviewer([Approve()], by="bob")
    )
    assert result.actions[0].decided_by == ("erin", "bob")


class Noted(PlanState):
    notes: tuple[str, ...] = ()


async def test_a_workflow_keeps_a_state_of_its_own_beside_the_plan(start):
    class Noting(Paying):
        @step
        async def note(self, ctx: Context[Noted], ev: PlanStart) -> None:
            await ctx.store.set("notes", (ev.request,))

        async def execute(self, action, effect_key):
            state = await Context.get_step_context().store.get_state()
            self.done.append(state.notes)

    done = []
    live = start(lambda: Noting(llm=ScriptedLLM([planned(500)]), done=done), request="mine")
    (question,) = await live.open()
    await live.tell(question.answer(Approve(), by="erin"))
    assert shown(await live.result()) == ["500 done"]
    assert done == [("mine",)]


async def test_a_choice_about_an_edited_plan_is_about_what_it_was_edited_to(start):
    class Careful(Paying):
        whole = Paying.whole.replace(second_person_for_edit=True)

    done = []
    live = start(lambda: Careful(llm=ScriptedLLM([planned(500, 600, 700)]), done=done), request="x")
    (question,) = await live.open()
    edit = changed(question, n1=80, n3=None, n4=90)
    (second,) = asked(await live.tell(question.answer(edit, by="erin")))
    assert list(second.request.response_schema["properties"])[::2] == [
        "action_1",
        "action_2",
        "action_4",
    ]
    words = {"action_1": "approve", "action_2": "refuse", "action_4": "approve"}
    await live.tell(second.answer(Respond(response=words), by="bob"))
    result = await live.result()
    assert [amount for amount, _ in done] == [80, 90]
    assert shown(result) == ["80 done", "600 refused", "700 refused", "90 done"]
    assert {report.decided_by for report in result.actions} == {("erin", "bob")}


async def test_a_runner_refuses_an_edit_that_only_the_actions_model_knows_to_be_wrong():
    for show, wrong in (
        ("each", {"kind": "pay", "amount": "-1", "to": "Ann"}),
        ("whole", {"actions": [{"number": 1, "action": {"kind": "pay", "amount": "-1"}}]}),
    ):
        runner = runner_on(MemoryStore(), paying=paying(500, show=show))
        run = await runner.start("paying", request="x")
        (record,) = await runner.pending(run_id=run.run_id)
        with pytest.raises(InvalidAnswer, match="greater than 0"):
            await runner.answer(record.request_id, Edit(subject=wrong), by="erin")


def test_a_quorum_cannot_be_got_round_by_a_choice_of_actions():
    with pytest.raises(GateError, match="one person would decide alone"):
        type("Wrong", (Paying,), {"whole": Paying.whole.replace(quorum=2)})


async def test_another_type_of_action_in_a_subclass_of_a_subclass(start):
    class Send(Pay):
        kind: Literal["send"] = "send"

    class Sending(Paying):
        action = Annotated[Look | Send, Field(discriminator="kind")]

    reply = {"actions": [{"kind": "send", "amount": 500}]}
    done = []
    live = start(lambda: Sending(llm=ScriptedLLM([reply]), done=done), request="x")
    (question,) = await live.open()
    await live.tell(question.answer(Approve(), by="erin"))
    assert shown(await live.result()) == ["500 done"]


# --- crashes ------------------------------------------------------------------------------------


def runner_on(store, **flows):
    return Runner(store, flows, clock=ManualClock(NOON))


async def test_the_plan_is_made_once_though_the_run_is_begun_again():
    store, done = MemoryStore(), []

    class Interrupted(Paying):
        def tell(self, ctx, message):
            if message.startswith("2.") and "told" not in done:
                done.append("told")
                raise RuntimeError("after all has been done, and before it is stored")
            super().tell(ctx, message)

    llm = ScriptedLLM([planned(50, 60)])  # for a second plan there is no reply
    options = {"llm": llm, "done": done, "broken": (60,)}
    run = await runner_on(store, paying=Interrupted(**options)).start("paying", request="x")
    assert run.status is RunStatus.FAILED
    again = runner_on(store, paying=Interrupted(**options))
    assert (await again.retry(run.run_id, by="operator")).status is RunStatus.FINISHED
    assert shown(await again.result(run.run_id)) == ["50 done", "60 failed"]
    assert done == [(50, f"{run.run_id}:1"), "told"]
    llm.assert_exhausted()


async def cut_off(flow):
    """Return a run whose action was approved, and begun by a process that died in the middle."""
    runner = runner_on(MemoryStore(), pay=flow)
    run = await runner.start("pay", request="Pay Ann 500.")
    (first,) = await runner.pending()
    begun = Effect(
        key=f"{first.request_id}:1", run_id=run.run_id, status="begun", owner="another", at=NOON
    )
    await runner.store.commit(Commit(effects=(begun,)))
    await runner.answer(first.request_id, Approve(), by="erin")
    return runner, run.run_id


async def test_those_who_review_are_asked_about_an_action_that_was_cut_off():
    flow = paying(500, reviewers=["erin"])
    flow.on_doubt = "ask"
    runner, run_id = await cut_off(flow)
    await runner.advance(run_id)
    (doubt,) = await runner.pending()
    assert doubt.policy.reviewers == ("erin",)
    assert doubt.request.subject.data["amount"] == "500"
    await runner.answer(doubt.request_id, Reject(), by="erin")
    await runner.advance(run_id)
    assert shown(await runner.result(run_id)) == ["500 done"]
    assert flow.done == []


@pytest.mark.parametrize("on_doubt", ["repeat", "ask"])
@pytest.mark.parametrize(
    ("trouble", "why"),
    [("blocked", "it is blocked"), ("broken", "ConnectionError: the line is dead")],
)
async def test_an_action_that_may_have_been_done_is_not_said_not_to_have_been(
    on_doubt, trouble, why
):
    in_the_way = []
    flow = paying(500, **{trouble: in_the_way})
    flow.on_doubt = on_doubt
    runner, run_id = await cut_off(flow)
    in_the_way.append(500)  # as what it was to change may have been changed by it
    await runner.advance(run_id)
    for doubt in await runner.pending():
        await runner.answer(doubt.request_id, Approve(), by="erin")
        await runner.advance(run_id)
    (report,) = (await runner.result(run_id)).actions
    assert report.status is ActionStatus.FAILED
    assert report.reason == f"was interrupted and may have been done: {why}"
    assert flow.done == []


async def test_an_action_that_is_repeated_with_success_is_done():
    flow = paying(500)
    flow.on_doubt = "repeat"
    runner, run_id = await cut_off(flow)
    await runner.advance(run_id)
    (report,) = (await runner.result(run_id)).actions
    assert (report.status, report.reason) == (ActionStatus.DONE, "")
    assert amounts(flow) == [500]


async def test_the_audit_says_what_failed():
    store = MemoryStore()
    runner = runner_on(store, paying=paying(50, broken=(50,)))
    run = await runner.start("paying", request="x")
    reasons = [row.entry.reason for row in await runner.history(run.run_id)]
    assert "failed: ConnectionError: the line is dead" in reasons
    assert not await runner.effects_in_doubt()
