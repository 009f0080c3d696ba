"""A run through nothing but JSON: everything is built anew in each pause, with no store at all.

    result = await review_with_restarts(ArticleFlow, erin, topic="mice")

What works here works in another process, days later: whatever a step keeps on the workflow, in a
global or in a value that JSON cannot carry shows as it would there.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from workflows import Workflow
from workflows.events import HumanResponseEvent, InputRequiredEvent
from workflows.handler import WorkflowHandler

from llama_index_hitl.clock import Clock, utc_now
from llama_index_hitl.errors import AnswerRefused
from llama_index_hitl.events import ReviewRefusedEvent, ReviewRequestEvent, ReviewResponseEvent
from llama_index_hitl.models import Answer, Respond
from llama_index_hitl.policies import why_not_allowed
from llama_index_hitl.snapshots import OpenRequest, PausedRun, pause, resume
from llama_index_hitl.testing.reviewers import ScriptedReviewer


async def review_with_restarts(
    make: Callable[[], Workflow],
    *reviewers: ScriptedReviewer,
    types: Iterable[type] = (),
    clock: Clock = utc_now,
    inputs: Mapping[str, Any] | None = None,
    **more_inputs: Any,
) -> Any:
    """Run a workflow to its end, with these people answering, and a new process in each pause.

    As far as one process can have it: in each pause the run is written as JSON text, ended, read
    again, and resumed in a workflow that `make` makes anew, with one answer. Each person is asked
    once about each request that is open and that they may answer, in the order of the arguments.

    Args:
        make: Makes the workflow; a class with `timeout=None`, or `lambda: MyFlow(timeout=None)`; an
            agent is made in a function too. A `ScriptedLLM` that is made there needs `reply`: its
            `replies` would start anew.
        *reviewers: Who answers. Text of theirs answers a plain question; where the event that
            answers it has fields of its own, as JSON.
        types: Classes of values in the run that the workflow's own code does not name.
        clock: Where the time of the pauses comes from.
        inputs: What the run starts with, for names that this function has itself.
        **more_inputs: What the run starts with.

    Returns:
        The result of the run.

    Raises:
        TypeError: `make` is a workflow, and makes none.
        AssertionError: The run waits and nobody has an answer, or it does not come back from JSON
            as it was; the message says for what, or what is different.
        UnserializableState: Something in the run would not survive.
        Exception: Whatever the run or a script raises.

    Example:
        >>> from llama_index_hitl.prebuilt import DocumentApproval
        >>> async def main():
        ...     erin = ScriptedReviewer([Approve(), Approve()], by="erin")
        ...     text = {"topic": "mice", "content": "Mice are small."}
        ...     return await review_with_restarts(DocumentApproval, erin, inputs=text)
        >>> asyncio.run(main()).status.value
        'approved'
    """
    if isinstance(make, Workflow):
        raise TypeError(
            "review_with_restarts needs a function that makes the workflow anew, such as "
            f"lambda: {type(make).__name__}(timeout=None), not the workflow itself."
        )
    desk = _Desk(reviewers)
    handler = make().run(**{**(inputs or {}), **more_inputs})
    while True:
        outcome = await pause(handler, types=types, clock=clock)
        desk.note_refusals([event async for event in _stream_of(handler)])
        if not isinstance(outcome, PausedRun):
            return outcome
        paused = _through_json(outcome)
        handler = _resumed(make, paused, desk, types)


def _stream_of(handler: WorkflowHandler) -> Any:
    return handler.stream_events(expose_internal=True)


def _through_json(paused: PausedRun) -> PausedRun:
    text = paused.model_dump_json()
    again = PausedRun.model_validate_json(text)
    if again != paused:
        before, after = json.loads(text), json.loads(again.model_dump_json())
        changed = sorted(key for key in before if before[key] != after.get(key))
        raise AssertionError(f"The run changes when it is written as JSON: {', '.join(changed)}")
    return again


def _resumed(
    make: Callable[[], Workflow], paused: PausedRun, desk: _Desk, types: Iterable[type]
) -> WorkflowHandler:
    """Resume with the next answer that counts."""
    for reviewer, answer in desk.answers(paused.requests):
        try:
            return resume(make(), paused, [answer], types=types)
        except AnswerRefused as error:
            reviewer.refused.append(ReviewRefusedEvent.of(error, by=answer.by.id))
    raise AssertionError(f"The run waits and nobody answers: {desk.waiting_for(paused.requests)}")


class _Desk:
    """Who has been asked about what."""

    def __init__(self, reviewers: Iterable[ScriptedReviewer]) -> None:
        self._reviewers = list(reviewers)
        for reviewer in self._reviewers:
            if not isinstance(reviewer, ScriptedReviewer):
                raise TypeError(f"review_with_restarts takes ScriptedReviewers, not {reviewer!r}")
        self._known: set[str] = set()
        self._not_asked: deque[tuple[str, ScriptedReviewer]] = deque()

    def answers(self, requests: Iterable[OpenRequest]) -> Iterator[tuple[ScriptedReviewer, Answer]]:
        """Ask one after the other, each about each request once."""
        is_open = {request.request_id: request for request in requests}
        for request_id in is_open:
            if request_id not in self._known:
                self._known.add(request_id)
                self._not_asked.extend((request_id, reviewer) for reviewer in self._reviewers)
        asked_later = deque(place for place in self._not_asked if place[0] in is_open)
        self._not_asked = asked_later
        for _ in range(len(asked_later)):
            request_id, reviewer = self._not_asked.popleft()
            if (answer := _answer_of(reviewer, is_open[request_id])) is not None:
                yield reviewer, answer
            elif not _may(reviewer, is_open[request_id]):
                self._not_asked.append((request_id, reviewer))  # until somebody delegates to them

    def note_refusals(self, events: Iterable[Any]) -> None:
        for event in events:
            if not isinstance(event, ReviewRefusedEvent):
                continue
            for reviewer in self._reviewers:
                if reviewer.reviewer.id == event.by:
                    reviewer.refused.append(event)

    def waiting_for(self, requests: Iterable[OpenRequest]) -> str:
        titles = [request.request.title for request in requests]
        people = [f"{r.reviewer.id}: {self._why_silent(r)}" for r in self._reviewers]
        return "\n  ".join(["; ".join(titles) or "nothing was asked", *people])

    def _why_silent(self, reviewer: ScriptedReviewer) -> str:
        if reviewer.refused:
            return f"refused: {reviewer.refused[-1].reason}"
        return f"{reviewer.left} answers left" if reviewer.scripted else "lets it lie"


def _may(reviewer: ScriptedReviewer, request: OpenRequest) -> bool:
    return why_not_allowed(request.record.policy, reviewer.reviewer) is None


def _answer_of(reviewer: ScriptedReviewer, asked: OpenRequest) -> Answer | None:
    """Return what somebody answers to a question of a paused run; None: nothing."""
    if not asked.is_plain:
        event = reviewer.answer(ReviewRequestEvent(request=asked.request), asked.record.policy)
        return event.answer if isinstance(event, ReviewResponseEvent) else None
    said = reviewer.answer(InputRequiredEvent(prefix=asked.request.title))
    if not isinstance(said, HumanResponseEvent):
        return None
    schema = asked.request.response_schema or {}
    has_fields = schema.get("type") == "object"
    response = json.loads(said.response) if has_fields else said.response
    return Answer.to(
        asked.request,
        Respond(response=response),
        by=reviewer.reviewer,
        at=asked.request.created_at,
        channel="script",
    )
