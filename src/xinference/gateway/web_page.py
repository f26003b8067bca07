"""Serves the files of the web page under `/ui/`. They contain no data, so they need no key; the page asks for one.

The headers permit the page nothing but its own files and the server's routes: no script, style, image or frame of
another origin, and no HTML that is made of a text.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from xinference.error_codes import Code
from xinference.gateway.http.asgi import Reply
from xinference.gateway.http.error_replies import refuse_management
from xinference.gateway.routes import READ_METHODS
from xinference.protocol.errors import Header, Refusal

#: The page; its files have relative addresses, so it works under any path of a reverse proxy.
ROOT = "/ui/"
#: Answered to a browser on `/` and on the page's path without its slash. Relative, for the same reason.
HTML: Header = (b"content-type", b"text/html; charset=utf-8")
TO_PAGE: tuple[Header, ...] = ((b"location", b"ui/"), (b"cache-control", b"no-cache"))
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types svelte-trusted-html"
)
HEADERS: tuple[Header, ...] = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
    # Each file is asked for again with its tag: a page and a script of two versions never meet.
    (b"cache-control", b"no-cache"),
    (b"vary", b"accept-encoding"),
)
TEXT_TYPES = ("text/", "application/javascript", "image/svg+xml", "application/json")


@dataclass(frozen=True)
class _File:
    body: bytes
    compressed: bytes
    kind: bytes
    tag: bytes


def is_asked_for(method: str, path: str, headers: dict[bytes, bytes]) -> bool:
    """Whether a request is for the page: for one of its files, or by a browser for the server itself."""
    if path.startswith(ROOT) or path == ROOT[:-1]:
        return True
    return path == "/" and method in READ_METHODS and b"text/html" in headers.get(b"accept", b"")


async def answer(reply: Reply, method: str, path: str, headers: dict[bytes, bytes]) -> None:
    """Answer with a file of the page, or with the way to it."""
    is_head = method == "HEAD"
    if method not in READ_METHODS:
        cause = f"{path[:200]} accepts GET, not {method}."
        refusal = Refusal(Code.METHOD_NOT_ALLOWED, cause, headers=((b"allow", b"GET, HEAD"),))
        await refuse_management(reply, refusal, openai=False)
        return
    if not path.startswith(ROOT):
        await reply.whole(307, b"", TO_PAGE, kind=HTML)
        return
    file = _files().get(path.removeprefix(ROOT) or "index.html")
    if file is None:
        hint = f"The page is {ROOT}." if _files() else "This installation has no built page: `make ui` builds it."
        refusal = Refusal(Code.UNKNOWN_PATH, f"There is no {path[:200]}.", hint=hint)
        await refuse_management(reply, refusal, openai=False)
        return
    tag: Header = (b"etag", file.tag)
    if file.tag in headers.get(b"if-none-match", b""):
        await reply.start(304, (tag, *HEADERS))
        await reply.end()
        return
    kind = (b"content-type", file.kind)
    if b"gzip" in headers.get(b"accept-encoding", b""):
        encoded: tuple[Header, ...] = ((b"content-encoding", b"gzip"), tag, *HEADERS)
        await reply.whole(200, file.compressed, encoded, head=is_head, kind=kind)
    else:
        await reply.whole(200, file.body, (tag, *HEADERS), head=is_head, kind=kind)


@cache
def _files() -> dict[str, _File]:
    """The page's files by name; some 200 KB, read at the first request."""
    folder = files("xinference.web") / "dist"
    if not folder.is_dir():
        return {}
    return {each.name: _file(each.name, each.read_bytes()) for each in folder.iterdir() if each.is_file()}


def _file(name: str, body: bytes) -> _File:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    if name.endswith(".js"):
        kind = "text/javascript"  # of whatever the system's table says: a browser runs no other
    if kind.startswith(TEXT_TYPES):
        kind += "; charset=utf-8"
    tag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
    return _File(body, gzip.compress(body, 9, mtime=0), kind.encode(), tag.encode())
