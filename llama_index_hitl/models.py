"""The values of a review: what is asked, what a person decides, what it comes to.

Every value is a frozen, closed pydantic model: it cannot be changed, and an unknown field is an
error. `ReviewRequest` and `Answer` carry a `schema_version`; their JSON schemas are what every
front end speaks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise, takewhile
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from llama_index_hitl._text import without_example

INLINE_GATE = "ask"
"""The gate of questions that are asked inline; no `Review` may have this name."""

RULE_PREFIX = "rule:"
"""What the id of a rule, or of a deadline, that decided begins with."""

UNCHECKED: dict[str, bool] = {"unchecked": True}
"""Validation context for requests that were checked before; compared by identity."""

ROLE_PREFIX = "role:"
"""What a reviewer entry that names a role begins with, as in `role:legal`."""

Identifier: TypeAlias = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)
]
"""An id or a name: 1 to 200 characters, without spaces around them."""
Line: TypeAlias = Annotated[str, StringConstraints(max_length=1_000)]
"""A title or the like, of at most 1,000 characters."""
Text: TypeAlias = Annotated[str, StringConstraints(max_length=1_000_000)]
"""A text of at most a million characters."""
NonBlank: TypeAlias = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1_000_000)
]
"""A text that says something, of at most a million characters."""


def _survives_json(value: JsonValue, info: ValidationInfo) -> JsonValue:
    """Refuse what JSON cannot hold, such as NaN: it would be read back as something else."""
    if info.context is not UNCHECKED:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    return value


AnyJson: TypeAlias = Annotated[JsonValue, AfterValidator(_survives_json)]
"""Any value that JSON can hold; NaN and infinite numbers are none."""
JsonObject: TypeAlias = Annotated[dict[str, JsonValue], AfterValidator(_survives_json)]
"""An object of JSON, as a mapping."""
Priority: TypeAlias = Literal["low", "normal", "high", "urgent"]
"""How urgent a request is."""
FiniteDecimal: TypeAlias = Annotated[Decimal, Field(allow_inf_nan=False)]
"""A number that is exact, and a number."""


def _as_json(value: Any) -> Any:
    """Return the values of a model that was given where they are meant."""
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _without_example(schema: dict[str, Any]) -> None:
    """Keep examples out of JSON schemas: they are for those who read the code."""
    if "description" in schema:
        schema["description"] = without_example(schema["description"])


class Value(BaseModel):
    """Base of all values: frozen and closed.

    Example:
        >>> Reviewer(id="erin", nmae="Erin")
        Traceback (most recent call last):
            ...
        pydantic_core._pydantic_core.ValidationError: 1 validation error for Reviewer
        ...
    """

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_without_example)


# --------------------------------------------------------------------------- people


class Reviewer(Value):
    """Who answers: a person as the host's sign-in knows them, or a rule or clock that decided.

    Attributes:
        id: Stable id, unique among reviewers.
        roles: Roles that the host vouches for, without the `role:` prefix.
        name: Name to show; the id is shown where there is none.
        kind: `human`, or `rule` for a rule or a deadline that decided in place of a person.

    Example:
        >>> Reviewer(id="lena", roles=("legal",), name="Lena L.").roles
        ('legal',)
    """

    id: Identifier
    roles: tuple[Identifier, ...] = ()
    name: Line | None = None
    kind: Literal["human", "rule"] = "human"

    @model_validator(mode="after")
    def _is_no_role(self) -> Self:
        # Somebody who signs up as "role:legal" must not answer what is for the role.
        _refuse_prefix((self.id, *self.roles))
        if self.kind == "human" and self.id.startswith(RULE_PREFIX):
            raise ValueError(f"{self.id!r} is the name of a rule, not of a person")
        return self


def _refuse_prefix(names: Iterable[str]) -> None:
    for name in names:
        if name.startswith(ROLE_PREFIX):
            raise ValueError(f"{name!r} must be given without {ROLE_PREFIX!r} here")


# --------------------------------------------------------------------------- decisions


class DecisionKind(StrEnum):
    """What a person can decide."""

    APPROVE = "approve"
    """Let it happen, exactly as shown."""
    REJECT = "reject"
    """Do not let it happen."""
    REVISE = "revise"
    """Send it back to be made better."""
    EDIT = "edit"
    """Let it happen with other values."""
    RESPOND = "respond"
    """Answer a question."""
    ESCALATE = "escalate"
    """Pass the decision up."""
    DELEGATE = "delegate"
    """Hand one's own vote to somebody else."""
    ABSTAIN = "abstain"
    """Take part without a vote."""


class _Decision(Value):
    comment: Text | None = Field(
        default=None, description="Why, for the record.", json_schema_extra={"format": "textarea"}
    )


def _is_none(value: object) -> bool:
    return value is None


def _is_false(value: object) -> bool:
    return value is False


