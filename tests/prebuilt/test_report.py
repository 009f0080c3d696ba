import pytest
from flows import asked, codes, of_kind

from llama_index_hitl import Approve, Edit, Reject, Revise
from llama_index_hitl.prebuilt import (
    ModelOutputError,
    ProgressEvent,
    ReportResult,
    Research,
    ResearchReport,
    ResultStatus,
)
from llama_index_hitl.rules import always
from llama_index_hitl.testing import ScriptedLLM, ScriptedReviewer, review_with

TOPIC = "the {price} of tea, up 100 %s"


def erin(*script, **options):
    return ScriptedReviewer(script, **{"by": "erin", **options})


def made(result):
    """Say who decided what, in order."""
    return [(answer.by.id, answer.decision.kind) for answer in result.decisions]


# --- decisions ----------------------------------------------------------------------------------


async def test_accepted_research_becomes_a_report():
    llm, person = ScriptedLLM(["- tea is hot", "# Tea"]), erin(Approve(comment="enough"))

    result = await review_with(ResearchReport(llm=llm).run(topic="tea"), person)

    assert isinstance(result, ReportResult)
    assert (result.status, result.version) == (ResultStatus.APPROVED, 1)
    assert result.subject == Research(findings="- tea is hot")
    assert result.report == "# Tea"
    assert made(result) == [("erin", "approve")]
    assert result.decisions[0].comment == "enough"
    person.assert_asked("acceptance")
    llm.assert_exhausted()


async def test_research_that_is_sent_back_goes_on_and_then_becomes_a_report():
    llm = ScriptedLLM(["- hot", "- hot\n- green", "- hot\n- green\n- old", "# Tea"])
    person = erin(Revise(feedback="kinds?"), Revise(feedback="age?"), Approve())

    result = await review_with(ResearchReport(llm=llm).run(topic="tea"), person)

    assert (result.status, result.version) == (ResultStatus.APPROVED, 3)
    assert result.subject == Research(findings="- hot\n- green\n- old")
    assert result.report == "# Tea"
    assert made(result) == [("erin", "revise"), ("erin", "revise"), ("erin", "approve")]
    assert [answer.decision.feedback for answer in result.decisions[:2]] == ["kinds?", "age?"]


async def test_no_report_is_written_before_the_research_is_accepted(start_here):
    llm = ScriptedLLM(["- hot", "# Tea"])
    live = start_here(lambda: ResearchReport(llm=llm), topic="tea")
    await live.open()
    assert len(llm.calls) == 1


@pytest.mark.parametrize("limit", [0, 2])
async def test_the_send_back_after_the_last_allowed_one_ends_it_without_a_report(limit):
    llm = ScriptedLLM([f"- finding {number}" for number in range(limit + 1)])
    person = erin(*[Revise(feedback="more")] * (limit + 1))
    result = await review_with(ResearchReport(llm=llm, max_revisions=limit).run(topic="t"), person)
    assert (result.status, result.version) == (ResultStatus.MAX_REVISIONS, limit + 1)
    assert result.subject == Research(findings=f"- finding {limit}")
    assert result.report is None
    assert made(result) == [("erin", "revise")] * (limit + 1)
    llm.assert_exhausted()


async def test_research_is_accepted_or_sent_back_and_nothing_else(start_here):
    live = start_here(lambda: ResearchReport(llm=ScriptedLLM(["- hot"])), topic="tea")
    (question,) = await live.open()
    assert set(question.request.allowed) == {"approve", "revise"}
    for decision in (Reject(), Edit(subject={"findings": "none"})):
        assert codes(await live.tell(question.answer(decision, by="erin"))) == ["invalid_answer"]
    assert not live.ended


async def test_the_request_shows_the_findings_as_markdown():
    person = erin(Approve())
    flow = ResearchReport(llm=ScriptedLLM(["- hot", "# Tea"]))
    await review_with(flow.run(topic="tea\n" * 500), person)
    (request,) = person.asked
    assert request.title.startswith("Research on tea tea tea")
    assert request.subject.data == {"findings": "- hot"}
    assert request.subject.json_schema["properties"]["findings"]["format"] == "markdown"


async def test_the_next_request_shows_the_findings_before_and_the_feedback():
    person = erin(Revise(feedback="kinds?"), Approve())
    flow = ResearchReport(llm=ScriptedLLM(["- hot", "- green", "# Tea"]))
    await review_with(flow.run(topic="tea"), person)
    assert person.asked[1].previous.data == {"findings": "- hot"}
    assert person.asked[1].feedback[0].text == "kinds?"


# --- progress and prompts -----------------------------------------------------------------------


