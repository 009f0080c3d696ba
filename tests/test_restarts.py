"""The harness that builds everything anew from JSON in each pause."""

from typing import Any, ClassVar

import pytest
from durable import Waiting
from flows import Draft, drafts, person, revised, stages, transfers
from workflows import Context, Workflow, step
from workflows.events import HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent

from llama_index_hitl import (
    Approve,
    Approved,
    Delegate,
    Edit,
    Question,
    Reject,
    Respond,
    Review,
    Revise,
    ask,
)
from llama_index_hitl.errors import UnserializableState
from llama_index_hitl.testing import ScriptedReviewer, review_with, review_with_restarts


def reviewer(by: Any, *script: Any) -> ScriptedReviewer:
    return ScriptedReviewer(script, by=by)


@pytest.mark.parametrize("restarts", [False, True])
async def test_it_comes_to_the_same_as_without_restarts(restarts: bool) -> None:
    erin = reviewer("erin", Revise(feedback="a"), Revise(feedback="b"), Approve())
    make = revised()
    if restarts:
        result = await review_with_restarts(make, erin, topic="x")
    else:
        result = await review_with(make().run(topic="x"), erin)
    assert result.subject.text == "x, a, b"
    erin.assert_used_up()
    erin.assert_asked("review", "review", "review")


async def test_work_before_a_pause_is_not_done_again() -> None:
    make = drafts()
    await review_with_restarts(make, reviewer("erin", Approve()), topic="x")
    assert make.written == ["x"]
    assert len(make.published) == 1


async def test_every_pause_has_a_workflow_of_its_own() -> None:
    made: list[Workflow] = []
    make = revised()

    def remember() -> Workflow:
        made.append(make())
        return made[-1]

    await review_with_restarts(remember, reviewer("erin", Revise(feedback="a"), Approve()))
    assert len({id(workflow) for workflow in made}) == 3


class Forgetful(Workflow):
    @step
    async def write(self, ev: StartEvent) -> Draft:
        self.topic = ev.topic
        return Draft(text=ev.topic)

    review = Review(Draft)

    @step
    async def publish(self, ev: Approved) -> StopEvent:
        return StopEvent(result=self.topic)


async def test_what_a_step_keeps_on_the_workflow_is_gone_as_it_would_be_elsewhere() -> None:
    run = Forgetful(timeout=None).run(topic="x")
    assert await review_with(run, reviewer("erin", Approve())) == "x"
    with pytest.raises(AttributeError, match="topic"):
        await review_with_restarts(
            lambda: Forgetful(timeout=None), reviewer("erin", Approve()), topic="x"
        )


class Unstorable(Workflow):
    @step
    async def write(self, ctx: Context, ev: StartEvent) -> Draft:
        await ctx.store.set("connection", object())
        return Draft(text="x")

    review = Review(Draft)

    @step
    async def publish(self, ev: Approved) -> StopEvent:
        return StopEvent()


async def test_what_json_cannot_carry_is_named() -> None:
    with pytest.raises(UnserializableState, match="connection"):
        await review_with_restarts(lambda: Unstorable(timeout=None), reviewer("erin", Approve()))


async def test_several_requests_and_several_people() -> None:
    make = transfers(3)
    erin = ScriptedReviewer(
        lambda r: Approve() if r.subject.data["to"] != "payee 1" else None, by="erin"
    )
    bob = ScriptedReviewer(
        lambda r: Reject() if r.subject.data["to"] == "payee 1" else None, by="bob"
    )
    paid = await review_with_restarts(make, erin, bob)
    assert paid == {"payee 0": True, "payee 1": False, "payee 2": True}
    assert sorted(make.paid) == ["payee 0", "payee 2"]


async def test_a_quorum_votes_over_several_pauses() -> None:
    make = drafts(reviewers="role:legal", quorum=2)
    voters = [reviewer(person(name, "legal"), Approve()) for name in ("ann", "bob")]
    result = await review_with_restarts(make, *voters)
    assert [answer.by.id for answer in result.answers] == ["ann", "bob"]


