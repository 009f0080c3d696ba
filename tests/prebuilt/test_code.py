import pytest
from flows import asked, codes, of_kind

from llama_index_hitl import Approve, Edit, Reject, Revise
from llama_index_hitl.prebuilt import (
    Code,
    CodeResult,
    CodeReview,
    ModelOutputError,
    ProgressEvent,
    ResultStatus,
)
from llama_index_hitl.rules import always
from llama_index_hitl.testing import ScriptedLLM, ScriptedReviewer, review_with

AWKWARD = "return {user} % 100 in f'{{x}}' %s"


class Merging(CodeReview):
    """Remembers what was merged."""

    def __init__(self, **options):
        super().__init__(**options)
        self.merged = []

    async def execute(self, code, effect_key):
        self.merged.append((effect_key, code))


def erin(*script, **options):
    return ScriptedReviewer(script, **{"by": "erin", **options})


def made(result):
    """Say who decided what, in order."""
    return [(answer.by.id, answer.decision.kind) for answer in result.decisions]


# --- decisions ----------------------------------------------------------------------------------


async def test_approved_code_is_executed_and_is_the_result():
    flow, person = Merging(llm=ScriptedLLM(["print(1)"])), erin(Approve())
    result = await review_with(flow.run(task="print one"), person)
    assert isinstance(result, CodeResult)
    assert (result.status, result.version) == (ResultStatus.APPROVED, 1)
    assert result.subject == Code(code="print(1)")
    assert made(result) == [("erin", "approve")]
    assert flow.merged == [(person.asked[0].request_id, Code(code="print(1)"))]


async def test_rejected_code_is_not_executed():
    flow = Merging(llm=ScriptedLLM(["print(1)"]))
    result = await review_with(flow.run(task="print one"), erin(Reject(comment="no")))
    assert result.status is ResultStatus.REJECTED
    assert result.decisions[0].comment == "no"
    assert flow.merged == []


async def test_rejected_after_a_revision():
    flow = Merging(llm=ScriptedLLM(["a", "b"]))
    result = await review_with(flow.run(task="x"), erin(Revise(feedback="more"), Reject()))
    assert (result.status, result.version) == (ResultStatus.REJECTED, 2)
    assert result.subject == Code(code="b")
    assert made(result) == [("erin", "revise"), ("erin", "reject")]
    assert flow.merged == []


async def test_feedback_makes_the_next_version():
    flow = Merging(llm=ScriptedLLM(["a", "b"]))
    result = await review_with(flow.run(task="x"), erin(Revise(feedback="more"), Approve()))
    assert (result.status, result.version) == (ResultStatus.APPROVED, 2)
    assert [code for _, code in flow.merged] == [Code(code="b")]
    assert made(result) == [("erin", "revise"), ("erin", "approve")]


async def test_three_revisions_are_allowed_and_the_fourth_send_back_ends_it():
    llm = ScriptedLLM(["v1", "v2", "v3", "v4"])
    flow = Merging(llm=llm)
    result = await review_with(flow.run(task="x"), erin(*[Revise(feedback="again")] * 4))
    assert (result.status, result.version) == (ResultStatus.MAX_REVISIONS, 4)
    assert result.subject == Code(code="v4")
    assert made(result) == [("erin", "revise")] * 4
    assert flow.merged == []
    llm.assert_exhausted()


async def test_the_fourth_version_can_still_be_approved():
    llm = ScriptedLLM(["v1", "v2", "v3", "v4"])
    person = erin(*[Revise(feedback="again")] * 3, Approve())
    result = await review_with(CodeReview(llm=llm).run(task="x"), person)
    assert (result.status, result.version) == (ResultStatus.APPROVED, 4)


async def test_no_revisions_at_all():
    flow = CodeReview(llm=ScriptedLLM(["v1"]), max_revisions=0)
    result = await review_with(flow.run(task="x"), erin(Revise(feedback="again")))
    assert (result.status, result.version) == (ResultStatus.MAX_REVISIONS, 1)


async def test_the_request_shows_code_as_code():
    person = erin(Approve())
    await review_with(CodeReview(llm=ScriptedLLM(["print(1)"])).run(task="print one"), person)
    shown = person.asked[0].subject
    field = shown.json_schema["properties"]["code"]
    assert (field["format"], field["language"]) == ("code", "python")
    assert shown.data == {"code": "print(1)"}
    assert person.asked[0].title == "Code for: print one"


async def test_the_next_request_shows_the_version_before_and_the_feedback():
    person = erin(Revise(feedback="more"), Approve())
    await review_with(CodeReview(llm=ScriptedLLM(["a", "b"])).run(task="x"), person)
    assert person.asked[1].previous.data == {"code": "a"}
    assert person.asked[1].feedback[0].text == "more"
    assert person.asked[1].revision == 2


async def test_a_task_of_many_lines_fits_into_the_title():
    person = erin(Approve())
    task = "Read a file.\nWrite a file.\n" * 100
    await review_with(CodeReview().run(task=task, code="pass"), person)
    assert person.asked[0].title.startswith("Code for: Read a file. Write a file. Read")


# --- the model ----------------------------------------------------------------------------------


async def test_code_of_ones_own_needs_no_model():
    llm = ScriptedLLM([])
    result = await review_with(CodeReview(llm=llm).run(task="x", code=AWKWARD), erin(Approve()))
    assert result.subject == Code(code=AWKWARD)
    assert llm.calls == []


