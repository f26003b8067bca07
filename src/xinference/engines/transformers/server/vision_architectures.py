"""The architectures whose images this server reads, and those whose processors lack a package here.

This module imports nothing of the engine's environment: planning reads it, too.
"""

from __future__ import annotations

#: Architectures with images: each has a test that compares its tokens with those of transformers' own `generate`.
WITH_IMAGES = frozenset(
    f"{name}ForConditionalGeneration"
    for name in (
        "Gemma3", "Idefics3", "InternVL", "Llava", "LlavaNext", "LlavaOnevision", "Qwen2VL", "Qwen2_5_VL", "Qwen3VL",
        "Qwen3VLMoe", "SmolVLM",
    )
)  # fmt: skip
#: Those whose image tokens attend to all tokens of their own image, also to later ones.
ATTENDING_BOTH_WAYS = frozenset({"Gemma3ForConditionalGeneration"})
#: Those whose processors import torchvision, which has no build for the environment's torch.
NEEDING_TORCHVISION = frozenset({"Mistral3ForConditionalGeneration", "PixtralForConditionalGeneration"})
#: The names of the modules that only images use; they are not packed: kernels for packed layers lack their widths.
TOWER_MODULES = ("visual", "vision_tower", "vision_model", "multi_modal_projector", "connector")
