"""Launchable models: families, their specs, and versions, which are specs with a chosen quantization.

All are frozen. Registry files are decoded to these types directly, and an unknown or misplaced field is an error.
The garbage collector does not track them: there are tens of thousands, and no cycles.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Literal

import msgspec

HubName = Literal["huggingface", "modelscope", "package_index", "local"]
ModelType = Literal["LLM", "embedding", "rerank"]
ModelFormat = Literal["ggufv2", "ggmlv3", "pytorch", "gptq", "awq", "fp8", "fp4", "bnb", "mlx"]

_SPECIAL_TOKEN = re.compile(r"</?[^<>\s]+>")


class FileFacts(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """Facts about one file, known before it is downloaded."""

    size: int | None = None
    """Bytes."""
    sha256: str | None = None


class Draft(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, kw_only=True):
    """A small model that proposes tokens for speculation, on the same hub."""

    model_id: str
    """Repository id, may contain ``{quantization}``."""
    file: str | None = None
    """File name, may contain ``{quantization}``; None: the whole folder."""
    quantizations: tuple[str, ...] = ()
    """The draft's own quantizations, in the order of preference; empty: it has one form."""


class Source(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, kw_only=True):
    """A spec's weights on one hub."""

    hub: HubName
    model_id: str
    """Repository id; for a package index, the distribution's name. Case-sensitive."""
    revision: str | None = None
    """Commit, tag or package version; None: the hub's default branch."""
    file: str | None = None
    """File name, may contain ``{quantization}``; None: the whole folder. Package index: a path with a ``/`` at its end
    is a folder of the wheel."""
    quantizations: tuple[str, ...] | None = None
    """The quantizations on this hub; None: all of the spec's."""
    parts: dict[str, tuple[str, ...]] = {}
    """Quantization -> names of the split files, in the order of the parts."""
    projectors: tuple[str, ...] = ()
    """Multimodal projectors for llama.cpp, in the same repository; if there are several, the launch names one."""
    draft: Draft | None = None
    archive_sha256: str | None = None
    """Package index only: the wheel's own hash."""
    facts: dict[str, FileFacts] = {}
    """Quantization -> facts about its file."""

    def has(self, quantization: str) -> bool:
        return self.quantizations is None or quantization in self.quantizations

    def file_name(self, quantization: str) -> str | None:
        return None if self.file is None else self.file.replace("{quantization}", quantization)


class GgmlFacts(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, kw_only=True):
    """Facts of a llama model that a ggmlv3 file does not contain and llama.cpp needs."""

    rms_norm_eps: float
    n_gqa: int = 1
    """Query heads that share one key and value head."""
    rope_freq_base: float = 10000.0
    bos_token_id: int = 1
    eos_token_id: int = 2
    unk_token_id: int = 0


class ModelShapeFacts(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, kw_only=True):
    """The architecture of one size, as in its config.json, from which its memory is computed before any download."""

    parameters: int
    layers: int
    heads: int
    """Query heads."""
    kv_heads: int
    """Fewer than `heads` where attention is grouped."""
    head_dim: int
    hidden: int
    vocab: int
    tied: bool = False
    """Whether the output matrix is the embedding matrix, and stored once."""
    experts: int | None = None
    """Experts of a layer in a mixture of experts; None: the model is dense, or the number is not known."""
    experts_per_token: int | None = None
    full_attention_interval: int = 1
    """Every n-th layer stores keys and values; the others have linear attention, with a state of constant size."""
    latent_dim: int | None = None
    """Stored elements of one token and layer with latent attention (MLA), all heads together; None: it has none."""


