"""Signatures of webhooks, as Standard Webhooks describes them: the symmetric ones, `v1`."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets as random
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from llama_index_hitl.errors import NotifierError, WebhookInvalid
from llama_index_hitl.models import JsonObject

_PREFIX = "whsec_"
_SHORTEST, _LONGEST = 24, 64  # bytes of a key
_ID, _TIMESTAMP, _SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
_SECONDS = re.compile(r"[0-9]{1,11}")


def new_webhook_secret() -> str:
    """Return a new random secret, to be known to one sender and one receiver only.

    Example:
        >>> new_webhook_secret().startswith("whsec_")
        True
    """
    return _PREFIX + base64.b64encode(random.token_bytes(32)).decode()


def sign_webhook(
    body: bytes, *, message_id: str, at: datetime, secrets: str | Iterable[str]
) -> dict[str, str]:
    """Return the three headers that sign a body.

    Args:
        body: The body, byte for byte as it is sent.
        message_id: Id of the message, the same each time that it is sent; no full stop in it.
        at: The instant at which it is sent this time.
        secrets: One `whsec_...`; or several, while one replaces another, to sign with each.

    Raises:
        NotifierError: A secret is none, or there is none.

    Example:
        >>> secret = new_webhook_secret()
        >>> sorted(sign_webhook(b"{}", message_id="n-1", at=utc_now(), secrets=secret))
        ['webhook-id', 'webhook-signature', 'webhook-timestamp']
    """
    seconds = str(int(at.timestamp()))
    signatures = [_signature(key, message_id, seconds, body) for key in keys_of(secrets)]
    return {_ID: message_id, _TIMESTAMP: seconds, _SIGNATURE: " ".join(signatures)}


def verify_webhook(
    body: bytes,
    headers: Mapping[str, str],
    secrets: str | Iterable[str],
    *,
    now: datetime,
    tolerance: timedelta = timedelta(minutes=5),
) -> JsonObject:
    """Check a webhook that came in, and return what it says.

    The same message may come more than once: keep the header `webhook-id` of those that were acted
    on, at least for twice the tolerance, and pass over one that is known.

    Args:
        body: The body, byte for byte as it came; not JSON that was read and written again.
        headers: Its headers; upper and lower case are the same.
        secrets: One `whsec_...`; or several, of which any may have signed it.
        now: The present instant, time zone included.
        tolerance: How old it may be, and how far ahead the sender's clock.

    Returns:
        The body as JSON.

    Raises:
        WebhookInvalid: A header is missing, no signature fits, it is too old, or no JSON object.
        NotifierError: A secret is none, or there is none.

    Example:
        >>> secret, body, now = new_webhook_secret(), b'{"type": "hitl.opened"}', utc_now()
        >>> headers = sign_webhook(body, message_id="n-1", at=now, secrets=secret)
        >>> verify_webhook(body, headers, secret, now=now)
        {'type': 'hitl.opened'}
    """
    keys = keys_of(secrets)
    found = {name.lower(): value for name, value in headers.items()}
    missing = [name for name in (_ID, _TIMESTAMP, _SIGNATURE) if not found.get(name)]
    if missing:
        raise WebhookInvalid(f"It has no {' and no '.join(missing)}.")
    message_id, seconds, given = found[_ID], found[_TIMESTAMP], found[_SIGNATURE].split(" ")
    if not _SECONDS.fullmatch(seconds):
        raise WebhookInvalid(f"Its {_TIMESTAMP} is not a number of seconds.")
    if abs(now.timestamp() - int(seconds)) > tolerance.total_seconds():
        raise WebhookInvalid(f"It was sent more than {tolerance} before or after the present.")
    expected = [_signature(key, message_id, seconds, body) for key in keys]
    if not any(_same(one, other) for one in expected for other in given):
        raise WebhookInvalid("None of its signatures was made with a secret that is known here.")
    return _object(body)


def keys_of(secrets: str | Iterable[str]) -> tuple[bytes, ...]:
    """Return the keys that secrets stand for, at least one.

    Raises:
        NotifierError: A secret is none, or there is none. The message does not quote it.
    """
    keys = tuple(_key(secret) for secret in ([secrets] if isinstance(secrets, str) else secrets))
    if not keys:
        raise NotifierError("A webhook needs a secret; make one with new_webhook_secret().")
    return keys


def _key(secret: str) -> bytes:
    text = secret.removeprefix(_PREFIX).rstrip("=")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_PREFIX) or not _SHORTEST <= len(key) <= _LONGEST:
        raise NotifierError(
            f"A webhook secret is {_PREFIX} and {_SHORTEST} to {_LONGEST} random bytes in base64; "
            "this one is not. Make one with new_webhook_secret()."
        )
    return key


def _signature(key: bytes, message_id: str, seconds: str, body: bytes) -> str:
    signed = f"{message_id}.{seconds}.".encode(errors="replace") + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def _same(expected: str, given: str) -> bool:
    # In a time that does not tell how much of it is right. As bytes, for text must be ASCII there.
    return hmac.compare_digest(expected.encode(), given.encode(errors="replace"))


def _object(body: bytes) -> JsonObject:
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise WebhookInvalid("Its body is not a JSON object.")
    return value
