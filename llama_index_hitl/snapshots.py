"""Paused runs: take a waiting run out of memory, and go on with it later, elsewhere.

A `Runner` does this for you, with a store, deadlines and an audit trail.

Example:
    >>> from llama_index_hitl.prebuilt import DraftApproval
    >>> async def begin():
    ...     flow = DraftApproval()
    ...     paused = await pause(flow.run(topic="mice", content="Mice are small."))
    ...     return paused.model_dump_json()  # keep it wherever you like
    >>> async def answer(text):  # in another process
    ...     paused = PausedRun.model_validate_json(text)
    ...     request = paused.requests[0].request
    ...     yes = Answer.to(request, Approve(), by="alice", at=utc_now())
    ...     return await resume(DraftApproval(), paused, [yes])
    >>> asyncio.run(answer(asyncio.run(begin()))).status.value
    'approved'
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import metadata
from typing import Any, Literal, Self, cast, get_args
from weakref import WeakKeyDictionary

from pydantic import (
    AwareDatetime,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from workflows import Context, Workflow
from workflows.errors import ContextSerdeError
from workflows.events import Event, HumanResponseEvent
from workflows.handler import WorkflowHandler
from workflows.runtime.types.internal_state import BrokerState

from llama_index_hitl._codec import SnapshotSerializer, context_to_dict, serializer_for
from llama_index_hitl._delivery import Delivery
from llama_index_hitl._fingerprint import (
    Fingerprint,
    differences,
    fingerprint_of,
    occurring_types,
    reviewed_types,
)
from llama_index_hitl._ledger import BUFFER, newest_of_all, without_older
from llama_index_hitl._origin import origin_of
from llama_index_hitl._plain import EVENT_GATE, WAIT_GATE, plain_answer, plain_request
from llama_index_hitl._upstream import (
    Session,
    Wait,
    events_taken,
    let_arrive,
    require_again,
    result_of,
    serialized,
    session_of,
    stop,
    until_idle,
    waits_of,
)
from llama_index_hitl.clock import Clock, utc_now
from llama_index_hitl.errors import (
    AnswerRefused,
    FieldProblem,
    IncompatibleSnapshot,
    SnapshotError,
    UnknownRequest,
    UnserializableState,
)
from llama_index_hitl.events import (
    ReviewRefusedEvent,
    ReviewRequestEvent,
    ReviewResponseEvent,
    Told,
)
from llama_index_hitl.forms import check_decision, problems_of
from llama_index_hitl.gates import gates_of
from llama_index_hitl.lifecycle import open_record, take_answer
from llama_index_hitl.migrations import Migration, Waited, apply, using_migrations
from llama_index_hitl.models import (
    UNCHECKED,
    Answer,
    Identifier,
    Line,
    ReviewRecord,
    ReviewRequest,
    Value,
    digest_of,
)

FORMAT: Literal["llama-index-hitl/paused-run"] = "llama-index-hitl/paused-run"
"""What a paused run says that it is."""
FORMAT_VERSION = 1
"""Version of the format. Every version that was ever released can be read for ever."""

AskedBy = Literal["gate", "ask", "child", "wait_for_event", "input_required"]
"""How a question was asked; see `OpenRequest`."""


class OpenRequest(Value):
    """A question that a paused run waits with.

    Attributes:
        record: The request, with the answers that the run has taken so far.
        asked_by: `gate`; `ask`, inline; `child`, a run that a step has started with `run_child`;
            `wait_for_event`, without this package; or `input_required`, a plain
            `InputRequiredEvent` whose answer a step takes.
        step: Name of the step that waits; None where nothing waits but the run.
        waiter_id: Upstream's name for the wait within its step; None likewise.
        answer_type: Qualified name of the event that answers.
        requirements: Attributes that the answering event must have, as the snapshot writes them.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> async def main():
        ...     return await pause(DraftApproval().run(topic="mice", content="Mice are small."))
        >>> [asked] = asyncio.run(main()).requests
        >>> asked.asked_by, asked.request.gate, asked.is_plain
        ('gate', 'approval', False)
    """

    record: ReviewRecord
    asked_by: AskedBy
    step: str | None = None
    waiter_id: str | None = None
    answer_type: Line
    requirements: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def request(self) -> ReviewRequest:
        """What is asked."""
        return self.record.request

    @property
    def request_id(self) -> str:
        """Id of the request."""
        return self.record.request.request_id

    @property
    def is_plain(self) -> bool:
        """Whether it was asked by a workflow that knows nothing of this package."""
        return self.asked_by in (WAIT_GATE, EVENT_GATE)


class PausedRun(Value):
    """A run at an instant at which nothing in it could advance without people.

    Everything is JSON. Nothing in it names code to run: classes are found among those that the
    workflow's own code names.

    Attributes:
        format: What this is.
        format_version: Version of this format.
        run_id: The run; it keeps its id when it is resumed, and so its requests keep theirs.
        workflow: Name of the workflow.
        workflow_version: The workflow's attribute `snapshot_version`, if it has one.
        packages: Versions of the packages that it was paused with.
        paused_at: When.
        fingerprint: Its steps and event schemas, to notice that the code has changed.
        requests: Every open question, oldest first.
        plain_asked: How many plain questions the run has asked so far.
        context: The context, as upstream writes it.
        digest: SHA-256 over all of the above; one that does not match is refused.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> async def main():
        ...     return await pause(DraftApproval().run(topic="mice", content="Mice are small."))
        >>> paused = asyncio.run(main())
        >>> paused.workflow.rpartition(".")[2], [asked.request.title for asked in paused.requests]
        ('DraftApproval', ['Draft about mice'])
        >>> PausedRun.model_validate_json(paused.model_dump_json()) == paused
        True
    """

    format: Literal["llama-index-hitl/paused-run"] = FORMAT
    format_version: Literal[1] = 1
    run_id: Identifier
    workflow: Line
    workflow_version: Line | None = None
    packages: dict[str, str] = Field(default_factory=dict)
    paused_at: AwareDatetime
    fingerprint: Fingerprint
    requests: tuple[OpenRequest, ...] = ()
    plain_asked: int = 0
    context: dict[str, JsonValue]
    digest: str = ""

    def request(self, request_id: str) -> OpenRequest:
        """Return one of the open requests.

        Args:
            request_id: The request.

        Raises:
            UnknownRequest: There is none with that id.
        """
        for found in self.requests:
            if found.request_id == request_id:
                return found
        raise UnknownRequest(request_id)

    @model_validator(mode="before")
    @classmethod
    def _is_of_this_format(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise SnapshotError(f"This is no paused run: found {type(data).__name__}.")
        found = data.get("format", FORMAT if "digest" not in data else None)
        version = data.get("format_version", FORMAT_VERSION)
        if found != FORMAT:
            raise SnapshotError(f"This is no paused run: its format is {str(found)[:100]!r}.")
        if version != FORMAT_VERSION:
            raise SnapshotError(
                f"The paused run has format version {str(version)[:100]}; this version of "
                f"llama-index-hitl reads up to {FORMAT_VERSION}. Use the version that wrote it, or "
                "a newer one."
            )
        return data

    @model_validator(mode="after")
    def _is_whole(self, info: ValidationInfo) -> Self:
        if info.context is UNCHECKED:
            return self
        actual = digest_of(self.model_dump(mode="json", exclude={"digest"}))
        if self.digest and self.digest != actual:
            raise SnapshotError(
                f"The paused run {self.run_id} was changed or damaged after it was written (digest "
                f"{self.digest[:12]}…, expected {actual[:12]}…). Restore it from a copy."
            )
        # Frozen for everybody else; here the model is still being made.
        object.__setattr__(self, "digest", actual)
        return self

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """Read a paused run.

        Raises:
            SnapshotError: It is truncated, of an unknown format, or was changed.
        """
        try:
            data = json.loads(json_data)
        except (ValueError, RecursionError) as error:
            raise SnapshotError(
                f"The paused run cannot be read, it may be truncated: {error}."
            ) from None
        try:
            return cls.model_validate(data, **options)
        except ValidationError as error:
            problems = "; ".join(str(problem) for problem in problems_of(error))
            raise SnapshotError(f"The paused run cannot be read: {problems}.") from None


# --------------------------------------------------------------------------- pause


@dataclass
class _Resumed:
    """What a resumed run brings along that the run itself does not remember."""

    plain: list[OpenRequest] = field(default_factory=list)
    asked: int = 0


_RESUMED: WeakKeyDictionary[WorkflowHandler, _Resumed] = WeakKeyDictionary()


async def pause(
    handler: WorkflowHandler, *, types: Iterable[type] = (), clock: Clock = utc_now
) -> PausedRun | Any:
    """Wait until a run waits for people, take a snapshot of it, and end it in this process.

    Waits until nothing in the run can advance, not for the first question: what is still under way
    comes to its end, and is not run again when the run is resumed. The run's stream is left alone,
    so progress can be watched meanwhile; it ends with upstream's `WorkflowCancelledEvent`.

    Nothing is stored for you: until you have kept what is returned, a crash loses the run.

    Args:
        handler: The run, on upstream's in-memory runtime.
        types: Classes of values in the run that the workflow's own code does not name.
        clock: Where the time comes from.

    Returns:
        The paused run; or, of a run that ends before it waits for anybody, its result.

    Raises:
        UnserializableState: Something in the run would not survive. The run is left as it is.
        SnapshotError: The run is on a runtime that keeps its runs itself.
        Exception: What the run failed with, if it fails before it waits.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> async def main():
        ...     return await pause(DraftApproval().run(topic="mice", content="Mice are small."))
        >>> [asked] = asyncio.run(main()).requests
        >>> asked.request.title
        'Draft about mice'
    """
    await let_arrive(handler)
    state = await until_idle(handler)
    if state is None:
        return result_of(handler)
    paused = snapshot(handler, state, types=types, clock=clock)
    await stop(handler)
    return paused


def snapshot(
    handler: WorkflowHandler,
    state: BrokerState,
    *,
    types: Iterable[type] = (),
    clock: Clock = utc_now,
    streamed: Sequence[Event] = (),
) -> PausedRun:
    """Return an idle run as a value; it goes on waiting.

    `pause` takes one and ends the run: see the example of `pause`.

    Args:
        handler: The run.
        state: The state that it is idle in.
        types: Classes of values in the run that the workflow's own code does not name.
        clock: Where the time comes from.
        streamed: What was read from its stream.

    Raises:
        UnserializableState: Something in it would not survive.
    """
    taken, requests = parts_of(handler, state, types=types, clock=clock, streamed=streamed)
    return PausedRun(requests=tuple(requests), **taken)


def parts_of(
    handler: WorkflowHandler,
    state: BrokerState,
    *,
    types: Iterable[type] = (),
    clock: Clock = utc_now,
    streamed: Sequence[Event] = (),
) -> tuple[dict[str, Any], list[OpenRequest]]:
    """Return what makes up the snapshot of an idle run but for its requests, and the requests.

    A `snapshot` is made of these: see the example of `pause`.

    Args:
        handler: The run.
        state: The state that it is idle in.
        types: Classes of values in the run that the workflow's own code does not name.
        clock: Where the time comes from.
        streamed: What was read from its stream.
    """
    workflow = handler._workflow  # noqa: SLF001 - the handler's own
    serializer = serializer_for(workflow, types)
    _forget_closed(state)
    context = context_to_dict(lambda s: without_older(serialized(handler, state, s)), serializer)
    resumed = _RESUMED.get(handler, _Resumed())
    lister = _Lister(workflow, serializer, handler.run_id, resumed, clock)
    requests = lister.open_requests(state, session_of(handler, streamed))
    taken = {
        "run_id": handler.run_id,
        "workflow": workflow.workflow_name,
        "workflow_version": _version_of(workflow),
        "packages": _packages(),
        "paused_at": clock(),
        "fingerprint": fingerprint_of(workflow),
        "plain_asked": lister.asked,
        "context": context,
    }
    return taken, requests


def _forget_closed(state: BrokerState) -> None:
    """Take out the waiters for requests of children that are closed.

    Upstream lets a waiter go only when its step completes, and a child may ask any number of times.
    """
    for worker in state.workers.values():
        closed: set[str] = set()
        for memory in newest_of_all(worker.collected_events):
            closed.update(cast("list[str]", memory.get("closed", [])))
        waiters = worker.collected_waiters
        worker.collected_waiters = [w for w in waiters if w.waiter_id not in closed]


def _version_of(workflow: Workflow) -> str | None:
    version = getattr(workflow, "snapshot_version", None)
    return None if version is None else str(version)


@lru_cache(maxsize=1)
def _packages() -> dict[str, str]:
    names = ("llama-index-hitl", "llama-index-workflows", "llama-index-core", "pydantic")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


class _Lister:
    """Finds the open questions of an idle run."""

    def __init__(
        self,
        workflow: Workflow,
        serializer: SnapshotSerializer,
        run_id: str,
        resumed: _Resumed,
        clock: Clock,
    ) -> None:
        self._workflow = workflow
        self._serializer = serializer
        self._run_id = run_id
        self._before = list(resumed.plain)
        self._clock = clock
        self.asked = resumed.asked

    def open_requests(self, state: BrokerState, session: Session) -> list[OpenRequest]:
        """Return every open question, oldest first."""
        waits = waits_of(state, session)
        plain = [wait for wait in waits if not _is_ours(wait)]
        questions = [q for q in session.questions if not isinstance(q, ReviewRequestEvent)]
        if self._answer_types():
            free = questions
        else:
            # No step takes an answer: what was asked beside a wait that asks nothing is its
            # question, and what is left over waits for nobody.
            plain, free = _with_words(plain, questions), []
        found = [
            *self._of_gates(state),
            *self._of_asks(state, waits),
            *self._of_children(state, waits),
            *(self._of_wait(wait, session) for wait in plain),
            *self._of_events(free, session),
        ]
        # Of one instant by their titles: ids are random, and a rerun should look the same.
        return sorted(found, key=lambda r: (r.request.created_at, r.request.title, r.request_id))

    def _of_gates(self, state: BrokerState) -> Iterable[OpenRequest]:
        steps = {gate.step_name for gate in gates_of(self._workflow).values()}
        for step_id, worker in state.workers.items():
            if str(step_id) not in steps:
                continue
            for event in worker.collected_events.get(BUFFER, ()):
                for review in event.get("memory")["open"].values():
                    yield OpenRequest.model_validate(
                        {
                            "record": review["record"],
                            "asked_by": "gate",
                            "answer_type": _name_of(ReviewResponseEvent),
                        },
                        context=UNCHECKED,
                    )

    def _of_asks(self, state: BrokerState, waits: Sequence[Wait]) -> Iterable[OpenRequest]:
        asks = {w.waiter_id for w in waits if w.event_type is ReviewResponseEvent}
        for worker in state.workers.values():
            for buffer_id, events in worker.collected_events.items():
                if not buffer_id.startswith(f"{BUFFER}:"):
                    continue
                for event in events:
                    kept = event.get("memory", None) or {}
                    if kept.get("request_id") in asks and "decision" not in kept:
                        request = ReviewRequest.model_validate(kept, context=UNCHECKED)
                        yield OpenRequest(
                            record=open_record(request),
                            asked_by="ask",
                            waiter_id=request.request_id,
                            answer_type=_name_of(ReviewResponseEvent),
                            requirements={"request_id": request.request_id},
                        )

    def _of_children(self, state: BrokerState, waits: Sequence[Wait]) -> Iterable[OpenRequest]:
        """Yield what runs within this one ask; a step of this one waits on behalf of each."""
        asked: dict[str, OpenRequest] = {}
        for worker in state.workers.values():
            for memory in newest_of_all(worker.collected_events):
                asked.update((r.request_id, r) for r in requests_of_child(memory))
        for wait in waits:
            found = asked.get(wait.waiter_id)
            if found is not None and wait.event_type is ReviewResponseEvent:
                yield OpenRequest(
                    record=found.record,
                    asked_by="child",
                    step=wait.step,
                    waiter_id=wait.waiter_id,
                    answer_type=_name_of(ReviewResponseEvent),
                    requirements={"request_id": wait.waiter_id},
                )

    def _of_wait(self, wait: Wait, session: Session) -> OpenRequest:
        place = (wait.step, wait.waiter_id)
        if place not in session.waits:  # else it is another question than before
            for known in self._before:
                if (known.step, known.waiter_id) == place:
                    return known
        self._must_be_known(wait)
        requirements = self._serializer.serialize_value(dict(wait.requirements))
        return OpenRequest(
            record=open_record(
                self._plain(WAIT_GATE, wait.question, wait.event_type, wait.requirements)
            ),
            asked_by=WAIT_GATE,
            step=wait.step,
            waiter_id=wait.waiter_id,
            answer_type=_name_of(wait.event_type),
            requirements=cast("dict[str, JsonValue]", requirements),
        )

    def _must_be_known(self, wait: Wait) -> None:
        """Refuse a wait for an event that a restored run could not find the class of.

        Raises:
            UnserializableState: It is one.
        """
        name = _name_of(wait.event_type)
        try:
            self._serializer.resolve_class(name)
        except SnapshotError:
            problem = FieldProblem(f"{wait.step}.wait_for_event", f"{name} is not a known class")
            raise UnserializableState([problem]) from None

    def _of_events(self, questions: Sequence[Event], session: Session) -> list[OpenRequest]:
        """Return the plain questions that a step takes the answers to.

        Nothing ties an answer to a question there. What was told from outside in this process
        answers the oldest.
        """
        kinds = self._answer_types()
        answered_by = min(kinds, key=lambda kind: kind.__name__, default=HumanResponseEvent)
        known = [r for r in self._before if r.asked_by == EVENT_GATE]
        for question in questions:
            request = self._plain(EVENT_GATE, question, answered_by, {})
            known.append(
                OpenRequest(
                    record=open_record(request),
                    asked_by=EVENT_GATE,
                    answer_type=_name_of(answered_by),
                )
            )
        told = sum(type(event) is answered_by for event in session.told)
        return known[told:]

    def _answer_types(self) -> set[type[Event]]:
        """Return the events that the workflow's own steps take for an answer."""
        gates = {gate.step_name for gate in gates_of(self._workflow).values()}
        return {
            kind
            for step, accepted in events_taken(self._workflow).items()
            if step not in gates
            for kind in accepted
            if issubclass(kind, HumanResponseEvent)
        }

    def _plain(
        self,
        gate: str,
        question: Event | None,
        answered_by: type[Event],
        requirements: Mapping[str, Any],
    ) -> ReviewRequest:
        number, self.asked = self.asked, self.asked + 1
        return plain_request(
            gate,
            question=question,
            answered_by=answered_by,
            requirements=requirements,
            run_id=self._run_id,
            origin=origin_of(self._run_id),
            workflow=self._workflow.workflow_name,
            number=number,
            at=self._clock(),
        )


