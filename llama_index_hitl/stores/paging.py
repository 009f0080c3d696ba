"""Lists that are read to their end, a page at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace

from llama_index_hitl.stores.protocol import RequestQuery, Store, StoredRequest


async def all_requests(store: Store, query: RequestQuery) -> AsyncGenerator[StoredRequest, None]:
    """Yield every request that a query finds; `limit` is how many are in memory at once.

    Raises:
        StoreError: The store cannot be reached, or a request in it cannot be read.
        InvalidCursor: `after` is not what a page of requests ended with.
    """
    while True:
        page = await store.requests(query)
        for stored in page:
            yield stored
        if page.after is None:
            return
        query = replace(query, after=page.after)
