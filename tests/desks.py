"""Means to keep runs in a store, and to go on with them as another process would."""

from datetime import UTC, datetime

from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import SqlStore
from llama_index_hitl.stores.protocol import RunStatus
from llama_index_hitl.testing import ManualClock, ScriptedReviewer

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)  # a Monday


def person(*script, by="erin", **options):
    return ScriptedReviewer(script, by=by, **options)


def made(result):
    """Say who decided what, in order."""
    return [(answer.by.id, answer.decision.kind) for answer in result.decisions]


class Desk:
    """One run in SQLite: each time it is used, by a new runner with a new workflow.

    `make` makes the workflow, and is given the clock.
    """

    def __init__(self, path, make):
        self.clock = ManualClock(NOON)
        self._path = path / "hitl.db"
        self._make = make
        self.run_id = ""

    async def _with(self, act):
        store = SqlStore(self._path)
        try:
            runner = Runner(store, {"flow": self._make(self.clock)}, clock=self.clock)
            return await act(runner)
        finally:
            await store.close()

    async def start(self, **inputs):
        """Start the run and return its one open request; None: it is over."""

        async def act(runner):
            self.run_id = (await runner.start("flow", inputs=inputs)).run_id

        await self._with(act)
        return await self.open()

    async def open(self):
        async def act(runner):
            return await runner.pending(run_id=self.run_id)

        records = list(await self._with(act))
        assert len(records) <= 1
        return records[0].request if records else None

    async def answer(self, decision, by="erin"):
        """Answer the open request and go on; return the next one, if there is one."""
        request = await self.open()

        async def take(runner):
            await runner.answer(request.request_id, decision, by=by, digest=request.digest)

        async def advance(runner):
            return await runner.advance(self.run_id)

        await self._with(take)
        run = await self._with(advance)
        assert run.status is not RunStatus.FAILED, run.error
        return await self.open()

    async def after(self, **duration):
        """Let time pass, do what is due, and return the request that is open then."""
        self.clock.advance(**duration)

        async def act(runner):
            await runner.sweep()
            await runner.recover()

        await self._with(act)
        return await self.open()

    async def result(self):
        async def act(runner):
            return await runner.result(self.run_id)

        return await self._with(act)

    async def effects(self):
        """Return what the audit says of effects: their keys, and what happened to them."""

        async def act(runner):
            rows = [row.entry for row in await runner.history(self.run_id)]
            found = [row for row in rows if row.kind.startswith("effect")]
            return [(row.details["effect"], str(row.kind)) for row in found]

        return await self._with(act)
