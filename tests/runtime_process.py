"""A server in a process of its own, which answers what is open and then dies where it stands.

    python runtime_process.py KIND DIRECTORY [HANDLER_ID | METHOD]

Without a handler a run is started. Its open request is approved, and the process prints the handler
and the gate, and dies as soon as it has the receipt; if none comes up because the run is over, it
prints the result instead. With the name of a method of the runtime of DBOS in place of the handler,
a run is started and the process dies where that method is called.
"""

import asyncio
import os
import sys
from pathlib import Path

from flows import Draft, LegalApproved
from llama_agents.dbos.journal.lifecycle import SqliteRunLifecycleLock
from runtime_hosts import Served, dbos_server, serving, sqlite_server, until
from workflows import Workflow, step
from workflows.events import StartEvent, StopEvent

from llama_index_hitl import Approve, Approved, Review, ReviewRequestEvent
from llama_index_hitl.runtimes._upstream import layers_of
from llama_index_hitl.runtimes.server import ReviewServer


class Stages(Workflow):
    """Two gates, one after the other, and a log of what was done."""

    directory: Path

    def did(self, what: str) -> None:
        with (self.directory / "log.txt").open("a") as log:
            log.write(what + "\n")

    @step
    async def write(self, ev: StartEvent) -> Draft:
        self.did("write")
        return Draft(text="x")

    legal = Review(Draft, approved=LegalApproved)
    editor = Review(LegalApproved)

    @step
    async def publish(self, ev: Approved) -> StopEvent:
        self.did("publish")
        return StopEvent(result=ev.subject.text)


async def main(kind: str, directory: Path, argument: str | None) -> None:
    """Do one thing and die."""
    workflow = Stages(timeout=None)
    workflow.directory = directory
    server = {"server": sqlite_server, "dbos": dbos_server}[kind](directory)
    server.add_workflow("stages", workflow)
    async with serving(server) as client:
        handler_id = argument
        if argument is None or argument.startswith("_"):
            started = await client.post("/workflows/stages/run-nowait", json={})
            handler_id = started.json()["handler_id"]
        if handler_id != argument and argument is not None:
            _die_at(argument, server, handler_id)
            await asyncio.Event().wait()
        run = Served(server, client, handler_id)

        async def asked_or_over() -> list[ReviewRequestEvent] | str | None:
            found = await client.get(f"/handlers/{handler_id}/requests")
            requests = [
                ReviewRequestEvent(request=each["request"]) for each in found.json()["requests"]
            ]
            return requests or ((await run.handler()).status == "completed" and "over")

        found = await until(asked_or_over, "the run asks or is over")
        if found == "over":
            _die(handler_id, await run.result())
        (request,) = found
        response = await run.post(request.answer(Approve(), by="erin"))
        assert response.status_code == 200, response.text
        _die(handler_id, request.request.gate)


def _die_at(method: str, server: ReviewServer, handler_id: str) -> None:
    (runtime,) = [each for each in layers_of(server._runtime) if hasattr(each, "_spawn_task")]

    async def die(*arguments: object) -> None:
        _die(handler_id)

    if method == "_complete_release":
        SqliteRunLifecycleLock.complete_release = die
    else:
        setattr(runtime, method, die)


def _die(*last_words: str) -> None:
    sys.stdout.write(" ".join(last_words) + "\n")
    sys.stdout.flush()
    os._exit(9)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), *(sys.argv[3:4] or [None])))
