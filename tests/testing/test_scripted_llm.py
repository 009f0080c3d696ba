import asyncio
import copy
import pickle
from itertools import pairwise

import pytest
from llama_index.core.agent.workflow import AgentStream, AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.program import LLMTextCompletionProgram
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel, Field

from llama_index_hitl.testing.llm import (
    ScriptedLLM,
    ScriptExhausted,
    ToolCall,
    ToolCalls,
)


class Invoice(BaseModel):
    number: str
    amount: int


class Aliased(BaseModel):
    number: str = Field(alias="invoiceNumber")


class Person(BaseModel):
    name: str


# Raised by LlamaIndex's own agents: while one is made, and in ReActAgent's step.
agent_test = pytest.mark.filterwarnings(
    "ignore::pydantic.warnings.PydanticDeprecationWarning",
    "ignore:is_running called from within a step:DeprecationWarning",
)

INVOICE = Invoice(number="R-7", amount=40)
PROMPT = PromptTemplate("Read the invoice: {text}")
LONG = "Two words, a  double space,\na line break and a trailing space "


def ask(text="hello"):
    return [ChatMessage(text)]


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


ADD = FunctionTool.from_defaults(add)


def added(a, b, **kwargs):
    return ToolCall(name="add", arguments={"a": a, "b": b}, **kwargs)


# --- text ---------------------------------------------------------------------------------------


async def test_each_way_of_asking_takes_the_next_reply():
    llm = ScriptedLLM(replies=["1", "2", "3", "4", "5", "6"])
    prompt = PromptTemplate("say {what}")

    assert llm.complete("a").text == "1"
    assert (await llm.acomplete("b")).text == "2"
    assert llm.chat(ask("c")).message.content == "3"
    assert (await llm.achat(ask("d"))).message.content == "4"
    assert llm.predict(prompt, what="e") == "5"
    assert await llm.apredict(prompt, what="f") == "6"
    assert llm.prompts == ["a", "b", "c", "d", "say e", "say f"]
    llm.assert_exhausted()


@pytest.mark.parametrize("text", [LONG, "short", "a-single-word-that-is-long", " ", ""])
async def test_streamed_deltas_add_up_to_the_text(text):
    llm = ScriptedLLM(reply=lambda _: text)
    streams = [
        list(llm.stream_chat(ask())),
        [part async for part in await llm.astream_chat(ask())],
    ]
    for parts in streams:
        assert "".join(part.delta for part in parts) == text
        assert parts[-1].message.content == text
        assert parts[-1].message.role == "assistant"


async def test_streamed_completion_adds_up_to_the_text():
    llm = ScriptedLLM(replies=[LONG, LONG])
    streams = [
        list(llm.stream_complete("go")),
        [part async for part in await llm.astream_complete("go")],
    ]
    for parts in streams:
        assert len(parts) > 3
        assert "".join(part.delta for part in parts) == LONG
        assert parts[-1].text == LONG


def test_a_long_text_comes_in_several_deltas_that_only_grow():
    parts = list(ScriptedLLM(replies=[LONG]).stream_chat(ask()))
    texts = [part.message.content for part in parts]
    assert len(texts) > 3
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))


def test_a_stream_that_nobody_reads_still_used_its_reply():
    llm = ScriptedLLM(replies=["never read", "next"])
    llm.stream_chat(ask()).close()
    assert llm.chat(ask()).message.content == "next"


def test_a_function_gets_the_messages_and_makes_the_reply():
    llm = ScriptedLLM(reply=lambda messages: f"{len(messages)}: {messages[-1].content}")
    reply = llm.chat([ChatMessage("be brief", role="system"), ChatMessage("hi")])
    assert reply.message.content == "2: hi"
    llm.assert_exhausted()


def test_the_system_prompt_of_the_model_is_sent_along():
    llm = ScriptedLLM(replies=["yes"], system_prompt="Be brief.")
    llm.predict(PromptTemplate("really?"))
    assert [message.content for message in llm.calls[0]] == ["Be brief.", "really?"]


