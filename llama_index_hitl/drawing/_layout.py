"""Where the boxes of a graph go: in layers, so that most lines lead forwards and few cross.

The steps are those of Sugiyama, Tagawa and Toda (1981): turn the lines that close a circle around,
put every box into a layer behind those that lead to it, order each layer so that few lines cross,
then move boxes as close to their neighbours as their order allows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from llama_index_hitl.drawing._canvas import Point

_SWEEPS = 24
_GAP_BETWEEN_BOXES = 22.0
_GAP_BETWEEN_LINES = 16.0
_GAP_BETWEEN_LAYERS = 28.0
_WEIGHTS = (1.0, 2.0, 8.0)  # of a line by how many of its ends are in the middle of a longer one
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
        way, trail = {root: None}, [(root, iter(following[root]))]
        while trail:
            key, left = trail[-1]
            target = next(left, None)
            if target is None:
                trail.pop()
                way.pop(key)
                done.add(key)
            elif target in way:
                closing.add((key, target))
            elif target not in done:
                way[target] = None
                trail.append((target, iter(following[target])))
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
    """Give every node its place across: near its neighbours, in order, without overlap."""
    for layer in layers:
        at = 0.0
        for node in layer:
            node.at = at + node.breadth / 2
            at += node.breadth + _GAP_BETWEEN_BOXES
    for sweep in range(_SWEEPS):
        downwards = sweep % 2 == 0
        sides = (1, 0) if downwards else (0, 1)
        if sweep >= _SWEEPS // 2:  # by now all are near: what leads on counts as much
            sides = (1, 1)
        for layer in layers if downwards else reversed(layers):
            _settle(layer, sides)
    least = min((node.at - node.breadth / 2 for layer in layers for node in layer), default=0.0)
    for layer in layers:
        for node in layer:
            node.at -= least


def _settle(layer: Sequence[_Node], sides: tuple[int, int]) -> None:
    """Move the nodes of a layer as close to their neighbours as their order allows.

    The least sum of squares under an order is found by pooling neighbours that get in each other's
    way (isotonic regression, pool adjacent violators).
    """
    offsets, offset = [], 0.0
    for index, node in enumerate(layer):
        if index:
            offset += _distance(layer[index - 1], node)
        offsets.append(offset)
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for node, shift in zip(layer, offsets, strict=True):
        mean, weight = _pull(node, sides)
        pool = (mean - shift, weight, 1)
        while pools and pools[-1][0] >= pool[0]:
            mean, weight, count = pools.pop()
            both = weight + pool[1]
            pool = ((mean * weight + pool[0] * pool[1]) / both, both, count + pool[2])
        pools.append(pool)
    settled = [mean for mean, _, count in pools for _ in range(count)]
    for node, shift, mean in zip(layer, offsets, settled, strict=True):
        node.at = mean + shift


def _distance(node: _Node, following: _Node) -> float:
    gap = _GAP_BETWEEN_LINES if node.line or following.line else _GAP_BETWEEN_BOXES
    return (node.breadth + following.breadth) / 2 + gap


def _pull(node: _Node, sides: tuple[int, int]) -> tuple[float, float]:
    """Return where its neighbours want a node, and how much: long lines are to be straight.

    Args:
        node: The node.
        sides: How much those before it count, and those behind it.
    """
    pulls = [
        (other.at, count * _WEIGHTS[node.line + other.line])
        for count, near in zip(sides, (node.before, node.behind), strict=True)
        for other in near
        if count
    ]
    total = sum(weight for _, weight in pulls)
    if not pulls:
        return node.at, 0.1
    return sum(at * weight for at, weight in pulls) / total, total


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
