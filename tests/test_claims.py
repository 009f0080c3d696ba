"""Who is looking at a request: claims, their end, and what they leave on record."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from durable import kinds, only, runner_on

from llama_index_hitl import Approve, Reviewer
from llama_index_hitl.audit import verify
from llama_index_hitl.authorizers import Action
from llama_index_hitl.errors import (
    AlreadyClaimed,
    InvalidTransition,
    NotAllowed,
    UnknownRequest,
)
from llama_index_hitl.runner import Runner
from llama_index_hitl.stores.protocol import Claim, Store
from llama_index_hitl.testing import ManualClock

ALICE = Reviewer(id="alice", roles=("legal",))
BOB = Reviewer(id="bob", roles=("legal",))
QUARTER = timedelta(minutes=15)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def make(store: Store, clock: ManualClock) -> Callable[..., Runner]:
    """Each call is a new process as far as the package can tell."""
    return lambda **options: runner_on(store, clock=clock, **options)


async def staged(runner: Runner) -> tuple[str, str]:
    """Start a run that needs two lawyers; return its id, and that of its request."""
    run = await runner.start("staged")
    return run.run_id, (await only(runner, run.run_id)).request_id


async def claim_of(store: Store, request_id: str) -> Claim | None:
    found = await store.request(request_id)
    assert found is not None
    return found.claim


async def test_a_claim_keeps_others_from_claiming_and_is_renewed_by_its_owner(
    make: Any, store: Store, clock: ManualClock
) -> None:
    run_id, request_id = await staged(make())
    claim = await make().claim(request_id, by=ALICE)
    assert claim == Claim(by="alice", until=clock() + QUARTER)
    assert await claim_of(store, request_id) == claim

    with pytest.raises(AlreadyClaimed, match="alice") as caught:
        await make().claim(request_id, by=BOB)
    assert (caught.value.by, caught.value.until) == ("alice", claim.until)

    clock.advance(timedelta(minutes=10))
    renewed = await make().claim(request_id, by=ALICE, lease=timedelta(minutes=1))
    assert renewed.until == clock() + timedelta(minutes=1)
    rows = await make().history(run_id)
    assert kinds(rows).count("claimed") == 2
    entry = rows[-1].entry
    assert (entry.actor, entry.request_id) == ("alice", request_id)
    assert entry.details == {"until": renewed.until.isoformat()}
    assert not verify(rows)


async def test_a_claim_ends_at_its_instant_and_then_others_can_have_it(
    make: Any, store: Store, clock: ManualClock
) -> None:
    _, request_id = await staged(make())
    await make().claim(request_id, by=ALICE)
    clock.advance(QUARTER - timedelta(microseconds=1))
    with pytest.raises(AlreadyClaimed):
        await make().claim(request_id, by=BOB)
    clock.advance(timedelta(microseconds=1))
    await make().claim(request_id, by=BOB)
    with pytest.raises(AlreadyClaimed, match="bob"):
        await make().release(request_id, by=ALICE)
    found = await claim_of(store, request_id)
    assert found is not None
    assert found.by == "bob"


async def test_of_many_who_claim_at_once_one_gets_it(make: Any, store: Store) -> None:
    _, request_id = await staged(make())
    people = [Reviewer(id=f"p{number}", roles=("legal",)) for number in range(6)]
    got = await asyncio.gather(
        *(make().claim(request_id, by=person) for person in people), return_exceptions=True
    )
    (won,) = (claim for claim in got if isinstance(claim, Claim))
    lost = [error for error in got if isinstance(error, AlreadyClaimed)]
    assert len(lost) == 5
    assert {error.by for error in lost} == {won.by}
    assert await claim_of(store, request_id) == won


async def test_who_releases_makes_room_and_a_second_time_changes_nothing(
    make: Any, store: Store
) -> None:
    run_id, request_id = await staged(make())
    await make().release(request_id, by=ALICE)
    await make().claim(request_id, by=ALICE)
    await make().release(request_id, by=ALICE)
    await make().release(request_id, by=ALICE)
    assert await claim_of(store, request_id) is None
    assert kinds(await make().history(run_id)) == ["started", "opened", "claimed", "released"]
    await make().claim(request_id, by=BOB)


async def test_a_claim_binds_nobody_and_ends_with_the_request(make: Any, store: Store) -> None:
    run = await make().start("article")
    request_id = (await only(make(), run.run_id)).request_id
    await make().claim(request_id, by="alice")
    await make().answer(request_id, Approve(), by="bob")
    assert await claim_of(store, request_id) is None
    await make().advance(run.run_id)
    assert await make().result(run.run_id) == "About it."
    with pytest.raises(InvalidTransition, match="approved cannot be claimed"):
        await make().claim(request_id, by="alice")
    await make().release(request_id, by="alice")


async def test_a_vote_ends_the_claim_of_who_gave_it_and_no_other(make: Any, store: Store) -> None:
    run_id, request_id = await staged(make())
    claim = await make().claim(request_id, by=BOB)
    await make().answer(request_id, Approve(), by=ALICE)
    await make().advance(run_id)
    assert await claim_of(store, request_id) == claim

    other_run, other = await staged(make())
    await make().claim(other, by=ALICE)
    await make().answer(other, Approve(), by=ALICE)
    await make().advance(other_run)
    assert await claim_of(store, other) is None


async def test_time_that_passes_leaves_a_claim_until_the_request_expires(
    make: Any, store: Store, clock: ManualClock
) -> None:
    run = await make().start("laddered")
    request_id = (await only(make(), run.run_id)).request_id
    await make().claim(request_id, by="alice", lease=timedelta(days=9))
    clock.advance(timedelta(days=1))
    await make().sweep()
    await make().recover()
    assert await claim_of(store, request_id) is not None
    clock.advance(timedelta(days=1))
    await make().sweep()
    assert await claim_of(store, request_id) is None


@pytest.mark.parametrize("ending", ["withdraw", "cancel"])
async def test_no_closed_request_is_claimed(make: Any, store: Store, ending: str) -> None:
    run = await make().start("article")
    request_id = (await only(make(), run.run_id)).request_id
    await make().claim(request_id, by="alice")
    if ending == "withdraw":
        await make().withdraw(request_id, by="bob")
    else:
        await make().cancel(run.run_id, by="bob")
    assert await claim_of(store, request_id) is None


async def test_who_may_not_answer_may_not_claim(make: Any, store: Store) -> None:
    run_id, request_id = await staged(make())
    with pytest.raises(NotAllowed, match="role:legal"):
        await make().claim(request_id, by="mallory")
    await make().answer(request_id, Approve(), by=ALICE)
    with pytest.raises(NotAllowed, match="they have answered it"):
        await make().claim(request_id, by=ALICE)
    assert await claim_of(store, request_id) is None
    assert "claimed" not in kinds(await make().history(run_id))


async def test_the_authorizer_is_asked_and_says_who_it_is(make: Any, store: Store) -> None:
    class Doorkeeper:
        async def authorize(
            self, by: Reviewer, action: Action, *, run_id: str, request: Any
        ) -> Reviewer:
            asked.append((by.id, action))
            if by.id == "mallory":
                raise NotAllowed(request.request_id, by=by.id, reason="nobody knows them")
            return by.model_copy(update={"roles": ("legal",)})

    asked: list[tuple[str, Action]] = []
    _, request_id = await staged(make())
    runner = make(authorizer=Doorkeeper())
    with pytest.raises(NotAllowed, match="nobody knows them"):
        await runner.claim(request_id, by="mallory")
    await runner.claim(request_id, by="alice")
    with pytest.raises(NotAllowed, match="nobody knows them"):
        await runner.release(request_id, by="mallory")
    await runner.release(request_id, by="alice")
    assert asked == [(name, Action.CLAIM) for name in ("mallory", "alice", "mallory", "alice")]


async def test_what_is_not_there_is_not_claimed(make: Any) -> None:
    with pytest.raises(UnknownRequest):
        await make().claim("nothing", by="alice")
    with pytest.raises(UnknownRequest):
        await make().release("nothing", by="alice")
    _, request_id = await staged(make())
    with pytest.raises(ValueError, match="longer than"):
        await make().claim(request_id, by=ALICE, lease=timedelta(0))
