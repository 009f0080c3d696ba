import asyncio

import pytest
from flows import Draft, drafts, made, person, revised, stages, transfers
from workflows import Context, Workflow, step
from workflows.errors import WorkflowCancelledByUser
from workflows.events import HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent

from llama_index_hitl import (
    Abstain,
    Approve,
    Approved,
    Delegate,
    Edit,
    Escalate,
    Question,
    Reject,
    Rejected,
    Review,
    Revise,
    ask,
)
from llama_index_hitl.testing import ManualClock, ScriptedReviewer, review_with


def reviewer(by, *script, **options):
    return ScriptedReviewer(script, by=by, **options)


def votes(outcome):
    """Say who decided what, in order."""
    return [(answer.by.id, answer.decision.kind) for answer in outcome.answers]


# --- one person ---------------------------------------------------------------------------------


async def test_answers_are_taken_in_order():
    erin = reviewer("erin", Revise(feedback="a"), Revise(feedback="b"), Approve())
    result = await review_with(revised()().run(topic="x"), erin)
    assert result.subject.text == "x, a, b"
    assert [request.revision for request in erin.asked] == [1, 2, 3]
    erin.assert_asked("review", "review", "review")
    erin.assert_used_up()
    assert erin.left == 0


async def test_answers_may_be_a_function_of_the_request():
    def decide(request):
        return Revise(feedback="again") if request.revision < 3 else Approve()

    erin = ScriptedReviewer(decide, by="erin")
    result = await review_with(revised()().run(topic="x"), erin)
    assert result.subject.text == "x, again, again"
    assert len(erin.asked) == 3
    assert erin.left == 0
    erin.assert_used_up()


async def test_a_script_may_be_any_iterable():
    erin = ScriptedReviewer((decision for decision in [Approve()]), by="erin")
    assert erin.left == 1
    await review_with(drafts()().run(), erin)
    assert erin.left == 0


async def test_the_answer_says_who_gave_it_when_where_and_in_which_role():
    clock = ManualClock()
    kim = ScriptedReviewer(
        [Approve()], by=person("kim", "chief"), role="chief", channel="mail", clock=clock
    )

    class Dated(drafts()):
        def __init__(self, **options):
            super().__init__(**options)
            self.clock = clock

    result = await review_with(Dated().run(), kim)
    (answer,) = result.answers
    assert (answer.by, answer.role, answer.channel, answer.at) == (
        person("kim", "chief"),
        "chief",
        "mail",
        clock(),
    )


async def test_somebody_without_a_name_is_called_reviewer():
    result = await review_with(drafts()().run(), ScriptedReviewer([Approve()]))
    assert votes(result) == [("reviewer", "approve")]


async def test_every_request_is_seen_even_if_they_let_it_lie():
    erin, kim = reviewer("erin", None), reviewer("kim", Approve())
    result = await review_with(drafts()().run(), erin, kim)
    assert votes(result) == [("kim", "approve")]
    erin.assert_asked("review")
    assert erin.left == 0


async def test_the_result_is_that_of_the_run():
    class Plain(Workflow):
        @step
        async def run_it(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result={"topic": ev.topic})

    assert await review_with(Plain(timeout=None).run(topic="tea")) == {"topic": "tea"}


# --- several people -----------------------------------------------------------------------------


async def test_people_are_asked_in_the_order_of_the_arguments():
    everyone = {"reviewers": ["ann", "bob", "eve"], "quorum": "all"}
    people = [reviewer(name, Approve()) for name in ("eve", "ann", "bob")]
    result = await review_with(drafts(**everyone)().run(), *people)
    assert [who for who, _ in votes(result)] == ["eve", "ann", "bob"]


async def test_those_who_are_not_needed_any_more_are_not_asked():
    two_of_three = {"reviewers": ["ann", "bob", "eve"], "quorum": 2}
    people = [reviewer(name, Approve()) for name in ("ann", "bob", "eve")]
    result = await review_with(drafts(**two_of_three)().run(), *people)
    assert [who for who, _ in votes(result)] == ["ann", "bob"]
    assert (people[2].asked, people[2].left) == ([], 1)


async def test_an_abstention_lets_the_next_one_decide():
    gate = {"reviewers": ["ann", "bob"], "abstainable": True}
    result = await review_with(
        drafts(**gate)().run(), reviewer("ann", Abstain()), reviewer("bob", Approve())
    )
    assert votes(result) == [("ann", "abstain"), ("bob", "approve")]


async def test_somebody_with_an_empty_script_is_absent():
    absent, kim = reviewer("erin"), reviewer("kim", Approve())
    result = await review_with(drafts()().run(), absent, kim)
    assert votes(result) == [("kim", "approve")]
    assert absent.asked == []


