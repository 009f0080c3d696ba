"""A bank account in the hands of an agent: what is large waits for a person. Two ways to build it.

`Banking` asks the model for a plan of actions; `banking_agent` gives the model tools. Both stop at
the same limit, which is in the code and not in a prompt, and both move money once.
"""

# Without annotations that are strings: a tool's schema is made of those that its function has.

import sqlite3
from collections.abc import Sequence
from decimal import Decimal
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from llama_index_hitl.effects import effect_key
from llama_index_hitl.errors import HitlError
from llama_index_hitl.prebuilt import Action, ActionPlan
from llama_index_hitl.rules import first_match, never, rule, threshold

if TYPE_CHECKING:
    from llama_index.core.agent.workflow import FunctionAgent
    from llama_index.core.llms import LLM

LIMIT = Decimal(100)
"""Transfers above it, in the account's currency, wait for a person."""

OPENING = Decimal(1000)
"""What is on a new account."""

Money = Annotated[Decimal, Field(gt=0, max_digits=12, decimal_places=2)]


class InsufficientFunds(HitlError, ValueError):
    """There is less on the account than was to be taken from it. Nothing was taken.

    Attributes:
        amount: What was to be taken.
        balance: What is there.
    """

    def __init__(self, amount: Decimal, balance: Decimal) -> None:
        super().__init__(f"insufficient funds: {amount:.2f} of {balance:.2f}")
        self.amount = amount
        self.balance = balance


class Bank:
    """One account, kept in SQLite. Every movement has a key, and happens once.

    Args:
        place: File of the account, made when it is first needed; by default it is kept in memory.
        opening: What is on a new account.
    """

    def __init__(
        self, place: str | PathLike[str] = ":memory:", *, opening: Decimal = OPENING
    ) -> None:
        self._place = place
        self._opening = opening

    @cached_property
    def _rows(self) -> sqlite3.Connection:
        # Autocommit: transactions are begun below, where they are needed.
        rows = sqlite3.connect(self._place, timeout=10, isolation_level=None)
        rows.execute(
            "CREATE TABLE IF NOT EXISTS movements "
            "(key TEXT PRIMARY KEY, cents INTEGER NOT NULL, what TEXT NOT NULL)"
        )
        opening = ("opening", _cents(self._opening), "opening")
        rows.execute("INSERT OR IGNORE INTO movements VALUES (?, ?, ?)", opening)
        return rows

    def close(self) -> None:
        """Let go of the file."""
        self._rows.close()

    @property
    def balance(self) -> Decimal:
        """What is on the account."""
        (cents,) = self._rows.execute("SELECT sum(cents) FROM movements").fetchone()
        return Decimal(cents) / 100

    @property
    def movements(self) -> list[tuple[Decimal, str]]:
        """What was moved and why, in order, without the opening."""
        rows = self._rows.execute("SELECT cents, what FROM movements ORDER BY rowid").fetchall()
        return [(Decimal(cents) / 100, what) for cents, what in rows[1:]]

    def knows(self, key: str) -> bool:
        """Tell whether money was moved with this key."""
        found = self._rows.execute("SELECT 1 FROM movements WHERE key = ?", (key,))
        return found.fetchone() is not None

    def deposit(self, amount: Decimal, *, key: str) -> str:
        """Put money on the account, and return what was done, in words."""
        return self._move(amount, f"deposit of {amount:.2f}", key)

    def transfer(self, amount: Decimal, recipient: str, *, key: str) -> str:
        """Send money to somebody, and return what was done, in words.

        Args:
            amount: How much.
            recipient: To whom.
            key: The same for the same transfer: a second one with it moves nothing.

        Raises:
            InsufficientFunds: There is not so much.
        """
        return self._move(-amount, f"transfer of {amount:.2f} to {recipient}", key)

    def _move(self, amount: Decimal, what: str, key: str) -> str:
        with self._rows:
            self._rows.execute("BEGIN IMMEDIATE")
            before = self.balance
            known = self._rows.execute("SELECT what FROM movements WHERE key = ?", (key,))
            if (row := known.fetchone()) is not None:
                if row != (what,):
                    raise ValueError(f"The key {key!r} is that of a {row[0]}, not of a {what}.")
                return f"{what} was made before; the balance is {before:.2f}"
            if before + amount < 0:
                raise InsufficientFunds(-amount, before)
            self._rows.execute(
                "INSERT INTO movements VALUES (?, ?, ?)", (key, _cents(amount), what)
            )
        return f"{what}; the balance is {before + amount:.2f}"


