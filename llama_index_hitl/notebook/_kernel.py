"""The kernel that a notebook runs in: whether there is one, and how it hears clicks.

A kernel takes its messages one after the other, and a cell that waits for a person is in the midst
of one. What each line of ipykernel does with a click that comes meanwhile:

- from 7.4 on, it is taken at once, but nobody is told when that is done, so a front end that sends
  one change of an input at a time waits for ever to send the next one;
- from 7.0 on, it waits for a lock that the cell has, unless it comes by way of a subshell;
- before, it waits in a queue.

`clicks_heard` makes all of them take it at once and say so. Everything but messages of widgets
waits as it would otherwise, in the same order.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from importlib import import_module
from io import TextIOBase
from threading import Thread
from typing import Any, TypeAlias

_WIDGET_MESSAGES = ("comm_open", "comm_msg", "comm_close")

Frames: TypeAlias = Any
"""A message as it came, in the frames of ZeroMQ."""


def kernel_here() -> Any | None:
    """Return the kernel that this code runs in; None: it runs in no notebook."""
    try:
        from IPython.core.getipython import get_ipython
    except ModuleNotFoundError:
        return None
    shell = get_ipython()  # type: ignore[no-untyped-call, unused-ignore]
    return getattr(shell, "kernel", None)


def warm_up() -> None:
    """Import, while people read, what checks their answers.

    Beside Jupyter this takes seconds: `jsonschema` then builds a grammar when it is imported.
    """
    Thread(target=import_module, args=("jsonschema.validators",), daemon=True).start()


class TypedInput(TextIOBase):
    """What people type into the input line that a front end without widgets shows."""

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]
        """Return the next line; an empty text: there is none, or nobody who could type it."""
        try:
            return f"{input()}\n"
        except (EOFError, RuntimeError):  # the front end takes no input
            return ""


class _Hearing:
    """Several reviews at once, in one cell, share one way to hear."""

    count = 0
    ways = AsyncExitStack()


@asynccontextmanager
async def clicks_heard(kernel: Any) -> AsyncIterator[None]:
    """Let widgets hear what people do to them while the cell that is in this block waits."""
    if _Hearing.count == 0:
        await _Hearing.ways.enter_async_context(_way(kernel))
    _Hearing.count += 1
    try:
        yield
    finally:
        _Hearing.count -= 1
        if _Hearing.count == 0:
            await _Hearing.ways.aclose()


@asynccontextmanager
async def _way(kernel: Any) -> AsyncIterator[None]:
    if hasattr(kernel, "msg_queue"):
        emptying = asyncio.create_task(_empty_queue(kernel))
        try:
            yield
        finally:
            emptying.cancel()
            with suppress(asyncio.CancelledError):
                await emptying
    elif hasattr(kernel, "_main_asyncio_lock"):
        with _past_the_lock(kernel):
            yield
    else:  # some other kernel, of which nothing is known
        yield


# --------------------------------------------------------------------------- before 7.0


async def _empty_queue(kernel: Any) -> None:
    held: list[Any] = []
    try:
        while True:
            entry = await kernel.msg_queue.get()
            frames = next(iter(entry[-1]), None)
            if frames is not None and _is_of_widget(kernel, frames):
                await _take(kernel, frames)
            else:
                held.append(entry)
    finally:
        while kernel.msg_queue.qsize():
            held.append(kernel.msg_queue.get_nowait())
        for entry in held:
            kernel.msg_queue.put_nowait(entry)


# --------------------------------------------------------------------------- from 7.0 on


class _NoLock:
    """Stands in for a lock at which nobody waits."""

    def locked(self) -> bool:
        return False

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *exception: object) -> None:
        pass


@contextmanager
def _past_the_lock(kernel: Any) -> Iterator[None]:
    lock, dispatch = kernel._main_asyncio_lock, kernel.dispatch_shell  # noqa: SLF001
    has_way_past = "concurrent" in inspect.signature(dispatch).parameters
    kernel.dispatch_shell = _dispatching(kernel, lock, dispatch)
    if not has_way_past:
        kernel._main_asyncio_lock = _NoLock()  # noqa: SLF001
    try:
        yield
    finally:
        kernel._main_asyncio_lock = lock  # noqa: SLF001
        del kernel.dispatch_shell


def _dispatching(
    kernel: Any, lock: asyncio.Lock, dispatch: Callable[..., Awaitable[None]]
) -> Callable[..., Awaitable[None]]:
    async def dispatching(
        frames: Frames, /, subshell_id: str | None = None, **options: Any
    ) -> None:
        if subshell_id is not None:
            await dispatch(frames, subshell_id=subshell_id, **options)
        elif _is_of_widget(kernel, frames):
            await _take(kernel, frames)
        elif isinstance(kernel._main_asyncio_lock, _NoLock):  # noqa: SLF001
            async with lock:
                await dispatch(frames, subshell_id=subshell_id, **options)
        else:
            await dispatch(frames, subshell_id=subshell_id, **options)

    return dispatching


# --------------------------------------------------------------------------- all of them


def _is_of_widget(kernel: Any, frames: Frames) -> bool:
    try:
        _, parts = kernel.session.feed_identities(frames, copy=False)
        header = kernel.session.unpack(parts[1].bytes)
        return header.get("msg_type") in _WIDGET_MESSAGES
    except (IndexError, ValueError, TypeError, AttributeError):
        return False  # no message of anybody; the kernel knows what to do with it


async def _take(kernel: Any, frames: Frames) -> None:
    """Take one message of a widget, and say when it is done."""
    before, identity = kernel.get_parent("shell"), kernel._parent_ident["shell"]  # noqa: SLF001
    try:
        idents, parts = kernel.session.feed_identities(frames, copy=False)
        message = kernel.session.deserialize(parts, content=True, copy=False)
        kernel.set_parent(idents, message)
        _say(kernel, "busy", message)
        taken = kernel.shell_handlers[message["header"]["msg_type"]](None, idents, message)
        if inspect.isawaitable(taken):
            await taken
        _say(kernel, "idle", message)
    except Exception:
        # As the kernel itself does: whatever a widget makes of a click, the cell waits on.
        kernel.log.exception("Exception in message handler")
    finally:
        kernel.set_parent(identity, before)
        _say(kernel, "busy", before)


def _say(kernel: Any, state: str, parent: Any) -> None:
    kernel.session.send(kernel.iopub_socket, "status", {"execution_state": state}, parent=parent)


def is_notebook(kernel: Any) -> bool:
    """Tell whether what runs the present cell says that it is one of a notebook.

    JupyterLab, Notebook, VS Code and Colab do. What does not may show widgets all the same.
    """
    metadata = (kernel.get_parent("shell") or {}).get("metadata") or {}
    return bool({"cellId", "colab"} & set(metadata))
