"""Fixtures for tests of guarded tools."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from agents_in_hand import Hand
from workflows import Workflow

Start = Callable[..., Hand]


async def _starter(restoring: bool) -> AsyncIterator[Start]:
    hands: list[Hand] = []

    def start(make: Callable[[], Workflow], **options: Any) -> Hand:
        hands.append(Hand(make, restoring=restoring, **{"user_msg": "Go.", **options}))
        return hands[-1]

    yield start
    for hand in hands:
        await hand.close()


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start runs that stay in this process."""
    async for starter in _starter(restoring=False):
        yield starter


@pytest.fixture(params=[False, True], ids=["one process", "restored"])
async def start_both(request: pytest.FixtureRequest) -> AsyncIterator[Start]:
    """Start runs; restored ones go through JSON into a new agent before every answer."""
    async for starter in _starter(restoring=request.param):
        yield starter
