import math

import pytest
from flows import Live, asked, codes, of_kind, person
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index_hitl import Approve, Edit, Evidence, Reject
from llama_index_hitl.prebuilt import (
    CLAIM_POLICY,
    ClaimDecision,
    ClaimResult,
    ClaimReview,
    ModelOutputError,
    ProgressEvent,
    ResultStatus,
)
from llama_index_hitl.rules import always, first_match, never, rule, threshold
from llama_index_hitl.testing import ScriptedLLM, ScriptedReviewer, ToolCall, review_with

CLAIM = "Water damage, {two days} after the {{policy}} lapsed: 100 % loss, %s. {question}"


def proposal(decision="approve", risk="low", reason="small amount"):
    return ClaimDecision(decision=decision, reason=reason, risk_level=risk)


RISKY = proposal("deny", "high", "policy lapsed")


class Paying(ClaimReview):
    """Remembers what was executed."""

    def __init__(self, **options):
        super().__init__(**options)
        self.executed = []

    async def execute(self, decision, effect_key):
        self.executed.append((effect_key, decision))


def paying(*replies, **options):
    return Paying(llm=ScriptedLLM(replies), **options)


def erin(*script, **options):
    return ScriptedReviewer(script, **{"by": "erin", **options})


# --- who decides --------------------------------------------------------------------------------


@pytest.mark.parametrize("decision", ["approve", "deny"])
async def test_low_risk_passes_with_a_recorded_rule_and_nobody_is_asked(decision):
    flow, reviewer = paying(proposal(decision)), erin(Reject())

    result = await review_with(flow.run(claim=CLAIM), reviewer)

    assert isinstance(result, ClaimResult)
    assert (result.status, result.version) == (ResultStatus.APPROVED, 1)
    assert result.subject == proposal(decision)
    assert reviewer.asked == []
    (answer,) = result.decisions
    assert answer.by.kind == "rule"
    assert answer.by.id.startswith("rule:")
    assert answer.decision.kind == "approve"
    assert "low" in answer.comment
    assert flow.executed == [(answer.request_id, proposal(decision))]


@pytest.mark.parametrize(
    "proposed",
    [
        proposal("approve", "high"),
        proposal("deny", "high"),
        proposal("needs_review", "high"),
        proposal("needs_review", "low"),
        proposal("needs_review", "medium"),
        proposal("approve", "medium"),
        proposal("deny", "medium"),
    ],
    ids=lambda proposed: f"{proposed.decision}-{proposed.risk_level}",
)
async def test_all_else_goes_to_a_person(proposed):
    flow, reviewer = paying(proposed), erin(Approve(comment="checked"))

    result = await review_with(flow.run(claim=CLAIM), reviewer)

    reviewer.assert_asked("approval")
    assert result.status is ResultStatus.APPROVED
    assert [(a.by.id, a.comment) for a in result.decisions] == [("erin", "checked")]
    assert flow.executed == [(reviewer.asked[0].request_id, proposed)]


async def test_nothing_is_executed_while_the_person_is_asked(start_here):
    flow = paying(RISKY)
    live = start_here(lambda: flow, claim=CLAIM)
    await live.open()
    assert flow.executed == []


async def test_a_rejected_decision_is_never_executed():
    flow = paying(RISKY)
    result = await review_with(flow.run(claim=CLAIM), erin(Reject(comment="ask the branch")))
    assert result.status is ResultStatus.REJECTED
    assert result.subject == RISKY
    assert result.decisions[0].comment == "ask the branch"
    assert flow.executed == []


async def test_an_edited_decision_is_executed_as_edited_and_both_are_on_record(start_here):
    flow = paying(RISKY)
    live = start_here(lambda: flow, claim=CLAIM)
    (question,) = await live.open()
    edited = proposal("approve", "high", "still within the grace period")

    await live.tell(question.answer(Edit(subject=edited.model_dump()), by="erin"))

    result = await live.result()
    assert result.status is ResultStatus.APPROVED
    assert result.subject == edited
    assert flow.executed == [(question.request_id, edited)]
    assert question.request.subject.data == RISKY.model_dump()
    assert result.decisions[0].decision.subject == edited.model_dump()


@pytest.mark.parametrize(
    "subject",
    [
        {"decision": "pay double", "reason": "x", "risk_level": "low"},
        {"decision": "approve"},
        {**RISKY.model_dump(), "amount": 7},
        {},
    ],
    ids=["unknown value", "missing fields", "unknown field", "empty"],
)
async def test_an_edit_that_is_no_decision_is_refused_and_nothing_is_executed(start_here, subject):
    flow = paying(RISKY)
    live = start_here(lambda: flow, claim=CLAIM)
    (question,) = await live.open()
    assert codes(await live.tell(question.answer(Edit(subject=subject), by="erin"))) == [
        "invalid_answer"
    ]
    assert (live.ended, flow.executed) == (False, [])


