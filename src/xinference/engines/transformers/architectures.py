"""The architectures from which the Transformers server generates text."""

from __future__ import annotations

from xinference.catalog.models import ModelFamily
from xinference.engines.support import YES, Support

#: The ending of architectures that read images or sound.
_MULTIMODAL = "ForConditionalGeneration"
#: Those that transformers 5.23 loads by `AutoModelForCausalLM`, from `MODEL_FOR_CAUSAL_LM_MAPPING_NAMES`: text alone.
_WITH_TEXT = frozenset(
    f"{name}{_MULTIMODAL}"
    for name in (
        "Dots3Note", "Emu3", "Gemma3", "Gemma3n", "Gemma4", "Gemma4Unified", "GotOcr2", "Llama4", "Mllama",
        "MossTranscribeDiarize", "Qwen3_5", "Qwen3_5Moe", "Qwen4Exp",
    )
)  # fmt: skip


def reads_text_of(family: ModelFamily) -> Support:
    """Whether the server can generate text with models of this family; its models read no images."""
    unread = [name for name in family.architectures if name.endswith(_MULTIMODAL) and name not in _WITH_TEXT]
    if family.model_type != "LLM" or not unread:
        return YES
    return Support(f"the Transformers server reads no images or sound, and {unread[0]} has no class for text alone")
