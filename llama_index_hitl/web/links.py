"""Signed links, for mail and chat, that lead one person to the answer of one request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias
from urllib.parse import urlsplit

from llama_index_hitl.clock import Clock, utc_now
from llama_index_hitl.errors import LinkInvalid
from llama_index_hitl.models import DecisionKind, Reviewer, ReviewRecord
from llama_index_hitl.web._signing import Signatures, keys_of

RolesOf: TypeAlias = Callable[[str], Awaitable[Reviewer | None] | Reviewer | None]
"""Returns somebody by their id, with their roles; None: nobody, and their links are dead."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """What a link says.

    Attributes:
        request_id: The request that it is about.
        digest: Digest of what that showed: it is good for nothing else.
        person: For whom it is, with the roles that they had when it was made.
        until: From this instant on it is dead.
        decision: The decision that it suggests; None: none. Any that is allowed can be taken.
    """

    request_id: str
    digest: str
    person: Reviewer
    until: datetime
    decision: DecisionKind | None


class AnswerLinks:
    """Makes links that each lead one person to the answer of one request, without signing in.

    A link opens a page that shows the request and what can be decided. Opening it decides nothing,
    however often, and whoever does it: programs look into mails. What is decided there counts as
    said by the person that the link was made for, so it is theirs like a password: send it to
    nobody else. It is good for one answer, to what the request showed when it was made, and gives
    no session. It is dead as soon as the request is closed, they have answered or handed it on,
    they may not answer it any more, or its time is over. All that is kept in the store, so it holds
    in every process.

    Give it to `create_app` as `links`, and to whatever tells people.

    Args:
        secrets: What links are signed with, each of 32 characters at least, at random. The first
            one signs, all are good to check with: to rotate, put a new one in front, and take the
            old one out after `valid_for`.
        base_url: Where the application is reached from outside, up to the path under which it is
            mounted, such as `https://example.com/reviews`.
        valid_for: How long a link is good.
        clock: The time; give the runner's.
        roles_of: Returns somebody by their id, with their roles at that time. None: those of
            their named token, if the application has `NamedTokens`; without them, the roles that
            `url_for` was given are signed into the link, and hold as long as it is good.

    Raises:
        WeakSecret: There is no secret, or one is too short.
        ValueError: `base_url` is no address of a web site, or `valid_for` is not positive.

    Example:
        >>> from llama_index_hitl.lifecycle import open_record
        >>> links = AnswerLinks(["s" * 32], "https://example.com/reviews")
        >>> request = ReviewRequest(request_id="r-1", title="Publish?", created_at=utc_now())
        >>> url = links.url_for(open_record(request), "erin", decision=DecisionKind.APPROVE)
        >>> url.startswith("https://example.com/reviews/")
        True
    """

    def __init__(
        self,
        secrets: Sequence[str],
        base_url: str,
        *,
        valid_for: timedelta = timedelta(days=7),
        clock: Clock = utc_now,
        roles_of: RolesOf | None = None,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query:
            raise ValueError(f"{base_url!r} is no address such as https://example.com/reviews")
        if valid_for <= timedelta():
            raise ValueError("links must be valid for longer than nothing")
        secrets = keys_of(secrets)
        self.roles_of = roles_of
        self._links = Signatures(secrets, purpose="link")
        self._forms = Signatures(secrets, purpose="link form")
        self._base = base_url.rstrip("/")
        self._valid_for = valid_for
        self._clock = clock

    def url_for(
        self,
        record: ReviewRecord,
        person: Reviewer | str,
        *,
        decision: DecisionKind | str | None = None,
    ) -> str:
        """Return a link for one person to one request.

        Args:
            record: The request.
            person: For whom; a plain id stands for a person without roles of their own.
            decision: The decision to suggest, such as `approve`, which the request must allow; it
                still has to be confirmed. None: none.

        Raises:
            ValueError: The request does not allow that decision.
        """
        request = record.request
        if decision is not None and decision not in request.allowed:
            listed = ", ".join(request.allowed)
            raise ValueError(f"{request.request_id} allows no {decision!s}, only: {listed}")
        reviewer = Reviewer(id=person) if isinstance(person, str) else person
        token = self._links.sign(
            {
                "request": request.request_id,
                "digest": request.digest,
                "person": reviewer.id,
                "roles": list(reviewer.roles),
                "until": int((self._clock() + self._valid_for).timestamp()),
                "decision": None if decision is None else DecisionKind(decision).value,
            }
        )
        return f"{self._base}/link/{token}"

    def read(self, token: str) -> Link | None:
        """Return what a link says; None: it is none, or was signed with a secret unknown here.

        Args:
            token: The last part of the link.

        Raises:
            LinkInvalid: Its time is over.
        """
        said = self._links.read(token)
        if said is None:
            return None
        until = datetime.fromtimestamp(int(str(said["until"])), UTC)
        if until <= self._clock():
            raise LinkInvalid(f"This link was good until {until:%Y-%m-%d %H:%M} UTC.")
        roles, decision = said["roles"], said["decision"]
        return Link(
            request_id=str(said["request"]),
            digest=str(said["digest"]),
            person=Reviewer(
                id=str(said["person"]),
                roles=tuple(map(str, roles)) if isinstance(roles, list) else (),
            ),
            until=until,
            decision=DecisionKind(str(decision)) if decision else None,
        )

    def form_token(self, token: str) -> str:
        """Return what proves that a form comes from the page of a link.

        Args:
            token: The last part of the link.
        """
        return self._forms.signature(token)

    def is_from(self, token: str, form_token: str) -> bool:
        """Tell whether a form comes from the page of a link.

        Args:
            token: The last part of the link.
            form_token: What the form has sent.
        """
        return self._forms.fits(token, form_token)
