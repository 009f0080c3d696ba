"""Human-in-the-loop for LlamaIndex Workflows: people decide, workflows wait.

The map of the package. What most workflows need is right here; the modules below have the rest.

Ask, and go on with what people say:

- gates, to compose into a workflow of your own: `Review`, and the events that come out of it:
  `Approved`, `Rejected`, `Revision`, `RevisionsExhausted`, `Responded`, `Expired`. `gates_of` lists
  the gates of a workflow. More in `llama_index_hitl.gates` and `llama_index_hitl.events`;
- questions asked inline, in a step or a tool: `ask`, `Question`, `Resolution`
  (`llama_index_hitl.questions`);
- tools that need approval, a tool that asks a person, an agent as the tool of another:
  `llama_index_hitl.agents`; runs within steps of other runs: `llama_index_hitl.children`;
- ready workflows, to use or to subclass: `llama_index_hitl.prebuilt`.

What is asked and what is said (`llama_index_hitl.models`):

- a `ReviewRequest`, with `Evidence` in it, and an `Answer` by a `Reviewer`; a `ReviewRecord` says
  what has become of a request: its `RequestStatus` and its `Outcome`;
- decisions, of a `DecisionKind` each: `Approve`, `Reject`, `Revise`, `Edit`, `Respond`, `Escalate`,
  `Delegate`, `Abstain`, and the `GrantTerms` of a standing approval;
- as events, between a workflow and people: `ReviewRequestEvent` and `ReviewResponseEvent`;
  `ReviewUpdatedEvent` and `ReviewRefusedEvent` tell what became of an answer;
  `ReviewDeadlineEvent` says that time has passed, `ReviewWithdrawEvent` that a question is taken
  back;
- what happens as time passes: a ladder of `Rung`s, which `Remind`, `Widen`, `Escalate`, `Reject` or
  `Expire`; `WorkingHours`, where only they count (`llama_index_hitl.calendars`); a `Clock`, such as
  `utc_now`, says what time it is (`llama_index_hitl.clock`);
- what is raised, below `HitlError`; an answer that does not count is an `AnswerRefused`
  (`llama_index_hitl.errors`).

When a person is needed:

- rules that decide before anybody is asked: `llama_index_hitl.rules`; what they would have decided
  about what people have decided: `llama_index_hitl.replay`; approvals of theirs that people look at
  afterwards: `llama_index_hitl.spot_checks`, with the `llama_index_hitl.rates` of errors;
- standing approvals, which people give for tools: `llama_index_hitl.grants`.

Runs that wait for days:

- `llama_index_hitl.runner` starts runs, takes answers and takes runs further, from any process;
  `llama_index_hitl.stores`: where they wait; `llama_index_hitl.snapshots`: paused runs by hand;
- `llama_index_hitl.effects`: what happens once, whatever crashes;
- `llama_index_hitl.migrations`: paused runs of older code; `llama_index_hitl.audit`: who decided
  what, and when; `llama_index_hitl.authorizers`: who may do what;
- `llama_index_hitl.notifiers`: telling people outside; `llama_index_hitl.progress`: what runs say
  on the way;
- `llama_index_hitl.runtimes`: WorkflowServer and DBOS in place of a runner.

Where people answer:

- `llama_index_hitl.console`: at a terminal; `llama_index_hitl.notebook`: in a notebook;
  `llama_index_hitl.web`: in the browser; `llama_index_hitl.cli`: the command `hitl`;
- for a front end of your own: `llama_index_hitl.forms`, from raw input to an answer, and
  `llama_index_hitl.rendering`, a request as text; `llama_index_hitl.drawing`: pictures of a
  workflow, of a run, and of what has changed.

To test a workflow: `llama_index_hitl.testing`, scripted people, a scripted LLM, a clock that you
move, and crashes. The pure core, for whoever builds on it: `llama_index_hitl.policies`, what the
answers come to, and `llama_index_hitl.lifecycle`, what can become of a request.

Examples in docstrings begin as though after `import asyncio`, `from llama_index_hitl import *` and
`from ... import *` of the module that they stand in.

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
    GrantTerms,
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
    "GrantTerms",
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
