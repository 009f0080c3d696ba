"""The errors of this package: few, precise, each with what was found and what to do.

All inherit `HitlError`. Those that speak of one answer inherit `AnswerRefused`: the request that
the answer was meant for stays exactly as it was, and can still be answered unless the error says
that it is closed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL
from typing import ClassVar


class HitlError(Exception):
    """Root of every error that this package raises on purpose.

    Example:
        >>> from llama_index_hitl.runner import Runner
        >>> from llama_index_hitl.stores import MemoryStore
        >>> async def main():
        ...     try:
        ...         await Runner(MemoryStore()).get_run("r-1")
        ...     except HitlError as error:  # each says what was found, and what to do
        ...         print(f"{type(error).__name__}: {error}")
        >>> asyncio.run(main())
        UnknownRun: There is no run 'r-1' in this store. Look it up with Runner.runs(), and
        check that this is the store that it was started with.
    """


class TimeoutWarning(UserWarning):
    """A workflow with a time limit is about to wait for people: the limit will kill the run.

    Example:
        >>> import warnings
        >>> warnings.filterwarnings("error", category=TimeoutWarning)  # in your tests
    """


@dataclass(frozen=True)
class FieldProblem:
    """One thing that is wrong in an answer.

    Attributes:
        field: Dotted path of the field, such as `subject.amount`; empty for the answer as a whole.
        message: What is wrong, as a sentence fragment for people.

    Example:
        >>> print(FieldProblem("subject.amount", "must be a number"))
        subject.amount: must be a number
    """

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class AnswerRefused(HitlError):
    """An answer was not taken. Nothing changed.

    Attributes:
        code: Stable name of the kind of refusal, for programs.
        request_id: The request that the answer named, if it named one.
        problems: What is wrong, field by field; empty where no single field is to blame.

    Example:
        >>> from llama_index_hitl.lifecycle import open_record, take_answer
        >>> at = utc_now()
        >>> request = ReviewRequest(
        ...     request_id="r-1", title="Publish?", policy={"reviewers": ["erin"]}, created_at=at
        ... )
        >>> try:
        ...     take_answer(open_record(request), Answer.to(request, Approve(), by="bob", at=at))
        ... except AnswerRefused as error:  # whatever the kind
        ...     print(error.code, error.request_id)
        not_allowed r-1
    """

    code: ClassVar[str] = "refused"

    def __init__(
        self,
        message: str,
        *,
        request_id: str | None = None,
        problems: Iterable[FieldProblem] = (),
    ) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.problems = tuple(problems)


class InvalidAnswer(AnswerRefused, ValueError):
    """The answer does not fit the request; the request stays open.

    Example:
        >>> from llama_index_hitl.forms import parse_answer
        >>> request = ReviewRequest(request_id="r-1", title="Publish?", created_at=utc_now())
        >>> parse_answer(request, "yes", by=Reviewer(id="erin"), at=utc_now())
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.InvalidAnswer: The answer to r-1 is not valid: decision: 'yes'
        is not one of: approve, reject. Correct it and answer again; the request is still
        open.
    """

    code = "invalid_answer"

    def __init__(self, request_id: str | None, problems: Iterable[FieldProblem]) -> None:
        found = tuple(problems)
        listed = "; ".join(str(problem) for problem in found)
        super().__init__(
            f"The answer to {request_id or 'no request'} is not valid: {listed}. "
            "Correct it and answer again; the request is still open.",
            request_id=request_id,
            problems=found,
        )


class UnknownRequest(AnswerRefused, LookupError):
    """No request has that id: it was mistyped, belongs to another run, or was never asked.

    Example:
        >>> from llama_index_hitl.runner import Runner
        >>> from llama_index_hitl.stores import MemoryStore
        >>> asyncio.run(Runner(MemoryStore()).answer("r-7", Approve(), by="erin"))
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.UnknownRequest: There is no request 'r-7' here, or it was
        closed too long ago to be remembered. Answer with the request_id of a request that
        this run has asked.
    """

    code = "unknown_request"

    def __init__(self, request_id: str | None) -> None:
        super().__init__(
            f"There is no request {request_id!r} here, or it was closed too long ago to be "
            "remembered. Answer with the request_id of a request "
            "that this run has asked.",
            request_id=request_id,
        )


class AlreadyAnswered(AnswerRefused):
    """The request was decided, or this person has voted, before this different answer came.

    Attributes:
        by: Id of the person or rule whose answer stands.
        at: When that answer was given.
        status: How the request stands now.

    Example:
        >>> from datetime import UTC, datetime
        >>> at = datetime(2026, 1, 5, 9, tzinfo=UTC)
        >>> print(AlreadyAnswered("r-1", status="approved", by="erin", at=at))
        Request r-1 was answered by erin at 2026-01-05T09:00:00+00:00 and is approved; the
        first valid answer stands.
    """

    code = "already_answered"

    def __init__(self, request_id: str, *, status: str, by: str, at: datetime) -> None:
        super().__init__(
            f"Request {request_id} was answered by {by} at {at.isoformat()} and is {status}; "
            "the first valid answer stands.",
            request_id=request_id,
        )
        self.status = status
        self.by = by
        self.at = at


class NotAllowed(AnswerRefused, PermissionError):
    """This person may not answer this request.

    Attributes:
        by: Id of the person.
        reason: Why not, to complete "X may not answer: ...".

    Example:
        >>> error = NotAllowed("r-1", by="bob", reason="he asked for it himself")
        >>> print(error)
        bob may not answer r-1: he asked for it himself.
    """

    code = "not_allowed"

    def __init__(self, request_id: str, *, by: str, reason: str) -> None:
        super().__init__(f"{by} may not answer {request_id}: {reason}.", request_id=request_id)
        self.by = by
        self.reason = reason


class StaleRequest(AnswerRefused):
    """The answer is about something that is no longer what the request shows.

    Attributes:
        reason: What is no longer so.

    Example:
        >>> from llama_index_hitl.lifecycle import open_record, take_answer
        >>> at = utc_now()
        >>> shown = ReviewRequest(request_id="r-1", title="Pay 40?", created_at=at)
        >>> now = ReviewRequest(request_id="r-1", title="Pay 4000?", created_at=at)
        >>> try:
        ...     take_answer(open_record(now), Answer.to(shown, Approve(), by="erin", at=at))
        ... except StaleRequest as error:
        ...     print(error.code)
        stale_request
    """

    code = "stale_request"

    def __init__(self, request_id: str, *, reason: str) -> None:
        super().__init__(
            f"The answer to {request_id} is stale: {reason}. Look at the request again and decide "
            "on what it shows now.",
            request_id=request_id,
        )
        self.reason = reason


class RequestClosed(StaleRequest):
    """The request was closed without a decision: withdrawn, or another one took its place.

    Attributes:
        status: How it was closed.
        superseded_by: The request that took its place, if one did.

    Example:
        >>> error = RequestClosed("r-1", reason="it was withdrawn by erin", status="withdrawn")
        >>> error.status, error.superseded_by
        ('withdrawn', None)
    """

    def __init__(
        self, request_id: str, *, reason: str, status: str, superseded_by: str | None = None
    ) -> None:
        super().__init__(request_id, reason=reason)
        self.status = status
        self.superseded_by = superseded_by


class RequestExpired(AnswerRefused):
    """The answer came at or after the deadline; it was not counted.

    Attributes:
        deadline: When it expired, time zone included.

    Example:
        >>> from datetime import UTC, datetime
        >>> print(RequestExpired("r-1", deadline=datetime(2026, 1, 5, 9, tzinfo=UTC)))
        Request r-1 expired at 2026-01-05T09:00:00+00:00; the answer came too late.
    """

    code = "expired"

    def __init__(self, request_id: str, *, deadline: datetime) -> None:
        super().__init__(
            f"Request {request_id} expired at {deadline.isoformat()}; the answer came too late.",
            request_id=request_id,
        )
        self.deadline = deadline


class InvalidTransition(HitlError):
    """A request was told to do something that its state does not allow.

    Attributes:
        status: How the request stands.
        command: What it was told to do.

    Example:
        >>> from llama_index_hitl.lifecycle import Command, next_status
        >>> next_status(RequestStatus.APPROVED, Command.WITHDRAW)
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.InvalidTransition: A request that is approved cannot withdraw.
    """

    def __init__(self, status: str, command: str) -> None:
        super().__init__(f"A request that is {status} cannot {command}.")
        self.status = status
        self.command = command


class GateError(HitlError, TypeError):
    """A gate is declared in a way that cannot work; raised when the class is made.

    Example:
        >>> from workflows.events import StartEvent
        >>> Review(StartEvent, max_revisions=3)
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.GateError: max_revisions= needs revise=, the event that asks
        for a new draft.
    """


class SubjectError(HitlError, TypeError):
    """The subject cannot be reviewed: its values do not survive being written as JSON.

    Example:
        >>> from llama_index_hitl.prebuilt import Escalation, EscalationNeeded
        >>> needed = EscalationNeeded(reason="?", context="A refund", suggested_action="Wait")
        >>> Escalation(needed=needed, catgory="legal").facts()
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.SubjectError: Escalation has no field catgory. Declare facts
        in a subclass, and give the gate event= that class.
    """


class AmbiguousRevision(HitlError):
    """A new draft came and several earlier ones wait for a revision.

    Attributes:
        gate: Name of the gate.
        waiting: Ids of the requests that were sent back and wait.

    Example:
        >>> error = AmbiguousRevision("editor", ["r-1", "r-2"])
        >>> print(error)
        Gate 'editor' cannot tell which of r-1, r-2 the new draft revises. Give the gate
        key='field that names the thing under review', or build the draft with
        revision_of=event.request_id.
    """

    def __init__(self, gate: str, waiting: Iterable[str]) -> None:
        self.gate = gate
        self.waiting = tuple(waiting)
        super().__init__(
            f"Gate {gate!r} cannot tell which of {', '.join(self.waiting)} the new draft revises. "
            "Give the gate key='field that names the thing under review', or build the draft with "
            "revision_of=event.request_id."
        )


class MissingApprovals(HitlError):
    """A gate must bar the approvers of an earlier stage and cannot see who they were.

    Attributes:
        gate: Name of the gate.
        stages: The stages whose approvers it cannot see.

    Example:
        >>> error = MissingApprovals("editor", ["legal"])
        >>> print(error)
        Gate 'editor' is distinct from legal, but the event that reached it does not carry
        that stage's approvals. Review the approved event of that stage, or build your event
        with approvals=event.approvals. The other stages of this workflow are: none.
    """

    def __init__(self, gate: str, stages: Iterable[str], known: Iterable[str] = ()) -> None:
        self.gate = gate
        self.stages = tuple(stages)
        super().__init__(
            f"Gate {gate!r} is distinct from {', '.join(self.stages)}, but the event that reached "
            "it does not carry that stage's approvals. Review the approved event of that stage, "
            "or build your event with approvals=event.approvals. The other stages of this "
            f"workflow are: {', '.join(known) or 'none'}."
        )


class QuestionError(HitlError, ValueError):
    """A request cannot be asked inline with `ask`.

    Example:
        >>> Question(title="Go?", decisions=["escalate"]).allowed
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.QuestionError: escalate cannot be asked inline; use a gate.
    """


class ToolError(HitlError, TypeError):
    """A tool is guarded, or called, in a way that cannot work.

    Example:
        >>> from llama_index_hitl.agents import require_approval
        >>> require_approval("transfer")
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.ToolError: require_approval needs a tool or a function, not
        'transfer'.
    """


class RejectedTooOften(HitlError):
    """An agent made a call again that people, or rules, had rejected too often; it was stopped.

    Attributes:
        tool: Name of the tool.
        times: How often the call was rejected.

    Example:
        >>> error = RejectedTooOften("transfer", 3)
        >>> print(error)
        The agent called transfer again with arguments that were rejected 3 times. It was
        stopped. Tell it in its prompt what to do when a call is rejected, or raise
        max_rejections of require_approval.
    """

    def __init__(self, tool: str, times: int) -> None:
        super().__init__(
            f"The agent called {tool} again with arguments that were rejected {times} times. It "
            "was stopped. Tell it in its prompt what to do when a call is rejected, or raise "
            "max_rejections of require_approval."
        )
        self.tool = tool
        self.times = times


class MissingExtra(HitlError, ImportError):
    """An optional dependency is not installed.

    Attributes:
        extra: The extra of this package that installs it.

    Example:
        >>> print(MissingExtra("rich", extra="cli", purpose="the terminal reviewer"))
        rich is needed for the terminal reviewer and is not installed. Run: pip install
        'llama-index-hitl[cli]'
    """

    def __init__(self, module: str, *, extra: str, purpose: str) -> None:
        super().__init__(
            f"{module} is needed for {purpose} and is not installed. "
            f"Run: pip install 'llama-index-hitl[{extra}]'"
        )
        self.extra = extra


class Unanswered(HitlError):
    """The person left, or input ended, before the request was answered. It is still open.

    Attributes:
        request_id: The request that stays open.
        reason: Why, to complete "was left unanswered: ...".

    Example:
        >>> import io
        >>> from llama_index_hitl.console import ConsoleReviewer
        >>> desk = ConsoleReviewer(reviewer="erin", stdin=io.StringIO(""), stdout=io.StringIO())
        >>> request = ReviewRequest(request_id="r-1", title="Publish?", created_at=utc_now())
        >>> asyncio.run(desk.review(request))
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.Unanswered: Request r-1 was left unanswered: input ended. It
        is still open.
    """

    def __init__(self, request_id: str, reason: str) -> None:
        super().__init__(f"Request {request_id} was left unanswered: {reason}. It is still open.")
        self.request_id = request_id
        self.reason = reason


class StoreError(HitlError):
    """The store cannot be reached, or holds something that it cannot read.

    Example:
        >>> from llama_index_hitl.stores import SqlStore
        >>> SqlStore("sqlite://")
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.StoreError: SQLite in memory would lose what it holds with
        each connection. Use MemoryStore() in a test, or name a file.
    """


class Conflict(StoreError):
    """What was to be changed is no longer as it was read: somebody else was first. Read again.

    The example of `Commit` raises one.
    """


class UnknownRun(HitlError, LookupError):
    """No run has that id.

    Attributes:
        run_id: The id that was asked for.

    Example:
        >>> from llama_index_hitl.runner import Runner
        >>> from llama_index_hitl.stores import MemoryStore
        >>> asyncio.run(Runner(MemoryStore()).get_run("r-1"))
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.UnknownRun: There is no run 'r-1' in this store. Look it up
        with Runner.runs(), and check that this is the store that it was started with.
    """

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"There is no run {run_id!r} in this store. Look it up with Runner.runs(), and check "
            "that this is the store that it was started with."
        )
        self.run_id = run_id


class RunExists(HitlError):
    """A run is to be started under an id that belongs to a run of another workflow.

    Attributes:
        run_id: The id.
        workflow: The workflow of the run that has it.

    Example:
        >>> print(RunExists("r-1", workflow="draft"))
        There is a run 'r-1' of workflow 'draft' already. Give the new run an id of its own,
        or none.
    """

    def __init__(self, run_id: str, *, workflow: str) -> None:
        super().__init__(
            f"There is a run {run_id!r} of workflow {workflow!r} already. Give the new run an id "
            "of its own, or none."
        )
        self.run_id = run_id
        self.workflow = workflow


class NothingAsked(HitlError):
    """Nothing in a run can go on, and it asks nobody: it would wait for ever.

    Example:
        >>> print(NothingAsked("r-1"))
        Nothing in run r-1 can go on, and it asks nobody. A step that returned None has ended
        its branch, or an event that is collected or waited for never comes.
    """

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"Nothing in run {run_id} can go on, and it asks nobody. A step that returned None has "
            "ended its branch, or an event that is collected or waited for never comes."
        )


class UnknownWorkflow(HitlError, LookupError):
    """The runner was not given the code of a workflow.

    Attributes:
        workflow: Name of the workflow.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.runner import Runner
        >>> from llama_index_hitl.stores import MemoryStore
        >>> asyncio.run(Runner(MemoryStore(), {"draft": DraftApproval()}).start("daft"))
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.UnknownWorkflow: This runner has no workflow 'daft' (it has:
        draft). Give it to the runner under that name; a runner without it can list and
        answer, but not advance.
    """

    def __init__(self, workflow: str, known: Iterable[str]) -> None:
        listed = ", ".join(sorted(known)) or "none"
        super().__init__(
            f"This runner has no workflow {workflow!r} (it has: {listed}). Give it to the runner "
            "under that name; a runner without it can list and answer, but not advance."
        )
        self.workflow = workflow


class RunBusy(HitlError):
    """Somebody else is at work on the run.

    Attributes:
        run_id: The run.
        owner: Who holds the lease.
        until: When the lease ends.

    Example:
        >>> from datetime import UTC, datetime
        >>> print(RunBusy("r-1", owner="worker-7", until=datetime(2026, 1, 5, 9, tzinfo=UTC)))
        Run r-1 is being advanced by worker-7 until 2026-01-05T09:00:00+00:00. Try again
        later.
    """

    def __init__(self, run_id: str, *, owner: str | None, until: datetime | None) -> None:
        said = f" until {until.isoformat()}" if until else ""
        super().__init__(f"Run {run_id} is being advanced by {owner}{said}. Try again later.")
        self.run_id = run_id
        self.owner = owner
        self.until = until


class LeaseLost(HitlError):
    """The run was taken over by somebody else while this runner was at work on it.

    Nothing of this runner's work was stored.

    Attributes:
        run_id: The run.

    Example:
        >>> print(LeaseLost("r-1"))
        Run r-1 was taken over while it was advanced here; what was done here is not stored.
        Give the runner a longer lease if this happens often.
    """

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"Run {run_id} was taken over while it was advanced here; what was done here is not "
            "stored. Give the runner a longer lease if this happens often."
        )
        self.run_id = run_id


class StillWaiting(HitlError):
    """The run has no result yet.

    Attributes:
        run_id: The run.
        status: How it stands.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.runner import Runner
        >>> from llama_index_hitl.stores import MemoryStore
        >>> async def main():
        ...     runner = Runner(MemoryStore(), {"draft": DraftApproval()})
        ...     run = await runner.start("draft", topic="mice", content="Mice are small.")
        ...     try:
        ...         await runner.result(run.run_id)
        ...     except StillWaiting as error:
        ...         return error.status
        >>> asyncio.run(main())
        <RunStatus.WAITING: 'waiting'>
    """

    def __init__(self, run_id: str, *, status: str, open_requests: Iterable[str] = ()) -> None:
        waits = ", ".join(open_requests)
        if waits:
            said = f"; it waits for {waits}"
        elif status == "waiting":
            said = "; nothing is left to answer, so let it go on with advance() or recover()"
        else:
            said = ""
        super().__init__(f"Run {run_id} has no result: it is {status}{said}.")
        self.run_id = run_id
        self.status = status


class RunFailed(HitlError):
    """A step of the run raised an error. Its answers are kept, and it can be tried again.

    Attributes:
        run_id: The run.
        error_type: Name of the class of the error.
        error_message: What the error said.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.runner import Runner
        >>> from llama_index_hitl.stores import MemoryStore
        >>> class Broken(DraftApproval):
        ...     async def generate(self, topic):
        ...         raise ValueError("out of ideas")
        >>> async def main():
        ...     runner = Runner(MemoryStore(), {"draft": Broken()})
        ...     await runner.start("draft", run_id="r-1", topic="mice")
        ...     await runner.result("r-1")
        >>> asyncio.run(main())
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.RunFailed: Run r-1 failed: ValueError: out of ideas. No answer
        is lost. When the cause is mended, Runner.retry() goes on from the last snapshot.
    """

    def __init__(self, run_id: str, *, error_type: str, error_message: str) -> None:
        super().__init__(
            f"Run {run_id} failed: {error_type}: {error_message.rstrip('.')}. No answer is lost. "
            "When the cause is mended, Runner.retry() goes on from the last snapshot."
        )
        self.run_id = run_id
        self.error_type = error_type
        self.error_message = error_message


class RunEnded(HitlError):
    """The run is over, so this cannot be done to it.

    Attributes:
        run_id: The run.
        status: How it ended.

    Example:
        >>> print(RunEnded("r-1", status="cancelled", wanted="cancelled"))
        Run r-1 is cancelled; it cannot be cancelled.
    """

    def __init__(self, run_id: str, *, status: str, wanted: str) -> None:
        super().__init__(f"Run {run_id} is {status}; it cannot be {wanted}.")
        self.run_id = run_id
        self.status = status


class SnapshotError(HitlError):
    """A snapshot cannot be read: its format is unknown, or it is damaged.

    Example:
        >>> from llama_index_hitl.snapshots import PausedRun
        >>> PausedRun.model_validate_json('{"format": "something else"}')
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.SnapshotError: This is no paused run: its format is 'something
        else'.
    """


class IncompatibleSnapshot(SnapshotError):
    """A paused run no longer fits the code of its workflow. No answer was consumed.

    Attributes:
        workflow: Name of the workflow.
        differences: What is different, one sentence each.

    Example:
        >>> from llama_index_hitl.prebuilt import CodeReview, DraftApproval
        >>> from llama_index_hitl.snapshots import pause, resume
        >>> async def main():
        ...     paused = await pause(DraftApproval().run(topic="mice", content="Mice are small."))
        ...     try:
        ...         resume(CodeReview(), paused)
        ...     except IncompatibleSnapshot as error:
        ...         return error.differences[0]
        >>> asyncio.run(main())
        "Step 'approval_gate' is gone."
    """

    def __init__(self, workflow: str, differences: Iterable[str]) -> None:
        self.workflow = workflow
        self.differences = tuple(differences)
        listed = "\n".join(f"- {difference}" for difference in self.differences)
        super().__init__(
            f"The paused run does not fit {workflow} any more:\n{listed}\n"
            "Register a Migration for it, or resume it with the code that paused it."
        )


class UnserializableState(SnapshotError):
    """Something in a run would not survive being stored; the run was not paused.

    Attributes:
        problems: What, and where: one `key: reason` for each.

    Example:
        >>> error = UnserializableState([FieldProblem("bank", "a Socket cannot be stored")])
        >>> [problem.field for problem in error.problems]
        ['bank']
    """

    def __init__(self, problems: Iterable[FieldProblem]) -> None:
        self.problems = tuple(problems)
        listed = "; ".join(str(problem) for problem in self.problems)
        super().__init__(
            f"The run cannot be paused, for this would not survive: {listed}. Keep such things on "
            "the workflow, or name their class in `snapshot_types` of the workflow."
        )


class EffectInDoubt(HitlError):
    """An effect was begun and never finished: nobody knows whether it has happened.

    Attributes:
        key: Key of the effect.
        owner: Who began it.
        at: When.

    Example:
        >>> from datetime import UTC, datetime
        >>> at = datetime(2026, 1, 5, 9, tzinfo=UTC)
        >>> print(EffectInDoubt("r-1:pay", owner="worker-7", at=at))
        Effect r-1:pay was begun by worker-7 at 2026-01-05T09:00:00+00:00 and never finished:
        it may or may not have happened. Find out, then say with Runner.settle() whether to
        repeat or to skip it, and retry the run.
    """

    def __init__(self, key: str, *, owner: str, at: datetime) -> None:
        super().__init__(
            f"Effect {key} was begun by {owner} at {at.isoformat()} and never finished: it may or "
            "may not have happened. Find out, then say with Runner.settle() whether to repeat or "
            "to skip it, and retry the run."
        )
        self.key = key
        self.owner = owner
        self.at = at


class UnknownEffect(HitlError, LookupError):
    """No effect with that key is in doubt.

    Attributes:
        key: The key.

    Example:
        >>> from llama_index_hitl.runner import Runner
        >>> from llama_index_hitl.stores import MemoryStore
        >>> asyncio.run(Runner(MemoryStore()).settle("pay-1", by="alice", happened=True))
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.UnknownEffect: No effect 'pay-1' is in doubt.
        Runner.effects_in_doubt() lists those that are.
    """

    def __init__(self, key: str) -> None:
        super().__init__(
            f"No effect {key!r} is in doubt. Runner.effects_in_doubt() lists those that are."
        )
        self.key = key


class UnknownGrant(HitlError, LookupError):
    """There is no standing approval with that id.

    Attributes:
        grant_id: The id.

    Example:
        >>> from llama_index_hitl.runner import Runner
        >>> from llama_index_hitl.stores import MemoryStore
        >>> asyncio.run(Runner(MemoryStore()).grants.get("g-1"))
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.UnknownGrant: There is no standing approval 'g-1'.
        Runner.grants.list() shows those that there are.
    """

    def __init__(self, grant_id: str) -> None:
        super().__init__(
            f"There is no standing approval {grant_id!r}. Runner.grants.list() shows those that "
            "there are."
        )
        self.grant_id = grant_id


class InvalidGrant(HitlError, ValueError):
    """A standing approval cannot be given like this; nothing was stored.

    Attributes:
        problems: What is wrong, field by field.

    Example:
        >>> error = InvalidGrant([FieldProblem("until", "it is in the past")])
        >>> print(error)
        The standing approval is not valid: until: it is in the past. Correct it and try
        again.
    """

    def __init__(self, problems: Iterable[FieldProblem]) -> None:
        self.problems = tuple(problems)
        listed = "; ".join(str(problem) for problem in self.problems)
        super().__init__(f"The standing approval is not valid: {listed}. Correct it and try again.")


class AuditUnreadable(HitlError, ValueError):
    """A line of an exported audit trail is no row.

    Attributes:
        line: Number of the line, from 1.
        reason: What is wrong with it.

    Example:
        >>> from llama_index_hitl.audit import read
        >>> read(["no row"])
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.AuditUnreadable: Line 1 of the audit trail cannot be read:
        Expecting value: line 1 column 1 (char 0). Export the trail anew from the store; a
        line that was cut off or changed cannot be verified.
    """

    def __init__(self, line: int, *, reason: str) -> None:
        # What a hostile line holds may be as long as it likes.
        self.reason = reason if len(reason) <= 500 else reason[:500] + "…"
        self.line = line
        super().__init__(
            f"Line {line} of the audit trail cannot be read: {self.reason}. Export the trail anew "
            "from the store; a line that was cut off or changed cannot be verified."
        )


class NotifierError(HitlError, ValueError):
    """A notifier is set up in a way that cannot work; raised when it is made, or first used.

    Example:
        >>> from llama_index_hitl.notifiers import WebhookNotifier
        >>> WebhookNotifier("http://example.com/hook", "whsec_" + "QUJD" * 8)
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.NotifierError: Webhooks to example.com would go through the
        network in the clear. Use https://, or give allow_http=True if the network is yours
        alone.
    """


class NotifyFailed(HitlError):
    """A notice could not be told. It is kept, and told again later.

    Attributes:
        retry_after: How long the receiver asks to be left alone; None: it did not say.

    Example:
        >>> from datetime import timedelta
        >>> error = NotifyFailed("the mail server is busy", retry_after=timedelta(minutes=5))
        >>> error.retry_after.seconds
        300
    """

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NoticeRefused(NotifyFailed):
    """The receiver wants no such notice, now or ever: it is not told again.

    Example:
        >>> print(NoticeRefused("the channel is gone"))
        the channel is gone
    """


class WebhookInvalid(HitlError, ValueError):
    """What came in is not a webhook of the sender whose secret this is; do not act on it.

    Example:
        >>> from llama_index_hitl.notifiers import new_webhook_secret, verify_webhook
        >>> verify_webhook(b"{}", {}, new_webhook_secret(), now=utc_now())
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.WebhookInvalid: It has no webhook-id and no webhook-timestamp
        and no webhook-signature.
    """


class NotPicked(HitlError):
    """A request is to be looked at that was not picked for it: it counts for no error rate.

    Attributes:
        request_id: The request.

    Example:
        >>> print(NotPicked("r-1"))
        Request r-1 was not picked for a spot check: only what a rule approved and picked
        itself says how often the rule is wrong. Runner.spot_checks.pending() lists what was
        picked.
    """

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"Request {request_id} was not picked for a spot check: only what a rule approved and "
            "picked itself says how often the rule is wrong. Runner.spot_checks.pending() lists "
            "what was picked."
        )
        self.request_id = request_id


class AlreadyChecked(HitlError):
    """Somebody has looked at a request that was picked for it, and said something else.

    Attributes:
        request_id: The request.
        right: What they said of the rule's decision.
        by: Id of the person.
        at: When.

    Example:
        >>> from datetime import UTC, datetime
        >>> at = datetime(2026, 1, 5, 9, tzinfo=UTC)
        >>> print(AlreadyChecked("r-1", right=False, by="alice", at=at))
        Request r-1 was looked at by alice at 2026-01-05T09:00:00+00:00, who found it wrong;
        the first judgement stands.
    """

    def __init__(self, request_id: str, *, right: bool, by: str, at: datetime) -> None:
        said = "right" if right else "wrong"
        super().__init__(
            f"Request {request_id} was looked at by {by} at {at.isoformat()}, who found it {said}; "
            "the first judgement stands."
        )
        self.request_id = request_id
        self.right = right
        self.by = by
        self.at = at


class ChildNotBridged(HitlError):
    """A run in a step of another run asks a person, and nobody could see the question or answer it.

    Attributes:
        workflow: Name of the workflow that asks.

    Example:
        >>> print(ChildNotBridged("BookHotel"))
        A step waits for BookHotel to end, and BookHotel asks a person whom nobody can reach
        there. Start it with `await run_child(ctx, workflow, ...)` of
        llama_index_hitl.children, or an agent with `agent_tool`, and its questions come up.
    """

    def __init__(self, workflow: str) -> None:
        super().__init__(
            f"A step waits for {workflow} to end, and {workflow} asks a person whom nobody can "
            "reach there. Start it with `await run_child(ctx, workflow, ...)` of "
            "llama_index_hitl.children, or an agent with `agent_tool`, and its questions come up."
        )
        self.workflow = workflow


class ChildError(HitlError, RuntimeError):
    """A run in a step of another run cannot be started, or be gone on with, as it is.

    Example:
        >>> from llama_index_hitl.children import run_child
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> asyncio.run(run_child(None, DraftApproval(), topic="mice"))
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.ChildError: run_child must be called in a step, or in a tool
        of an agent.
    """


class AlreadyClaimed(HitlError):
    """Somebody else is looking at the request.

    Attributes:
        request_id: The request.
        by: Id of the person.
        until: When their claim ends, if they do not renew it.

    Example:
        >>> from datetime import UTC, datetime
        >>> print(AlreadyClaimed("r-1", by="erin", until=datetime(2026, 1, 5, 9, tzinfo=UTC)))
        erin is looking at request r-1 until 2026-01-05T09:00:00+00:00. It can be answered all
        the same, by whoever may.
    """

    def __init__(self, request_id: str, *, by: str, until: datetime) -> None:
        super().__init__(
            f"{by} is looking at request {request_id} until {until.isoformat()}. It can be "
            "answered all the same, by whoever may."
        )
        self.request_id = request_id
        self.by = by
        self.until = until


class NotSignedIn(HitlError, PermissionError):
    """Nobody knows who is asking.

    Example:
        >>> print(NotSignedIn())
        Sign in, or send a token that is valid.
    """

    def __init__(self, message: str = "Sign in, or send a token that is valid.") -> None:
        super().__init__(message)


class Forbidden(HitlError, PermissionError):
    """It is known who is asking, and they may not do this.

    Example:
        >>> print(Forbidden("bob may not see all runs."))
        bob may not see all runs.
    """


class TooMany(HitlError):
    """There is more of something than is served: failed sign-ins, open streams, bytes.

    Attributes:
        retry_after: Seconds until it is worth another try; None: it will never be.

    Example:
        >>> TooMany("20 streams are open.", retry_after=30).retry_after
        30
    """

    def __init__(self, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TokenError(HitlError, ValueError):
    """A named token cannot be made, found or read.

    Example:
        >>> from llama_index_hitl.web import NamedTokens
        >>> NamedTokens("tokens.json").revoke("erin")
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.TokenError: 'erin' has no token. `hitl tokens list` shows
        those that there are.
    """


class WeakSecret(HitlError, ValueError):
    """A secret that signs sessions or links could be guessed. The message does not quote it.

    Example:
        >>> from llama_index_hitl.web import AnswerLinks
        >>> AnswerLinks(["secret"], "https://example.com")
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.WeakSecret: A secret of 6 characters is too short to sign
        with; it needs at least 32, at random. `python -c 'import secrets;
        print(secrets.token_urlsafe(48))'` makes one.
    """

    def __init__(self, length: int, *, least: int) -> None:
        super().__init__(
            f"A secret of {length} characters is too short to sign with; it needs at least "
            f"{least}, at random. `python -c 'import secrets; print(secrets.token_urlsafe(48))'` "
            "makes one."
        )


class LinkInvalid(HitlError, ValueError):
    """A link that was sent to a person is not, or is no longer, good for an answer.

    Example:
        >>> from datetime import timedelta
        >>> from llama_index_hitl.lifecycle import open_record
        >>> from llama_index_hitl.testing import ManualClock
        >>> from llama_index_hitl.web import AnswerLinks
        >>> clock = ManualClock()
        >>> links = AnswerLinks(["s" * 32], "https://example.com", clock=clock)
        >>> request = ReviewRequest(request_id="r-1", title="Publish?", created_at=clock())
        >>> url = links.url_for(open_record(request), "erin")
        >>> clock.advance(days=14)
        >>> links.read(url.rpartition("/")[2])
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.LinkInvalid: This link was good until 2026-01-08 12:00 UTC.
    """


class InvalidStart(HitlError, ValueError):
    """What a run is to be started with does not fit its workflow.

    Attributes:
        problems: What is wrong, field by field.

    Example:
        >>> error = InvalidStart([FieldProblem("amount", "must be a number")])
        >>> print(error)
        The run was not started: amount: must be a number.
    """

    def __init__(self, problems: Iterable[FieldProblem]) -> None:
        self.problems = tuple(problems)
        said = "; ".join(f"{p.field}: {p.message}" if p.field else p.message for p in self.problems)
        super().__init__(f"The run was not started: {said}.")


class CannotListen(HitlError, OSError):
    """A server cannot take connections at an address.

    Attributes:
        host: The address.
        port: The port.

    Example:
        >>> print(CannotListen("127.0.0.1", 8000, OSError("Address already in use")))
        127.0.0.1, port 8000, cannot be used. Address already in use
    """

    def __init__(self, host: str, port: int, cause: Exception) -> None:
        known = cause.errno if isinstance(cause, OSError) else None
        reason, hint = {
            EADDRINUSE: ("is in use", "Stop what is there, or choose another one with --port."),
            EACCES: ("may not be used by you", "Choose one above 1023 with --port."),
            EADDRNOTAVAIL: ("is not of this machine", "Give one that is, such as 127.0.0.1."),
        }.get(known or 0, ("cannot be used", str(cause)))
        super().__init__(f"{host}, port {port}, {reason}. {hint}")
        self.host = host
        self.port = port