async def test_only_those_who_may_answer_are_asked():
    sam = reviewer("sam", Reject())
    kim = ScriptedReviewer([Approve()], by=person("kim", "legal"))
    result = await review_with(drafts(reviewers="role:legal")().run(), sam, kim)
    assert votes(result) == [("kim", "approve")]
    assert (sam.asked, sam.left) == ([], 1)


async def test_each_stage_is_answered_by_its_own_people():
    flow = stages(reviewers=["kim"], distinct_from="legal")
    erin, kim = reviewer("erin", Approve(), Approve()), reviewer("kim", Approve())
    await review_with(flow().run(), erin, kim)
    erin.assert_asked("legal")
    kim.assert_asked("editor")


async def test_several_open_requests_are_answered_one_by_one():
    refused = {"payee 1"}

    def decide(request):
        return Reject() if request.subject.data["to"] in refused else Approve()

    erin = ScriptedReviewer(decide, by="erin")
    result = await review_with(transfers(3)().run(), erin)
    assert result == {"payee 0": True, "payee 1": False, "payee 2": True}
    erin.assert_asked("release", "release", "release")


async def test_everybody_is_asked_about_each_request_before_the_next_one():
    order = []

    def saying(name):
        def decide(request):
            order.append((name, request.subject.data["to"]))
            return Approve()

        return decide

    people = [ScriptedReviewer(saying(name), by=name) for name in ("ann", "bob")]
    gate = {"reviewers": ["ann", "bob"], "quorum": "all"}
    await review_with(transfers(2, **gate)().run(), *people)
    assert order[0] == ("ann", order[1][1])
    assert [name for name, _ in order] == ["ann", "bob", "ann", "bob"]


async def test_an_escalation_asks_those_above():
    gate = {"reviewers": "ann", "escalate_to": "chief"}
    chief = reviewer("chief", Approve())
    result = await review_with(drafts(**gate)().run(), chief, reviewer("ann", Escalate()))
    assert votes(result) == [("chief", "approve")]
    assert chief.asked[0].level == 1


@pytest.mark.parametrize("first", ["giver", "delegate"])
async def test_a_delegate_is_asked(first):
    gate = {"reviewers": "ann", "delegable": True}
    people = [reviewer("ann", Delegate(to="bob")), reviewer("bob", Approve())]
    ordered = people if first == "giver" else people[::-1]
    result = await review_with(drafts(**gate)().run(), *ordered)
    assert votes(result) == [("ann", "delegate"), ("bob", "approve")]
    people[1].assert_asked("review")


async def test_a_delegate_is_asked_once_only():
    gate = {"reviewers": ["ann", "eve"], "quorum": "all", "delegable": True}
    bob = reviewer("bob", None, Approve())
    with pytest.raises(AssertionError, match="nobody answers"):
        await review_with(
            drafts(**gate)().run(),
            reviewer("ann", Delegate(to="bob")),
            bob,
            reviewer("eve", Approve()),
        )
    bob.assert_asked("review")


async def test_an_edit_is_asked_anew():
    gate = {"editable": True, "second_person_for_edit": True}
    erin, kim = (
        reviewer("erin", Edit(subject={"text": "mine"}), Approve()),
        reviewer("kim", Approve()),
    )
    result = await review_with(drafts(**gate)().run(topic="x"), erin, kim)
    assert (votes(result), result.subject.text) == ([("kim", "approve")], "mine")
    assert erin.left == 1


async def test_a_question_that_is_asked_inline_is_answered():
    class Asking(Workflow):
        @step
        async def decide(self, ctx: Context, ev: StartEvent) -> StopEvent:
            found = await ask(ctx, Question(title="Go on?"))
            return StopEvent(result=(found.approved, found.answer.by.id))

    result = await review_with(Asking(timeout=None).run(), reviewer("erin", Approve()))
    assert result == (True, "erin")


# --- refused answers ----------------------------------------------------------------------------


async def test_a_refusal_is_collected_by_whom_it_was_said_to():
    erin, kim = reviewer("erin", Edit(subject={"texts": "?"})), reviewer("kim", Approve())
    result = await review_with(drafts(editable=True)().run(), erin, kim)
    assert votes(result) == [("kim", "approve")]
    (refusal,) = erin.refused
    assert (refusal.code, refusal.by) == ("invalid_answer", "erin")
    assert refusal.request_id == erin.asked[0].request_id
    assert kim.refused == []


async def test_a_decision_that_the_gate_does_not_allow_is_refused():
    erin, kim = reviewer("erin", Revise(feedback="more")), reviewer("kim", Approve())
    await review_with(drafts()().run(), erin, kim)
    assert [refusal.code for refusal in erin.refused] == ["invalid_answer"]


