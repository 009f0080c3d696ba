"""Named tokens: the built-in way to say who is who, for people and for programs."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets as random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, ValidationError

from llama_index_hitl.clock import Clock, utc_now
from llama_index_hitl.errors import TokenError
from llama_index_hitl.models import Identifier, Line, Reviewer, Value

PREFIX = "hitl_"
"""What a token begins with, so that people, and scanners for leaked secrets, know it for one."""

_SHORTEST = 32  # characters of a token that was not made here


class NamedToken(Value):
    """What is kept of a token: who it stands for, and enough to know it again; never itself.

    Attributes:
        name: Id of the person, or program.
        roles: Their roles, without the `role:` prefix.
        created: When it was made.
        last4: Its last four characters, for people to tell it from another one.
        sha256: SHA-256 of it, in hexadecimal.
        shown_as: Name to show; None: the id.
    """

    name: Identifier
    roles: tuple[Identifier, ...] = ()
    created: AwareDatetime
    last4: Annotated[str, Field(max_length=4)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    shown_as: Line | None = None

    @property
    def reviewer(self) -> Reviewer:
        """The person whom it stands for."""
        return Reviewer(id=self.name, roles=self.roles, name=self.shown_as)

    @property
    def fingerprint(self) -> str:
        """Tells it from another token of the same name; says nothing about what it is."""
        return self.sha256[:16]


class _Kept(Value):
    """What the file holds."""

    version: Literal[1] = 1
    tokens: tuple[NamedToken, ...] = ()


class NamedTokens:
    """Who is who, by tokens. Give it to `create_app` as `authenticate`.

    Programs send `Authorization: Bearer hitl_...`; people type their token once, on a page, and get
    a session. A name has one token at a time, so whoever is given a new one loses the old.

    A file is read anew whenever it has changed: what is added, or revoked, by whatever process
    counts from the next request on. It holds no token, only what is needed to know one. Who may
    write it may sign in as anybody: it is made so that only its owner can.

    What is added to a file, or revoked in it, survives a crash as soon as the method returns.

    Args:
        tokens: A file, which need not be there yet; or reviewers by token, which hold for as long
            as this object lives.
        clock: Says when a token was made.

    Raises:
        TokenError: A token is shorter than 32 characters, or a name has two.

    Example:
        >>> tokens = NamedTokens("tokens.json")
        >>> token = tokens.add("erin", roles=["editor"])  # shown this once
        >>> tokens.find(token).reviewer
        Reviewer(id='erin', roles=('editor',), name=None, kind='human')
        >>> tokens.revoke("erin").name, tokens.find(token)
        ('erin', None)
    """

    def __init__(
        self, tokens: str | Path | Mapping[str, Reviewer], *, clock: Clock = utc_now
    ) -> None:
        self._clock = clock
        self._kept: tuple[NamedToken, ...] = ()
        self._read: tuple[int, ...] | None = None
        self._file: Path | None = None
        if isinstance(tokens, str | Path):
            self._file = Path(tokens)
            return
        for token, reviewer in tokens.items():
            self._take(_named(token, reviewer, clock()))

    @property
    def file(self) -> Path | None:
        """Where they are kept; None: in this object only."""
        return self._file

    def add(self, name: str, roles: Iterable[str] = ()) -> str:
        """Make a token, and return it. It is shown this once: it cannot be found out again.

        Args:
            name: Id of the person, or program.
            roles: Their roles, without the `role:` prefix.

        Returns:
            The token, `hitl_` and 43 characters.

        Raises:
            TokenError: The name has a token, or the file is damaged.
            ValueError: A name or role is none.
            OSError: The file cannot be written.
        """
        token = PREFIX + random.token_urlsafe(32)
        made = _named(token, Reviewer(id=name, roles=tuple(roles)), self._clock())
        with self._changing():
            self._take(made)
        return token

    def revoke(self, name: str) -> NamedToken:
        """Let a token count for nothing from now on; sessions that began with it end, too.

        Args:
            name: Id of the person, or program.

        Returns:
            What was kept of it.

        Raises:
            TokenError: The name has none, or the file is damaged.
            OSError: The file cannot be written.
        """
        with self._changing():
            gone = self._named(name)
            if gone is None:
                raise TokenError(
                    f"{name!r} has no token. `hitl tokens list` shows those that there are."
                )
            self._kept = tuple(kept for kept in self._kept if kept is not gone)
        return gone

    def all(self) -> tuple[NamedToken, ...]:
        """Return what is kept of each token, by name.

        Raises:
            TokenError: The file is damaged.
        """
        self._refresh()
        return tuple(sorted(self._kept, key=lambda kept: kept.name))

    def find(self, token: str) -> NamedToken | None:
        """Return whom a token stands for; None: nobody.

        Args:
            token: The token, as it was sent.

        Raises:
            TokenError: The file is damaged.
        """
        self._refresh()
        given = _sha256(token)
        # Each is compared, each in a time that does not tell how much of it is right.
        found = [kept for kept in self._kept if hmac.compare_digest(kept.sha256, given)]
        return found[0] if found else None

    def named(self, name: str) -> NamedToken | None:
        """Return the token of a name; None: it has none.

        Args:
            name: Id of the person, or program.

        Raises:
            TokenError: The file is damaged.
        """
        self._refresh()
        return self._named(name)

    # ----------------------------------------------------------------- keeping

    def _named(self, name: str) -> NamedToken | None:
        return next((kept for kept in self._kept if kept.name == name), None)

    def _take(self, token: NamedToken) -> None:
        if self._named(token.name) is not None:
            raise TokenError(f"{token.name!r} has a token. Revoke it first, then add a new one.")
        self._kept = (*self._kept, token)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Change the file as one step, which nobody else interrupts and nobody sees half of."""
        if self._file is None:
            yield
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self._file.with_name(self._file.name + ".lock")):
            self._refresh()
            try:
                yield
                self._write(self._file, _Kept(tokens=self._kept).model_dump(mode="json"))
            finally:
                self._read = None  # whatever became of it, the file says how it is

    @staticmethod
    def _write(file: Path, document: object) -> None:
        fresh = file.with_name(f"{file.name}.{random.token_hex(8)}")
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
                json.dump(document, out, indent=2)
                out.flush()
                os.fsync(out.fileno())
            fresh.replace(file)
        finally:
            fresh.unlink(missing_ok=True)

    def _refresh(self) -> None:
        if self._file is None:
            return
        try:
            found = self._file.stat()
        except FileNotFoundError:
            self._kept, self._read = (), None
            return
        state = (found.st_ino, found.st_size, found.st_mtime_ns)
        if state == self._read:
            return
        try:
            self._kept = _Kept.model_validate_json(self._file.read_bytes()).tokens
        except (ValidationError, OSError):
            # Nobody gets in by what cannot be read, and the message holds nothing of it.
            self._kept, self._read = (), None
            raise TokenError(
                f"The tokens in {self._file} cannot be read: it is damaged, or no file of tokens."
            ) from None
        self._read = state


def _named(token: str, reviewer: Reviewer, created: datetime) -> NamedToken:
    if len(token) < _SHORTEST:
        raise TokenError(
            f"The token of {reviewer.id!r} has {len(token)} characters; a token needs at least "
            f"{_SHORTEST}, at random. NamedTokens.add() makes one."
        )
    return NamedToken(
        name=reviewer.id,
        roles=reviewer.roles,
        created=created,
        last4=token[-4:],
        sha256=_sha256(token),
        shown_as=reviewer.name,
    )


def _sha256(token: str) -> str:
    # Slow hashes are for passwords, which can be guessed. A token is 256 bits at random: no number
    # of guesses finds one, and this is computed for each request of a program.
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Let one process in at a time. Where the system has no such locks, it is not kept out."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go of with the file
        yield
