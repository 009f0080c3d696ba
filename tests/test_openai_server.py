import asyncio
import json
import urllib.request

import openai
import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI, OpenAIResponses
from openai_server import MODEL, Call, Failure, Garbage, OpenAIServer
from pydantic import BaseModel


class Invoice(BaseModel):
    number: str
    amount: int


INVOICE = {"number": "R-7", "amount": 40}
PROMPT = PromptTemplate("Read {text}")
# Models of both ways to a structured answer: a JSON schema, and a tool that must be called.
BY_SCHEMA, BY_TOOL = MODEL, "gpt-4-turbo"
TEXT = "Grüße: a text that is long enough to come in pieces."


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


ADD = FunctionTool.from_defaults(add)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    # a proxy in the environment would otherwise take the traffic off this machine
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.fixture(params=[True, False], ids=["one client", "a client per call"])
def reuse_client(request):
    return request.param


def client(server, **options):
    return OpenAI(
        **{"model": MODEL, "api_key": "test", "api_base": server.base_url, "max_retries": 0}
        | options
    )


def responses_client(server):
    return OpenAIResponses(
        model=MODEL, api_key="test", api_base=server.base_url, max_retries=0, strict=False
    )


def ask(text="hello"):
    return [ChatMessage(text)]


async def drained(llm):
    return [part async for part in await llm.astream_chat(ask())]


def kwargs_of(calls):
    return [(call.tool_name, call.tool_kwargs) for call in calls]


# --- text ---------------------------------------------------------------------------------------


async def test_whole_replies_reach_the_real_client(reuse_client):
    with OpenAIServer(replies=[TEXT] * 4) as server:
        llm = client(server, reuse_client=reuse_client)
        assert llm.complete("one").text == TEXT
        assert (await llm.acomplete("two")).text == TEXT
        assert llm.chat(ask("three")).message.content == TEXT
        assert (await llm.achat(ask("four"))).message.content == TEXT
    assert [request.body["messages"][-1]["content"] for request in server.requests] == [
        "one",
        "two",
        "three",
        "four",
    ]


async def test_streamed_replies_come_in_pieces_that_add_up(reuse_client):
    with OpenAIServer(replies=[TEXT, TEXT]) as server:
        llm = client(server, reuse_client=reuse_client)
        streams = [
            list(llm.stream_chat(ask())),
            await drained(llm),
        ]
    for parts in streams:
        assert "".join(part.delta for part in parts) == TEXT
        assert parts[-1].message.content == TEXT
        assert sum(1 for part in parts if part.delta) > 3


def test_the_record_holds_path_key_and_body():
    with OpenAIServer(replies=["ok"]) as server:
        client(server).complete("hello")
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.authorization == "Bearer test"
    assert request.body["model"] == MODEL
    assert request.body["stream"] is False


def test_usage_is_reported():
    with OpenAIServer(replies=["ok"]) as server:
        reply = client(server).chat(ask())
    assert reply.additional_kwargs["total_tokens"] == 8


async def test_concurrent_requests_each_get_one_reply():
    with OpenAIServer(replies=[str(n) for n in range(20)]) as server:
        llm = client(server)
        replies = await asyncio.gather(*(llm.acomplete("x") for _ in range(20)))
    assert sorted(int(reply.text) for reply in replies) == list(range(20))


def test_the_list_of_models():
    with OpenAIServer() as server, openai.OpenAI(api_key="k", base_url=server.base_url) as real:
        assert [model.id for model in real.models.list()] == [MODEL]
    assert server.requests[0].path == "/v1/models"
    assert server.requests[0].body is None


def test_it_listens_on_loopback_only_and_stops():
    with OpenAIServer() as server:
        assert server.base_url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{server.base_url}/models") as reply:  # noqa: S310
            assert json.load(reply)["object"] == "list"
    with pytest.raises(openai.APIConnectionError):
        client(server).complete("x")


# --- tool calls and structured answers ----------------------------------------------------------


