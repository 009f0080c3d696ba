"""Effects that happen once: from "approved" to "done" one time, whatever is killed in between.

    @step
    async def pay(self, ev: Approved) -> StopEvent:
        receipt = await once(ev.effect_key, lambda: bank.pay(ev.subject))

Whoever begins an effect writes that down first, and writes down its result after. What is done is
not done again; what was begun and never finished is in doubt, for nobody can know whether it
happened, and you say what follows.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from copy import copy
from dataclasses import replace
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar, cast

from workflows import Context
from workflows.context.serializers import JsonSerializer

from llama_index_hitl import _entries
from llama_index_hitl._heard import within
from llama_index_hitl._upstream import state_of_run
from llama_index_hitl.audit import AuditKind
from llama_index_hitl.clock import Clock, utc_now
from llama_index_hitl.errors import Conflict, EffectInDoubt
from llama_index_hitl.models import RequestStatus
from llama_index_hitl.questions import Question, ask
from llama_index_hitl.stores.protocol import Commit, Effect, Store

T = TypeVar("T")

OnDoubt: TypeAlias = Literal["fail", "repeat", "skip", "ask"]
"""What to do about an effect that was begun and never finished; see `once`."""


class EffectLedger:
    """What one runner, at work on one run, knows of the effects in it.

    A runner makes one and `once` finds it: the example of `once` shows what it is for.

    Args:
        store: Where effects are written down.
        run_id: The run.
        owner: Who is at work on it; another owner's unfinished effect is in doubt.
        serializer: Writes and reads results.
        clock: Where the time comes from.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        *,
        owner: str,
        serializer: JsonSerializer,
        clock: Clock = utc_now,
    ) -> None:
        self._store = store
        self._run_id = run_id
        self._owner = owner
        self._serializer = serializer
        self._clock = clock
        self._under_way: dict[str, asyncio.Future[Any]] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let `once` find this ledger in the steps of a run that is started in the block."""
        token = _LEDGER.set(self)
        try:
            yield
        finally:
            _LEDGER.reset(token)

    def written_with(self, serializer: JsonSerializer) -> EffectLedger:
        """Return the same ledger, with results written and read by another serializer.

        Args:
            serializer: The serializer.
        """
        same = copy(self)
        same._serializer = serializer  # noqa: SLF001 - one of its own class
        return same

    async def once(
        self,
        key: str,
        effect: Callable[[], Any],
        *,
        on_doubt: OnDoubt,
        ctx: Context[Any] | None,
        question: Question | None,
        not_done: tuple[type[BaseException], ...],
        note: Callable[[Any], str],
    ) -> Any:
        """Do an effect that is not done; see the function `once`.

        Args:
            key: As for the function.
            effect: As for the function.
            on_doubt: As for the function.
            ctx: As for the function.
            question: As for the function.
            not_done: As for the function.
            note: As for the function.

        Returns:
            What it gave, now or the first time.
        """
        if key in self._under_way:
            return await asyncio.shield(self._under_way[key])
        # Put there before anything is awaited: another step may come while the store is asked.
        under_way: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._under_way[key] = under_way
        try:
            result = await self._once(key, effect, on_doubt, ctx, question, not_done, note)
        except BaseException as error:
            cut_off = isinstance(error, asyncio.CancelledError)
            # The other step is not cancelled; upstream would take it for a step without an end.
            under_way.set_exception(
                EffectInDoubt(key, owner=self._owner, at=self._clock()) if cut_off else error
            )
            under_way.exception()  # whoever waits for it sees it; nobody has to
            raise
        else:
            under_way.set_result(result)
            return result
        finally:
            del self._under_way[key]

    async def _once(
        self,
        key: str,
        effect: Callable[[], Any],
        on_doubt: OnDoubt,
        ctx: Context[Any] | None,
        question: Question | None,
        not_done: tuple[type[BaseException], ...],
        note: Callable[[Any], str],
    ) -> Any:
        found = await self._store.effect(key)
        if found is not None and found.run_id != self._run_id:
            raise ValueError(
                f"The effect {key!r} belongs to run {found.run_id}; a key must be unique over all "
                "runs. Build it from event.effect_key."
            )
        if found is not None and found.status == "done":
            return self._read(found)
        in_doubt = found if found is not None and found.status == "begun" else None
        if in_doubt is not None and not await self._repeat(in_doubt, on_doubt, ctx, question):
            await self._write(replace(in_doubt, status="done", at=self._clock()), "settled")
            return None
        if in_doubt is not None and on_doubt == "repeat":
            not_done = ()  # they tell of the repetition, and nothing of the attempt before it
        return await self._do(key, effect, found, not_done, note)

    async def _do(
        self,
        key: str,
        effect: Callable[[], Any],
        found: Effect | None,
        not_done: tuple[type[BaseException], ...],
        note: Callable[[Any], str],
    ) -> Any:
        begun = await self._begin(
            Effect(
                key=key,
                run_id=self._run_id,
                status="begun",
                owner=self._owner,
                at=self._clock(),
                revision=0 if found is None else found.revision,
            )
        )
        repeated = found is not None and found.status == "begun"
        try:
            result = await _within(_Current(key, repeated=repeated), effect)
        except not_done:
            await self._write(replace(begun, status="undone", at=self._clock()), "settled")
            raise
        done = replace(begun, status="done", at=self._clock(), result=self._written(result))
        await self._write(done, "done", note(result))
        return result

    async def _begin(self, begun: Effect) -> Effect:
        try:
            return await self._write(begun, "begun")
        except Conflict:
            other = await self._store.effect(begun.key)
            if other is None:
                raise
            raise EffectInDoubt(begun.key, owner=other.owner, at=other.at) from None

    async def _repeat(
        self,
        found: Effect,
        on_doubt: OnDoubt,
        ctx: Context[Any] | None,
        question: Question | None,
    ) -> bool:
        """Say whether to do an effect that is in doubt once more."""
        if on_doubt in ("repeat", "skip"):
            return on_doubt == "repeat"
        if on_doubt == "ask" and ctx is not None:
            # Each attempt is in doubt by itself: a yes to the last one must not repeat this one.
            key = f"effect:{found.key}:{found.revision}"
            said = await ask(ctx, _doubt(found, question), key=key)
            return said.record.status is RequestStatus.APPROVED
        await self._store.commit(
            Commit(
                audit=(
                    _entries.effect_event(
                        AuditKind.EFFECT_IN_DOUBT,
                        self._run_id,
                        found.key,
                        self._clock(),
                        actor=found.owner,
                        reason=f"begun at {found.at.isoformat()} and never finished",
                    ),
                )
            )
        )
        raise EffectInDoubt(found.key, owner=found.owner, at=found.at)

    async def _write(
        self, effect: Effect, what: Literal["begun", "done", "settled"], note: str = ""
    ) -> Effect:
        kind = {
            "begun": AuditKind.EFFECT_BEGUN,
            "done": AuditKind.EFFECT_DONE,
            "settled": AuditKind.EFFECT_SETTLED,
        }[what]
        entry = _entries.effect_event(
            kind,
            self._run_id,
            effect.key,
            effect.at,
            actor=self._owner,
            reason=note or effect.status,
        )
        await self._store.commit(Commit(effects=(effect,), audit=(entry,)))
        return replace(effect, revision=effect.revision + 1)

    def _written(self, result: Any) -> bytes:
        return self._serializer.serialize(result).encode()

    def _read(self, effect: Effect) -> Any:
        if effect.result is None:
            return None
        return self._serializer.deserialize(effect.result.decode())


_LEDGER: ContextVar[EffectLedger | _InProcess | None] = ContextVar(
    "llama_index_hitl_effects", default=None
)


@contextmanager
def sharing_effects(serializer: JsonSerializer) -> Iterator[None]:
    """Let a run that a step starts in the block have the ledger of the step's own run.

    `run_child` does this; the example of `run_child` shows such a run.

    Args:
        serializer: That of the inner run: what its effects give may be of its own types.
    """
    ledger = _LEDGER.get()
    if isinstance(ledger, EffectLedger):
        ledger = ledger.written_with(serializer)
    token = _LEDGER.set(ledger or state_of_run(_InProcess))
    try:
        yield
    finally:
        _LEDGER.reset(token)


async def once(
    key: str,
    effect: Callable[[], Awaitable[T] | T],
    *,
    on_doubt: OnDoubt = "fail",
    ctx: Context[Any] | None = None,
    question: Question | None = None,
    not_done: tuple[type[BaseException], ...] = (),
    note: Callable[[T], str] = lambda _: "",
) -> T:
    """Do something that must happen once, and return what it gave, now or the first time.

    In a run that a `Runner` drives, the ledger of effects is in the runner's store and survives
    every crash. In any other run it lives as long as the run does in this process.

    Args:
        key: Stable and unique: `event.effect_key` of what was approved, with a suffix where there
            are several effects (`f"{event.effect_key}:mail"`).
        effect: Does it; plain or async. A plain one must be quick, it holds up the event loop.
        on_doubt: What to do about an effect that was begun and never finished: `fail` the run with
            `EffectInDoubt`, so that somebody finds out and settles it; `repeat` it, where that does
            no harm; `skip` it; or `ask` a person, who approves to repeat it and rejects to skip it.
        ctx: Context of the step; needed to ask.
        question: What to ask, of whom, about an effect that is in doubt; what happened to it and
            how to decide is added to its body. None: anybody whom the channel lets in, about `key`.
        not_done: Errors of `effect` that say for certain that it has not happened, such as a
            refused connection. Any other error leaves it in doubt, and so does any error where
            it is repeated: the attempt before may have happened.
        note: What the audit trail shall say about the result, as a sentence; empty: that it is
            done.

    Returns:
        What `effect` returned, which must survive being stored; None if it was skipped.

    Raises:
        EffectInDoubt: It was begun before and never finished, and `on_doubt` is `fail`.
        ValueError: `on_doubt` is `ask` and there is no `ctx`.
        UnserializableState: The result cannot be stored. The effect has happened, and is in doubt.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.testing import ScriptedReviewer, review_with
        >>> async def pay():
        ...     print("paying")
        ...     return "receipt 7"
        >>> class Paying(DraftApproval):
        ...     async def execute(self, draft, effect_key):
        ...         for _ in range(2):  # as in a step that is run again
        ...             print(await once(effect_key, pay))
        >>> async def main():
        ...     erin = ScriptedReviewer([Approve()], by="erin")
        ...     await review_with(Paying().run(topic="bill", content="40 to Alice"), erin)
        >>> asyncio.run(main())
        paying
        receipt 7
        receipt 7
    """
    if on_doubt == "ask" and ctx is None:
        raise ValueError("once(on_doubt='ask') needs ctx=, the context of the step.")
    ledger = _LEDGER.get() or state_of_run(_InProcess)
    result = await ledger.once(
        key,
        effect,
        on_doubt=on_doubt,
        ctx=ctx,
        question=question,
        not_done=not_done,
        note=note,
    )
    return cast("T", result)


class _Current(NamedTuple):
    """The effect that code is part of."""

    key: str
    repeated: bool


_CURRENT: ContextVar[_Current | None] = ContextVar("llama_index_hitl_effect", default=None)


def effect_key() -> str:
    """Return the key of the effect that this code is part of: the same in every retry and process.

    For code that is called by `once` and was not told the key, such as the function of a guarded
    tool: handed on to a service that does the same key only once, it makes a repetition harmless.

    Raises:
        LookupError: This code is not part of an effect.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.testing import ScriptedReviewer, review_with
        >>> class Paying(DraftApproval):
        ...     async def execute(self, draft, key):
        ...         print(await once(key, lambda: effect_key() == key))  # for the bank's own check
        >>> async def main():
        ...     erin = ScriptedReviewer([Approve()], by="erin")
        ...     await review_with(Paying().run(topic="bill", content="40 to Alice"), erin)
        >>> asyncio.run(main())
        True
    """
    return _current("effect_key").key


def effect_is_repeated() -> bool:
    """Tell whether the effect that this code is part of was begun before and never finished.

    If so it may have happened already, and what it was to change may have been changed by it. What
    was settled as not done, by a person or by an error of `not_done`, is no repetition. In a run
    that no runner drives nothing is, for its effects are not known after a crash.

    Raises:
        LookupError: This code is not part of an effect.

    Example:
        >>> from llama_index_hitl.prebuilt import DraftApproval
        >>> from llama_index_hitl.testing import ScriptedReviewer, review_with
        >>> class Paying(DraftApproval):
        ...     async def execute(self, draft, key):
        ...         print(await once(key, effect_is_repeated, on_doubt="repeat"))
        >>> async def main():
        ...     erin = ScriptedReviewer([Approve()], by="erin")
        ...     await review_with(Paying().run(topic="bill", content="40 to Alice"), erin)
        >>> asyncio.run(main())
        False
    """
    return _current("effect_is_repeated").repeated


def _current(asked: str) -> _Current:
    current = _CURRENT.get()
    if current is None:
        raise LookupError(f"{asked}() is for code that is called by once(), or a guarded tool.")
    return current


async def _within(current: _Current, effect: Callable[[], Any]) -> Any:
    token = _CURRENT.set(current)
    try:
        with ExitStack() as asked:
            # What is asked in an effect is left out when the effect is done, and must not count
            # for what the step asks beside it. Outside of a step nothing can be asked.
            with suppress(LookupError):
                asked.enter_context(within(current.key))
            return await _called(effect)
    finally:
        _CURRENT.reset(token)


class _InProcess:
    """The effects of a run that no runner drives."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Future[Any]] = {}

    async def once(self, key: str, effect: Callable[[], Any], **_: Any) -> Any:
        if key not in self._under_way:
            self._under_way[key] = asyncio.ensure_future(
                _within(_Current(key, repeated=False), effect)
            )
        future = self._under_way[key]
        try:
            return await asyncio.shield(future)
        finally:
            # Whoever waits may be cancelled, by a time limit say, while the effect goes on.
            if future.done() and (future.cancelled() or future.exception() is not None):
                self._under_way.pop(key, None)


async def _called(effect: Callable[[], Any]) -> Any:
    result = effect()
    return await result if inspect.isawaitable(result) else result


def _doubt(effect: Effect, question: Question | None) -> Question:
    asked = question or Question(title=f"May {effect.key} be done again?")
    happened = (
        f"It was begun at {effect.at.isoformat()} by {effect.owner} and never finished: it may or "
        "may not have happened. Find out first.\n\nApprove to do it again, reject to go on as if "
        "it had happened."
    )
    return replace(
        asked,
        body=f"{happened}\n\n{asked.body}" if asked.body else happened,
        response=None,
        decisions=("approve", "reject"),
        priority="urgent",
        tags=(*asked.tags, "effect-in-doubt"),
    )
