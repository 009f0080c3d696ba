"""Examples for OpenAPI: an invoice that has to be approved before it is paid."""

from __future__ import annotations

from typing import Any

from fastapi.openapi.models import Example

_REQUEST_ID = "approval-5f1c0b7a9e3d2c44"
_DIGEST = "9d2f0a4c7b1e8f3365a0c1d2e3f4a5b6c7d8e9f00112233445566778899aabbc"
_RUN_ID = "invoice-2026-0142"
_HASH = "1f3870be274f6c49b3e31a0c6728957f3a1c5d0e8b7f6a5d4c3b2a1908f7e6d5"

_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Invoice",
    "properties": {
        "supplier": {"type": "string", "title": "Supplier"},
        "amount": {"type": "integer", "title": "Amount", "description": "In euros."},
    },
    "required": ["supplier", "amount"],
}

_FIELDS: list[Any] = [
    {
        "name": "supplier",
        "label": "Supplier",
        "widget": "text",
        "required": True,
        "choices": [],
        "value": None,
        "help": "",
        "language": None,
    },
    {
        "name": "amount",
        "label": "Amount",
        "widget": "integer",
        "required": True,
        "choices": [],
        "value": None,
        "help": "In euros.",
        "language": None,
    },
]

_COMMENT: dict[str, Any] = {
    "name": "comment",
    "label": "Comment",
    "widget": "textarea",
    "required": False,
    "choices": [],
    "value": None,
    "help": "For the record.",
    "language": None,
}

ME: dict[str, Any] = {
    "id": "alice",
    "name": "Alice Weber",
    "roles": ["finance"],
    "admin": False,
    "sees_all": False,
}

METRICS: dict[str, Any] = {
    "open": 12,
    "overdue": 1,
    "oldest_seconds": 93_600.0,
    "complete": True,
    "decided": 40,
    "median_seconds_to_decide": 1_260.0,
}

WORKFLOWS: dict[str, Any] = {
    "items": [
        {
            "name": "invoice",
            "description": "Pays an invoice when finance has approved it.",
            "start_schema": _SCHEMA,
            "fields": _FIELDS,
            "any_fields": False,
        }
    ]
}

STARTS: dict[str, Example] = {
    "begin": {
        "summary": "Start it, and do not wait",
        "value": {"workflow": "invoice", "inputs": {"supplier": "Acme", "amount": 1200}},
    },
    "wait": {
        "summary": "Under an id of your own, and wait until people are needed",
        "value": {
            "workflow": "invoice",
            "inputs": {"supplier": "Acme", "amount": 1200},
            "run_id": _RUN_ID,
            "wait": True,
        },
    },
}

RUN: dict[str, Any] = {
    "run_id": _RUN_ID,
    "workflow": "invoice",
    "status": "waiting",
    "created_at": "2026-03-02T12:00:00Z",
    "updated_at": "2026-03-02T12:00:01Z",
    "started_by": "frank",
    "tags": [],
    "error": None,
    "open_requests": [_REQUEST_ID],
}

RESULT: dict[str, Any] = {"run_id": _RUN_ID, "result": {"paid": True, "reference": "SEPA-88123"}}

SUMMARY: dict[str, Any] = {
    "request_id": _REQUEST_ID,
    "run_id": _RUN_ID,
    "workflow": "InvoiceFlow",
    "gate": "approval",
    "stage": None,
    "title": "Pay 1200 EUR to Acme?",
    "status": "open",
    "priority": "normal",
    "created_at": "2026-03-02T12:00:01Z",
    "deadline": "2026-03-04T12:00:01Z",
    "overdue": False,
    "revision": 1,
    "level": 0,
    "reviewers": ["role:finance"],
    "tags": ["invoice"],
    "claim": None,
    "approvals": 0,
    "needed": 1,
    "rejections": 0,
    "can_answer": True,
    "voted": False,
    "digest": _DIGEST,
}

_POLICY: dict[str, Any] = {
    "reviewers": ["role:finance"],
    "approvals": 1,
    "per_role": {},
    "rejections": 1,
    "veto_roles": [],
    "barred": {},
    "second_person_for_edit": False,
    "deadline": "2026-03-04T12:00:01Z",
}

