"""The report of `xinference inspect` as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from xinference.catalog.models import ModelFormat
from xinference.catalog.packing import Packing
from xinference.formats.model_config import ModelConfig

#: Suffixes of files that may be Python pickles: opening one runs a program, so they are never opened.
PICKLES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The facts of some weights; None: unknown."""

    what: str
    """The path or id."""
    model_format: ModelFormat | None
    size_bytes: int
    """Bytes of all weight files."""
    files: tuple[tuple[str, int], ...]
    """Weight files and their sizes in bytes."""
    architecture: str | None = None
    quantization: str | None = None
    layers: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    context_length: int | None = None
    embedding_length: int | None = None
    vocab_size: int | None = None
    bytes_by_type: Mapping[str, int] | None = None
    """Type of tensor or element -> bytes."""
    kv_bytes_per_token: int | None = None
    """Bytes, for elements of 2 bytes."""
    chat_template: str | None = None
    notes: tuple[str, ...] = ()
    packing: Packing | None = None
    no_engine: str | None = None
    """The reason why no engine can load these weights, regardless of their format."""

    @property
    def kv_bytes_full(self) -> int | None:
        """Bytes of KV cache at the whole context length."""
        if self.kv_bytes_per_token is None or self.context_length is None:
            return None
        return self.kv_bytes_per_token * self.context_length

    def to_dict(self) -> dict[str, Any]:
        """The output of `xinference inspect --json`, without the engines."""
        fields = asdict(self)
        fields["files"] = [{"name": name, "size_bytes": size} for name, size in self.files]
        del fields["no_engine"]
        fields["packing"] = self.packing and self.packing.title
        return fields | {"kv_bytes_full": self.kv_bytes_full}


def from_config(what: str, config: ModelConfig, files: tuple[tuple[str, int], ...]) -> Inspection:
    """The report of the weight files `files` (names and bytes) by their config.json."""
    return Inspection(
        what=what,
        model_format=config.model_format,
        size_bytes=sum(size for _, size in files),
        files=files,
        architecture=config.architecture,
        quantization=config.quantization,
        layers=config.n_layers,
        heads=config.n_heads,
        kv_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        context_length=config.context_length,
        embedding_length=config.embedding_length,
        vocab_size=config.vocab_size,
        kv_bytes_per_token=config.kv_bytes_per_token(),
        packing=config.packing,
    )
