"""Where a command works: the store that it was given, and the workflows, if it was given any."""

from __future__ import annotations

import asyncio
import getpass
import importlib
import inspect
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index_hitl.cli._failures import Misused
from llama_index_hitl.errors import StoreError

if TYPE_CHECKING:
    from workflows import Workflow

    from llama_index_hitl.models import Reviewer
    from llama_index_hitl.runner import Runner
    from llama_index_hitl.stores import SqlStore

T = TypeVar("T")

DEFAULT_STORE = "sqlite:///hitl.db"

_WHAT_AN_APP_IS = (
    "It must be a mapping of names to workflows, a Runner, or a function without arguments that "
    "returns one of these"
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a command works.

    Attributes:
        store: URL of the store; None: the default one, or that of the app's own runner.
        app: Where the workflows are, as `module:object`; None: they are not needed.
        workflows: The workflows themselves, in place of `app`.
        new: Whether the store may be made, if it is not there yet.
        as_json: Whether the output is for programs: what the workflows print goes elsewhere.
    """

    store: str | None = None
    app: str | None = None
    workflows: Mapping[str, Workflow] | None = None
    new: bool = False
    as_json: bool = False

    @property
    def name(self) -> str:
        """The store in words for people: the file, or the URL without its password."""
        file = sqlite_file(self.store or DEFAULT_STORE)
        return without_password(self.store or "") if file is None else str(file)

    @property
    def options(self) -> tuple[str, ...]:
        """What has to be typed behind the next command for it to work here, too."""
        store = None if self.store is None else without_password(self.store)
        given = (("--app", "HITL_APP", self.app), ("--store", "HITL_STORE", store))
        return tuple(
            word
            for option, variable, value in given
            if value is not None and os.environ.get(variable) != value
            for word in (option, value)
        )

    def run(self, work: Callable[[Runner], Awaitable[T]]) -> T:
        """Do something with a runner, and let go of the store."""

        async def go() -> T:
            async with self._runner() as runner:
                return await work(runner)

        with redirect_stdout(sys.stderr) if self.as_json else nullcontext():
            return asyncio.run(go())

    @asynccontextmanager
    async def _runner(self) -> AsyncIterator[Runner]:
        from llama_index_hitl.runner import Runner

        loaded = self.workflows if self.app is None else await load_app(self.app)
        if isinstance(loaded, Runner):
            if self.store is not None:
                raise Misused(
                    f"The runner of {self.app} has a store of its own; leave out --store, and "
                    "unset HITL_STORE."
                )
            runner = loaded
        else:
            # Notices are kept for those who tell them; this process cannot know who they are.
            runner = Runner(self._opened(), loaded, notifiers=())
        try:
            yield runner
        finally:
            await runner.store.close()

    def _opened(self) -> SqlStore:
        from llama_index_hitl.stores import SqlStore

        url = self.store or DEFAULT_STORE
        file = sqlite_file(url)
        if file is not None and not self.new and not file.exists():
            raise StoreError(
                f"There is no store at {file}. Name the one that you mean with --store or "
                "HITL_STORE; `hitl demo --pause` makes one to try."
            )
        return SqlStore(url)


def sqlite_file(url: str) -> Path | None:
    """Return the file of a store in SQLite; None: it is none that can be looked for."""
    if "://" not in url:
        return Path(url)
    if not url.startswith("sqlite"):
        return None
    _, _, path = url.partition(":///")
    path = path.partition("?")[0]
    return Path(path) if path and not path.startswith(("file:", ":memory:")) else None


def without_password(url: str) -> str:
    """Return a URL that can be shown."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True) if "://" in url else url
    except (ArgumentError, ValueError):
        return url


# --------------------------------------------------------------------------- workflows


async def load_app(spec: str) -> Runner | Mapping[str, Workflow]:
    """Return what `--app` names: workflows by name, or a runner.

    Raises:
        Misused: It is not there, cannot be imported, or is something else.
    """
    found = await _called(spec, imported("--app", spec, example="shop.flows:workflows"))
    return _checked(spec, found)


def imported(option: str, spec: str, *, example: str) -> Any:
    """Return what an option names, from the working directory or where Python finds modules.

    Args:
        option: The option, such as `--app`.
        spec: What was given for it: `module:object`.
        example: What could be.

    Raises:
        Misused: It is not there, or cannot be imported.
    """
    module_name, _, path = spec.partition(":")
    if not module_name or not path:
        raise Misused(f"{option} {spec} must be MODULE:OBJECT, such as {example}.")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
        for name in path.split("."):
            found = getattr(found, name)
    except Exception as error:
        raise Misused(
            f"{option} {spec} cannot be loaded: {type(error).__name__}: {error}. It is looked for "
            f"in {Path.cwd()}, and where Python finds modules."
        ) from error
    return found


async def _called(spec: str, found: Any) -> Any:
    """Return what a function gives; other things are returned as they are."""
    if not callable(found) or isinstance(found, Mapping):
        return found
    try:
        made = found()
        return await made if inspect.isawaitable(made) else made
    except Exception as error:
        raise Misused(
            f"--app {spec} raised {type(error).__name__}: {error}. {_WHAT_AN_APP_IS}."
        ) from error


def _checked(spec: str, found: Any) -> Runner | Mapping[str, Workflow]:
    from workflows import Workflow

    from llama_index_hitl.runner import Runner

    if isinstance(found, Runner):
        return found
    if not isinstance(found, Mapping):
        raise Misused(f"--app {spec} gives a {type(found).__name__}. {_WHAT_AN_APP_IS}.")
    for name, workflow in found.items():
        if not isinstance(workflow, Workflow):
            kind = workflow.__name__ if isinstance(workflow, type) else type(workflow).__name__
            hint = " Give an instance." if isinstance(workflow, type) else ""
            raise Misused(f"--app {spec} has under {name!r} no workflow, but {kind}.{hint}")
    return found


# --------------------------------------------------------------------------- people


def person(by: str | None, roles: Iterable[str] | None = None) -> Reviewer:
    """Return who acts; by default the user of the operating system.

    Raises:
        Misused: Nobody can be called that.
    """
    from pydantic import ValidationError

    from llama_index_hitl.models import Reviewer

    name = _user_name() if by is None else by
    try:
        return Reviewer(id=name, roles=tuple(roles or ()))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise Misused(f"{name!r}, or a role of theirs, cannot be: {problem}.") from None


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise Misused("Say who you are with --by: this system has no name for you.") from None
