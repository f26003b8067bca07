"""Facts of a model that a ggmlv3 file does not contain: from the registry, compared with the file's header."""

from __future__ import annotations

from dataclasses import dataclass

from xinference.catalog.models import ModelVersion
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.formats.ggml import GgmlHeader


@dataclass(frozen=True)
class LlamaFacts:
    """The facts that a conversion needs in addition to the ggmlv3 file."""

    name: str
    context_length: int
    """The trained context in tokens."""
    rms_norm_eps: float
    """1e-5 for Llama 2, 1e-6 for the first LLaMA; the default of the programs that read such files was neither."""
    n_gqa: int = 1
    """Query heads that share one key and value head, by the registry; the tensors' shapes override it."""
    rope_freq_base: float = 10000.0
    bos_token_id: int = 1
    eos_token_id: int = 2
    unk_token_id: int = 0
    chat_template: str | None = None
    """Jinja source."""


def facts_for(version: ModelVersion) -> LlamaFacts:
    """The registry's facts for a ggmlv3 version.

    Raises:
        Problem: 400 ``ggml_facts_missing``: its spec does not contain them.
    """
    family, ggml = version.family, version.spec.ggml
    if ggml is None:
        raise Problem(
            Code.GGML_FACTS_MISSING,
            f"The spec of {version.version_id} has no field 'ggml', and a ggmlv3 file cannot be used without it.",
            hint='Add "ggml": {"rms_norm_eps": 1e-05, "n_gqa": 1} with the model\'s own numbers, or use model format '
            "ggufv2.",
        )
    return LlamaFacts(
        name=f"{family.model_name} {version.size}B",
        context_length=family.context_length,
        rms_norm_eps=ggml.rms_norm_eps,
        n_gqa=ggml.n_gqa,
        rope_freq_base=ggml.rope_freq_base,
        bos_token_id=ggml.bos_token_id,
        eos_token_id=ggml.eos_token_id,
        unk_token_id=ggml.unk_token_id,
        chat_template=family.chat_template,
    )


def disagreements(header: GgmlHeader, facts: LlamaFacts) -> tuple[str, ...]:
    """Differences between the file's shapes and the registry, as sentences for the plan; the shapes are used."""
    n_gqa = header.n_head // header.n_kv_heads
    if n_gqa == facts.n_gqa:
        return ()
    return (
        f"the registry has {facts.n_gqa} query heads for each key and value head, and the file's tensors have "
        f"{header.n_head} for {header.n_kv_heads}: the file's {n_gqa} is used",
    )
