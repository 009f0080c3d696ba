"""The ready workflows with the real OpenAI client, against a server on this machine."""

import socket

import openai
import pytest
from flows import Live, asked, of_kind
from llama_index.llms.openai import OpenAI
from openai_server import Call, Failure, Garbage, OpenAIServer

from llama_index_hitl import Approve, Reject, Respond, Revise
from llama_index_hitl.prebuilt import (
    ClaimDecision,
    ClaimReview,
    Code,
    CodeReview,
    ConfirmUnderstanding,
    DocumentApproval,
    Draft,
    DraftApproval,
    ModelOutputError,
    Orchestration,
    ProgressEvent,
    ResearchReport,
    ResultStatus,
    SupportDesk,
    SupportStatus,
    Triage,
    Understanding,
)
from llama_index_hitl.testing import ScriptedReviewer, review_with

RISKY = {"decision": "deny", "reason": "policy lapsed, {x} 100 %", "risk_level": "high"}
SORTED = {"specialist": "tech", "confidence": 0.5, "reason": "it beeps"}
PLANNED = {"tasks": [{"owner": "ops", "task": "restart {it}"}]}
ESCALATED = {
    "reply": None,
    "escalation": {"reason": "unknown", "context": "it beeps", "suggested_action": "send somebody"},
}
UNDERSTOOD = {"action": "I will pay.", "details": [{"name": "amount", "value": "40"}]}
TEXT = "Grüße: a text that is long enough to come in pieces."
BY_TOOL = "gpt-4-turbo"  # a model that gives structured answers by calling a tool


STARTS = {
    DraftApproval: {"topic": "tea"},
    CodeReview: {"task": "tea"},
    ClaimReview: {"claim": "tea"},
    ResearchReport: {"topic": "tea"},
    ConfirmUnderstanding: {"request": "tea"},
}
every_workflow = pytest.mark.parametrize("kind", STARTS)


@pytest.fixture
def serve(monkeypatch):
    """Serve replies as the default endpoint of the default model."""
    servers = []

    def start(*replies):
        server = OpenAIServer(replies).__enter__()
        servers.append(server)
        monkeypatch.setenv("OPENAI_API_BASE", server.base_url)
        return server

    monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    yield start
    for server in servers:
        server.__exit__(None, None, None)


def erin(*script, **options):
    return ScriptedReviewer(script, **{"by": "erin", **options})


def prompts(server):
    """Return what the model was asked, one message for each request."""
    return [request.body["messages"][-1]["content"] for request in server.requests]


# --- what goes right ----------------------------------------------------------------------------


async def test_a_document_is_written_revised_and_approved(serve):
    server = serve("First draft.", TEXT)
    people = erin(Revise(feedback="warmer {!}"), Approve(), Approve())

    result = await review_with(DocumentApproval().run(topic="tea"), people)

    assert (result.status, result.version) == (ResultStatus.APPROVED, 2)
    assert result.subject == Draft(content=TEXT)
    kind = DocumentApproval
    assert prompts(server) == [
        kind.generate_prompt.format(topic="tea"),
        kind.revise_prompt.format(feedback="warmer {!}", content="First draft."),
    ]


async def test_the_default_model_gets_the_key_of_the_environment(serve):
    server = serve(TEXT)
    await review_with(DraftApproval().run(topic="tea"), erin(Approve()))
    (request,) = server.requests
    assert request.body["model"] == "gpt-4o-mini"
    assert request.authorization == "Bearer sk-loopback"
    assert request.path == "/v1/chat/completions"


async def test_code_comes_without_its_fence(serve):
    serve("```python\nprint('ü')\n```")
    result = await review_with(CodeReview().run(task="say ü"), erin(Approve()))
    assert result.subject == Code(code="print('ü')")


async def test_a_report_is_researched_and_written(serve):
    server = serve("- hot", "- hot\n- green", "# Tea")
    person = erin(Revise(feedback="kinds?"), Approve())
    result = await review_with(ResearchReport().run(topic="tea"), person)
    assert result.report == "# Tea"
    assert len(server.requests) == 3


