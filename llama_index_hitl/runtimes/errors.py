"""The errors of runs on upstream's other runtimes."""

from llama_index_hitl.errors import AnswerRefused, HitlError


class UnsafeRuntime(HitlError, ValueError):
    """A runtime or a setting with which the promises cannot be kept; raised at construction.

    Example:
        >>> from llama_index_hitl.runtimes.server import ReviewServer
        >>> ReviewServer(accept_context_api=True)
        Traceback (most recent call last):
            ...
        llama_index_hitl.runtimes.errors.UnsafeRuntime: accept_context_api=True lets a client
        start a run from a context of its own, with approvals that nobody gave. Leave it
        False.
    """


class ForbiddenEvent(AnswerRefused):
    """A client sent an event that is not for clients to send, such as an approval.

    Example:
        >>> ForbiddenEvent("Approved").code
        'forbidden_event'
    """

    code = "forbidden_event"

    def __init__(self, event_type: str) -> None:
        super().__init__(
            f"A client cannot send {event_type}: only answers come from outside. Answer a request "
            "with ReviewResponseEvent; name other events, which a step waits for, in "
            "add_workflow(..., additional_events=[...])."
        )


class RunOver(AnswerRefused):
    """The run ended, so its requests cannot be answered any more.

    Example:
        >>> print(RunOver("run-1", status="completed"))
        Run run-1 is completed; nothing in it can be answered any more.
    """

    code = "run_over"

    def __init__(self, handler_id: str, *, status: str, request_id: str | None = None) -> None:
        super().__init__(
            f"Run {handler_id} is {status}; nothing in it can be answered any more.",
            request_id=request_id,
        )
