"""Sessions of browsers: who has signed in, until when, and that it is them who send a form."""

from __future__ import annotations

import logging
import secrets as random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection
from starlette.responses import Response

from llama_index_hitl.clock import Clock
from llama_index_hitl.web._signing import Signatures
from llama_index_hitl.web._site import site_of

if TYPE_CHECKING:
    from llama_index_hitl.web.tokens import NamedToken, NamedTokens

_LOGGER = logging.getLogger(__name__)
_NAME = "hitl-session"


@dataclass(frozen=True, kw_only=True)
class Session:
    """A browser in which somebody has signed in.

    Attributes:
        id: Unique, at random.
        issued: When they did.
        token: The token that they did it with.
    """

    id: str
    issued: datetime
    token: NamedToken


class Sessions:
    """Begins, knows and ends sessions. What a browser keeps is signed, and holds no roles.

    The roles are those of the token at each request. A session ends when its time is over, when
    its person signs out, and when the token that it began with is revoked.

    Args:
        tokens: Who is who.
        secrets: What cookies are signed with, the newest first; None: with one at random.
        length: How long a session lasts.
        clock: The time.
    """

    def __init__(
        self,
        tokens: NamedTokens,
        secrets: Sequence[str] | None,
        *,
        length: timedelta,
        clock: Clock,
    ) -> None:
        self._tokens = tokens
        self._cookies = Signatures(secrets, purpose="session")
        self._forms = Signatures(secrets, purpose="form")
        self._length = length
        self._clock = clock
        file = tokens.file
        self._over = _SignedOut(file and file.with_name(file.name + ".signed-out"))

    def begin(self, token: NamedToken, connection: HTTPConnection, response: Response) -> None:
        """Begin a session: a new one each time, whatever the browser had before."""
        if (before := self.of(connection)) is not None:
            self.end(before, connection, response)
        value = self._cookies.sign(
            {
                "id": random.token_urlsafe(16),
                "at": self._clock().timestamp(),
                "person": token.name,
                "token": token.fingerprint,
            }
        )
        response.set_cookie(
            cookie_name(connection),
            value,
            max_age=int(self._length.total_seconds()),
            path=_path(connection),
            secure=is_https(connection),
            httponly=True,
            samesite="lax",  # strict: whoever comes by a link in a mail would have to sign in
        )

    def of(self, connection: HTTPConnection) -> Session | None:
        """Return the session that a request belongs to; None: to none, or it is over.

        Raises:
            TokenError: The tokens cannot be read.
        """
        found = (self._read(value) for value in _cookies(connection))
        return next((session for session in found if session is not None), None)

    def end(self, session: Session, connection: HTTPConnection, response: Response) -> None:
        """End a session, here and for whoever has a copy of its cookie."""
        self._over.add(session, before=self._clock() - self._length)
        response.delete_cookie(
            cookie_name(connection),
            path=_path(connection),
            secure=is_https(connection),
            httponly=True,
            samesite="lax",
        )

    def form_token(self, session: Session) -> str:
        """Return what proves that a form comes from a page that was shown in a session."""
        return self._forms.signature(session.id)

    def is_from(self, session: Session, form_token: str) -> bool:
        """Tell whether a form comes from a page that was shown in a session."""
        return self._forms.fits(session.id, form_token)

    def _read(self, cookie: str) -> Session | None:
        kept = self._cookies.read(cookie)
        if kept is None:
            return None
        issued = datetime.fromtimestamp(float(str(kept["at"])), UTC)
        if issued + self._length <= self._clock():
            return None
        token = self._tokens.named(str(kept["person"]))
        if token is None or token.fingerprint != kept["token"]:
            return None
        session = Session(id=str(kept["id"]), issued=issued, token=token)
        return None if session in self._over else session


class _SignedOut:
    """Remembers which sessions were signed out of, for as long as their cookies would be good.

    Args:
        folder: Where, for every process that uses it: an empty file for each. None: in this object.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._here: dict[str, datetime] = {}

    def __contains__(self, session: Session) -> bool:
        if session.id in self._here:
            return True
        return self._folder is not None and (self._folder / _file_name(session)).exists()

    def add(self, session: Session, *, before: datetime) -> None:
        """Remember one; forget those that began before an instant, for they are over anyway."""
        self._here = {id_: at for id_, at in self._here.items() if at > before}
        self._here[session.id] = session.issued
        if self._folder is None:
            return
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            (self._folder / _file_name(session)).touch(mode=0o600)
            for file in self._folder.iterdir():
                if int(file.name.split("-")[0]) < int(before.timestamp()):
                    file.unlink(missing_ok=True)
        except (OSError, ValueError) as error:
            # The cookie is deleted all the same, and this process takes no copy of it.
            _LOGGER.error(  # noqa: TRY400 - the traceback would say no more
                "Other processes were not told that a session is over: %s", type(error).__name__
            )


def _file_name(session: Session) -> str:
    return f"{int(session.issued.timestamp())}-{session.id}"


# --------------------------------------------------------------------------- connections


def bearer_of(connection: HTTPConnection) -> str | None:
    """Return the token that a program sent along; None: it sent none."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def csrf_token(connection: HTTPConnection) -> str:
    """Return what each form of a page, and each request of its script, has to send along.

    As the field `csrf_token` or the header `X-CSRF-Token`. Empty where nobody has signed in on the
    built-in page: then nothing asks for it.
    """
    sign_in = site_of(connection).sign_in
    session = None if sign_in is None else sign_in.sessions.of(connection)
    return "" if sign_in is None or session is None else sign_in.sessions.form_token(session)


def is_https(connection: HTTPConnection) -> bool:
    """Tell whether a request came encrypted, as far as the server knows."""
    return connection.scope["scheme"] in ("https", "wss")


def root_of(connection: HTTPConnection) -> str:
    """Return the path under which the application is mounted, without a slash at the end."""
    return str(connection.scope.get("root_path", "")).rstrip("/")


def _path(connection: HTTPConnection) -> str:
    return root_of(connection) or "/"


def cookie_name(connection: HTTPConnection) -> str:
    """Return the name of the session's cookie.

    With the prefix no other host of the domain, and nothing that is not encrypted, can set it; a
    browser takes that for the root only.
    """
    if not is_https(connection):
        return _NAME
    return f"__Secure-{_NAME}" if root_of(connection) else f"__Host-{_NAME}"


def _cookies(connection: HTTPConnection) -> list[str]:
    """Return the values of all cookies of the name: another application above may have one."""
    name = cookie_name(connection)
    pairs = (
        pair.strip().partition("=")
        for header in connection.headers.getlist("cookie")
        for pair in header.split(";")
    )
    return [value.strip().strip('"') for key, _, value in pairs if key.strip() == name]
