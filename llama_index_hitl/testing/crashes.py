"""Processes that are killed: to test that nothing is lost, and nothing is done twice.

    async def approve(store):                     # in my_scenarios.py
        runner = Runner(store, {"article": ArticleFlow()})
        ...

    with CrashLab() as lab:
        played = await lab.play("my_scenarios:approve", url)               # to its end
        for number in range(len(played.points)):
            await lab.play("my_scenarios:approve", url, die="before", skip=number)
            ...                                   # start anew, recover, and look

A scenario is an async function of a `Store`. Each time it is played in a process of its own, which
dies by SIGKILL: no `finally` runs, no transaction is closed. One process that has imported
everything is forked for each, so that a play costs milliseconds. Not for Windows.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import subprocess
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, NoReturn, Self, TypeAlias, cast

from llama_index_hitl.stores.protocol import Store
from llama_index_hitl.testing.faults import REACHED, FaultyStore, Point, When, die

if TYPE_CHECKING:
    from llama_index_hitl.stores import SqlStore

Scenario: TypeAlias = Callable[..., Awaitable[Any]]
"""An async function of a `Store` and further text; what it returns must be JSON."""

_KILLED = -9


@dataclass(frozen=True)
class Played:
    """How a scenario went.

    Attributes:
        killed: Whether the process was killed; if not, the scenario came to its end.
        points: The commits and places that it came to, in order; it was killed at the last one.
        result: What it returned; None if it was killed.

    Example:
        >>> played = Played(killed=True, points=("start", "park"))
        >>> played.points[-1]  # where it was killed
        'park'
    """

    killed: bool
    points: tuple[str, ...]
    result: Any = None


class CrashLab:
    """Plays scenarios, each in a process of its own, and kills them.

    It is a process that waits, from entering the `with` block to leaving it, and plays one scenario
    at a time; for two at once, take two.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "llama_index_hitl.testing.crashes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        return self

    def __exit__(self, *exception: object) -> None:
        with self._process:  # closes its input, which ends it, and waits
            pass

    async def play(
        self,
        scenario: str,
        store: str | os.PathLike[str],
        *arguments: str | os.PathLike[str],
        die: When | None = None,
        at: Point | str | None = None,
        skip: int = 0,
    ) -> Played:
        """Play a scenario in a process of its own.

        Args:
            scenario: `module:function`.
            store: URL of the `SqlStore` to play it on, or path of its SQLite file.
            *arguments: What the function takes besides the store; a path comes as text there.
            die: Kill the process, `before` a commit or `after` it; None: let it come to its end.
            at: Where: a point, or a place that code names with `reach`; None: at every commit.
            skip: How many times it goes well there first.

        Returns:
            How it went.

        Raises:
            RuntimeError: It failed in another way; its output is in the message.
        """
        job = {
            "scenario": scenario,
            "store": os.fspath(store),
            "arguments": [os.fspath(argument) for argument in arguments],
            "die": die,
            "at": None if at is None else str(at),
            "skip": skip,
        }
        reply = await asyncio.to_thread(self._reply_to, json.dumps(job))
        if reply["exit"] not in (0, _KILLED):
            raise RuntimeError(f"{scenario} ended with {reply['exit']}:\n{reply['output']}")
        said = [json.loads(line) for line in reply["report"].splitlines()]
        return Played(
            killed=reply["exit"] == _KILLED,
            points=tuple(line["point"] for line in said if "point" in line),
            result=next((line["result"] for line in said if "result" in line), None),
        )

    def _reply_to(self, job: str) -> Any:
        to, back = cast("IO[str]", self._process.stdin), cast("IO[str]", self._process.stdout)
        with self._lock:
            to.write(job + "\n")
            to.flush()
            reply = back.readline()
        if not reply:
            raise RuntimeError(f"The process that plays scenarios is gone: {self._process.wait()}")
        return json.loads(reply)


# --------------------------------------------------------------------------- the other process


def _serve() -> None:
    # What answers are checked with: beside Jupyter it takes seconds to import, in each child anew.
    importlib.import_module("jsonschema")
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_done(json.loads(line))) + "\n")
        sys.stdout.flush()


def _done(job: dict[str, Any]) -> dict[str, Any]:
    from llama_index_hitl.stores import SqlStore

    try:
        # Here, so that they and the database's driver are imported once; nothing is opened yet.
        scenario, store = _scenario(job["scenario"]), SqlStore(job["store"])
    except Exception:  # noqa: BLE001 - whatever it is, whoever has asked is told
        return {"exit": 1, "output": traceback.format_exc(), "report": ""}
    gc.collect()
    gc.freeze()  # else the collector of each child would copy everything there is
    with TemporaryFile() as output, TemporaryFile() as report:
        child = os.fork()
        if child == 0:
            _child(scenario, store, job, output.fileno(), report.fileno())
        _, status = os.waitpid(child, 0)
        return {
            "exit": os.waitstatus_to_exitcode(status),
            "output": _text_of(output),
            "report": _text_of(report),
        }


def _scenario(name: str) -> Scenario:
    module, _, function = name.partition(":")
    return cast("Scenario", getattr(importlib.import_module(module), function))


def _text_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _child(
    scenario: Scenario, store: SqlStore, job: dict[str, Any], output: int, report: int
) -> NoReturn:
    for stream in (1, 2):
        os.dup2(output, stream)

    def tell(**said: Any) -> None:
        # Written at once: what was said before the end is there after it.
        os.write(report, json.dumps(said).encode() + b"\n")

    code = 1
    try:
        tell(result=asyncio.run(_play(scenario, store, job, lambda point: tell(point=point))))
        code = 0
    except BaseException:  # noqa: BLE001 - nothing may come back into the process that waits
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


async def _play(
    scenario: Scenario, store: SqlStore, job: dict[str, Any], tell: Callable[[str], None]
) -> Any:
    at, when, skip = job["at"], job["die"], job["skip"]
    at_commit = when is not None and (at is None or at in set(Point))
    at_place = at if when is not None and not at_commit else None
    count = Counter[str]()

    def reached(place: str) -> None:
        tell(place)
        count[place] += 1
        if place == at_place and count[place] > skip:
            die()

    REACHED.set(reached)
    faulty = FaultyStore(
        store,
        at=at if at_commit else None,
        when=when or "before",
        skip=skip,
        times=1 if at_commit else 0,
        die=True,
        watch=tell,
    )
    result = await scenario(cast("Store", faulty), *job["arguments"])
    await store.close()
    return result


if __name__ == "__main__":
    _serve()
