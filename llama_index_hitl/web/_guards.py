"""What stands around everything that is served: what comes in is checked, what goes out is marked.

Plain ASGI, so that streams flow through as they are, and outside of everything else, so that no
error and no static file goes out without the headers.
"""

from __future__ import annotations

import logging
import traceback
from urllib.parse import urlsplit, urlunsplit

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llama_index_hitl.errors import TokenError
from llama_index_hitl.web._failures import ErrorBody, Failure, is_api
from llama_index_hitl.web._sessions import bearer_of, is_https, root_of
from llama_index_hitl.web._site import site_of
from llama_index_hitl.web.limits import nested_deeper

_LOGGER = logging.getLogger(__name__)

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
"""Names of this machine for itself; a page elsewhere that makes its own lead here has another."""

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)

_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_REFERRER = "Referrer-Policy"
_HSTS = "max-age=31536000"  # a year; of other hosts of the domain nothing is said

_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_LINK = "/link/"
_DIGITS = 18  # of an announced size; longer ones are not even read


class GuardedApplication(FastAPI):
    """An application within guards."""

    def build_middleware_stack(self) -> ASGIApp:
        """Return all that serves, with the guards around it."""
        # Not by add_middleware: that is inside of what answers when something has gone wrong.
        return Guards(super().build_middleware_stack())


class Guards:
    """Checks every request before anything else sees it, and marks every answer.

    Args:
        app: What is guarded; its state has a `site`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            await self._http(_veiled(scope), receive, _Marked(scope, send))
        elif scope["type"] == "websocket":
            connection = HTTPConnection(scope)
            if _is_for_here(connection) and same_origin(connection):
                await self._app(scope, receive, send)
            else:  # before it is accepted, this is a 403
                await send({"type": "websocket.close", "code": 1008, "reason": "cross-site"})
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: _Marked) -> None:
        try:
            refusal = _refusal(HTTPConnection(scope))
            if refusal is None and scope["method"] not in _SAFE:
                body = await _body(scope, receive)
                if body is None:
                    return  # the client has gone
                refusal = body if isinstance(body, Response) else await _bad_body(scope, body)
                receive = receive if isinstance(body, Response) else _replaying(body, receive)
            await (self._app if refusal is None else refusal)(scope, receive, send)
        except ConnectionAbortedError:
            raise  # a response broke off, of which all is said
        except Exception as error:  # noqa: BLE001 - nothing of it may reach anybody
            _log(error)
            if send.started:
                raise ConnectionAbortedError("the response could not be finished") from None
            answer = _refused(HTTPConnection(scope), 500, "internal", "Something went wrong.")
            await answer(scope, receive, send)


def same_origin(connection: HTTPConnection) -> bool:
    """Tell whether a request comes from a page of this site, or from no page at all.

    Browsers say where the page is that sends a request, in headers that no page can change.
    """
    site = connection.headers.get("sec-fetch-site")
    if site == "same-origin":
        return True
    if site not in (None, "none"):
        return False
    origin = connection.headers.get("origin")
    if origin is None:
        return True  # no browser: they all send it with what is unsafe, and with sockets
    host = connection.headers.get("host", "").lower()
    return origin.lower() in (f"http://{host}", f"https://{host}")


# --------------------------------------------------------------------------- what comes in


def _refusal(connection: HTTPConnection) -> Response | None:
    """Say why a request is not served, as far as its first lines tell."""
    if not _is_for_here(connection):
        return _refused(
            connection, 421, "wrong_host", "This is not served under that name. Use localhost."
        )
    if connection.scope["method"] in _SAFE:
        return None
    if not same_origin(connection):
        return _refused(connection, 403, "cross_site", "This was sent by a page of another site.")
    kind = _content_type(connection.headers)
    if kind == "text/plain" or (kind in _FORMS and is_api(connection.scope)):
        # What a page of another site could send without being asked first.
        return _refused(connection, 415, "unsupported_type", "Send JSON, as application/json.")
    return None


def _is_for_here(connection: HTTPConnection) -> bool:
    allowed = site_of(connection).allowed_hosts
    if allowed is None:
        return True
    host = connection.headers.get("host", "").lower()
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name in allowed


async def _body(scope: Scope, receive: Receive) -> bytes | Response | None:
    """Return the body of a request, or why it is not taken, or None: the client has gone."""
    connection = HTTPConnection(scope)
    most = site_of(connection).limits.body
    too_much = _refused(
        connection, 413, "too_large", f"This is too large: at most {most} bytes are taken."
    )
    announced = connection.headers.get("content-length", "0")
    if announced.isdecimal() and (len(announced) > _DIGITS or int(announced) > most):
        return too_much
    parts: list[bytes] = []
    size, more = 0, True
    while more:  # counted as it comes: nobody has to announce anything
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            return too_much
        more = message.get("more_body", False)
    return b"".join(parts)


async def _bad_body(scope: Scope, body: bytes) -> Response | None:
    """Say why a request is not served, as far as its body tells."""
    connection = HTTPConnection(scope)
    site = site_of(connection)
    kind = _content_type(connection.headers)
    if kind not in _FORMS and nested_deeper(body, site.limits.depth):
        return _refused(connection, 422, "too_deep", "This is nested too deeply.")
    if site.sign_in is None or bearer_of(connection) is not None:
        return None  # no page of another site can make a browser send a token
    session = site.sign_in.sessions.of(connection)
    if session is None:
        return None
    given = connection.headers.get("x-csrf-token")
    if given is None and kind in _FORMS:
        given = await _field(scope, body, "csrf_token")
    if given is not None and site.sign_in.sessions.is_from(session, given):
        return None
    return _refused(
        connection,
        403,
        "csrf",
        "This page is from before you signed in, or was not made here. Load it again.",
    )


async def _field(scope: Scope, body: bytes, name: str) -> str | None:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        async with Request(scope, receive).form() as form:
            value = form.get(name)
    except HTTPException:
        return None  # it is no form
    return value if isinstance(value, str) else None


def _replaying(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body that was read once more, and then what comes behind it."""
    read = False

    async def replay() -> Message:
        nonlocal read
        if read:
            return await receive()
        read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _content_type(headers: Headers) -> str:
    return headers.get("content-type", "").split(";")[0].strip().lower()


