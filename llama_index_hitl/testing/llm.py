"""A language model that replies from a script: for tests, and for demos without a key.

    llm = ScriptedLLM(replies=[
        ToolCall(name="refund", arguments={"amount": 40}),  # first call: use a tool
        "The money is on its way.",                         # second call: plain text
    ])

It stands wherever LlamaIndex takes an LLM: in workflows, programs, query engines and agents. It
never opens a connection and never counts tokens.
"""

import asyncio
import json
import re
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, NoReturn, Self, TypeAlias, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools.types import BaseTool
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

__all__ = ["Reply", "ScriptExhausted", "ScriptedLLM", "ToolCall", "ToolCalls"]

# A word, or a piece of a long one, with the space before it: joined, the pieces are the text.
_DELTA = re.compile(r"\s*\S{1,8}|\s+")
_SHOWN = 300
# Roomy, so that no agent's memory drops messages that a test wants to see.
_CONTEXT_WINDOW = 128_000


class ToolCall(BaseModel):
    """The model asks for a tool to be run.

    Attributes:
        name: Name of the tool.
        arguments: Arguments of the call, by name.
        id: Id of the call; where it is None, the script gives one such as `call_1_2`: the second
            tool call in the reply to the first call.

    Example:
        >>> llm = ScriptedLLM([ToolCall(name="refund", arguments={"amount": 40})])
        >>> response = llm.chat([])
        >>> llm.get_tool_calls_from_response(response)[0].tool_kwargs
        {'amount': 40}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    id: str | None = None


class ToolCalls(BaseModel):
    """One reply with several tool calls at once, or with text beside its tool calls.

    Attributes:
        calls: The calls, at least one.
        text: What the model says beside them.

    Example:
        >>> both = [ToolCall(name="refund"), ToolCall(name="apologize")]
        >>> response = ScriptedLLM([ToolCalls(calls=both, text="At once.")]).chat([])
        >>> [call.tool_name for call in ScriptedLLM([]).get_tool_calls_from_response(response)]
        ['refund', 'apologize']
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    calls: tuple[ToolCall, ...] = Field(min_length=1)
    text: str = ""


Reply: TypeAlias = str | BaseModel | Mapping[str, Any] | Sequence[ToolCall] | Exception
"""What a script may hold.

* `str`: text.
* `ToolCall`, a list of them, or `ToolCalls`: tool calls; several in one reply are parallel.
* any other pydantic model, or a mapping: a structured answer. Asked for text it is JSON text; asked
  for a structured prediction it is the tool call that holds the answer.
* an `Exception` instance: raised.
"""


class ScriptExhausted(AssertionError):
    """The model was called more often than its script has replies.

    It is an `AssertionError`, so that code which catches the `ValueError` of a malformed reply, to
    try again, does not catch it. A tool that calls the model may still have it turned into tool
    output by its agent; `ScriptedLLM.assert_exhausted` raises it again.

    Example:
        >>> llm = ScriptedLLM(["once"])
        >>> str(llm.complete("Say it."))
        'once'
        >>> llm.complete("And again?")
        Traceback (most recent call last):
            ...
        llama_index_hitl.testing.llm.ScriptExhausted: Call 2 of this ScriptedLLM has no reply;
        its script holds 1. The call asked: 'And again?'
    """


