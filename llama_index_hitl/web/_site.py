"""What one application works with. There are no globals: two applications share nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from starlette.requests import HTTPConnection

from llama_index_hitl.clock import Clock

if TYPE_CHECKING:
    from llama_index_hitl.runner import Runner
    from llama_index_hitl.web._hub import Hub
    from llama_index_hitl.web._sign_in import SignIn
    from llama_index_hitl.web._worker import Worker
    from llama_index_hitl.web.limits import Limits, Streams
    from llama_index_hitl.web.links import AnswerLinks
    from llama_index_hitl.web.people import Authenticate
    from llama_index_hitl.web.visibility import Visibility


@dataclass(frozen=True, kw_only=True)
class Site:
    """One application.

    Attributes:
        runner: Starts runs, takes answers, reads the store.
        authenticate: Says who is asking.
        visibility: Says who sees what.
        hub: Tells open streams what is new.
        worker: Takes runs further, beside the requests.
        clock: The time.
        title: What the pages are called.
        limits: How much one client may send, try and hold open.
        streams: Counts what people hold open.
        sign_in: The built-in sign-in; None: the host signs people in.
        links: Makes and reads signed links; None: there are none.
        allowed_hosts: The names under which it is served; None: any.
    """

    runner: Runner
    authenticate: Authenticate
    visibility: Visibility
    hub: Hub
    worker: Worker
    clock: Clock
    title: str
    limits: Limits
    streams: Streams
    sign_in: SignIn | None = None
    links: AnswerLinks | None = None
    allowed_hosts: frozenset[str] | None = None


def site_of(connection: HTTPConnection) -> Site:
    """Return the application that serves a request, wherever it is mounted."""
    return cast("Site", connection.app.state.site)
