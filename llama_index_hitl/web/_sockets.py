"""A WebSocket that tells what happens in a run, and takes answers back.

What it says are JSON objects with a `type`: what `GET /api/runs/{run_id}/events` tells under that
name, each with the `cursor` to come back with as `?after=`, and

- `started`: `run_id`, after a run was started;
- `receipt`: an answer was stored: `request_id`, `kind`, `by`, `at`, `number`, `decides`;
- `refused`: what was sent did not count: `error`, as in the API's error bodies, and `request_id`.

What it takes are JSON objects too: `{"type": "answer", "request_id": ..., "digest": ...,
"decision": ..., ...}`, with the fields of the decision as the API takes them; and, on a socket
without a run, first `{"type": "start", "workflow": ..., "inputs": {...}, "run_id": ...}`.

It is closed with 1000 when the run is over and all is told, 4401 to whom nobody knows, 4404 where
there is no such run, 4422 where `after` is no cursor, 4429 to who has too many streams open, 1008
after too much that made no sense, 1012 when the server stops, and 1013 while the store cannot be
reached. Nothing depends on it: an answer counts when it is stored, and everything that was said is
said again behind any cursor.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, aclosing
from typing import Any

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from llama_index_hitl.errors import (
    FieldProblem,
    HitlError,
    InvalidAnswer,
    NotSignedIn,
    StoreError,
    TooMany,
    UnknownRequest,
    UnknownRun,
)
from llama_index_hitl.forms import json_in
from llama_index_hitl.models import Reviewer
from llama_index_hitl.runner import Receipt
from llama_index_hitl.stores import InvalidCursor
from llama_index_hitl.stores.protocol import Cursor
from llama_index_hitl.web._answering import answer, seen
from llama_index_hitl.web._failures import failure_of
from llama_index_hitl.web._running import seen_run, start
from llama_index_hitl.web._site import Site, site_of
from llama_index_hitl.web._story import Said, Story
from llama_index_hitl.web._streams import checked_place, on_one_line
from llama_index_hitl.web.limits import nested_deeper
from llama_index_hitl.web.people import signed_in

router = APIRouter(prefix="/api")

_PATIENCE = 10
"""How many messages that make no sense are taken."""

_SIGNED_OUT, _UNKNOWN, _BAD_CURSOR, _TOO_MANY = 4401, 4404, 4422, 4429
_DONE, _NONSENSE, _STOPPING, _LATER = 1000, 1008, 1012, 1013

_CODES: dict[type[HitlError], int] = {
    NotSignedIn: _SIGNED_OUT,
    UnknownRun: _UNKNOWN,
    InvalidCursor: _BAD_CURSOR,
    TooMany: _TOO_MANY,
    StoreError: _LATER,
}
"""What to close with; the first that fits."""


@router.websocket("/runs/{run_id}/socket")
async def run_socket(socket: WebSocket, run_id: str, after: str | None = None) -> None:
    """Tell what happens in a run, and take answers."""
    await _served(socket, run_id, after)


@router.websocket("/socket")
async def start_socket(socket: WebSocket) -> None:
    """Start a run, tell what happens in it, and take answers."""
    await _served(socket, None, None)


async def _served(socket: WebSocket, run_id: str | None, after: str | None) -> None:
    await socket.accept()
    talk = _Talk(socket, site_of(socket))
    try:
        with await talk.begin():
            await talk.go_on(run_id, after)
    except WebSocketDisconnect:
        return
    except tuple(_CODES) as error:
        await talk.refuse(error)
        await talk.close(next(code for kind, code in _CODES.items() if isinstance(error, kind)))


class _Talk:
    """One conversation over a socket."""

    def __init__(self, socket: WebSocket, site: Site) -> None:
        self._socket = socket
        self._site = site
        self._nonsense = 0
        self._answering = asyncio.Lock()
        self._run_id = ""

    async def who(self) -> Reviewer:
        """Return who is at the other end."""
        return await signed_in(self._socket)

    async def begin(self) -> AbstractContextManager[None]:
        """Let somebody in.

        Raises:
            NotSignedIn: Nobody knows them.
            TooMany: They have too many streams open.
        """
        return self._site.streams.opened(await self.who())

    async def go_on(self, run_id: str | None, after: str | None) -> None:
        """Talk about a run, until it is over or somebody leaves.

        Args:
            run_id: The run; None: the one that is started first.
            after: What came after this cursor.
        """
        place: Cursor | None = None
        if run_id is None:
            run_id = await self._started()
        else:
            await seen_run(self._site, await self.who(), run_id)
            place = await checked_place(self._site.runner.store, None, after, run_id=run_id)
        self._run_id = run_id
        both = [
            asyncio.create_task(self._tell(place)),
            asyncio.create_task(self._listen()),
        ]
        try:
            done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            async with self._answering:  # whoever has answered gets the receipt
                pass
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        code = max(task.result() for task in done)
        await self.close(code)

    async def _tell(self, place: Cursor | None) -> int:
        """Tell what happens; return what to close with."""
        story = Story(self._site, self.who, self._run_id)
        async with aclosing(story.told(after=place)) as told:
            async for one in told:
                if isinstance(one, Said):
                    await self.say(one.name, {**one.data, "cursor": one.cursor})
        return _STOPPING if self._site.hub.closed else _DONE

    async def _listen(self) -> int:
        """Take answers; return what to close with."""
        while True:
            message = await self._heard("answer")
            if message is None:
                return _NONSENSE
            async with self._answering:
                await self._take(message)

    async def _started(self) -> str:
        """Start the run that the first message wants; return its id."""
        while (message := await self._heard("start")) is not None:
            workflow, inputs = message.get("workflow"), message.get("inputs", {})
            run_id = message.get("run_id")
            if not isinstance(workflow, str) or not isinstance(inputs, dict):
                await self._refuse_nonsense(
                    "start takes `workflow`, a name, and `inputs`, an object"
                )
            elif not (run_id is None or isinstance(run_id, str)):
                await self._refuse_nonsense("`run_id` is text")
            else:
                try:
                    person = await self.who()
                    run, _ = await start(self._site, person, workflow, inputs, run_id=run_id)
                except NotSignedIn:
                    raise
                except HitlError as error:
                    await self.refuse(error)
                else:
                    await self.say("started", {"run_id": run.run_id, "workflow": run.workflow})
                    self._site.worker.nudge(run.run_id)
                    return run.run_id
        await self.close(_NONSENSE)
        raise WebSocketDisconnect(_NONSENSE)

    async def _take(self, message: dict[str, Any]) -> None:
        """Take one answer."""
        fields = {name: v for name, v in message.items() if name not in _GUARDS}
        request_id, digest, role = (message.get(name) for name in _GUARDS[1:])
        if not isinstance(request_id, str) or not isinstance(digest, str):
            await self._refuse_nonsense("answer takes `request_id` and `digest`, both text")
            return
        try:
            if not (role is None or isinstance(role, str)):
                raise InvalidAnswer(request_id, [FieldProblem("role", "this is no text")])
            person = await self.who()
            if (await seen(self._site, person, request_id)).run_id != self._run_id:
                raise UnknownRequest(request_id)
            receipt = await answer(
                self._site, person, request_id, fields, digest=digest, role=role, channel="socket"
            )
        except NotSignedIn:
            raise
        except HitlError as error:
            await self.refuse(error, request_id)
        else:
            await self.say("receipt", receipt_data(receipt))

    async def _heard(self, wanted: str) -> dict[str, Any] | None:
        """Return the next message of a type; None: too many made no sense."""
        limits = self._site.limits
        while self._nonsense < _PATIENCE:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1005))
            text = message.get("text")
            if text is None:
                await self._refuse_nonsense("binary messages are not understood")
            elif len(sent := text.encode(errors="replace")) > limits.body:
                await self._refuse_nonsense(f"a message has {limits.body} bytes at most")
            elif nested_deeper(sent, limits.depth):
                await self._refuse_nonsense("this is nested too deeply")
            else:
                try:
                    found = json_in(text)
                except (ValueError, RecursionError):
                    await self._refuse_nonsense("this is no JSON")
                    continue
                if isinstance(found, dict) and found.get("type") == wanted:
                    return found
                await self._refuse_nonsense(f"a message of type `{wanted}` is wanted here")
        return None

    async def _refuse_nonsense(self, why: str) -> None:
        self._nonsense += 1
        error = {"type": "not_understood", "message": f"This was not understood: {why}."}
        await self.say("refused", {"request_id": None, "error": error})

    async def refuse(self, error: HitlError, request_id: str | None = None) -> None:
        """Say why something did not count."""
        _, failure = failure_of(error)
        await self.say(
            "refused", {"request_id": request_id, "error": failure.model_dump(mode="json")}
        )

    async def say(self, name: str, data: dict[str, Any]) -> None:
        """Say something."""
        await self._socket.send_text(on_one_line({"type": name, **data}).decode())

    async def close(self, code: int) -> None:
        """Hang up, unless the other side has."""
        if self._socket.application_state is WebSocketState.CONNECTED:
            await self._socket.close(code)


_GUARDS = ("type", "request_id", "digest", "role")


def receipt_data(receipt: Receipt) -> dict[str, Any]:
    """Return what is said of an answer that was stored."""
    given = receipt.answer
    return {
        "request_id": given.request_id,
        "run_id": receipt.run_id,
        "kind": given.decision.kind,
        "by": given.by.id,
        "at": given.at.isoformat(),
        "number": receipt.number,
        "decides": receipt.decides,
    }
