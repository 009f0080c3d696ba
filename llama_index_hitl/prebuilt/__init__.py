"""Ready workflows, each short enough to copy, each made to be subclassed.

- `DraftApproval`: one draft, approve or reject.
- `IterativeReview`: drafts until one is good, a number of times at most.
- `DocumentApproval`: content review with revisions, then final review.
- `CodeReview`: code is approved, rejected or sent back.
- `ClaimReview`: a structured decision of a model, behind a policy and a person.
- `ResearchReport`: research that a person accepts or sends back, then the report.
- `ConfirmUnderstanding`: act only when the person confirms what was understood.
- `ActionPlan`: the model plans actions, code says which need a person, approved ones are done.

People and agents, strategy by strategy:

- approval gate: `ApproveAction`, one action, done once if it is approved;
- escalation: `SupportDesk`, and for a workflow of your own `escalation_desk`, `RoutingTable` and
  `escalate_tool`;
- feedback loop: `IterativeReview`; a draft that is never approved is never the approved result;
- confirmation: `ConfirmUnderstanding`.

A person in patterns of several agents:

- `GroupChat`: a person who may speak, pass, or end it;
- `Triage`: a person who may overrule to which specialist a request goes;
- `Orchestration`: a person who approves the plan and reviews the findings.

All take any LlamaIndex LLM, and OpenAI's by default. The result of most is a `ReviewResult` with
the status, the final subject, the version and every decision made.
"""

from llama_index_hitl.prebuilt._actions import Action, PlanError
from llama_index_hitl.prebuilt._base import (
    ModelOutputError,
    ProgressEvent,
    ResultStatus,
    ReviewResult,
    ReviewWorkflow,
)
from llama_index_hitl.prebuilt._settling import (
    ActionProposed,
    ActionReport,
    ActionStatus,
    Plan,
    PlannedAction,
    PlanProposed,
    PlanResult,
    PlanState,
)
from llama_index_hitl.prebuilt.approval import (
    ApprovalResult,
    ApprovalStart,
    ApproveAction,
    ProposedAction,
)
from llama_index_hitl.prebuilt.chat import (
    ChatEnd,
    ChatResult,
    ChatStart,
    GroupChat,
    Message,
    Turn,
)
from llama_index_hitl.prebuilt.claim import (
    CLAIM_POLICY,
    ClaimDecision,
    ClaimResult,
    ClaimReview,
    ClaimStart,
)
from llama_index_hitl.prebuilt.code import Code, CodeResult, CodeReview, CodeStart
from llama_index_hitl.prebuilt.confirmation import (
    ConfirmationResult,
    ConfirmationStart,
    ConfirmUnderstanding,
    Detail,
    Understanding,
)
from llama_index_hitl.prebuilt.drafts import (
    DocumentApproval,
    Draft,
    DraftApproval,
    DraftResult,
    DraftStart,
    IterativeReview,
)
from llama_index_hitl.prebuilt.escalation import (
    Escalation,
    EscalationNeeded,
    Guidance,
    GuidanceWithdrawn,
    Guided,
    NoGuidance,
    Route,
    RoutingTable,
    escalate_tool,
    escalation_desk,
    escalation_in,
    mentions,
)
from llama_index_hitl.prebuilt.orchestration import (
    Finding,
    Findings,
    Orchestration,
    OrchestrationResult,
    OrchestrationStart,
    Task,
    TaskPlan,
)
from llama_index_hitl.prebuilt.plan import ActionPlan, PlanStart
from llama_index_hitl.prebuilt.report import ReportResult, ReportStart, Research, ResearchReport
from llama_index_hitl.prebuilt.support import (
    SUPPORT_TRIGGERS,
    EnquiryStart,
    SupportAnswer,
    SupportDesk,
    SupportResult,
    SupportStatus,
    Trigger,
)
from llama_index_hitl.prebuilt.triage import Classification, Triage, TriageResult, TriageStart

__all__ = [
    "CLAIM_POLICY",
    "SUPPORT_TRIGGERS",
    "Action",
    "ActionPlan",
    "ActionProposed",
    "ActionReport",
    "ActionStatus",
    "ApprovalResult",
    "ApprovalStart",
    "ApproveAction",
    "ChatEnd",
    "ChatResult",
    "ChatStart",
    "ClaimDecision",
    "ClaimResult",
    "ClaimReview",
    "ClaimStart",
    "Classification",
    "Code",
    "CodeResult",
    "CodeReview",
    "CodeStart",
    "ConfirmUnderstanding",
    "ConfirmationResult",
    "ConfirmationStart",
    "Detail",
    "DocumentApproval",
    "Draft",
    "DraftApproval",
    "DraftResult",
    "DraftStart",
    "EnquiryStart",
    "Escalation",
    "EscalationNeeded",
    "Finding",
    "Findings",
    "GroupChat",
    "Guidance",
    "GuidanceWithdrawn",
    "Guided",
    "IterativeReview",
    "Message",
    "ModelOutputError",
    "NoGuidance",
    "Orchestration",
    "OrchestrationResult",
    "OrchestrationStart",
    "Plan",
    "PlanError",
    "PlanProposed",
    "PlanResult",
    "PlanStart",
    "PlanState",
    "PlannedAction",
    "ProgressEvent",
    "ProposedAction",
    "ReportResult",
    "ReportStart",
    "Research",
    "ResearchReport",
    "ResultStatus",
    "ReviewResult",
    "ReviewWorkflow",
    "Route",
    "RoutingTable",
    "SupportAnswer",
    "SupportDesk",
    "SupportResult",
    "SupportStatus",
    "Task",
    "TaskPlan",
    "Triage",
    "TriageResult",
    "TriageStart",
    "Trigger",
    "Turn",
    "Understanding",
    "escalate_tool",
    "escalation_desk",
    "escalation_in",
    "mentions",
]