class ModelSpec(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, kw_only=True):
    """One size in one format, with one or more quantizations."""

    model_format: ModelFormat
    model_size_in_billions: int | str
    """Billions of parameters; a string such as ``1_8`` means 1.8. 0, of embedding and rerank models: not known."""
    activated_size_in_billions: int | str | None = None
    """Billions of parameters that compute one token, in a mixture of experts."""
    quantizations: tuple[str, ...]
    sources: tuple[Source, ...]
    ggml: GgmlFacts | None = None
    """For ``ggmlv3`` only, and required there."""
    shape: ModelShapeFacts | None = None
    """None: unknown until the weights are downloaded."""
    weights_bytes: dict[str, int] = {}
    """Quantization -> bytes of its weights, from the index of the repository."""

    def source(self, hub: HubName) -> Source | None:
        return next((s for s in self.sources if s.hub == hub), None)


class ModelFamily(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, kw_only=True):
    """A model by name, with the fields that are the same for all its sizes."""

    model_name: str
    context_length: int
    """The trained context in tokens."""
    model_lang: tuple[str, ...]
    model_ability: tuple[str, ...]
    model_specs: tuple[ModelSpec, ...]
    model_description: str = ""
    model_type: ModelType = "LLM"
    dimensions: int | None = None
    """Length of an embedding model's vectors; None: not known."""
    chat_template: str | None = None
    """Jinja template that replaces the weight file's own; None: the file's."""
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    tool_parser: str | None = None
    """The parser of tool calls, by an engine's or an older Xinference's name; None: derived from the model's name."""
    reasoning_tags: tuple[str, str] | None = None
    """The tags before and after the reasoning; None: derived from the model's name."""
    architectures: tuple[str, ...] = ()
    """Names of the classes in the weights' config.json."""
    rerank_type: str | None = None
    """``normal``, or the kind of a language model that ranks."""

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """The texts of `stop` that an answer can contain; special tokens are not decoded, and end an answer anyway."""
        return tuple(text for text in self.stop if not _SPECIAL_TOKEN.fullmatch(text))


class ModelVersion(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A spec with a chosen quantization: exactly one unit to download and run."""

    family: ModelFamily
    spec: ModelSpec
    quantization: str

    @property
    def size(self) -> str:
        return str(self.spec.model_size_in_billions)

    @property
    def version_id(self) -> str:
        """``llama-2-chat--7B--ggufv2--Q4_K_M``, as in cache listings."""
        return f"{self.family.model_name}--{self.size}B--{self.spec.model_format}--{self.quantization}"

    def to_dict(self) -> dict[str, Any]:
        """The fields that name it in the entries of the API."""
        return {
            "model_name": self.family.model_name,
            "model_type": self.family.model_type,
            "model_size_in_billions": self.spec.model_size_in_billions,
            "model_format": self.spec.model_format,
            "quantization": self.quantization,
        }


FORMAT_ALIASES = {"gguf": "ggufv2", "ggml": "ggmlv3", "safetensors": "pytorch"}


def same_size(left: float | str, right: float | str) -> bool:
    """Whether two sizes in billions are equal: ``7`` and ``"7B"``, ``"0_5"`` and ``"0.5b"``, or 135M and 0.135."""
    return number_of_billions(left) == number_of_billions(right)


@lru_cache(maxsize=1024)
def number_of_billions(size: float | str) -> float | str:
    """The size as a number of billions of parameters; a text that is no size is returned in lower case."""
    text = str(size).strip().replace("_", ".").lower()
    number, unit = (text[:-1], text[-1]) if text[-1:] in ("b", "m") else (text, "b")
    try:
        return float(number) / 1000 if unit == "m" else float(number)
    except ValueError:
        return text


def billions(size: float | str) -> float:
    """The size as a number of billions of parameters: ``1_8`` is 1.8; 0 if the text is no size."""
    number = number_of_billions(size)
    return 0.0 if isinstance(number, str) else number


def written_size(size: float | str) -> str:
    """The size as people write it.

    >>> [written_size(size) for size in (7, "1_8", "0.5b", "135M")]
    ['7B', '1.8B', '0.5B', '135M']
    """
    text = str(size).strip().replace("_", ".").upper()
    return text if text.endswith(("B", "M")) else f"{text}B"
