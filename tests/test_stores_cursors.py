"""Cursors that no page has ended with: they come from outside, and are refused as such."""

import base64
import json
from typing import Any

import pytest

from llama_index_hitl.stores import InvalidCursor, RequestQuery, RunQuery, Store

FORGED: list[list[Any]] = [
    ["requests", True, 1, "id"],
    ["requests", 1, True, "id"],
    ["requests", 1, 1, "nul \x00"],
    ["requests", 1, 1, "half \ud800"],
    ["requests", 2**63, 1, "id"],
    ["requests", 1, 1, ["id"]],
    ["runs", True, "id"],
    ["runs", 1, "nul \x00"],
    ["runs", 1, "half \udfff"],
    ["feed", True, 1],
    ["feed", 1, False],
    ["feed", 1, 1, 1],
    [],
]


async def test_a_cursor_that_was_made_up_is_refused(store: Store) -> None:
    for parts in FORGED:
        cursor = base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()
        with pytest.raises(InvalidCursor):
            await store.requests(RequestQuery(after=cursor))
        with pytest.raises(InvalidCursor):
            await store.runs(RunQuery(after=cursor))
        with pytest.raises(InvalidCursor):
            await store.feed(after=cursor)


async def test_a_cursor_that_could_have_been_given_is_taken(store: Store) -> None:
    for parts in (["requests", 1, -5, "Ümläut 🐭"], ["requests", 0, 2**63 - 1, ""]):
        cursor = base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()
        assert not (await store.requests(RequestQuery(after=cursor))).items