# --- the record and the end of the script -------------------------------------------------------


def test_the_record_keeps_the_messages_as_they_were_when_asked():
    llm = ScriptedLLM(replies=["a", "b"])
    messages = ask("first")
    llm.chat(messages)
    messages[0].blocks[0].text = "changed"
    messages.append(ChatMessage("second"))
    llm.chat(messages)
    assert [[m.content for m in call] for call in llm.calls] == [["first"], ["changed", "second"]]


def test_running_out_says_how_many_replies_there_were_and_what_was_asked():
    llm = ScriptedLLM(replies=["only"])
    llm.complete("one")
    with pytest.raises(ScriptExhausted, match=r"Call 2 .* holds 1\. .*'what about two\?'"):
        llm.complete("what about two?")


def test_running_out_is_not_a_value_error_that_a_retry_would_swallow():
    with pytest.raises(ScriptExhausted) as caught:
        ScriptedLLM(replies=[]).structured_predict(Invoice, PROMPT, text="x")
    assert isinstance(caught.value, AssertionError)
    assert not isinstance(caught.value, ValueError)


async def test_running_out_in_an_async_stream_raises_at_the_call():
    with pytest.raises(ScriptExhausted):
        await ScriptedLLM(replies=[]).astream_chat(ask())


def test_a_long_prompt_is_cut_in_the_message():
    with pytest.raises(ScriptExhausted) as caught:
        ScriptedLLM(replies=[]).complete("x" * 5000)
    assert len(str(caught.value)) < 500


def test_assert_exhausted_lists_the_unused_replies():
    llm = ScriptedLLM(replies=["used", "left over", INVOICE])
    llm.complete("one")
    with pytest.raises(AssertionError, match=r"2 of 3 replies(.|\n)*left over(.|\n)*R-7"):
        llm.assert_exhausted()


def test_assert_exhausted_tells_of_an_overrun_that_was_swallowed():
    llm = ScriptedLLM(replies=["one"])
    llm.complete("one")
    for prompt in ("two", "three"):
        with pytest.raises(ScriptExhausted):
            llm.complete(prompt)
    with pytest.raises(ScriptExhausted, match=r"Call 2 .*'two'"):
        llm.assert_exhausted()


@pytest.mark.parametrize("bad", [7, None, [], ["text"], b"bytes", ValueError])
def test_what_is_no_reply_is_refused_when_the_script_is_made(bad):
    with pytest.raises(TypeError, match="cannot be a reply"):
        ScriptedLLM(replies=[bad])


def test_what_is_no_reply_is_refused_from_a_function():
    with pytest.raises(TypeError, match="None cannot be a reply"):
        ScriptedLLM(reply=lambda _: None).complete("x")


@pytest.mark.parametrize("arguments", [{}, {"replies": [], "reply": str}])
def test_a_script_is_either_a_list_or_a_function(arguments):
    with pytest.raises(TypeError, match="either"):
        ScriptedLLM(**arguments)


@pytest.mark.parametrize("one", ["hello", INVOICE, {"a": 1}, ToolCall(name="add")])
def test_one_reply_in_place_of_the_list_is_refused(one):
    with pytest.raises(TypeError, match="not one reply"):
        ScriptedLLM(replies=one)


def test_an_exception_is_raised_and_the_script_goes_on():
    error = TimeoutError("slow")
    llm = ScriptedLLM(replies=[error, "better"])
    with pytest.raises(TimeoutError) as caught:
        llm.complete("one")
    assert caught.value is error
    assert llm.complete("two").text == "better"


async def test_an_exception_is_raised_from_a_stream():
    llm = ScriptedLLM(replies=[TimeoutError("slow"), TimeoutError("slow")])
    with pytest.raises(TimeoutError):
        list(llm.stream_chat(ask()))
    with pytest.raises(TimeoutError):
        await llm.astream_chat(ask())


