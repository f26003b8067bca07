"""Reads a model's name with a tag, as Ollama writes it: ``name:7b``, ``name:Q4_K_M`` or ``name:7b-q4_K_M``. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from xinference.launch.request import LaunchRequest

#: A page of Ollama's library, which has the name and perhaps the tag in its path.
_LIBRARY = re.compile(r"\A(?:https?://)?(?:www\.)?ollama\.com/library/(?P<name>[^/?#\s]+)/?(?:[?#].*)?\Z")
_TAG = re.compile(r"(?P<name>[^:/\\\s]+):(?P<tag>[^:/\\\s]+)")
_SIZE = re.compile(r"\d+(?:[._]\d+)?[bm]", re.IGNORECASE)
#: The parameters that a mixture of experts uses for each token, which follow its size: ``30b-a3b``.
_ACTIVATED = re.compile(r"a\d+(?:[._]\d+)?b", re.IGNORECASE)
#: Words of Ollama's tags for what the name of a model says here.
_KINDS = ("instruct", "chat", "text", "it")
_LATEST = "latest"


def without_tag(request: LaunchRequest, names: Iterable[str]) -> LaunchRequest:
    """The request with the tag of a known model's name as size and quantization, where it names none itself.

    Args:
        names: the models that are known. A name with a colon that is one of them, or whose part before the colon is
            none, stays as it is; the address of a page of Ollama's library becomes a name.
    """
    name = _LIBRARY.sub(r"\g<name>", request.model_name.strip())
    match = _TAG.fullmatch(name)
    known = {each.lower() for each in names}
    if match is None or name.lower() in known or match["name"].lower() not in known:
        return request if name == request.model_name.strip() else msgspec.structs.replace(request, model_name=name)
    size, quantization = read_tag(match["tag"])
    return msgspec.structs.replace(
        request,
        model_name=match["name"],
        model_size_in_billions=request.model_size_in_billions or size,
        quantization=request.quantization or quantization,
    )


def split_tag(name: str) -> tuple[str, str | None]:
    """The name before the tag, and the tag; None: there is none."""
    match = _TAG.fullmatch(name.strip())
    return (name, None) if match is None else (match["name"], match["tag"])


def read_tag(tag: str) -> tuple[str | None, str | None]:
    """The size and the quantization in a tag.

    >>> [read_tag(tag) for tag in ("latest", "30b-a3b", "Q4_K_M", "0.5b-instruct-q4_K_M")]
    [(None, None), ('30b', None), (None, 'Q4_K_M'), ('0.5b', 'q4_K_M')]
    """
    words = [word for word in tag.split("-") if word.lower() not in (*_KINDS, _LATEST)]
    size = words.pop(0) if words and _SIZE.fullmatch(words[0]) else None
    if size is not None and words and _ACTIVATED.fullmatch(words[0]):
        words.pop(0)
    return size, "-".join(words) or None