async def test_a_claim_is_decided_by_the_schema_of_the_decision(serve):
    server, person = serve(RISKY), erin(Approve())
    result = await review_with(ClaimReview().run(claim="Water {damage}, 100 %"), person)
    assert (result.status, result.subject) == (ResultStatus.APPROVED, ClaimDecision(**RISKY))
    assert person.asked[0].subject.data == RISKY
    (request,) = server.requests
    schema = request.body["response_format"]["json_schema"]
    assert schema["name"] == "ClaimDecision"
    assert schema["schema"]["properties"]["risk_level"]["enum"] == ["low", "medium", "high"]
    assert "Water {damage}, 100 %" in prompts(server)[0]


async def test_a_claim_is_decided_by_a_model_that_calls_a_tool(serve):
    server, person = serve([Call("ClaimDecision", RISKY)]), erin(Approve())
    result = await review_with(ClaimReview(llm=OpenAI(model=BY_TOOL)).run(claim="x"), person)
    assert result.subject == ClaimDecision(**RISKY)
    assert server.requests[0].body["tools"][0]["function"]["name"] == "ClaimDecision"


async def test_an_understanding_is_confirmed(serve):
    serve([Call("Understanding", UNDERSTOOD)])
    flow = ConfirmUnderstanding(llm=OpenAI(model=BY_TOOL))
    result = await review_with(flow.run(request="pay 40"), erin(Approve()))
    assert result.subject == Understanding(**UNDERSTOOD)


async def test_an_understanding_by_the_default_model(serve):
    server = serve(UNDERSTOOD)
    result = await review_with(ConfirmUnderstanding().run(request="pay 40"), erin(Approve()))
    assert result.subject == Understanding(**UNDERSTOOD)
    assert server.requests[0].body["response_format"]["json_schema"]["name"] == "Understanding"


class TeaTriage(Triage):
    specialists = {"tech": "machines", "billing": "money"}  # noqa: RUF012


class TeaOrchestration(Orchestration):
    workers = {"ops": "runs {commands}"}  # noqa: RUF012


async def test_a_model_names_one_of_the_specialists(serve):
    server = serve(SORTED, "Turn it off.")
    result = await review_with(TeaTriage().run(request="it beeps"), erin(Approve()))
    assert (result.proposed, result.output) == ("tech", "Turn it off.")
    schema = server.requests[0].body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["specialist"]["enum"] == ["tech", "billing"]


async def test_a_model_plans_for_the_workers_there_are(serve):
    serve([Call("TaskPlan", PLANNED)], "It runs.", "# Report")
    flow = TeaOrchestration(llm=OpenAI(model=BY_TOOL))
    result = await review_with(flow.run(goal="tea"), erin(Approve(), Approve()))
    assert result.subject.findings[0].finding == "It runs."
    assert result.report == "# Report"


async def test_a_model_escalates(serve):
    serve(ESCALATED, "Somebody comes.")
    guided = Respond(response={"instruction": "Send somebody"})
    result = await review_with(SupportDesk().run(text="it beeps"), erin(guided))
    assert (result.status, result.reply) == (SupportStatus.ANSWERED, "Somebody comes.")


def objects_in(schema):
    """Return every part of a schema that describes an object."""
    parts = schema.values() if isinstance(schema, dict) else schema
    found = [part for part in parts if isinstance(part, dict | list)]
    mine = [schema] if isinstance(schema, dict) and schema.get("type") == "object" else []
    return [*mine, *(inner for part in found for inner in objects_in(part))]


@pytest.mark.parametrize(
    ("kind", "start", "reply"),
    [
        (ClaimReview, {"claim": "tea"}, RISKY),
        (ConfirmUnderstanding, {"request": "tea"}, UNDERSTOOD),
        (TeaTriage, {"request": "tea"}, SORTED),
        (TeaOrchestration, {"goal": "tea"}, PLANNED),
        (SupportDesk, {"text": "tea"}, {"reply": "Tea.", "escalation": None}),
    ],
)
async def test_the_schema_is_one_that_openai_accepts(serve, kind, start, reply):
    # In strict mode the service refuses objects with keys of their own, optional keys and defaults.
    server = serve(reply)
    await review_with(kind().run(**start), ScriptedReviewer(lambda _: Reject()))
    sent = server.requests[0].body["response_format"]["json_schema"]
    assert sent["strict"] is True
    assert objects_in(sent["schema"])
    for part in objects_in(sent["schema"]):
        assert part["additionalProperties"] is False
        assert sorted(part["required"]) == sorted(part["properties"])
        assert all("default" not in field for field in part["properties"].values())


