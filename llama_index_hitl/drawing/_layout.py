"""Where the boxes of a graph go: in layers, so that most lines lead forwards and few cross.

The steps are those of Sugiyama, Tagawa and Toda (1981): turn the lines that close a circle around,
put every box into a layer behind those that lead to it, order each layer so that few lines cross,
then move boxes near those that they are tied to, as far as their order allows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from llama_index_hitl.drawing._canvas import Point

_SWEEPS = 24
_ROUNDS = 300
_EXACT = 0.01
_GAP_BETWEEN_BOXES = 22.0
_GAP_BETWEEN_LINES = 16.0
_GAP_BETWEEN_LAYERS = 28.0
_PORT = 14.0  # between two lines at one side of a box


@dataclass(frozen=True, slots=True)
class Box:
    """A box to be placed.

    Attributes:
        key: Its name.
        width: How wide it is.
        height: How high it is.
    """

    key: str
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Route:
    """The way of one line.

    Attributes:
        source: The box where it begins.
        target: The box that it points to.
        points: From the border of the one to that of the other.
    """

    source: str
    target: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """A graph that has its place; the upper left corner is 0, 0.

    Attributes:
        centres: The middle of each box.
        routes: The lines.
        width: How wide all of it is.
        height: How high.
        sideways: Whether the layers follow each other from left to right, and not downwards.
    """

    centres: Mapping[str, Point]
    routes: tuple[Route, ...]
    width: float
    height: float
    sideways: bool


def layout(
    boxes: Sequence[Box], edges: Sequence[tuple[str, str]], *, at_most: float = 960
) -> Layout:
    """Return a place for every box: downwards, or sideways where that is too wide.

    Args:
        boxes: The boxes, first those where a reader shall begin.
        edges: From which box to which; names that are no box are an error.
        at_most: How wide a picture may be before the other direction is tried.
    """
    down = _layout(boxes, edges, sideways=False)
    if down.width <= at_most:
        return down
    aside = _layout(boxes, edges, sideways=True)
    return aside if aside.width < down.width else down


@dataclass(slots=True)
class _Node:
    """A box, or the place where a long line passes through a layer."""

    key: str
    breadth: float  # across the direction of reading
    depth: float  # along it
    line: bool = False
    rank: int = 0
    at: float = 0.0
    before: list[_Node] = field(default_factory=list)
    behind: list[_Node] = field(default_factory=list)


def _layout(boxes: Sequence[Box], edges: Sequence[tuple[str, str]], *, sideways: bool) -> Layout:
    nodes = {
        box.key: _Node(
            box.key,
            box.height if sideways else box.width,
            box.width if sideways else box.height,
        )
        for box in boxes
    }
    forward = _acyclic(list(nodes), edges)
    _rank(nodes, [(a, b) for a, b, _ in forward])
    chains = [_chain(nodes[a], nodes[b]) for a, b, _ in forward]
    layers = _layers([*nodes.values(), *(node for chain in chains for node in chain[1:-1])])
    _order(layers)
    _place(layers)
    tops, depths = _depths(layers)

    def point(across: float, along: float) -> Point:
        return (along, across) if sideways else (across, along)

    ports = _ports(chains)
    routes = []
    for index, ((_, _, turned), chain) in enumerate(zip(forward, chains, strict=True)):
        points = []
        for place, node in enumerate(chain):
            middle = tops[node.rank] + depths[node.rank] / 2
            if place == 0:
                points.append(point(ports[index, 0], middle + node.depth / 2))
            elif node.line:
                points.append(point(node.at, tops[node.rank]))
                points.append(point(node.at, tops[node.rank] + depths[node.rank]))
            else:
                points.append(point(ports[index, 1], middle - node.depth / 2))
        ends = (chain[-1].key, chain[0].key) if turned else (chain[0].key, chain[-1].key)
        routes.append(Route(*ends, tuple(reversed(points)) if turned else tuple(points)))
    breadth = max((node.at + node.breadth / 2 for layer in layers for node in layer), default=0.0)
    whole = point(breadth, tops[-1] + depths[-1] if tops else 0.0)
    return Layout(
        centres={
            key: point(node.at, tops[node.rank] + depths[node.rank] / 2)
            for key, node in nodes.items()
        },
        routes=tuple(routes),
        width=whole[0],
        height=whole[1],
        sideways=sideways,
    )


def _acyclic(keys: Sequence[str], edges: Sequence[tuple[str, str]]) -> list[tuple[str, str, bool]]:
    """Return the edges so that no circle is left, each with whether it was turned around."""
    unique = list(dict.fromkeys(edges))
    following: dict[str, list[str]] = defaultdict(list)
    for source, target in unique:
        following[source].append(target)
    led_to = {target for _, target in unique}
    closing: set[tuple[str, str]] = set()
    done: set[str] = set()
    for root in [*(key for key in keys if key not in led_to), *keys]:
        if root in done:
            continue
        way, trail = {root}, [(root, iter(following[root]))]
        while trail:
            key, left = trail[-1]
            ahead = next(left, None)
            if ahead is None:
                trail.pop()
                way.remove(key)
                done.add(key)
            elif ahead in way:
                closing.add((key, ahead))
            elif ahead not in done:
                way.add(ahead)
                trail.append((ahead, iter(following[ahead])))
    return [(b, a, True) if (a, b) in closing else (a, b, False) for a, b in unique]


def _rank(nodes: Mapping[str, _Node], edges: Sequence[tuple[str, str]]) -> None:
    """Put every node behind all that lead to it; what nothing leads to, near its followers."""
    changed = True
    while changed:
        changed = False
        for source, target in edges:
            if nodes[target].rank <= nodes[source].rank and source != target:
                nodes[target].rank = nodes[source].rank + 1
                changed = True
    led_to = {target for _, target in edges}
    for key, node in nodes.items():
        followers = [nodes[target].rank for source, target in edges if source == key]
        if key not in led_to and followers:
            node.rank = min(followers) - 1


def _chain(first: _Node, last: _Node) -> list[_Node]:
    """Return the nodes that a line passes, its ends included, and tie them together."""
    between = [
        _Node("", _GAP_BETWEEN_LINES / 4, 0.0, line=True, rank=rank)
        for rank in range(first.rank + 1, last.rank)
    ]
    chain = [first, *between, last]
    for node, other in pairwise(chain):
        node.behind.append(other)
        other.before.append(node)
    return chain


def _layers(nodes: Sequence[_Node]) -> list[list[_Node]]:
    layers: list[list[_Node]] = [[] for _ in range(max((n.rank for n in nodes), default=-1) + 1)]
    for node in nodes:
        layers[node.rank].append(node)
    return layers


# --------------------------------------------------------------------------- order


def _order(layers: list[list[_Node]]) -> None:
    """Order each layer so that few lines cross: each node near the middle of its neighbours."""
    best, fewest = [list(layer) for layer in layers], _crossings(layers)
    for sweep in range(_SWEEPS):
        downwards = sweep % 2 == 0
        for index in range(len(layers)) if downwards else range(len(layers) - 1, -1, -1):
            other = index - 1 if downwards else index + 1
            if not 0 <= other < len(layers):
                continue
            places = {id(node): float(place) for place, node in enumerate(layers[other])}
            own = {id(node): float(place) for place, node in enumerate(layers[index])}

            def wanted(
                node: _Node,
                places: Mapping[int, float] = places,
                own: Mapping[int, float] = own,
                downwards: bool = downwards,
            ) -> float:
                near = [places[id(o)] for o in (node.before if downwards else node.behind)]
                return sum(near) / len(near) if near else own[id(node)]

            layers[index].sort(key=wanted)
        if (found := _crossings(layers)) < fewest:
            best, fewest = [list(layer) for layer in layers], found
    layers[:] = best


def _crossings(layers: Sequence[Sequence[_Node]]) -> int:
    total = 0
    for layer, following in pairwise(layers):
        places = {id(node): place for place, node in enumerate(following)}
        ends = [[places[id(other)] for other in node.behind] for node in layer]
        for index, some in enumerate(ends):
            for others in ends[index + 1 :]:
                total += sum(a > b for a in some for b in others)
    return total


# --------------------------------------------------------------------------- places


def _place(layers: Sequence[Sequence[_Node]]) -> None:
    """Give every node its place across: in order, without overlap, near what it is tied to.

    What is to stand in line moves as one. Ties pull like springs, a little at a time, and what gets
    too close pushes each other away.
    """
    lines = _lines(layers)
    line_of = {id(node): index for index, line in enumerate(lines) for node in line}
    apart = _distances(layers, line_of)
    ties = [_ties(line, line_of) for line in lines]
    at = _spread([0.0] * len(lines), apart)
    for left_over in range(_ROUNDS, 0, -1):
        strength = left_over / _ROUNDS / 2  # weaker and weaker, so that all find room in the end
        for index, tied in enumerate(ties):
            if tied:
                total = sum(weight for _, weight in tied)
                middle = sum(at[other] * weight for other, weight in tied) / total
                at[index] += (middle - at[index]) * strength
        _push(at, apart)
        _push(at, dict(reversed(apart.items())))
    at = _spread(at, apart)
    least = min((at[line_of[id(n)]] - n.breadth / 2 for row in layers for n in row), default=0.0)
    for line, place in zip(lines, at, strict=True):
        for node in line:
            node.at = place - least


def _lines(layers: Sequence[Sequence[_Node]]) -> list[list[_Node]]:
    """Return the nodes in groups that stand in line: those of a long line, those in single file."""
    lines: dict[int, list[_Node]] = {}
    for layer, following in zip(layers, [*layers[1:], ()], strict=True):
        places = {id(node): place for place, node in enumerate(following)}
        pairs = [
            (place, places[id(other)], node, other)
            for place, node in enumerate(layer)
            for other in node.behind
            if (node.line and other.line) or len(node.behind) == 1 == len(other.before)
        ]
        taken: list[tuple[int, int]] = []
        for node in layer:
            lines.setdefault(id(node), [node])
        # Two that cross cannot both be straight: long lines come first.
        for place, behind, node, other in sorted(pairs, key=lambda pair: not pair[3].line):
            if all((place < p) == (behind < q) for p, q in taken):
                taken.append((place, behind))
                lines[id(node)].append(other)
                lines[id(other)] = lines[id(node)]
    return list({id(line): line for line in lines.values()}.values())


def _distances(
    layers: Sequence[Sequence[_Node]], line_of: Mapping[int, int]
) -> dict[tuple[int, int], float]:
    """Return how far apart lines must be that stand side by side somewhere: left, right."""
    apart: dict[tuple[int, int], float] = defaultdict(float)
    for layer in layers:
        for node, following in pairwise(layer):
            gap = _GAP_BETWEEN_LINES if node.line or following.line else _GAP_BETWEEN_BOXES
            pair = line_of[id(node)], line_of[id(following)]
            apart[pair] = max(apart[pair], (node.breadth + following.breadth) / 2 + gap)
    return apart


def _ties(line: Sequence[_Node], line_of: Mapping[int, int]) -> list[tuple[int, float]]:
    """Return to which other lines a line is tied, and how much; long ones matter less."""
    own = line_of[id(line[0])]
    return [
        (line_of[id(other)], 0.4 if node.line or other.line else 1.0)
        for node in line
        for other in (*node.before, *node.behind)
        if line_of[id(other)] != own
    ]


def _push(at: list[float], apart: Mapping[tuple[int, int], float]) -> None:
    """Move apart what is too close, both as far."""
    for (left, right), distance in apart.items():
        missing = at[left] + distance - at[right]
        if missing > 0:
            at[left] -= missing / 2
            at[right] += missing / 2


def _spread(at: Sequence[float], apart: Mapping[tuple[int, int], float]) -> list[float]:
    """Return places moved to the right until all are as far apart as they must be."""
    moved = list(at)
    too_close = True
    while too_close:
        too_close = False
        for (left, right), distance in apart.items():
            if moved[right] < moved[left] + distance - _EXACT:
                moved[right] = moved[left] + distance
                too_close = True
    return moved


def _depths(layers: Sequence[Sequence[_Node]]) -> tuple[list[float], list[float]]:
    """Return where each layer begins along the direction of reading, and how deep it is."""
    depths = [max(node.depth for node in layer) for layer in layers]
    tops, top = [], 0.0
    for depth in depths:
        tops.append(top)
        top += depth + _GAP_BETWEEN_LAYERS
    return tops, depths


def _ports(chains: Sequence[Sequence[_Node]]) -> dict[tuple[int, int], float]:
    """Return where each line leaves its first box and enters its last one, across."""
    sides: dict[tuple[int, int], list[tuple[float, int]]] = defaultdict(list)
    boxes: dict[int, _Node] = {}
    for index, chain in enumerate(chains):
        for end, node, neighbour in ((0, chain[0], chain[1]), (1, chain[-1], chain[-2])):
            sides[id(node), end].append((neighbour.at, index))
            boxes[id(node)] = node
    ports: dict[tuple[int, int], float] = {}
    for (key, end), lines in sides.items():
        node = boxes[key]
        gap = min(_PORT, (node.breadth - 12) / len(lines))
        for place, (_, index) in enumerate(sorted(lines)):
            ports[index, end] = node.at + (place - (len(lines) - 1) / 2) * gap
    return ports
