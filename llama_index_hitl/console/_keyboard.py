"""How the terminal reviewer hears a person: lines, and Ctrl-C.

Private: `llama_index_hitl.console` is the door. Nothing here blocks the event loop, and nothing
here keeps the interpreter from ending.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TextIO
from weakref import WeakKeyDictionary

try:
    import termios
except ImportError:  # Windows
    termios = None  # type: ignore[assignment,unused-ignore]

_POLL_SECONDS = 0.1
"""How soon a terminal is let go of when nobody waits for its next line any more."""

_LOCKS: WeakKeyDictionary[TextIO, threading.Lock] = WeakKeyDictionary()
"""One reader at a time for each stream: two would tear its buffer apart."""


class Left(Exception):
    """The person left, or there is no more input.

    Attributes:
        reason: Why, to complete "was left unanswered: ...".
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Closed(Exception):
    """What is being asked has been settled elsewhere.

    Attributes:
        reason: How, as a sentence for people.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnreadableLine(Exception):
    """A line came whose bytes are not text in the encoding of the stream."""


class Keyboard:
    """Lines from a stream, read in a thread so that the workflow goes on while a person thinks.

    Attributes:
        is_terminal: Whether a person types, and sees what they type.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._stop: asyncio.Future[Exception] | None = None
        self._deaf = False
        self.is_terminal = stream.isatty()

    @contextmanager
    def attention(self) -> Iterator[None]:
        """Listen to Ctrl-C and to `stop` for as long as something is being asked."""
        loop = asyncio.get_running_loop()
        self._stop = loop.create_future()
        with _interrupts(lambda: loop.call_soon_threadsafe(self._interrupted)):
            try:
                yield
            finally:
                self._stop = None

    def stop(self, reason: Exception) -> None:
        """Let whoever waits for a line, or does so next, get this error instead."""
        if self._stop is not None and not self._stop.done():
            self._stop.set_result(reason)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Leave the terminal, and Ctrl-C with it, to another program."""
        self._deaf = True
        try:
            yield
        finally:
            self._deaf = False

    def forget_typed_ahead(self) -> None:
        """Drop what was typed before the question was shown: it cannot be meant for it."""
        if not self.is_terminal or termios is None:
            return
        with suppress(OSError, ValueError, termios.error):  # a stream without a file behind it
            termios.tcflush(self._stream.fileno(), termios.TCIFLUSH)

    async def line(self) -> str:
        """Return the next line, without its end.

        Raises:
            Left: There is no next line, or Ctrl-C was pressed.
            Closed: `stop` said so.
            UnreadableLine: The line is not text.
        """
        stop = self._stop
        if stop is None:
            raise RuntimeError("line() is for use within attention()")
        if not stop.done():
            read = _Read(self._stream)
            either: tuple[asyncio.Future[Any], ...] = (read.done, stop)
            try:
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            finally:
                read.wanted = False
        if stop.done():  # also when a line came at the same instant: it must not count
            raise stop.result()
        found = read.done.result()
        if isinstance(found, Exception):
            raise found
        return found.removesuffix("\n").removesuffix("\r")

    def _interrupted(self) -> None:
        if not self._deaf:
            self.stop(Left("it was interrupted"))


class _Read:
    """One line asked of a stream, in a daemon thread: it never keeps the interpreter alive."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self.wanted = True
        self.done: asyncio.Future[str | Exception] = self._loop.create_future()
        threading.Thread(target=self._work, name="hitl-console", daemon=True).start()

    def _work(self) -> None:
        found: str | Exception = Left("input ended")
        try:
            with _LOCKS.setdefault(self._stream, threading.Lock()):
                if self._wait():
                    found = self._stream.readline() or found
        except UnicodeDecodeError:
            found = UnreadableLine()
        except KeyboardInterrupt:
            found = Left("it was interrupted")
        except (OSError, ValueError):
            pass  # a terminal that is gone, or a closed stream: no more input
        finally:
            with suppress(RuntimeError):  # the event loop has been closed: nobody waits
                self._loop.call_soon_threadsafe(self._deliver, found)

    def _wait(self) -> bool:
        """Wait until a terminal has a line; tell whether somebody still wants it.

        A terminal hands out whole lines, so reading does not begin before there is one, and a line
        that nobody here waits for any more is left to whoever reads next. Of other streams nothing
        can be known beforehand.
        """
        if os.name == "posix" and self._stream.isatty():
            with suppress(OSError, ValueError):  # a stream without a file behind it
                number = self._stream.fileno()
                while self.wanted and not select.select([number], [], [], _POLL_SECONDS)[0]:
                    pass
        return self.wanted

    def _deliver(self, found: str | Exception) -> None:
        if not self.done.done():
            self.done.set_result(found)


@contextmanager
def _interrupts(act: Callable[[], object]) -> Iterator[None]:
    """Call a function on Ctrl-C in place of what happens otherwise, where that is possible."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        act()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
