"""The entries of an ASGI scope that are this server's own: what the protocol offers an app, and what an app may set."""

from __future__ import annotations

from collections.abc import Callable

Watch = Callable[[Callable[[], None] | None], None]
TakeBody = Callable[[], bytes | None]

#: The entries for `Protocol.watch`, `Protocol.take_body`, `Protocol.write` and `Protocol.write_whole`.
WATCH = "xinference.watch"
TAKE_BODY = "xinference.take_body"
WRITE = "xinference.write"
WRITE_WHOLE = "xinference.write_whole"
#: The entry for a function that an app may set: whether other requests wait for what this request occupies.
CONTENDED = "xinference.contended"
#: The entry that an app may set: the maximum seconds in which the client reads nothing of this answer, in place of the
#: server's limit. The answer must not grow meanwhile.
READ_PAUSE = "xinference.read_pause"
