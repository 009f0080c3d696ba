"""Ready workflow: models talk about something, and a person takes part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from workflows import Context, step
from workflows.events import Event, StartEvent, StopEvent

from llama_index_hitl.errors import GateError
from llama_index_hitl.events import Expired, Rejected, Responded
from llama_index_hitl.gates import Review
from llama_index_hitl.models import Answer, Evidence
from llama_index_hitl.prebuilt._base import ReviewWorkflow, decisions_in, one_line, reviewers_of


class Message(BaseModel):
    """What somebody has said.

    Attributes:
        speaker: Name of the participant, or id of the person.
        text: Their words.
        human: Whether a person said it; only the workflow says so, whatever the words claim.
    """

    model_config = ConfigDict(frozen=True)

    speaker: str
    text: str
    human: bool = False


class Turn(BaseModel):
    """What a person does when it is their turn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Literal["speak", "pass", "end"] = Field(
        description="Say something, let the others go on, or end the conversation."
    )
    text: str = Field(
        default="", description="What to say.", json_schema_extra={"format": "textarea"}
    )

    @model_validator(mode="after")
    def _has_words_to_speak(self) -> Self:
        if self.action == "speak" and not self.text.strip():
            raise ValueError("say something, or pass")
        if self.action == "pass" and self.text.strip():
            raise ValueError("whoever passes says nothing; speak, or leave the text empty")
        return self


class Floor(BaseModel):
    """Where the conversation stands.

    Attributes:
        topic: What it is about.
        round: How many rounds there have been, from 1.
        rounds: How many there will be at most.
    """

    topic: str
    round: int
    rounds: int


class ChatStart(StartEvent):
    """Starts a conversation.

    Its field is what `run` takes, as in the example of `GroupChat`.

    Attributes:
        topic: What to talk about.
    """

    topic: str


class RoundSpoken(Event):
    """Every participant has spoken; it is the person's turn.

    Attributes:
        floor: Where the conversation stands.
        transcript: All that was said.
        decisions: Every answer so far.
    """

    floor: Floor
    transcript: tuple[Message, ...]
    decisions: tuple[Answer, ...] = ()


class TurnTaken(Responded):
    """The person has taken their turn.

    Attributes:
        response: What they do.
    """

    response: Turn


class ChatEnd(StrEnum):
    """Why a conversation ended."""

    PERSON = "person"
    """The person ended it."""
    ROUNDS = "rounds"
    """There were no more rounds."""


class ChatResult(StopEvent):
    """How it ended. Nothing in it is an approval of anything.

    The example of `GroupChat` reads one.

    Attributes:
        ended_by: The `person` ended it, or there were no more `rounds`.
        rounds: How many rounds there were.
        transcript: All that was said, in order.
        summary: What came out of it.
        decisions: Every answer, in order; a turn that passed by silence has none.
    """

    ended_by: ChatEnd
    rounds: int
    transcript: tuple[Message, ...]
    summary: str
    decisions: tuple[Answer, ...] = ()


