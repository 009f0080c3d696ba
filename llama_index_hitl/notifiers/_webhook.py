"""A notifier that sends signed webhooks."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import re
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING

from llama_index_hitl.clock import Clock, utc_now
from llama_index_hitl.errors import NoticeRefused, NotifierError, NotifyFailed
from llama_index_hitl.notifiers._signature import keys_of, sign_webhook
from llama_index_hitl.stores.protocol import Notice

if TYPE_CHECKING:
    import httpx

_GONE = 410
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class WebhookNotifier:
    """Sends each notice as a POST with a signature as Standard Webhooks describes it.

    The body is `{"type": "hitl.<kind>", "timestamp": ..., "data": {"notice_id": ..., "run_id": ...,
    "request_id": ..., "payload": ...}}`; `verify_webhook` checks it at the other end. The header
    `webhook-id` is the id of the notice, or, where that does not fit into a header, made from it.

    Told is what is answered with 2xx; the body of the answer is never read. Redirects are not
    followed, and nothing is tried again here: that is the outbox's work. No connection stays open.

    Neither errors nor the name tell more of the address than its host; the logger `httpx` writes
    the whole of it at level INFO, so raise that level where the address holds a token.

    Args:
        url: Where to send to; https, except to this very machine. The address is the host's to
            choose: one that comes from users may lead into the host's own network.
        secret: `whsec_...`; or several, while one replaces another, to sign with each.
        timeout: How long sending and waiting for the answer may take together.
        client: Sends with this one, which stays yours to close: for proxies, certificates and the
            like. By default there is a new one for each notice.
        clock: The time that is signed.
        allow_http: Send without encryption to other machines, too.
        name: Name of the notifier; by default made from the url, which it does not give away.

    Raises:
        NotifierError: The url cannot be sent to, or a secret is none.

    Example:
        >>> import httpx
        >>> from llama_index_hitl.stores import Notice
        >>> secret = new_webhook_secret()
        >>> def receive(request):  # at the other end
        ...     said = verify_webhook(request.content, request.headers, secret, now=utc_now())
        ...     print(said["type"])
        ...     return httpx.Response(204)
        >>> async def main():
        ...     async with httpx.AsyncClient(transport=httpx.MockTransport(receive)) as client:
        ...         notifier = WebhookNotifier("https://example.com/hook", secret, client=client)
        ...         at = utc_now()
        ...         notice = Notice(notice_id="n-1", kind="opened", run_id="run-1", at=at, due=at)
        ...         await notifier.notify(notice)
        >>> asyncio.run(main())
        hitl.opened
    """

    def __init__(
        self,
        url: str,
        secret: str | Iterable[str],
        *,
        timeout: timedelta = timedelta(seconds=15),
        client: httpx.AsyncClient | None = None,
        clock: Clock = utc_now,
        allow_http: bool = False,
        name: str | None = None,
    ) -> None:
        self._url = _checked(url, allow_http=allow_http)
        self._secrets = (secret,) if isinstance(secret, str) else tuple(secret)
        keys_of(self._secrets)
        self._timeout = timeout.total_seconds()
        self._client = client
        self._clock = clock
        # An address may hold a token, in any part but host and port.
        self._where = f"{self._url.scheme}://{self._url.netloc.decode()}"
        self.name = name or f"{self._where} {hashlib.sha256(url.encode()).hexdigest()[:8]}"

    def __repr__(self) -> str:
        return f"WebhookNotifier({self.name!r})"

    async def notify(self, notice: Notice) -> None:
        """Send it.

        Args:
            notice: What happened.

        Raises:
            NoticeRefused: The receiver answered 410, Gone.
            NotifyFailed: It answered anything else than 2xx, too late, or not at all.
        """
        import httpx

        body = _body(notice)
        headers = sign_webhook(
            body, message_id=_message_id(notice), at=self._clock(), secrets=self._secrets
        )
        headers |= {"content-type": "application/json", "user-agent": "llama-index-hitl"}
        try:
            async with asyncio.timeout(self._timeout), self._answer(body, headers) as answer:
                self._judge(answer)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise NotifyFailed(
                f"{self._where} did not answer within {self._timeout:g} seconds"
            ) from error
        except httpx.HTTPError as error:
            raise NotifyFailed(
                f"{self._where} cannot be reached ({type(error).__name__})"
            ) from error

    @asynccontextmanager
    async def _answer(self, body: bytes, headers: dict[str, str]) -> AsyncIterator[httpx.Response]:
        """Send, and give the answer without its body."""
        async with self._sender() as client:
            # The time limit around all of this counts, not one for each part of it.
            request = client.build_request(
                "POST", self._url, content=body, headers=headers, timeout=None
            )
            answer = await client.send(request, stream=True, follow_redirects=False)
            try:
                yield answer
            finally:
                await answer.aclose()

    @asynccontextmanager
    async def _sender(self) -> AsyncIterator[httpx.AsyncClient]:
        import httpx

        if self._client is not None:
            yield self._client
            return
        # What may go without encryption because it stays on this machine must not take a proxy.
        encrypted = self._url.scheme == "https"
        context = self._certificates if encrypted else False
        async with httpx.AsyncClient(verify=context, trust_env=encrypted) as client:
            yield client

    @cached_property
    def _certificates(self) -> ssl.SSLContext:
        import httpx

        return httpx.create_ssl_context()

    def _judge(self, answer: httpx.Response) -> None:
        if answer.is_success:
            return
        said = f"{self._where} answered {answer.status_code}"
        if answer.status_code == _GONE:
            raise NoticeRefused(f"{said}: it wants no more of them")
        if answer.is_redirect:
            raise NotifyFailed(f"{said}, a redirect, which is not followed: give the new address")
        raise NotifyFailed(said, retry_after=_retry_after(answer, self._clock()))


def _checked(url: str, *, allow_http: bool) -> httpx.URL:
    import httpx

    try:
        # What is checked must be what is sent to, so the client's own reading of it counts.
        found = httpx.URL(url)
    except (httpx.InvalidURL, TypeError, ValueError):
        found = httpx.URL("")  # what is wrong with it may quote a part that is secret
    if found.scheme not in ("http", "https") or not found.host or "%" in found.host:
        raise NotifierError("The address of a webhook is https:// and a host, and what follows.")
    if found.scheme == "http" and not allow_http and not _is_here(found.host):
        raise NotifierError(
            f"Webhooks to {found.host} would go through the network in the clear. Use https://, or "
            "give allow_http=True if the network is yours alone."
        )
    return found


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _body(notice: Notice) -> bytes:
    message = {
        "type": f"hitl.{notice.kind}",
        "timestamp": notice.at.astimezone(UTC).isoformat(),
        "data": {
            "notice_id": notice.notice_id,
            "run_id": notice.run_id,
            "request_id": notice.request_id,
            "payload": notice.payload,
        },
    }
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def _message_id(notice: Notice) -> str:
    """Return an id without what a header cannot carry; a full stop would blur what is signed."""
    if _PLAIN_ID.fullmatch(notice.notice_id):
        return notice.notice_id
    return f"sha256_{hashlib.sha256(notice.notice_id.encode()).hexdigest()}"


def _retry_after(answer: httpx.Response, now: datetime) -> timedelta | None:
    """Return how long to wait, as the receiver asks; None: it did not say, or nonsense."""
    said = answer.headers.get("retry-after", "").strip()
    try:
        # A number that is too long to be a duration is cut off: 30 years will do.
        wait = timedelta(seconds=int(said[:9])) if said.isdecimal() else _until(said, now)
    except (ValueError, OverflowError):
        return None
    return max(wait, timedelta())


def _until(date: str, now: datetime) -> timedelta:
    at = parsedate_to_datetime(date)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)) - now
