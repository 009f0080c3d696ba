import pytest
from flows import asked, codes, of_kind

from llama_index_hitl import Approve, Edit, Reject, Revise
from llama_index_hitl.prebuilt import (
    ConfirmationResult,
    ConfirmUnderstanding,
    Detail,
    ModelOutputError,
    ProgressEvent,
    ResultStatus,
    Understanding,
)
from llama_index_hitl.rules import always, never
from llama_index_hitl.testing import ScriptedLLM, ScriptedReviewer, review_with

WISH = "send {forty} to {{Ann}}, 100 % sure, %s {question}"


def paying_ann(amount):
    details = [Detail(name="amount", value=amount), Detail(name="currency", value="EUR")]
    return Understanding(action="I will pay Ann.", details=details)


PAY, PAY_50 = paying_ann("40"), paying_ann("50")


class Paying(ConfirmUnderstanding):
    """Remembers what was done."""

    def __init__(self, **options):
        super().__init__(**options)
        self.paid = []

    async def execute(self, understanding, effect_key):
        self.paid.append((effect_key, understanding))


def paying(*replies, **options):
    return Paying(llm=ScriptedLLM(replies), **options)


def erin(*script, **options):
    return ScriptedReviewer(script, **{"by": "erin", **options})


def made(result):
    """Say who decided what, in order."""
    return [(answer.by.id, answer.decision.kind) for answer in result.decisions]


# --- decisions ----------------------------------------------------------------------------------


async def test_what_is_confirmed_is_done():
    flow, person = paying(PAY), erin(Approve())
    result = await review_with(flow.run(request=WISH), person)
    assert isinstance(result, ConfirmationResult)
    assert (result.status, result.version) == (ResultStatus.APPROVED, 1)
    assert result.subject == PAY
    assert made(result) == [("erin", "approve")]
    assert flow.paid == [(person.asked[0].request_id, PAY)]
    person.assert_asked("confirmation")


async def test_nothing_is_done_before_it_is_confirmed(start_here):
    flow = paying(PAY)
    live = start_here(lambda: flow, request=WISH)
    await live.open()
    assert flow.paid == []


async def test_what_is_not_confirmed_is_not_done():
    flow = paying(PAY)
    result = await review_with(flow.run(request=WISH), erin(Reject(comment="not today")))
    assert (result.status, result.subject) == (ResultStatus.REJECTED, PAY)
    assert result.decisions[0].comment == "not today"
    assert flow.paid == []


async def test_a_correction_is_understood_anew_and_confirmed():
    flow, person = paying(PAY, PAY_50), erin(Revise(feedback="fifty"), Approve())
    result = await review_with(flow.run(request=WISH), person)
    assert (result.status, result.version) == (ResultStatus.APPROVED, 2)
    assert made(result) == [("erin", "revise"), ("erin", "approve")]
    assert flow.paid == [(person.asked[1].request_id, PAY_50)]
    assert person.asked[1].previous.data == PAY.model_dump(mode="json")


async def test_an_edit_is_done_as_edited():
    flow, person = paying(PAY), erin(Edit(subject=PAY_50.model_dump(mode="json")))
    result = await review_with(flow.run(request=WISH), person)
    assert (result.status, result.subject) == (ResultStatus.APPROVED, PAY_50)
    assert made(result) == [("erin", "edit")]
    assert flow.paid == [(person.asked[0].request_id, PAY_50)]


async def test_an_edit_after_a_correction():
    flow = paying(PAY, PAY)
    person = erin(Revise(feedback="fifty"), Edit(subject=PAY_50.model_dump(mode="json")))
    result = await review_with(flow.run(request=WISH), person)
    assert (result.status, result.version, result.subject) == (ResultStatus.APPROVED, 2, PAY_50)
    assert made(result) == [("erin", "revise"), ("erin", "edit")]


@pytest.mark.parametrize(
    "subject",
    [
        {"details": []},
        {"action": "x", "details": [{"name": "amount", "value": 40}]},
        {"action": "x", "details": {"amount": "40"}},
        {"action": "x", "sum": "40"},
    ],
    ids=["no action", "a number in the details", "no list", "unknown field"],
)
async def test_an_edit_that_does_not_fit_is_refused_and_nothing_is_done(start_here, subject):
    flow = paying(PAY)
    live = start_here(lambda: flow, request=WISH)
    (question,) = await live.open()
    assert codes(await live.tell(question.answer(Edit(subject=subject), by="erin"))) == [
        "invalid_answer"
    ]
    assert (live.ended, flow.paid) == (False, [])


@pytest.mark.parametrize("limit", [0, 1, 3])
async def test_one_correction_too_many_ends_it(limit):
    flow = paying(*[PAY] * (limit + 1), max_revisions=limit)
    person = erin(*[Revise(feedback="no")] * (limit + 1))
    result = await review_with(flow.run(request=WISH), person)
    assert (result.status, result.version) == (ResultStatus.MAX_REVISIONS, limit + 1)
    assert made(result) == [("erin", "revise")] * (limit + 1)
    assert flow.paid == []