async def test_an_answer_of_a_stranger_executes_nothing(start_here):
    flow = paying(RISKY, reviewers=["erin"])
    live = start_here(lambda: flow, claim=CLAIM)
    (question,) = await live.open()
    assert codes(await live.tell(question.answer(Approve(), by="sam"))) == ["not_allowed"]
    assert (live.ended, flow.executed) == (False, [])


async def test_the_request_shows_claim_proposal_and_why_a_person_is_asked():
    reviewer = erin(Approve())
    await review_with(paying(RISKY).run(claim=CLAIM), reviewer)
    (request,) = reviewer.asked
    assert request.title == "The model proposes: deny (high risk)"
    assert request.body == CLAIM
    assert request.subject.data == RISKY.model_dump()
    assert request.rule.verdict == "ask"
    assert "high" in request.rule.reason


async def test_progress_of_a_claim_is_on_the_stream(start_here):
    live = start_here(lambda: paying(RISKY), claim=CLAIM)
    await live.open()
    assert [event.message for event in of_kind(live.seen, ProgressEvent)] == [
        "Gathering evidence",
        "Classifying the claim",
    ]


# --- the policy ---------------------------------------------------------------------------------


async def test_a_policy_of_ones_own():
    policy = first_match(
        rule("small", lambda s: "small" in s.reason, then="approve", reason="small")
    )
    flow, reviewer = paying(proposal(risk="high"), RISKY, policy=policy), erin(Reject())
    passed = await review_with(flow.run(claim="a"), reviewer)
    asked_for = await review_with(flow.run(claim="b"), reviewer)
    assert (passed.status, asked_for.status) == (ResultStatus.APPROVED, ResultStatus.REJECTED)
    reviewer.assert_asked("approval")


async def test_a_policy_of_a_subclass():
    class Careful(Paying):
        policy = always("ask")

    flow, reviewer = Careful(llm=ScriptedLLM([proposal()])), erin(Approve())
    await review_with(flow.run(claim=CLAIM), reviewer)
    reviewer.assert_asked("approval")


async def test_a_policy_that_rejects_blocks_without_a_person():
    flow, reviewer = paying(proposal(), policy=always("reject")), erin(Approve())
    result = await review_with(flow.run(claim=CLAIM), reviewer)
    assert result.status is ResultStatus.REJECTED
    assert result.decisions[0].by.kind == "rule"
    assert (reviewer.asked, flow.executed) == ([], [])


async def test_a_policy_that_asks_nobody_is_on_record():
    flow = paying(RISKY, policy=never())
    result = await review_with(flow.run(claim=CLAIM))
    assert result.status is ResultStatus.APPROVED
    assert result.decisions[0].by.kind == "rule"
    assert len(flow.executed) == 1


def _broken(subject):
    raise ZeroDivisionError("no division today")


@pytest.mark.parametrize(
    "policy",
    [
        rule("broken", _broken, then="approve", reason="never"),
        first_match(rule("broken", _broken, then="ask", reason="never"), never()),
        rule("truthy", lambda subject: "yes", then="approve", reason="never"),
        threshold("amount", below=100, then="approve"),
        rule("other", lambda subject: False, then="approve", reason="never"),
    ],
    ids=["raises", "first of several raises", "no boolean", "no such field", "does not match"],
)
async def test_a_policy_in_doubt_asks(policy):
    flow, reviewer = paying(proposal(), policy=policy), erin(Reject())
    result = await review_with(flow.run(claim=CLAIM), reviewer)
    assert result.status is ResultStatus.REJECTED
    reviewer.assert_asked("approval")
    assert flow.executed == []


async def test_the_policy_is_asked_once_however_often_the_run_is_restored():
    seen = []

    def note(subject):
        seen.append(subject)
        return True

    policy = rule("note", note, then="ask", reason="always")
    live = Live(lambda: paying(RISKY, policy=policy), restoring=True, claim=CLAIM)
    (question,) = await live.open()
    await live.tell(question.answer(Edit(subject={"decision": "?"}), by="erin"))
    await live.tell(question.answer(Approve(), by="erin"))
    assert (await live.result()).status is ResultStatus.APPROVED
    assert seen == [RISKY]


