"""Runs within a step of another run: their questions come up, and the answers go down.

    class Trip(Workflow):
        @step
        async def book(self, ctx: Context, ev: StartEvent) -> StopEvent:
            hotel = await run_child(ctx, BookHotel(timeout=None), city=ev.city)
            return StopEvent(result=hotel)

What the inner run asks is asked by the outer one, with the path that leads there. Both are paused,
stored and resumed as one, and nothing in the inner run is done twice: it is kept where it waits,
and goes on from there.

Upstream runs the outer step again from its first line whenever an answer comes, as with `ask`. So
run children first, and act after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NoReturn

from workflows import Context, Workflow
from workflows.events import InputRequiredEvent, StopEvent
from workflows.handler import WorkflowHandler

from llama_index_hitl._codec import serializer_for
from llama_index_hitl._heard import Heard, stand_aside
from llama_index_hitl._ledger import keep_newest, newest
from llama_index_hitl._origin import Origin, check_can_wait, origin_of, starting_from
from llama_index_hitl._plain import EVENT_GATE, WAIT_GATE
from llama_index_hitl._siblings import at_work, others_at_rest
from llama_index_hitl._upstream import (
    Execution,
    end_waiting,
    execution_of_step,
    fail_step,
    forget_waiter,
    has_completed,
    has_waiter,
    result_of,
    run_id_of,
    runs_in_memory,
    state_of_run,
    step_of,
    stop,
    until_idle,
    wait_too,
    workflow_of,
)
from llama_index_hitl.clock import clock_of
from llama_index_hitl.effects import sharing_effects
from llama_index_hitl.errors import (
    AnswerRefused,
    ChildError,
    FieldProblem,
    IncompatibleSnapshot,
    InvalidAnswer,
    NothingAsked,
    UnknownRequest,
    UnserializableState,
)
from llama_index_hitl.events import (
    ReviewDeadlineEvent,
    ReviewRefusedEvent,
    ReviewRequestEvent,
    ReviewResponseEvent,
    ReviewUpdatedEvent,
    ReviewWithdrawEvent,
    Told,
)
from llama_index_hitl.forms import check_decision
from llama_index_hitl.lifecycle import take_answer
from llama_index_hitl.migrations import present_migrations
from llama_index_hitl.models import (
    INLINE_GATE,
    RequestStatus,
    ReviewRecord,
    ReviewRequest,
    digest_of,
)
from llama_index_hitl.snapshots import OpenRequest, PausedRun, fit, restore, snapshot

_ANSWER = ReviewResponseEvent

_ID_LIMIT = 180
"""Characters of the outermost run's id that the ids of runs within it begin with."""


