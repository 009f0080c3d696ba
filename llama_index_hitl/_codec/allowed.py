"""Which classes a snapshot of a workflow may name: found in its code, never in the data."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Collection, Iterable, Iterator
from enum import Enum
from functools import cache
from importlib import import_module
from types import FunctionType
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel
from workflows import Workflow
from workflows.context.state_store import DictState, infer_state_type
from workflows.events import (
    CollectionReleaseEvent,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
)

from llama_index_hitl import errors, events, models, questions
from llama_index_hitl._models_of_code import tools_of
from llama_index_hitl.errors import SnapshotError

_FRAMEWORKS = frozenset({"workflows", "llama_index", "llama_index_hitl", "builtins", "pydantic"})
_KINDS = (BaseModel, Enum, Exception)
_BASES = frozenset({"pydantic.main", "enum", "builtins"})
"""Modules of classes that are there to be subclassed, and that every module imports."""

_LAZY = frozenset(
    f"llama_index.core.{name}"
    for name in (
        "agent.react.types.ActionReasoningStep",
        "agent.react.types.ObservationReasoningStep",
        "agent.react.types.ResponseReasoningStep",
        "agent.workflow.workflow_events.AgentOutput",
        "agent.workflow.workflow_events.ToolCallResult",
        "base.llms.types.ChatMessage",
        "memory.chat_memory_buffer.ChatMemoryBuffer",
        "memory.chat_summary_memory_buffer.ChatSummaryMemoryBuffer",
        "memory.memory.Memory",
        "memory.memory_blocks.static.StaticMemoryBlock",
    )
)
"""Classes that agents put into their runs. They are not imported before one is met."""


class AllowedTypes:
    """Classes by the names under which snapshots know them.

    Args:
        declared: Classes that the workflow declares.
        found: Others that its code names; where one has the name of a declared class, it is the
            declared one that the name stands for.
    """

    def __init__(self, declared: Iterable[type], found: Iterable[type] = ()) -> None:
        self._declared, self._found = tuple(declared), tuple(found)
        self._by_name = {**_named(self._found), **_named(self._declared)}

    def extended(self, classes: Iterable[type]) -> AllowedTypes:
        """Return these and further ones."""
        return AllowedTypes((*self._declared, *_with_parts(classes)), self._found)

    def name_of(self, cls: type) -> str | None:
        """Return the name of a class in snapshots; None: it may not be in one."""
        for name in _names_of(cls):  # the first is how upstream names the event of a waiter
            if self._by_name.get(name) is cls or _loaded(name) is cls:
                return name
        return None

    def resolve(self, name: object) -> type[Any]:
        """Return the class of a name.

        Raises:
            SnapshotError: It is not the name of a class that the code allows.
        """
        if isinstance(name, str):
            cls = self._by_name.get(name) or _loaded(name)
            if cls is not None:
                return cls
        if isinstance(name, str) and name in self._by_name:
            raise SnapshotError(
                f"Several classes are called {name!r}; give them names of their own."
            )
        raise SnapshotError(
            f"The snapshot names the type {name!r:.200}, which the code of the workflow does not. "
            "If it was renamed or moved, register a Migration; if it is only made at run time, "
            "name it in `snapshot_types` of the workflow."
        )


def _loaded(name: str) -> type | None:
    """Return one of the classes of LlamaIndex's that every run may hold, loading it if need be."""
    if name not in _LAZY:
        return None
    module, _, attribute = name.rpartition(".")
    cls: type = getattr(import_module(module), attribute)
    return cls


def _names_of(cls: type) -> tuple[str, str]:
    return f"{cls.__module__}.{cls.__name__}", f"{cls.__module__}.{cls.__qualname__}"


def _named(classes: Iterable[type]) -> dict[str, type | None]:
    """Map names to classes; a name that two of them claim stands for neither."""
    known = tuple(dict.fromkeys(classes))
    by_name: dict[str, type | None] = {}
    for cls in known:
        full = _names_of(cls)[1]
        by_name[full] = None if full in by_name else cls
    for cls in known:
        brief = _names_of(cls)[0]
        other = by_name.setdefault(brief, cls)
        # The full name of one class goes before the brief name of a nested one. Not so of events:
        # upstream writes the brief name of an event that a step waits for.
        if other is cls:
            continue
        if other is None or brief != _names_of(other)[1] or issubclass(cls, Event):
            by_name[brief] = None
    return by_name