def _is_empty(value: object) -> bool:
    return value == ()


class GrantTerms(Value):
    """What a standing approval covers. A person gives it along with an approval, never a model.

    Whatever the terms: it covers calls of the one tool, as that was described then, by the one
    agent that asked, in the one workflow, and of these only what whoever gives it may approve by
    themselves: nothing that is for other reviewers, or that they are barred from.

    Attributes:
        arguments: `any`, or `same`: only calls with exactly the arguments that were approved.
        at_most: For arguments that are numbers, by dotted path: the largest value of each call.
        in_total: For arguments that are numbers, by dotted path: the largest sum over all calls
            that it covers. Only calls that add zero or more are covered.
        until: From this instant on it covers nothing; None: until it is revoked.
        uses: How many calls it covers, from 1; None: any number.

    Example:
        >>> from decimal import Decimal
        >>> Approve(grant=GrantTerms(at_most={"amount": Decimal(100)}, uses=5)).grant.uses
        5
    """

    arguments: Literal["any", "same"] = "any"
    at_most: dict[Identifier, FiniteDecimal] = Field(default_factory=dict)
    in_total: dict[Identifier, FiniteDecimal] = Field(default_factory=dict)
    until: AwareDatetime | None = None
    uses: Annotated[int, Field(ge=1)] | None = None


class GrantOffer(Value):
    """Says that an approval may be given together with a standing one, and for what.

    Attributes:
        tool: Name of the tool.
        agent: Name of the agent that calls it; empty where it is called without one.
        version: Digest of the tool's description and schema: a grant ends when they change.

    Example:
        >>> from llama_index_hitl.forms import grant_fields_of
        >>> offer = GrantOffer(tool="transfer", agent="banker", version="3f1a")
        >>> request = ReviewRequest(
        ...     request_id="r-1", title="Pay?", grantable=offer, created_at=utc_now()
        ... )
        >>> [field.name for field in grant_fields_of(request)]  # what an approval may come with
        ['grant.arguments', 'grant.until', 'grant.uses']
    """

    tool: Line
    agent: Line = ""
    version: Line


class Approve(_Decision):
    """Let it happen, exactly as shown.

    Attributes:
        grant: Let calls like this happen without being asked, too; only where the request offers
            it, see `ReviewRequest.grantable`.

    Example:
        >>> from llama_index_hitl.lifecycle import open_record, take_answer
        >>> request = ReviewRequest(request_id="r-1", title="Publish?", created_at=utc_now())
        >>> yes = Answer.to(request, Approve(comment="good as it is"), by="erin", at=utc_now())
        >>> take_answer(open_record(request), yes).outcome.reason
        'erin approved it.'
    """

    kind: Literal["approve"] = "approve"
    grant: GrantTerms | None = Field(
        default=None,
        exclude_if=_is_none,  # an approval without one is written as it always was
        description="Let calls like this happen without asking, within these limits.",
    )


class Reject(_Decision):
    """Do not let it happen.

    Example:
        >>> from llama_index_hitl.lifecycle import open_record, take_answer
        >>> request = ReviewRequest(request_id="r-1", title="Publish?", created_at=utc_now())
        >>> no = Answer.to(request, Reject(comment="it is not true"), by="erin", at=utc_now())
        >>> take_answer(open_record(request), no).status.value
        'rejected'
    """

    kind: Literal["reject"] = "reject"


class Revise(_Decision):
    """Send it back to be made better; `feedback` says how and may not be blank.

    Example:
        >>> from workflows.events import StartEvent
        >>> review = Review(StartEvent, revise=Revision)  # a gate that lets people send drafts back
        >>> DecisionKind.REVISE in review.allowed, Revise(feedback="shorter, please").feedback
        (True, 'shorter, please')
        >>> Revise(feedback=" ")
        Traceback (most recent call last):
            ...
        pydantic_core._pydantic_core.ValidationError: 1 validation error for Revise
        ...
    """

    kind: Literal["revise"] = "revise"
    feedback: NonBlank = Field(
        description="What has to change.", json_schema_extra={"format": "textarea"}
    )


class Edit(_Decision):
    """Let it happen with these values instead.

    Attributes:
        subject: The whole edited subject, every field of it. It is validated by the subject's own
            model; a field that the model does not know is an error.

    Example:
        >>> from llama_index_hitl.lifecycle import open_record, take_answer
        >>> request = ReviewRequest(
        ...     request_id="r-1",
        ...     title="Pay?",
        ...     subject={"type": "Pay", "data": {"to": "Ann", "amount": 500}},
        ...     allowed=["approve", "edit"],
        ...     created_at=utc_now(),
        ... )
        >>> edit = Edit(subject={"to": "Ann", "amount": 40})
        >>> less = Answer.to(request, edit, by="bob", at=utc_now())
        >>> take_answer(open_record(request), less).status.value
        'approved'
    """

    kind: Literal["edit"] = "edit"
    subject: Annotated[JsonObject, BeforeValidator(_as_json)] = Field(
        description="The whole subject, with the values as they shall be."
    )


