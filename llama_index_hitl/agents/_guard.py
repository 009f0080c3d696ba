"""How a tool is guarded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from llama_index.core.tools.types import BaseTool

from llama_index_hitl.agents._arguments import schema_of
from llama_index_hitl.effects import OnDoubt
from llama_index_hitl.errors import ToolError
from llama_index_hitl.models import DecisionKind, Evidence, Priority
from llama_index_hitl.rules import Rule

T = TypeVar("T")
Option: TypeAlias = T | Callable[[Any], T | Awaitable[T]]
"""A value, or a function of the validated arguments that gives it."""

DECISIONS = ("approve", "edit", "reject", "respond")
"""What a person can decide about a call."""

CONTEXT = "ctx"
"""The argument under which a guarded tool gets the context of its step."""

CONVERSATION = 6
"""Messages of the conversation that a person sees."""


@dataclass(frozen=True, kw_only=True)
class Guard:
    """How a tool is guarded; see `require_approval`, whose arguments these are."""

    when: Rule | None = None
    reviewers: Option[Sequence[str] | str] = ()
    decisions: Sequence[DecisionKind | str] = DECISIONS
    title: Option[str] | None = None
    body: Option[str] | None = None
    evidence: Option[Sequence[Evidence]] = ()
    barred: Option[Mapping[str, str]] | None = None
    requester: Option[str | None] = None
    priority: Option[Priority] = "normal"
    tags: Option[Sequence[str] | str] = ()
    grants: Literal["allow", "never"] = "allow"
    max_rejections: int = 3
    on_doubt: OnDoubt = "ask"
    conversation: int = CONVERSATION


def checked(tool: BaseTool, guard: Guard) -> tuple[DecisionKind, ...]:
    """Return the decisions that can be taken about a tool.

    Raises:
        ToolError: It cannot be guarded so.
    """
    name = tool.metadata.name
    if not name:
        raise ToolError("A tool without a name cannot be guarded: nobody would know what it is.")
    fields = schema_of(tool.metadata).model_fields
    if CONTEXT in fields:
        raise ToolError(
            f"{name} has an argument called {CONTEXT!r}, under which a guarded tool gets the "
            "context of its step. Give the argument another name; or, if it is the context, "
            "annotate it with the class Context itself: LlamaIndex does not know it as text, nor "
            "under `from __future__ import annotations`."
        )
    when: object = guard.when
    if when is not None and not isinstance(when, Rule):
        raise ToolError(f"when= needs a Rule of llama_index_hitl.rules, not {when!r:.100}.")
    if guard.grants not in ("allow", "never"):
        raise ToolError(f"grants= is 'allow' or 'never', not {guard.grants!r:.100}.")
    if guard.max_rejections < 1:
        raise ToolError("max_rejections= cannot be less than 1.")
    try:
        kinds = tuple(DecisionKind(kind) for kind in guard.decisions)
    except ValueError as error:
        raise ToolError(f"decisions=: {error}") from None
    known = tuple(DecisionKind(kind) for kind in DECISIONS)
    if not kinds or any(kind not in known for kind in kinds):
        found = ", ".join(kinds) or "nothing"
        raise ToolError(f"decisions= can be {', '.join(known)}, not {found}.")
    # Without arguments there is nothing to edit.
    return tuple(kind for kind in kinds if fields or kind is not DecisionKind.EDIT)
