"""One half of a run in a process of its own: `cold.py raw|runner start|finish FILE`."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


async def raw(what: str, path: str) -> None:
    import json
    import sqlite3

    from measured import Raw
    from workflows import Context
    from workflows.events import HumanResponseEvent, InputRequiredEvent

    workflow = Raw(timeout=None)
    db = sqlite3.connect(path)
    if what == "start":
        handler = workflow.run()
        async for event in handler.stream_events():
            if isinstance(event, InputRequiredEvent):
                break
        db.execute("CREATE TABLE runs (data TEXT)")
        db.execute("INSERT INTO runs VALUES (?)", (json.dumps(handler.ctx.to_dict()),))
        db.commit()
        await handler.cancel_run()
        return
    (data,) = db.execute("SELECT data FROM runs").fetchone()
    handler = workflow.run(ctx=Context.from_dict(workflow, json.loads(data)))
    handler.ctx.send_event(HumanResponseEvent(response="yes"))
    assert len(await handler) > 4000


async def runner(what: str, path: str) -> None:
    from measured import Gated

    from llama_index_hitl import Approve
    from llama_index_hitl.runner import Runner
    from llama_index_hitl.stores import SqlStore

    store = SqlStore(f"sqlite:///{path}")
    host = Runner(store, {"gated": Gated(timeout=None)})
    if what == "start":
        await host.start("gated")
    else:
        (record,) = await host.pending()
        await host.answer(record.request_id, Approve(), by="alice")
        run = await host.advance(record.request.run_id)
        assert len(await host.result(run.run_id)) > 4000
    await store.close()
    assert "llama_index.core" not in sys.modules


asyncio.run({"raw": raw, "runner": runner}[sys.argv[1]](sys.argv[2], sys.argv[3]))
