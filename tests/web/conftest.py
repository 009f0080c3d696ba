"""An application on an empty store, and clients of it that are signed in as somebody.

Who asks is said by a header, as a host would: `X-Person: alice:legal,admin`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypeAlias

import httpx
import pytest
from durable import NOON
from fastapi import FastAPI
from invoices import WORKFLOWS, Desk
from starlette.requests import HTTPConnection
from workflows import Workflow

from llama_index_hitl import Reviewer
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import MemoryStore, Store
from llama_index_hitl.testing import ManualClock
from llama_index_hitl.web import Visibility, create_app

ClientOf: TypeAlias = Callable[[str], httpx.AsyncClient]
"""Returns a client of somebody: `alice`, or with roles `alice:legal,admin`; empty: nobody."""


def person_in_header(connection: HTTPConnection) -> Reviewer | None:
    """Say who asks, as the header says."""
    given = connection.headers.get("x-person")
    if not given:
        return None
    name, _, roles = given.partition(":")
    return Reviewer(id=name, roles=tuple(role for role in roles.split(",") if role))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def web_store() -> Store:
    """Where the runs of the application wait; override it for another store."""
    return MemoryStore()


@pytest.fixture
def workflows() -> Mapping[str, type[Workflow]]:
    """The workflows of the application; override it for others."""
    return WORKFLOWS


@pytest.fixture
def runner(web_store: Store, clock: ManualClock, workflows: Mapping[str, type[Workflow]]) -> Runner:
    made = {}
    for name, make in workflows.items():
        made[name] = make(timeout=None)
        made[name].clock = clock  # type: ignore[attr-defined]
    return Runner(web_store, made, clock=clock)


@pytest.fixture
def visibility() -> Visibility:
    """Who sees what; override it for other rules."""
    return Visibility()


@pytest.fixture
async def app(runner: Runner, clock: ManualClock, visibility: Visibility) -> AsyncIterator[FastAPI]:
    """The application, without rounds of its own: what is due is done when a test says so."""
    made = create_app(
        runner, authenticate=person_in_header, visibility=visibility, works=False, clock=clock
    )
    async with made.router.lifespan_context(made):
        yield made


@pytest.fixture
async def client_of(app: FastAPI) -> AsyncIterator[ClientOf]:
    """Clients of the application, each signed in as somebody."""
    made: dict[str, httpx.AsyncClient] = {}

    def of(person: str) -> httpx.AsyncClient:
        if person not in made:
            made[person] = httpx.AsyncClient(
                transport=httpx.ASGITransport(app),
                base_url="http://reviews.test",
                headers={"X-Person": person} if person else {},
            )
        return made[person]

    yield of
    for client in made.values():
        await client.aclose()


@pytest.fixture
def desk(app: FastAPI, runner: Runner, client_of: ClientOf) -> Desk:
    """What tests of the application do again and again."""
    return Desk(app, runner, client_of)
