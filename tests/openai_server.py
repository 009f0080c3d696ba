"""An OpenAI-compatible server on 127.0.0.1, for tests of the real client without the real service.

    with OpenAIServer(replies=["Hello", [Call("add", {"a": 1})], Failure(429)]) as server:
        llm = OpenAI(api_base=server.base_url, api_key="test", max_retries=0)

It serves chat completions and responses, whole and streamed, and the list of models. Each POST
to an endpoint takes the next reply, whichever endpoint it is. Every connection is closed after its
answer, so that no client keeps a socket open.
"""

import json
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

MODEL = "gpt-4o-mini"
_CREATED = 1_700_000_000
_USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
_KINDS = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    429: ("requests", "rate_limit_exceeded"),
    500: ("server_error", None),
}


@dataclass(frozen=True)
class Call:
    """A tool call; several in one reply are parallel."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    id: str | None = None


@dataclass(frozen=True)
class Failure:
    """An error as the service words it."""

    status: int
    message: str = "The server refused."


@dataclass(frozen=True)
class Garbage:
    """A body that is sent as it is, with status 200."""

    body: bytes
    content_type: str = "application/json"


Reply = str | dict[str, Any] | list[Call] | Failure | Garbage
"""A text, an object to be sent as JSON text, tool calls, an error, or anything at all."""


@dataclass(frozen=True)
class Request:
    """What a client sent; `body` is None for a GET."""

    path: str
    authorization: str | None
    body: dict[str, Any] | None


class OpenAIServer:
    """Serves the replies, in order, while its context is open."""

    def __init__(self, replies: Iterable[Reply] = ()) -> None:
        self.requests: list[Request] = []
        self._replies = list(replies)
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )

    @property
    def base_url(self) -> str:
        """What to give a client as its base URL."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def take(self, request: Request) -> tuple[int, Reply]:
        """Record a request and give its number, from 1, and its reply."""
        with self._lock:
            self.requests.append(request)
            return len(self.requests), self._next(request)

    def _next(self, request: Request) -> Reply:
        if request.path not in _ENDPOINTS:
            return Failure(404, f"There is no {request.path}.")
        return self._replies.pop(0) if self._replies else Failure(400, "No reply is left.")

    def _handler(self) -> type["_Handler"]:
        return type("Handler", (_Handler,), {"owner": self})


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for the answers under way
    request_queue_size = 128  # with the default of 5, concurrent clients wait a second


