"""A kit to test workflows with people in them: no waiting, no network, no key.

- `ScriptedReviewer` and `review_with`: people who answer from a script.
- `ScriptedLLM` and `ToolCall`: a language model that replies from a script.
- `ManualClock`: a clock that you move.
"""

from llama_index_hitl.testing.clock import ManualClock
from llama_index_hitl.testing.llm import ScriptedLLM, ScriptExhausted, ToolCall
from llama_index_hitl.testing.reviewers import Script, ScriptedReviewer, review_with

__all__ = [
    "ManualClock",
    "Script",
    "ScriptExhausted",
    "ScriptedLLM",
    "ScriptedReviewer",
    "ToolCall",
    "review_with",
]
