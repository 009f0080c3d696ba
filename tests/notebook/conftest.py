"""One kernel for all the notebooks of a worker of pytest; each test has a page of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import nbformat
import pytest_asyncio
from page import Client, Page

HERE = Path(__file__).parent


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client() -> AsyncIterator[Client]:
    """A kernel in which the flows of the tests are imported."""
    made = Client(nbformat.v4.new_notebook(), kernel_name="python3", resources={})
    async with made.async_setup_kernel():
        await Page(made).run(f"import sys\nsys.path.insert(0, {str(HERE)!r})").ends()
        await Page(made).run(PRELUDE).ends(within=50)  # imports take their time
        yield made


PRELUDE = """
import asyncio
import ipywidgets
from datetime import UTC, datetime, timedelta
from llama_index_hitl import *
from llama_index_hitl.notebook import Inbox, review_in_notebook
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import MemoryStore, SqlStore
from llama_index_hitl.testing import ManualClock
from notebook_flows import *
"""


@pytest_asyncio.fixture(loop_scope="session")
async def page(client: Client) -> AsyncIterator[Page]:
    """An empty notebook; a cell of it that still runs when the test ends is interrupted."""
    client.begin()
    made = Page(client)
    yield made
    await made.close()