# --- copies and concurrency ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "duplicate",
    [
        copy.copy,
        copy.deepcopy,
        ScriptedLLM.model_copy,
        lambda llm: llm.model_copy(deep=True),
        ScriptedLLM.model_validate,
        pytest.param(lambda llm: FunctionAgent(llm=llm).llm, marks=agent_test),
        lambda llm: llm.as_structured_llm(Invoice).model_copy(deep=True).llm,
    ],
)
def test_a_copy_goes_on_with_the_same_script_and_record(duplicate):
    llm = ScriptedLLM(replies=["one", "two", "three"])
    llm.complete("a")
    other = duplicate(llm)
    assert other.complete("b").text == "two"
    assert llm.complete("c").text == "three"
    assert llm.prompts == other.prompts == ["a", "b", "c"]
    llm.assert_exhausted()


def test_two_models_made_from_one_list_do_not_share_it():
    replies = ["one"]
    first, second = ScriptedLLM(replies=replies), ScriptedLLM(replies=replies)
    assert first.complete("a").text == second.complete("a").text == "one"
    assert replies == ["one"]


def test_pickling_is_refused_for_it_would_replay():
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(ScriptedLLM(replies=["one"]))


def test_its_description_can_be_written_as_json():
    assert '"class_name": "ScriptedLLM"' in ScriptedLLM(replies=[]).to_json()


async def test_concurrent_calls_get_the_replies_in_the_order_of_the_calls():
    llm = ScriptedLLM(replies=[f"reply {n}" for n in range(50)])
    replies = await asyncio.gather(*(llm.acomplete(f"prompt {n}") for n in range(50)))
    assert [reply.text for reply in replies] == [f"reply {n}" for n in range(50)]
    assert llm.prompts == [f"prompt {n}" for n in range(50)]


async def test_calls_from_threads_get_each_reply_once():
    llm = ScriptedLLM(replies=[str(n) for n in range(100)])
    replies = await asyncio.gather(*(asyncio.to_thread(llm.complete, "x") for _ in range(100)))
    assert sorted(int(reply.text) for reply in replies) == list(range(100))
    llm.assert_exhausted()


async def test_concurrent_streams_do_not_mix():
    llm = ScriptedLLM(replies=["a b c d", "1 2 3 4"])
    first, second = await llm.astream_chat(ask()), await llm.astream_chat(ask())
    pairs = [(await anext(first), await anext(second)) for _ in range(4)]
    assert "".join(one.delta for one, _ in pairs) == "a b c d"
    assert "".join(two.delta for _, two in pairs) == "1 2 3 4"


# --- tool calls ---------------------------------------------------------------------------------


async def test_tool_calls_are_read_from_the_reply_whichever_way_it_was_asked():
    llm = ScriptedLLM(replies=[added(1, 2, id="mine")] * 4)
    replies = [
        llm.chat_with_tools([ADD], user_msg="1 + 2?"),
        await llm.achat_with_tools([ADD], user_msg=ChatMessage("1 + 2?")),
        list(llm.stream_chat_with_tools([ADD], user_msg="1 + 2?"))[-1],
        [
            part
            async for part in await llm.astream_chat_with_tools([ADD], chat_history=ask("1 + 2?"))
        ][-1],
    ]
    for reply in replies:
        (call,) = llm.get_tool_calls_from_response(reply)
        assert (call.tool_id, call.tool_name, call.tool_kwargs) == ("mine", "add", {"a": 1, "b": 2})
        assert reply.message.content is None
    assert llm.prompts == ["1 + 2?"] * 4


def test_calls_without_an_id_get_distinct_ids_that_are_the_same_in_each_run():
    llm = ScriptedLLM(replies=[[added(1, 2), added(3, 4)], added(5, 6)])
    ids = [
        call.tool_id
        for _ in range(2)
        for call in llm.get_tool_calls_from_response(llm.chat_with_tools([ADD], "go"))
    ]
    assert ids == ["call_1_1", "call_1_2", "call_2_1"]


