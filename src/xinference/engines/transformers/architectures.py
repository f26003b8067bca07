"""The architectures from which the Transformers server generates text, and those whose images it reads."""

from __future__ import annotations

from collections.abc import Sequence

from xinference.catalog.models import ModelFamily
from xinference.engines.support import YES, Support
from xinference.engines.transformers.server.vision_architectures import NEEDING_TORCHVISION, WITH_IMAGES

#: The ending of architectures that read images or sound.
_MULTIMODAL = "ForConditionalGeneration"
#: Those that transformers 5.23 loads by `AutoModelForCausalLM`, from `MODEL_FOR_CAUSAL_LM_MAPPING_NAMES`: text alone.
_WITH_TEXT = frozenset(
    f"{name}{_MULTIMODAL}"
    for name in (
        "Dots3Note", "Emu3", "Gemma3n", "Gemma4", "Gemma4Unified", "GotOcr2", "Llama4", "Mllama",
        "MossTranscribeDiarize", "Qwen3_5", "Qwen3_5Moe", "Qwen4Exp",
    )
)  # fmt: skip


def reads_text_of(family: ModelFamily) -> Support:
    """Whether the server can generate text with models of this family."""
    names = [name for name in family.architectures if name.endswith(_MULTIMODAL) or name in NEEDING_TORCHVISION]
    unread = [name for name in names if name not in _WITH_TEXT and name not in WITH_IMAGES]
    if family.model_type != "LLM" or not unread:
        return YES
    if unread[0] in NEEDING_TORCHVISION:
        cause = "needs torchvision, which the environment of Transformers does not have"
        return Support(f"the processor of {unread[0]} {cause}")
    return Support(
        f"the Transformers server reads no images or sound of {unread[0]}, and it has no class for text alone"
    )


def reads_images_of(architectures: Sequence[str]) -> bool:
    """Whether the server reads images with these architectures of a family; True if none is known."""
    return not architectures or any(name in WITH_IMAGES for name in architectures)
