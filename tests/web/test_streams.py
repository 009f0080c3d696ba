"""Server-Sent Events of a real server."""

from __future__ import annotations

from serving import by_header, serving
from talks import all_of, listening, runner_of, until

from llama_index_hitl import Approve
from llama_index_hitl.stores import MemoryStore
from llama_index_hitl.web import create_app


async def test_smoke():
    runner = runner_of(MemoryStore())
    app = create_app(runner, authenticate=by_header)
    run = await runner.start("essay", by="bob", topic="tides")
    async with serving(app) as url, listening(url, f"/api/runs/{run.run_id}/events") as events:
        first = await until(events, "input_required")
        print(*first, sep="\n")
        await runner.answer(first[-1].data["request_id"], Approve(), by="alice")
        app.state.site.worker.nudge(run.run_id)
        rest = await all_of(events)
        print(*rest, sep="\n")
    assert rest[-1].name == "final_result"
