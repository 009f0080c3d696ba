"""Signing in with a named token: programs with each request, people once on a page."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated
from urllib.parse import quote, unquote

from fastapi import APIRouter, Form, Request
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response

from llama_index_hitl.clock import Clock
from llama_index_hitl.errors import NotSignedIn, TooMany
from llama_index_hitl.models import Reviewer
from llama_index_hitl.web._pages import page, path_of
from llama_index_hitl.web._sessions import Sessions, bearer_of, root_of
from llama_index_hitl.web._site import site_of
from llama_index_hitl.web.limits import Attempts, Limits, address_key
from llama_index_hitl.web.tokens import NamedToken, NamedTokens


class SignIn:
    """Knows who sends a request, by a token or by the session of a browser.

    Args:
        tokens: Who is who.
        secrets: What sessions are signed with, the newest first; None: one at random.
        length: How long a session lasts.
        limits: How many sign-ins may fail.
        clock: The time.
    """

    def __init__(
        self,
        tokens: NamedTokens,
        secrets: Sequence[str] | None,
        *,
        length: timedelta,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self.tokens = tokens
        self.sessions = Sessions(tokens, secrets, length=length, clock=clock)
        self._attempts = Attempts(limits, clock)

    def __call__(self, connection: HTTPConnection) -> Reviewer | None:
        """Return who sends a request; None: nobody knows.

        Raises:
            TooMany: The token is none, and too many have been tried.
        """
        token = bearer_of(connection)
        if token is None:
            session = self.sessions.of(connection)
            return None if session is None else session.token.reviewer
        found = self.tokens.find(token)
        if found is not None:
            # A program with an old token must not shut out the others at its address: that what
            # is tried is looked at makes nothing weaker, for no token can be guessed.
            return found.reviewer
        # Nor must it shut people out of the page: what programs try is counted by itself.
        keys = [f"program {key}" for key in _keys(connection, token)]
        self._attempts.check(*keys)
        self._attempts.failed(*keys)
        return None

    def known(self, token: str, connection: HTTPConnection) -> NamedToken:
        """Return whom a token that was typed stands for.

        Raises:
            NotSignedIn: Nobody.
            TooMany: Too many have been tried; this one was not looked at.
        """
        keys = _keys(connection, token)
        self._attempts.check(*keys)
        found = self.tokens.find(token)
        if found is None:
            self._attempts.failed(*keys)
            raise NotSignedIn("Nobody has this token. It may have been revoked.")
        return found


def _keys(connection: HTTPConnection, token: str) -> tuple[str, str]:
    host = None if connection.client is None else connection.client.host
    digest = hashlib.sha256(token.encode(errors="replace")).hexdigest()
    return address_key(host), f"token {digest[:16]}"


def sign_in_path(connection: HTTPConnection) -> str | None:
    """Return where to sign in so as to come back to this page; None: the host signs people in."""
    if site_of(connection).sign_in is None:
        return None
    here = connection.scope["path"]
    if connection.scope["query_string"]:
        here += "?" + connection.scope["query_string"].decode("latin-1")
    return f"{root_of(connection)}/sign-in?next={quote(here, safe='/')}"


def own_path(connection: HTTPConnection, wanted: str) -> str:
    """Return a path of this application; the inbox for what is none.

    Nothing that leads elsewhere may come of it: not to another site, nor out of this application.
    """
    home = root_of(connection) + "/"
    # Browsers read some addresses otherwise than libraries do, so what is strange is none.
    path = unquote(re.split("[?#]", wanted, maxsplit=1)[0])
    strange = any(char <= " " or char in "\\\x7f" for char in wanted)
    strange = strange or any(char < " " or char in "\\\x7f" for char in path)
    leaves = "//" in path or not {".", ".."}.isdisjoint(path.split("/"))
    if strange or leaves or not wanted.startswith(home):
        return home
    return wanted


# --------------------------------------------------------------------------- pages

router = APIRouter(include_in_schema=False)
"""The pages of the built-in sign-in; without it they are not there."""


@router.get("/sign-in", name="sign_in")
async def ask_for_token(request: Request, next: str = "") -> Response:
    """Ask for a token; whoever has signed in goes on."""
    sign_in = _of(request)
    if sign_in.sessions.of(request) is not None:
        return RedirectResponse(own_path(request, next), 303)
    return _form(request, next)


@router.post("/sign-in")
async def take_token(
    request: Request,
    token: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "",
) -> Response:
    """Begin a session, if the token is one."""
    sign_in = _of(request)
    try:
        found = sign_in.known(token.strip(), request)
    except NotSignedIn as error:
        return _form(request, next, problem=str(error), status=401)
    except TooMany as error:
        refused = _form(request, next, problem=str(error), status=429)
        refused.headers["Retry-After"] = str(error.retry_after)
        return refused
    response = RedirectResponse(own_path(request, next), 303)
    sign_in.sessions.begin(found, request, response)
    return response


@router.post("/sign-out", name="sign_out")
async def sign_out(request: Request) -> Response:
    """End the session, for whoever has a copy of its cookie as well."""
    sessions = _of(request).sessions
    response = RedirectResponse(path_of(request, "sign_in"), 303)
    if (session := sessions.of(request)) is not None:
        sessions.end(session, request, response)
    return response


def _of(request: Request) -> SignIn:
    sign_in = site_of(request).sign_in
    if sign_in is None:
        raise NotSignedIn
    return sign_in


def _form(request: Request, wanted: str, *, problem: str = "", status: int = 200) -> Response:
    values = {"wanted": own_path(request, wanted), "problem": problem}
    return page(request, "sign_in.html", person=None, status=status, **values)