class Respond(_Decision):
    """Answer a question; `response` is validated against the request's response schema.

    Example:
        >>> from pydantic import BaseModel
        >>> class Colour(BaseModel):
        ...     name: str
        >>> Question(title="Which colour?", response=Colour).allowed == (DecisionKind.RESPOND,)
        True
        >>> Respond(response=Colour(name="blue")).response
        {'name': 'blue'}
    """

    kind: Literal["respond"] = "respond"
    response: Annotated[AnyJson, BeforeValidator(_as_json)] = Field(
        description="The response, as the request's schema says."
    )


class Escalate(_Decision):
    """Pass the decision up.

    Attributes:
        to: Reviewer entries to ask instead, ids or `role:...`. Empty means: whom the gate names.

    Example:
        >>> from llama_index_hitl.lifecycle import open_record, take_answer
        >>> request = ReviewRequest(
        ...     request_id="r-1",
        ...     title="Publish?",
        ...     allowed=["approve", "escalate"],
        ...     escalate_to=["role:chief"],
        ...     created_at=utc_now(),
        ... )
        >>> up = Answer.to(request, Escalate(comment="too large for me"), by="erin", at=utc_now())
        >>> take_answer(open_record(request), up).outcome.reason
        'erin escalated it.'
    """

    kind: Literal["escalate"] = "escalate"
    to: tuple[Identifier, ...] = Field(default=(), description="Whom to ask instead.")

    def __init__(self, /, to: Any = (), **data: Any) -> None:
        super().__init__(**{"to": (to,) if isinstance(to, str) else to, **data})


class Delegate(_Decision):
    """Hand one's own vote to somebody else.

    Attributes:
        to: Id of the person who decides instead.

    Example:
        >>> from llama_index_hitl.lifecycle import open_record, take_answer
        >>> request = ReviewRequest(
        ...     request_id="r-1",
        ...     title="Publish?",
        ...     allowed=["approve", "delegate"],
        ...     policy={"reviewers": ["erin"]},
        ...     created_at=utc_now(),
        ... )
        >>> over = Answer.to(request, Delegate(to="bob"), by="erin", at=utc_now())
        >>> take_answer(open_record(request), over).policy.reviewers
        ('bob',)
    """

    kind: Literal["delegate"] = "delegate"
    to: Identifier = Field(description="Who decides instead.")


class Abstain(_Decision):
    """Take part without a vote for or against.

    Example:
        >>> from llama_index_hitl.lifecycle import open_record, take_answer
        >>> request = ReviewRequest(
        ...     request_id="r-1", title="Go?", allowed=["approve", "abstain"], created_at=utc_now()
        ... )
        >>> none = Answer.to(request, Abstain(comment="a friend wrote it"), by="erin", at=utc_now())
        >>> take_answer(open_record(request), none).outcome.abstentions
        1
    """

    kind: Literal["abstain"] = "abstain"


Decision: TypeAlias = Annotated[
    Approve | Reject | Revise | Edit | Respond | Escalate | Delegate | Abstain,
    Field(discriminator="kind"),
]
"""What a person decides; as JSON, `kind` says which it is."""


class Expire(Value):
    """At the deadline: close the request without a decision. Expired is not rejected.

    Example:
        >>> from datetime import timedelta
        >>> from workflows.events import StartEvent
        >>> review = Review(StartEvent, deadline=timedelta(days=2), on_deadline=Expire())
        >>> review.on_deadline.kind
        'expire'
    """

    kind: Literal["expire"] = "expire"


DeadlineAction: TypeAlias = Annotated[Expire | Escalate | Reject, Field(discriminator="kind")]
"""What happens at a deadline. Approving is not among the choices: silence is never consent."""


class Remind(Value):
    """As time passes: tell those who may answer once more.

    Example:
        >>> from datetime import timedelta
        >>> from workflows.events import StartEvent
        >>> ladder = {timedelta(hours=4): Remind(), timedelta(days=1): Expire()}
        >>> review = Review(StartEvent, ladder=ladder)
        >>> [action.kind for action in review.ladder.values()]
        ['remind', 'expire']
    """

    kind: Literal["remind"] = "remind"


class Widen(Value):
    """As time passes: ask more people. Those who were asked before still may answer.

    Attributes:
        to: Reviewer entries to ask as well, ids or `role:...`, at least one. Where anyone may
            answer there is nobody to add.

    Example:
        >>> from datetime import timedelta
        >>> from workflows.events import StartEvent
        >>> ladder = {timedelta(hours=4): Widen("role:deputy"), timedelta(days=1): Expire()}
        >>> review = Review(StartEvent, reviewers="erin", ladder=ladder)
        >>> review.ladder[timedelta(hours=4)].to
        ('role:deputy',)
    """

    kind: Literal["widen"] = "widen"
    to: Annotated[tuple[Identifier, ...], Field(min_length=1)]

    def __init__(self, /, to: Any = (), **data: Any) -> None:
        super().__init__(**{"to": (to,) if isinstance(to, str) else to, **data})