DETAIL: dict[str, Any] = {
    **SUMMARY,
    "request": {
        "schema_version": 1,
        "request_id": _REQUEST_ID,
        "run_id": _RUN_ID,
        "workflow": "InvoiceFlow",
        "gate": "approval",
        "stage": None,
        "title": "Pay 1200 EUR to Acme?",
        "body": "The first invoice of this supplier.",
        "subject": {
            "type": "Invoice",
            "data": {"supplier": "Acme", "amount": 1200},
            "json_schema": _SCHEMA,
        },
        "evidence": [],
        "previous": None,
        "feedback": [],
        "allowed": ["approve", "reject"],
        "response_schema": None,
        "policy": _POLICY,
        "escalate_to": [],
        "on_deadline": {"kind": "expire"},
        "ladder": [],
        "requester": "frank",
        "created_at": "2026-03-02T12:00:01Z",
        "revision": 1,
        "sent_back": 0,
        "max_revisions": None,
        "level": 0,
        "supersedes": None,
        "rule": None,
        "approvals": [],
        "priority": "normal",
        "tags": ["invoice"],
        "digest": _DIGEST,
    },
    "policy": _POLICY,
    "answers": [],
    "outcome": {
        "status": "open",
        "approvals": 0,
        "needed": 1,
        "rejections": 0,
        "abstentions": 0,
        "decided_by": [],
        "reason": "0 of 1 approvals.",
    },
    "closed_at": None,
    "superseded_by": None,
    "decisions": [
        {"kind": "approve", "label": "Approve", "fields": [_COMMENT]},
        {"kind": "reject", "label": "Reject", "fields": [_COMMENT]},
    ],
    "diff": [],
}

ANSWERS: dict[str, Example] = {
    "approve": {
        "summary": "Approve it as it is",
        "value": {"decision": "approve", "digest": _DIGEST, "comment": "As agreed."},
    },
    "reject": {
        "summary": "Reject it",
        "value": {"decision": "reject", "digest": _DIGEST, "comment": "We did not order this."},
    },
    "revise": {
        "summary": "Send it back",
        "value": {"decision": "revise", "digest": _DIGEST, "feedback": "Add the order number."},
    },
    "edit": {
        "summary": "Change a field and approve",
        "value": {"decision": "edit", "digest": _DIGEST, "subject": {"amount": 1100}},
    },
    "whole": {
        "summary": "A whole decision, as its schema has it",
        "value": {"decision": {"kind": "respond", "response": "Yes, in May."}, "digest": _DIGEST},
    },
}


def _receipt(decision: dict[str, Any], *, decides: bool) -> dict[str, Any]:
    return {
        "run_id": _RUN_ID,
        "answer": {
            "schema_version": 1,
            "request_id": _REQUEST_ID,
            "digest": _DIGEST,
            "decision": decision,
            "by": {"id": "alice", "roles": ["finance"], "name": "Alice Weber", "kind": "human"},
            "role": None,
            "channel": "api",
            "at": "2026-03-02T12:10:00Z",
        },
        "number": 1,
        "decides": decides,
    }


RECEIPT = _receipt({"comment": "As agreed.", "kind": "approve"}, decides=True)

DELEGATED = _receipt({"comment": None, "kind": "delegate", "to": "bob"}, decides=False)

BULK: dict[str, Example] = {
    "two": {
        "summary": "Approve one, reject another",
        "value": {
            "answers": [
                {"request_id": _REQUEST_ID, "decision": "approve", "digest": _DIGEST},
                {
                    "request_id": "approval-77aa01bc9e3d2c51",
                    "decision": "reject",
                    "digest": _DIGEST,
                    "comment": "A duplicate.",
                },
            ]
        },
    }
}

BULK_RESULTS: dict[str, Any] = {
    "items": [
        {"request_id": _REQUEST_ID, "status": 200, "receipt": RECEIPT, "error": None},
        {
            "request_id": "approval-77aa01bc9e3d2c51",
            "status": 409,
            "receipt": None,
            "error": {
                "type": "already_answered",
                "message": "Request approval-77aa01bc9e3d2c51 was answered by bob at "
                "2026-03-02T12:05:00+00:00 and is approved; the first valid answer stands.",
                "problems": [],
                "request_id": "approval-77aa01bc9e3d2c51",
                "run_id": None,
                "by": "bob",
                "at": "2026-03-02T12:05:00Z",
                "until": None,
                "retry_after": None,
            },
        },
    ]
}

TRAIL: dict[str, Any] = {
    "run_id": _RUN_ID,
    "intact": True,
    "findings": [],
    "seal": {"run_id": _RUN_ID, "number": 1, "hash": _HASH},
    "rows": [
        {
            "number": 1,
            "hash": _HASH,
            "shown": True,
            "kind": "started",
            "at": "2026-03-02T12:00:00Z",
            "request_id": None,
            "actor": "frank",
            "role": None,
            "channel": None,
            "digest": None,
            "reason": "",
            "details": {},
        }
    ],
}
