"""Answers into a snapshot: each one to the one place that waits for it.

An event that is sent to a restored run goes to every step and every wait that takes its type. Here
an answer is put where its own question was asked, before the run is restored: into the queue of the
gate's step, or into the wait. So no answer can reach a sibling, another gate or another draft, and
the run is idle again only when all of them are done.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, cast

from workflows import Workflow
from workflows.context.serializers import JsonSerializer
from workflows.events import Event

from llama_index_hitl._ledger import BUFFER
from llama_index_hitl._upstream import steps_taking
from llama_index_hitl.errors import UnknownRequest
from llama_index_hitl.events import ReviewRelayEvent, ReviewResponseEvent, Told
from llama_index_hitl.gates import gates_of

_WORK = ("event", "bound_events", "scope_path", "work_item_id", "collection_release_payload")
"""What a wait and the work that goes on after it have in common."""


class Delivery:
    """Puts what a run is to be told into its snapshot.

    Args:
        workflow: The workflow, as it is now.
        context: The serialized context; it is left as it is.
        serializer: Writes events as the snapshot has them.
    """

    def __init__(
        self, workflow: Workflow, context: Mapping[str, Any], serializer: JsonSerializer
    ) -> None:
        self._workflow = workflow
        self._serializer = serializer
        self._gate_steps = {gate.step_name for gate in gates_of(workflow).values()}
        # Only the lists that are written to are copied; a snapshot can be large.
        workers = {
            name: {
                **worker,
                "queue": list(worker.get("queue", ())),
                "collected_waiters": [dict(w) for w in worker.get("collected_waiters", ())],
            }
            for name, worker in context.get("workers", {}).items()
        }
        self.context: dict[str, Any] = {**context, "workers": workers}

    def to_gate(self, event: Told) -> None:
        """Tell the gate that has asked.

        Raises:
            UnknownRequest: No gate has asked this, or so long ago that none remembers.
        """
        written = f'"{event.request_id}"'
        for name in sorted(self._gate_steps & self.context["workers"].keys()):
            worker = self.context["workers"][name]
            if any(written in memory for memory in worker["collected_events"].get(BUFFER, ())):
                worker["queue"].append({"event": self._serializer.serialize(event)})
                return
        raise UnknownRequest(event.request_id)

    def to_question(self, event: Told) -> bool:
        """Tell a step that has asked this inline, or on behalf of a run within it.

        Everything that one request is told comes to the step at once.

        Returns:
            Whether a step waits with this request.
        """
        for worker in self.context["workers"].values():
            for waiter in worker["collected_waiters"]:
                if waiter["waiter_id"] != event.request_id or not _is_of_question(waiter):
                    continue
                before = waiter.get("resolved_event")
                together = _both(before and self._serializer.deserialize(before), event)
                self._wake(worker, waiter, together)
                return True
        return False

    def to_wait(self, waiter_id: str, event: Event, *, step: str | None = None) -> None:
        """Wake one wait, and no other.

        Args:
            waiter_id: Upstream's name for it, unique within its step.
            event: What to wake it with.
            step: Its step; None: the id is unique in the whole run.

        Raises:
            UnknownRequest: Nothing waits under that id any more.
        """
        for name, worker in self.context["workers"].items():
            if step not in (None, name):
                continue
            for waiter in worker["collected_waiters"]:
                if waiter["waiter_id"] == waiter_id and waiter.get("resolved_event") is None:
                    self._wake(worker, waiter, event)
                    return
        raise UnknownRequest(waiter_id)

    def _wake(self, worker: dict[str, Any], waiter: dict[str, Any], event: Event) -> None:
        waiter["resolved_event"] = self._serializer.serialize(event)
        # Else upstream runs the step a second time, to learn what it requires.
        waiter["has_requirements"] = False
        item = waiter.get("work_item_id")
        # One call of the step sees everything that it has waited for.
        if item is None or all(work.get("work_item_id") != item for work in worker["queue"]):
            worker["queue"].append(deepcopy({n: waiter[n] for n in _WORK if n in waiter}))

    def to_steps(self, event: Event) -> None:
        """Tell every step that takes this event, but no gate: a plain answer is not for those."""
        for name in steps_taking(self._workflow, event):
            if name not in self._gate_steps:
                worker = self.context["workers"][name]
                worker["queue"].append({"event": self._serializer.serialize(event)})


def _is_of_question(waiter: Mapping[str, Any]) -> bool:
    awaited: str = waiter["waiting_for_event"]
    return awaited == f"{ReviewResponseEvent.__module__}.{ReviewResponseEvent.__name__}"


def _both(before: Any, event: Told) -> Event:
    if before is None:
        return event
    told = before.told if isinstance(before, ReviewRelayEvent) else (cast("Told", before),)
    return ReviewRelayEvent(told=(*told, event))
