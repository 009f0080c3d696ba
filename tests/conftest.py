"""Fixtures for tests that drive whole runs."""

import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from flows import Live, Make
from postgres import postgres_server, postgres_url

from llama_index_hitl.stores import MemoryStore, SqlStore, Store

__all__ = ["postgres_server", "postgres_url"]

pytest.register_assert_rewrite("llama_index_hitl.testing")

# Tests end processes, not machines: nothing has to reach the disk, which SQLite waits for.
_MEMORY = Path("/dev/shm")  # noqa: S108 - pytest makes a directory in it that is its own
_ENOUGH = 2**30  # bytes
if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ENOUGH:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


async def _starter(options: dict[str, Any]) -> AsyncIterator[Callable[..., Live]]:
    lives: list[Live] = []

    def start(make: Make, **start: Any) -> Live:
        lives.append(Live(make, **options, **start))
        return lives[-1]

    yield start
    for live in lives:
        await live.close()


@pytest.fixture(params=[False, True], ids=["one process", "restored"])
async def start(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Live]]:
    """Start runs; restored ones go through a JSON snapshot before anything is sent to them."""
    async for starter in _starter({"restoring": request.param}):
        yield starter


@pytest.fixture(
    params=[(False, False), (True, False), (True, True)],
    ids=["one process", "restored", "restored and settled"],
)
async def start_asking(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Live]]:
    """Start runs that ask inline; a restored one calls its waiting steps again before it rests."""
    restoring, settle = request.param
    async for starter in _starter({"restoring": restoring, "settle": settle}):
        yield starter


@pytest.fixture
async def start_here() -> AsyncIterator[Callable[..., Live]]:
    """Start runs that stay in this process."""
    async for starter in _starter({}):
        yield starter


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Every store of the package, empty."""
    opened: Store
    if request.param == "memory":
        opened = MemoryStore()
    elif request.param == "sqlite":
        opened = SqlStore(tmp_path / "hitl.db")
    else:
        opened = SqlStore(request.getfixturevalue("postgres_url"))
    yield opened
    await opened.close()
