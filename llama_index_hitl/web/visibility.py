"""Who sees what, and which fields of it. Subclass `Visibility` for rules of your own."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from pydantic import JsonValue

from llama_index_hitl.authorizers import Action
from llama_index_hitl.models import (
    ROLE_PREFIX,
    Answer,
    Edit,
    JsonObject,
    Reviewer,
    ReviewRequest,
    Subject,
)
from llama_index_hitl.stores.protocol import Run, StoredRequest

HIDDEN = "•••"
"""Stands where a value is that its reader may not see."""


class Visibility:
    """Who sees what. By default people see what they are asked, were asked, or started.

    Override a method to change one of its answers. What it says here limits what the pages and the
    API show and do; whether an answer counts is for the request's policy and the authorizer.

    Args:
        admins: Entries, ids and `role:...`, of those who see and may do everything.
        auditors: Entries of those who see everything.
    """

    def __init__(
        self,
        *,
        admins: Iterable[str] = ("role:admin",),
        auditors: Iterable[str] = ("role:auditor",),
    ) -> None:
        self._admins = frozenset(admins)
        self._auditors = frozenset(auditors)

    def is_admin(self, person: Reviewer) -> bool:
        """Tell whether somebody may do everything."""
        return not self._admins.isdisjoint(entries_for(person))

    def sees_all(self, person: Reviewer) -> bool:
        """Tell whether somebody sees everything."""
        return self.is_admin(person) or not self._auditors.isdisjoint(entries_for(person))

    def sees_request(self, person: Reviewer, stored: StoredRequest) -> bool:
        """Tell whether somebody sees a request: they are asked, have answered, or it is theirs."""
        record = stored.record
        asked = {*record.policy.reviewers, *record.request.policy.reviewers}
        return (
            self.sees_all(person)
            or not asked
            or not asked.isdisjoint(entries_for(person))
            or record.request.requester == person.id
            or any(answer.by.id == person.id for answer in record.answers)
        )

    def sees_run(self, person: Reviewer, run: Run, requests: Iterable[StoredRequest]) -> bool:
        """Tell whether somebody sees a run: they started it, or see one of its requests.

        Args:
            person: Who wants to see it.
            run: The run.
            requests: Its requests, open and closed.
        """
        return (
            self.sees_all(person)
            or run.started_by == person.id
            or any(self.sees_request(person, stored) for stored in requests)
        )

    def may_start(self, person: Reviewer, workflow: str) -> bool:
        """Tell whether somebody may start runs of a workflow; everybody may."""
        return True

    def may_act(
        self, person: Reviewer, action: Action, run: Run, stored: StoredRequest | None
    ) -> bool:
        """Tell whether somebody may do what is no answer: whose run it is, and admins, may.

        Args:
            person: Who wants to do it.
            action: What they want to do.
            run: The run that it is about.
            stored: The request, if it is about one.
        """
        theirs = run.started_by == person.id or (
            stored is not None and stored.record.request.requester == person.id
        )
        return theirs or self.is_admin(person)

    def hidden_fields(self, person: Reviewer, request: ReviewRequest) -> Collection[str]:
        """Return the fields of the subject that somebody may not see, as dotted paths; none.

        A path goes through lists to each of their items. What is hidden here is hidden in the
        subject, in the revision before it, in edits of it, in the audit trail, and in what a run
        came to. The title, the body, evidence and words of people are shown as they are: do not
        put there what must be hidden.
        """
        return ()

    def shown(self, person: Reviewer, stored: StoredRequest) -> StoredRequest | None:
        """Return a request as somebody may see it; None: they may not see that there is one.

        What may not be seen is taken out: hidden fields, and what a rule on trial would have said,
        which must not lead anybody.
        """
        if not self.sees_request(person, stored):
            return None
        hidden = frozenset(self.hidden_fields(person, stored.record.request))
        return _without(stored, hidden)


def entries_for(person: Reviewer) -> frozenset[str]:
    """Return the reviewer entries that name somebody: their id, and their roles."""
    return frozenset((person.id, *(ROLE_PREFIX + role for role in person.roles)))


def _without(stored: StoredRequest, hidden: frozenset[str]) -> StoredRequest:
    record = stored.record
    request = record.request
    changes: dict[str, Any] = {}
    if request.rule is not None and request.rule.shadow is not None:
        changes["rule"] = None
    if hidden:
        for name in ("subject", "previous"):
            subject = getattr(request, name)
            if subject is not None:
                changes[name] = masked(subject, hidden)
        changes["approvals"] = tuple(
            approval.model_copy(update={"answers": _masked_answers(approval.answers, hidden)})
            for approval in request.approvals
        )
    if not changes:
        return stored
    shown = request.model_copy(update=changes)  # the digest stays that of what is stored
    answers = _masked_answers(record.answers, hidden)
    return replace(stored, record=record.model_copy(update={"request": shown, "answers": answers}))


def masked(subject: Subject, hidden: Collection[str]) -> Subject:
    """Return a subject with some fields hidden, by dotted path."""
    return subject.model_copy(update={"data": _masked(subject.data, hidden, "")})


def masked_answer(answer: Answer, hidden: Collection[str]) -> Answer:
    """Return an answer likewise: an edit holds the whole subject."""
    if not hidden or not isinstance(answer.decision, Edit):
        return answer
    data = _masked(answer.decision.subject, hidden, "")
    decision = answer.decision.model_copy(update={"subject": data})
    return answer.model_copy(update={"decision": decision})


def _masked_answers(answers: Iterable[Answer], hidden: Collection[str]) -> tuple[Answer, ...]:
    return tuple(masked_answer(answer, hidden) for answer in answers)


def _masked(data: JsonObject, hidden: Collection[str], prefix: str) -> JsonObject:
    return {
        name: HIDDEN if f"{prefix}{name}" in hidden else _below(value, hidden, f"{prefix}{name}.")
        for name, value in data.items()
    }


def _below(value: JsonValue, hidden: Collection[str], prefix: str) -> JsonValue:
    """Hide fields of what a value is made of; a path goes through lists to each of their items."""
    if isinstance(value, dict):
        return _masked(value, hidden, prefix)
    if isinstance(value, list):
        return [_below(item, hidden, prefix) for item in value]
    return value