async def test_an_answer_from_the_past_is_refused():
    late = ScriptedReviewer([Approve()], by="erin", clock=ManualClock())

    class Later(drafts()):
        def __init__(self, **options):
            super().__init__(**options)
            self.clock = ManualClock()
            self.clock.advance(days=1)

    with pytest.raises(AssertionError, match="nobody answers"):
        await review_with(Later().run(), late)
    assert [refusal.code for refusal in late.refused] == ["stale_request"]


async def test_nobody_is_asked_again_after_a_refusal():
    erin = reviewer("erin", Revise(feedback="more"), Approve())
    with pytest.raises(AssertionError, match="nobody answers"):
        await review_with(drafts()().run(), erin)
    assert (len(erin.asked), erin.left) == (1, 1)


# --- plain events -------------------------------------------------------------------------------


class Interview(Workflow):
    """Asks with events that know nothing of this package, one after the other."""

    @step
    async def begin(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent(prefix="Your name?")

    @step
    async def go_on(self, ctx: Context, ev: HumanResponseEvent) -> InputRequiredEvent | StopEvent:
        said = [*await ctx.store.get("said", []), ev.response]
        await ctx.store.set("said", said)
        return InputRequiredEvent(prefix="And then?") if len(said) < 3 else StopEvent(result=said)


class TwoAtOnce(Workflow):
    """Asks two plain questions at the same time, and a third after the first answer."""

    @step
    async def one(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent(prefix="One?")

    @step
    async def two(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent(prefix="Two?")

    @step
    async def go_on(
        self, ctx: Context, ev: HumanResponseEvent
    ) -> InputRequiredEvent | StopEvent | None:
        said = [*await ctx.store.get("said", []), ev.response]
        await ctx.store.set("said", said)
        if len(said) == 1:
            return InputRequiredEvent(prefix="Three?")
        return StopEvent(result=said) if len(said) == 3 else None


async def test_plain_questions_are_answered_with_text():
    erin = reviewer("erin", "Ada", "tea", "")
    assert await review_with(Interview(timeout=None).run(), erin) == ["Ada", "tea", ""]
    assert erin.asked == []
    erin.assert_used_up()


async def test_plain_questions_are_answered_by_whoever_has_text():
    absent, erin = reviewer("kim", None), reviewer("erin", "Ada", "tea", "no")
    assert await review_with(Interview(timeout=None).run(), absent, erin) == ["Ada", "tea", "no"]


async def test_plain_questions_that_are_open_at_once_are_all_answered():
    erin = reviewer("erin", "a", "b", "c")
    assert await review_with(TwoAtOnce(timeout=None).run(), erin) == ["a", "b", "c"]


async def test_waiting_inline_for_a_plain_answer():
    class Waiting(Workflow):
        @step
        async def wait(self, ctx: Context, ev: StartEvent) -> StopEvent:
            answer = await ctx.wait_for_event(
                HumanResponseEvent, waiter_event=InputRequiredEvent(prefix="Sure?")
            )
            return StopEvent(result=answer.response)

    assert await review_with(Waiting(timeout=None).run(), reviewer("erin", "yes")) == "yes"


async def test_text_is_no_decision():
    handler = drafts()().run()
    with pytest.raises(
        TypeError, match=r"'review' takes a decision such as Approve\(\), not 'yes'"
    ):
        await review_with(handler, reviewer("erin", "yes"))
    assert handler.is_done()


async def test_a_decision_is_no_text():
    handler = Interview(timeout=None).run()
    with pytest.raises(TypeError, match="A plain InputRequiredEvent takes text, not Approve"):
        await review_with(handler, reviewer("erin", Approve()))
    assert handler.is_done()


# --- nobody answers -----------------------------------------------------------------------------


async def test_a_run_that_nobody_answers_is_an_error_that_names_the_questions():
    flow = drafts(title="Publish the tea story?")
    with pytest.raises(AssertionError, match=r"nobody answers: Publish the tea story\?$"):
        await review_with(flow().run())


async def test_all_open_questions_are_named():
    flow = transfers(3, title=lambda _, ev: f"Pay {ev.to}?")
    with pytest.raises(AssertionError) as caught:
        await review_with(flow().run(), reviewer("erin", Approve()))
    named = str(caught.value).splitlines()[0].partition("nobody answers: ")[2].split("; ")
    assert sorted(named) == ["Pay payee 1?", "Pay payee 2?"]


async def test_what_keeps_each_person_from_answering_is_told():
    gate = {"reviewers": ["ann", "bob", "eve"], "quorum": "all", "title": "Publish?"}
    people = [
        reviewer("ann", Revise(feedback="more"), Approve()),
        reviewer("bob"),
        ScriptedReviewer(lambda _: None, by="eve"),
        reviewer("sam", Approve()),
    ]
    with pytest.raises(AssertionError) as caught:
        await review_with(drafts(**gate)().run(), *people)
    first, ann, bob, eve, sam = (line.strip() for line in str(caught.value).splitlines())
    assert first.endswith("nobody answers: Publish?")
    assert ann.startswith("ann: 1 answers left; refused: ")
    assert bob == "bob: 0 answers left"
    assert eve == "eve: lets it lie"
    assert sam.startswith("sam: 1 answers left; may not answer review-")
    assert sam.endswith("the request is for ann, bob, eve")


async def test_a_plain_question_that_nobody_answers_is_named():
    with pytest.raises(AssertionError, match=r"nobody answers: Your name\?$"):
        await review_with(Interview(timeout=None).run())


async def test_a_plain_question_without_a_prefix_is_named_by_its_type():
    class PickColour(InputRequiredEvent):
        colours: list[str]

    class Painting(Interview):
        @step
        async def begin(self, ev: StartEvent) -> PickColour:
            return PickColour(colours=["red", "blue"])

    with pytest.raises(AssertionError, match=r"PickColour\(.*red"):
        await review_with(Painting(timeout=None).run())


async def test_a_run_that_waits_for_nothing_that_was_asked_says_so():
    class Silent(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> None:
            return None

        @step
        async def end(self, ev: HumanResponseEvent) -> StopEvent:
            return StopEvent()

    with pytest.raises(AssertionError, match="nothing was asked"):
        await review_with(Silent(timeout=None).run())


async def test_the_run_is_cancelled_when_nobody_answers():
    handler = drafts()().run()
    with pytest.raises(AssertionError):
        await review_with(handler)
    assert handler.is_done()
    with pytest.raises(WorkflowCancelledByUser):
        await handler


async def test_the_run_is_cancelled_when_a_script_raises():
    def decide(request):
        assert request.title == "something else", "the title is wrong"

    handler = drafts()().run()
    with pytest.raises(AssertionError, match="the title is wrong"):
        await review_with(handler, ScriptedReviewer(decide))
    assert handler.is_done()


async def test_the_run_is_cancelled_when_the_test_is():
    handler = made(Slow)().run()
    task = asyncio.create_task(review_with(handler))
    await Slow.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert handler.is_done()


class Slow(Workflow):
    """Works for ever."""

    begun = asyncio.Event()

    @step
    async def work(self, ev: StartEvent) -> StopEvent:
        self.begun.set()
        await asyncio.Event().wait()
        return StopEvent()


async def test_an_error_of_the_run_is_raised():
    class Broken(Workflow):
        @step
        async def write(self, ev: StartEvent) -> Draft:
            return Draft(text="x")

        review = Review(Draft)

        @step
        async def publish(self, ev: Approved) -> StopEvent:
            raise ConnectionError("no printer")

    with pytest.raises(ConnectionError, match="no printer"):
        await review_with(made(Broken)().run(), reviewer("erin", Approve()))


async def test_an_outcome_that_ends_the_run_is_its_result():
    result = await review_with(drafts()().run(), reviewer("erin", Reject()))
    assert isinstance(result, Rejected)


@pytest.mark.parametrize("stranger", ["erin", Approve(), ScriptedReviewer])
async def test_only_scripted_reviewers_can_answer(stranger):
    handler = drafts()().run()
    with pytest.raises(TypeError, match="takes ScriptedReviewers"):
        await review_with(handler, stranger)
    assert handler.is_done()


async def test_only_a_run_can_be_answered():
    with pytest.raises(TypeError, match=r"what flow\.run\(\) returns"):
        await review_with(drafts()(), reviewer("erin", Approve()))


# --- assertions ---------------------------------------------------------------------------------


async def test_answers_that_are_left_are_listed():
    erin = reviewer("erin", Approve(), Reject(comment="late"), None)
    await review_with(drafts()().run(), erin)
    with pytest.raises(AssertionError) as caught:
        erin.assert_used_up()
    assert str(caught.value).startswith("erin was asked 1 times and has answers left: [Reject(")
    assert "late" in str(caught.value)
    assert erin.left == 2


async def test_being_asked_elsewhere_is_told():
    erin = reviewer("erin", Approve(), Approve())
    await review_with(stages()().run(), erin)
    erin.assert_asked("legal", "editor")
    with pytest.raises(AssertionError) as caught:
        erin.assert_asked("editor", "legal")
    assert str(caught.value) == "erin was asked at ('legal', 'editor'), not at ('editor', 'legal')"


@pytest.mark.parametrize("gates", [("review",), ("review", "review")])
def test_not_being_asked_is_told(gates):
    with pytest.raises(AssertionError, match=r"erin was asked at \(\), not at"):
        reviewer("erin").assert_asked(*gates)


def test_not_being_asked_can_be_asserted():
    reviewer("erin").assert_asked()