class GroupChat(ReviewWorkflow):
    """Rounds of a conversation: every participant speaks, then a person may speak, pass or end it.

    A turn that the person does not take in time counts as passing, and as nothing else.

    `run` takes the fields of `ChatStart`.

    Override `speak`, for agents of your own say, `summarize`, the prompts, `participants`, or the
    gate `turn`.

    Args:
        participants: The models that take part: their names, and what each is to do.
        max_rounds: How many rounds there are at most, from 1.
        turn_deadline: How long the others wait for the person in each round; None: as long as it
            takes.
        **options: What `ReviewWorkflow` takes; `reviewers` may take the person's turn.

    Raises:
        GateError: Nobody takes part, or there is no round.

    Example:
        >>> from llama_index_hitl.testing import ScriptedLLM, ScriptedReviewer, review_with
        >>> async def main():
        ...     llm = ScriptedLLM(["Shorter!", "Longer!", "They disagreed."])
        ...     flow = GroupChat(llm=llm, participants={"ann": "Be brief.", "ben": "Be thorough."})
        ...     turn = Turn(action="end", text="Thank you both.")
        ...     erin = ScriptedReviewer([Respond(response=turn)], by="erin")
        ...     return await review_with(flow.run(topic="How long should it be?"), erin)
        >>> result = asyncio.run(main())
        >>> result.transcript[-1] == Message(speaker="erin", text="Thank you both.", human=True)
        True
        >>> result.ended_by.value, result.summary
        ('person', 'They disagreed.')
    """

    participants: Mapping[str, str] = {}
    max_rounds: int = 3
    speak_prompt = (
        "You are {name} in a conversation. {instructions}\n\nTopic: {topic}\n\n"
        "So far:\n{transcript}\n\nSay what you have to say now, as {name} and nobody else."
    )
    summary_prompt = (
        "Summarize this conversation, and what it has come to.\n\nTopic: {topic}\n\n{transcript}"
    )

    turn = Review(
        RoundSpoken,
        subject="floor",
        title=lambda _, ev: f"Your turn: {one_line(ev.floor.topic)}",
        body=lambda _, ev: f"Round {ev.floor.round} of at most {ev.floor.rounds}.",
        evidence=lambda _, ev: [Evidence(title=m.speaker, body=m.text) for m in ev.transcript],
        reviewers=reviewers_of,
        deadline=lambda flow, _: flow.turn_deadline,
        response=Turn,
        responded=TurnTaken,
        rejected=Rejected,
        expired=Expired,
    )

    def __init__(
        self,
        *,
        participants: Mapping[str, str] | None = None,
        max_rounds: int | None = None,
        turn_deadline: timedelta | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.turn_deadline = turn_deadline
        if participants is not None:
            self.participants = dict(participants)
        if max_rounds is not None:
            self.max_rounds = max_rounds
        if not self.participants or self.max_rounds < 1:
            raise GateError(f"{type(self).__name__} needs participants=, and max_rounds= from 1.")

    async def speak(self, name: str, topic: str, transcript: Sequence[Message]) -> str:
        """Return what a participant says next.

        Args:
            name: Name of the participant.
            topic: What the conversation is about.
            transcript: All that was said so far.
        """
        prompt = self.filled(
            self.speak_prompt,
            name=name,
            instructions=self.participants[name],
            topic=topic,
            transcript=written(transcript) or "nothing",
        )
        return await self.complete(prompt)

    async def summarize(self, topic: str, transcript: Sequence[Message]) -> str:
        """Return what came out of the conversation.

        Args:
            topic: What the conversation was about.
            transcript: All that was said.
        """
        prompt = self.filled(self.summary_prompt, topic=topic, transcript=written(transcript))
        return await self.complete(prompt)

    @step
    async def open(self, ctx: Context, ev: ChatStart) -> RoundSpoken:
        """Let everybody speak for the first time."""
        floor = Floor(topic=ev.topic, round=1, rounds=self.max_rounds)
        return await self._round(ctx, RoundSpoken(floor=floor, transcript=()))

    @step
    async def go_on(
        self, ctx: Context, ev: TurnTaken | Expired | Rejected
    ) -> RoundSpoken | ChatResult:
        """Note what the person has said, if anything, and begin the next round, or end."""
        last, transcript = ev.proposal, list(ev.proposal.transcript)
        turn = ev.response if isinstance(ev, TurnTaken) else Turn(action="pass")
        if turn.text.strip():
            speaker = ev.answers[-1].by.id
            transcript.append(Message(speaker=speaker, text=turn.text, human=True))
        decided = decisions_in(ev)
        floor = last.floor
        if turn.action == "end" or floor.round >= floor.rounds:
            self.tell(ctx, "Summarizing the conversation")
            return ChatResult(
                ended_by=ChatEnd.PERSON if turn.action == "end" else ChatEnd.ROUNDS,
                rounds=floor.round,
                transcript=tuple(transcript),
                summary=await self.summarize(floor.topic, transcript),
                decisions=decided,
            )
        floor = floor.model_copy(update={"round": floor.round + 1})
        after = RoundSpoken(floor=floor, transcript=tuple(transcript), decisions=decided)
        return await self._round(ctx, after)

    async def _round(self, ctx: Context, before: RoundSpoken) -> RoundSpoken:
        transcript = list(before.transcript)
        for name in self.participants:
            self.tell(ctx, f"{name} speaks")
            text = await self.speak(name, before.floor.topic, tuple(transcript))
            transcript.append(Message(speaker=name, text=text))
        return RoundSpoken(
            floor=before.floor, transcript=tuple(transcript), decisions=before.decisions
        )


def written(transcript: Sequence[Message]) -> str:
    """Return a conversation as text; nobody can write a line that another one seems to say."""
    lines = (
        f"[{'person' if message.human else 'participant'} {one_line(message.speaker)}] "
        + "\n    ".join(message.text.splitlines())
        for message in transcript
    )
    return "\n".join(lines)
