"""Parses a model name that is in no registry as a path or as a repository on a hub. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from xinference.hubs.local_files import path_of

_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_ID = re.compile(
    rf"(?P<id>{_PART}/{_PART})(?P<file>(?:/{_PART})*/{_PART}\.gguf)?"
    rf"(?:@(?P<revision>[^@\s:]+))?(?::(?P<quantization>{_PART}))?"
)
#: Host in a URL of a repository -> its hub, and the beginning of the paths there.
_HOSTS = {
    "huggingface.co": ("huggingface", ""),
    "www.huggingface.co": ("huggingface", ""),
    "hf.co": ("huggingface", ""),
    "hf-mirror.com": ("huggingface", ""),
    "modelscope.cn": ("modelscope", "models/"),
    "www.modelscope.cn": ("modelscope", "models/"),
}
_URL = re.compile(r"(?:https?://)?(?P<host>[A-Za-z0-9.-]+)/(?P<path>[^?#]*)(?:[?#].*)?")
#: A page or a file of a repository: ``tree/main``, ``blob/main/model.gguf``.
_PAGE = re.compile(rf"(?P<id>{_PART}/{_PART})/(?:tree|blob|resolve)/(?P<revision>[^/]+)(?P<file>/.+)?")


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
    quantization: str | None = None
    """A quantization, as in ``owner/name:Q4_K_M``."""
    hub: str | None = None
    """The hub of a URL; None: the hub is not named."""


def reference(name: str) -> Reference | None:
    """The path or repository that `name` refers to, or None if it can only be a model's name.

    >>> reference("owner/name@v1")
    Reference(path=None, model_id='owner/name', revision='v1', file=None, quantization=None, hub=None)
    """
    name = name.strip()
    if name.startswith("file://"):
        return Reference(path=str(path_of(name)))
    if name.startswith(("/", "./", "../", "~")) or name in (".", ".."):
        return Reference(path=name)
    hub, repository = _without_host(name)
    match = _ID.fullmatch(repository)
    if match is not None and ".." not in repository:
        file, quantization = match["file"], match["quantization"]
        return Reference(
            model_id=match["id"],
            revision=match["revision"],
            file=file[1:] if file else None,
            quantization=None if quantization == "latest" else quantization,
            hub=hub,
        )
    return Reference(path=name) if hub is None and name.lower().endswith(".gguf") else None


def _without_host(name: str) -> tuple[str | None, str]:
    """The hub of the URL of a repository, page or file, and the repository as ``owner/name/file@revision``."""
    if name.startswith("hf://"):
        return "huggingface", name.removeprefix("hf://")
    url = _URL.fullmatch(name)
    if url is None or url["host"].lower() not in _HOSTS:
        return None, name
    hub, beginning = _HOSTS[url["host"].lower()]
    path = unquote(url["path"]).removeprefix(beginning).rstrip("/")
    page = _PAGE.fullmatch(path)
    if page is None:
        return hub, path
    file = page["file"] or ""
    revision = "" if page["revision"] in ("main", "master") else f"@{page['revision']}"
    return hub, f"{page['id']}{file if file.lower().endswith('.gguf') else ''}{revision}"