def allowed_for(workflow: Workflow, types: Collection[type], found: Iterable[type]) -> AllowedTypes:
    """Find the classes that snapshots of a workflow may name.

    Args:
        workflow: The workflow.
        types: Further classes, such as those that `snapshot_types` of the workflow lists.
        found: Classes that the tools of an agent name.

    Raises:
        TypeError: Something in `types` is not a class.
    """
    for item in types:
        if not isinstance(item, type):
            raise TypeError(f"snapshot_types takes classes, not {item!r}.")
    declared = [*_own_types(), *workflow.events, infer_state_type(workflow), *types]
    found = [*_named_in_class(type(workflow)), *found]
    return AllowedTypes(_with_parts(declared), _with_parts(found))


@cache
def _own_types() -> tuple[type, ...]:
    """Return what this package and upstream may put into any run."""
    upstream: tuple[type, ...] = (
        DictState,
        StartEvent,
        StopEvent,
        InputRequiredEvent,
        HumanResponseEvent,
        CollectionReleaseEvent,
        StepFailedEvent,
    )
    modules = (errors, models, events, questions)
    return (*upstream, *(cls for module in modules for cls in _classes_in(vars(module))))


def _classes_in(namespace: Any) -> Iterator[type]:
    """Yield the classes in a namespace of which instances can be stored."""
    for value in tuple(namespace.values()):
        if isinstance(value, type) and is_storable(value):
            yield value


def is_storable(cls: type) -> bool:
    """Tell whether instances of a class can be stored, as far as the class goes."""
    if cls.__module__ in _BASES or issubclass(cls, Workflow):
        return False
    return issubclass(cls, _KINDS) or dataclasses.is_dataclass(cls) or is_named_tuple(cls)


def is_named_tuple(cls: type) -> bool:
    """Tell whether a class was made by `NamedTuple` or `namedtuple`."""
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


# --------------------------------------------------------------------------- from annotations


def _with_parts(classes: Iterable[type]) -> dict[type, None]:
    """Return classes and those in the annotations of their fields, at any depth, in order."""
    known: dict[type, None] = {}
    waiting = [*classes][::-1]
    while waiting:
        cls = waiting.pop()
        if cls not in known:
            known[cls] = None
            waiting.extend(_types_in(_annotations(cls)))
    return known


def _annotations(cls: type) -> list[Any]:
    if issubclass(cls, BaseModel):
        return [field.annotation for field in cls.model_fields.values()]
    if cls.__module__.partition(".")[0] == "llama_index_hitl":
        return []  # all of them are known
    if dataclasses.is_dataclass(cls) or is_named_tuple(cls):
        try:
            return list(get_type_hints(cls).values())
        except (NameError, TypeError):  # names that stand under TYPE_CHECKING only
            return list(getattr(cls, "__annotations__", {}).values())
    return []


def _types_in(annotations: Iterable[Any]) -> Iterator[type]:
    for annotation in annotations:
        if isinstance(annotation, type) and is_storable(annotation):
            yield annotation
        yield from _types_in(get_args(annotation))


# --------------------------------------------------------------------------- from code


def is_framework(cls: type) -> bool:
    """Tell whether a class belongs to upstream or to this package, not to a user."""
    return _is_of_framework(cls.__module__)


def _is_of_framework(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _FRAMEWORKS


def _named_in_class(cls: type[Workflow]) -> Iterator[type]:
    """Yield the classes that the modules and the methods of a workflow's class name."""
    for base in cls.__mro__:
        if is_framework(base):
            continue
        module = sys.modules.get(base.__module__)
        yield from _classes_in(vars(module) if module is not None else {})
        yield from _classes_in(vars(base))
        for value in vars(base).values():
            yield from _classes_in(_closure_of(_function(value)))


def named_in_tools(workflow: Workflow) -> Iterator[type]:
    """Yield the classes that the tools of an agent, or of several, and their modules name."""
    for tool in tools_of(workflow):
        function = _function(getattr(tool, "real_fn", tool))
        if function is not None and not _is_of_framework(function.__module__):
            yield from _classes_in(function.__globals__)
            yield from _classes_in(_closure_of(function))


def _function(value: object) -> FunctionType | None:
    """Return the function behind a method, or behind what a decorator made of it."""
    found = inspect.unwrap(getattr(value, "__func__", value))  # type: ignore[arg-type]
    return found if isinstance(found, FunctionType) else None


def _closure_of(function: FunctionType | None) -> dict[str, Any]:
    """Return what a function has from the one that it was made in."""
    if function is None:
        return {}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    found: dict[str, Any] = {}
    for name, cell in cells:
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found
