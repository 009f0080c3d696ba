"""The errors of this package: few, precise, each with what was found and what to do.

All inherit `HitlError`. Those that speak of one answer inherit `AnswerRefused`: the request that
the answer was meant for stays exactly as it was, and can still be answered unless the error says
that it is closed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
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
