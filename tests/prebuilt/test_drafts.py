import asyncio
import json
import subprocess
import sys
from datetime import timedelta
from itertools import pairwise

import pytest
from flows import Live, asked, codes, of_kind
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from pydantic import BaseModel
from workflows import Context, step
from workflows.events import Event
from workflows.representation import get_workflow_representation
from workflows.retry_policy import retry_policy, stop_after_attempt, wait_fixed

from llama_index_hitl import (
    Approve,
    Approved,
    Edit,
    Expired,
    Reject,
    Rejected,
    ReviewDeadlineEvent,
    Reviewer,
    ReviewRequestEvent,
    Revise,
    Revision,
)
from llama_index_hitl.errors import GateError
from llama_index_hitl.prebuilt import (
    ClaimReview,
    CodeReview,
    ConfirmUnderstanding,
    DocumentApproval,
    Draft,
    DraftApproval,
    DraftResult,
    IterativeReview,
    ModelOutputError,
    ProgressEvent,
    ResearchReport,
    ResultStatus,
    ReviewResult,
)
from llama_index_hitl.prebuilt._base import decisions_in, status_of
from llama_index_hitl.prebuilt.drafts import Drafted, DraftStart
from llama_index_hitl.rules import always
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import MemoryStore
from llama_index_hitl.testing import ManualClock, ScriptedLLM, ScriptedReviewer, review_with

AWKWARD = "50 % of {users} say {{yes}}: %s %(a)s {0} $x \\n"
LONG = "a long topic\n" * 500


class Recorded:
    """Does what was approved by writing it down: the key, and the subject."""

    def __init__(self, done=None, **options):
        super().__init__(**options)
        self.done = [] if done is None else done

    async def execute(self, subject, effect_key):
        self.done.append((effect_key, subject))


class RecordedApproval(Recorded, DraftApproval):
    pass


class RecordedIterative(Recorded, IterativeReview):
    pass


class RecordedDocument(Recorded, DocumentApproval):
    pass


def erin(*script, **options):
    return ScriptedReviewer(script, **{"by": "erin", **options})


def made(result):
    """Say who decided what, in order."""
    return [(answer.by.id, answer.decision.kind) for answer in result.decisions]


# --- one draft ----------------------------------------------------------------------------------


async def test_an_approved_draft_is_executed_and_is_the_result():
    flow = RecordedApproval(llm=ScriptedLLM(["A draft."]))
    person = erin(Approve(comment="good"))

    result = await review_with(flow.run(topic="tea"), person)

    assert isinstance(result, DraftResult)
    assert result.status is ResultStatus.APPROVED
    assert result.subject == Draft(content="A draft.")
    assert result.version == 1
    assert made(result) == [("erin", "approve")]
    assert result.decisions[0].comment == "good"
    assert flow.done == [(person.asked[0].request_id, Draft(content="A draft."))]
    person.assert_asked("approval")


async def test_a_rejected_draft_is_not_executed():
    flow = RecordedApproval(llm=ScriptedLLM(["A draft."]))
    result = await review_with(flow.run(topic="tea"), erin(Reject(comment="wrong")))
    assert result.status is ResultStatus.REJECTED
    assert result.subject == Draft(content="A draft.")
    assert result.decisions[0].comment == "wrong"
    assert flow.done == []


async def test_one_draft_cannot_be_sent_back(start_here):
    live = start_here(DraftApproval, topic="tea", content="A draft.")
    (question,) = await live.open()
    assert codes(await live.tell(question.answer(Revise(feedback="more"), by="erin"))) == [
        "invalid_answer"
    ]


@pytest.mark.parametrize("kind", [DraftApproval, IterativeReview, DocumentApproval])
async def test_a_draft_of_ones_own_needs_no_model(kind, start_here):
    llm = ScriptedLLM([])
    live = start_here(lambda: kind(llm=llm), topic="tea", content="My own words.")
    (question,) = await live.open()
    assert question.request.subject.data == {"content": "My own words."}
    assert llm.calls == []
    assert of_kind(live.seen, ProgressEvent) == []


