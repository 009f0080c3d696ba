"""How much one client may send, try and hold open."""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from llama_index_hitl.clock import Clock
from llama_index_hitl.errors import TooMany
from llama_index_hitl.models import Reviewer

_REMEMBERED = 10_000  # addresses and tokens; behind that the one that failed longest ago is dropped
# A string that never ends goes to the end: to look for its end again behind each quote in it would
# take time that grows with the square of the body.
_NOTICEABLE = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one client may send, try and hold open. Each process counts for itself.

    Attributes:
        body: Bytes of a request's body, or of a message over a socket, at most.
        depth: How deeply JSON in these may be nested.
        failed_sign_ins: How many sign-ins of one address, or with one token, may fail within the
            window, before more are refused until the first of them is out of it. The address is
            the one that the server sees: behind a proxy, let the server trust the proxy's
            `X-Forwarded-For`, as with uvicorn's `--forwarded-allow-ips`, or all share one.
        window: How long a failed sign-in counts.
        streams: How many streams and sockets one person may have open.

    Raises:
        ValueError: One of them is below 1, or the window is not positive.

    Example:
        >>> from datetime import timedelta
        >>> Limits(failed_sign_ins=5, window=timedelta(minutes=15)).failed_sign_ins
        5
        >>> Limits(streams=0)
        Traceback (most recent call last):
            ...
        ValueError: the limit streams must be at least 1
    """

    body: int = 1 << 20  # 1 MiB
    depth: int = 100
    failed_sign_ins: int = 10
    window: timedelta = timedelta(minutes=5)
    streams: int = 20

    def __post_init__(self) -> None:
        for name in ("body", "depth", "failed_sign_ins", "streams"):
            if getattr(self, name) < 1:
                raise ValueError(f"the limit {name} must be at least 1")
        if self.window <= timedelta():
            raise ValueError("the window of failed sign-ins must be longer than nothing")


class Attempts:
    """Counts failed sign-ins, for each key by itself, in bounded memory.

    Args:
        limits: How many may fail, within what time.
        clock: The time.
    """

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._most = limits.failed_sign_ins
        self._window = limits.window
        self._clock = clock
        self._failed: OrderedDict[str, deque[datetime]] = OrderedDict()

    def check(self, *keys: str) -> None:
        """Refuse another try where too many have failed.

        Raises:
            TooMany: For one of the keys; it says when to try again.
        """
        now = self._clock()
        for key in keys:
            failed = self._failed.get(key, deque())
            while failed and failed[0] + self._window <= now:
                failed.popleft()
            if len(failed) >= self._most:
                left = (failed[0] + self._window - now).total_seconds()
                raise TooMany(
                    "Too many sign-ins have failed. Wait a while, then try again.",
                    retry_after=max(1, math.ceil(left)),
                )

    def failed(self, *keys: str) -> None:
        """Count a sign-in that has failed."""
        now = self._clock()
        for key in keys:
            known = self._failed.setdefault(key, deque(maxlen=self._most))
            known.append(now)
            self._failed.move_to_end(key)
        while len(self._failed) > _REMEMBERED:
            self._failed.popitem(last=False)


def address_key(host: str | None) -> str:
    """Return what the failed sign-ins of an address are counted under.

    Of IPv6 it is the network: whoever has one address there has 2**64 of them.
    """
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return f"address {host}"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return f"address {address.ipv4_mapped}"
        return f"address {ipaddress.ip_network((address, 64), strict=False)}"
    return f"address {address}"


class Streams:
    """Counts the streams and sockets that each person has open in this process.

    Args:
        limits: How many they may.
    """

    def __init__(self, limits: Limits) -> None:
        self._most = limits.streams
        self._open: Counter[str] = Counter()

    @contextmanager
    def opened(self, person: Reviewer) -> Iterator[None]:
        """Count a stream of somebody for as long as the block lasts.

        Raises:
            TooMany: They have as many open as they may.
        """
        if self._open[person.id] >= self._most:
            raise TooMany(
                f"You have {self._most} streams open here, which is as many as one person may. "
                "Close a page, then try again.",
                retry_after=10,
            )
        self._open[person.id] += 1
        try:
            yield
        finally:
            self._open[person.id] -= 1
            if not self._open[person.id]:
                del self._open[person.id]


def nested_deeper(body: bytes, depth: int) -> bool:
    """Tell whether JSON is nested more deeply than that, without reading it: that could overflow.

    Args:
        body: JSON, or anything else.
        depth: How many brackets may be open at the same time.
    """
    if body.count(b"[") + body.count(b"{") <= depth:
        return False  # nearly always, and much quicker
    level = 0
    for found in _NOTICEABLE.finditer(body):
        if found[0] in (b"[", b"{"):
            level += 1
            if level > depth:
                return True
        elif found[0] in (b"]", b"}"):
            level -= 1
    return False
