"""A workflow as a picture: its steps, its gates, and the events between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from workflows import Workflow
from workflows.events import StartEvent, StopEvent
from workflows.representation import get_workflow_representation

from llama_index_hitl.drawing._canvas import (
    EDGE,
    FAINT,
    INK,
    MUTED,
    PAPER,
    TINT,
    Canvas,
    Point,
    cut,
    n,
    smooth,
    width_of,
)
from llama_index_hitl.drawing._layout import Box, Layout, Route, layout
from llama_index_hitl.drawing._picture import Picture
from llama_index_hitl.drawing._times import duration
from llama_index_hitl.events import (
    ReviewDeadlineEvent,
    ReviewRequestEvent,
    ReviewResponseEvent,
    ReviewWithdrawEvent,
)
from llama_index_hitl.gates import Review, gates_of
from llama_index_hitl.models import ROLE_PREFIX, DecisionKind, Expire, entries_of

_MARGIN = 24.0
_HEAD = 52.0
_WIDEST = 230.0
_LINE = 15.0

_GATE_FILL, _GATE_EDGE, _GATE_INK = "#fff8e1", "#d4a72c", "#7d4e00"
_START_FILL, _START_EDGE = "#ddf4ff", "#54aeff"
_END_FILL, _END_EDGE = "#dafbe1", "#4ac26b"

_BETWEEN_GATE_AND_PEOPLE = {
    kind.__name__
    for kind in (ReviewRequestEvent, ReviewResponseEvent, ReviewDeadlineEvent, ReviewWithdrawEvent)
} | {"HumanResponseEvent"}
"""Events that a gate and the people it asks exchange; the gate stands for all of them."""

_Kind = Literal["step", "gate", "event", "start", "stop", "person", "ending"]


@dataclass(frozen=True, slots=True)
class _Node:
    """What stands in one box."""

    key: str
    kind: _Kind
    label: str
    notes: tuple[str, ...] = ()

    @property
    def room(self) -> float:
        """How much of the width the words take."""
        bold = self.kind in ("step", "gate", "person")
        label = width_of(self.label, self._size, bold=bold)
        return min(_WIDEST, max([label, *(width_of(note, 11) for note in self.notes)]))

    @property
    def _size(self) -> float:
        return 13 if self.kind in ("step", "gate", "person") else 12

    @property
    def box(self) -> Box:
        """The box that the words need."""
        figure = 20 if self.kind in ("gate", "person") else 0
        height = 38 if self.kind in ("step", "gate", "person") else 24
        return Box(self.key, self.room + figure + 28, height + _LINE * len(self.notes))


def draw_workflow(workflow: Workflow | type[Workflow]) -> Picture:
    """Draw a workflow: its steps, its gates, and the events that lead from one to the next.

    A gate is one box, with whom it asks and what it takes; the events that pass between it and
    people are left out, and so are the resources that steps are given. An outcome that ends the run
    because no step takes it has a dashed outline.

    Args:
        workflow: A workflow, or its class; it is not run.

    Raises:
        TypeError: It is something else.

    Example:
        >>> from llama_index_hitl.prebuilt import DocumentApproval
        >>> draw_workflow(DocumentApproval)
        Picture('Workflow DocumentApproval: 4 steps, 2 gates')
    """
    cls = workflow if isinstance(workflow, type) else type(workflow)
    if not issubclass(cls, Workflow):
        raise TypeError(f"draw_workflow takes a workflow or its class, not {workflow!r}")
    nodes, edges = _graph(cls)
    placed = layout([node.box for node in nodes.values()], edges)
    name = cut(cls.__name__, 600, 16, bold=True)
    counts = _counts(nodes)
    width = max(placed.width, width_of(name, 16, bold=True), width_of(counts, 12)) + 2 * _MARGIN
    left = (width - placed.width) / 2
    canvas = Canvas()
    canvas.text(_MARGIN, 30, name, size=16, bold=True, whole=cls.__name__)
    canvas.text(_MARGIN, 47, counts, size=12, colour=MUTED)
    for route in placed.routes:
        _draw_route(canvas, route, placed, left)
    for node in nodes.values():
        x, y = placed.centres[node.key]
        _draw_node(canvas, node, x + left, y + _HEAD + _MARGIN / 2)
    height = placed.height + _HEAD + 1.5 * _MARGIN
    return canvas.picture(f"Workflow {cls.__name__}: {counts}", width, height)


def _counts(nodes: Mapping[str, _Node]) -> str:
    kinds = [node.kind for node in nodes.values()]
    steps, gates = kinds.count("step"), kinds.count("gate")
    said = [f"{steps} step{'s' * (steps != 1)}"]
    if gates:
        said.append(f"{gates} gate{'s' * (gates != 1)}")
    return ", ".join(said)


# --------------------------------------------------------------------------- graph


def _graph(cls: type[Workflow]) -> tuple[dict[str, _Node], list[tuple[str, str]]]:
    """Return what stands in the boxes, first where a run starts, and which leads to which."""
    drawn = get_workflow_representation(cls)
    gates = {gate.step_name: gate for gate in gates_of(cls).values()}
    kinds: dict[str, _Kind] = {}
    for found in drawn.nodes:
        if found.node_type == "event":
            types = getattr(found, "event_types", ())
            kinds[found.id] = (
                "start"
                if StartEvent.__name__ in types
                else "stop"
                if StopEvent.__name__ in types
                else "event"
            )
        elif found.node_type == "external":
            kinds[found.id] = "person"
        elif found.node_type == "step":
            kinds[found.id] = "gate" if found.id in gates else "step"
    edges = list(
        dict.fromkeys(
            (edge.source, edge.target)
            for edge in drawn.edges
            if edge.source in kinds
            and edge.target in kinds
            and not _is_between_gate_and_people(edge.source, edge.target, gates)
        )
    )
    edges, endings = _with_endings(edges, kinds, gates)
    edges = _without_strangers(edges, kinds)
    named = {key for edge in edges for key in edge}
    labels = {"external_step": "a person"}
    nodes = [
        _Node(key, kind, labels.get(key, key), ())
        if key not in gates
        else _Node(key, kind, gates[key].name, tuple(_notes(gates[key])))
        for key, kind in kinds.items()
        if key in named or kind in ("step", "gate")
    ]
    nodes += endings
    first = {"start": 0, "stop": 2}
    nodes.sort(key=lambda node: first.get(node.kind, 1))
    return {node.key: node for node in nodes}, edges


def _is_between_gate_and_people(source: str, target: str, gates: Mapping[str, Review]) -> bool:
    return (source in gates and target in _BETWEEN_GATE_AND_PEOPLE) or (
        target in gates and source in _BETWEEN_GATE_AND_PEOPLE
    )


def _with_endings(
    edges: list[tuple[str, str]], kinds: Mapping[str, _Kind], gates: Mapping[str, Review]
) -> tuple[list[tuple[str, str]], list[_Node]]:
    """Say which outcome it is with which a gate ends the run by itself."""
    kept, endings = [], []
    for source, target in edges:
        if source in gates and kinds[target] == "stop":
            first, *more = _ends(gates[source])
            ending = _Node(f"{source} ends", "ending", first, tuple(more))
            endings.append(ending)
            kept += [(source, ending.key), (ending.key, target)]
        else:
            kept.append((source, target))
    return kept, endings


def _ends(gate: Review) -> Iterator[str]:
    """Yield the outcomes of a gate that end the run."""
    if gate.rejected is None:
        yield "Rejected"
    if gate.responded is None and DecisionKind.RESPOND in gate.allowed:
        yield "Responded"
    if gate.expired is None and _may_expire(gate):
        yield "Expired"
    if gate.exhausted is None and gate.max_revisions is not None:
        yield "RevisionsExhausted"


def _may_expire(gate: Review) -> bool:
    if gate.ladder is None:
        return gate.deadline is not None
    return callable(gate.ladder) or any(isinstance(a, Expire) for a in gate.ladder.values())


def _without_strangers(
    edges: list[tuple[str, str]], kinds: Mapping[str, _Kind]
) -> list[tuple[str, str]]:
    """Leave out events that only people would have to do with: a gate stands for those."""
    known = {
        key
        for edge in edges
        if "person" not in (kinds.get(edge[0]), kinds.get(edge[1]))
        for key in edge
    }
    return [
        (source, target)
        for source, target in edges
        if (source in known or kinds.get(source) == "person")
        and (target in known or kinds.get(target) == "person")
    ]


def _notes(gate: Review) -> Iterator[str]:
    """Yield what there is to know of a gate, a line each."""
    yield f"asks {_whom(gate)}{_how_many(gate)}"
    if gate.distinct_from:
        yield f"nobody who approved {', '.join(entries_of(gate.distinct_from))}"
    if gate.ladder is not None:
        yield "reminds and passes on as time passes"
    elif isinstance(gate.deadline, timedelta):
        yield f"after {duration(gate.deadline)}: {_AT_DEADLINE[gate.on_deadline.kind]}"
    elif gate.deadline is not None:
        yield f"has a deadline: {_AT_DEADLINE[gate.on_deadline.kind]}"
    if gate.when is not None:
        yield "unless a rule decides"


_AT_DEADLINE = {"expire": "expires", "escalate": "passed on", "reject": "rejected"}


def _whom(gate: Review) -> str:
    if callable(gate.reviewers):
        return "people"
    entries = [entry.removeprefix(ROLE_PREFIX) for entry in entries_of(gate.reviewers or ())]
    return ", ".join(entries) or "anyone"


def _how_many(gate: Review) -> str:
    if gate.quorum == "all":
        return ": all of them"
    if isinstance(gate.quorum, dict):
        return f": {', '.join(f'{count} {role}' for role, count in gate.quorum.items())}"
    return f": {gate.quorum} approvals" if gate.quorum > 1 else ""


# --------------------------------------------------------------------------- drawing


def _draw_route(canvas: Canvas, route: Route, placed: Layout, left: float) -> None:
    points = [(x + left, y + _HEAD + _MARGIN / 2) for x, y in route.points]
    tip, before = points[-1], points[-2]
    forward = (tip[0] > before[0]) if placed.sideways else (tip[1] > before[1])
    step = 6.0 if forward else -6.0
    neck = (tip[0] - step, tip[1]) if placed.sideways else (tip[0], tip[1] - step)
    canvas.path(smooth([*points[:-1], neck], sideways=placed.sideways), stroke=FAINT)
    canvas.path(_arrow(tip, neck, sideways=placed.sideways), fill=FAINT, width=0)


def _arrow(tip: Point, neck: Point, *, sideways: bool) -> str:
    (x, y), (a, b) = tip, neck
    one, two = ((a, b - 4), (a, b + 4)) if sideways else ((a - 4, b), (a + 4, b))
    return f"M{n(x)} {n(y)}L{n(one[0])} {n(one[1])}L{n(two[0])} {n(two[1])}z"


def _draw_node(canvas: Canvas, node: _Node, x: float, y: float) -> None:
    box = node.box
    left, top = x - box.width / 2, y - box.height / 2
    if node.kind == "step":
        canvas.rect(left, top, box.width, box.height, fill=PAPER, stroke=MUTED, radius=6)
        canvas.text(
            x,
            y + 4.5,
            cut(node.label, _WIDEST, bold=True),
            anchor="middle",
            bold=True,
            whole=node.label,
        )
    elif node.kind in ("gate", "person"):
        _draw_people(canvas, node, left, top)
    else:
        fill, stroke = {
            "start": (_START_FILL, _START_EDGE),
            "stop": (_END_FILL, _END_EDGE),
            "ending": (PAPER, FAINT),
        }.get(node.kind, (TINT, EDGE))
        canvas.rect(
            left,
            top,
            box.width,
            box.height,
            fill=fill,
            stroke=stroke,
            radius=12,
            dashed=node.kind == "ending",
        )
        colour = MUTED if node.kind in ("event", "ending") else INK
        for index, line in enumerate((node.label, *node.notes)):
            said = cut(line, _WIDEST, 12)
            canvas.text(
                x,
                top + 16 + index * _LINE,
                said,
                size=12,
                anchor="middle",
                colour=colour,
                whole=line,
            )


def _draw_people(canvas: Canvas, node: _Node, left: float, top: float) -> None:
    box = node.box
    canvas.rect(left, top, box.width, box.height, fill=_GATE_FILL, stroke=_GATE_EDGE, radius=6)
    canvas.person(left + 20, top + 19, _GATE_INK)
    label = cut(node.label, _WIDEST, bold=True)
    canvas.text(left + 34, top + 23.5, label, bold=True, whole=node.label)
    for index, note in enumerate(node.notes):
        y = top + 40 + index * _LINE
        canvas.text(left + 34, y, cut(note, _WIDEST, 11), size=11, colour=_GATE_INK, whole=note)
