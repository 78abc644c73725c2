"""Answers to a browser: JSON, and errors with their way out."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from runtime.web.access import Visitor
from umlfs.errors import UmlError, UsageError, described, sole

log = logging.getLogger(__name__)
Handler = Callable[[Request], Awaitable[Response]]
BODY_MAX = 1 << 20
"""Bytes of a request that is no upload."""


class Forbidden(Exception):
    """The visitor may not do that."""


def answer(value: object, status: int = 200) -> Response:
    """`value` as JSON, of ASCII alone: names come from guests and need be no UTF-8."""
    return Response(json.dumps(value), status, media_type="application/json")


def failure_of(error: BaseException) -> tuple[int, dict[str, object]]:
    """The status and the JSON that tell of an error."""
    cause = sole(error)
    if isinstance(cause, Forbidden):
        return 403, {"error": str(cause) or "you may not do that"}
    if isinstance(cause, UmlError):
        return 400 if isinstance(cause, UsageError) else 409, {"error": cause.what, "way_out": cause.way_out}
    if isinstance(cause, OSError):
        return 409, {"error": described(cause)}
    log.error("web: a request failed", exc_info=cause)
    return 500, {
        "error": f"internal error: {type(cause).__name__}",
        "way_out": "'uml web' shows more, please report it",
    }


def answering(handler: Handler) -> Handler:
    """`handler`, whose errors become answers."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except (Exception, BaseExceptionGroup) as error:
            status, message = failure_of(error)
            return answer(message, status)

    return handle


def visitor(request: Request) -> Visitor:
    """Who asks."""
    found: Visitor = request.state.visitor
    return found


async def body(request: Request) -> dict[str, Any]:
    """The JSON object that was sent. UsageError for anything else."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > BODY_MAX:
            raise UsageError("too much was sent", "send less")
    try:
        found = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        raise UsageError("what was sent is no JSON") from None
    if not isinstance(found, dict):
        raise UsageError("what was sent is no object")
    return found


def text(table: dict[str, Any], key: str, default: str = "") -> str:
    """A text in `table`. UsageError if it is something else."""
    value = table.get(key, default)
    if not isinstance(value, str) or "\0" in value:
        raise UsageError(f"'{key}' is no text")
    return value