def test_text_beside_tool_calls_is_streamed_before_them():
    reply = ToolCalls(calls=[added(1, 2), added(3, 4)], text="Let me see, one moment.")
    llm = ScriptedLLM(replies=[reply])
    parts = list(llm.stream_chat_with_tools([ADD], "go"))
    counts = [
        len(llm.get_tool_calls_from_response(part, error_on_no_tool_call=False)) for part in parts
    ]
    assert "".join(part.delta for part in parts) == "Let me see, one moment."
    assert counts == [*[0] * (len(parts) - 2), 1, 2]
    assert parts[-1].message.content == "Let me see, one moment."


def test_no_tool_call_is_an_error_only_where_one_is_demanded():
    llm = ScriptedLLM(replies=["no tool needed"])
    reply = llm.chat_with_tools([ADD], "go")
    assert llm.get_tool_calls_from_response(reply, error_on_no_tool_call=False) == []
    with pytest.raises(ValueError, match="no tool needed"):
        llm.get_tool_calls_from_response(reply)


def test_a_tool_that_changes_its_arguments_changes_neither_reply_nor_script():
    reply = ToolCall(name="add", arguments={"items": [1]})
    llm = ScriptedLLM(replies=[reply, reply])
    first = llm.chat_with_tools([ADD], "go")
    llm.get_tool_calls_from_response(first)[0].tool_kwargs["items"].append(2)
    again = llm.chat_with_tools([ADD], "go")
    for response in (first, again):
        (call,) = llm.get_tool_calls_from_response(response)
        assert call.tool_kwargs == {"items": [1]}


def test_a_chat_history_passed_in_is_left_alone():
    history = ask("before")
    ScriptedLLM(replies=["ok"]).chat_with_tools([ADD], "now", chat_history=history)
    assert [message.content for message in history] == ["before"]


def test_predict_and_call_runs_the_tool():
    llm = ScriptedLLM(replies=[added(1, 2)])
    assert llm.predict_and_call([ADD], "1 + 2?").response == "3"


def test_tool_calls_for_a_completion_are_a_mistake_in_the_script():
    with pytest.raises(TypeError, match="offers no tools"):
        ScriptedLLM(replies=[added(1, 2)]).complete("1 + 2?")


# --- structured answers -------------------------------------------------------------------------


async def test_a_model_is_json_text_where_text_is_asked():
    llm = ScriptedLLM(replies=[INVOICE, INVOICE, {"any": "Größe"}])
    assert Invoice.model_validate_json(llm.complete("x").text) == INVOICE
    assert Invoice.model_validate_json((await llm.achat(ask())).message.content) == INVOICE
    assert llm.complete("x").text == '{"any": "Größe"}'


@pytest.mark.parametrize("mode", [PydanticProgramMode.DEFAULT, PydanticProgramMode.LLM])
@pytest.mark.parametrize("tools", [True, False])
@pytest.mark.parametrize(
    "reply", [INVOICE, {"number": "R-7", "amount": 40}, '{"number": "R-7", "amount": 40}']
)
async def test_a_structured_prediction_gets_the_answer(mode, tools, reply):
    llm = ScriptedLLM(
        replies=[reply, reply], pydantic_program_mode=mode, is_function_calling_model=tools
    )
    assert llm.structured_predict(Invoice, PROMPT, text="x") == INVOICE
    assert await llm.astructured_predict(Invoice, PROMPT, text="x") == INVOICE
    assert all(prompt.startswith("Read the invoice: x") for prompt in llm.prompts)
    llm.assert_exhausted()


async def test_a_structured_prediction_may_be_scripted_as_a_tool_call():
    llm = ScriptedLLM(replies=[ToolCall(name="Invoice", arguments=INVOICE.model_dump())])
    assert await llm.astructured_predict(Invoice, PROMPT, text="x") == INVOICE