class ScriptedLLM(FunctionCallingLLM):
    """A `FunctionCallingLLM` that replies from a script and records what it was asked.

    Each call takes the next reply, in the order in which the calls are made. Copies of the model,
    deep ones too, go on with the same script and the same record. A text that is the JSON of an
    object counts as a structured answer where one is demanded; any other text there raises
    `ValueError`, as it does with a model of a vendor.

    A list of replies starts from its beginning in another process, or in a workflow that is made
    anew; where a run is gone on with there, use `reply`, which can tell from the messages where the
    conversation has come to:

        def reply(messages):
            return script[sum(message.role == "assistant" for message in messages)]

    Args:
        replies: The replies, one for each call: texts, `ToolCall`s or lists of them, pydantic
            models or dicts where a structured answer is demanded, and exceptions to raise.
        reply: Instead of `replies`: a function that gets the messages, the newest last, and returns
            the reply to them. It is called once for each call, without a limit.
        **options: Fields of `llama_index.core.llms.LLM`, such as `system_prompt`, and those below.

    Attributes:
        is_function_calling_model: False to play a model without tools: structured predictions are
            then read from its text.
        pace: Seconds between the pieces of a streamed reply, for demos: one can watch it grow.

    Raises:
        TypeError: Not exactly one of `replies` and `reply` is given, or a reply is of no kind that
            `Reply` lists.

    Example:
        >>> llm = ScriptedLLM(["Mice are small.", {"colour": "grey"}])
        >>> str(llm.complete("Write about mice.")), str(llm.complete("Colour, as JSON?"))
        ('Mice are small.', '{"colour": "grey"}')
        >>> llm.prompts
        ['Write about mice.', 'Colour, as JSON?']
        >>> llm.assert_exhausted()
    """

    is_function_calling_model: bool = True
    pace: float = 0.0

    _script: "_Script" = PrivateAttr()

    def __init__(
        self,
        replies: Iterable[Reply] | None = None,
        *,
        reply: Callable[[list[ChatMessage]], Reply] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._script = _Script(replies, reply)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "A ScriptedLLM cannot be pickled: its copy would replay replies already given. "
            "Make the model where it is used, for example in a resource of the workflow."
        )

    @classmethod
    def class_name(cls) -> str:
        """The name of this kind of model in LlamaIndex's records."""
        return "ScriptedLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex asks of a model: a chat model that can call tools."""
        return LLMMetadata(
            context_window=_CONTEXT_WINDOW,
            is_chat_model=True,
            is_function_calling_model=self.is_function_calling_model,
            model_name="scripted",
        )

    @property
    def calls(self) -> list[list[ChatMessage]]:
        """The messages of each call, in the order of the calls."""
        return list(self._script.calls)

    @property
    def prompts(self) -> list[str]:
        """The text of the last message of each call."""
        return [_prompt(messages) for messages in self._script.calls]

    def assert_exhausted(self) -> None:
        """Check that each reply was used and that no call was left without one.

        A model made with a function has no end and always passes.

        Raises:
            AssertionError: Replies are left over; the message lists them.
            ScriptExhausted: There were more calls than replies, even if that error was swallowed.
        """
        self._script.check_used_up()

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Reply to the messages."""
        return ChatResponse(message=self._answer(messages, **kwargs))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Reply to the messages."""
        return ChatResponse(message=self._answer(messages, **kwargs))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Reply to the messages piece by piece; the reply is taken now, not at the first piece."""
        return _frames(self._answer(messages, **kwargs))

    @llm_chat_callback()
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """Reply to the messages piece by piece; the reply is taken now, not at the first piece."""
        return _asynchronous(_frames(self._answer(messages, **kwargs)), self.pace)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Reply to one prompt."""
        return CompletionResponse(text=self._text(prompt))

    @llm_completion_callback()
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """Reply to one prompt."""
        return CompletionResponse(text=self._text(prompt))

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        """Reply to one prompt piece by piece; the reply is taken now, not at the first piece."""
        return _pieces(self._text(prompt))

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Reply to one prompt piece by piece; the reply is taken now, not at the first piece."""
        return _asynchronous(_pieces(self._text(prompt)), self.pace)

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Read the tool calls of a reply.

        Args:
            response: A reply of this model.
            error_on_no_tool_call: Whether a reply without tool calls is an error.
            **kwargs: Ignored.

        Raises:
            ValueError: The reply has no tool calls, and one was demanded.
        """
        calls = _tool_calls(response.message)
        if not calls and error_on_no_tool_call:
            raise ValueError(
                f"Expected at least one tool call, but the reply is {response.message.content!r}."
            )
        return [
            ToolSelection(
                tool_id=call.tool_call_id or "",
                tool_name=call.tool_name,
                # a tool may change its arguments; the message must not change with them
                tool_kwargs=deepcopy(call.tool_kwargs),
            )
            for call in calls
        ]

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        newest = ChatMessage(user_msg) if isinstance(user_msg, str) else user_msg
        return {
            **kwargs,
            "messages": [*(chat_history or ()), *([newest] if newest else ())],
            "tools": [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools],
            "tool_required": tool_required,
        }

    def _answer(
        self,
        messages: Sequence[ChatMessage],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_required: bool = False,
        **_: Any,
    ) -> ChatMessage:
        turn, reply = self._script.take(messages)
        names = [tool["function"]["name"] for tool in tools or ()]
        if isinstance(reply, ToolCalls):
            return _message(reply.text, reply.calls, turn)
        tool = _answering_tool(reply, names, required=tool_required)
        arguments = None if tool is None else _arguments(reply)
        if tool is None or arguments is None:
            return _message(_as_text(reply), (), turn)
        return _message("", (ToolCall(name=tool, arguments=arguments),), turn)

    def _text(self, prompt: str) -> str:
        _, reply = self._script.take([ChatMessage(prompt)])
        if isinstance(reply, ToolCalls):
            raise TypeError(
                f"The script has tool calls for a completion, which offers no tools: {reply!r}. "
                f"The call asked: {_shown(prompt)}"
            )
        return _as_text(reply)


_Checked: TypeAlias = str | BaseModel | dict[str, Any] | Exception
_Answer: TypeAlias = str | BaseModel | dict[str, Any]
_Item = TypeVar("_Item")


