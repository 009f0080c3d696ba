"""From what somebody typed to an answer that was taken."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llama_index_hitl.cli._failures import Misused
from llama_index_hitl.clock import utc_now
from llama_index_hitl.errors import InvalidTransition
from llama_index_hitl.forms import decisions_of, fields_of, json_in, parse_answer
from llama_index_hitl.models import DecisionKind, RequestStatus

if TYPE_CHECKING:
    from llama_index_hitl._submit import Receipt
    from llama_index_hitl.models import Answer, Reviewer, ReviewRecord, ReviewRequest
    from llama_index_hitl.runner import Runner

CHANNEL = "cli"

_TARGETS = {DecisionKind.EDIT: "subject", DecisionKind.RESPOND: "response"}
"""Where the fields belong that `--set` names."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What was typed after `hitl answer`.

    Attributes:
        decision: The decision, as typed; None: none.
        by: Who typed it.
        comment: `--comment`.
        feedback: `--feedback`.
        values: Every `--set`.
        response: `--response`.
        to: `--to`.
        grant: What is to happen without asking from then on, as `grant_form` gives it.
        digest: Digest of what they saw; None: they saw what is stored.
        may_ask: Whether a person may be asked for the decision, if there is one at a terminal.
    """

    decision: str | None
    by: Reviewer
    comment: str | None = None
    feedback: str | None = None
    values: tuple[str, ...] = ()
    response: str | None = None
    to: str | None = None
    grant: Mapping[str, str] = field(default_factory=dict)
    digest: str | None = None
    may_ask: bool = True

    def form(self, request: ReviewRequest) -> dict[str, Any]:
        """Return what was typed beside the decision, by field.

        Raises:
            Misused: A `--set` has no value, or one is there twice.
        """
        given = {"feedback": self.feedback, "comment": self.comment, "to": self.to}
        form: dict[str, Any] = {name: text for name, text in given.items() if text is not None}
        if self.response is not None:
            form["response"] = _response(request, self.response)
        target = _TARGETS.get(DecisionKind(self.word)) if self.word in request.allowed else None
        for value in self.values:
            name, equals, text = value.partition("=")
            key = f"{target}.{name}" if target else name
            if not equals or key in form:
                problem = "is there twice" if equals else "must be FIELD=VALUE"
                raise Misused(f"--set {value} {problem}.")
            form[key] = text
        return form | dict(self.grant)

    @property
    def word(self) -> str:
        """The decision as one word, if it is one."""
        return (self.decision or "").strip().lower()


def grant_form(
    arguments: str | None,
    until: str | None,
    uses: int | None,
    limits: Mapping[str, Sequence[str] | None],
) -> dict[str, str]:
    """Return the fields of a standing approval that was typed; nothing typed, no fields.

    Args:
        arguments: `--grant`.
        until: `--grant-until`.
        uses: `--grant-uses`.
        limits: Every `--at-most` and every `--in-total`, by the field that it belongs to.

    Raises:
        Misused: A limit has no amount, or one is there twice.
    """
    given = {"arguments": arguments, "until": until, "uses": None if uses is None else str(uses)}
    form = {f"grant.{name}": text for name, text in given.items() if text is not None}
    for name, typed in limits.items():
        for limit in typed or ():
            path, _, amount = limit.partition("=")
            key = f"grant.{name}.{path}"
            if not amount or key in form:
                problem = "is there twice" if key in form else "must be ARGUMENT=AMOUNT"
                raise Misused(f"--{name.replace('_', '-')} {limit} {problem}.")
            form[key] = amount
    return form


def _response(request: ReviewRequest, text: str) -> Any:
    """Return a response; one that has fields is JSON, the parser reads any other as its type."""
    names = [field.name for field in fields_of(request, DecisionKind.RESPOND)]
    if "response" in names:
        return text
    try:
        return json_in(text)
    except (ValueError, RecursionError) as error:
        listed = ", ".join(name.removeprefix("response.") for name in names[:-1])
        raise Misused(
            f"--response must be a JSON object with: {listed}; or use --set. It is not: {error}."
        ) from None


async def decide(runner: Runner, record: ReviewRecord, said: Said) -> Receipt:
    """Give an answer to the request as it was read; it counts for nothing else.

    Raises:
        Misused: There is no decision, and nobody to ask for one.
        AnswerRefused: It was not taken.
    """
    request = record.request
    if said.digest == "":
        raise Misused("--digest is empty; leave it out, or give that of what you saw.")
    if said.decision is None:
        answer = await _asked(record, said)
    else:
        form = said.form(request)
        answer = parse_answer(
            request,
            {**form, "decision": said.word} if form else said.decision,
            by=said.by,
            at=utc_now(),
            channel=CHANNEL,
            role=_only(said.by.roles),
        )
    return await runner.answer(
        request.request_id,
        answer.decision,
        by=said.by,
        role=answer.role,
        channel=CHANNEL,
        digest=said.digest or request.digest,
    )


def _only(roles: tuple[str, ...]) -> str | None:
    """Return the role in which somebody acts, if they hold no other."""
    return roles[0] if len(roles) == 1 else None


async def _asked(record: ReviewRecord, said: Said) -> Answer:
    """Ask the person at the terminal; a decision is never guessed."""
    request = record.request
    at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if not (at_terminal and said.may_ask) or said.form(request):
        words = ", ".join(decisions_of(request))
        raise Misused(f"Say what you decide about {request.request_id}: one of {words}.")
    if record.status is not RequestStatus.OPEN:
        raise InvalidTransition(record.status, "be answered")
    from llama_index_hitl.console._desk import Desk
    from llama_index_hitl.console._interview import review

    desk = Desk(said.by, None, None, utc_now, None)
    return await review(desk, request, policy=record.policy)