@pytest.mark.parametrize("model", [Aliased(invoiceNumber="R-7"), Person(name="Ada")])
async def test_models_with_aliases_or_one_field_are_given_whole(model):
    llm = ScriptedLLM(replies=[model])
    assert await llm.astructured_predict(type(model), PROMPT, text="x") == model


@pytest.mark.parametrize("mode", [PydanticProgramMode.DEFAULT, PydanticProgramMode.LLM])
@pytest.mark.parametrize(
    "malformed",
    [
        "I cannot read this invoice.",
        '{"number": "R-7", ',
        '["R-7", 40]',
        '{"number": "R-7"}',
        {"number": "R-7", "amount": "forty"},
        Person(name="Ada"),
        "",
    ],
)
async def test_a_malformed_structured_answer_is_a_value_error_and_can_be_retried(mode, malformed):
    llm = ScriptedLLM(replies=[malformed, malformed, INVOICE], pydantic_program_mode=mode)
    with pytest.raises(ValueError, match=r".+"):
        llm.structured_predict(Invoice, PROMPT, text="x")
    with pytest.raises(ValueError, match=r".+"):
        await llm.astructured_predict(Invoice, PROMPT, text="x")
    assert await llm.astructured_predict(Invoice, PROMPT, text="x") == INVOICE


async def test_a_refusal_in_words_is_not_taken_for_an_empty_answer():
    class Lenient(BaseModel):
        number: str = "none"

    llm = ScriptedLLM(replies=["I would rather not.", {}])
    with pytest.raises(ValueError, match="I would rather not"):
        await llm.astructured_predict(Lenient, PROMPT, text="x")
    assert await llm.astructured_predict(Lenient, PROMPT, text="x") == Lenient()


@pytest.mark.parametrize("reply", [INVOICE, INVOICE.model_dump(), INVOICE.model_dump_json()])
def test_a_structured_answer_stays_text_where_a_tool_is_only_offered(reply):
    llm = ScriptedLLM(replies=[reply])
    response = llm.chat_with_tools([ADD], "go")
    assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
    assert Invoice.model_validate_json(response.message.content) == INVOICE


async def test_a_structured_model_answers_with_the_object():
    llm = ScriptedLLM(replies=[INVOICE, INVOICE])
    structured = llm.as_structured_llm(Invoice)
    assert structured.complete("x").raw == INVOICE
    assert (await structured.achat(ask())).raw == INVOICE


@pytest.mark.parametrize("reply", [INVOICE, INVOICE.model_dump(), INVOICE.model_dump_json()])
async def test_a_streamed_structured_prediction_ends_with_the_object(reply):
    llm = ScriptedLLM(replies=[reply, reply])
    assert list(llm.stream_structured_predict(Invoice, PROMPT, text="x"))[-1] == INVOICE
    stream = await llm.astream_structured_predict(Invoice, PROMPT, text="x")
    assert [part async for part in stream][-1] == INVOICE


async def test_a_text_program_reads_the_answer_from_the_text():
    llm = ScriptedLLM(replies=[f"Here it is: {INVOICE.model_dump_json()}. Anything else?"])
    program = LLMTextCompletionProgram.from_defaults(
        output_cls=Invoice, prompt_template_str="Read {text}", llm=llm
    )
    assert await program.acall(text="x") == INVOICE


# --- agents -------------------------------------------------------------------------------------


@agent_test
@pytest.mark.parametrize("streaming", [True, False])
async def test_a_function_agent_calls_a_tool_and_then_speaks(streaming):
    llm = ScriptedLLM(replies=[added(1, 2), "The sum is 3."])
    agent = FunctionAgent(tools=[add], llm=llm, streaming=streaming)
    result = await agent.run("1 + 2?")
    assert str(result) == "The sum is 3."
    assert [call.tool_kwargs for call in result.tool_calls] == [{"a": 1, "b": 2}]
    assert llm.prompts == ["1 + 2?", "3"]
    llm.assert_exhausted()


