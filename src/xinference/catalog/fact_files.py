"""The form of the fact files: `llm.json`, `embedding.json` and `rerank.json`, one family a line (docs/catalog.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from xinference.catalog.models import HubName


class HubFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A spec's repository on one hub."""

    id: str
    """May contain ``{quantization}``: each quantization is a repository of its own."""
    quantizations: tuple[str, ...]
    revision: str | None = None
    file: str | None = None
    split_file: str | None = None
    """File name of one part, with ``{quantization}`` and ``{part}``."""
    parts: dict[str, tuple[str, ...]] = {}
    """Quantization -> parts."""
    projectors: tuple[str, ...] | str = ()
    """Names, or one name."""
    draft_id: str | None = None
    draft_file: str | None = None
    draft_quantizations: tuple[str, ...] = ()


class SpecFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One size in one format."""

    format: str
    size_in_billions: int | str = 0
    activated_in_billions: int | str | None = None
    hubs: dict[HubName, HubFacts]
    metadata: dict[str, Any] | None = None
    metadata_by_quantization: dict[str, dict[str, Any]] = {}

    def metadata_of(self, quantization: str) -> dict[str, Any] | None:
        return self.metadata_by_quantization.get(quantization) or self.metadata


class FamilyFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One family; `max_tokens` and the type are of embedding and rerank models."""

    name: str
    specs: tuple[SpecFacts, ...]
    context_length: int | None = None
    max_tokens: int | None = None
    dimensions: int | None = None
    type: str | None = None
    languages: tuple[str, ...] = ()
    abilities: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    reasoning_start: str | None = None
    reasoning_end: str | None = None
    tool_parser: str | None = None
    featured: bool = False
    updated_at: int | None = None
    has_own_chat_template: bool = False


def read_facts(folder: Path) -> dict[str, tuple[FamilyFacts, ...]]:
    """Model type -> its families, from the three files of a folder."""
    files = {"LLM": "llm.json", "embedding": "embedding.json", "rerank": "rerank.json"}
    return {
        model_type: msgspec.json.decode((folder / name).read_bytes(), type=tuple[FamilyFacts, ...])
        for model_type, name in files.items()
    }