async def test_who_is_delegated_to_is_asked_then() -> None:
    make = drafts(reviewers="erin", delegable=True)
    bob, erin = reviewer("bob", Approve()), reviewer("erin", Delegate(to="bob"))
    result = await review_with_restarts(make, bob, erin)
    assert [answer.by.id for answer in result.answers] == ["erin", "bob"]


async def test_two_gates_ask_one_after_the_other() -> None:
    erin = reviewer("erin", Approve(), Approve())
    await review_with_restarts(stages(), erin, topic="x")
    erin.assert_asked("legal", "editor")


class Asking(Workflow):
    calls: ClassVar[int] = 0

    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        first = await ask(ctx, Question(title="Shall I?"), key="first")
        second = await ask(ctx, Question(title="Really?"), key="second")
        type(self).calls += 1
        return StopEvent(result=[first.approved, second.approved])


async def test_questions_that_are_asked_inline() -> None:
    Asking.calls = 0
    erin = reviewer("erin", Approve(), Reject())
    result = await review_with_restarts(lambda: Asking(timeout=None), erin)
    assert result == [True, False]
    assert Asking.calls == 1


class Plain(Workflow):
    @step
    async def question(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent(prefix="Name?")

    @step
    async def greet(self, ev: HumanResponseEvent) -> StopEvent:
        return StopEvent(result=f"Hello, {ev.response}!")


async def test_plain_questions_take_text() -> None:
    result = await review_with_restarts(lambda: Plain(timeout=None), reviewer("ann", "Ada"))
    assert result == "Hello, Ada!"


async def test_a_plain_question_with_fields_takes_json_text() -> None:
    ann = reviewer("ann", *['{"yes": true}'] * 3)
    result = await review_with_restarts(lambda: Waiting(timeout=None), ann)
    assert result == ["0:owner-0:True", "1:owner-1:True", "2:owner-2:True"]


async def test_who_has_nothing_to_say_is_named_with_what_waits() -> None:
    with pytest.raises(AssertionError, match=r"nobody answers: .*\n  erin: 0 answers left"):
        await review_with_restarts(drafts(), reviewer("erin"))


async def test_a_refusal_is_noted_and_the_next_one_is_asked() -> None:
    erin, bob = reviewer("erin", Respond(response="hm")), reviewer("bob", Approve())
    await review_with_restarts(drafts(), erin, bob)
    assert [event.code for event in erin.refused] == ["invalid_answer"]


async def test_a_refusal_by_the_subjects_own_model_is_noted_too() -> None:
    make = transfers(1, editable=True)
    erin = reviewer("erin", Edit(subject={"to": "payee 0", "amount": -5}))
    bob = reviewer("bob", Approve())
    await review_with_restarts(make, erin, bob)
    assert [event.code for event in erin.refused] == ["invalid_answer"]


async def test_an_error_of_a_step_comes_out() -> None:
    class Failing(Workflow):
        @step
        async def write(self, ev: StartEvent) -> StopEvent:
            raise ZeroDivisionError("as written")

    with pytest.raises(ZeroDivisionError, match="as written"):
        await review_with_restarts(lambda: Failing(timeout=None))


async def test_only_scripted_people_are_taken() -> None:
    with pytest.raises(TypeError, match="ScriptedReviewer"):
        await review_with_restarts(drafts(), "erin")  # type: ignore[arg-type]


async def test_inputs_may_have_any_name() -> None:
    make = drafts()
    await review_with_restarts(make, reviewer("e", Approve()), inputs={"topic": "y", "clock": 1})
    assert make.written == ["y"]


async def test_a_workflow_in_the_place_of_what_makes_it_is_an_error():
    class Flow(Workflow):
        @step
        async def go(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

    with pytest.raises(TypeError, match=r"lambda: Flow\(timeout=None\)"):
        await review_with_restarts(Flow(timeout=None))