async def test_a_restored_run_makes_a_client_of_its_own(serve):
    server = serve("First draft.", TEXT)
    live = Live(DocumentApproval, restoring=True, topic="tea")
    await live.pause()
    for decision in (Revise(feedback="more"), Approve(), Approve()):
        await live.tell(asked(live.seen)[-1].answer(decision, by="erin"))
    result = await live.result()
    assert (result.status, result.subject) == (ResultStatus.APPROVED, Draft(content=TEXT))
    assert len(server.requests) == 2


async def test_a_document_is_streamed(serve, start_here):
    words = f"{TEXT} " * 20
    server = serve(words)
    live = start_here(lambda: DocumentApproval(streaming=True), topic="tea")
    (question,) = await live.open()
    assert question.request.subject.data == {"content": words.strip()}
    assert server.requests[0].body["stream"] is True
    told = [event.message for event in of_kind(live.seen, ProgressEvent)]
    assert told[0] == "Writing about tea"
    assert [message.split()[1:] for message in told[1:]] == [["characters", "so", "far"]] * 2


async def test_code_is_streamed_without_its_fence(serve):
    serve("```python\nprint('ü')\n```")
    result = await review_with(CodeReview(streaming=True).run(task="say ü"), erin(Approve()))
    assert result.subject == Code(code="print('ü')")


# --- what goes wrong ----------------------------------------------------------------------------


@every_workflow
async def test_a_wrong_key_ends_the_run_at_once(serve, kind):
    server, person = serve(Failure(401, "Incorrect API key provided.")), erin(Approve())
    with pytest.raises(openai.AuthenticationError, match="Incorrect API key"):
        await review_with(kind().run(**STARTS[kind]), person)
    assert len(server.requests) == 1
    assert person.asked == []


@pytest.mark.parametrize("kind", [DraftApproval, CodeReview, ResearchReport])
async def test_a_wrong_key_ends_a_streamed_run_at_once(serve, kind):
    server, person = serve(Failure(401)), erin(Approve())
    with pytest.raises(openai.AuthenticationError):
        await review_with(kind(streaming=True).run(**STARTS[kind]), person)
    assert (len(server.requests), person.asked) == (1, [])


@pytest.mark.parametrize(
    "garbage",
    [
        Garbage(b"<html>Welcome</html>", "text/html"),
        Garbage(b"data: {oops\n\n", "text/event-stream"),
        Garbage(b"", "text/event-stream"),
    ],
    ids=["a page", "no JSON", "nothing"],
)
async def test_a_stream_that_is_no_reply_ends_the_run_before_anybody_is_asked(serve, garbage):
    serve(garbage)
    person = erin(Approve())
    with pytest.raises((ValueError, TypeError)):
        await review_with(DraftApproval(streaming=True).run(topic="tea"), person)
    assert person.asked == []


@every_workflow
async def test_no_key_ends_the_run_and_says_which_variable_to_set(serve, monkeypatch, kind):
    server = serve()
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(openai.OpenAIError, match="OPENAI_API_KEY"):
        await review_with(kind().run(**STARTS[kind]), erin(Approve()))
    assert server.requests == []


@pytest.mark.parametrize("kind", [DraftApproval, ClaimReview])
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
async def test_an_error_reply_ends_the_run_as_what_it_is(serve, kind, status, error):
    server, person = serve(Failure(status)), erin(Approve())
    llm = OpenAI(model="gpt-4o-mini", max_retries=0)  # with the default it would go on for 12 s
    with pytest.raises(error):
        await review_with(kind(llm=llm).run(**STARTS[kind]), person)
    assert len(server.requests) == 1
    assert person.asked == []


