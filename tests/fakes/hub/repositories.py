"""What the loopback hub serves: repositories, their files, and how it should misbehave."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


class Padded:
    """The bytes of a file of which only the first ones are known; the others are zeros, and are never made whole."""

    def __init__(self, head: bytes, size: int) -> None:
        self.head = head
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        known = self.head[start:stop]
        return known + bytes(max(0, stop - start) - len(known))


Content = bytes | Path | Callable[[], Path] | Padded
#: What the real hubs keep in LFS, and so behind a redirect and under a sha256.
_LFS = (".bin", ".gguf", ".safetensors", ".model", ".pt")


class StoredFile:
    """One file, made when it is first asked for."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._data: bytes | Padded | None = None
        self._lock = threading.Lock()

    @property
    def data(self) -> bytes | Padded:
        with self._lock:
            if self._data is None:
                content = self._content() if callable(self._content) else self._content
                self._data = content.read_bytes() if isinstance(content, Path) else content
            return self._data

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self._known).hexdigest()

    @property
    def git_sha1(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self._known).hexdigest()

    @property
    def _known(self) -> bytes:
        return self.data.head if isinstance(self.data, Padded) else self.data


@dataclass
class Repository:
    """One model of one hub."""

    model_id: str
    files: dict[str, StoredFile]
    revisions: tuple[str, ...]
    """Branches and tags; on Hugging Face also commits. All name the same files."""
    gated: bool = False
    admitted: frozenset[str] = frozenset()
    """Tokens that may read it, if it is gated."""

    @property
    def commit(self) -> str:
        """The commit that every revision stands for: one that was named, or one that follows from the id."""
        named = [r for r in self.revisions if len(r) == 40]
        return named[0] if named else hashlib.sha1(self.model_id.encode()).hexdigest()

    def has(self, revision: str) -> bool:
        return revision in self.revisions or revision == self.commit


@dataclass
class Fault:
    """What goes wrong with one file, the first `times` times that it is asked for."""

    times: int = 1
    cut_at: int | None = None
    """The connection ends before this byte of the file."""
    flip_at: int | None = None
    """This byte is another one."""
    status: int | None = None
    retry_after: int | None = None
    seconds_a_chunk: float = 0.0
    silent_seconds: float = 0.0
    """How long nothing comes after the first chunk."""


@dataclass
class Counters:
    """What the hub was asked for and what it sent."""

    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path with its query, and the Range header."""
    sent: dict[str, int] = field(default_factory=dict)
    """File name -> bytes of it that were sent, in all."""

    def of(self, name: str) -> list[tuple[str, str, str]]:
        """The requests for the bytes of one file."""
        return [r for r in self.requests if r[0] == "GET" and name in r[1] and "/api/models" not in r[1]]


def is_lfs(name: str) -> bool:
    return name.endswith(_LFS)


def repository(
    model_id: str, files: Mapping[str, Content], revisions: tuple[str, ...], *, admitted: tuple[str, ...] | None = None
) -> Repository:
    """A repository; with `admitted`, a gated one that these tokens may read."""
    stored = {name: StoredFile(content) for name, content in files.items()}
    return Repository(model_id, stored, revisions, admitted is not None, frozenset(admitted or ()))