LadderAction: TypeAlias = Annotated[
    Remind | Widen | Escalate | Reject | Expire, Field(discriminator="kind")
]
"""What happens as time passes. Approving is not among the choices: silence is never consent."""


class Rung(Value):
    """What happens to an open request at one instant.

    Attributes:
        at: The instant, time zone included.
        action: What happens then. All but `Remind` and `Widen` close the request.

    Example:
        >>> from datetime import UTC, datetime
        >>> rung = Rung(at=datetime(2026, 1, 5, 9, tzinfo=UTC), action=Escalate("role:chief"))
        >>> rung.closes
        True
    """

    at: AwareDatetime
    action: LadderAction

    @property
    def closes(self) -> bool:
        """Whether the request is closed then: by escalating, rejecting or expiring."""
        return isinstance(self.action, Escalate | Reject | Expire)


def entries_of(value: Iterable[str] | str) -> tuple[str, ...]:
    """Return entries, such as reviewers or tags, that may be given as one text instead of several.

    Text is iterable too: without this, `reviewers="erin"` would be four people.

    Args:
        value: One text, or several.

    Example:
        >>> entries_of("role:legal"), entries_of(["erin", "bob"])
        (('role:legal',), ('erin', 'bob'))
    """
    return (value,) if isinstance(value, str) else tuple(value)


def closing_rung(ladder: Iterable[Rung]) -> Rung | None:
    """Return the first rung that closes a request, which is its deadline; None: none does.

    Args:
        ladder: The rungs, in order of time.

    Example:
        >>> from datetime import UTC, datetime, timedelta
        >>> at = datetime(2026, 1, 5, 9, tzinfo=UTC)
        >>> next_day = at + timedelta(days=1)
        >>> ladder = [Rung(at=at, action=Remind()), Rung(at=next_day, action=Expire())]
        >>> closing_rung(ladder).at.isoformat()
        '2026-01-06T09:00:00+00:00'
    """
    return next((rung for rung in ladder if rung.closes), None)


class Answer(Value):
    """One decision, by someone, through a channel, about exactly one request.

    Attributes:
        schema_version: Version of this schema.
        request_id: The one request that this answers.
        digest: Digest of the request that the person saw; it must be the request's own.
        decision: What was decided.
        by: Who decided, as the channel's sign-in knows them.
        role: The role in which they decided, where it matters; one of `by.roles`.
        channel: Where it was said, such as `console` or `web`.
        at: When it was said, time zone included.

    Example:
        >>> from datetime import UTC, datetime
        >>> at = datetime(2026, 1, 5, 9, tzinfo=UTC)
        >>> request = ReviewRequest(request_id="r-1", title="Publish?", created_at=at)
        >>> answer = Answer.to(request, Approve(), by="erin", at=at, channel="mail")
        >>> answer, answer.digest == request.digest
        (Answer('r-1', 'approve', by='erin'), True)
    """

    schema_version: Literal[1] = 1
    request_id: Identifier
    digest: Line
    decision: Decision
    by: Reviewer
    role: Identifier | None = None
    channel: Identifier = "api"
    at: AwareDatetime

    @field_validator("decision", mode="before")
    @classmethod
    def _is_no_word(cls, decision: object) -> object:
        if isinstance(decision, str):
            problem = f"a decision is an object such as Approve(), not {decision!r}"
            raise ValueError(problem)  # noqa: TRY004 - pydantic collects no TypeError
        return decision

    @model_validator(mode="after")
    def _role_is_held(self) -> Self:
        if self.role is not None and self.role not in self.by.roles:
            held = ", ".join(self.by.roles) or "none"
            raise ValueError(f"{self.by.id} does not hold the role {self.role!r} (holds: {held})")
        return self

    @classmethod
    def to(
        cls,
        request: ReviewRequest,
        decision: Decision,
        *,
        by: Reviewer | str,
        at: AwareDatetime,
        role: str | None = None,
        channel: str = "api",
    ) -> Answer:
        """Answer a request that is at hand.

        Args:
            request: What was asked; its id and digest go into the answer.
            decision: What was decided.
            by: Who decided; a plain id stands for a person without roles.
            at: When, time zone included.
            role: In which role, where it matters.
            channel: Where it was said.

        Returns:
            The answer.
        """
        return cls(
            request_id=request.request_id,
            digest=request.digest,
            decision=decision,
            by=Reviewer(id=by) if isinstance(by, str) else by,
            role=role,
            channel=channel,
            at=at,
        )

    def __repr__(self) -> str:
        return f"Answer({self.request_id!r}, {self.decision.kind!r}, by={self.by.id!r})"

    @property
    def comment(self) -> str | None:
        """Why, in the person's own words."""
        return self.decision.comment

    def same_as(self, other: Answer) -> bool:
        """Tell whether both say the same: same request, same person, same decision.

        Args:
            other: The other answer.
        """
        return (
            self.request_id == other.request_id
            and self.by.id == other.by.id
            # Not by ==, for which True is 1.
            and digest_of(self.decision.model_dump(mode="json"))
            == digest_of(other.decision.model_dump(mode="json"))
        )


