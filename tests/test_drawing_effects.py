"""What is drawn of effects: what was done, and not which process did it."""

from workflows import Workflow, step
from workflows.events import Event, StartEvent, StopEvent

from llama_index_hitl import Approve, Approved, Review
from llama_index_hitl.drawing import draw_run
from llama_index_hitl.effects import once
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import MemoryStore
from llama_index_hitl.testing import ManualClock


class Letter(Event):
    text: str = "Dear all"


class Mailing(Workflow):
    @step
    async def write(self, ev: StartEvent) -> Letter:
        return Letter()

    letter = Review(Letter)

    @step
    async def send(self, ev: Approved) -> StopEvent:
        await once(ev.effect_key, lambda: 40, note=lambda count: f"sent to {count} people")
        await once(f"{ev.effect_key}:log", lambda: None)
        return StopEvent()


async def test_the_picture_says_what_was_done_and_not_by_which_process() -> None:
    runner = Runner(MemoryStore(), {"mail": Mailing(timeout=None)}, clock=ManualClock())
    await runner.start("mail", run_id="a")
    (asked,) = await runner.pending()
    await runner.answer(asked.request_id, Approve(), by="ann")
    await runner.advance("a")
    done = [row.entry for row in await runner.history("a") if row.entry.kind == "effect_done"]

    picture = (await draw_run(runner, "a")).svg

    assert "sent to 40 people" in picture
    assert picture.count("Done, once") == len(done) == 2
    assert not [entry.actor for entry in done if entry.actor in picture]
    assert ">done<" not in picture
