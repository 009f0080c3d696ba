"""Lists that are read to their end, a page at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import datetime

from llama_index_hitl.stores.protocol import RequestQuery, Store, StoredRequest


async def all_requests(
    store: Store, query: RequestQuery, *, since: datetime | None = None
) -> AsyncGenerator[StoredRequest, None]:
    """Yield every request that a query finds.

    Args:
        store: Where they are.
        query: Which ones; its `limit` is how many are in memory at once.
        since: Asked at this instant or later only.

    Raises:
        ValueError: `since`, or `created_before` of the query, has no time zone.
        StoreError: The store cannot be reached, or a request in it cannot be read.
        InvalidCursor: `after` is not what a page of requests ended with.
    """
    for instant in (since, query.created_before):
        if instant is not None and instant.tzinfo is None:
            raise ValueError(f"{instant.isoformat()} needs a time zone, as every instant here has")
    while True:
        page = await store.requests(query)
        for stored in page:
            if since is None or stored.record.request.created_at >= since:
                yield stored
        if page.after is None:
            return
        query = replace(query, after=page.after)