def _with_words(waits: Sequence[Wait], questions: Sequence[Event]) -> list[Wait]:
    """Give the waits that ask nothing themselves what was asked beside them, in order."""
    words = iter(questions)
    return [
        wait if wait.question is not None else replace(wait, question=next(words, None))
        for wait in waits
    ]


def _is_ours(wait: Wait) -> bool:
    return wait.event_type in get_args(Told) or wait.waiter_id.startswith("aside-")


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__name__}"


def requests_of_child(memory: Mapping[str, Any]) -> Sequence[OpenRequest]:
    """Return what a run asks that a step keeps; nothing, if the step keeps something else.

    What a paused run asks, and the runs within it: see the example of `pause`.

    Args:
        memory: What the step keeps.
    """
    text = memory.get("paused")
    if not isinstance(text, str):
        return ()
    requests = json.loads(text)["requests"]
    return [OpenRequest.model_validate(request, context=UNCHECKED) for request in requests]


# --------------------------------------------------------------------------- resume


def resume(
    workflow: Workflow,
    paused: PausedRun,
    answers: Sequence[Answer] = (),
    *,
    migrations: Sequence[Migration] = (),
    types: Iterable[type] = (),
) -> WorkflowHandler:
    """Go on with a paused run, in this or in another process.

    Each answer reaches the question that it names and nothing else; questions without an answer
    stay open. What stood before a question is not run again. Must be called in an event loop.

    The run lives in this process again: a crash loses what it does from here on, but not `paused`,
    if you have kept it.

    Args:
        workflow: The workflow, a new instance of the same class or of one that fits.
        paused: The paused run. It stays as it is: resuming it twice runs everything after it twice,
            which a `Runner` with its store prevents.
        answers: Answers, in the order in which they were given.
        migrations: What makes runs that were paused by older code fit.
        types: Classes of values in the run that the workflow's own code does not name.

    Returns:
        The running handler. The run keeps its id.

    Raises:
        IncompatibleSnapshot: The run does not fit the workflow's code; no answer is consumed.
        SnapshotError: It cannot be read.
        AnswerRefused: An answer does not count; none is consumed.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> async def main():
        ...     paused = await pause(DraftApproval().run(topic="mice", content="Mice are small."))
        ...     yes = Answer.to(paused.requests[0].request, Approve(), by="erin", at=utc_now())
        ...     return await resume(DraftApproval(), paused, [yes])
        >>> asyncio.run(main()).status.value
        'approved'
    """
    fitting = fit(workflow, paused, migrations, types=types)
    records = {r.request_id: r.record for r in fitting.requests}
    for answer in answers:
        if (record := records.get(answer.request_id)) is None:
            raise UnknownRequest(answer.request_id)
        check_decision(record.request, answer.decision)
        records[answer.request_id] = take_answer(record, answer)
    told = [ReviewResponseEvent(answer=answer) for answer in answers]
    with using_migrations(migrations):
        return restore(workflow, fitting, told, types=types)