def test_the_policy_of_the_class_stays_as_it_is():
    ClaimReview(policy=never())
    assert ClaimReview.policy is CLAIM_POLICY
    assert ClaimReview().policy is CLAIM_POLICY


# --- the model ----------------------------------------------------------------------------------


async def test_the_prompt_holds_the_claim_as_it_is():
    llm = ScriptedLLM([proposal()])
    await review_with(ClaimReview(llm=llm).run(claim=CLAIM))
    expected = ClaimReview.decide_prompt.replace("{claim}", CLAIM).replace("{evidence}", "none")
    assert llm.prompts == [expected]


MALFORMED = {
    "unknown value": ({"decision": "maybe", "reason": "x", "risk_level": "low"}, "needs_review"),
    "missing field": ({"decision": "approve", "reason": "x"}, "risk_level\n  Field required"),
    "empty object": ({}, "Field required"),
    "prose": ("I would approve that.", "I would approve that."),
    "nothing": ("", "tool call"),
    "another tool": (ToolCall(name="transfer_money", arguments={}), "transfer_money"),
    "several calls": (
        [ToolCall(name="ClaimDecision", arguments=RISKY.model_dump())] * 2,
        "Invalid",
    ),
    "wrong type": ({"decision": ["approve"], "reason": 1, "risk_level": None}, "valid string"),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_output_is_asked_again_and_the_model_sees_what_was_wrong(name):
    bad, wrong = MALFORMED[name]
    llm = ScriptedLLM([bad, bad, RISKY])
    reviewer = erin(Approve())
    result = await review_with(ClaimReview(llm=llm).run(claim=CLAIM), reviewer)
    assert (result.status, result.subject) == (ResultStatus.APPROVED, RISKY)
    first, second, third = llm.prompts
    assert second.startswith(f"{first}\n\nYour last answer could not be used: ")
    assert wrong in second.removeprefix(first)
    assert third == second


@pytest.mark.parametrize("name", MALFORMED)
async def test_output_that_stays_malformed_is_an_error_after_three_attempts(name):
    bad, wrong = MALFORMED[name]
    llm, reviewer = ScriptedLLM([bad] * 3), erin(Approve())
    flow = Paying(llm=llm)
    with pytest.raises(
        ModelOutputError, match="did not give ClaimDecision in 3 attempts"
    ) as caught:
        await review_with(flow.run(claim=CLAIM), reviewer)
    assert wrong in str(caught.value)
    assert caught.value.attempts == 3
    llm.assert_exhausted()
    assert (reviewer.asked, flow.executed) == ([], [])


async def test_a_model_without_tools_answers_in_text():
    llm = ScriptedLLM(["?", f"Sure: {RISKY.model_dump_json()}"], is_function_calling_model=False)
    result = await review_with(ClaimReview(llm=llm).run(claim=CLAIM), erin(Approve()))
    assert result.subject == RISKY
    assert CLAIM in llm.prompts[0]
    assert "Your last answer could not be used" in llm.prompts[1]


async def test_an_error_of_the_model_is_no_malformed_output():
    llm = ScriptedLLM([ConnectionError("no route")])
    with pytest.raises(ConnectionError, match="no route"):
        await review_with(ClaimReview(llm=llm).run(claim=CLAIM))
    assert len(llm.calls) == 1


# --- evidence -----------------------------------------------------------------------------------

RULES = "Lapse within the {grace} period: manual review, 100 %."
COVER = "Water damage needs proof of cover."


@pytest.fixture(scope="module")
def index():
    documents = [
        Document(text=RULES, metadata={"file_name": "rules.md"}),
        Document(text=COVER, metadata={"title": "Cover"}),
    ]
    return VectorStoreIndex.from_documents(documents, embed_model=MockEmbedding(embed_dim=4))


async def test_evidence_from_a_retriever_reaches_the_model_and_the_person(index):
    llm, reviewer = ScriptedLLM([RISKY]), erin(Approve())
    flow = ClaimReview(llm=llm, retriever=index.as_retriever(similarity_top_k=2))
    await review_with(flow.run(claim=CLAIM), reviewer)
    found = reviewer.asked[0].evidence
    assert {(item.title, item.body) for item in found} == {("rules.md", RULES), ("Cover", COVER)}
    assert all(math.isclose(item.score, 1.0) for item in found)
    assert f"- rules.md: {RULES}" in llm.prompts[0]
    assert f"- Cover: {COVER}" in llm.prompts[0]


async def test_evidence_from_a_query_engine_has_its_answer_and_its_sources(index):
    engine_llm = ScriptedLLM(["A lapse of {two} days is reviewed by hand."])
    llm, reviewer = ScriptedLLM([RISKY]), erin(Approve())
    engine = index.as_query_engine(llm=engine_llm, similarity_top_k=2)
    await review_with(ClaimReview(llm=llm, query_engine=engine).run(claim=CLAIM), reviewer)
    answer, *sources = reviewer.asked[0].evidence
    assert answer.body == "A lapse of {two} days is reviewed by hand."
    assert {source.title for source in sources} == {"rules.md", "Cover"}
    assert CLAIM in engine_llm.prompts[0]
    assert answer.body in llm.prompts[0]


async def test_evidence_survives_a_restore(index):
    retriever = index.as_retriever(similarity_top_k=2)
    llm = ScriptedLLM([RISKY])
    live = Live(lambda: ClaimReview(llm=llm, retriever=retriever), restoring=True, claim=CLAIM)
    (question,) = await live.open()
    await live.tell(question.answer(Approve(), by="erin"))
    assert (await live.result()).status is ResultStatus.APPROVED
    assert len(asked(live.seen)) == 1
    llm.assert_exhausted()


class Fixed(BaseRetriever):
    """Finds what it was given."""

    def __init__(self, *found):
        super().__init__()
        self._found = list(found)

    def _retrieve(self, query_bundle):
        return self._found


@pytest.mark.parametrize(
    ("score", "shown"), [(0.25, 0.25), (None, None), (math.nan, None), (math.inf, None)]
)
async def test_a_score_that_is_no_number_is_left_out(score, shown):
    node = NodeWithScore(node=TextNode(text="x", id_="node-1"), score=score)
    reviewer = erin(Approve())
    flow = ClaimReview(llm=ScriptedLLM([RISKY]), retriever=Fixed(node))
    await review_with(flow.run(claim=CLAIM), reviewer)
    assert reviewer.asked[0].evidence == (Evidence(title="node-1", body="x", score=shown),)


async def test_a_long_title_of_evidence_is_cut():
    node = NodeWithScore(node=TextNode(text="x", metadata={"title": "word\n" * 1_000}))
    reviewer = erin(Approve())
    flow = ClaimReview(llm=ScriptedLLM([RISKY]), retriever=Fixed(node))
    await review_with(flow.run(claim=CLAIM), reviewer)
    assert reviewer.asked[0].evidence[0].title.startswith("word word word")


async def test_a_retriever_that_fails_ends_the_run_before_the_model_is_asked():
    class Down(Fixed):
        def _retrieve(self, query_bundle):
            raise ConnectionError("the index is down")

    llm = ScriptedLLM([RISKY])
    with pytest.raises(ConnectionError, match="index is down"):
        await review_with(ClaimReview(llm=llm, retriever=Down()).run(claim=CLAIM))
    assert llm.calls == []


# --- subclassing --------------------------------------------------------------------------------


async def test_override_gather():
    class Mine(ClaimReview):
        async def gather(self, claim):
            return (Evidence(title="File", body=f"about {claim}"),)

    llm, reviewer = ScriptedLLM([RISKY]), erin(Approve())
    await review_with(Mine(llm=llm).run(claim="fire"), reviewer)
    assert reviewer.asked[0].evidence == (Evidence(title="File", body="about fire"),)
    assert "- File: about fire" in llm.prompts[0]


async def test_override_decide():
    class Mine(Paying):
        async def decide(self, claim, evidence):
            return proposal(reason=f"{claim} is cheap")

    flow = Mine()
    await review_with(flow.run(claim="tea"))
    assert [decision.reason for _, decision in flow.executed] == ["tea is cheap"]


async def test_override_the_prompt():
    class Mine(ClaimReview):
        decide_prompt = "{claim}|{evidence}|{{}}"

    llm = ScriptedLLM([proposal()])
    await review_with(Mine(llm=llm).run(claim=CLAIM))
    assert llm.prompts == [f"{CLAIM}|none|{{}}"]


async def test_override_the_gate():
    class Mine(Paying):
        approval = ClaimReview.approval.replace(
            reviewers="role:claims", editable=False, title="A claim", quorum=2
        )

    flow = Mine(llm=ScriptedLLM([RISKY]))
    ann = erin(Approve(), by=person("ann", "claims"))
    result = await review_with(
        flow.run(claim=CLAIM), ann, erin(Approve(), by=person("bob", "claims"))
    )
    assert [answer.by.id for answer in result.decisions] == ["ann", "bob"]
    assert (ann.asked[0].title, "edit" in ann.asked[0].allowed) == ("A claim", False)
    assert len(flow.executed) == 1
