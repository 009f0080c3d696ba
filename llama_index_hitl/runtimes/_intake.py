"""What becomes of one answer that comes to a server: checked, sent, and told about."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from weakref import WeakValueDictionary

from llama_agents.server import HandlerQuery, PersistentHandler, WorkflowServer
from pydantic import ValidationError
from workflows import Workflow
from workflows.events import Event, HumanResponseEvent

from llama_index_hitl._upstream import steps_accepting
from llama_index_hitl.clock import Clock, clock_of
from llama_index_hitl.errors import (
    FieldProblem,
    InvalidAnswer,
    NotAllowed,
    RequestExpired,
    StaleRequest,
    UnknownRequest,
)
from llama_index_hitl.events import (
    ReviewDeadlineEvent,
    ReviewRefusedEvent,
    ReviewResponseEvent,
)
from llama_index_hitl.forms import check_decision, parse_answer, problems_of
from llama_index_hitl.gates import gates_of
from llama_index_hitl.lifecycle import take_answer
from llama_index_hitl.models import (
    INLINE_GATE,
    Answer,
    RequestStatus,
    Reviewer,
    ReviewRecord,
    ReviewRequest,
)
from llama_index_hitl.runtimes._records import Verdict, open_records, told_of, verdicts
from llama_index_hitl.runtimes._upstream import cancel, is_terminal_status, send, store_of
from llama_index_hitl.runtimes.errors import RunOver

_LOOK_AGAIN = 1.0
"""Seconds after which to look whether the run was released before it has seen the answer."""


@dataclass(frozen=True)
class Message:
    """Something that a client wants a run to be told about one request.

    Attributes:
        handler: The run, as the server keeps it.
        workflow: Its workflow.
        event: What the client sent: a ReviewResponseEvent, a ReviewDeadlineEvent or a plain
            HumanResponseEvent with a `request_id`.
        by: Who the client is; None: nobody has looked.
    """

    handler: PersistentHandler
    workflow: Workflow
    event: Event
    by: Reviewer | None = None

    @property
    def request_id(self) -> str:
        """Id of the request."""
        return str(getattr(self.event, "request_id", None))

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self.handler.run_id or ""


class Intake:
    """Takes answers for the runs of one server, one after the other for each run.

    Args:
        server: The server.
        patience: Seconds to wait for what a run says about an answer.
    """

    def __init__(self, server: WorkflowServer, patience: float) -> None:
        self._server = server
        self._patience = patience
        self._store = store_of(server)
        self._ending: set[asyncio.Future[Any]] = set()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def open_records(
        self, handler: PersistentHandler, workflow: Workflow
    ) -> list[ReviewRecord]:
        """Return the open requests of a run; of one that is over, none is."""
        if handler.run_id is None or is_terminal_status(handler.status):
            return []
        return list((await open_records(self._store, workflow, handler.run_id)).values())

    async def take(self, message: Message) -> ReviewRecord | ReviewRefusedEvent | None:
        """Send an answer to its run, if it can count, and wait for what comes of it.

        Returns:
            The request with the answer in it, also if it was there before; the refusal of the run;
            or None if the run has not said anything in time.

        Raises:
            AnswerRefused: The answer cannot count. The run was not told of it.
        """
        # A run is asked about an answer when it is done with the one before.
        async with self._locks.setdefault(message.run_id, asyncio.Lock()):
            told, position = await told_of(self._store, message.run_id)
            record = told.get(message.request_id) or await self._open_record(message)
            now = _clock_for(message.workflow, record.request)()
            if isinstance(message.event, ReviewDeadlineEvent):
                return await self._deadline(message, record, position, now)
            answer = _answer_in(message, record.request, now)
            check_decision(record.request, answer.decision)
            try:
                if take_answer(record, answer) is record:
                    return record
            except RequestExpired:
                if record.status is RequestStatus.OPEN:
                    await self._deadline(message, record, position, now)
                raise
            return await self._until_told(message, ReviewResponseEvent(answer=answer), position)

    async def cancel(self, handler: PersistentHandler) -> bool:
        """Cancel a run, in memory or not; tell whether it is over."""
        run_id = handler.run_id or ""
        async with self._locks.setdefault(run_id, asyncio.Lock()):
            if not is_terminal_status((await self._reread(handler)).status):
                await cancel(self._server, run_id)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._patience):
                        async with aclosing(verdicts(self._store, run_id, -1)) as said:
                            async for _ in said:  # until the end of the run
                                pass
        return is_terminal_status((await self._reread(handler)).status)

    async def _open_record(self, message: Message) -> ReviewRecord:
        handler = message.handler
        if is_terminal_status(handler.status):
            raise RunOver(handler.handler_id, status=handler.status, request_id=message.request_id)
        for record in await self.open_records(message.handler, message.workflow):
            if record.request.request_id == message.request_id:
                return record
        raise UnknownRequest(message.request_id)

    async def _deadline(
        self, message: Message, record: ReviewRecord, position: int, now: datetime
    ) -> ReviewRecord | ReviewRefusedEvent | None:
        """Tell a run that the time is up, by the clock here and not by the client's."""
        deadline = record.policy.deadline
        if record.status is not RequestStatus.OPEN:
            return record
        if deadline is None or now < deadline:
            raise StaleRequest(message.request_id, reason="its deadline has not passed")
        event = ReviewDeadlineEvent(request_id=message.request_id, at=now)
        return await self._until_told(message, event, position)

    async def _until_told(
        self, message: Message, event: ReviewResponseEvent | ReviewDeadlineEvent, position: int
    ) -> ReviewRecord | ReviewRefusedEvent | None:
        """Send an event until the run has said what became of it.

        A run that was being released just then may never see the event, or be stopped before it has
        done what follows. Sending it again is safe: it counts once.
        """
        run_id, handler = message.run_id, message.handler
        if is_terminal_status(handler.status):
            raise RunOver(handler.handler_id, status=handler.status, request_id=event.request_id)
        await send(self._server, run_id, event)
        end = asyncio.get_running_loop().time() + self._patience
        while asyncio.get_running_loop().time() < end:
            telling = asyncio.ensure_future(self._told(message, event, position))
            # Not `asyncio.timeout`: upstream's stream can miss a cancellation, and wait for ever.
            done, _ = await asyncio.wait({telling}, timeout=min(_LOOK_AGAIN, self._patience))
            if done:
                return await telling
            self._let_go(telling)
            if (await self._reread(handler)).idle_since is not None:
                await send(self._server, run_id, event)
        return None

    def _let_go(self, task: asyncio.Future[Any]) -> None:
        """Cancel a task without waiting for it to end."""
        task.cancel()
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _told(
        self, message: Message, event: ReviewResponseEvent | ReviewDeadlineEvent, position: int
    ) -> ReviewRecord | ReviewRefusedEvent:
        async with aclosing(verdicts(self._store, message.run_id, position)) as told:
            async for verdict in told:
                if _is_about(verdict, event):
                    return verdict if isinstance(verdict, ReviewRefusedEvent) else verdict.record
        status = (await self._reread(message.handler)).status
        raise RunOver(message.handler.handler_id, status=status, request_id=message.request_id)

    async def _reread(self, handler: PersistentHandler) -> PersistentHandler:
        found = await self._store.query(HandlerQuery(handler_id_in=[handler.handler_id]))
        return found[0] if found else handler


