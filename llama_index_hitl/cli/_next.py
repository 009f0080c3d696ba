"""What to type next: the commands that answer a request, and those that go on with a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from llama_index_hitl.errors import EffectInDoubt
from llama_index_hitl.forms import decisions_of
from llama_index_hitl.models import DecisionKind
from llama_index_hitl.stores.protocol import RunStatus

if TYPE_CHECKING:
    from llama_index_hitl.cli._documents import Standing
    from llama_index_hitl.cli._place import Place
    from llama_index_hitl.cli._screen import Screen
    from llama_index_hitl.models import ReviewRequest

_NEEDS: Mapping[DecisionKind, tuple[str, ...]] = {
    DecisionKind.REVISE: ("--feedback", "WHAT TO CHANGE"),
    DecisionKind.EDIT: ("--set", "FIELD=VALUE"),
    DecisionKind.RESPOND: ("--response", "RESPONSE"),
    DecisionKind.DELEGATE: ("--to", "PERSON"),
}
"""What has to be said beside the word of a decision."""

_DEMO = "llama_index_hitl._demo."
"""What the names of the demo's workflows begin with."""

_SPELT_OUT = 3
"""Requests up to which every command is written."""


def ways_to_answer(request: ReviewRequest, place: Place) -> Iterator[tuple[str, ...]]:
    """Return the commands that answer a request, one for each decision that it allows."""
    for kind in decisions_of(request):
        needed = _NEEDS.get(kind, ())
        yield ("hitl", "answer", request.request_id, kind.value, *needed, *place.options)
    if request.grantable is not None and DecisionKind.APPROVE in request.allowed:
        terms = ("--grant", "any", "--at-most", "ARGUMENT=NUMBER", "--grant-uses", "N")
        yield ("hitl", "answer", request.request_id, "approve", *terms, *place.options)


def show_standing(
    screen: Screen, standing: Standing, place: Place, *, then: Sequence[str] = ()
) -> None:
    """Write where a run has come to, and what can be done about it.

    Args:
        screen: Where to.
        standing: The run.
        place: Where it is.
        then: The command that lets it go on; empty: `hitl recover`.
    """
    run = standing.run
    screen.say(f"Run {run.run_id} is {run.status}.")
    if standing.result is not None:
        screen.gap()
        screen.value(standing.result)
    if run.status is not RunStatus.WAITING:
        return
    if len(standing.requests) > _SPELT_OUT:
        screen.gap()
        screen.requests(standing.requests)
    else:
        for record in standing.requests:
            screen.heading(record.request.title)
            screen.command("hitl", "show", record.request.request_id, *place.options)
            for words in ways_to_answer(record.request, place):
                screen.command(*words)
    screen.gap()
    screen.say("Then the run goes on with:")
    screen.command(*(then or recovery(place)))


def recovery(place: Place, request: ReviewRequest | None = None) -> tuple[str, ...]:
    """Return the command that lets a run go on.

    Args:
        place: Where it is.
        request: What it has asked; a run of the demo has a command of its own.
    """
    if place.app is not None:
        return ("hitl", "recover", *place.options)
    if request is not None and request.workflow.startswith(_DEMO):
        return ("hitl", "demo", "--resume", request.run_id, *place.options)
    return ("hitl", "recover", "--app", "MODULE:OBJECT", *place.options)


def failure_of(standing: Standing) -> str | None:
    """Return what a failed run failed with, and what to do; None: it has not failed."""
    run = standing.run
    if run.status is not RunStatus.FAILED:
        return None
    error = run.error or {}
    doubt = error.get("type") == EffectInDoubt.__name__
    mend = "Say with `hitl settle` whether it has happened" if doubt else "Mend the cause"
    return (
        f"Run {run.run_id} failed: {error.get('type')}: {error.get('message')} Its answers are "
        f"kept. {mend}, then `hitl retry {run.run_id} --app ...`."
    )
