"""Who sees what, and which fields of it. Subclass `Visibility` for rules of your own."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from llama_index_hitl.authorizers import Action
from llama_index_hitl.models import ROLE_PREFIX, Reviewer, ReviewRecord, ReviewRequest
from llama_index_hitl.stores.protocol import Run, StoredRequest
from llama_index_hitl.web._masking import HIDDEN, masked, masked_answer, masked_record, masked_value

__all__ = ["HIDDEN", "Visibility", "entries_for", "masked", "masked_answer", "masked_value"]


class Visibility:
    """Who sees what. By default people see what they are asked, were asked, or started.

    Override a method to change one of its answers. What it says here limits what the pages and the
    API show and do; whether an answer counts is for the request's policy and the authorizer.

    Args:
        admins: Entries, ids and `role:...`, of those who see and may do everything.
        auditors: Entries of those who see everything.

    Example:
        >>> class WithoutSalaries(Visibility):
        ...     def hidden_fields(self, person, request):
        ...         return () if self.is_admin(person) else ("employee.salary",)
        >>> request = ReviewRequest(request_id="r-1", title="Hire?", created_at=utc_now())
        >>> WithoutSalaries(admins=["role:hr"]).hidden_fields(Reviewer(id="erin"), request)
        ('employee.salary',)
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
        """Tell whether somebody may do everything.

        Args:
            person: Who it is.
        """
        return not self._admins.isdisjoint(entries_for(person))

    def sees_all(self, person: Reviewer) -> bool:
        """Tell whether somebody sees everything.

        Args:
            person: Who it is.
        """
        return self.is_admin(person) or not self._auditors.isdisjoint(entries_for(person))

    def sees_request(self, person: Reviewer, stored: StoredRequest) -> bool:
        """Tell whether somebody sees a request: they are asked, have answered, or it is theirs.

        Whoever started the run that asks sees it, too, see `shown`.

        Args:
            person: Who wants to see it.
            stored: The request.
        """
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
        """Tell whether somebody may start runs of a workflow; everybody may.

        Args:
            person: Who wants to start it.
            workflow: Name under which the runner knows the workflow.
        """
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

        A path goes through lists to each of their items, as in `items.price`; a star stands for
        any one name. What is below a hidden field is hidden with it.

        A hidden field is hidden in the subject, its schema, the revision before and the changes
        since, in edits of it, here and in the approvals of earlier stages, and in standing
        approvals. What rules said is hidden, for they quote values. An editor leaves hidden fields
        as they are. What a run said and came to is not shown at all, see `sees_content`.

        Title, body, evidence, tags and the response's form are the workflow's own words, feedback
        and comments are people's: they are shown as they are. Keep what must be hidden out of them,
        or override `shown`. The digest is that of the whole request: whoever sees all the rest of
        it can find out whether a guess at a hidden value is right.

        Args:
            person: Who wants to see the request.
            request: The request.
        """
        return ()

    def sees_content(self, person: Reviewer, run: Run, requests: Iterable[StoredRequest]) -> bool:
        """Tell whether somebody sees what a run was given, says, came to, and failed with.

        Those who see the run do, unless a field of one of its requests is hidden from them: where
        its value has got to meanwhile, nobody knows.

        Args:
            person: Who wants to see it.
            run: The run.
            requests: Its requests, open and closed.
        """
        return not any(self.hidden_fields(person, stored.record.request) for stored in requests)

    def shown(
        self, person: Reviewer, stored: StoredRequest, *, run: Run | None = None
    ) -> StoredRequest | None:
        """Return a request as somebody may see it; None: they may not see that there is one.

        What may not be seen is taken out: hidden fields, and what a rule on trial would have said,
        which must not lead anybody.

        Args:
            person: Who wants to see it.
            stored: The request.
            run: The run that asks, where it is at hand: whoever started it sees what it asks.
        """
        started = run is not None and run.started_by == person.id
        if not started and not self.sees_request(person, stored):
            return None
        hidden = frozenset(self.hidden_fields(person, stored.record.request))
        return replace(stored, record=masked_record(_without_trial(stored.record), hidden))


def entries_for(person: Reviewer) -> frozenset[str]:
    """Return the reviewer entries that name somebody: their id, and their roles."""
    return frozenset((person.id, *(ROLE_PREFIX + role for role in person.roles)))


def _without_trial(record: ReviewRecord) -> ReviewRecord:
    """Return a request without what a rule on trial would have said of it."""
    rule = record.request.rule
    if rule is None or rule.shadow is None:
        return record
    # Not made anew: the digest stays that of what is stored.
    return record.model_copy(update={"request": record.request.model_copy(update={"rule": None})})