async def run_child(
    ctx: Context[Any], workflow: Workflow, /, *, key: str = "", **inputs: Any
) -> Any:
    """Run a workflow within a step, or a tool, of another one, and return its result.

    Whenever the inner run waits for people, the outer step waits: all that is asked is on the outer
    run's stream, and among its open requests, with the path that leads to it. An answer reaches the
    inner run wherever, and in whatever process, the outer run is taken up again. Other events of
    the inner run are written to the outer run's stream as they come.

    The outer step is run again from its first line with every answer. A child that has ended by
    then is not run again: its result is kept with the outer run until the step completes. Children
    may run in parallel, with `asyncio.gather`, and have children themselves. If the outer run is
    cancelled, so are they.

    Args:
        ctx: Context of the outer step.
        workflow: What to run; a new instance each time is fine.
        key: Tells children apart that one step runs at the same time.
        **inputs: What `workflow.run` takes. They count when the child begins, and not again.

    Returns:
        The result of the inner run.

    Raises:
        ChildError: This is not called within a step, the step has ended, or a server has the very
            instance of `workflow`.
        IncompatibleSnapshot: The inner run was paused by other code and does not fit `workflow`. No
            answer is consumed. It fails the step in any case: an agent does not tell its model.
        UnserializableState: Something in the inner run would not survive the wait.
        NothingAsked: Nothing in the inner run can go on, and it asks nobody.
        Exception: What the inner run failed with.

    Example:
        >>> from workflows import Context, Workflow, step
        >>> from workflows.events import StartEvent, StopEvent
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.testing import ScriptedReviewer, review_with
        >>> class Newsletter(Workflow):
        ...     @step
        ...     async def write(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ...         inner = await run_child(ctx, DraftApproval(), topic="mice", content="Small.")
        ...         return StopEvent(result=inner.status.value)
        >>> async def main():
        ...     erin = ScriptedReviewer([Approve()], by="erin")
        ...     result = await review_with(Newsletter(timeout=None).run(), erin)
        ...     return result, erin.asked[0].path[-1].rpartition(".")[2]
        >>> asyncio.run(main())
        ('approved', 'write')
    """
    execution, heard = _execution(), state_of_run(Heard)
    if execution.sends.closed or heard.rests(execution):
        raise ChildError(
            "The step that this belongs to has ended. Await run_child in the step itself; what is "
            "gathered with other children must take no time before it runs its own."
        )
    heard.listen(ctx)
    heard.hear_all(execution)
    if not runs_in_memory(workflow):
        raise ChildError(
            f"{_name_of(workflow)} is on {type(workflow.runtime).__name__}, which keeps its runs "
            "itself. Give run_child an instance of its own that nothing else serves."
        )
    place = heard.place_of(execution, f"child:{key}")
    children = state_of_run(_Children)
    if not heard.takes_over(execution):
        children.refuse_late(place, ctx, heard)
        await stand_aside(ctx, place)
    child = children.at(place, execution)
    if not child.recall(ctx, execution):
        await stand_aside(ctx, place)
    with at_work():
        try:
            await child.advance(ctx, workflow, execution, heard, inputs)
            while not child.ended:
                await others_at_rest()
                heard.listen(ctx)
                if heard.rests(execution) or not child.untold(heard):
                    child.wait(ctx, execution, heard)
                await child.advance(ctx, workflow, execution, heard, inputs)
        finally:
            child.keep(ctx, execution)
    for waiter_id in child.waited:
        forget_waiter(execution, waiter_id)
    return child.result(workflow, execution)


def _execution() -> Execution:
    try:
        return execution_of_step()
    except LookupError:
        raise ChildError("run_child must be called in a step, or in a tool of an agent.") from None


class _Children:
    """The runs within the steps of one run, by their places, in one process."""

    def __init__(self) -> None:
        self._children: dict[str, tuple[_Child, Execution]] = {}

    def at(self, place: str, execution: Execution) -> _Child:
        """Return the child that has this place in a call of the step."""
        self._children = {
            known: (child, call)
            for known, (child, call) in self._children.items()
            if not has_completed(call)
        }
        child, _ = self._children.get(place, (None, None))
        child = child or _Child(place)
        self._children[place] = child, execution
        return child

    def refuse_late(self, place: str, ctx: Context[Any], heard: Heard) -> None:
        """Refuse what has come too late for the child that has this place."""
        if place in self._children:
            self._children[place][0].refuse_late(ctx, heard)