async def test_the_model_that_is_missing_is_not_missed_with_a_draft_of_ones_own(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    result = await review_with(DraftApproval().run(topic="x", content="y"), erin(Approve()))
    assert result.status is ResultStatus.APPROVED


@pytest.mark.parametrize("said", ["", " \n\t"])
async def test_a_model_that_says_nothing_is_an_error(said):
    person = erin(Approve())
    with pytest.raises(ModelOutputError, match="did not give a text in 1 attempt") as caught:
        await review_with(DraftApproval(llm=ScriptedLLM([said])).run(topic="tea"), person)
    assert caught.value.attempts == 1
    assert person.asked == []


async def test_the_prompt_holds_the_topic_as_it_is():
    llm = ScriptedLLM(["A draft."])
    await review_with(DraftApproval(llm=llm).run(topic=AWKWARD), erin(Approve()))
    assert llm.prompts == [DraftApproval.generate_prompt.replace("{topic}", AWKWARD)]


async def test_a_long_topic_has_a_short_title():
    person = erin(Approve())
    await review_with(DraftApproval(llm=ScriptedLLM(["A draft."])).run(topic=LONG), person)
    title = person.asked[0].title
    assert title.startswith("Draft about a long topic a long topic")
    assert title.endswith("…")


async def test_the_reviewers_of_the_workflow_are_asked():
    reader, stranger = erin(Approve()), erin(Reject(), by="sam")
    flow = DraftApproval(reviewers="erin")
    result = await review_with(flow.run(topic="x", content="y"), stranger, reader)
    assert made(result) == [("erin", "approve")]
    assert stranger.asked == []


async def test_reviewers_may_be_named_by_role():
    chief = erin(Approve(), by=Reviewer(id="kim", roles=("chief",)))
    flow = DraftApproval(reviewers=["role:chief", "erin"])
    result = await review_with(flow.run(topic="x", content="y"), chief)
    assert made(result) == [("kim", "approve")]
    assert chief.asked[0].policy.reviewers == ("role:chief", "erin")


async def test_the_clock_of_the_workflow_dates_the_request():
    clock = ManualClock()
    person = erin(Approve(), clock=clock)
    await review_with(DraftApproval(clock=clock).run(topic="x", content="y"), person)
    assert person.asked[0].created_at == clock()


async def test_without_one_the_clock_of_the_runner_does():
    clock = ManualClock()
    runner = Runner(MemoryStore(), {"draft": DraftApproval()}, clock=clock)
    await runner.start("draft", topic="x", content="y")
    (asked_for,) = await runner.pending()
    assert asked_for.request.created_at == clock()


# --- drafts until one is good -------------------------------------------------------------------


async def test_feedback_makes_the_next_draft():
    llm = ScriptedLLM(["First.", "Second."])
    flow, person = RecordedIterative(llm=llm), erin(Revise(feedback="shorter"), Approve())

    result = await review_with(flow.run(topic="tea"), person)

    assert (result.status, result.version) == (ResultStatus.APPROVED, 2)
    assert result.subject == Draft(content="Second.")
    assert made(result) == [("erin", "revise"), ("erin", "approve")]
    assert result.decisions[0].decision.feedback == "shorter"
    assert flow.done == [(person.asked[1].request_id, Draft(content="Second."))]


async def test_the_next_request_shows_the_last_draft_and_the_feedback():
    person = erin(Revise(feedback="shorter"), Approve())
    flow = IterativeReview(llm=ScriptedLLM(["First.", "Second."]))
    await review_with(flow.run(topic="tea"), person)
    request = person.asked[1]
    assert request.previous.data == {"content": "First."}
    assert [(item.revision, item.text) for item in request.feedback] == [(1, "shorter")]


@pytest.mark.parametrize("kind", [IterativeReview, DocumentApproval])
async def test_the_prompt_of_a_revision_holds_draft_and_feedback_as_they_are(kind):
    llm = ScriptedLLM(["Better."])
    people = erin(Revise(feedback=AWKWARD + "!"), Approve(), Approve())
    await review_with(kind(llm=llm).run(topic="tea", content=AWKWARD), people)
    expected = kind.revise_prompt.replace("{content}", AWKWARD).replace("{feedback}", AWKWARD + "!")
    assert llm.prompts == [expected]


@pytest.mark.parametrize("limit", [0, 1, 3])
@pytest.mark.parametrize("kind", [RecordedIterative, RecordedDocument])
async def test_the_send_back_after_the_last_allowed_one_ends_it(kind, limit):
    llm = ScriptedLLM([f"Draft {number + 1}" for number in range(limit + 1)])
    flow = kind(llm=llm, max_revisions=limit)
    person = erin(*[Revise(feedback="again")] * (limit + 1))

    result = await review_with(flow.run(topic="tea"), person)

    assert result.status is ResultStatus.MAX_REVISIONS
    assert result.version == limit + 1
    assert result.subject == Draft(content=f"Draft {limit + 1}")
    assert made(result) == [("erin", "revise")] * (limit + 1)
    assert flow.done == []
    llm.assert_exhausted()


@pytest.mark.parametrize("kind", [IterativeReview, DocumentApproval])
async def test_three_revisions_are_allowed_by_default(kind):
    person = erin(*[Revise(feedback="again")] * 4)
    result = await review_with(kind(llm=ScriptedLLM(["x"] * 4)).run(topic="tea"), person)
    assert (result.status, result.version) == (ResultStatus.MAX_REVISIONS, 4)


async def test_a_subclass_may_allow_as_many_revisions_as_people_like():
    class Patient(IterativeReview):
        max_revisions = None

    llm = ScriptedLLM(reply=lambda _: "Another draft.")
    person = erin(*[Revise(feedback="again")] * 12, Approve())
    result = await review_with(Patient(llm=llm).run(topic="tea"), person)
    assert (result.status, result.version) == (ResultStatus.APPROVED, 13)


async def test_an_iterative_review_cannot_be_rejected_by_people(start_here):
    live = start_here(IterativeReview, topic="tea", content="A draft.")
    (question,) = await live.open()
    assert codes(await live.tell(question.answer(Reject(), by="erin"))) == ["invalid_answer"]
    assert not live.ended


async def test_progress_of_drafts_is_on_the_stream(start_here):
    llm = ScriptedLLM(["First.", "Second."])
    live = start_here(lambda: IterativeReview(llm=llm), topic="tea")
    (question,) = await live.open()
    await live.tell(question.answer(Revise(feedback="more"), by="erin"))
    told = [event.message for event in of_kind(live.seen, ProgressEvent)]
    assert told == ["Writing about tea", "Revising draft 1"]


# --- streaming ----------------------------------------------------------------------------------

WORDS = "A few words about tea. " * 60


async def told_by(start_here, kind=DraftApproval, **options):
    """Return what a workflow says of its progress until it asks, and the draft."""
    live = start_here(lambda: kind(llm=ScriptedLLM([WORDS]), **options), topic="tea")
    (question,) = await live.open()
    told = [event.message for event in of_kind(live.seen, ProgressEvent)]
    return told, question.request.subject.data["content"]


async def test_a_streamed_draft_tells_how_it_grows(start_here):
    (first, *counts), content = await told_by(start_here, streaming=True)
    assert first == "Writing about tea"
    numbers = [int(message.removesuffix(" characters so far")) for message in counts]
    assert len(numbers) == 3
    assert all(later - earlier >= 400 for earlier, later in pairwise([0, *numbers]))
    assert content == WORDS.strip()


async def test_a_draft_is_not_streamed_unless_somebody_says_so(start_here):
    told, content = await told_by(start_here)
    assert (told, content) == (["Writing about tea"], WORDS.strip())


@pytest.mark.parametrize("said", ["", " \n"])
async def test_a_model_that_streams_nothing_is_an_error(said):
    flow = DraftApproval(llm=ScriptedLLM([said]), streaming=True)
    with pytest.raises(ModelOutputError):
        await review_with(flow.run(topic="tea"), erin(Approve()))


# --- a document in two stages -------------------------------------------------------------------


async def test_a_document_passes_content_review_and_final_review():
    flow, person = RecordedDocument(llm=ScriptedLLM(["Text."])), erin(Approve(), Approve())
    result = await review_with(flow.run(topic="tea"), person)
    assert (result.status, result.version) == (ResultStatus.APPROVED, 1)
    assert made(result) == [("erin", "approve"), ("erin", "approve")]
    assert [request.stage for request in person.asked] == ["content", "final"]
    assert flow.done == [(person.asked[1].request_id, Draft(content="Text."))]


async def test_each_stage_asks_its_own_people():
    author, chief = erin(Approve()), erin(Approve(), by="kim")
    flow = DocumentApproval(reviewers="erin", final_reviewers="kim")
    result = await review_with(flow.run(topic="x", content="y"), author, chief)
    assert made(result) == [("erin", "approve"), ("kim", "approve")]
    author.assert_asked("content_review")
    chief.assert_asked("final_review")


async def test_the_final_review_asks_the_people_of_the_content_review_by_default():
    person = erin(Approve(), Approve())
    flow = DocumentApproval(reviewers=["erin", "kim"])
    await review_with(flow.run(topic="x", content="y"), person)
    assert [request.policy.reviewers for request in person.asked] == [("erin", "kim")] * 2


async def test_the_final_review_sees_who_approved_the_content():
    person = erin(Approve(comment="facts checked"), Approve())
    await review_with(DocumentApproval().run(topic="x", content="y"), person)
    (stage,) = person.asked[1].approvals
    assert (stage.stage, stage.approvers) == ("content", ("erin",))
    assert stage.answers[0].comment == "facts checked"


async def test_a_rejection_of_the_content_ends_it_before_the_final_review():
    flow, person = RecordedDocument(), erin(Reject())
    result = await review_with(flow.run(topic="x", content="y"), person)
    assert result.status is ResultStatus.REJECTED
    assert made(result) == [("erin", "reject")]
    person.assert_asked("content_review")
    assert flow.done == []


async def test_a_rejection_in_the_final_review_keeps_the_approval_on_record():
    flow = RecordedDocument()
    result = await review_with(flow.run(topic="x", content="y"), erin(Approve(), Reject()))
    assert result.status is ResultStatus.REJECTED
    assert made(result) == [("erin", "approve"), ("erin", "reject")]
    assert flow.done == []


async def test_a_revised_document_keeps_every_decision_in_order():
    flow = DocumentApproval(
        llm=ScriptedLLM(["1", "2", "3"]), reviewers=["erin", "sam"], final_reviewers=["kim"]
    )
    editor = erin(Revise(feedback="a"), None, Approve())
    result = await review_with(
        flow.run(topic="tea"),
        editor,
        erin(Revise(feedback="b"), by="sam"),
        erin(Approve(), by="kim"),
    )
    assert made(result) == [
        ("erin", "revise"),
        ("sam", "revise"),
        ("erin", "approve"),
        ("kim", "approve"),
    ]
    assert (result.version, result.subject) == (3, Draft(content="3"))


async def test_the_final_review_cannot_send_a_document_back(start_here):
    live = start_here(DocumentApproval, topic="tea", content="A draft.")
    (content,) = await live.open()
    await live.tell(content.answer(Approve(), by="erin"))
    final = asked(live.seen)[-1]
    told = await live.tell(final.answer(Revise(feedback="no"), by="erin"))
    assert codes(told) == ["invalid_answer"]
    assert not live.ended


async def test_the_final_title_is_that_of_the_draft():
    person = erin(Approve(), Approve())
    await review_with(DocumentApproval().run(topic=LONG, content="y"), person)
    assert person.asked[1].title == person.asked[0].title


# --- subclassing --------------------------------------------------------------------------------


async def test_override_generate():
    class Mine(DraftApproval):
        async def generate(self, topic):
            return f"All about {topic}"

    result = await review_with(Mine().run(topic="tea"), erin(Approve()))
    assert result.subject == Draft(content="All about tea")


async def test_override_revise():
    class Mine(IterativeReview):
        async def revise(self, draft, feedback):
            return f"{draft.content} ({feedback})"

    person = erin(Revise(feedback="b"), Revise(feedback="c"), Approve())
    result = await review_with(Mine().run(topic="tea", content="a"), person)
    assert result.subject == Draft(content="a (b) (c)")


async def test_override_the_prompts():
    class Mine(IterativeReview):
        generate_prompt = "Haiku on {topic}, as JSON {{}}"
        revise_prompt = "{feedback} -> {content}"

    llm = ScriptedLLM(["old", "new"])
    await review_with(Mine(llm=llm).run(topic="tea"), erin(Revise(feedback="more"), Approve()))
    assert llm.prompts == ["Haiku on tea, as JSON {}", "more -> old"]


@pytest.mark.parametrize(
    ("options", "allowed"), [({}, 1), ({"max_revisions": 2}, 2)], ids=["class", "instance"]
)
async def test_override_max_revisions(options, allowed):
    class Mine(IterativeReview):
        max_revisions = 1

    person = erin(*[Revise(feedback="again")] * (allowed + 1))
    result = await review_with(
        Mine(llm=ScriptedLLM(["x"] * 3), **options).run(topic="tea", content="y"), person
    )
    assert (result.status, result.version) == (ResultStatus.MAX_REVISIONS, allowed + 1)


async def test_override_a_gate():
    class Mine(DocumentApproval):
        final_review = DocumentApproval.final_review.replace(
            title=lambda _, ev: f"Publish {ev.proposal.topic}?", reviewers=["kim", "lou"], quorum=2
        )

    result = await review_with(
        Mine().run(topic="tea", content="y"),
        erin(Approve()),
        kim := erin(Approve(), by="kim"),
        erin(Approve(), by="lou"),
    )
    assert made(result) == [("erin", "approve"), ("kim", "approve"), ("lou", "approve")]
    assert kim.asked[-1].title == "Publish tea?"


async def test_override_a_gate_so_that_nobody_approves_both_stages():
    class Mine(DocumentApproval):
        final_review = DocumentApproval.final_review.replace(distinct_from="content")

    result = await review_with(
        Mine().run(topic="x", content="y"),
        author := erin(Approve(), Approve()),
        erin(Approve(), by="kim"),
    )
    assert made(result) == [("erin", "approve"), ("kim", "approve")]
    author.assert_asked("content_review")


async def test_override_a_gate_so_that_people_can_edit():
    class Mine(RecordedDocument):
        content_review = DocumentApproval.content_review.replace(editable=True)

    flow = Mine()
    result = await review_with(
        flow.run(topic="x", content="y"), erin(Edit(subject={"content": "mine"}), Approve())
    )
    assert result.subject == Draft(content="mine")
    assert made(result) == [("erin", "edit"), ("erin", "approve")]
    assert [subject for _, subject in flow.done] == [Draft(content="mine")]


@pytest.mark.parametrize("kind", [RecordedApproval, RecordedIterative])
async def test_a_rule_that_rejects_is_on_record_and_nothing_is_executed(kind):
    class Mine(kind):
        approval = kind.approval.replace(when=always("reject"))

    flow, person = Mine(), erin(Approve())
    result = await review_with(flow.run(topic="x", content="y"), person)
    assert result.status is ResultStatus.REJECTED
    assert result.decisions[0].by.kind == "rule"
    assert (person.asked, flow.done) == ([], [])


async def test_a_gate_with_a_deadline_ends_expired(start_here):
    clock = ManualClock()

    class Mine(RecordedApproval):
        approval = DraftApproval.approval.replace(deadline=timedelta(days=2), expired=Expired)

        @step
        async def too_late(self, ev: Expired) -> DraftResult:
            return DraftResult(
                status=status_of(ev),
                subject=ev.subject,
                version=ev.revision,
                decisions=decisions_in(ev),
            )

    flow = Mine(clock=clock)
    live = start_here(lambda: flow, topic="x", content="y")
    (question,) = await live.open()
    clock.advance(days=2)
    await live.tell(ReviewDeadlineEvent(request_id=question.request_id, at=clock()))
    result = await live.result()
    assert (result.status, made(result)) == (ResultStatus.EXPIRED, [])
    assert flow.done == []


async def test_add_a_step():
    class Outlined(Event):
        topic: str
        outline: str

    class Mine(DraftApproval):
        @step
        async def write(self, ctx: Context, ev: DraftStart) -> Outlined:
            return Outlined(topic=ev.topic, outline=await self.complete(f"Outline {ev.topic}"))

        @step
        async def fill(self, ctx: Context, ev: Outlined) -> Drafted:
            text = await self.complete(f"Fill {ev.outline}")
            return Drafted(topic=ev.topic, draft=Draft(content=text))

    llm = ScriptedLLM(["1. tea", "Tea is nice."])
    result = await review_with(Mine(llm=llm).run(topic="tea"), erin(Approve()))
    assert result.subject == Draft(content="Tea is nice.")
    assert llm.prompts == ["Outline tea", "Fill 1. tea"]


class Tally(BaseModel):
    drafts: int = 0


@pytest.mark.parametrize("restoring", [False, True], ids=["one process", "restored"])
async def test_typed_state_in_a_subclass(restoring):
    totals = []

    class Mine(IterativeReview):
        @step
        async def rewrite(self, ctx: Context[Tally], ev: Revision) -> Drafted:
            async with ctx.store.edit_state() as state:
                state.drafts += 1
            return await self.next_draft(ctx, ev)

        @step
        async def finish(self, ctx: Context[Tally], ev: Approved) -> DraftResult:
            totals.append((await ctx.store.get_state()).drafts)
            return await super().finish(ev)

    llm = ScriptedLLM(["b", "c"])
    live = Live(lambda: Mine(llm=llm), restoring=restoring, topic="x", content="a")
    result = await played(live, erin(*[Revise(feedback="again")] * 2, Approve()))
    assert (result.status, result.version, totals) == (ResultStatus.APPROVED, 3, [2])


class Parrot(CustomLLM):
    """A model of somebody's own that can do nothing but complete."""

    @property
    def metadata(self):
        return LLMMetadata()

    def complete(self, prompt, formatted=False, **kwargs):
        return CompletionResponse(text=f"You said: {prompt}")

    def stream_complete(self, prompt, formatted=False, **kwargs):
        raise NotImplementedError


async def test_any_model_will_do():
    result = await review_with(DraftApproval(llm=Parrot()).run(topic="tea"), erin(Approve()))
    assert result.subject.content.startswith("You said: Write a short text in Markdown about: tea")


async def test_an_effect_that_is_retried_has_the_same_key():
    class Flaky(RecordedApproval):
        async def execute(self, draft, effect_key):
            await super().execute(draft, effect_key)
            if len(self.done) < 3:
                raise ConnectionError("not now")

        @step(retry_policy=retry_policy(wait=wait_fixed(0), stop=stop_after_attempt(5)))
        async def finish(self, ev: Approved) -> DraftResult:
            return await super().finish(ev)

    flow, person = Flaky(), erin(Approve())
    result = await review_with(flow.run(topic="x", content="y"), person)
    assert result.status is ResultStatus.APPROVED
    assert [key for key, _ in flow.done] == [person.asked[0].request_id] * 3


async def test_an_effect_that_fails_ends_the_run_with_its_error():
    class Broken(DraftApproval):
        async def execute(self, draft, effect_key):
            raise ConnectionError("the printer is on fire")

    with pytest.raises(ConnectionError, match="printer"):
        await review_with(Broken().run(topic="x", content="y"), erin(Approve()))


async def test_a_step_may_be_overridden():
    class Loud(DraftApproval):
        @step
        async def stop(self, ev: Rejected) -> DraftResult:
            result = await super().stop(ev)
            result.subject = Draft(content=f"NOT APPROVED: {result.subject.content}")
            return result

    result = await review_with(Loud().run(topic="x", content="y"), erin(Reject()))
    assert result.subject == Draft(content="NOT APPROVED: y")


@pytest.mark.parametrize("name", ["generate", "revise", "execute", "complete"])
def test_a_plain_function_in_place_of_an_async_one_is_refused_with_the_class(name):
    with pytest.raises(GateError, match=f"Mine.{name} must be 'async def'"):
        type("Mine", (IterativeReview,), {name: lambda self, *_: None})


@pytest.mark.parametrize("prompt", ["About {subject}", "About {}", "About {topic", "{topic.x}"])
async def test_a_prompt_that_cannot_be_filled_says_what_it_can_use(prompt):
    class Mine(DraftApproval):
        generate_prompt = prompt

    llm = ScriptedLLM(["A draft."])
    with pytest.raises(GateError, match=r"it can use \{topic\}, and a brace is written twice"):
        await review_with(Mine(llm=llm).run(topic="tea"), erin(Approve()))
    assert llm.calls == []


# --- every ready workflow -----------------------------------------------------------------------

LOW = {"decision": "approve", "reason": "small", "risk_level": "low"}
HIGH = {"decision": "deny", "reason": "policy lapsed", "risk_level": "high"}
PAY = {"action": "I will pay Ann.", "details": [{"name": "amount", "value": "40"}]}
PAY_50 = {"action": "I will pay Ann.", "details": [{"name": "amount", "value": "50"}]}
BACK = Revise(feedback="more {care}, 100 % of it")

ALL = [
    DraftApproval,
    IterativeReview,
    DocumentApproval,
    CodeReview,
    ClaimReview,
    ResearchReport,
    ConfirmUnderstanding,
]


class RecordedCode(Recorded, CodeReview):
    pass


class RecordedClaim(Recorded, ClaimReview):
    pass


class RecordedConfirmation(Recorded, ConfirmUnderstanding):
    pass


class RecordedReport(Recorded, ResearchReport):
    async def report(self, topic, research, effect_key):
        await self.execute(research, effect_key)
        return await super().report(topic, research, effect_key)


RUNS = {
    "draft approved": (RecordedApproval, {"topic": "tea"}, ["a"], [Approve()]),
    "draft rejected": (RecordedApproval, {"topic": "tea"}, ["a"], [Reject()]),
    "iterative approved": (
        RecordedIterative,
        {"topic": "tea"},
        ["a", "b", "c"],
        [BACK, BACK, Approve(comment="well")],
    ),
    "iterative exhausted": (
        RecordedIterative,
        {"topic": "tea", "content": "a"},
        ["b", "c", "d"],
        [BACK] * 4,
    ),
    "document approved": (
        RecordedDocument,
        {"topic": "tea"},
        ["a", "b"],
        [BACK, Approve(comment="true"), Approve()],
    ),
    "document rejected at last": (
        RecordedDocument,
        {"topic": "tea"},
        ["a"],
        [Approve(), Reject(comment="late")],
    ),
    "code approved": (
        RecordedCode,
        {"task": "add"},
        ["a = 1", "```\nb = 2\n```"],
        [BACK, Approve()],
    ),
    "code rejected": (RecordedCode, {"task": "add"}, ["a = 1"], [Reject()]),
    "claim approved": (RecordedClaim, {"claim": "water"}, [HIGH], [Approve()]),
    "claim edited": (RecordedClaim, {"claim": "water"}, [{}, HIGH], [Edit(subject=LOW)]),
    "claim rejected": (RecordedClaim, {"claim": "water"}, [HIGH], [Reject()]),
    "report written": (
        RecordedReport,
        {"topic": "tea"},
        ["- one", "- one\n- two", "# Tea"],
        [BACK, Approve()],
    ),
    "confirmed": (RecordedConfirmation, {"request": "pay ann"}, [PAY, PAY_50], [BACK, Approve()]),
    "confirmed after an edit": (
        RecordedConfirmation,
        {"request": "pay ann"},
        [PAY],
        [Edit(subject=PAY_50)],
    ),
    "not confirmed": (RecordedConfirmation, {"request": "pay ann"}, [PAY], [Reject()]),
}


async def played(live, *people, repeating=False):
    """Let people answer, one question at a time, until the run has ended; return its result."""
    sent = []
    await live.pause()
    while not live.ended:
        answers = [answer for p in people if (answer := p.answer(asked(live.seen)[-1]))]
        assert answers, f"nobody answers {asked(live.seen)[-1].request.title}"
        sent += answers
        await live.tell(*(sent * 2 if repeating else answers))
    return await live.result()


def settled(result):
    """Return all that a result says but the ids and digests, which no two runs share."""
    assert isinstance(result, ReviewResult)
    said = [answer.model_dump(exclude={"request_id", "digest"}) for answer in result.decisions]
    kind, subject = type(result), result.subject
    return kind, result.status, result.version, subject, getattr(result, "report", None), said


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize(
    ("restoring", "repeating"),
    [(True, False), (True, True), (False, True)],
    ids=["stored", "stored, every answer again", "every answer again"],
)
async def test_a_run_that_is_stored_at_every_pause_ends_as_if_it_had_not_been(
    name, restoring, repeating
):
    kind, start, replies, decisions = RUNS[name]

    async def outcome(*, restoring, repeating):
        llm, done, clock = ScriptedLLM(replies), [], ManualClock()
        person = erin(*decisions, clock=clock)
        live = Live(lambda: kind(llm=llm, done=done, clock=clock), restoring=restoring, **start)
        result = await played(live, person, repeating=repeating)
        llm.assert_exhausted()
        person.assert_used_up()
        return settled(result), [subject for _, subject in done], llm.prompts

    whole = await outcome(restoring=False, repeating=False)
    assert await outcome(restoring=restoring, repeating=repeating) == whole


@pytest.mark.parametrize("name", RUNS)
async def test_streaming_changes_nothing_but_the_progress(name):
    kind, start, replies, decisions = RUNS[name]

    async def outcome(**options):
        llm, clock = ScriptedLLM(replies), ManualClock()
        flow = kind(llm=llm, clock=clock, **options)
        result = await review_with(flow.run(**start), erin(*decisions, clock=clock))
        return settled(result), llm.prompts

    assert await outcome(streaming=True) == await outcome()


@pytest.mark.parametrize("name", RUNS)
async def test_storing_a_run_as_soon_as_it_asks_is_early_enough(name):
    kind, start, replies, decisions = RUNS[name]
    llm, done, person = ScriptedLLM(replies), [], erin(*decisions)
    handler = kind(llm=llm, done=done).run(**start)
    while question := await _question(handler):
        stored = json.dumps(handler.ctx.to_dict())
        await handler.cancel_run()
        flow = kind(llm=llm, done=done)
        handler = flow.run(ctx=Context.from_dict(flow, json.loads(stored)))
        handler.ctx.send_event(person.answer(question))
    result = await handler
    person.assert_used_up()
    llm.assert_exhausted()
    assert [key for key, _ in done] == (
        [result.decisions[-1].request_id] if result.status is ResultStatus.APPROVED else []
    )


async def _question(handler):
    async for event in handler.stream_events():
        if isinstance(event, ReviewRequestEvent):
            return event
    return None


@pytest.mark.parametrize("name", [name for name in RUNS if "approved" in name or "written" in name])
@pytest.mark.parametrize("restoring", [False, True], ids=["one process", "restored"])
async def test_what_was_approved_is_done_once_under_the_id_of_the_last_request(name, restoring):
    kind, start, replies, decisions = RUNS[name]
    llm, done = ScriptedLLM(replies), []
    live = Live(lambda: kind(llm=llm, done=done), restoring=restoring, **start)
    result = await played(live, erin(*decisions), repeating=True)
    assert done == [(asked(live.seen)[-1].request_id, result.subject)]
    assert result.decisions[-1].request_id == done[0][0]


@pytest.mark.parametrize("name", [name for name in RUNS if "rejected" in name or "not" in name])
async def test_after_a_rejection_an_approval_comes_too_late(name):
    kind, start, replies, decisions = RUNS[name]
    llm, done = ScriptedLLM(replies), []
    live = Live(lambda: kind(llm=llm, done=done), **start)
    person = erin(*decisions[:-1])
    await live.pause()
    for _ in decisions[:-1]:
        await live.tell(person.answer(asked(live.seen)[-1]))
    last = asked(live.seen)[-1]
    await live.tell(last.answer(Reject(), by="erin"), last.answer(Approve(), by="kim"))
    assert (await live.result()).status is ResultStatus.REJECTED
    assert done == []


@pytest.mark.parametrize("kind", ALL)
def test_upstream_finds_it_valid(kind):
    assert kind().validate() is True


@pytest.mark.parametrize("kind", ALL)
def test_upstream_draws_it(kind):
    drawn = get_workflow_representation(kind()).model_dump_json()
    assert "_gate" in drawn
    assert "ReviewRequestEvent" in drawn


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("options", [{}, {"verbose": False}, {"timeout": None}])
def test_it_waits_without_a_time_limit(kind, options):
    assert kind(**options)._timeout is None


async def test_a_time_limit_of_ones_own_is_warned_of():
    with pytest.warns(UserWarning, match=r"DraftApproval has timeout=30 seconds"):
        await review_with(DraftApproval(timeout=30).run(topic="x", content="y"), erin(Approve()))


async def test_concurrent_runs_of_one_instance_do_not_mix():
    flow = RecordedDocument(llm=ScriptedLLM(reply=lambda messages: messages[-1].content.upper()))
    runs = [
        review_with(flow.run(topic="x", content=f"Text {n}."), erin(BACK, Approve(), Approve()))
        for n in range(3)
    ]
    results = await asyncio.gather(*runs)
    assert [f"TEXT {n}." in result.subject.content for n, result in enumerate(results)] == [
        True
    ] * 3
    assert sorted(key for key, _ in flow.done) == sorted(
        r.decisions[-1].request_id for r in results
    )


def test_making_and_validating_them_does_not_import_the_core():
    names = ", ".join(kind.__name__ for kind in ALL)
    program = (
        "import json, sys\n"
        f"from llama_index_hitl.prebuilt import {names}\n"
        f"for kind in [{names}]:\n"
        "    kind().validate()\n"
        "print(json.dumps([name for name in sys.modules if name.startswith('llama_index.')]))"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    assert json.loads(ran.stdout) == []
