"""The documents and search results of Anthropic's API as texts, which every engine reads."""

from __future__ import annotations

from typing import Any

from xinference.engines.dialect import Body
from xinference.error_codes import Code
from xinference.gateway.canonical_fields import check_text, required, unsupported
from xinference.protocol.errors import Refusal

#: The types of blocks with a document.
DOCUMENTS = frozenset({"document", "search_result"})


def as_parts(block: Body, at: str) -> list[Body]:
    """The parts of a message for a document or a search result: a text, and the images of the document.

    The text begins with the title, and with the context of a document or the source of a search result.

    Raises:
        Refusal: 400, the document is no text, or it asks for citations.
    """
    citations = block.get("citations")
    if isinstance(citations, dict) and citations.get("enabled"):
        raise unsupported(f"{at}.citations", "models here cite no documents.", "Leave it out.")
    is_search = block["type"] == "search_result"
    content, where = (block.get("content"), f"{at}.content") if is_search else _content(block.get("source"), at)
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise required(where)
    for n, part in enumerate(content):
        if part["type"] == "text":
            check_text(part, f"{where}[{n}]")
        elif part["type"] != "image" or is_search:
            cause = f"{where}[{n}].type: content of the type {part['type']} is not taken here."
            raise Refusal(Code.UNSUPPORTED_CONTENT, cause, param=f"{where}[{n}].type")
    heads = (block.get("title"), block.get("source") if is_search else block.get("context"))
    texts = [*heads, "\n".join(part["text"] for part in content if part["type"] == "text")]
    text = "\n\n".join(text for text in texts if isinstance(text, str) and text)
    return [{"type": "text", "text": text}, *(part for part in content if part["type"] == "image")]


def _content(source: Any, at: str) -> tuple[Any, str]:
    """The content of a document's source, and its place."""
    source = source if isinstance(source, dict) else {}
    kind = source.get("type")
    if kind == "content":
        return source.get("content"), f"{at}.source.content"
    if kind == "text":
        return source.get("data"), f"{at}.source.data"
    if kind is None:
        raise required(f"{at}.source.type")
    named = f"{kind} ({source['media_type']})" if isinstance(source.get("media_type"), str) else str(kind)
    cause = f"{at}.source.type: a document of the type {named[:100]} is not taken here."
    hint = "Send its text, with the source type text."
    raise Refusal(Code.UNSUPPORTED_CONTENT, cause, hint=hint, param=f"{at}.source.type")
