"""What there is to know of one call of a guarded tool, and the name that it goes by."""

from __future__ import annotations

import inspect
from typing import Any

from llama_index.core.tools.types import ToolMetadata
from pydantic import BaseModel
from workflows import Context

from llama_index_hitl._grantbook import present_book
from llama_index_hitl._upstream import Execution, execution_of_step, work_item_of, workflow_of
from llama_index_hitl.agents._arguments import Arguments
from llama_index_hitl.agents._conversation import agent_of, conversation_of
from llama_index_hitl.agents._guard import Guard
from llama_index_hitl.models import Evidence, Identifier, Line, Priority, RuleResult, Text, Value
from llama_index_hitl.rules import evaluate


class Case(Value):
    """What is asked about one call, drawn up once and kept while the step waits.

    Attributes:
        agent: Name of the agent that calls the tool; empty: it is called without one.
        grantable: Whether a standing approval may cover the call, or be given with an approval.
    """

    agent: Line
    title: Line
    body: Text
    evidence: tuple[Evidence, ...]
    reviewers: tuple[Identifier, ...]
    barred: dict[Identifier, Line]
    requester: Identifier | None
    priority: Priority
    tags: tuple[Identifier, ...]
    rule: RuleResult | None
    grantable: bool


async def draw_up(
    ctx: Context[Any], metadata: ToolMetadata, guard: Guard, arguments: Arguments
) -> Case:
    """Return what there is to know of a call that is made for the first time.

    Args:
        ctx: Context of the step.
        metadata: The tool.
        guard: How it is guarded.
        arguments: The arguments of the call.
    """
    model = arguments.model
    agent = await agent_of(ctx)
    caller = "" if agent is None else agent.name
    title = f"{caller or workflow_of(ctx).workflow_name} wants to call {metadata.name}"
    reviewers = await _given(guard.reviewers, model)
    own = await _given(guard.evidence, model)
    return Case(
        agent=caller,
        title=title if guard.title is None else await _given(guard.title, model),
        body=metadata.description if guard.body is None else await _given(guard.body, model),
        evidence=(*own, *await conversation_of(ctx, agent, guard.conversation)),
        reviewers=(reviewers,) if isinstance(reviewers, str) else tuple(reviewers),
        barred=dict(await _given(guard.barred, model) or {}),
        requester=await _given(guard.requester, model),
        priority=await _given(guard.priority, model),
        tags=tuple(await _given(guard.tags, model)),
        rule=None if guard.when is None else evaluate(guard.when, model),
        grantable=guard.grants == "allow" and present_book() is not None,
    )


async def _given(option: Any, model: BaseModel) -> Any:
    """Return the value of an option, for these arguments."""
    value = option(model) if callable(option) else option
    return await value if inspect.isawaitable(value) else value


class Places:
    """Names the calls of guarded tools in one run, in this process."""

    def __init__(self) -> None:
        self._counts: dict[int, tuple[Execution, dict[str, int]]] = {}

    def next(self, call: str) -> str:
        """Name a call by the work item, by what it is, and by how many alike came before it.

        A step that waits makes its calls anew, in the same order, and they get the same names.
        """
        execution = execution_of_step()
        self._counts = {n: entry for n, entry in self._counts.items() if not entry[0].sends.closed}
        _, counts = self._counts.setdefault(id(execution), (execution, {}))
        counts[call] = counts.get(call, -1) + 1
        return f"tool:{work_item_of(execution)}:{call}:{counts[call]}"