def _path_in(scope: Scope) -> str:
    """Return the path of a request below the one under which the application is mounted."""
    return str(scope["path"]).removeprefix(str(scope.get("root_path", "")).rstrip("/"))


def _veiled(scope: Scope) -> Scope:
    """Return what the application serves; where it has a secret, outside of it none is left.

    Servers write the path of each request into their logs when it was answered, and the path of a
    link that leads to an answer is as good as the answer.
    """
    if not _path_in(scope).startswith(_LINK):
        return scope
    served = dict(scope)
    scope["path"] = root_of(HTTPConnection(scope)) + _LINK + "-"
    scope["raw_path"] = scope["path"].encode()
    return served


# --------------------------------------------------------------------------- what goes out


class _Marked:
    """Sends what the application sends, with the headers that nothing goes without."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._connection = HTTPConnection(scope)
        self._path = _path_in(scope)
        self._send = send
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            # Of a link only the site may be told. Not `no-referrer`: then a browser would not say
            # either whether a form comes from here.
            link = self._path.startswith(_LINK)
            headers[_REFERRER] = "strict-origin" if link else "same-origin"
            if (location := headers.get("location")) is not None:
                headers["Location"] = _without_host(location, self._connection)
            if is_https(self._connection):
                headers["Strict-Transport-Security"] = _HSTS
            # A file may be kept, and is asked about before it is used.
            is_file = self._path.startswith("/static/") and message["status"] in (200, 206, 304)
            headers["Cache-Control"] = "no-cache" if is_file else "no-store"
        await self._send(message)


def _without_host(location: str, connection: HTTPConnection) -> str:
    """Return where a redirect leads without the host, where that is what the client has sent.

    Routers make it of that; a sign-in of the host's own may well lead elsewhere.
    """
    parts = urlsplit(location)
    if parts.netloc != connection.headers.get("host", ""):
        return location
    return urlunsplit(("", "", "/" + parts.path.lstrip("/"), parts.query, parts.fragment))


def _refused(connection: HTTPConnection, status: int, kind: str, message: str) -> Response:
    if is_api(connection.scope):
        body = ErrorBody(error=Failure(type=kind, message=message))
        return Response(body.model_dump_json(), status, media_type="application/json")
    return PlainTextResponse(message, status)


def _log(error: Exception) -> None:
    # What it says is left out, here and of what caused it: it may quote what is under review.
    said = str(error) if isinstance(error, TokenError) else ""
    frames = "".join(traceback.format_tb(error.__traceback__))
    _LOGGER.error("A request failed: %s %s\n%s", type(error).__name__, said, frames)