async def test_the_prompts_hold_task_feedback_and_code_as_they_are():
    llm = ScriptedLLM([AWKWARD, "pass"])
    person = erin(Revise(feedback=f"not {AWKWARD}"), Approve())
    await review_with(CodeReview(llm=llm).run(task=f"write {AWKWARD}"), person)
    first = CodeReview.generate_prompt.replace("{task}", f"write {AWKWARD}")
    second = (
        CodeReview.revise_prompt.replace("{code}", AWKWARD)
        .replace("{task}", f"write {AWKWARD}")
        .replace("{feedback}", f"not {AWKWARD}")
    )
    assert llm.prompts == [first, second]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("```python\nx = 1\n```", "x = 1"),
        ("```\nx = 1\ny = 2\n```\n", "x = 1\ny = 2"),
        ("\n```py\nif x:\n    y\n```  ", "if x:\n    y"),
        ("x = 1", "x = 1"),
        ("```python\nx = '\u2028\f'\n```", "x = '\u2028\f'"),
        ("x = '```'", "x = '```'"),
        ("```python\nx = '''\n```\n'''\n```", "x = '''\n```\n'''"),
    ],
    ids=[
        "python",
        "no language",
        "indented",
        "no fence",
        "other ends of line",
        "fence in a string",
        "fence inside",
    ],
)
async def test_the_fence_around_code_is_no_code(said, code):
    person = erin(Revise(feedback="again"), Approve())
    result = await review_with(CodeReview(llm=ScriptedLLM([said, said])).run(task="x"), person)
    assert person.asked[0].subject.data == {"code": code}
    assert result.subject == Code(code=code)


@pytest.mark.parametrize("said", ["", "  \n", "```python\n```", "```\n\n```"])
@pytest.mark.parametrize("before", [[], ["x = 1"]], ids=["first version", "next version"])
async def test_a_model_that_writes_no_code_is_an_error(said, before):
    flow = Merging(llm=ScriptedLLM([*before, said]))
    person = erin(*[Revise(feedback="again")] * len(before), Approve())
    with pytest.raises(ModelOutputError):
        await review_with(flow.run(task="x"), person)
    assert len(person.asked) == len(before)
    assert flow.merged == []


async def test_an_error_of_the_model_ends_the_run():
    with pytest.raises(ConnectionError, match="no route"):
        await review_with(CodeReview(llm=ScriptedLLM([ConnectionError("no route")])).run(task="x"))


async def test_progress_of_code_is_on_the_stream(start_here):
    llm = ScriptedLLM(["a", "b", "c"])
    live = start_here(lambda: CodeReview(llm=llm), task="add two numbers")
    await live.pause()
    for _ in range(2):
        await live.tell(asked(live.seen)[-1].answer(Revise(feedback="more"), by="erin"))
    told = [event.message for event in of_kind(live.seen, ProgressEvent)]
    assert told == [
        "Writing code for: add two numbers",
        "Revising version 1",
        "Revising version 2",
    ]


# --- subclassing --------------------------------------------------------------------------------


async def test_override_generate_and_revise():
    class Mine(CodeReview):
        async def generate(self, task):
            return f"# {task}"

        async def revise(self, task, code, feedback):
            return f"{code.code}\n# {task}: {feedback}"

    result = await review_with(Mine().run(task="t"), erin(Revise(feedback="f"), Approve()))
    assert result.subject == Code(code="# t\n# t: f")


async def test_override_the_prompts():
    class Mine(CodeReview):
        generate_prompt = "Rust for {task}: fn main() {{}}"
        revise_prompt = "{task}|{feedback}|{code}"

    llm = ScriptedLLM(["a", "b"])
    await review_with(Mine(llm=llm).run(task="t"), erin(Revise(feedback="f"), Approve()))
    assert llm.prompts == ["Rust for t: fn main() {}", "t|f|a"]


async def test_override_the_gate_so_that_two_of_three_must_agree():
    class Mine(Merging):
        review = CodeReview.review.replace(reviewers=["ann", "bob", "eve"], quorum=2)

    flow = Mine()
    result = await review_with(
        flow.run(task="t", code="pass"),
        erin(Approve(), by="ann"),
        erin(None, by="bob"),
        erin(Approve(), by="eve"),
    )
    assert made(result) == [("ann", "approve"), ("eve", "approve")]
    assert len(flow.merged) == 1


async def test_override_the_gate_so_that_people_can_edit():
    class Mine(Merging):
        review = CodeReview.review.replace(editable=True)

    flow = Mine()
    result = await review_with(
        flow.run(task="t", code="pass"), erin(Edit(subject={"code": "run()"}))
    )
    assert (result.status, result.subject) == (ResultStatus.APPROVED, Code(code="run()"))
    assert [code for _, code in flow.merged] == [Code(code="run()")]


async def test_an_edit_that_is_no_code_is_refused(start_here):
    class Mine(CodeReview):
        review = CodeReview.review.replace(editable=True)

    live = start_here(Mine, task="t", code="pass")
    (question,) = await live.open()
    told = await live.tell(question.answer(Edit(subject={"kode": "x"}), by="erin"))
    assert codes(told) == ["invalid_answer"]
    assert not live.ended


async def test_code_that_a_rule_rejects_is_not_executed():
    class Mine(Merging):
        review = CodeReview.review.replace(when=always("reject"))

    flow = Mine()
    result = await review_with(flow.run(task="t", code="pass"))
    assert result.status is ResultStatus.REJECTED
    assert made(result)[0][0].startswith("rule:")
    assert flow.merged == []
