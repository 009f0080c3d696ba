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
    """Root of every error that this package raises on purpose."""


class TimeoutWarning(UserWarning):
    """A workflow with a time limit is about to wait for people: the limit will kill the run."""


@dataclass(frozen=True)
class FieldProblem:
    """One thing that is wrong in an answer.

    Attributes:
        field: Dotted path of the field, such as `subject.amount`; empty for the answer as a whole.
        message: What is wrong, as a sentence fragment for people.
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
    """The answer does not fit the request; the request stays open."""

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
    """No request has that id: it was mistyped, belongs to another run, or was never asked."""

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
    """

    code = "not_allowed"

    def __init__(self, request_id: str, *, by: str, reason: str) -> None:
        super().__init__(f"{by} may not answer {request_id}: {reason}.", request_id=request_id)
        self.by = by
        self.reason = reason


class StaleRequest(AnswerRefused):
    """The answer is about something that is no longer what the request shows."""

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
    """

    def __init__(
        self, request_id: str, *, reason: str, status: str, superseded_by: str | None = None
    ) -> None:
        super().__init__(request_id, reason=reason)
        self.status = status
        self.superseded_by = superseded_by


class RequestExpired(AnswerRefused):
    """The answer came at or after the deadline; it was not counted."""

    code = "expired"

    def __init__(self, request_id: str, *, deadline: datetime) -> None:
        super().__init__(
            f"Request {request_id} expired at {deadline.isoformat()}; the answer came too late.",
            request_id=request_id,
        )
        self.deadline = deadline


class InvalidTransition(HitlError):
    """A request was told to do something that its state does not allow."""

    def __init__(self, status: str, command: str) -> None:
        super().__init__(f"A request that is {status} cannot {command}.")
        self.status = status
        self.command = command


class GateError(HitlError, TypeError):
    """A gate is declared in a way that cannot work; raised when the class is made."""


class SubjectError(HitlError, TypeError):
    """The subject cannot be reviewed: its values do not survive being written as JSON."""


class AmbiguousRevision(HitlError):
    """A new draft came and several earlier ones wait for a revision.

    Attributes:
        gate: Name of the gate.
        waiting: Ids of the requests that were sent back and wait.
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
    """A gate must bar the approvers of an earlier stage and cannot see who they were."""

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
    """A request cannot be asked inline with `ask`."""


class ToolError(HitlError, TypeError):
    """A tool is guarded, or called, in a way that cannot work."""


class RejectedTooOften(HitlError):
    """An agent made a call again that people, or rules, had rejected too often; it was stopped.

    Attributes:
        tool: Name of the tool.
        times: How often the call was rejected.
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
    """An optional dependency is not installed."""

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
    """

    def __init__(self, request_id: str, reason: str) -> None:
        super().__init__(f"Request {request_id} was left unanswered: {reason}. It is still open.")
        self.request_id = request_id
        self.reason = reason


class StoreError(HitlError):
    """The store cannot be reached, or holds something that it cannot read."""


class Conflict(StoreError):
    """What was to be changed is no longer as it was read: somebody else was first. Read again."""


class UnknownRun(HitlError, LookupError):
    """No run has that id.

    Attributes:
        run_id: The id that was asked for.
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
    """

    def __init__(self, run_id: str, *, workflow: str) -> None:
        super().__init__(
            f"There is a run {run_id!r} of workflow {workflow!r} already. Give the new run an id "
            "of its own, or none."
        )
        self.run_id = run_id
        self.workflow = workflow


class NothingAsked(HitlError):
    """Nothing in a run can go on, and it asks nobody: it would wait for ever."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"Nothing in run {run_id} can go on, and it asks nobody. A step that returned None has "
            "ended its branch, or an event that is collected or waited for never comes."
        )


class UnknownWorkflow(HitlError, LookupError):
    """The runner was not given the code of a workflow.

    Attributes:
        workflow: Name of the workflow.
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
    """

    def __init__(self, run_id: str, *, status: str, open_requests: Iterable[str] = ()) -> None:
        waits = ", ".join(open_requests)
        said = f"; it waits for {waits}" if waits else ""
        super().__init__(f"Run {run_id} has no result: it is {status}{said}.")
        self.run_id = run_id
        self.status = status


class RunFailed(HitlError):
    """A step of the run raised an error. Its answers are kept, and it can be tried again.

    Attributes:
        run_id: The run.
        error_type: Name of the class of the error.
        error_message: What the error said.
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
    """

    def __init__(self, run_id: str, *, status: str, wanted: str) -> None:
        super().__init__(f"Run {run_id} is {status}; it cannot be {wanted}.")
        self.run_id = run_id
        self.status = status


class SnapshotError(HitlError):
    """A snapshot cannot be read: its format is unknown, or it is damaged."""


class IncompatibleSnapshot(SnapshotError):
    """A paused run no longer fits the code of its workflow. No answer was consumed.

    Attributes:
        workflow: Name of the workflow.
        differences: What is different, one sentence each.
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
    """A notifier is set up in a way that cannot work; raised when it is made, or first used."""


class NotifyFailed(HitlError):
    """A notice could not be told. It is kept, and told again later.

    Attributes:
        retry_after: How long the receiver asks to be left alone; None: it did not say.
    """

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NoticeRefused(NotifyFailed):
    """The receiver wants no such notice, now or ever: it is not told again."""


class WebhookInvalid(HitlError, ValueError):
    """What came in is not a webhook of the sender whose secret this is; do not act on it."""


class NotPicked(HitlError):
    """A request is to be looked at that was not picked for it: it counts for no error rate.

    Attributes:
        request_id: The request.
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
    """

    def __init__(self, workflow: str) -> None:
        super().__init__(
            f"A step waits for {workflow} to end, and {workflow} asks a person whom nobody can "
            "reach there. Start it with `await run_child(ctx, workflow, ...)` of "
            "llama_index_hitl.children, or an agent with `agent_tool`, and its questions come up."
        )
        self.workflow = workflow


class ChildError(HitlError, RuntimeError):
    """A run in a step of another run cannot be started, or be gone on with, as it is."""


class AlreadyClaimed(HitlError):
    """Somebody else is looking at the request.

    Attributes:
        request_id: The request.
        by: Id of the person.
        until: When their claim ends, if they do not renew it.
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
    """Nobody knows who is asking."""

    def __init__(self, message: str = "Sign in, or send a token that is valid.") -> None:
        super().__init__(message)


class Forbidden(HitlError, PermissionError):
    """It is known who is asking, and they may not do this."""


class TooMany(HitlError):
    """There is more of something than is served: failed sign-ins, open streams, bytes.

    Attributes:
        retry_after: Seconds until it is worth another try; None: it will never be.
    """

    def __init__(self, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TokenError(HitlError, ValueError):
    """A named token cannot be made, found or read."""


class WeakSecret(HitlError, ValueError):
    """A secret that signs sessions or links could be guessed. The message does not quote it."""

    def __init__(self, length: int, *, least: int) -> None:
        super().__init__(
            f"A secret of {length} characters is too short to sign with; it needs at least "
            f"{least}, at random. `python -c 'import secrets; print(secrets.token_urlsafe(48))'` "
            "makes one."
        )


class LinkInvalid(HitlError, ValueError):
    """A link that was sent to a person is not, or is no longer, good for an answer."""


class InvalidStart(HitlError, ValueError):
    """What a run is to be started with does not fit its workflow.

    Attributes:
        problems: What is wrong, field by field.
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
