"""Human-in-the-loop for LlamaIndex Workflows: people decide, workflows wait.

The map of the package:

- gates, to compose into a workflow of your own: `Review` and the events that come out of it
  (`Approved`, `Rejected`, `Revision`, `RevisionsExhausted`, `Responded`, `Expired`);
- questions asked inline, in a step or a tool: `ask`, `Question`, `Resolution`;
- what travels between a workflow and people: `ReviewRequestEvent` and `ReviewResponseEvent`, with a
  `ReviewRequest` and an `Answer` in them; `ReviewUpdatedEvent` and `ReviewRefusedEvent` tell what
  became of an answer; `ReviewDeadlineEvent` says that time has passed, `ReviewWithdrawEvent` that a
  question is taken back;
- what happens as time passes: a ladder of `Rung`s, which `Remind`, `Widen`, `Escalate`, `Reject` or
  `Expire`; `WorkingHours`, where only they count;
- decisions: `Approve`, `Reject`, `Revise`, `Edit`, `Respond`, `Escalate`, `Delegate`, `Abstain`;
- `llama_index_hitl.rules`: when a person is needed; `llama_index_hitl.forms`: from raw input to an
  answer; `llama_index_hitl.policies` and `llama_index_hitl.lifecycle`: the pure core;
  `llama_index_hitl.errors`: everything that is raised, below `HitlError`;
- `llama_index_hitl.agents`: tools that need approval, a tool that asks a person, an agent as the
  tool of another; `llama_index_hitl.children`: runs within steps of other runs;
- `llama_index_hitl.runner` and `llama_index_hitl.stores`: runs that wait in a store, standing
  approvals (`runner.grants`) and spot checks (`runner.spot_checks`); `llama_index_hitl.snapshots`:
  paused runs by hand; `llama_index_hitl.effects`: what happens once;
- `llama_index_hitl.replay`: what rules would have decided about what people have decided;
- `llama_index_hitl.prebuilt`: ready workflows to subclass;
- `llama_index_hitl.console`: the terminal reviewer; `llama_index_hitl.testing`: scripted people,
  a scripted LLM and a clock that you move.

Importing this module imports neither `llama_index.core` nor any optional dependency.
"""

from llama_index_hitl.calendars import WorkingHours
from llama_index_hitl.clock import Clock, utc_now
from llama_index_hitl.errors import AnswerRefused, HitlError
from llama_index_hitl.events import (
    Approved,
    Expired,
    Rejected,
    Responded,
    ReviewDeadlineEvent,
    ReviewRefusedEvent,
    ReviewRequestEvent,
    ReviewResponseEvent,
    ReviewUpdatedEvent,
    ReviewWithdrawEvent,
    Revision,
    RevisionsExhausted,
)
from llama_index_hitl.gates import Review, gates_of
from llama_index_hitl.models import (
    Abstain,
    Answer,
    Approve,
    DecisionKind,
    Delegate,
    Edit,
    Escalate,
    Evidence,
    Expire,
    Outcome,
    Reject,
    Remind,
    RequestStatus,
    Respond,
    Reviewer,
    ReviewRecord,
    ReviewRequest,
    Revise,
    Rung,
    Widen,
)
from llama_index_hitl.questions import Question, Resolution, ask

__all__ = [
    "Abstain",
    "Answer",
    "AnswerRefused",
    "Approve",
    "Approved",
    "Clock",
    "DecisionKind",
    "Delegate",
    "Edit",
    "Escalate",
    "Evidence",
    "Expire",
    "Expired",
    "HitlError",
    "Outcome",
    "Question",
    "Reject",
    "Rejected",
    "Remind",
    "RequestStatus",
    "Resolution",
    "Respond",
    "Responded",
    "Review",
    "ReviewDeadlineEvent",
    "ReviewRecord",
    "ReviewRefusedEvent",
    "ReviewRequest",
    "ReviewRequestEvent",
    "ReviewResponseEvent",
    "ReviewUpdatedEvent",
    "ReviewWithdrawEvent",
    "Reviewer",
    "Revise",
    "Revision",
    "RevisionsExhausted",
    "Rung",
    "Widen",
    "WorkingHours",
    "ask",
    "gates_of",
    "utc_now",
]