# --------------------------------------------------------------------------- policy and outcome


class ReviewPolicy(Value):
    """Who may answer, and how many of them it takes.

    Attributes:
        reviewers: Ids and `role:...` entries. Empty: anyone whom the channel lets in.
        approvals: Approvals needed, at least 1; or `all`, every reviewer named (ids only).
        per_role: Approvals needed from each role; replaces `approvals` where it is not empty. One
            person counts for one role, even one who holds several.
        rejections: Rejections that reject, at least 1; 1 is a veto for everyone.
        veto_roles: Roles whose single rejection rejects, whatever `rejections` says.
        barred: Persons who may not answer, with the reason.
        second_person_for_edit: An edited subject needs the approval of somebody else.
        deadline: Answers from this instant on are late.

    Example:
        >>> from llama_index_hitl.policies import why_not_allowed
        >>> policy = ReviewPolicy(approvals=2, barred={"erin": "she wrote it"})
        >>> policy.single, why_not_allowed(policy, Reviewer(id="erin"))
        (False, 'she wrote it')
    """

    reviewers: tuple[Identifier, ...] = ()
    approvals: Annotated[int, Field(ge=1)] | Literal["all"] = 1
    per_role: dict[Identifier, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    rejections: Annotated[int, Field(ge=1)] = 1
    veto_roles: tuple[Identifier, ...] = ()
    barred: dict[Identifier, Line] = Field(default_factory=dict)
    second_person_for_edit: bool = False
    deadline: AwareDatetime | None = None

    @model_validator(mode="after")
    def _names_roles_plainly(self) -> Self:
        # With the prefix nobody would hold the role: a veto would be off without a word.
        _refuse_prefix((*self.per_role, *self.veto_roles))
        return self

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        named = [entry for entry in self.reviewers if not entry.startswith(ROLE_PREFIX)]
        if self.approvals == "all" and (not named or len(named) != len(self.reviewers)):
            raise ValueError(
                "approvals='all' needs reviewers that are persons, by id: of a role nobody knows "
                "how many there are"
            )
        if (
            isinstance(self.approvals, int)
            and not self.per_role
            and self.reviewers
            and len(named) == len(self.reviewers)
            and self.approvals > len(set(named))
        ):
            raise ValueError(
                f"{self.approvals} approvals cannot come from {len(set(named))} reviewers"
            )
        return self

    @property
    def single(self) -> bool:
        """Whether one approval of one person is enough."""
        return self.approvals == 1 and not self.per_role


class RequestStatus(StrEnum):
    """How a request stands. Every status but `open` is final."""

    OPEN = "open"
    """It can be answered."""
    APPROVED = "approved"
    """It may happen."""
    REJECTED = "rejected"
    """It may not happen."""
    NO_QUORUM = "no_quorum"
    """It may not happen: the approvals that it takes cannot be reached any more."""
    REVISED = "revised"
    """It was sent back for a new draft."""
    EDITED = "edited"
    """It was edited, and another request asks about it with the edit."""
    RESPONDED = "responded"
    """The question was answered."""
    ESCALATED = "escalated"
    """Others are asked in its place, by another request."""
    EXPIRED = "expired"
    """Nobody decided in time; not rejected."""
    SUPERSEDED = "superseded"
    """A newer request took its place."""
    WITHDRAWN = "withdrawn"
    """It was taken back."""


class Outcome(Value):
    """What the answers and the policy come to.

    Attributes:
        status: How the request stands.
        approvals: Approvals counted, an edit included.
        needed: Approvals needed.
        rejections: Rejections counted.
        abstentions: Abstentions counted.
        decided_by: Ids of those whose answers made the outcome, in the order of their answers.
        reason: Why it stands so, as a sentence for people.

    Example:
        >>> from llama_index_hitl.policies import tally
        >>> request = ReviewRequest(request_id="r-1", title="Publish?", created_at=utc_now())
        >>> answer = Answer.to(request, Approve(), by="erin", at=utc_now())
        >>> outcome = tally([answer], request.policy, utc_now())
        >>> outcome.status.value, outcome.decided_by, outcome.reason
        ('approved', ('erin',), 'erin approved it.')
    """

    status: RequestStatus
    approvals: int = 0
    needed: int = 1
    rejections: int = 0
    abstentions: int = 0
    decided_by: tuple[str, ...] = ()
    reason: str = ""


class RuleVerdict(StrEnum):
    """What a rule says before any person is asked."""

    ASK = "ask"
    """A person is needed."""
    APPROVE = "approve"
    """It may happen without one."""
    REJECT = "reject"
    """It may not happen, and nobody is asked."""


class RuleResult(Value):
    """What the rules said about a subject; stored with the request, never evaluated again.

    Attributes:
        verdict: Ask a person, or decide without one.
        rule: Name of the rule that decided.
        reason: Why, as a sentence for people.
        shadow: What a rule on trial would have said; people are asked all the same. None: the rule
            is not on trial.
        spot_check: Decided without a person, and picked to be looked at by one later.

    Example:
        >>> from llama_index_hitl.rules import evaluate, threshold
        >>> result = evaluate(threshold("amount", above=100), {"amount": 500})
        >>> result.verdict.value, result.rule
        ('ask', 'amount above 100')
    """

    verdict: RuleVerdict
    rule: Annotated[Identifier, StringConstraints(max_length=190)]  # `rule:` and it make an id
    reason: Text = ""
    shadow: RuleVerdict | None = Field(default=None, exclude_if=_is_none)
    spot_check: bool = Field(default=False, exclude_if=_is_false)


# --------------------------------------------------------------------------- the request


class Subject(Value):
    """The typed thing under review, as JSON.

    Attributes:
        type: Name of the model that the data belongs to.
        data: Its values.
        json_schema: JSON schema of the model; a field may say `"format": "markdown"`, or
            `"format": "code"` with `"language"`, to be shown as such.

    Example:
        >>> from llama_index_hitl.rendering import render_subject
        >>> draft = Subject(type="Draft", data={"topic": "mice", "content": "Mice are small."})
        >>> print(render_subject(draft))
        topic: mice
        content: Mice are small.
    """

    type: Line
    data: JsonObject
    json_schema: JsonObject = Field(default_factory=dict)


class Evidence(Value):
    """Something that helps to decide.

    Attributes:
        title: What it is.
        body: Its text, in Markdown.
        source: Where it comes from, a link or a name.
        score: Relevance as its finder rates it, on the finder's own scale.

    Example:
        >>> from workflows.events import StartEvent
        >>> clause = Evidence(title="12.3", body="Water damage is covered.", source="policy.pdf")
        >>> Review(StartEvent, evidence=[clause]).evidence[0].source
        'policy.pdf'
    """

    title: Line
    body: Text = ""
    source: Line | None = None
    score: FiniteFloat | None = None


class Feedback(Value):
    """What a person asked to change in an earlier revision.

    Attributes:
        revision: The revision that they sent back, from 1.
        by: Id of the person.
        at: When.
        text: Their words.

    Example:
        >>> from llama_index_hitl.events import feedback_in
        >>> from llama_index_hitl.lifecycle import open_record, take_answer
        >>> at = utc_now()
        >>> request = ReviewRequest(
        ...     request_id="r-1", title="Publish?", allowed=["revise"], created_at=at
        ... )
        >>> answer = Answer.to(request, Revise(feedback="shorter"), by="erin", at=at)
        >>> [said] = feedback_in(take_answer(open_record(request), answer))
        >>> said.revision, said.by, said.text
        (1, 'erin', 'shorter')
    """

    revision: Annotated[int, Field(ge=1)]
    by: Identifier
    at: AwareDatetime
    text: Text


class StageApproval(Value):
    """Who let an earlier stage pass.

    Attributes:
        stage: Name of the stage.
        request_id: The request that was approved.
        answers: Every answer to it, in order.

    Example:
        >>> from datetime import UTC, datetime
        >>> at = datetime(2026, 1, 5, 9, tzinfo=UTC)
        >>> request = ReviewRequest(request_id="r-1", title="Publish?", created_at=at)
        >>> yes = Answer.to(request, Approve(), by="erin", at=at)
        >>> StageApproval(stage="content", request_id="r-1", answers=(yes,)).approvers
        ('erin',)
    """

    stage: Identifier
    request_id: Identifier
    answers: tuple[Answer, ...]

    @property
    def approvers(self) -> tuple[str, ...]:
        """Ids of those who approved it, as it was or edited, in order."""
        return tuple(a.by.id for a in self.answers if isinstance(a.decision, Approve | Edit))

    @property
    def involved(self) -> tuple[str, ...]:
        """Ids of the approvers and of those who chose one, by delegating to them."""
        chose = (Approve, Edit, Delegate)
        return tuple(a.by.id for a in self.answers if isinstance(a.decision, chose))


class ReviewRequest(Value):
    """What people are asked. It never changes; a change is a new request with a new id.

    Attributes:
        schema_version: Version of this schema.
        request_id: Unique over all runs; also the stable key of the effect that it guards.
        run_id: The run that asks.
        workflow: Name of the workflow that asks.
        path: The steps that a run in another run was started from, as `Workflow.step`, the
            outermost first; empty: the run was started by itself.
        gate: Name of the gate that asks; `ask` for a question asked inline.
        stage: Name of the stage, for reviews in several stages.
        title: One line that says what this is about.
        body: What there is to know, in Markdown.
        subject: The thing under review; None for a plain question.
        evidence: What helps to decide.
        previous: The subject of the revision before this one.
        feedback: What people asked to change so far, oldest first.
        allowed: The decisions that can be taken.
        response_schema: JSON schema of a response.
        policy: Who may answer, how many it takes, until when.
        escalate_to: Whom an escalation asks.
        on_deadline: What happens when the deadline passes.
        ladder: What happens as time passes, in strictly ascending time. The first rung that closes
            the request is its deadline, so `policy.deadline` and `on_deadline` must say the same.
            Rungs behind an escalation are for the request that follows. Empty: only what the
            deadline says, if there is one.
        grantable: What an approval may let happen from now on without asking; None: nothing.
        requester: Id of the person on whose behalf the run asks.
        created_at: When it was asked.
        revision: Number of the draft, from 1.
        sent_back: How often this gate has sent a draft of this back, from 0.
        max_revisions: How often it may; None: as often as people like.
        level: How often this was escalated, from 0.
        supersedes: The request that this one takes the place of.
        rule: What the rules said, and so why a person is asked.
        approvals: Who let the earlier stages pass.
        priority: How urgent it is.
        tags: Words to find it by.
        digest: SHA-256 over all of the above, in hexadecimal. Computed if left out; a value that
            does not match raises a `ValidationError`.

    Example:
        >>> from datetime import UTC, datetime
        >>> at = datetime(2026, 1, 5, 9, tzinfo=UTC)
        >>> request = ReviewRequest(request_id="r-1", title="Publish?", created_at=at)
        >>> request, [kind.value for kind in request.allowed]
        (ReviewRequest('r-1', 'Publish?'), ['approve', 'reject'])
        >>> ReviewRequest.model_validate_json(request.model_dump_json()) == request
        True
    """

    schema_version: Literal[1] = 1
    request_id: Identifier
    run_id: Line = ""
    workflow: Line = ""
    path: tuple[Line, ...] = Field(default=(), exclude_if=_is_empty)
    gate: Identifier = "ask"
    stage: Identifier | None = None
    title: Line
    body: Text = ""
    subject: Subject | None = None
    evidence: tuple[Evidence, ...] = ()
    previous: Subject | None = None
    feedback: tuple[Feedback, ...] = ()
    allowed: tuple[DecisionKind, ...] = (DecisionKind.APPROVE, DecisionKind.REJECT)
    response_schema: JsonObject | None = None
    policy: ReviewPolicy = Field(default_factory=ReviewPolicy)
    escalate_to: tuple[Identifier, ...] = ()
    on_deadline: DeadlineAction = Field(default_factory=Expire)
    ladder: tuple[Rung, ...] = ()
    grantable: GrantOffer | None = Field(default=None, exclude_if=_is_none)
    requester: Identifier | None = None
    created_at: AwareDatetime
    revision: Annotated[int, Field(ge=1)] = 1
    sent_back: Annotated[int, Field(ge=0)] = 0
    max_revisions: Annotated[int, Field(ge=0)] | None = None
    level: Annotated[int, Field(ge=0)] = 0
    supersedes: Identifier | None = None
    rule: RuleResult | None = None
    approvals: tuple[StageApproval, ...] = ()
    priority: Priority = "normal"
    tags: tuple[Identifier, ...] = ()
    digest: str = ""

    def actual_digest(self) -> str:
        """Return the digest of what this request shows, computed anew."""
        return digest_of(self.model_dump(mode="json", exclude={"digest"}))

    def model_post_init(self, context: Any, /) -> None:
        """Check that the request is whole, and compute its digest, or check it."""
        # Not a validator: that would run again for every model that this one is put into.
        if self.digest and context is UNCHECKED:
            return
        if not self.allowed:
            raise ValueError("a request must allow at least one decision")
        if DecisionKind.RESPOND in self.allowed and self.response_schema is None:
            raise ValueError("a request that can be responded to needs a response_schema")
        if DecisionKind.EDIT in self.allowed and self.subject is None:
            raise ValueError("a request without a subject cannot be edited")
        if DecisionKind.ESCALATE in self.allowed and not self.escalate_to:
            raise ValueError("a request that can be escalated needs escalate_to")
        if self.policy.deadline is not None and self.policy.deadline <= self.created_at:
            raise ValueError("the deadline must be after the question is asked")
        if isinstance(self.on_deadline, Escalate) and not (self.on_deadline.to or self.escalate_to):
            raise ValueError("an escalation at the deadline needs somebody to escalate to")
        if self.ladder:
            _check_ladder(self)
        actual = self.actual_digest()
        if self.digest and self.digest != actual:
            raise ValueError(
                f"the digest of request {self.request_id} does not match what it shows: it was "
                f"changed after it was made (found {self.digest[:12]}…, expected {actual[:12]}…)"
            )
        # Frozen for everybody else; here the model is still being made.
        object.__setattr__(self, "digest", actual)

    def __repr__(self) -> str:
        # Upstream writes the repr of every event into traces: what is reviewed stays out of them.
        return f"ReviewRequest({self.request_id!r}, {self.title!r})"

    @property
    def deadline(self) -> AwareDatetime | None:
        """The instant from which on answers are late; None: never."""
        return self.policy.deadline

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """The ladder; of a request that has a deadline and no ladder, the deadline as a rung."""
        if self.ladder or self.policy.deadline is None:
            return self.ladder
        return (Rung(at=self.policy.deadline, action=self.on_deadline),)


def _check_ladder(request: ReviewRequest) -> None:
    """Refuse a ladder that cannot be climbed, or that says something else than the deadline.

    Raises:
        ValueError: It does.
    """
    ladder, policy = request.ladder, request.policy
    instants = (request.created_at, *(rung.at for rung in ladder))
    if any(later <= earlier for earlier, later in pairwise(instants)):
        raise ValueError("the rungs of a ladder must follow the question and each other in time")
    if any(isinstance(rung.action, Reject | Expire) for rung in ladder[:-1]):
        raise ValueError("nothing can come behind the rung of a ladder that rejects or expires")
    up = [rung.action for rung in ladder if isinstance(rung.action, Escalate)]
    if not request.escalate_to and not all(action.to for action in up):
        raise ValueError("a ladder that escalates needs somebody to escalate to")
    closing = closing_rung(ladder)
    if policy.deadline != (None if closing is None else closing.at) or (
        closing is not None and request.on_deadline != closing.action
    ):
        raise ValueError(
            "the deadline and on_deadline must be those of the ladder's first rung that closes "
            f"the request ({'there is none' if closing is None else closing.at.isoformat()})"
        )
    before_closing = takewhile(lambda rung: not rung.closes, ladder)
    if policy.approvals == "all" and any(isinstance(r.action, Widen) for r in before_closing):
        raise ValueError("approvals='all' cannot go with a rung that asks more people")


class SpotCheck(Value):
    """What a person found when they looked at a decision that was made without one.

    Attributes:
        right: Whether they would have decided the same.
        by: Id of the person.
        at: When.
        comment: Why.

    Example:
        >>> from datetime import UTC, datetime
        >>> at = datetime(2026, 1, 5, 9, tzinfo=UTC)
        >>> SpotCheck(right=False, by="alice", at=at, comment="never above 50").right
        False
    """

    right: bool
    by: Identifier
    at: AwareDatetime
    comment: Text = ""


def digest_of(value: Any) -> str:
    """Return the SHA-256 of a JSON value in canonical form, in hexadecimal.

    Args:
        value: Anything that JSON can hold.

    Raises:
        ValueError: It holds a NaN or an infinite number, which JSON does not know.
        TypeError: It is not JSON at all.

    Example:
        >>> digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
        True
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


class ReviewRecord(Value):
    """A request with what has become of it so far.

    Attributes:
        request: What was asked.
        policy: The request's policy as it stands now: a delegation, or a rung of the ladder,
            changes who may answer.
        answers: Every answer taken, in the order in which they were taken.
        outcome: What they come to.
        closed_at: When the request stopped being open; None while it is.
        superseded_by: The request that took its place.
        rungs_passed: How many rungs of the request's ladder have been passed.
        spot_check: What a person found who looked at it after a rule had decided it.

    Example:
        >>> from datetime import UTC, datetime
        >>> from llama_index_hitl.lifecycle import open_record
        >>> at = datetime(2026, 1, 5, 9, tzinfo=UTC)
        >>> record = open_record(ReviewRequest(request_id="r-1", title="Publish?", created_at=at))
        >>> record, record.outcome.reason
        (ReviewRecord('r-1', 'open'), '0 of 1 approvals.')
    """

    request: ReviewRequest
    policy: ReviewPolicy
    answers: tuple[Answer, ...] = ()
    outcome: Outcome
    closed_at: AwareDatetime | None = None
    superseded_by: Identifier | None = None
    rungs_passed: Annotated[int, Field(ge=0)] = 0
    spot_check: SpotCheck | None = Field(default=None, exclude_if=_is_none)

    def __repr__(self) -> str:
        return f"ReviewRecord({self.request_id!r}, {self.status.value!r})"

    @property
    def request_id(self) -> str:
        """Id of the request."""
        return self.request.request_id

    @property
    def status(self) -> RequestStatus:
        """How the request stands."""
        return self.outcome.status
