"""Telling people outside what happened: after it is stored, at least once, never in a run's way.

- `Notifier`: what a notifier of your own must do;
- `LogNotifier`: writes to a log; `WebhookNotifier`: sends signed webhooks;
- `deliver`: tells what waits in the outbox of a store; `backoff`: when it tries again;
- `verify_webhook`: for the receiver of webhooks; `sign_webhook` and `new_webhook_secret`: what it
  takes to send them over a transport of your own.
"""

from llama_index_hitl.notifiers._log import LogNotifier
from llama_index_hitl.notifiers._outbox import backoff, deliver
from llama_index_hitl.notifiers._protocol import Notifier
from llama_index_hitl.notifiers._signature import new_webhook_secret, sign_webhook, verify_webhook
from llama_index_hitl.notifiers._webhook import WebhookNotifier

__all__ = [
    "LogNotifier",
    "Notifier",
    "WebhookNotifier",
    "backoff",
    "deliver",
    "new_webhook_secret",
    "sign_webhook",
    "verify_webhook",
]
