"""Workflows whose runs are followed live, and clients that follow them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import httpx
from durable import WORKFLOWS, runner_on
from serving import as_person
from workflows import Context, Workflow, step
from workflows.events import Event, StartEvent, StopEvent

from llama_index_hitl import Approved, Rejected, Review, Revision
from llama_index_hitl.clock import utc_now
from llama_index_hitl.prebuilt import ProgressEvent
from llama_index_hitl.runner import Runner


class Word(Event):
    delta: str


class Draft(Event):
    topic: str
    text: str


class Topic(StartEvent):
    topic: str


class Essay(Workflow):
    """Says what it does, writes word by word, and asks until it is good enough."""

    fails: ClassVar[bool] = False

    @step
    async def write(self, ctx: Context, ev: Topic) -> Draft:
        ctx.write_event_to_stream(ProgressEvent(message=f"Writing about {ev.topic}"))
        for word in ("Once ", "upon ", "a time"):
            ctx.write_event_to_stream(Word(delta=word))
        return Draft(topic=ev.topic, text=f"On {ev.topic}.")

    @step
    async def rewrite(self, ctx: Context, ev: Revision) -> Draft:
        ctx.write_event_to_stream(ProgressEvent(message=f"Rewriting: {ev.feedback}"))
        return Draft(topic=ev.subject.topic, text=f"{ev.subject.text} {ev.feedback}")

    approval = Review(
        Draft, reviewers=["alice", "role:editor"], revise=Revision, rejected=Rejected, editable=True
    )

    @step
    async def publish(self, ctx: Context, ev: Approved | Rejected) -> StopEvent:
        if type(self).fails:
            raise ConnectionError("the printer is out of ink")
        ctx.write_event_to_stream(ProgressEvent(message="Publishing"))
        text = ev.subject.text if isinstance(ev, Approved) else "nothing"
        return StopEvent(result={"published": text})


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