def fit(
    workflow: Workflow,
    paused: PausedRun,
    migrations: Sequence[Migration] = (),
    *,
    name: str | None = None,
    types: Iterable[type] = (),
) -> PausedRun:
    """Return a paused run as the workflow's present code needs it.

    Args:
        workflow: The workflow.
        paused: The run.
        migrations: Those for this workflow, by any of its names, are applied.
        name: What the workflow is called beside its own name and that of its class.
        types: Classes of values in the run that the workflow's own code does not name.

    Raises:
        IncompatibleSnapshot: It does not fit, and no migration makes it.
        SnapshotError: A migration could not read it.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> async def main():
        ...     paused = await pause(DraftApproval().run(topic="mice", content="Mice are small."))
        ...     return fit(DraftApproval(), paused) == paused
        >>> asyncio.run(main())
        True
    """
    now = fingerprint_of(workflow)
    if paused.fingerprint.digest == now.digest:
        return paused
    names = {workflow.workflow_name, type(workflow).__name__, name}
    plain = [r for r in paused.requests if r.is_plain]
    migrated = apply(
        migrations,
        names,
        paused.workflow_version,
        paused.context,
        paused.fingerprint,
        serializer=serializer_for(workflow, types),
        waits=[Waited(r.step, r.waiter_id, r.answer_type) for r in plain],
    )
    occurring = occurring_types(migrated.context) | {wait.answer_type for wait in migrated.waits}
    reviewed = reviewed_types(migrated.context)
    if found := differences(migrated.fingerprint, now, occurring=occurring, reviewed=reviewed):
        raise IncompatibleSnapshot(name or workflow.workflow_name, found)
    if not migrated.applied:
        return paused
    requests = [r for r in paused.requests if not r.is_plain]
    requests += [
        r.model_copy(update=wait._asdict()) for r, wait in zip(plain, migrated.waits, strict=True)
    ]
    changed = {
        "context": migrated.context,
        "workflow_version": migrated.version,
        "fingerprint": now,
        "requests": requests,
        "digest": "",
    }
    return PausedRun.model_validate({**dict(paused), **changed})


