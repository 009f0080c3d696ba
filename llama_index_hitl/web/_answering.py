"""The one way in which an answer comes in, for the API, pages, links and sockets alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index_hitl.errors import UnknownRequest
from llama_index_hitl.forms import parse_answer
from llama_index_hitl.models import Edit, JsonObject, Reviewer, Subject
from llama_index_hitl.runner import Receipt
from llama_index_hitl.stores.protocol import StoredRequest
from llama_index_hitl.web._site import Site


async def seen(site: Site, person: Reviewer, request_id: str) -> StoredRequest:
    """Return a request as somebody may see it.

    Raises:
        UnknownRequest: There is none, or none that they may see.
    """
    stored = await site.runner.store.request(request_id)
    shown = None if stored is None else site.visibility.shown(person, stored)
    if shown is None:
        raise UnknownRequest(request_id)
    return shown


async def answer(
    site: Site,
    person: Reviewer,
    request_id: str,
    raw: str | Mapping[str, Any],
    *,
    digest: str,
    role: str | None = None,
    channel: str = "web",
) -> Receipt:
    """Take an answer, and let the run go on beside it.

    Args:
        site: The application.
        person: Who answers.
        request_id: The request.
        raw: What they typed or sent, as `forms.parse_answer` takes it.
        digest: Digest of what they saw.
        role: In which role, where it matters.
        channel: Where it was said.

    Returns:
        The receipt, once the answer is stored.

    Raises:
        UnknownRequest: There is none, or none that they may see.
        AnswerRefused: It does not count; the error says why.
    """
    shown = await seen(site, person, request_id)
    request = shown.record.request
    parsed = parse_answer(request, raw, by=person, at=site.clock(), channel=channel, role=role)
    decision = parsed.decision
    if isinstance(decision, Edit) and request.subject is not None:
        stored = (await site.runner.get(request_id)).request.subject
        if stored is not None:
            decision = decision.model_copy(
                update={"subject": _unmasked(decision.subject, request.subject, stored)}
            )
    receipt = await site.runner.answer(
        request_id, decision, by=person, role=role, channel=channel, digest=digest
    )
    site.worker.nudge(receipt.run_id)
    return receipt


def _unmasked(edited: JsonObject, shown: Subject, stored: Subject) -> JsonObject:
    """Return an edited subject with the values that its editor could not see as they are stored."""
    return {
        name: stored.data[name]
        if name in stored.data and shown.data.get(name) != stored.data[name]
        else value
        for name, value in edited.items()
    }
