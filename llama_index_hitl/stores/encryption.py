"""Encryption at rest: what a store writes that is not needed to find rows can be encrypted.

Encrypted are records of requests, what runs were started with, their snapshots, results and errors,
what they said on the way, results of effects, messages, notices and audit entries. In plain stay
ids, times, statuses, names of workflows and gates, tags, reviewer entries, owners of leases, who
started a run and who looks at a request, kinds of events, and the hashes of the audit trail.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from llama_index_hitl._extras import require
from llama_index_hitl.errors import StoreError

_SEAL = b"\x00hitl-sealed\x00"
"""What every encrypted value begins with; JSON never does."""


class Cipher(Protocol):
    """Encrypts what a store keeps. Its methods are called from several threads at once.

    Example:
        >>> class Rot13:  # keeps nothing secret
        ...     def encrypt(self, data: bytes) -> bytes:
        ...         return bytes((byte + 13) % 256 for byte in data)
        ...
        ...     def decrypt(self, data: bytes) -> bytes:
        ...         return bytes((byte - 13) % 256 for byte in data)
        ...
        ...     def is_newest(self, data: bytes) -> bool:
        ...         return True
        >>> cipher: Cipher = Rot13()
        >>> cipher.decrypt(cipher.encrypt(b"mice"))
        b'mice'
    """

    def encrypt(self, data: bytes) -> bytes:
        """Encrypt with the newest key.

        Args:
            data: What to encrypt.

        Returns:
            It, encrypted.
        """
        ...

    def decrypt(self, data: bytes) -> bytes:
        """Decrypt with whichever key fits.

        Args:
            data: What `encrypt` has returned.

        Returns:
            What was encrypted.

        Raises:
            StoreError: None fits, or the data was changed.
        """
        ...

    def is_newest(self, data: bytes) -> bool:
        """Tell whether this was encrypted with the newest key.

        Args:
            data: What `encrypt` has returned.
        """
        ...


class FernetCipher:
    """Encrypts with Fernet (AES-128-CBC and HMAC-SHA256) of the package `cryptography`.

    To change keys, put the new one in front of the old ones in every process, call
    `SqlStore.rotate`, then take the old ones away.

    Args:
        keys: Keys as `cryptography.fernet.Fernet.generate_key()` makes them, the newest first: it
            encrypts, all of them decrypt.

    Raises:
        MissingExtra: `cryptography` is not installed.
        ValueError: There is no key, or one is not a Fernet key.

    Example:
        >>> from cryptography.fernet import Fernet
        >>> old, new = Fernet.generate_key(), Fernet.generate_key()
        >>> kept = FernetCipher([old]).encrypt(b"mice")
        >>> cipher = FernetCipher([new, old])  # while the old key is being taken out of use
        >>> cipher.decrypt(kept), cipher.is_newest(kept)
        (b'mice', False)
    """

    def __init__(self, keys: Sequence[str | bytes]) -> None:
        fernet = require("cryptography.fernet", extra="encryption", purpose="FernetCipher")
        if isinstance(keys, str | bytes) or not keys:
            raise ValueError("FernetCipher needs a list of keys, the newest first")
        ciphers = [fernet.Fernet(key) for key in keys]
        self._newest: Any = ciphers[0]
        self._any: Any = fernet.MultiFernet(ciphers)
        self._invalid: type[Exception] = fernet.InvalidToken

    def encrypt(self, data: bytes) -> bytes:
        """Encrypt with the first key.

        Args:
            data: What to encrypt.

        Returns:
            It, encrypted.
        """
        encrypted: bytes = self._newest.encrypt(data)
        return encrypted

    def decrypt(self, data: bytes) -> bytes:
        """Decrypt with whichever key fits.

        Args:
            data: What `encrypt` has returned.

        Returns:
            What was encrypted.

        Raises:
            StoreError: None fits, or the data was changed.
        """
        try:
            decrypted: bytes = self._any.decrypt(data)
        except self._invalid as error:
            raise StoreError(
                "None of the keys of the cipher decrypts what is stored: it was written with "
                "another key, or changed. Give FernetCipher the key it was written with, too."
            ) from error
        return decrypted

    def is_newest(self, data: bytes) -> bool:
        """Tell whether this was encrypted with the first key.

        Args:
            data: What `encrypt` has returned.
        """
        try:
            self._newest.decrypt(data)
        except self._invalid:
            return False
        return True


class Sealer:
    """Turns values into what is stored and back, with or without a cipher.

    Args:
        cipher: None: values are stored in plain.
    """

    def __init__(self, cipher: Cipher | None) -> None:
        self._cipher = cipher

    def seal(self, data: bytes) -> bytes:
        """Return what to store.

        Raises:
            StoreError: There is no cipher, and it would be taken for something encrypted.
        """
        if self._cipher is not None:
            return _SEAL + self._cipher.encrypt(data)
        if data.startswith(_SEAL):
            raise StoreError(f"Bytes that begin with {_SEAL!r} can only be stored with a cipher.")
        return data

    def unseal(self, stored: bytes | str) -> bytes:
        """Return the value that was stored.

        Raises:
            StoreError: It is encrypted and there is no cipher, or none of its keys fits; or it is
                in plain, and there is a cipher: anybody may have put it there.
        """
        stored = _as_bytes(stored)
        sealed = stored.startswith(_SEAL)
        if self._cipher is None:
            if sealed:
                raise StoreError(
                    "What is stored is encrypted. Open the store with the cipher it was written "
                    "with: SqlStore(url, cipher=...)."
                )
            return stored
        if not sealed:
            raise StoreError(
                "What is stored is not encrypted, though the store was opened with a cipher. Call "
                "SqlStore.rotate() once to encrypt what was written without one."
            )
        return self._cipher.decrypt(stored[len(_SEAL) :])

    def resealed(self, stored: bytes | str) -> bytes | None:
        """Return what to store instead, encrypted with the newest key; None: it is already.

        Raises:
            StoreError: There is no cipher, or none of its keys fits.
        """
        if self._cipher is None:
            raise StoreError("There is nothing to encrypt with: open the store with cipher=...")
        stored = _as_bytes(stored)
        if not stored.startswith(_SEAL):
            return self.seal(stored)
        encrypted = stored[len(_SEAL) :]
        if self._cipher.is_newest(encrypted):
            return None
        return self.seal(self._cipher.decrypt(encrypted))


def _as_bytes(stored: bytes | str) -> bytes:
    """SQLite keeps text that was put there by hand as text."""
    return stored.encode() if isinstance(stored, str) else stored