def _cents(amount: Decimal) -> int:
    return int(amount * 100)


# --------------------------------------------------------------------------- as a plan of actions


class CheckBalance(Action):
    """Look at the balance."""

    kind: Literal["check_balance"] = "check_balance"

    def summary(self) -> str:
        """Return the action in a few words."""
        return "check the balance"


class Deposit(Action):
    """Put money on the account."""

    kind: Literal["deposit"] = "deposit"
    amount: Money

    def summary(self) -> str:
        """Return the action in a few words."""
        return f"deposit {self.amount:.2f}"


class Transfer(Action):
    """Send money to somebody."""

    kind: Literal["transfer"] = "transfer"
    amount: Money
    recipient: str = Field(min_length=1)

    def confirmation(self) -> str | None:
        """Return why a person must confirm this, if one must."""
        return f"it is above {LIMIT}" if self.amount > LIMIT else None

    def summary(self) -> str:
        """Return the action in a few words."""
        return f"transfer {self.amount:.2f} to {self.recipient}"


class Banking(ActionPlan):
    """What somebody wants of the bank, as a plan: large transfers wait for a person.

    Args:
        bank: Where the money is; None: an account in memory.
        **options: What `ActionPlan` takes.
    """

    action = CheckBalance | Deposit | Transfer

    on_doubt = "repeat"
    """The bank knows its keys, so what may have happened can be asked for again."""

    def __init__(self, *, bank: Bank | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.bank = bank or Bank()

    async def check_plan(self, actions: Sequence[Any]) -> dict[int, str]:
        """Return the transfers that the balance cannot cover, if all before them are made."""
        balance, uncovered = self.bank.balance, dict[int, str]()
        for number, action in enumerate(actions, start=1):
            match action:
                case Deposit():
                    balance += action.amount
                case Transfer() if action.amount > balance:
                    uncovered[number] = str(InsufficientFunds(action.amount, balance))
                case Transfer():
                    balance -= action.amount
        return uncovered

    async def check(self, action: Any) -> str | None:
        """Return why a transfer cannot be made now: others may have moved money meanwhile."""
        balance = self.bank.balance
        if self.bank.knows(effect_key()):
            return None  # begun by a process that died: what it has moved must not count against it
        if isinstance(action, Transfer) and action.amount > balance:
            return str(InsufficientFunds(action.amount, balance))
        return None

    async def execute(self, action: Any, effect_key: str) -> str:
        """Do an action, and say what was done."""
        match action:
            case Deposit():
                return self.bank.deposit(action.amount, key=effect_key)
            case Transfer():
                return self.bank.transfer(action.amount, action.recipient, key=effect_key)
            case _:
                return f"the balance is {self.bank.balance:.2f}"


# --------------------------------------------------------------------------- as an agent with tools


def banking_agent(bank: Bank, llm: "LLM") -> "FunctionAgent":
    """Return an agent that looks after an account: large transfers wait for a person.

    All that moves money is guarded, what is small too: rules let that pass, on the record, and each
    call is made once, also if a process dies on the way.

    Args:
        bank: Where the money is.
        llm: A model that can call tools.
    """
    # Imported where they are needed: they take seconds, and the plan does without them.
    from llama_index.core.agent.workflow import FunctionAgent

    from llama_index_hitl.agents import require_approval

    async def get_balance() -> str:
        """Look at the balance."""
        return f"the balance is {bank.balance:.2f}"

    async def deposit(amount: Money) -> str:
        """Put money on the account."""
        return bank.deposit(amount, key=effect_key())

    async def transfer(amount: Money, recipient: str) -> str:
        """Send money to somebody."""
        return bank.transfer(amount, recipient, key=effect_key())

    large = first_match(
        rule(
            "more than there is",
            lambda call: call.amount > bank.balance,
            then="reject",
            reason="insufficient funds",
        ),
        threshold("amount", above=LIMIT),
        otherwise=never(),
    )
    return FunctionAgent(
        tools=[
            get_balance,
            # The bank knows the key of a call, so an interrupted one is simply made again.
            require_approval(deposit, when=never(), on_doubt="repeat"),
            require_approval(transfer, when=large, on_doubt="repeat"),
        ],
        llm=llm,
        system_prompt=(
            "You look after a bank account. Do what the user asks, and nothing else. A transfer "
            "that was refused is not to be tried again."
        ),
    )