def is_for_requests(workflow: Workflow, event: Event) -> bool:
    """Tell whether an event is for a request of ours, and not for a step that takes plain answers.

    Raises:
        InvalidAnswer: It can only be for a gate, and does not say for which request.
    """
    if isinstance(event, ReviewResponseEvent | ReviewDeadlineEvent):
        return True
    gates = gates_of(workflow)
    if type(event) is not HumanResponseEvent:
        return False
    request_id = event.get("request_id")
    if request_id is not None:
        return str(request_id).rpartition("-")[0] in {*gates, INLINE_GATE}
    others = steps_accepting(workflow, HumanResponseEvent) - {g.step_name for g in gates.values()}
    if gates and not others:
        raise InvalidAnswer(None, [FieldProblem("request_id", "say which request this answers")])
    return False


def _answer_in(message: Message, request: ReviewRequest, now: datetime) -> Answer:
    """Return the answer as it will be on record: by whoever the client is, at this instant."""
    event, by = message.event, message.by
    if isinstance(event, ReviewResponseEvent):
        answer = event.answer
    else:
        answer = _parsed(event, request, by, now)
    if by is not None and answer.by.id != by.id:
        raise NotAllowed(request.request_id, by=answer.by.id, reason=f"{by.id} has signed in")
    try:
        return Answer(**{**dict(answer), "by": by or answer.by, "at": now})
    except ValidationError as error:
        raise InvalidAnswer(request.request_id, problems_of(error)) from None


def _parsed(event: Event, request: ReviewRequest, by: Reviewer | None, now: datetime) -> Answer:
    """Read a plain HumanResponseEvent, as a gate does."""
    said = event.get("by") or "anonymous"
    try:
        reviewer = Reviewer.model_validate(said if isinstance(said, dict) else {"id": said})
    except ValidationError:
        problem = FieldProblem("by", "say who answers, by id")
        raise InvalidAnswer(request.request_id, [problem]) from None
    raw: Any = event.get("response", "")
    reviewer = by if by is not None and event.get("by") is None else reviewer
    raw = raw if isinstance(raw, str | dict) else str(raw)
    return parse_answer(request, raw, by=reviewer, at=now, channel="plain")


def _clock_for(workflow: Workflow, request: ReviewRequest) -> Clock:
    """Return the clock that the run itself goes by."""
    gate = gates_of(workflow).get(request.gate)
    return (gate.clock if gate is not None else None) or clock_of(workflow)


def _is_about(verdict: Verdict, event: ReviewResponseEvent | ReviewDeadlineEvent) -> bool:
    if verdict.request_id != event.request_id:
        return False
    if isinstance(event, ReviewDeadlineEvent):
        return isinstance(verdict, ReviewRefusedEvent) or not _is_open(verdict.record)
    if isinstance(verdict, ReviewRefusedEvent):
        return verdict.by == event.answer.by.id
    return any(answer.same_as(event.answer) for answer in verdict.record.answers)


def _is_open(record: ReviewRecord) -> bool:
    return record.status is RequestStatus.OPEN
