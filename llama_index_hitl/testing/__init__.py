"""A kit to test workflows with people in them: no waiting, no network, no key.

- `ScriptedReviewer` and `review_with`: people who answer from a script.
- `ScriptedLLM` and `ToolCall`: a language model that replies from a script.
- `ManualClock`: a clock that you move.
- `review_with_restarts`: the same people, and the whole run through JSON at each of their answers.
- `llama_index_hitl.testing.stores`: the suite that holds a store of your own to the contract.
- `llama_index_hitl.testing.faults` and `.crashes`: a store that fails at a named point, processes
  that are killed there.
"""

from typing import TYPE_CHECKING, Any

from llama_index_hitl.testing.clock import ManualClock
from llama_index_hitl.testing.restarts import review_with_restarts
from llama_index_hitl.testing.reviewers import Script, ScriptedReviewer, review_with

if TYPE_CHECKING:
    from llama_index_hitl.testing.llm import ScriptedLLM, ScriptExhausted, ToolCall

__all__ = [
    "ManualClock",
    "Script",
    "ScriptExhausted",
    "ScriptedLLM",
    "ScriptedReviewer",
    "ToolCall",
    "review_with",
    "review_with_restarts",
]


def __getattr__(name: str) -> Any:
    # llama_index.core takes seconds to import, which only the model needs.
    if name in ("ScriptedLLM", "ScriptExhausted", "ToolCall"):
        from llama_index_hitl.testing import llm

        return getattr(llm, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
