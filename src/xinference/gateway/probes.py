"""Answers the paths by which orchestrators check whether the server runs and is ready.

They need no key, and their answers name nothing but the version.
"""

from __future__ import annotations

from xinference.error_codes import Code
from xinference.errors import SERVER_STOPPING, SERVER_STOPPING_HINT
from xinference.gateway.http.asgi import Reply
from xinference.gateway.http.error_replies import refuse
from xinference.gateway.routes import PROBES, READY
from xinference.protocol.errors import Refusal

_METHODS = frozenset({"GET", "HEAD"})
#: `Retry-After` of a server that stops, in seconds.
_RETRY_SECONDS = 5


async def answer_probe(reply: Reply, method: str, path: str, *, is_stopping: bool) -> None:
    """Answer a request to one of `PROBES`; a server that is stopping lives, but is not ready."""
    if method not in _METHODS:
        allow = ((b"allow", b"GET, HEAD"),)
        await refuse(reply, Refusal(Code.METHOD_NOT_ALLOWED, f"{path} accepts GET, not {method}.", headers=allow))
    elif path == READY and is_stopping:
        stopping = Refusal(Code.SERVER_STOPPING, SERVER_STOPPING, hint=SERVER_STOPPING_HINT, retry_after=_RETRY_SECONDS)
        await refuse(reply, stopping)
    else:
        await reply.whole(200, PROBES[path], head=method == "HEAD")