class _Child:
    """One run within a step, over all calls of the step.

    Attributes:
        place: Names it within the outer run.
        ended: Whether it has a result.
        waited: Ids of the waiters that the step has had on its behalf.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self.ended = False
        self.waited: tuple[str, ...] = ()
        self._number = 0
        self._kept: dict[str, Any] = {}
        self._is_kept = True
        self._open: frozenset[str] = frozenset()
        self._paused: PausedRun | None = None
        self._closed: dict[str, ReviewRecord] = {}
        self._ended_now: tuple[Execution, Any] | None = None
        self._lock = asyncio.Lock()

    # ----------------------------------------------------------------- what is kept

    def recall(self, ctx: Context[Any], execution: Execution) -> bool:
        """Bring back what was kept by earlier calls of the step.

        Returns:
            Whether this call can go on with it. Not so if it was called before the one that has
            gone on with the result.
        """
        number, kept = newest(ctx, self.place) or (0, {})
        if number > self._number:
            self._number, self._kept = number, kept
            self.waited = tuple(w for w in kept["waited"] if has_waiter(execution, w))
            self.ended = "paused" not in kept
            self._paused = None if self.ended else PausedRun.model_validate_json(kept["paused"])
        elif number < self._number and self.ended:
            return False
        return True

    def keep(self, ctx: Context[Any], execution: Execution) -> None:
        """Keep what has changed, for later calls of the step."""
        if not self._is_kept and not execution.sends.closed:
            self._number += 1
            closed = [waiter_id for waiter_id in self.waited if waiter_id not in self._open]
            kept = {**self._kept, "waited": list(self.waited), "closed": closed}
            keep_newest(ctx, self.place, self._number, kept)
            self._is_kept = True

    def _wait_as(self, paused: PausedRun) -> None:
        self._paused = paused
        ids = [waiter_id for asked in paused.requests for waiter_id in _waits_for(asked.request)]
        self.waited, self._open = tuple(dict.fromkeys((*self.waited, *ids))), frozenset(ids)
        self._kept, self._is_kept = {"paused": paused.model_dump_json()}, False

    def _end_with(self, workflow: Workflow, execution: Execution, result: Any) -> None:
        self.ended, self._paused, self._is_kept = True, None, False
        self._open = frozenset()
        self._ended_now = execution, result
        try:
            self._kept = {"result": serializer_for(workflow).serialize(result)}
        except UnserializableState:
            # That matters only if the step goes on to wait, and the outer run is then paused: what
            # cannot be stored is found there, and told.
            self._kept = {"object": result}

    def result(self, workflow: Workflow, execution: Execution) -> Any:
        """Return what it came to: as it is the first time, then as it was kept."""
        if self._ended_now is not None and self._ended_now[0] is execution:
            return self._ended_now[1]
        if "object" in self._kept:
            return self._kept["object"]
        return serializer_for(workflow).deserialize(self._kept["result"])

    # ----------------------------------------------------------------- at work

    async def advance(
        self,
        ctx: Context[Any],
        workflow: Workflow,
        execution: Execution,
        heard: Heard,
        inputs: dict[str, Any],
    ) -> None:
        """Take it to where it waits for people, or to its end; if there is anything to be done."""
        async with self._lock:
            if self.ended:
                return
            serializer = serializer_for(workflow)
            parent = origin_of(run_id_of(ctx))
            step = f"{_name_of(workflow_of(ctx))}.{step_of(execution)}"
            origin = Origin(parent.run_id, (*parent.path, step))
            if self._paused is None:
                run_id = self._run_id(ctx, parent)
                with sharing_effects(serializer), starting_from(run_id, origin):
                    handler = workflow.run(run_id=run_id, **inputs)
                    await self._drive(ctx, workflow, execution, handler)
                return
            if not (told := self.untold(heard)):
                return
            accepted = self._accepted(ctx, told)
            if accepted:
                fitting = _fitting(workflow, self._paused)
                refused: list[ReviewRefusedEvent] = []
                # The outer run may have come by another id since, on another runtime.
                with sharing_effects(serializer), starting_from(self._paused.run_id, origin):
                    handler = restore(workflow, fitting, accepted, refused=refused)
                    await self._drive(ctx, workflow, execution, handler)
                for event in refused:
                    ctx.write_event_to_stream(event)
            # Only now: if the inner run fails, and the step is tried again, they are told again.
            for request, events in told:
                heard.note(request.request_id, events)
        self.refuse_late(ctx, heard)

    def _run_id(self, ctx: Context[Any], parent: Origin) -> str:
        """Return its id: the same when the outer run is begun again after a crash."""
        return f"{parent.run_id[:_ID_LIMIT]}-{digest_of([run_id_of(ctx), self.place])[:16]}"

    async def _drive(
        self,
        ctx: Context[Any],
        workflow: Workflow,
        execution: Execution,
        handler: WorkflowHandler,
    ) -> None:
        seen: list[Any] = []
        showing = asyncio.create_task(self._show(ctx, handler, seen))
        try:
            state = await until_idle(handler)
            if state is None:
                self._end_with(workflow, execution, result_of(handler))
                return
            paused = snapshot(handler, state, streamed=seen, clock=clock_of(workflow))
            if not paused.requests:
                raise NothingAsked(paused.run_id)
            self._wait_as(paused)
        finally:
            await stop(handler)
            await showing

    async def _show(self, ctx: Context[Any], handler: WorkflowHandler, seen: list[Any]) -> None:
        """Show its events on the outer run's stream, but for what it asks: that comes up anyway."""
        async for event in handler.stream_events():
            seen.append(event)
            if isinstance(event, ReviewUpdatedEvent):
                self._note(event.record)
            if not isinstance(event, InputRequiredEvent | StopEvent):
                ctx.write_event_to_stream(event)

    # ----------------------------------------------------------------- answers

    def untold(self, heard: Heard) -> list[tuple[OpenRequest, list[Told]]]:
        """Return what has come for its open requests, and it was not told."""
        requests = self._paused.requests if self._paused is not None else ()
        found = ((request, heard.waiting(request.request_id)) for request in requests)
        return [(request, events) for request, events in found if events]

    def _accepted(
        self, ctx: Context[Any], told: Sequence[tuple[OpenRequest, list[Told]]]
    ) -> list[Told]:
        """Return what it is to be told; what nobody there could refuse, is refused here."""
        accepted: list[Told] = []
        for request, events in told:
            if not request.is_plain:
                accepted.extend(events)
            elif (answer := self._first_valid(ctx, request.record, events)) is not None:
                accepted.append(answer)
        return accepted

    def _first_valid(
        self, ctx: Context[Any], record: ReviewRecord, events: Sequence[Told]
    ) -> ReviewResponseEvent | None:
        """Return the first answer to a plain question that counts."""
        for event in events:
            try:
                if not isinstance(event, ReviewResponseEvent):
                    raise UnknownRequest(event.request_id)
                check_decision(record.request, event.answer.decision)
                taken = take_answer(record, event.answer)
            except AnswerRefused as error:
                _refuse(ctx, error, event)
            except RecursionError:
                problem = FieldProblem("", "this is nested too deeply")
                _refuse(ctx, InvalidAnswer(record.request_id, [problem]), event)
            else:
                self._note(taken)
                ctx.write_event_to_stream(ReviewUpdatedEvent(record=taken))
                return event
        return None

    def _note(self, record: ReviewRecord) -> None:
        if record.status is not RequestStatus.OPEN:
            self._closed[record.request_id] = record

    def refuse_late(self, ctx: Context[Any], heard: Heard) -> None:
        """Refuse what has come for requests that are closed, but for answers that were taken."""
        paused = self._paused.requests if self._paused is not None else ()
        open_ids = {request.request_id for request in paused}  # perhaps just being told
        for request_id, record in self._closed.items():
            if request_id in open_ids:
                continue
            for answer in heard.unheard(request_id):
                try:
                    take_answer(record, answer)
                except AnswerRefused as error:
                    _refuse(ctx, error, ReviewResponseEvent(answer=answer))

    def wait(self, ctx: Context[Any], execution: Execution, heard: Heard) -> NoReturn:
        """Let the step wait with everything that it asks."""
        assert self._paused is not None  # noqa: S101 - it has not ended
        check_can_wait(ctx)
        heard.rest(execution)
        for asked in self._paused.requests:
            request = asked.request
            requirements = {"request_id": request.request_id}
            for waiter_id, kind in _waits_for(request).items():
                question = ReviewRequestEvent(request=request) if kind is _ANSWER else None
                waiter = wait_too(execution, kind, waiter_id, requirements, question)
        end_waiting(waiter)


def _fitting(workflow: Workflow, paused: PausedRun) -> PausedRun:
    try:
        return fit(workflow, paused, present_migrations())
    except IncompatibleSnapshot as error:
        fail_step(error)


def _waits_for(request: ReviewRequest) -> dict[str, type[Told]]:
    """Return what can come for a request, by the id of the waiter for it."""
    request_id = request.request_id
    found: dict[str, type[Told]] = {request_id: _ANSWER}
    if request.gate not in (INLINE_GATE, WAIT_GATE, EVENT_GATE):
        found[f"{request_id}:withdraw"] = ReviewWithdrawEvent
        if request.rungs:
            found[f"{request_id}:deadline"] = ReviewDeadlineEvent
    return found


def _name_of(workflow: Workflow) -> str:
    """Return what people call a workflow: of an agent its name, else that of the class."""
    name = getattr(workflow, "name", None)
    return name if isinstance(name, str) and name else type(workflow).__name__


def _refuse(ctx: Context[Any], error: AnswerRefused, event: Told) -> None:
    by = event.answer.by.id if isinstance(event, ReviewResponseEvent) else None
    ctx.write_event_to_stream(ReviewRefusedEvent.of(error, by=by))
