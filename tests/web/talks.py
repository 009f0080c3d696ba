"""Clients that follow runs, and what they follow them on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from durable import WORKFLOWS, runner_on
from essays import Essay
from fastapi import FastAPI
from serving import as_person, by_header, serving

from llama_index_hitl import Approve
from llama_index_hitl.clock import utc_now
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import MemoryStore
from llama_index_hitl.stores.protocol import Run
from llama_index_hitl.web import create_app


def runner_of(store: Any, **options: Any) -> Runner:
    """Return a runner with the example workflows, in real time."""
    made = {name: make(timeout=None) for name, make in {**WORKFLOWS, "essay": Essay}.items()}
    return runner_on(store, clock=utc_now, workflows=made, **options)


@dataclass(frozen=True)
class Heard:
    """One event of a stream."""

    name: str
    data: Any
    id: str | None


async def heard(lines: AsyncIterator[str]) -> AsyncIterator[Heard]:
    """Read Server-Sent Events as a browser does; those without a name only move the id on."""
    found: dict[str, str] = {}
    async for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            found[name] = value
        elif not line:
            if "event" in found:
                yield Heard(found["event"], json.loads(found["data"]), found.get("id"))
            found = {}


@asynccontextmanager
async def listening(
    url: str, path: str, who: dict[str, str] | None = None, **options: Any
) -> AsyncIterator[AsyncIterator[Heard]]:
    """Follow a stream."""
    headers = {**(as_person("alice") if who is None else who), **options.pop("headers", {})}
    method = options.pop("method", "GET")
    async with (
        httpx.AsyncClient(base_url=url, timeout=20, trust_env=False) as client,
        client.stream(method, path, headers=headers, **options) as response,
    ):
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield heard(response.aiter_lines())


async def all_of(events: AsyncIterator[Heard]) -> list[Heard]:
    """Return everything that a stream says until it ends."""
    return [event async for event in events]


async def until(events: AsyncIterator[Heard], name: str) -> list[Heard]:
    """Return what a stream says up to the first event of a name."""
    found = []
    async for event in events:
        found.append(event)
        if event.name == name:
            return found
    raise AssertionError(f"it ended without {name}: {[event.name for event in found]}")


class Served:
    """An application that is served, and what is behind it."""

    def __init__(self, runner: Runner, app: FastAPI, url: str) -> None:
        self.runner = runner
        self.app = app
        self.url = url

    def listening(self, path: str, who: dict[str, str] | None = None, **options: Any) -> Any:
        return listening(self.url, path, who, **options)

    async def get(self, path: str, **options: Any) -> httpx.Response:
        headers = {**as_person("alice"), **options.pop("headers", {})}
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as client:
            return await client.get(path, headers=headers, **options)

    async def post(self, path: str, **options: Any) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as client:
            return await client.post(path, **options)

    async def start(self, topic: str = "tides", by: str = "bob") -> Run:
        run = await self.runner.start("essay", by=by, topic=topic)
        self.app.state.site.hub.ring(run.run_id)
        return run

    async def request_of(self, run: Run) -> str:
        (record,) = await self.runner.pending(run_id=run.run_id)
        return record.request_id

    async def answer(self, run: Run, decision: Any = None, by: str = "alice") -> None:
        """Answer what a run asks, and take it further."""
        await self.runner.answer(await self.request_of(run), decision or Approve(), by=by)
        self.app.state.site.worker.nudge(run.run_id)


@asynccontextmanager
async def served(store: Any = None, **options: Any) -> AsyncIterator[Served]:
    runner = runner_of(store or MemoryStore())
    app = create_app(runner, **{"authenticate": by_header, "works": False, **options})
    async with serving(app) as url:
        yield Served(runner, app, url)
