"""Runs, as far as somebody may see them, and what people do to them beside answering."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import JsonValue

from llama_index_hitl.authorizers import Action
from llama_index_hitl.errors import Forbidden, RunExists, UnknownRequest, UnknownRun
from llama_index_hitl.models import RequestStatus, Reviewer
from llama_index_hitl.stores.paging import all_requests
from llama_index_hitl.stores.protocol import RequestQuery, Run, RunStatus, StoredRequest
from llama_index_hitl.web._answering import seen
from llama_index_hitl.web._site import Site
from llama_index_hitl.web._starting import inputs_of
from llama_index_hitl.web._views import RunView, json_of, run_view

_BATCH = 100


@dataclass(frozen=True)
class SeenRun:
    """A run as somebody sees it.

    Attributes:
        run: The run. What its error says is for those only from whom nothing is hidden.
        requests: Those of its requests that they see, as they see them.
        unseen: How many of its requests they do not see.
        masked: Whether what it said, came to and failed with is hidden from them.
        held_up: Why it cannot go on with the code that runs here; empty: it can, or may not be
            looked at here.
    """

    run: Run
    requests: tuple[StoredRequest, ...]
    unseen: int
    masked: bool
    held_up: tuple[str, ...] = ()

    def view(self) -> RunView:
        """Return what is said of it."""
        is_open = RequestStatus.OPEN
        ids = tuple(s.request_id for s in self.requests if s.record.status is is_open)
        view = run_view(self.run, ids).model_copy(update={"held_up": self.held_up})
        if view.error is None or not self.masked:
            return view
        return view.model_copy(update={"error": {"type": view.error.get("type"), "message": None}})


async def seen_run(site: Site, person: Reviewer, run_id: str) -> SeenRun:
    """Return a run as somebody may see it, with all its requests that they may see.

    Raises:
        UnknownRun: There is none, or none that they may see.
    """
    run = await site.runner.store.run(run_id)
    shown = None if run is None else await seeing(site, person, run)
    if shown is None:
        raise UnknownRun(run_id)
    return replace(shown, held_up=await _held_up(site, shown))


async def _held_up(site: Site, shown: SeenRun) -> tuple[str, ...]:
    """Return what keeps a run from going on although nobody is asked anything any more.

    An answer is taken whether or not the code still fits, and it is kept; without this its giver
    would look at a run that waits for nobody, and nobody would know why.
    """
    run = shown.run
    if run.status is not RunStatus.WAITING or run.workflow not in site.runner.workflows:
        return ()
    asked = await site.runner.store.requests(RequestQuery(run_id=run.run_id, limit=1))
    if tuple(asked):
        return ()
    (check,) = await site.runner.check(run.run_id)
    if check.verdict == "breaks" and shown.masked:
        return ("It cannot be read.",)
    return check.differences


async def seeing(site: Site, person: Reviewer, run: Run) -> SeenRun | None:
    """Return a run that was read as somebody may see it; None: they may not."""
    query = RequestQuery(run_id=run.run_id, open=None, limit=_BATCH)
    requests = [stored async for stored in all_requests(site.runner.store, query)]
    if not site.visibility.sees_run(person, run, requests):
        return None
    visibility = site.visibility
    shown = [visibility.shown(person, stored, run=run) for stored in requests]
    found = tuple(stored for stored in shown if stored is not None)
    return SeenRun(
        run=run,
        requests=found,
        unseen=len(requests) - len(found),
        masked=not visibility.sees_content(person, run, requests),
    )


async def start(
    site: Site,
    person: Reviewer,
    workflow: str,
    raw: Mapping[str, Any],
    *,
    run_id: str | None = None,
    wait: bool = False,
) -> tuple[Run, bool]:
    """Start a run for somebody.

    Args:
        site: The application.
        person: Who starts it.
        workflow: Name under which the runner knows the workflow.
        raw: The fields of the start form by name; values may be strings, as forms send them.
        run_id: Id to give it, so that a start can be repeated safely: a run of theirs that has it
            is returned as it is. None: a new one.
        wait: Let it go on until it waits for people or ends, before this returns; it does so even
            if whoever waits for it goes away. False: it is stored, and begun soon.

    Returns:
        The run, and whether it is new.

    Raises:
        UnknownWorkflow: There is none with that name that they may start.
        InvalidStart: It does not fit the workflow's start event; nothing was stored.
        RunExists: The id belongs to somebody else's run, or to one of another workflow.
    """
    inputs = inputs_of(site, person, workflow, raw)
    if run_id is not None and (known := await site.runner.store.run(run_id)) is not None:
        return _theirs(person, workflow, known), False
    begin = site.runner.start if wait else site.runner.enqueue
    work = begin(workflow, by=person, run_id=run_id, inputs=inputs)
    run = _theirs(person, workflow, await site.worker.through(work))
    site.worker.nudge(run.run_id)
    return run, True


def _theirs(person: Reviewer, workflow: str, run: Run) -> Run:
    """Return a run that has the id of one that somebody starts, if it is that one."""
    if run.started_by != person.id or run.workflow != workflow:
        raise RunExists(run.run_id, workflow=workflow)
    return run


async def cancel(site: Site, person: Reviewer, run_id: str, *, reason: str = "") -> None:
    """End a run for good.

    Raises:
        UnknownRun: There is none, or none that they may see.
        Forbidden: They may not.
        RunEnded: It is over.
    """
    await _may(site, person, Action.CANCEL, run_id)
    await site.worker.through(site.runner.cancel(run_id, by=person, reason=reason))
    site.worker.nudge(run_id)


async def retry(site: Site, person: Reviewer, run_id: str) -> None:
    """Try a failed run again, and let it go on until it waits for people or ends.

    Raises:
        UnknownRun: There is none, or none that they may see.
        Forbidden: They may not.
        RunEnded: It has not failed.
        RunBusy: Somebody else was quicker.
    """
    await _may(site, person, Action.RETRY, run_id)
    await site.worker.through(site.runner.retry(run_id, by=person))
    site.worker.nudge(run_id)


async def withdraw(site: Site, person: Reviewer, request_id: str, *, reason: str = "") -> None:
    """Close a request without a decision.

    Raises:
        UnknownRequest: There is none, or none that they may see.
        Forbidden: They may not.
        InvalidTransition: It is closed.
        QuestionError: It was asked inside a step, which cannot go on without an answer.
    """
    shown = await seen(site, person, request_id)
    run = await site.runner.store.run(shown.run_id)
    if run is None:
        raise UnknownRequest(request_id)
    _refuse_unless(site.visibility.may_act(person, Action.WITHDRAW, run, shown), Action.WITHDRAW)
    await site.runner.withdraw(request_id, by=person, reason=reason)
    site.worker.nudge(run.run_id)


async def result_of(site: Site, person: Reviewer, run_id: str) -> JsonValue:
    """Return what a run came to, as JSON.

    Raises:
        UnknownRun: There is none, or none that they may see.
        Forbidden: It may hold what is hidden from them.
        StillWaiting: It has none yet.
        RunFailed: It has failed.
        RunEnded: It was cancelled.
    """
    shown = await seen_run(site, person, run_id)
    if shown.masked and shown.run.status is RunStatus.FINISHED:
        raise Forbidden("What the run came to may hold what is hidden from you.")
    return json_of(await site.runner.result(run_id))


async def _may(site: Site, person: Reviewer, action: Action, run_id: str) -> None:
    shown = await seen_run(site, person, run_id)
    _refuse_unless(site.visibility.may_act(person, action, shown.run, None), action)


def _refuse_unless(allowed: bool, action: Action) -> None:
    if not allowed:
        raise Forbidden(f"You may not {action} this; whoever started the run may.")


def ids_of(requests: Iterable[StoredRequest]) -> frozenset[str]:
    """Return the ids of requests."""
    return frozenset(stored.request_id for stored in requests)
