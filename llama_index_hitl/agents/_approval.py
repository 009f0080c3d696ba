"""How a tool comes to be guarded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from llama_index.core.tools.function_tool import FunctionTool
from llama_index.core.tools.types import BaseTool

from llama_index_hitl.agents._guard import CONVERSATION, DECISIONS, Guard, Option
from llama_index_hitl.agents._guarded_tool import GuardedTool
from llama_index_hitl.effects import OnDoubt
from llama_index_hitl.errors import ToolError
from llama_index_hitl.models import DecisionKind, Evidence, Priority
from llama_index_hitl.rules import Rule


def require_approval(
    tool: BaseTool | Callable[..., Any],
    *,
    when: Rule | None = None,
    reviewers: Option[Sequence[str] | str] = (),
    decisions: Sequence[DecisionKind | str] = DECISIONS,
    title: Option[str] | None = None,
    body: Option[str] | None = None,
    evidence: Option[Sequence[Evidence]] = (),
    barred: Option[Mapping[str, str]] | None = None,
    requester: Option[str | None] = None,
    priority: Option[Priority] = "normal",
    tags: Option[Sequence[str] | str] = (),
    grants: Literal["allow", "never"] = "allow",
    max_rejections: int = 3,
    on_doubt: OnDoubt = "ask",
    conversation: int = CONVERSATION,
) -> GuardedTool:
    """Guard a tool: it is called only when a person, a rule or a standing approval lets it.

    A person sees the tool's name, its arguments as a form, the agent that calls it and the last of
    the conversation. They approve, edit the arguments, reject, or respond in the tool's place; the
    model is told which. What they approve is what the tool gets: the arguments as they are shown,
    of the types that the tool declares. Arguments that do not fit the tool's schema are sent back
    to the model, and nobody is asked.

    Options that are typed `Option` may be functions of the validated arguments, plain or async,
    called once when the question is asked. What a model says about a call decides nothing.

    Survives a crash, in a run that a `Runner` drives: each call has an effect key, and is made
    once. Where a process has died in the middle of a call, nobody can know whether it has happened:
    see `on_doubt`. On other runtimes a step that was cut off is repeated, and with it the call.

    Args:
        tool: A tool or function: plain or async, with or without a `Context`.
        when: Rule about the arguments: ask, approve without asking, or refuse without asking; what
            it refuses no edit can bring about either. Calls that it says nothing about are asked.
            None: always ask.
        reviewers: Ids and `role:...` entries; empty: anyone whom the channel lets in.
        decisions: What a person can decide: `approve`, `edit`, `reject` and `respond`, or fewer.
        title: One line that says what this is about; None: who wants to call what.
        body: What there is to know, in Markdown; None: the tool's own description.
        evidence: What helps to decide; the conversation comes after it.
        barred: Persons who may not answer, with the reason.
        requester: Id of the person on whose behalf the agent acts.
        priority: How urgent it is.
        tags: Words to find it by; `tool:...` and `agent:...` with the names of both are added.
        grants: Whether calls may be covered by standing approvals, which people give together with
            an approval; `never` for tools that are asked about each time. Needs a `Runner`.
        max_rejections: How often the same call, with the same arguments, may be rejected in one run
            of an agent, from 1. An agent that makes it again then fails with `RejectedTooOften`.
        on_doubt: What to do about a call that was begun and never finished; see `once`.
        conversation: How many of the last messages a person sees; 0: none.

    Returns:
        The guarded tool, for an agent, or for a step of your own.

    Raises:
        ToolError: It cannot be guarded so.

    Example:
        >>> from workflows import Context, Workflow, step
        >>> from workflows.events import StartEvent, StopEvent
        >>> from llama_index_hitl.rules import first_match, never, threshold
        >>> from llama_index_hitl.testing import ScriptedReviewer, review_with
        >>> def transfer(recipient: str, amount: float) -> str:
        ...     return f"Sent {amount:.0f} to {recipient}."
        >>> large = first_match(threshold("amount", above=100), otherwise=never())
        >>> guarded = require_approval(transfer, when=large)  # as a tool for agents; or in a step
        >>> class Paying(Workflow):
        ...     @step
        ...     async def pay(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ...         paid = await guarded.acall(ctx=ctx, recipient="Alice", amount=ev.amount)
        ...         return StopEvent(result=paid.content)
        >>> async def main():
        ...     less = Edit(subject={"recipient": "Alice", "amount": 250})
        ...     alice = ScriptedReviewer([less], by="alice")
        ...     return await review_with(Paying(timeout=None).run(amount=500), alice)
        >>> print(asyncio.run(main()))
        A person changed the arguments before the call (amount: 500.0 -> 250.0). Result of
        that call:
        Sent 250 to Alice.
    """
    if not isinstance(tool, BaseTool):
        if not callable(tool):
            raise ToolError(f"require_approval needs a tool or a function, not {tool!r:.100}.")
        tool = FunctionTool.from_defaults(tool)
    return GuardedTool(
        tool,
        Guard(
            when=when,
            reviewers=reviewers,
            decisions=decisions,
            title=title,
            body=body,
            evidence=evidence,
            barred=barred,
            requester=requester,
            priority=priority,
            tags=tags,
            grants=grants,
            max_rejections=max_rejections,
            on_doubt=on_doubt,
            conversation=conversation,
        ),
    )