async def test_the_question_repeats_what_was_said_and_what_was_understood():
    person = erin(Approve())
    await review_with(paying(PAY).run(request=WISH), person)
    (request,) = person.asked
    assert request.title == "I will pay Ann. Confirm?"
    assert request.body == f"You said: {WISH}"
    assert request.subject.data == PAY.model_dump(mode="json")


async def test_a_model_that_rambles_still_gets_a_title():
    rambling = Understanding(action="I will pay\nand pay\n" * 200)
    person = erin(Approve())
    await review_with(paying(rambling).run(request=WISH), person)
    assert person.asked[0].title.startswith("I will pay and pay I will pay")
    assert person.asked[0].title.endswith("… Confirm?")


async def test_progress_of_a_confirmation_is_on_the_stream(start_here):
    flow = paying(PAY, PAY_50)
    live = start_here(lambda: flow, request=WISH)
    await live.pause()
    await live.tell(asked(live.seen)[-1].answer(Revise(feedback="fifty"), by="erin"))
    assert [event.message for event in of_kind(live.seen, ProgressEvent)] == [
        "Reading the request",
        "Reading the correction",
    ]


# --- the model ----------------------------------------------------------------------------------


async def test_the_prompt_holds_the_request_and_all_corrections_so_far_as_they_are():
    llm = ScriptedLLM([PAY, PAY, PAY_50])
    person = erin(Revise(feedback="{fifty} %s"), Revise(feedback="EUR!"), Approve())
    await review_with(ConfirmUnderstanding(llm=llm).run(request=WISH), person)
    template = ConfirmUnderstanding.understand_prompt.replace("{request}", WISH)
    assert llm.prompts == [
        template.replace("{corrections}", "none"),
        template.replace("{corrections}", "{fifty} %s"),
        template.replace("{corrections}", "{fifty} %s\nEUR!"),
    ]


async def test_a_malformed_understanding_is_asked_again():
    llm = ScriptedLLM([{"details": []}, "I will pay.", PAY])
    result = await review_with(ConfirmUnderstanding(llm=llm).run(request=WISH), erin(Approve()))
    assert result.subject == PAY
    assert "action\n  Field required" in llm.prompts[1]
    assert "I will pay." in llm.prompts[2]


async def test_an_understanding_that_stays_malformed_is_an_error():
    flow, person = paying(*["?"] * 3), erin(Approve())
    with pytest.raises(ModelOutputError, match="did not give Understanding in 3 attempts"):
        await review_with(flow.run(request=WISH), person)
    assert (person.asked, flow.paid) == ([], [])


async def test_a_correction_that_the_model_cannot_follow_is_an_error():
    flow, person = paying(PAY, *["?"] * 3), erin(Revise(feedback="fifty"), Approve())
    with pytest.raises(ModelOutputError):
        await review_with(flow.run(request=WISH), person)
    assert (len(person.asked), flow.paid) == (1, [])


# --- subclassing --------------------------------------------------------------------------------


async def test_override_understand():
    class Mine(Paying):
        async def understand(self, request, corrections):
            return Understanding(action=f"{request} ({corrections})")

    flow = Mine()
    result = await review_with(flow.run(request="tea"), erin(Revise(feedback="green"), Approve()))
    assert result.subject.action == "tea (green)"


async def test_override_the_prompt():
    class Mine(ConfirmUnderstanding):
        understand_prompt = "{request}|{corrections}|{{}}"

    llm = ScriptedLLM([PAY])
    await review_with(Mine(llm=llm).run(request="tea"), erin(Approve()))
    assert llm.prompts == ["tea|none|{}"]


async def test_override_max_revisions():
    class Mine(ConfirmUnderstanding):
        max_revisions = 0

    person = erin(Revise(feedback="no"))
    result = await review_with(Mine(llm=ScriptedLLM([PAY])).run(request="x"), person)
    assert result.status is ResultStatus.MAX_REVISIONS


async def test_override_the_gate_so_that_small_things_need_no_confirmation():
    def is_small(subject):
        return float(subject.details[0].value) <= 40

    class Mine(Paying):
        confirmation = ConfirmUnderstanding.confirmation.replace(
            when=lambda flow, ev: never() if is_small(ev.understanding) else always("ask"),
            reviewers=["erin"],
        )

    flow, person = Mine(llm=ScriptedLLM([PAY, PAY_50])), erin(Reject())
    small = await review_with(flow.run(request="x"), person)
    large = await review_with(flow.run(request="x"), person)
    assert (small.status, large.status) == (ResultStatus.APPROVED, ResultStatus.REJECTED)
    assert small.decisions[0].by.kind == "rule"
    assert [understanding for _, understanding in flow.paid] == [PAY]
