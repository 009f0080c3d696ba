"""Sorted lists of places: the indexes of `MemoryStore`."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from collections.abc import Hashable, Iterable, Iterator
from itertools import islice

from llama_index_hitl.stores._encoding import Place


class Places:
    """Sorted lists of places, one for each label."""

    def __init__(self) -> None:
        self._lists: dict[Hashable, list[Place]] = {}

    def add(self, label: Hashable, place: Place) -> None:
        """Put a place on a list."""
        insort(self._lists.setdefault(label, []), place)

    def remove(self, label: Hashable, place: Place) -> None:
        """Take a place, which must be there, from a list."""
        places = self._lists[label]
        del places[bisect_left(places, place)]
        if not places:
            del self._lists[label]

    def merged(self, labels: Iterable[Hashable], after: Place | None) -> Iterator[Place]:
        """Go through the places of several labels in order, each place once."""
        lists = [self._lists.get(label, []) for label in labels]
        starts = [0 if after is None else bisect_right(places, after) for places in lists]
        last = None
        for place in heapq.merge(
            *(islice(places, start, None) for places, start in zip(lists, starts, strict=True))
        ):
            if place != last:
                yield place
            last = place
