"""Open requests in a migrated run: they show what they would let happen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from workflows.context.serializers import JsonSerializer
from workflows.events import Event, InputRequiredEvent

from llama_index_hitl._codec import SnapshotSerializer
from llama_index_hitl._ledger import BUFFER, Ledger, OpenReview
from llama_index_hitl._proposals import FOR_THE_GATE, describe, subject_in
from llama_index_hitl._requests import again
from llama_index_hitl.errors import SnapshotError, SubjectError
from llama_index_hitl.migrations._migration import MigrationError
from llama_index_hitl.models import UNCHECKED


class OpenRequests:
    """Makes the open requests of a run show what their migrated subjects are."""

    def __init__(self, serializer: SnapshotSerializer, before: Mapping[str, Any]) -> None:
        self._serializer = serializer
        self._intact = {
            request_id
            for holder in _holders(before)
            for text in holder["collected_events"].get(BUFFER, ())
            for request_id, review in self._ledger(text).open.items()
            if _shows_its_subject(review)
        }

    def renew(self, context: dict[str, Any]) -> None:
        """Change the requests in a run, in place."""
        for holder in _holders(context):
            buffers = holder["collected_events"]
            if BUFFER in buffers:
                buffers[BUFFER] = [self._renewed(text) for text in buffers[BUFFER]]

    def _ledger(self, text: str) -> Ledger:
        memory = self._serializer.deserialize(text).get("memory")
        return Ledger.model_validate(memory, context=UNCHECKED)

    def _renewed(self, text: str) -> str:
        ledger = self._ledger(text)
        stale = [review for review in ledger.open.values() if not _shows_its_subject(review)]
        if not stale:
            return text
        for review in stale:
            ledger = ledger.with_open(self._review(review))
        return self._serializer.serialize(InputRequiredEvent(memory=ledger.model_dump(mode="json")))

    def _review(self, review: OpenReview) -> OpenReview:
        request = review.record.request
        if request.request_id not in self._intact or request.digest != request.actual_digest():
            raise MigrationError(
                f"Request {request.request_id} does not show what is under review: what is stored "
                "has been changed, and is not migrated."
            )
        try:
            proposal: Event = self._serializer.deserialize_value(review.proposal)
            subject = describe(subject_in(proposal, review.subject_field))
        except (SnapshotError, SubjectError, AttributeError) as error:
            raise MigrationError(
                f"What {request.request_id} asks about does not fit the code after its migration: "
                f"{error}"
            ) from error
        record = review.record.model_copy(update={"request": again(request, subject=subject)})
        written = JsonSerializer().serialize_value(proposal)  # as gates write it
        return review.model_copy(update={"record": record, "proposal": written})


def _holders(context: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what has the buffers of a step: the step, and its calls that were under way."""
    for worker in context.get("workers", {}).values():
        yield from (worker, *worker.get("in_progress", ()))


def _shows_its_subject(review: OpenReview) -> bool:
    """Tell whether a request shows the values that its proposal has."""
    values: Any = review.proposal["value"]
    if review.subject_field is not None:
        values = values.get(review.subject_field) if isinstance(values, dict) else None
    if isinstance(values, dict):
        undeclared = values.get("_data", {}).items()
        values = {key: value for key, value in values.items() if key != "_data"}
        values |= {key: value for key, value in undeclared if key not in FOR_THE_GATE}
    subject = review.record.request.subject
    return subject is not None and values == subject.data
