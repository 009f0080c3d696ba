"""The one way in which an answer comes in, for the API, pages, links and sockets alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from llama_index_hitl.errors import FieldProblem, InvalidAnswer, UnknownRequest
from llama_index_hitl.forms import parse_answer, problems_of
from llama_index_hitl.models import Answer, Delegate, Edit, JsonObject, Reviewer, ReviewRequest
from llama_index_hitl.runner import Receipt
from llama_index_hitl.stores.protocol import StoredRequest
from llama_index_hitl.web._site import Site
from llama_index_hitl.web.visibility import masked_answer

_GUARDS = ("digest", "role", "request_id")
"""What stands beside a decision in what is sent, and is no part of it."""


async def seen(site: Site, person: Reviewer, request_id: str) -> StoredRequest:
    """Return a request as somebody may see it.

    Raises:
        UnknownRequest: There is none, or none that they may see.
    """
    _, shown = await _both(site, person, request_id)
    return shown


async def _both(
    site: Site, person: Reviewer, request_id: str
) -> tuple[StoredRequest, StoredRequest]:
    """Return a request as it is stored, and as somebody may see it."""
    stored = await site.runner.store.request(request_id)
    if stored is None:
        raise UnknownRequest(request_id)
    shown = site.visibility.shown(person, stored)
    if shown is None:
        run = await site.runner.store.run(stored.run_id)
        shown = site.visibility.shown(person, stored, run=run)
    if shown is None:
        raise UnknownRequest(request_id)
    return stored, shown


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

    An edit keeps what is hidden from its editor, who cannot change it.

    Args:
        site: The application.
        person: Who answers.
        request_id: The request.
        raw: What they typed or sent, as `forms.parse_answer` takes it; the guards that an API's
            body has beside the decision are left out of it.
        digest: Digest of what they saw.
        role: In which role, where it matters.
        channel: Where it was said.

    Returns:
        The receipt, once the answer is stored, as its giver may see it. The same answer again
        gives an equal one.

    Raises:
        UnknownRequest: There is none, or none that they may see.
        AnswerRefused: It does not count; the error says why.
    """
    stored, shown = await _both(site, person, request_id)
    hidden = site.visibility.hidden_fields(person, stored.record.request)
    try:
        parsed = _parsed(site, person, stored, shown, raw, role=role, channel=channel)
        receipt = await site.runner.answer(
            request_id, parsed.decision, by=person, role=role, channel=channel, digest=digest
        )
    except InvalidAnswer as error:
        if not hidden:
            raise
        raise InvalidAnswer(request_id, _guarded(error.problems, stored, shown)) from None
    except ValidationError as error:  # such as a role that the authorizer does not vouch for
        raise InvalidAnswer(request_id, problems_of(error)) from None
    site.worker.nudge(receipt.run_id)
    return receipt.model_copy(update={"answer": masked_answer(receipt.answer, hidden)})


async def edited(
    site: Site, person: Reviewer, request_id: str, raw: Mapping[str, Any]
) -> JsonObject:
    """Return the subject as an edit would leave it, as its editor may see it; nothing is stored.

    Raises:
        UnknownRequest: There is none, or none that they may see.
        InvalidAnswer: It is no edit, or does not fit the request.
    """
    stored, shown = await _both(site, person, request_id)
    hidden = site.visibility.hidden_fields(person, stored.record.request)
    try:
        parsed = _parsed(site, person, stored, shown, raw, role=None, channel="web")
    except InvalidAnswer as error:
        if not hidden:
            raise
        raise InvalidAnswer(request_id, _guarded(error.problems, stored, shown)) from None
    decision = masked_answer(parsed, hidden).decision
    if not isinstance(decision, Edit):
        raise InvalidAnswer(request_id, [FieldProblem("decision", "this is no edit")])
    return decision.subject


def _parsed(
    site: Site,
    person: Reviewer,
    stored: StoredRequest,
    shown: StoredRequest,
    raw: str | Mapping[str, Any],
    *,
    role: str | None,
    channel: str,
) -> Answer:
    request = stored.record.request
    if not isinstance(raw, str):
        if raw.get("request_id", request.request_id) != request.request_id:
            problem = FieldProblem("request_id", "this is the id of another request")
            raise InvalidAnswer(request.request_id, [problem])
        raw = {name: value for name, value in raw.items() if name not in _GUARDS}
    parsed = parse_answer(
        request,
        raw,
        by=person,
        at=site.clock(),
        channel=channel,
        role=role,
        shown=shown.record.request.subject,
    )
    _refuse_unprintable(request, parsed)
    return parsed


def _refuse_unprintable(request: ReviewRequest, parsed: Answer) -> None:
    """Refuse a name that no store can find anybody by."""
    decision = parsed.decision
    if isinstance(decision, Delegate) and not decision.to.isprintable():
        problem = FieldProblem("to", "this is no name of a person")
        raise InvalidAnswer(request.request_id, [problem])


def _guarded(
    problems: Iterable[FieldProblem], stored: StoredRequest, shown: StoredRequest
) -> Iterator[FieldProblem]:
    """Yield problems without words that may quote what is hidden from whoever reads them."""
    said = "this does not fit, or is hidden from you: leave it as it is"
    whole, seen_of_it = stored.record.request.subject, shown.record.request.subject
    for problem in problems:
        of, _, path = problem.field.partition(".")
        name = next((n for n in (path, path.partition(".")[0]) if whole and n in whole.data), None)
        safe = (
            whole is None
            or seen_of_it is None
            or of not in ("", "subject", "grant")
            or (name is not None and whole.data[name] == seen_of_it.data.get(name))
        )
        yield problem if safe else FieldProblem(problem.field, said)
