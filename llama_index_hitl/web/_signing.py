"""What is signed: sessions, form tokens and links, each so that it cannot pass for another."""

from __future__ import annotations

import hashlib
import secrets as random
from collections.abc import Sequence
from typing import Any

from itsdangerous import BadData, URLSafeSerializer
from itsdangerous.signer import Signer

from llama_index_hitl.errors import WeakSecret
from llama_index_hitl.models import JsonObject

_SHORTEST = 32  # characters of a secret
_LONGEST = 8_192  # characters of what is signed: nothing of ours is as long


class Signatures:
    """Signs one kind of thing. The first secret signs, each of them is good to check with.

    To rotate: put a new one in front, and take the old one out when nothing that it signed matters
    any more.

    Args:
        secrets: The secrets; None: one at random, which nobody else has and which ends with this
            object.
        purpose: What kind of thing: one signed for another purpose is no good here.

    Raises:
        WeakSecret: There is none, or one is shorter than 32 characters.
    """

    def __init__(self, secrets: Sequence[str] | None, *, purpose: str) -> None:
        known = [random.token_urlsafe(48)] if secrets is None else keys_of(secrets)
        oldest_first = known[::-1]  # as itsdangerous has it
        salt = f"llama_index_hitl.{purpose}"
        how: dict[str, Any] = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
        self._serializer = URLSafeSerializer(oldest_first, salt=salt, signer_kwargs=how)
        self._signer = Signer(oldest_first, salt=salt + ".text", **how)

    def sign(self, content: JsonObject) -> str:
        """Return something as text that is fit for a URL or a cookie. It is signed, not secret."""
        return str(self._serializer.dumps(content))

    def read(self, signed: str) -> JsonObject | None:
        """Return what was signed; None: it was not, not for this, or with no secret known here."""
        if len(signed) > _LONGEST:
            return None
        try:
            content: Any = self._serializer.loads(signed)
        except (BadData, RecursionError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def signature(self, text: str) -> str:
        """Return the signature of a text."""
        return self._signer.get_signature(text).decode()

    def fits(self, text: str, signature: str) -> bool:
        """Tell whether a signature is that of a text."""
        return self._signer.verify_signature(text, signature)


def keys_of(secrets: Sequence[str]) -> list[str]:
    """Return secrets that are fit to sign with.

    Raises:
        WeakSecret: There is none, or one is shorter than 32 characters.
    """
    known = [secrets] if isinstance(secrets, str) else list(secrets)
    for secret in known or [""]:
        if len(secret) < _SHORTEST:
            raise WeakSecret(len(secret), least=_SHORTEST)
    return known