async def test_one_tool_call():
    with OpenAIServer(replies=[[Call("add", {"a": 1, "b": 2}, id="mine")]] * 2) as server:
        llm = client(server)
        for reply in (
            llm.chat_with_tools([ADD], "1 + 2?"),
            await llm.achat_with_tools([ADD], "1 + 2?"),
        ):
            (call,) = llm.get_tool_calls_from_response(reply)
            assert (call.tool_id, *kwargs_of([call])) == ("mine", ("add", {"a": 1, "b": 2}))
    assert server.requests[0].body["tools"][0]["function"]["name"] == "add"


async def test_parallel_tool_calls_whole_and_streamed():
    calls = [Call("add", {"a": 1, "b": 2}), Call("add", {"a": 3, "b": 4})]
    with OpenAIServer(replies=[calls] * 3) as server:
        llm = client(server)
        whole = llm.chat_with_tools([ADD], "both?", allow_parallel_tool_calls=True)
        stream = list(llm.stream_chat_with_tools([ADD], "both?", allow_parallel_tool_calls=True))
        later = await llm.astream_chat_with_tools([ADD], "both?", allow_parallel_tool_calls=True)
        parts = [part async for part in later]
        for number, reply in enumerate([whole, stream[-1], parts[-1]], 1):
            selected = llm.get_tool_calls_from_response(reply)
            assert kwargs_of(selected) == [("add", {"a": 1, "b": 2}), ("add", {"a": 3, "b": 4})]
            assert [call.tool_id for call in selected] == [f"call_{number}_1", f"call_{number}_2"]
    assert len(stream) > 6


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
@pytest.mark.parametrize("streaming", [True, False])
async def test_an_agent_runs_its_tool(streaming):
    with OpenAIServer(replies=[[Call("add", {"a": 1, "b": 2})], "It is 3."]) as server:
        agent = FunctionAgent(tools=[add], llm=client(server), streaming=streaming)
        assert str(await agent.run("1 + 2?")) == "It is 3."
    assert server.requests[1].body["messages"][-1] == {
        "role": "tool",
        "content": "3",
        "tool_call_id": "call_1_1",
    }


@pytest.mark.parametrize(
    ("model", "reply"), [(BY_SCHEMA, INVOICE), (BY_TOOL, [Call("Invoice", INVOICE)])]
)
async def test_a_structured_prediction(model, reply):
    with OpenAIServer(replies=[reply, reply]) as server:
        llm = client(server, model=model)
        assert llm.structured_predict(Invoice, PROMPT, text="x") == Invoice(**INVOICE)
        assert await llm.astructured_predict(Invoice, PROMPT, text="x") == Invoice(**INVOICE)
    assert ("response_format" in server.requests[0].body) == (model == BY_SCHEMA)


@pytest.mark.parametrize(
    ("model", "reply"),
    [
        (BY_SCHEMA, "not JSON"),
        (BY_SCHEMA, {"number": "R-7"}),
        (BY_TOOL, "not JSON"),
        (BY_TOOL, [Call("Invoice", {"number": "R-7"})]),
    ],
)
async def test_a_malformed_structured_answer_is_a_value_error(model, reply):
    with OpenAIServer(replies=[reply]) as server, pytest.raises(ValueError, match=r".+"):
        await client(server, model=model).astructured_predict(Invoice, PROMPT, text="x")


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, openai.AuthenticationError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("streaming", [True, False])
async def test_an_error_is_the_clients_own_exception(status, error, streaming):
    with OpenAIServer(replies=[Failure(status, "No."), Failure(status, "No.")]) as server:
        llm = client(server)
        with pytest.raises(error, match=r"No\.") as caught:
            _ = list(llm.stream_chat(ask())) if streaming else llm.chat(ask())
        assert caught.value.status_code == status
        with pytest.raises(error):
            await (drained(llm) if streaming else llm.achat(ask()))
    assert len(server.requests) == 2


