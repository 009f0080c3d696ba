"""One migration at work on one run: everything in it that has a name is renamed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from llama_index_hitl._codec.values import TAG
from llama_index_hitl._fingerprint import Fingerprint, occurring_types
from llama_index_hitl._ledger import BUFFER
from llama_index_hitl.migrations._migration import (
    Fields,
    Migrated,
    Migration,
    MigrationError,
    Waited,
)

_MARKS = ("__is_pydantic", "__is_component", TAG)
_TEXTS = frozenset(
    {
        "bound_events",
        "buffer",
        "collected_events",
        "event",
        "events",
        "resolved_event",
        "static_collect_events",
    }
)
"""Parts of a run within which every text is a value that the serializer wrote."""
_ASIDE = "aside-"
"""What the waiters begin with at which a step stands aside, see `questions`."""


def _last(name: str) -> str:
    return name.rpartition(".")[2]


class Change:
    """One migration at work on one snapshot; its names are resolved to those that occur there."""

    def __init__(self, migration: Migration, before: Migrated) -> None:
        accepted = (name for names in before.fingerprint.steps.values() for name in names)
        self._known = {*occurring_types(before.context), *before.fingerprint.types, *accepted}
        self._migration = migration
        self._steps = dict(migration.rename_steps)
        self._types: dict[str, str] = {}
        for old, new in migration.rename_events.items():
            for name in self._resolved(old):
                module = name.rpartition(".")[0]
                self._types[name] = new if "." in new else f"{module}.{new}"
        # By their new names: values are changed after they were renamed.
        self._changes = {
            self._types.get(name, name): function
            for old, function in migration.change_fields.items()
            for name in self._resolved(old)
        }

    def _resolved(self, name: str) -> list[str]:
        """Return the qualified name of a type of the run; nothing: the run has none of it."""
        if "." in name:
            return [name]
        found = sorted(known for known in self._known if _last(known) == name)
        if len(found) > 1:
            raise self._failed(f"{name} may be {' or '.join(found)}; give the qualified name")
        return found

    def _failed(self, reason: str) -> MigrationError:
        return MigrationError(f"{self._migration.name}: {reason}.")

    def _step(self, name: str) -> str:
        return self._steps.get(name, name)

    def _type(self, name: str) -> str:
        return self._types.get(name, name)

    # ----------------------------------------------------------------- the code it fits

    def of(self, fingerprint: Fingerprint) -> Fingerprint:
        """Return the fingerprint of the code that the migrated run fits."""
        steps: dict[str, set[str]] = {}
        for step, names in fingerprint.steps.items():
            steps.setdefault(self._step(step), set()).update(map(self._type, names))
        types = {self._type(name): fields for name, fields in fingerprint.types.items()}
        state = fingerprint.state and self._type(fingerprint.state)
        changed = set(self._changes)
        if self._migration.change_state is not None and state is not None:
            changed.add(state)
        return Fingerprint(
            steps={step: tuple(sorted(steps[step])) for step in sorted(steps)},
            types={name: types[name] for name in sorted(types.keys() - changed)},
            state=state,
        )

    # ----------------------------------------------------------------- the run

    def of_context(self, context: dict[str, Any]) -> dict[str, Any]:
        """Return the run with everything renamed and changed."""
        workers: dict[str, Any] = {}
        for step, worker in context.get("workers", {}).items():
            self._put(workers, self._step(step), self._worker(step, worker))
        releases = self._item(context.get("collection_release_states", {}))
        return {
            **context,
            "workers": workers,
            "deliveries": self._item(context.get("deliveries", [])),
            "streams": self._item(context.get("streams", {})),
            "collection_release_states": {
                f"{release['stream_id']}:{release['binding_id']}": release
                for release in releases.values()
            },
            "state": self._state(context.get("state", {})),
        }

    def of_wait(self, wait: Waited) -> Waited:
        """Return what a plain question is known by after the renaming."""
        step, waiter_id = wait.step, wait.waiter_id
        return Waited(
            None if step is None else self._step(step),
            None if waiter_id is None else self._waiter(waiter_id),
            self._type(wait.answer_type),
        )

    def _put(self, workers: dict[str, Any], step: str, worker: dict[str, Any]) -> None:
        other = workers.get(step, {})
        if any(other.values()) and any(worker.values()):
            raise self._failed(f"two steps that have work would both be called {step!r}")
        workers[step] = worker if any(worker.values()) else other or worker

    def _worker(self, step: str, worker: dict[str, Any]) -> dict[str, Any]:
        changed: dict[str, Any] = self._item(worker)
        for holder in (changed, *changed.get("in_progress", ())):
            for key in ("collected_events", "collect_generations"):
                buffers = holder.get(key, {})
                holder[key] = {self._own(step, name): item for name, item in buffers.items()}
        for waiter in changed.get("collected_waiters", ()):
            waiter["waiter_id"] = self._waiter(self._own(step, waiter["waiter_id"]))
            waiter["waiting_for_event"] = self._type(waiter["waiting_for_event"])
        return changed

    def _own(self, step: str, name: str) -> str:
        """Rename what a question that is asked inline is known by; its step is a part of it."""
        for prefix in (f"{BUFFER}:", _ASIDE):
            if name.startswith(f"{prefix}{step}:"):
                return f"{prefix}{self._step(step)}{name.removeprefix(prefix + step)}"
        return name

    def _waiter(self, name: str) -> str:
        """Rename a waiter without a name of its own; upstream calls it by the event's name."""
        for old, new in self._types.items():
            if name.startswith(f"waiter_{old}_"):
                return f"waiter_{new}{name.removeprefix(f'waiter_{old}')}"
        return name

    def _binding(self, name: str) -> str:
        """Rename what ties a step that makes a list to the one that collects it."""
        steps, colon, rest = name.partition(":")
        types, *more = rest.split(":")
        renamed = (self._full(item) for item in types.split(","))
        joined = "->".join(self._step(step) for step in steps.split("->"))
        return colon.join([joined, ",".join(renamed), *more])

    def _full(self, name: str) -> str:
        """Rename a type by its full name, which says where a nested class is nested."""
        for old, new in self._types.items():
            module = old.rpartition(".")[0]
            if name != old and name.startswith(f"{module}.") and _last(name) == _last(old):
                return f"{name.removesuffix(_last(old))}{_last(new)}"
        return self._type(name)

    def _item(self, data: Any, *, within: bool = False) -> Any:
        """Return a part of a run; `within` it are only values that were written as text."""
        if isinstance(data, str):
            return self._text(data) if within else data
        if isinstance(data, list):
            return [self._item(item, within=within) for item in data]
        if not isinstance(data, dict):
            return data
        if within:
            return {key: self._item(item, within=True) for key, item in data.items()}
        return {key: self._entry(key, item) for key, item in data.items()}

    def _entry(self, key: str, item: Any) -> Any:
        match key:
            case "binding_id":
                return self._binding(item)
            case "accepting_binding_ids":
                return [self._binding(name) for name in item]
            case "step_id" | "source_step":
                return item and self._step(item)
            case "recovery_counts":
                return {self._step(step): count for step, count in item.items()}
        return self._item(item, within=key in _TEXTS)

    # ----------------------------------------------------------------- values

    def _text(self, text: str) -> str:
        try:
            data = json.loads(text)
        except ValueError as error:
            raise self._failed(f"a stored value is no JSON: {error}") from error
        changed = self._value(data)
        return text if changed == data else json.dumps(changed)

    def _value(self, data: Any) -> Any:
        """Return a value with every type in it renamed, and its fields changed."""
        if isinstance(data, list):
            return [self._value(item) for item in data]
        if not isinstance(data, dict):
            return data
        changed = {key: self._value(item) for key, item in data.items()}
        name = data.get("qualified_name")
        if not isinstance(name, str) or not any(data.get(mark) for mark in _MARKS):
            return changed
        changed["qualified_name"] = new = self._type(name)
        if new in self._changes and isinstance(changed.get("value"), dict):
            fields = dict(changed["value"])
            fields.update(fields.pop("_data", {}))
            changed["value"] = self._new_fields(new, self._changes[new], fields)
        return changed

    def _new_fields(self, name: str, function: Callable[[Fields], Fields], old: Fields) -> Fields:
        try:
            new = function(old)
        except Exception as error:
            raise self._failed(f"the change of {name} raised {error!r}") from error
        if not isinstance(new, dict):
            raise self._failed(f"the change of {name} returned {type(new).__name__}, not a dict")
        return new

    def _state(self, state: dict[str, Any]) -> dict[str, Any]:
        data, function = state.get("state_data"), self._migration.change_state
        name = self._type(f"{state.get('state_module')}.{state.get('state_type')}")
        module, _, cls = name.rpartition(".")
        changed = {**state, "state_module": module, "state_type": cls} if state else state
        if isinstance(data, str):
            text = self._text(data)
            if function is not None:
                whole = json.loads(text)
                text = json.dumps(
                    {**whole, "value": self._new_fields(name, function, whole["value"])}
                )
            return {**changed, "state_data": text}
        if not isinstance(data, dict) or "_data" not in data:
            return changed
        texts = {key: self._text(text) for key, text in data["_data"].items()}
        if function is not None:
            values = {key: json.loads(text) for key, text in texts.items()}
            new = self._new_fields("the state", function, values)
            texts = {key: json.dumps(value) for key, value in new.items()}
        return {**changed, "state_data": {"_data": texts}}
