"""Parses a model name that is in no registry as a path or as a repository on a hub. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_ID = re.compile(rf"(?P<id>{_PART}/{_PART})(?P<file>(?:/{_PART})*/{_PART}\.gguf)?(?:@(?P<revision>[^@\s]+))?")


@dataclass(frozen=True)
class Reference:
    """A path or a repository."""

    path: str | None = None
    """A file or folder on the server's machine, as the user wrote it."""
    model_id: str | None = None
    """``owner/name``."""
    revision: str | None = None
    """Branch, tag or commit; None: the default branch."""
    file: str | None = None
    """One GGUF file of the repository, as in ``owner/name/model-Q4_K_M.gguf``."""


def reference(name: str) -> Reference | None:
    """The path or repository that `name` refers to, or None if it can only be a model's name.

    >>> reference("owner/name@v1")
    Reference(path=None, model_id='owner/name', revision='v1', file=None)
    """
    name = name.strip()
    if name.startswith(("/", "./", "../", "~")) or name in (".", ".."):
        return Reference(path=name)
    match = _ID.fullmatch(name)
    if match is not None and ".." not in name:
        file = match["file"]
        return Reference(model_id=match["id"], revision=match["revision"], file=file[1:] if file else None)
    return Reference(path=name) if name.lower().endswith(".gguf") else None
