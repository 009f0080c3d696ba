"""Who is asking, whether all is well, and how much waits."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter
from starlette.requests import Request

from llama_index_hitl.errors import StoreError
from llama_index_hitl.models import Value
from llama_index_hitl.web._api import _examples
from llama_index_hitl.web._api._documented import WITH_ERROR_BODY, example, failing
from llama_index_hitl.web._api._strict import StrictRoute
from llama_index_hitl.web._measures import Metrics, measured
from llama_index_hitl.web._site import site_of
from llama_index_hitl.web.people import Person

router = APIRouter(tags=["service"], route_class=StrictRoute)

_PATIENCE = 5.0
"""Seconds that the store has to say something."""


class Me(Value):
    """Who is asking.

    Attributes:
        id: Their id.
        name: What they are called.
        roles: Roles that the sign-in vouches for.
        admin: Whether they may see and do everything.
        sees_all: Whether they see everything.
    """

    id: str
    name: str
    roles: tuple[str, ...]
    admin: bool
    sees_all: bool


class Health(Value):
    """All is well: the store answers."""

    status: Literal["ok"] = "ok"


@router.get("/me", summary="Who you are", responses={**example(_examples.ME), **failing()})
async def get_me(request: Request, person: Person) -> Me:
    """Return who you are here, with which roles."""
    visibility = site_of(request).visibility
    return Me(
        id=person.id,
        name=person.name or person.id,
        roles=person.roles,
        admin=visibility.is_admin(person),
        sees_all=visibility.sees_all(person),
    )


@router.get(
    "/health",
    summary="Whether all is well",
    responses={**example({"status": "ok"}), **failing(signed_in=False), **WITH_ERROR_BODY},
)
async def get_health(request: Request) -> Health:
    """Tell whether the store can be reached, within five seconds. No sign-in is needed."""
    try:
        async with asyncio.timeout(_PATIENCE):
            await site_of(request).runner.store.feed_end()
    except TimeoutError:
        raise StoreError("The store did not answer in time.") from None
    return Health()


@router.get(
    "/metrics",
    summary="How much waits, and how long people take",
    responses={**example(_examples.METRICS), **failing()},
)
async def get_metrics(request: Request, person: Person) -> Metrics:
    """Return counts of open requests, and the median time to decide, of what you may see.

    At most 1,000 open requests are counted, and the decisions in the 50 newest runs, so this is
    cheap however much is stored.
    """
    return await measured(site_of(request), person)
