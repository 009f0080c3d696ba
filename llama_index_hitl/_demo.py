"""What the demo shows: five ready workflows, and a model that needs no key.

The scripted model answers from the prompt alone, so that a run is the same every time, and it
takes up what the reviewer says: a revision shows the feedback at work.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from llama_index_hitl._demo_banking import Bank, Banking
from llama_index_hitl.models import Evidence
from llama_index_hitl.prebuilt import (
    ClaimDecision,
    ClaimReview,
    Code,
    CodeReview,
    DocumentApproval,
    Draft,
    ResearchReport,
    ReviewWorkflow,
)
from llama_index_hitl.prebuilt._base import DEFAULT_MODEL

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

Rewrite = Callable[[str, str, str], Awaitable[str]]
"""By hand: the text, the feedback, and a file name suffix in; the new text out."""

TOPICS = {
    "document": "why a person should approve a payment",
    "code": "greet a user by name",
    "claim": "Water damage in the kitchen. The policy lapsed two days before the incident.",
    "report": "human review of AI agents",
    "banking": "Check my balance, transfer 50 to Bob and 500 to Alice.",
}
"""What each demo is about when nothing else is said."""

BANK_FILE = "hitl-bank.db"
"""Where the account is while a run of the demo waits in a store: in the present folder."""

POLICY_TEXTS = (
    Evidence(
        title="Lapsed policies",
        body="A lapse inside the grace period needs a manual review before any payment.",
        source="policy handbook, section 4",
    ),
    Evidence(
        title="Water damage",
        body="Claims for water damage need proof that the cover was active on the day.",
        source="policy handbook, section 9",
    ),
)


class DemoWorkflow(ReviewWorkflow):
    """Base of the demo's workflows: a run that needs no model does not wait for one.

    Args:
        model: Name of the OpenAI model; None: the default one.
        **options: What the ready workflow takes.
    """

    def __init__(self, *, model: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._model = model

    def get_llm(self) -> LLM:
        """Return the model that there is: OpenAI's with a key, and the scripted one without."""
        if self._llm is None:
            self._llm = model_at_hand(self._model)
        return self._llm


