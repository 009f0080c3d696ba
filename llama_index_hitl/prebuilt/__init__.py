"""Ready workflows, each short enough to copy, each made to be subclassed.

- `DraftApproval`: one draft, approve or reject.
- `IterativeReview`: drafts until one is good, a number of times at most.
- `DocumentApproval`: content review with revisions, then final review.
- `CodeReview`: code is approved, rejected or sent back.
- `ClaimReview`: a structured decision of a model, behind a policy and a person.
- `ResearchReport`: research that a person accepts or sends back, then the report.
- `ConfirmUnderstanding`: act only when the person confirms what was understood.
- `ActionPlan`: the model plans actions, code says which need a person, approved ones are done.

All take any LlamaIndex LLM, and OpenAI's by default. The result of each is a `ReviewResult` with
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
from llama_index_hitl.prebuilt.plan import (
    ActionPlan,
    PlanResult,
    PlanStart,
    PlanState,
)
from llama_index_hitl.prebuilt.report import ReportResult, ReportStart, Research, ResearchReport

__all__ = [
    "CLAIM_POLICY",
    "Action",
    "ActionPlan",
    "ActionProposed",
    "ActionReport",
    "ActionStatus",
    "ClaimDecision",
    "ClaimResult",
    "ClaimReview",
    "ClaimStart",
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
    "IterativeReview",
    "ModelOutputError",
    "Plan",
    "PlanError",
    "PlanProposed",
    "PlanResult",
    "PlanStart",
    "PlanState",
    "PlannedAction",
    "ProgressEvent",
    "ReportResult",
    "ReportStart",
    "Research",
    "ResearchReport",
    "ResultStatus",
    "ReviewResult",
    "ReviewWorkflow",
    "Understanding",
]