async def test_the_default_model_tries_again_after_a_server_error(serve):
    server = serve(Failure(500), TEXT)
    result = await review_with(DraftApproval().run(topic="tea"), erin(Approve()))
    assert result.subject == Draft(content=TEXT)
    assert len(server.requests) == 2


async def test_an_error_while_revising_ends_the_run(serve):
    serve(TEXT, Failure(401))
    person = erin(Revise(feedback="more"), Approve(), Approve())
    with pytest.raises(openai.AuthenticationError):
        await review_with(DocumentApproval().run(topic="tea"), person)
    person.assert_asked("content_review")


async def test_nobody_listens(monkeypatch, serve):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        monkeypatch.setenv("OPENAI_API_BASE", f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        flow = DraftApproval(llm=OpenAI(model="gpt-4o-mini", max_retries=0))
        with pytest.raises(openai.APIConnectionError):
            await review_with(flow.run(topic="tea"), erin(Approve()))


@pytest.mark.parametrize("kind", [DraftApproval, ClaimReview])
@pytest.mark.parametrize(
    "garbage",
    [
        Garbage(b"<html>Welcome</html>", "text/html"),
        Garbage(b"<html>Welcome</html>"),
        Garbage(b""),
        Garbage(b"{}"),
        Garbage(b'{"choices": []}'),
    ],
    ids=["a page", "no JSON", "nothing", "empty object", "no choices"],
)
async def test_a_body_that_is_no_reply_ends_the_run_before_anybody_is_asked(serve, kind, garbage):
    serve(garbage, garbage, garbage)
    person = erin(Approve())
    with pytest.raises((ValueError, AttributeError, TypeError, IndexError)):
        await review_with(kind().run(**STARTS[kind]), person)
    assert person.asked == []


@pytest.mark.parametrize("said", ["", "  \n", []], ids=["nothing", "blank", "no calls"])
@pytest.mark.parametrize("kind", [DraftApproval, CodeReview, ResearchReport])
async def test_an_empty_reply_is_an_error(serve, kind, said):
    serve(said)
    person = erin(Approve())
    with pytest.raises(ModelOutputError):
        await review_with(kind().run(**STARTS[kind]), person)
    assert person.asked == []


@pytest.mark.parametrize(
    "nonsense",
    ["I'd approve it.", "", {"decision": "maybe"}, [Call("other")], "[1, 2]"],
    ids=["prose", "nothing", "malformed", "a call of a tool", "a list"],
)
@pytest.mark.parametrize("kind", [ClaimReview, ConfirmUnderstanding])
async def test_nonsense_for_a_structured_answer_is_an_error_after_three_attempts(
    serve, kind, nonsense
):
    server, person = serve(*[nonsense] * 4), erin(Approve())
    with pytest.raises(ModelOutputError, match="in 3 attempts") as caught:
        await review_with(kind().run(**STARTS[kind]), person)
    assert caught.value.attempts == 3
    assert len(server.requests) == 3
    assert person.asked == []


@pytest.mark.parametrize(
    ("model", "bad", "good"),
    [
        ("gpt-4o-mini", {**RISKY, "risk_level": "extreme"}, RISKY),
        (
            BY_TOOL,
            [Call("ClaimDecision", {**RISKY, "risk_level": "extreme"})],
            [Call("ClaimDecision", RISKY)],
        ),
    ],
    ids=["by schema", "by tool"],
)
async def test_the_model_is_told_what_was_wrong_and_may_correct_it(serve, model, bad, good):
    server = serve(bad, bad, good)
    flow = ClaimReview(llm=OpenAI(model=model))
    result = await review_with(flow.run(claim="Water"), erin(Approve()))
    assert result.subject == ClaimDecision(**RISKY)
    first, second, third = prompts(server)
    assert "risk_level" in second.removeprefix(first)
    assert "'low', 'medium' or 'high'" in second
    assert third == second


@pytest.mark.parametrize("said", ["prose", [Call("transfer_money", {})]])
async def test_nonsense_of_a_model_that_calls_tools(serve, said):
    server = serve(*[said] * 3)
    with pytest.raises(ModelOutputError, match="in 3 attempts"):
        await review_with(ClaimReview(llm=OpenAI(model=BY_TOOL)).run(claim="Water"))
    assert len(server.requests) == 3