def test_a_bad_key_carries_the_code_of_the_service():
    with (
        OpenAIServer(replies=[Failure(401)]) as server,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client(server).complete("x")
    assert caught.value.code == "invalid_api_key"


def test_the_reply_after_an_error_is_given():
    with OpenAIServer(replies=[Failure(500), "better"]) as server:
        llm = client(server)
        with pytest.raises(openai.InternalServerError):
            llm.complete("x")
        assert llm.complete("x").text == "better"


@pytest.mark.parametrize(
    ("garbage", "error"),
    [
        (Garbage(b"<html>Bad gateway</html>", "text/html"), AttributeError),
        (Garbage(b"{ this is not"), json.JSONDecodeError),
        (Garbage(b'{"hello": "world"}'), TypeError),
        (Garbage(b"[]"), AttributeError),
    ],
)
def test_garbage_raises(garbage, error):
    with OpenAIServer(replies=[garbage]) as server, pytest.raises(error):
        client(server).complete("x")


def test_a_garbled_stream_raises():
    garbled = Garbage(b"data: {not\n\n", "text/event-stream")
    with OpenAIServer(replies=[garbled]) as server, pytest.raises(json.JSONDecodeError):
        list(client(server).stream_chat(ask()))


def test_more_requests_than_replies_are_refused():
    with (
        OpenAIServer(replies=[]) as server,
        pytest.raises(openai.BadRequestError, match="No reply is left"),
    ):
        client(server).complete("x")


def test_an_unknown_path_is_not_found_and_takes_no_reply():
    with (
        OpenAIServer(replies=["kept"]) as server,
        openai.OpenAI(api_key="k", base_url=server.base_url, max_retries=0) as real,
    ):
        with pytest.raises(openai.NotFoundError):
            real.embeddings.create(model="m", input="x")
        assert client(server).complete("x").text == "kept"


# --- the responses endpoint ---------------------------------------------------------------------


async def test_responses_give_text():
    with OpenAIServer(replies=[TEXT, TEXT]) as server:
        llm = responses_client(server)
        assert llm.complete("x").text == TEXT
        assert (await llm.achat(ask())).message.content == TEXT
    assert {request.path for request in server.requests} == {"/v1/responses"}


async def test_responses_stream_text():
    with OpenAIServer(replies=[TEXT, TEXT]) as server:
        llm = responses_client(server)
        streams = [
            list(llm.stream_chat(ask())),
            await drained(llm),
        ]
    for parts in streams:
        assert "".join(part.delta for part in parts) == TEXT
        assert parts[-1].message.content == TEXT


async def test_responses_call_tools_whole_and_streamed():
    calls = [Call("add", {"a": 1, "b": 2}), Call("add", {"a": 3, "b": 4})]
    with OpenAIServer(replies=[calls] * 3) as server:
        llm = responses_client(server)
        whole = llm.chat_with_tools([ADD], "both?")
        stream = list(llm.stream_chat_with_tools([ADD], "both?"))
        later = await llm.astream_chat_with_tools([ADD], "both?")
        parts = [part async for part in later]
        for reply in (whole, stream[-1], parts[-1]):
            selected = llm.get_tool_calls_from_response(reply)
            assert kwargs_of(selected) == [("add", {"a": 1, "b": 2}), ("add", {"a": 3, "b": 4})]
    done = [llm.get_tool_calls_from_response(part, error_on_no_tool_call=False) for part in stream]
    assert [kwargs_of(calls) for calls in done if len(calls) == 1] == [
        [("add", {"a": 1, "b": 2})],
        [("add", {"a": 3, "b": 4})],
    ]


async def test_responses_give_structured_answers():
    with OpenAIServer(replies=[INVOICE, INVOICE]) as server:
        llm = responses_client(server)
        assert llm.structured_predict(Invoice, PROMPT, text="x") == Invoice(**INVOICE)
        assert await llm.astructured_predict(Invoice, PROMPT, text="x") == Invoice(**INVOICE)


def test_responses_raise_the_clients_own_errors():
    with OpenAIServer(replies=[Failure(429)]) as server, pytest.raises(openai.RateLimitError):
        responses_client(server).complete("x")