async def test_progress_of_a_report_is_on_the_stream_in_order(start_here):
    llm = ScriptedLLM(["- hot", "- green", "- old", "# Tea"])
    live = start_here(lambda: ResearchReport(llm=llm), topic="tea")
    await live.pause()
    for decision in (Revise(feedback="kinds?"), Revise(feedback="age?"), Approve()):
        await live.tell(asked(live.seen)[-1].answer(decision, by="erin"))
    assert [event.message for event in of_kind(live.seen, ProgressEvent)] == [
        "Researching tea",
        "The research is ready for review",
        "Researching tea further (round 2)",
        "The research is ready for review",
        "Researching tea further (round 3)",
        "The research is ready for review",
        "Writing the report",
    ]


async def test_the_prompts_hold_topic_findings_and_feedback_as_they_are():
    llm = ScriptedLLM(["{a} 1 %", "{b} 2 %", "# Report {c}"])
    person = erin(Revise(feedback="{d} %s"), Approve())
    result = await review_with(ResearchReport(llm=llm).run(topic=TOPIC), person)
    kind = ResearchReport
    assert llm.prompts == [
        kind.research_prompt.replace("{topic}", TOPIC),
        kind.more_prompt.replace("{topic}", TOPIC)
        .replace("{findings}", "{a} 1 %")
        .replace("{feedback}", "{d} %s"),
        kind.report_prompt.replace("{topic}", TOPIC).replace("{findings}", "{b} 2 %"),
    ]
    assert result.report == "# Report {c}"


@pytest.mark.parametrize(
    ("replies", "asked_for"),
    [([""], 0), (["- hot", " \n"], 1), (["- hot", "- green", ""], 2)],
    ids=["research", "more research", "report"],
)
async def test_a_model_that_says_nothing_is_an_error(replies, asked_for):
    person = erin(Revise(feedback="more"), Approve())
    with pytest.raises(ModelOutputError):
        await review_with(ResearchReport(llm=ScriptedLLM(replies)).run(topic="tea"), person)
    assert len(person.asked) == asked_for


# --- subclassing --------------------------------------------------------------------------------


async def test_override_research_research_more_and_report():
    class Mine(ResearchReport):
        async def research(self, topic):
            return f"{topic}?"

        async def research_more(self, topic, research, feedback):
            return f"{research.findings} {feedback}!"

        async def report(self, topic, research, effect_key):
            return f"{topic}: {research.findings} [{effect_key}]"

    person = erin(Revise(feedback="hot"), Approve())
    result = await review_with(Mine().run(topic="tea"), person)
    assert result.report == f"tea: tea? hot! [{person.asked[-1].request_id}]"


async def test_override_the_prompts():
    class Mine(ResearchReport):
        research_prompt = "1 {topic} {{}}"
        more_prompt = "2 {topic} {findings} {feedback}"
        report_prompt = "3 {topic} {findings}"

    llm = ScriptedLLM(["a", "b", "c"])
    await review_with(Mine(llm=llm).run(topic="t"), erin(Revise(feedback="f"), Approve()))
    assert llm.prompts == ["1 t {}", "2 t a f", "3 t b"]


async def test_override_the_gate_so_that_research_can_be_rejected():
    class Mine(ResearchReport):
        acceptance = ResearchReport.acceptance.replace(
            decisions=("approve", "reject", "revise"), reviewers="erin", title="Enough?"
        )

    llm, person = ScriptedLLM(["- hot"]), erin(Reject(comment="wrong topic"))
    result = await review_with(Mine(llm=llm).run(topic="tea"), person)
    assert (result.status, result.report) == (ResultStatus.REJECTED, None)
    assert result.decisions[0].comment == "wrong topic"
    assert person.asked[0].title == "Enough?"


async def test_override_the_gate_so_that_people_can_edit_the_findings():
    class Mine(ResearchReport):
        acceptance = ResearchReport.acceptance.replace(decisions=("approve", "edit", "revise"))

    llm = ScriptedLLM(["- hot", "# Tea"])
    person = erin(Edit(subject={"findings": "- cold"}))
    result = await review_with(Mine(llm=llm).run(topic="tea"), person)
    assert (result.status, result.subject) == (ResultStatus.APPROVED, Research(findings="- cold"))
    assert "- cold" in llm.prompts[1]


async def test_research_that_a_rule_rejects_makes_no_report():
    class Mine(ResearchReport):
        acceptance = ResearchReport.acceptance.replace(when=always("reject"))

    llm = ScriptedLLM(["- hot"])
    result = await review_with(Mine(llm=llm).run(topic="tea"))
    assert (result.status, result.report) == (ResultStatus.REJECTED, None)
    assert result.decisions[0].by.kind == "rule"
    llm.assert_exhausted()


async def test_override_the_gate_so_that_the_second_round_asks_somebody_else_too():
    class Mine(ResearchReport):
        acceptance = ResearchReport.acceptance.replace(
            reviewers=lambda flow, ev: ["erin", "kim"] if ev.decisions else ["erin"]
        )

    llm = ScriptedLLM(["a", "b", "c"])
    first, second = erin(Revise(feedback="more"), None), erin(Approve(), by="kim")
    result = await review_with(Mine(llm=llm).run(topic="t"), first, second)
    assert made(result) == [("erin", "revise"), ("kim", "approve")]
