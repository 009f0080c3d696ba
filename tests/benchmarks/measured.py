"""The workflows that are measured, and the raw pattern that they are measured against."""

from workflows import Context, Workflow, step
from workflows.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent

from llama_index_hitl import Approved, Review, Revision

TEXT = "A draft of four kilobytes, as a person would read it. " * 76


class Draft(Event):
    text: str


class Raw(Workflow):
    """What a user writes without this package: one question, one answer, the draft in the state."""

    @step
    async def write(self, ctx: Context, ev: StartEvent) -> InputRequiredEvent:
        await ctx.store.set("draft", TEXT)
        return InputRequiredEvent(prefix=TEXT)

    @step
    async def publish(self, ctx: Context, ev: HumanResponseEvent) -> StopEvent:
        return StopEvent(result=await ctx.store.get("draft"))


class RawRevising(Workflow):
    """The raw pattern, asking again for every answer but "yes"."""

    @step
    async def write(self, ctx: Context, ev: StartEvent) -> InputRequiredEvent:
        await ctx.store.set("draft", TEXT)
        return InputRequiredEvent(prefix=TEXT)

    @step
    async def revise(self, ctx: Context, ev: HumanResponseEvent) -> InputRequiredEvent | StopEvent:
        if ev.response == "yes":
            return StopEvent(result=await ctx.store.get("draft"))
        await ctx.store.set("draft", TEXT)
        return InputRequiredEvent(prefix=TEXT)


class Gated(Workflow):
    """The same through a gate."""

    @step
    async def write(self, ev: StartEvent | Revision) -> Draft:
        return Draft(text=TEXT)

    approval = Review(Draft, revise=Revision)

    @step
    async def publish(self, ev: Approved) -> StopEvent:
        return StopEvent(result=ev.subject.text)
