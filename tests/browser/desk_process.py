"""A desk in a process of its own: `desk_process.py PORT STORE_URL`. Says `ready`, and serves."""

from __future__ import annotations

import asyncio
import sys

import uvicorn
from desk import Desk

from llama_index_hitl.stores import SqlStore


class _Server(uvicorn.Server):
    async def startup(self, sockets: object = None) -> None:
        await super().startup()
        if self.started:
            print("ready", flush=True)  # noqa: T201 - this is how the test knows


async def main(port: int, store: str) -> None:
    desk = Desk(SqlStore(store))
    config = uvicorn.Config(
        desk.app(),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        ws="websockets-sansio",
    )
    await _Server(config).serve()
    await desk.store.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
