"""Tools that an agent can call only when a person, a rule or a standing approval lets it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NoReturn

from llama_index.core.tools.function_tool import FunctionTool
from llama_index.core.tools.types import BaseTool, ToolOutput
from pydantic import BaseModel, Field
from workflows import Context

from llama_index_hitl._grantbook import present_book
from llama_index_hitl._heard import Heard, ends_by_waiting, stand_aside
from llama_index_hitl._ledger import recalled, remembered_from_now_on
from llama_index_hitl._models_of_code import AnswerModels
from llama_index_hitl._siblings import at_work, others_at_rest
from llama_index_hitl._upstream import (
    WAITS,
    execution_of_step,
    fail_step,
    run_id_of,
    state_of_run,
)
from llama_index_hitl.agents import _outputs
from llama_index_hitl.agents._arguments import (
    Arguments,
    InvalidArguments,
    schema_of,
    shape_of,
    version_of,
)
from llama_index_hitl.agents._call import called, tell
from llama_index_hitl.agents._case import Case, draw_up, judged
from llama_index_hitl.agents._conversation import agent_of
from llama_index_hitl.agents._function import as_function
from llama_index_hitl.agents._guard import CONTEXT, Guard, checked
from llama_index_hitl.agents._rejections import rejected, times_rejected
from llama_index_hitl.errors import RejectedTooOften, ToolError
from llama_index_hitl.grants import GuardedCall
from llama_index_hitl.models import (
    Approve,
    DecisionKind,
    Edit,
    GrantOffer,
    Respond,
    ReviewPolicy,
    RuleResult,
    RuleVerdict,
    digest_of,
)
from llama_index_hitl.questions import Question, Resolution, ask


class ToolResponse(BaseModel):
    """What a person gives in place of a tool's result.

    Attributes:
        result: What the agent shall take for the result.
    """

    result: str = Field(json_schema_extra={"format": "textarea"})


class GuardedTool(FunctionTool):
    """A tool that runs only when it is let; made by `require_approval`.

    It has the name, description and schema of the tool that it guards, so a model cannot tell them
    apart. It needs the context of a step: in LlamaIndex's agents that is given, in a step of your
    own call `await tool.acall(ctx=ctx, **arguments)`.

    Args:
        tool: The tool to guard.
        guard: How.

    Raises:
        ToolError: It cannot be guarded so.

    Example:
        >>> def transfer(recipient: str, amount: float) -> str:
        ...     '''Send money to somebody.'''
        >>> guarded = require_approval(transfer)
        >>> isinstance(guarded, GuardedTool), guarded.metadata.name
        (True, 'transfer')
        >>> Respond(response=ToolResponse(result="Sent yesterday.")).response  # in its place
        {'result': 'Sent yesterday.'}
        >>> guarded(recipient="Alice", amount=500)
        Traceback (most recent call last):
            ...
        llama_index_hitl.errors.ToolError: transfer needs approval, so it cannot be called
        synchronously. Await its acall(ctx=...) in a step, or give it to an agent.
    """

    def __init__(self, tool: BaseTool, guard: Guard) -> None:
        self.guarded = tool
        self.guard = guard
        self._allowed = checked(tool, guard)
        may_respond = DecisionKind.RESPOND in self._allowed
        self.answer_models = AnswerModels(
            subject=schema_of(tool.metadata), response=ToolResponse if may_respond else None
        )
        super().__init__(async_fn=as_function(self.acall, tool.metadata), metadata=tool.metadata)

    def call(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: whoever waits for a person must not hold up a thread.

        Args:
            *args: Not looked at.
            **kwargs: Not looked at.

        Raises:
            ToolError: Always.
        """
        raise ToolError(
            f"{self.metadata.name} needs approval, so it cannot be called synchronously. Await "
            "its acall(ctx=...) in a step, or give it to an agent."
        )

    async def acall(self, *args: Any, **kwargs: Any) -> ToolOutput:
        """Ask whether the tool may be called, and call it if so.

        Args:
            *args: None: arguments are given by name.
            **kwargs: The tool's arguments, and `ctx`, the context of the step.

        Returns:
            What the tool gave, or why it was not called, as the model shall read it.

        Raises:
            ToolError: It is called with arguments without names, or without a context.
        """
        ctx = kwargs.pop(CONTEXT, None)
        if args or not isinstance(ctx, Context):
            raise ToolError(
                f"{self.metadata.name} needs approval: call it in a step of a workflow, as "
                "acall(ctx=ctx, ...), with its arguments by name. An agent does so by itself."
            )
        if ends_by_waiting(execution_of_step()):
            # Something beside this call, in `asyncio.gather`, waits: the step will make it again.
            await stand_aside(ctx, self.metadata.get_name())
        try:
            with at_work():
                return await self._made(ctx, kwargs)
        except WAITS:
            raise
        except Exception as error:
            # Not of the tool, whose errors are results: a store that is down, a memory that cannot
            # be read. An agent would tell the model, which can do nothing about it.
            if await agent_of(ctx) is None:
                raise
            fail_step(error)

    async def _made(self, ctx: Context[Any], raw: dict[str, Any]) -> ToolOutput:
        try:
            return await self._guarded(ctx, raw)
        except WAITS:
            await others_at_rest()
            raise

    async def _guarded(self, ctx: Context[Any], raw: dict[str, Any]) -> ToolOutput:
        name = self.metadata.get_name()
        try:
            arguments = Arguments.read(self.metadata, raw)
        except InvalidArguments as error:
            return _outputs.invalid(name, raw, str(error))
        call = f"tool:{name}:{arguments.digest[:16]}"
        place = state_of_run(Heard).place_of(execution_of_step(), call)
        done = recalled(ctx, f"{place}:done")
        if done is not None:
            return _outputs.load(done)
        case = await self._case(ctx, place, arguments)
        arguments = arguments.kept(case.arguments, frozenset(case.given))
        times = await times_rejected(ctx, self.metadata, arguments)
        if times >= self.guard.max_rejections:
            raise RejectedTooOften(name, times)
        output = await self._settled(ctx, place, case, arguments)
        remembered_from_now_on(ctx, f"{place}:done", _outputs.dump(output))
        return output

    # ----------------------------------------------------------------- what is asked

    async def _case(self, ctx: Context[Any], place: str, arguments: Arguments) -> Case:
        """Return what there is to know of a call; drawn up once, and kept while the step waits."""
        kept = recalled(ctx, f"{place}:case")
        if kept is not None:
            case = Case.model_validate(kept)
            if case.shape != shape_of(self.metadata):
                raise ToolError(
                    f"The schema of {self.metadata.name} has changed since it was asked whether to "
                    "call it, so that what was shown is not what would run. Go on with the code "
                    "that asked, or start the run again."
                )
            return case
        case = await draw_up(ctx, self.metadata, self.guard, arguments)
        remembered_from_now_on(ctx, f"{place}:case", case.model_dump(mode="json"))
        return case

    def _question(self, case: Case, arguments: Arguments) -> Question:
        offer = GrantOffer(
            tool=self.metadata.get_name(), agent=case.agent, version=version_of(self.metadata)
        )
        return Question(
            title=case.title,
            body=case.body,
            subject=arguments.model,
            response=self.answer_models.response,
            decisions=self._allowed,
            reviewers=case.reviewers,
            barred=case.barred,
            evidence=case.evidence,
            requester=case.requester,
            priority=case.priority,
            tags=case.tags,
            rule=case.rule,
            grantable=offer if case.grantable else None,
        )

    # ----------------------------------------------------------------- who decides

    async def _settled(
        self, ctx: Context[Any], place: str, case: Case, arguments: Arguments
    ) -> ToolOutput:
        """Let rules, grants and people decide, in this order, and do what follows."""
        question = self._question(case, arguments)
        key = f"call-{digest_of([run_id_of(ctx), place])[:24]}"
        rule = case.rule
        if rule is None or rule.verdict is RuleVerdict.ASK:
            rule = await self._granted(ctx, place, case, arguments, key)
        if rule is None:
            return await self._asked(ctx, question, place, arguments)
        if recalled(ctx, f"{place}:told") is None:
            remembered_from_now_on(ctx, f"{place}:told", {})
            tell(ctx, question, rule, key)
        if rule.verdict is RuleVerdict.REJECT:
            return rejected(
                self.metadata.get_name(), arguments, f"the rule {rule.rule!r}", rule.reason
            )
        return await called(ctx, self.guarded, self.guard, question, arguments, key)

    async def _granted(
        self, ctx: Context[Any], place: str, case: Case, arguments: Arguments, key: str
    ) -> RuleResult | None:
        """Return the verdict of a grant that covers the call; None: a person has to be asked.

        Once a person is asked, nobody else decides: not a grant either that comes meanwhile.
        """
        book = present_book() if case.grantable else None
        if book is None or recalled(ctx, f"{place}:asked") is not None:
            return None
        call = GuardedCall(
            tool=self.metadata.get_name(),
            version=version_of(self.metadata),
            agent=case.agent,
            arguments=arguments.data,
            policy=ReviewPolicy(reviewers=case.reviewers, barred=case.barred),
        )
        grant = await book.use(call, key=key)
        if grant is None:
            remembered_from_now_on(ctx, f"{place}:asked", {})
            return None
        reason = f"{grant.owner} has allowed such calls at {grant.granted_at.isoformat()}."
        return RuleResult(
            verdict=RuleVerdict.APPROVE, rule=f"grant:{grant.grant_id}", reason=reason
        )

    async def _asked(
        self, ctx: Context[Any], question: Question, place: str, arguments: Arguments
    ) -> ToolOutput:
        resolution: Resolution = await ask(ctx, question, key=place)
        name, key = self.metadata.get_name(), resolution.effect_key
        match resolution.decision:
            case Approve():
                return await called(ctx, self.guarded, self.guard, question, arguments, key)
            case Edit():
                after = arguments.edited(resolution.subject)
                if (refusal := self._refusal(after)) is not None:
                    if recalled(ctx, f"{place}:told") is None:
                        remembered_from_now_on(ctx, f"{place}:told", {})
                        tell(ctx, replace(question, subject=after.model), refusal, f"{key}-edited")
                    by = f"the rule {refusal.rule!r}, after a person had changed it,"
                    return rejected(name, after, by, refusal.reason)
                output = await called(ctx, self.guarded, self.guard, question, after, key)
                return _outputs.with_edit(output, arguments, after)
            case Respond() as response:
                return _outputs.responded(name, arguments, response)
            case decision:
                return rejected(name, arguments, "a person", decision.comment)

    def _refusal(self, arguments: Arguments) -> RuleResult | None:
        """Return why the rules refuse what a person has made of a call; None: they do not."""
        if self.guard.when is None:
            return None
        result = judged(self.guard.when, arguments)
        return result if result.verdict is RuleVerdict.REJECT else None