def restore(
    workflow: Workflow,
    paused: PausedRun,
    told: Sequence[Told],
    *,
    types: Iterable[type] = (),
    refused: list[ReviewRefusedEvent] | None = None,
) -> WorkflowHandler:
    """Start a paused run that fits, with what it is told in place.

    Args:
        workflow: The workflow.
        paused: The run.
        told: What it is told, in order.
        types: Classes of values in the run that the workflow's own code does not name.
        refused: Takes what cannot be told, and the rest is told; None: nothing is told then.

    Returns:
        The running handler. The run keeps its id.

    Raises:
        UnknownRequest: It is told about a request that it does not have.
        InvalidAnswer: A plain answer does not fit the event that is waited for.
        SnapshotError: The context cannot be read.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> async def main():
        ...     paused = await pause(DraftApproval().run(topic="mice", content="Mice are small."))
        ...     [asked] = paused.requests
        ...     said = ReviewRequestEvent(request=asked.request).answer(Approve(), by="erin")
        ...     return await restore(DraftApproval(), paused, [said])
        >>> asyncio.run(main()).status.value
        'approved'
    """
    serializer = serializer_for(workflow, types)
    delivery = Delivery(workflow, paused.context, serializer)
    asked = {request.request_id: request for request in paused.requests}
    answered = set()
    for event in told:
        try:
            _deliver(delivery, serializer, asked.get(event.request_id), event)
        except AnswerRefused as error:
            if refused is None:
                raise
            refused.append(_refusal(event, error))
        else:
            answered.add(event.request_id)
    try:
        context: Context[Any] = Context.from_dict(workflow, delivery.context, serializer)
    except (ContextSerdeError, AttributeError, KeyError, TypeError) as error:
        raise SnapshotError(
            f"The paused run {paused.run_id} cannot be restored: {error}"
        ) from error
    handler = workflow.run(ctx=context, run_id=paused.run_id)
    plain = [r for r in paused.requests if r.is_plain and r.request_id not in answered]
    kept = {(r.step, r.waiter_id): r.requirements for r in plain}

    def requirements(step: str, waiter_id: str, event_type: type[Event]) -> Mapping[str, Any]:
        if event_type is ReviewResponseEvent:
            return {"request_id": waiter_id}  # how `ask` and `run_child` name their waits
        if event_type in get_args(Told):
            return {"request_id": waiter_id.rpartition(":")[0]}
        required = serializer.deserialize_value(kept.get((step, waiter_id), {}))
        return cast("Mapping[str, Any]", required)

    require_again(handler, requirements)
    _RESUMED[handler] = _Resumed(plain=plain, asked=paused.plain_asked)
    return handler


def _refusal(event: Told, error: AnswerRefused) -> ReviewRefusedEvent:
    return ReviewRefusedEvent(
        request_id=event.request_id,
        code=error.code,
        reason=str(error),
        problems=error.problems,
        by=event.answer.by.id if isinstance(event, ReviewResponseEvent) else None,
    )


def _deliver(
    delivery: Delivery,
    serializer: SnapshotSerializer,
    request: OpenRequest | None,
    event: Told,
) -> None:
    """Put what a run is told where it waits for it."""
    if request is None or not request.is_plain:
        if not delivery.to_question(event):
            delivery.to_gate(event)
        return
    if not isinstance(event, ReviewResponseEvent):
        raise UnknownRequest(event.request_id)
    kind = serializer.resolve_class(request.answer_type)
    requirements = serializer.deserialize_value(dict(request.requirements))
    plain = plain_answer(event.answer, kind, requirements)
    if request.waiter_id is not None:
        delivery.to_wait(request.waiter_id, plain, step=request.step)
    else:
        delivery.to_steps(plain)