@agent_test
@pytest.mark.parametrize("streaming", [True, False])
async def test_a_function_agent_runs_two_parallel_tool_calls(streaming):
    llm = ScriptedLLM(replies=[[added(1, 2), added(3, 4)], "3 and 7"])
    agent = FunctionAgent(tools=[add], llm=llm, streaming=streaming)
    result = await agent.run("both?")
    assert str(result) == "3 and 7"
    outputs = [message for message in llm.calls[1] if message.role == "tool"]
    assert sorted(message.content for message in outputs) == ["3", "7"]
    assert {message.additional_kwargs["tool_call_id"] for message in outputs} == {
        "call_1_1",
        "call_1_2",
    }


@agent_test
async def test_a_function_agent_streams_the_deltas_of_the_text():
    agent = FunctionAgent(tools=[add], llm=ScriptedLLM(replies=[added(1, 2), LONG]))
    handler = agent.run("go")
    deltas = [ev.delta async for ev in handler.stream_events() if isinstance(ev, AgentStream)]
    await handler
    assert "".join(deltas) == LONG
    assert len(deltas) > 3


@agent_test
async def test_a_function_agent_gives_a_structured_answer_at_the_end():
    llm = ScriptedLLM(replies=[added(1, 2), "done", INVOICE])
    result = await FunctionAgent(tools=[add], llm=llm, output_cls=Invoice).run("go")
    assert result.get_pydantic_model(Invoice) == INVOICE
    llm.assert_exhausted()


@agent_test
async def test_an_agent_with_a_script_that_is_too_short_fails_and_does_not_hang():
    handler = FunctionAgent(tools=[add], llm=ScriptedLLM(replies=[added(1, 2)])).run("go")
    async for _ in handler.stream_events():
        pass
    with pytest.raises(ScriptExhausted, match=r"Call 2 .* holds 1"):
        await handler


@agent_test
async def test_a_tool_that_swallows_the_overrun_is_found_out():
    inner = ScriptedLLM(replies=[])

    async def consult() -> str:
        """Ask the other model."""
        return (await inner.acomplete("help")).text

    outer = ScriptedLLM(replies=[ToolCall(name="consult"), "never mind"])
    assert str(await FunctionAgent(tools=[consult], llm=outer).run("go")) == "never mind"
    outer.assert_exhausted()
    with pytest.raises(ScriptExhausted, match="'help'"):
        inner.assert_exhausted()


@agent_test
@pytest.mark.parametrize("streaming", [True, False])
async def test_a_react_agent_follows_the_text(streaming):
    llm = ScriptedLLM(
        replies=[
            'Thought: I need a tool.\nAction: add\nAction Input: {"a": 1, "b": 2}',
            "Thought: I can answer without using any more tools.\nAnswer: It is 3.",
        ]
    )
    result = await ReActAgent(tools=[add], llm=llm, streaming=streaming).run("1 + 2?")
    assert str(result) == "It is 3."
    assert llm.prompts[1] == "Observation: 3"
    llm.assert_exhausted()


@agent_test
async def test_agents_of_one_workflow_hand_over_and_share_one_script():
    llm = ScriptedLLM(
        replies=[
            ToolCall(name="handoff", arguments={"to_agent": "adder", "reason": "sums"}),
            added(1, 2),
            "It is 3.",
        ]
    )
    front = FunctionAgent(name="front", description="talks", llm=llm, can_handoff_to=["adder"])
    adder = FunctionAgent(name="adder", description="adds", llm=llm, tools=[add])
    result = await AgentWorkflow(agents=[front, adder], root_agent="front").run("1 + 2?")
    assert str(result) == "It is 3."
    assert result.current_agent_name == "adder"
    llm.assert_exhausted()
