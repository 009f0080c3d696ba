"""Who is asking: a function of the host says so, or the built-in sign-in."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeAlias

from fastapi import Depends
from starlette.requests import HTTPConnection

from llama_index_hitl.errors import NotSignedIn
from llama_index_hitl.models import Reviewer
from llama_index_hitl.web._site import site_of

Authenticate: TypeAlias = Callable[[HTTPConnection], Reviewer | Awaitable[Reviewer | None] | None]
"""Returns who sends a request, with their roles, or None: nobody that it knows."""


async def signed_in(connection: HTTPConnection) -> Reviewer:
    """Return who is asking.

    Raises:
        NotSignedIn: Nobody knows.
    """
    found = site_of(connection).authenticate(connection)
    person = await found if inspect.isawaitable(found) else found
    if person is None:
        raise NotSignedIn
    connection.state.person = person  # for pages that tell of what goes wrong after this
    return person


Person = Annotated[Reviewer, Depends(signed_in)]
"""A parameter of a route: who is asking; without one, the route is refused."""
