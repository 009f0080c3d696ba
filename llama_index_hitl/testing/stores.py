"""What every store must hold to, as tests: subclass it for a store of your own.

Needs pytest and pytest-asyncio.
"""

from __future__ import annotations

import pytest

from llama_index_hitl.stores.protocol import Store
from llama_index_hitl.testing._store_commits import CommitTests
from llama_index_hitl.testing._store_feed import FeedTests
from llama_index_hitl.testing._store_grants import GrantTests
from llama_index_hitl.testing._store_lists import ListTests
from llama_index_hitl.testing._store_queues import QueueTests
from llama_index_hitl.testing._store_values import ValueTests


class StoreConformance(CommitTests, ValueTests, ListTests, QueueTests, GrantTests, FeedTests):
    """Tests of every sentence in `Store`. A subclass says which store is tested.

    Override the fixture `store` with one that gives an empty store, and closes it after the test.
    Where the data can be reached from several places, override `other` too, with one that gives a
    second handle on the same data: what is read through it must have left the first one. A test
    uses it only after `store` has been used.

    For messages that show what differs, call
    `pytest.register_assert_rewrite("llama_index_hitl.testing")` in `conftest.py`, before this
    module is imported.

    Example:
        >>> import pytest_asyncio
        >>> from llama_index_hitl.stores import MemoryStore
        >>> class TestMyStore(StoreConformance):
        ...     @pytest_asyncio.fixture
        ...     async def store(self):
        ...         store = MemoryStore()  # yours
        ...         yield store
        ...         await store.close()
        >>> sum(name.startswith("test_") for name in dir(TestMyStore)) > 100
        False
    """

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def store(self) -> Store:
        """An empty store."""
        raise NotImplementedError("Override the fixture `store` with one that gives your store.")

    @pytest.fixture
    def other(self, store: Store) -> Store:
        """A second handle on the data of `store`; `store` itself where there can be none."""
        return store
