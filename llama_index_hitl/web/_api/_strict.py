"""Bodies that mean one thing: JSON in which no field is said twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from llama_index_hitl.forms import json_in


class StrictRequest(Request):
    """A request whose JSON body is read as `forms.json_in` does.

    The usual reader keeps the last of two equal names, so that a decision could be one thing for
    whoever looks at the body, and another for whoever acts on it.
    """

    async def json(self) -> Any:
        """Return what the body holds.

        Raises:
            json.JSONDecodeError: It is no JSON, or says two things about one field.
        """
        body = await self.body()
        try:
            return json_in(body.decode())
        except json.JSONDecodeError as error:
            reason = f"{error.msg} at character {error.pos}"
        except UnicodeDecodeError:
            reason = "it is not written in UTF-8"
        except ValueError as error:
            reason = str(error)
        except RecursionError:
            reason = "it is nested too deeply"
        raise json.JSONDecodeError(reason, "", 0)


class StrictRoute(APIRoute):
    """A route whose JSON bodies are read by `StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what serves a request."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict
