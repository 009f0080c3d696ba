"""A workflow whose runs are followed live; quick to import, for processes of their own."""

from __future__ import annotations

from typing import ClassVar

from workflows import Context, Workflow, step
from workflows.events import Event, StartEvent, StopEvent

from llama_index_hitl import Approved, Rejected, Review, Revision


class Saying(Event):
    message: str


class Word(Event):
    delta: str


class Draft(Event):
    topic: str
    text: str


class Topic(StartEvent):
    topic: str


class Essay(Workflow):
    """Says what it does, writes word by word, and asks until it is good enough."""

    fails: ClassVar[bool] = False

    @step
    async def write(self, ctx: Context, ev: Topic) -> Draft:
        ctx.write_event_to_stream(Saying(message=f"Writing about {ev.topic}"))
        for word in ("Once ", "upon ", "a time"):
            ctx.write_event_to_stream(Word(delta=word))
        return Draft(topic=ev.topic, text=f"On {ev.topic}.")

    @step
    async def rewrite(self, ctx: Context, ev: Revision) -> Draft:
        ctx.write_event_to_stream(Saying(message=f"Rewriting: {ev.feedback}"))
        return Draft(topic=ev.subject.topic, text=f"{ev.subject.text} {ev.feedback}")

    approval = Review(
        Draft, reviewers=["alice", "role:editor"], revise=Revision, rejected=Rejected, editable=True
    )

    @step
    async def publish(self, ctx: Context, ev: Approved | Rejected) -> StopEvent:
        if type(self).fails:
            raise ConnectionError("the printer is out of ink")
        ctx.write_event_to_stream(Saying(message="Publishing"))
        text = ev.subject.text if isinstance(ev, Approved) else "nothing"
        return StopEvent(result={"published": text})