class _Script:
    """The replies and the record, shared by all copies of one model."""

    def __init__(
        self,
        replies: Iterable[Reply] | None,
        function: Callable[[list[ChatMessage]], Reply] | None,
    ) -> None:
        if (replies is None) == (function is None):
            raise TypeError("Give a ScriptedLLM either replies=[...] or reply=function.")
        if isinstance(replies, str | BaseModel | Mapping):
            raise TypeError(f"replies is a list of replies, not one reply: {replies!r}")
        self.calls: list[list[ChatMessage]] = []
        self._replies = [_checked(reply) for reply in replies or ()]
        self._function = function
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def take(self, messages: Sequence[ChatMessage]) -> tuple[int, _Answer]:
        """Record a call and give its number, from 1, and its reply."""
        # copied, because agents go on changing the messages that they have sent
        asked = deepcopy(list(messages))
        with self._lock:
            self.calls.append(asked)
            turn = len(self.calls)
        if self._function is not None:
            reply = _checked(self._function(list(messages)))
        elif turn <= len(self._replies):
            reply = self._replies[turn - 1]
        else:
            raise self._overrun(turn)
        if isinstance(reply, Exception):
            raise reply
        return turn, reply

    def check_used_up(self) -> None:
        if self._function is not None:
            return
        if len(self.calls) > len(self._replies):
            raise self._overrun(len(self._replies) + 1)
        left = self._replies[len(self.calls) :]
        if left:
            listed = "\n".join(f"  {reply!r}" for reply in left)
            raise AssertionError(
                f"{len(left)} of {len(self._replies)} replies were not used "
                f"(calls: {len(self.calls)}):\n{listed}"
            )

    def _overrun(self, turn: int) -> ScriptExhausted:
        return ScriptExhausted(
            f"Call {turn} of this ScriptedLLM has no reply; its script holds {len(self._replies)}. "
            f"The call asked: {_shown(_prompt(self.calls[turn - 1]))}"
        )


def _checked(reply: object) -> _Checked:
    match reply:
        case ToolCall():
            return ToolCalls(calls=(reply,))
        case str() | BaseModel() | Exception():
            return reply
        case Mapping():
            return dict(reply)
        case Sequence() if reply and all(isinstance(call, ToolCall) for call in reply):
            return ToolCalls(calls=tuple(reply))
        case _:
            raise TypeError(
                f"{reply!r} cannot be a reply. A reply is a str, a pydantic model, a dict, "
                "a ToolCall, a list of them, ToolCalls or an Exception instance."
            )


def _answering_tool(reply: _Answer, names: Sequence[str], *, required: bool) -> str | None:
    """The tool through which a structured answer is given; None to give it as text."""
    if isinstance(reply, BaseModel):
        # programs name the tool of a structured prediction after the schema of the model
        title = type(reply).model_json_schema().get("title") if names else None
        if title in names:
            return str(title)
    return names[0] if required and len(names) == 1 else None


def _arguments(reply: _Answer) -> dict[str, Any] | None:
    """The fields of a structured answer; None if the reply is none."""
    if isinstance(reply, BaseModel):
        return reply.model_dump(mode="json", by_alias=True)
    if isinstance(reply, dict):
        return reply
    try:
        value = json.loads(reply)
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _as_text(reply: _Answer) -> str:
    if isinstance(reply, BaseModel):
        return reply.model_dump_json(by_alias=True)
    return reply if isinstance(reply, str) else json.dumps(reply, ensure_ascii=False)


def _message(text: str, calls: Iterable[ToolCall], turn: int) -> ChatMessage:
    return _assemble(
        text,
        [
            ToolCallBlock(
                tool_call_id=call.id or f"call_{turn}_{number}",
                tool_name=call.name,
                tool_kwargs=deepcopy(call.arguments),
            )
            for number, call in enumerate(calls, 1)
        ],
    )


def _assemble(text: str, calls: Sequence[ToolCallBlock]) -> ChatMessage:
    # streamed structured predictions look for tool calls here and not in the blocks
    extra = {"tool_calls": [call.model_dump(exclude={"block_type"}) for call in calls]}
    said = [TextBlock(text=text)] if text or not calls else []
    return ChatMessage(
        role=MessageRole.ASSISTANT,
        blocks=[*said, *calls],
        additional_kwargs=extra if calls else {},
    )


def _frames(message: ChatMessage) -> ChatResponseGen:
    """A reply as it grows: its text in several pieces, then its tool calls one by one."""
    text = message.content or ""
    calls = _tool_calls(message)
    if text or not calls:
        for piece in _pieces(text):
            yield ChatResponse(message=_assemble(piece.text, ()), delta=piece.delta)
    for number in range(1, len(calls) + 1):
        yield ChatResponse(message=_assemble(text, calls[:number]), delta="")


def _pieces(text: str) -> CompletionResponseGen:
    so_far = ""
    for delta in _DELTA.findall(text) or [""]:
        so_far += delta
        yield CompletionResponse(text=so_far, delta=delta)


async def _asynchronous(items: Iterable[_Item], pace: float) -> AsyncGenerator[_Item, None]:
    for item in items:
        if pace:
            await asyncio.sleep(pace)
        yield item


def _tool_calls(message: ChatMessage) -> list[ToolCallBlock]:
    return [block for block in message.blocks if isinstance(block, ToolCallBlock)]


def _prompt(messages: Sequence[ChatMessage]) -> str:
    return (messages[-1].content or "") if messages else ""


def _shown(text: str) -> str:
    # What went wrong the last time stands at the end of a prompt.
    half = _SHOWN // 2
    return repr(text if len(text) <= _SHOWN else f"{text[:half]} … {text[-half:]}")