class _Handler(BaseHTTPRequestHandler):
    owner: OpenAIServer
    protocol_version = "HTTP/1.0"  # closes the connection after each answer
    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:
        """Stay quiet: what was asked is in the record."""

    def do_GET(self) -> None:
        self.owner.take(self._request(None))
        if self.path != "/v1/models":
            return self._send_failure(Failure(404, f"There is no {self.path}."))
        model = {"id": MODEL, "object": "model", "created": _CREATED, "owned_by": "tests"}
        return self._send_json(200, {"object": "list", "data": [model]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number, reply = self.owner.take(self._request(body))
        if isinstance(reply, Failure):
            return self._send_failure(reply)
        if isinstance(reply, Garbage):
            return self._send(200, reply.content_type, [reply.body])
        whole, events = _ENDPOINTS[self.path]
        answer = _Answer.of(reply, number)
        if body.get("stream"):
            return self._send(200, "text/event-stream", events(answer))
        return self._send_json(200, whole(answer))

    def _request(self, body: dict[str, Any] | None) -> Request:
        return Request(self.path, self.headers["Authorization"], body)

    def _send_failure(self, failure: Failure) -> None:
        kind, code = _KINDS.get(failure.status, ("invalid_request_error", None))
        error = {"message": failure.message, "type": kind, "param": None, "code": code}
        self._send_json(failure.status, {"error": error})

    def _send_json(self, status: int, value: dict[str, Any]) -> None:
        self._send(status, "application/json", [json.dumps(value).encode()])

    def _send(self, status: int, content_type: str, parts: Iterable[bytes]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.end_headers()
        for part in parts:
            self.wfile.write(part)
            self.wfile.flush()


@dataclass(frozen=True)
class _Answer:
    number: int
    text: str
    calls: list[Call]

    @classmethod
    def of(cls, reply: str | dict[str, Any] | list[Call], number: int) -> Self:
        if isinstance(reply, list):
            numbered = [
                Call(call.name, call.arguments, call.id or f"call_{number}_{place}")
                for place, call in enumerate(reply, 1)
            ]
            return cls(number, "", numbered)
        return cls(number, reply if isinstance(reply, str) else json.dumps(reply), [])


def _pieces(text: str, size: int = 5) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def _sse(value: dict[str, Any], name: str | None = None) -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(value)}\n\n".encode()


# --- chat completions ---------------------------------------------------------------------------


def _chat_completion(answer: _Answer) -> dict[str, Any]:
    calls = [
        {"id": call.id, "type": "function", "function": _function(call)} for call in answer.calls
    ]
    message = {"role": "assistant", "content": None if calls else answer.text, "refusal": None}
    choice = {
        "index": 0,
        "message": {**message, "tool_calls": calls} if calls else message,
        "logprobs": None,
        "finish_reason": _finish(answer),
    }
    return {**_chat_head(answer, "chat.completion"), "choices": [choice], "usage": _USAGE}


def _chat_chunks(answer: _Answer) -> Iterator[bytes]:
    head = _chat_head(answer, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _sse({**head, "choices": [choice]})

    yield chunk({"role": "assistant", "content": None if answer.calls else ""})
    for piece in _pieces(answer.text):
        yield chunk({"content": piece})
    for index, call in enumerate(answer.calls):
        start = {"name": call.name, "arguments": ""}
        first = {"index": index, "id": call.id, "type": "function", "function": start}
        yield chunk({"tool_calls": [first]})
        for piece in _pieces(json.dumps(call.arguments)):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield chunk({}, _finish(answer))
    yield b"data: [DONE]\n\n"


def _chat_head(answer: _Answer, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{answer.number}",
        "object": kind,
        "created": _CREATED,
        "model": MODEL,
    }


def _function(call: Call) -> dict[str, str]:
    return {"name": call.name, "arguments": json.dumps(call.arguments)}


def _finish(answer: _Answer) -> str:
    return "tool_calls" if answer.calls else "stop"


# --- responses ----------------------------------------------------------------------------------


def _response(answer: _Answer, status: str = "completed") -> dict[str, Any]:
    done = status == "completed"
    return {
        "id": f"resp_{answer.number}",
        "object": "response",
        "created_at": _CREATED,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": MODEL,
        "output": _items(answer) if done else [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": _response_usage() if done else None,
    }


def _response_usage() -> dict[str, Any]:
    return {
        "input_tokens": _USAGE["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": _USAGE["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": _USAGE["total_tokens"],
    }


def _items(answer: _Answer) -> list[dict[str, Any]]:
    if not answer.calls:
        return [
            {
                "id": f"msg_{answer.number}",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [_part(answer.text)],
            }
        ]
    return [
        {
            "id": f"fc_{answer.number}_{place}",
            "type": "function_call",
            "call_id": call.id,
            "status": "completed",
            **_function(call),
        }
        for place, call in enumerate(answer.calls, 1)
    ]


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _response_events(answer: _Answer) -> Iterator[bytes]:
    for number, (name, fields) in enumerate(_events(answer)):
        kind = f"response.{name}"
        yield _sse({"type": kind, "sequence_number": number, **fields}, kind)


def _events(answer: _Answer) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "created", {"response": _response(answer, "in_progress")}
    yield "in_progress", {"response": _response(answer, "in_progress")}
    for index, item in enumerate(_items(answer)):
        is_message = item["type"] == "message"
        started: dict[str, Any] = {"content": []} if is_message else {"arguments": ""}
        added = {**item, "status": "in_progress", **started}
        yield "output_item.added", {"output_index": index, "item": added}
        place = {"item_id": item["id"], "output_index": index}
        yield from (_text_events if is_message else _call_events)(item, place)
        yield "output_item.done", {"output_index": index, "item": item}
    yield "completed", {"response": _response(answer)}


def _text_events(
    item: dict[str, Any], place: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    (part,) = item["content"]
    place = {**place, "content_index": 0}
    yield "content_part.added", {**place, "part": _part("")}
    for piece in _pieces(part["text"]):
        yield "output_text.delta", {**place, "delta": piece, "logprobs": []}
    yield "output_text.done", {**place, "text": part["text"], "logprobs": []}
    yield "content_part.done", {**place, "part": part}


def _call_events(
    item: dict[str, Any], place: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for piece in _pieces(item["arguments"]):
        yield "function_call_arguments.delta", {**place, "delta": piece}
    whole = {"arguments": item["arguments"], "name": item["name"]}
    yield "function_call_arguments.done", {**place, **whole}


_ENDPOINTS = {
    "/v1/chat/completions": (_chat_completion, _chat_chunks),
    "/v1/responses": (_response, _response_events),
}
