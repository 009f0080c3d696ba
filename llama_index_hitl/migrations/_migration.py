"""What a migration is, and what comes of applying some."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, NamedTuple, TypeAlias

from llama_index_hitl._fingerprint import Fingerprint
from llama_index_hitl.errors import SnapshotError

Fields: TypeAlias = dict[str, Any]
"""The values of an event or of a state by name, as JSON; undeclared ones stand beside the others.

What JSON cannot carry stands as it is stored, a dict with the key `__hitl`.
"""


class MigrationError(SnapshotError):
    """A migration cannot be applied to a paused run. The run is as it was.

    Example:
        >>> print(MigrationError("the migration article 1 -> 2 raised KeyError: 'text'"))
        the migration article 1 -> 2 raised KeyError: 'text'
    """


@dataclass(frozen=True)
class Migration:
    """What has changed in the code of a workflow, from one version of it to another.

    Names of events are those of their classes, such as `Draft`, or qualified ones, such as
    `shop.events.Draft`; a new name without a module is in the module of the old one.

    Attributes:
        workflow: Name of the workflow.
        from_version: Version of the snapshots that this is for; None: those without a version.
        to_version: Version that they have then; None: the same. Needed for what must be done once.
        rename_steps: Old names of steps, with the new ones. A gate's step is `<gate>_gate`.
        rename_events: Old names of event types with the new ones; also of states, and of the
            enums, dataclasses and models that a run holds.
        change_fields: For event types and states, by their old names: a function that takes the
            values of one instance and returns the new ones. It sees every instance in the run,
            those under review too, and must be pure.
        change_state: A function that takes the whole state and returns the new one.

    Raises:
        ValueError: It changes values and does not say from which version to which other.

    Example:
        >>> Migration("article", rename_steps={"legal_gate": "counsel_gate"}).describe()
        "article: step 'legal_gate' becomes 'counsel_gate'"
    """

    workflow: str
    _: KW_ONLY
    from_version: str | None = None
    to_version: str | None = None
    rename_steps: Mapping[str, str] = field(default_factory=dict)
    rename_events: Mapping[str, str] = field(default_factory=dict)
    change_fields: Mapping[str, Callable[[Fields], Fields]] = field(default_factory=dict)
    change_state: Callable[[Fields], Fields] | None = None

    def __post_init__(self) -> None:
        if self.from_version is not None and self.from_version == self.to_version:
            raise ValueError(f"A migration from {self.from_version} must lead to another version.")
        if (self.change_fields or self.change_state) and self.to_version is None:
            raise ValueError(
                "A migration that changes values needs to_version=, so that it is not applied "
                "again to what it has changed; give the workflow that version too."
            )

    @property
    def name(self) -> str:
        """Name of the migration, such as `article 1 -> 2`."""
        if self.to_version is None and self.from_version is None:
            return self.workflow
        to = self.to_version or self.from_version
        return f"{self.workflow} {self.from_version or '(no version)'} -> {to}"

    def describe(self) -> str:
        """Return what it does, as one line for people."""
        done = [f"step {old!r} becomes {new!r}" for old, new in self.rename_steps.items()]
        done += [f"{old} becomes {new}" for old, new in self.rename_events.items()]
        done += [f"the fields of {name} change" for name in self.change_fields]
        done += ["the state changes"] if self.change_state is not None else []
        return f"{self.name}: {'; '.join(done) or 'nothing changes'}"


class Waited(NamedTuple):
    """What a plain question is known by: it is no part of what upstream writes.

    Attributes:
        step: Name of the step that waits; None where nothing waits but the run.
        waiter_id: Upstream's name for the wait; None likewise.
        answer_type: Qualified name of the event that answers.

    Example:
        >>> waited = Waited("greet", "name", answer_type="workflows.events.HumanResponseEvent")
        >>> waited.step
        'greet'
    """

    step: str | None
    waiter_id: str | None
    answer_type: str


class Migrated(NamedTuple):
    """A snapshot after its migrations.

    What `apply` returns; the example of `Migration` says what leads to one.

    Attributes:
        context: The run, as `Context.to_dict` returns it.
        version: The version of the workflow that it is for now.
        fingerprint: The fingerprint that the code must have; types whose fields were changed are
            not in it, for their values say by themselves whether they fit.
        waits: What its plain questions are known by.
        applied: The names of the migrations, in order; nothing: none was for it.
    """

    context: dict[str, Any]
    version: str | None
    fingerprint: Fingerprint
    waits: tuple[Waited, ...] = ()
    applied: tuple[str, ...] = ()