class DemoDocument(DemoWorkflow, DocumentApproval):
    """The document workflow, with revisions by hand where the user wants that."""

    def __init__(self, *, rewrite: Rewrite | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._rewrite = rewrite

    async def revise(self, draft: Draft, feedback: str) -> str:
        """Return the next draft, by hand or from the model."""
        if self._rewrite is not None:
            return await self._rewrite(draft.content, feedback, ".md")
        return await super().revise(draft, feedback)


class DemoCode(DemoWorkflow, CodeReview):
    """The code workflow, with revisions by hand where the user wants that."""

    def __init__(self, *, rewrite: Rewrite | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._rewrite = rewrite

    async def revise(self, task: str, code: Code, feedback: str) -> str:
        """Return the next version, by hand or from the model."""
        if self._rewrite is not None:
            return await self._rewrite(code.code, feedback, ".py")
        return await super().revise(task, code, feedback)


class DemoClaim(DemoWorkflow, ClaimReview):
    """The claim workflow, with a page of the policy handbook as evidence."""

    async def gather(self, claim: str) -> tuple[Evidence, ...]:
        """Return the passages of the handbook that share a word with the claim."""
        words = set(re.findall(r"[a-z]{4,}", claim.lower()))
        found = (e for e in POLICY_TEXTS if words & set(re.findall(r"[a-z]{4,}", e.title.lower())))
        return tuple(found)


class DemoReport(DemoWorkflow, ResearchReport):
    """The report workflow, as it is."""


class DemoBanking(DemoWorkflow, Banking):
    """The bank account, with a new one in memory where no other is given."""


def workflows(model: str | None = None) -> dict[str, ReviewWorkflow]:
    """Return the workflows of the demo by name, for runs that are left in a store.

    Anybody may answer them: what a person is called in another process is not known here.

    Args:
        model: Name of the OpenAI model; None: the default one.
    """
    kinds: dict[str, type[DemoWorkflow]] = {
        "document": DemoDocument,
        "code": DemoCode,
        "claim": DemoClaim,
        "report": DemoReport,
    }
    made: dict[str, ReviewWorkflow] = {
        name: kind(model=model, streaming=True) for name, kind in kinds.items()
    }
    return {**made, "banking": DemoBanking(model=model, bank=Bank(BANK_FILE))}


def inputs_of(name: str, *, topic: str | None, first_draft: str | None) -> dict[str, Any]:
    """Return what the workflow of a demo is started with.

    Args:
        name: `document`, `code`, `claim`, `report` or `banking`.
        topic: What it is about; None: what the demo says.
        first_draft: A text to begin with, where the demo takes one; None: the model writes it.
    """
    about = topic or TOPICS[name]
    match name:
        case "document":
            return {"topic": about, "content": first_draft}
        case "code":
            return {"task": about, "code": first_draft}
        case "claim":
            return {"claim": about}
        case "banking":
            return {"request": about}
        case _:
            return {"topic": about}


def start_demo(
    name: str,
    *,
    topic: str | None,
    first_draft: str | None,
    model: str | None,
    rewrite: Rewrite | None,
    reviewer: str | None,
) -> Any:
    """Start the workflow of a demo in this process.

    Args:
        name: `document`, `code`, `claim`, `report` or `banking`.
        topic: What it is about; None: what the demo says.
        first_draft: A text to begin with; None: the model writes it.
        model: Name of the OpenAI model; None: the default one.
        rewrite: Revises by hand; None: the model revises.
        reviewer: Id of the only person who may answer; None: anyone.

    Returns:
        The handler of the running workflow.
    """
    options: dict[str, Any] = {"model": model, "reviewers": reviewer or (), "streaming": True}
    workflow: ReviewWorkflow
    match name:
        case "document":
            workflow = DemoDocument(rewrite=rewrite, **options)
        case "code":
            workflow = DemoCode(rewrite=rewrite, **options)
        case "claim":
            workflow = DemoClaim(**options)
        case "banking":
            workflow = DemoBanking(**options)
        case _:
            workflow = DemoReport(**options)
    return workflow.run(**inputs_of(name, topic=topic, first_draft=first_draft))


# --------------------------------------------------------------------------- the models


def model_at_hand(name: str | None = None, *, pace: float = 0.0) -> LLM:
    """Return OpenAI's model with that name if there is a key, and else the scripted one."""
    if not os.environ.get("OPENAI_API_KEY"):
        return scripted_model(pace=pace)
    return openai_model(name or DEFAULT_MODEL)


def scripted_model(*, pace: float = 0.0) -> LLM:
    """Return a model that writes the demo's texts without a key and without a network.

    Args:
        pace: Seconds between the pieces of a streamed text, so that one can watch it grow.
    """
    from llama_index_hitl.testing import ScriptedLLM

    return ScriptedLLM(reply=lambda messages: _reply(str(messages[-1].content)), pace=pace)


def _reply(prompt: str) -> Any:
    if "Classify this claim" in prompt:
        return _claim(prompt)
    if prompt.startswith("Turn this request into the actions"):
        return {"actions": list(_actions(prompt.partition("Request:")[2]))}
    if prompt.startswith("Write Python code"):
        return _greeting(_after("Task:", prompt), typed=False)
    if prompt.startswith("Revise this Python code"):
        return _greeting(_after("Task:", prompt), typed=True, note=_after("Feedback:", prompt))
    if prompt.startswith("Revise this text"):
        return _revised(_after("Text:", prompt), _after("Feedback:", prompt))
    if prompt.startswith("Research this topic further"):
        return _revised(_after("Findings so far:", prompt), _after("What is missing:", prompt))
    if prompt.startswith("Research this topic"):
        return _findings(_after("Topic:", prompt), _after("Angle:", prompt))
    if prompt.startswith("Write a report"):
        return _report(_after("Topic:", prompt), _after("Findings:", prompt))
    return _document(prompt.rpartition("about: ")[2])


def _after(label: str, prompt: str) -> str:
    """Return the paragraph or paragraphs that follow a label, up to the next label."""
    rest = prompt.partition(f"\n\n{label}")[2] or prompt.partition(label)[2]
    return re.split(r"\n\n(?=[A-Z][\w ]+:(?:\n|$| ))|\n\nReturn ", rest.strip())[0].strip()


def _document(topic: str) -> str:
    return (
        f"# On {topic}\n\n"
        "An agent can prepare a decision in seconds. Whoever answers for it should still see it "
        "before it takes effect.\n\n"
        "- What was proposed, in full.\n"
        "- Why, and on which evidence.\n"
        "- What happens when nobody answers.\n"
    )


def _revised(text: str, feedback: str) -> str:
    note = feedback.strip().rstrip(".") or "more detail"
    return f"{text.rstrip()}\n\n## Revised after review\n\nAs asked: {note}.\n"


def _greeting(task: str, *, typed: bool, note: str = "") -> str:
    if not typed:
        return f'# {task}\ndef greet(name):\n    return f"Hello, {{name}}!"\n'
    return (
        f"# {task}\n# Revised: {' '.join(note.split())}\n"
        "def greet(name: str) -> str:\n"
        '    """Return a greeting."""\n'
        '    return f"Hello, {name}!"\n'
    )


def _claim(prompt: str) -> ClaimDecision:
    claim = prompt.partition("Claim:")[2].partition("Evidence:")[0].lower()
    if "hospital" in claim:
        return ClaimDecision(
            decision="needs_review",
            reason="Somebody was hurt; what is owed depends on a report that is not there yet.",
            risk_level="medium",
        )
    if "lapse" in claim:
        return ClaimDecision(
            decision="deny",
            reason="The policy had lapsed before the incident; the grace period is unclear.",
            risk_level="high",
        )
    return ClaimDecision(decision="approve", reason="The cover was active.", risk_level="low")


def _actions(request: str) -> Iterator[dict[str, Any]]:
    """Yield the actions that a request names, in words such as `deposit 20` and `500 to Alice`."""
    for found in _ACTION.finditer(request):
        if found["sent"]:
            yield {"kind": "transfer", "amount": found["sent"], "recipient": found["recipient"]}
        elif found["paid_in"]:
            yield {"kind": "deposit", "amount": found["paid_in"]}
        else:
            yield {"kind": "check_balance"}


_SUM = r"\d+(?:\.\d{1,2})?"
_ACTION = re.compile(
    rf"balance|deposit (?P<paid_in>{_SUM})|(?P<sent>{_SUM}) to (?P<recipient>\w+)", re.IGNORECASE
)


def _findings(topic: str, angle: str) -> str:
    if angle in _FINDINGS:
        return f"## {angle}\n\n{_FINDINGS[angle]}"
    return (
        f"## Findings on {topic}\n\n"
        "- Approvals before irreversible actions are the pattern used most.\n"
        "- Reviewers decide better when they see the change, not the whole.\n"
        "- A pause that only lives in memory is lost with the process.\n"
    )


_FINDINGS = {
    "What is known": (
        "- An approval before what cannot be undone is the pattern used most.\n"
        "- People decide faster, and better, when they are shown the change and not the whole.\n"
        "- A pause that lives in memory only is lost with the process.\n"
    ),
    "Where people disagree": (
        "- Whether a reviewer should see what the model gives as its reasons: some say that it "
        "helps, others that it leads.\n"
        "- How much may pass without anybody looking: the limits that teams name differ by a "
        "factor of a hundred.\n"
    ),
    "What it means in practice": (
        "| Choice | Costs | Gives |\n| --- | --- | --- |\n"
        "| Ask about everything | hours of waiting | full control |\n"
        "| Ask above a limit | a rule to maintain | attention where it counts |\n"
        "| Look at samples later | mistakes that are found late | speed |\n"
    ),
}
"""What there is to find, whatever the topic is, by angle."""


def _report(topic: str, findings: str) -> str:
    return f"# Report: {topic}\n\nThis report rests on the accepted research.\n\n{findings}\n"


def openai_model(name: str) -> LLM:
    """Return an OpenAI model by name; `OPENAI_API_KEY` and `OPENAI_API_BASE` are respected.

    A name that the client library does not know is taken to be a chat model of a server that
    speaks OpenAI's protocol.
    """
    from llama_index.core.llms import LLMMetadata
    from llama_index.llms.openai import OpenAI

    class _OpenAI(OpenAI):
        @property
        def metadata(self) -> LLMMetadata:
            try:
                return super().metadata
            except ValueError:
                return LLMMetadata(
                    context_window=_UNKNOWN_CONTEXT,
                    is_chat_model=True,
                    is_function_calling_model=True,
                    model_name=self.model,
                )

    return _OpenAI(model=name, max_retries=1)


_UNKNOWN_CONTEXT = 8_192  # tokens; a cautious guess for models that nobody knows
