"""The forms of names that become parts of paths, addresses and command lines. Pure."""

from __future__ import annotations

import re

from xinference.catalog.models import HubName

_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_QUANTIZATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!/-]*")
_MODEL_IDS = {
    "huggingface": re.compile(rf"({_PART}/)?{_PART}"),
    "modelscope": re.compile(rf"{_PART}/{_PART}"),
    "package_index": re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"),
    "local": re.compile(r"[^\x00-\x1f\x7f]+"),
}
#: What a model's id is on each hub, for messages.
MODEL_ID_MEANINGS: dict[HubName, str] = {
    "huggingface": "owner/name",
    "modelscope": "owner/name",
    "package_index": "a distribution's name",
    "local": "a path",
}
#: A name of a file that needs no closer look.
_USUAL_FILE = re.compile(r"\w[\w.{}-]*(/\w[\w.{}-]*)*", re.ASCII)


def is_quantization(text: str) -> bool:
    """Whether a quantization can be a part of a file's name."""
    return _QUANTIZATION.fullmatch(text) is not None and ".." not in text


def is_revision(text: str) -> bool:
    """Whether a text can be a commit, a tag, a branch or a version."""
    return _REVISION.fullmatch(text) is not None and ".." not in text


def is_model_id(hub: HubName, text: str) -> bool:
    """Whether a text has the form of an id on a hub; that of a local model is a path."""
    return _MODEL_IDS[hub].fullmatch(text) is not None and (hub == "local" or ".." not in text)


def is_inside(name: str) -> bool:
    """Whether a file of this name stays inside its target folder."""
    if _USUAL_FILE.fullmatch(name):
        return True
    parts = name.split("/")
    plain = all(part not in ("", ".", "..") for part in parts)
    return plain and not any(c in name for c in "\\\0:") and name.isprintable()
