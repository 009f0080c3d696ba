"""People who answer from a script."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any, TypeAlias

from workflows.events import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    WorkflowIdleEvent,
)
from workflows.handler import WorkflowHandler

from llama_index_hitl.clock import Clock, utc_now
from llama_index_hitl.events import ReviewRefusedEvent, ReviewRequestEvent, ReviewUpdatedEvent
from llama_index_hitl.models import (
    Decision,
    RequestStatus,
    Reviewer,
    ReviewPolicy,
    ReviewRecord,
    ReviewRequest,
)
from llama_index_hitl.policies import why_not_allowed

Script: TypeAlias = (
    Iterable[Decision | str | None] | Callable[[ReviewRequest], Decision | str | None]
)
"""Answers in order, or a function of the request; None: no answer, they let it lie."""


class ScriptedReviewer:
    """A person who answers from a script.

    Args:
        script: What they answer, in the order in which they are asked; text answers a plain
            `InputRequiredEvent`. Or a function that decides on each request.
        by: Who they are; a plain id stands for a person without roles.
        role: The role in which they answer, where it matters.
        channel: Where they answer.
        clock: When they answer.

    Attributes:
        asked: The requests that they were asked, in order.
        refused: The refusals of their answers, in order.

    Example:
        >>> from llama_index_hitl import Approve, Revise
        >>> erin = ScriptedReviewer([Revise(feedback="shorter"), Approve()], by="erin")
        >>> erin.left
        2
    """

    def __init__(
        self,
        script: Script,
        *,
        by: Reviewer | str = "reviewer",
        role: str | None = None,
        channel: str = "script",
        clock: Clock = utc_now,
    ) -> None:
        self.reviewer = Reviewer(id=by) if isinstance(by, str) else by
        self.asked: list[ReviewRequest] = []
        self.refused: list[ReviewRefusedEvent] = []
        self._decide = script if callable(script) else None
        self._queue: deque[Decision | str | None] = deque(() if callable(script) else script)
        self._role = role
        self._channel = channel
        self._clock = clock

    @property
    def left(self) -> int:
        """How many answers of the script have not been used."""
        return len(self._queue)

    def answer(
        self, event: InputRequiredEvent, policy: ReviewPolicy | None = None
    ) -> HumanResponseEvent | None:
        """Return their answer to one question; None: they have none, or let it lie.

        Args:
            event: The question.
            policy: Who may answer by now, where somebody has delegated; None: as it was asked.

        Raises:
            TypeError: The script has text for a request, or a decision for a plain event.
        """
        if not isinstance(event, ReviewRequestEvent):
            entry = self._queue.popleft() if self._queue else None
            if entry is not None and not isinstance(entry, str):
                raise TypeError(f"A plain InputRequiredEvent takes text, not {entry!r}.")
            return None if entry is None else HumanResponseEvent(response=entry)
        request = event.request
        if why_not_allowed(policy or request.policy, self.reviewer) is not None:
            return None
        if self._decide is None and not self._queue:
            return None
        self.asked.append(request)
        entry = self._decide(request) if self._decide is not None else self._queue.popleft()
        if isinstance(entry, str):
            raise TypeError(f"{request.gate!r} takes a decision such as Approve(), not {entry!r}.")
        if entry is None:
            return None
        return event.answer(
            entry, by=self.reviewer, at=self._clock(), role=self._role, channel=self._channel
        )

    @property
    def scripted(self) -> bool:
        """Whether the answers are a list, and not a function."""
        return self._decide is None

    def assert_used_up(self) -> None:
        """Assert that every answer of the script was used.

        Raises:
            AssertionError: Some were not; the message lists them.
        """
        if self._queue:
            raise AssertionError(
                f"{self.reviewer.id} was asked {len(self.asked)} times and has answers left: "
                f"{list(self._queue)!r}"
            )

    def assert_asked(self, *gates: str) -> None:
        """Assert that they were asked at exactly these gates, in this order.

        Args:
            *gates: Names of the gates; `ask` for a question that was asked inline.

        Raises:
            AssertionError: They were not; the message says where they were.
        """
        found = tuple(request.gate for request in self.asked)
        if found != gates:
            raise AssertionError(f"{self.reviewer.id} was asked at {found}, not at {gates}")


async def review_with(handler: WorkflowHandler, *reviewers: ScriptedReviewer) -> Any:
    """Run a workflow to its end, with these people answering.

    Answers are given only when nothing else in the run can advance, one at a time: what comes out
    does not depend on timing. Each person is asked once about each request that is open and that
    they may answer, in the order of the arguments.

    Args:
        handler: What `Workflow.run` returned; nobody else may stream its events.
        *reviewers: Who answers.

    Returns:
        The result of the run.

    Raises:
        AssertionError: The run waits and nobody has an answer; the message says for what.
        TypeError: An argument is of another kind.
        Exception: Whatever the run or a script raises. The run is over in any case.

    Example:
        >>> from llama_index_hitl.prebuilt import IterativeReview
        >>> async def main():
        ...     erin = ScriptedReviewer([Revise(feedback="shorter"), Approve()], by="erin")
        ...     flow = IterativeReview(llm=ScriptedLLM(["Mice are small.", "Mice."]))
        ...     result = await review_with(flow.run(topic="mice"), erin)
        ...     erin.assert_used_up()
        ...     return result.subject.content
        >>> asyncio.run(main())
        'Mice.'
    """
    if not isinstance(handler, WorkflowHandler):
        raise TypeError(f"review_with takes what flow.run() returns, not {handler!r}")
    try:
        desk = _Desk(reviewers)
        async for event in handler.stream_events(expose_internal=True):
            if isinstance(event, WorkflowIdleEvent):
                handler.ctx.send_event(desk.next_answer())
            else:
                desk.note(event)
    except BaseException:
        # A script may raise as well; a run that nobody answers would be left waiting.
        await handler.cancel_run()
        raise
    return await handler


class _Desk:
    """What is open in a run, and who has been asked about it."""

    def __init__(self, reviewers: Iterable[ScriptedReviewer]) -> None:
        self._reviewers = list(reviewers)
        for reviewer in self._reviewers:
            if not isinstance(reviewer, ScriptedReviewer):
                raise TypeError(f"review_with takes ScriptedReviewers, not {reviewer!r}")
        self._open: dict[str, InputRequiredEvent] = {}
        self._policies: dict[str, ReviewPolicy] = {}
        self._not_asked: deque[tuple[str, ScriptedReviewer]] = deque()
        self._numbers = count()

    def note(self, event: Event) -> None:
        if isinstance(event, ReviewRequestEvent):
            self._policies[event.request_id] = event.request.policy
            self._put(event.request_id, event)
        elif isinstance(event, InputRequiredEvent):
            self._put(f"plain-{next(self._numbers)}", event)
        elif isinstance(event, ReviewUpdatedEvent):
            self._update(event.request_id, event.record)
        elif isinstance(event, ReviewRefusedEvent):
            for reviewer in self._reviewers:
                if reviewer.reviewer.id == event.by:
                    reviewer.refused.append(event)

    def _put(self, request_id: str, event: InputRequiredEvent) -> None:
        self._open[request_id] = event
        self._not_asked.extend((request_id, reviewer) for reviewer in self._reviewers)

    def _update(self, request_id: str, record: ReviewRecord) -> None:
        if record.status is not RequestStatus.OPEN:
            self._open.pop(request_id, None)
            return
        before = self._policies.get(request_id, record.request.policy)
        self._policies[request_id] = record.policy
        if record.policy == before:
            return
        for reviewer in self._reviewers:  # somebody has delegated to one of them
            place = (request_id, reviewer)
            if why_not_allowed(before, reviewer.reviewer) and place not in self._not_asked:
                self._not_asked.append(place)

    def next_answer(self) -> HumanResponseEvent:
        while self._not_asked:
            request_id, reviewer = self._not_asked.popleft()
            event = self._open.get(request_id)
            if event is None:
                continue
            answer = reviewer.answer(event, self._policies.get(request_id))
            if answer is None:
                continue
            if not isinstance(event, ReviewRequestEvent):
                del self._open[request_id]
            return answer
        raise AssertionError(f"The run waits and nobody answers: {self._waiting_for()}")

    def _waiting_for(self) -> str:
        titles = [
            event.request.title
            if isinstance(event, ReviewRequestEvent)
            else str(getattr(event, "prefix", None) or repr(event))
            for event in self._open.values()
        ]
        people = [self._why_silent(reviewer) for reviewer in self._reviewers]
        return "\n  ".join(["; ".join(titles) or "nothing was asked", *people])

    def _why_silent(self, reviewer: ScriptedReviewer) -> str:
        """Say what keeps one person from answering."""
        name = reviewer.reviewer.id
        said = [f"{reviewer.left} answers left"] if reviewer.scripted else []
        for request_id, policy in self._policies.items():
            if request_id in self._open:
                reason = why_not_allowed(policy, reviewer.reviewer)
                said += [f"may not answer {request_id}: {reason}"] if reason else []
        said += [f"refused: {refusal.reason}" for refusal in reviewer.refused[-1:]]
        return f"{name}: {'; '.join(said) or 'lets it lie'}"
