"""The width of a vision tower for each token of an image, as the makers of models write it in config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.cases import in_one_test
from xinference.errors import Problem
from xinference.formats.model_config import read_config


def elements(vision: Any, **fields: Any) -> int:
    text = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    data = json.dumps({"architectures": ["A"], "text_config": text, "vision_config": vision, **fields}).encode()
    return read_config(data, Path("config.json")).vision_elements


@in_one_test(
    ("vision", "fields", "expected"),
    [
        ({"hidden_size": 1024, "image_size": 336, "patch_size": 14}, {}, 1024),  # LLaVA: a token for each patch
        ({"embed_dim": 1280, "hidden_size": 3584, "spatial_merge_size": 2}, {}, 1280 * 4),  # Qwen2-VL
        ({"hidden_size": 1280, "spatial_merge_size": 2, "out_hidden_size": 3584}, {}, 1280 * 4),  # Qwen2.5-VL
        (
            {"hidden_size": 1152, "image_size": 896, "patch_size": 14},
            {"mm_tokens_per_image": 256},
            1152 * 16,
        ),  # Gemma 3
        ({"hidden_size": 768, "image_size": 512, "patch_size": 16}, {"scale_factor": 4}, 768 * 16),  # SmolVLM
        ({"hidden_size": 1024, "image_size": [448, 448], "patch_size": [14, 14]}, {"downsample_ratio": 0.5}, 4096),
        ({"embed_dim": [256, 512, 1024, 2048], "patch_size": [7, 3, 3, 3]}, {}, 0),  # Florence 2: a tower of stages
        ({"hidden_size": 768, "spatial_merge_size": [2, 2]}, {}, 768),
        ({"hidden_size": 8}, {"downsample_ratio": 1e-200}, 8),
        ({"hidden_size": 8, "image_size": 2**30, "patch_size": 1}, {"mm_tokens_per_image": 1}, 8 * 64**2),
        ({}, {}, 0),
        (None, {}, 0),
        ("tower", {}, 0),
        ({"hidden_size": 8}, {"scale_factor": 10**9, "downsample_ratio": 0, "mm_tokens_per_image": 0}, 8),
    ],
)
def test_the_width_counts_all_patches_of_a_token(vision: Any, fields: dict[str, Any], expected: int) -> None:
    assert elements(vision, **fields) == expected


def test_a_width_that_is_no_count_is_named() -> None:
    with pytest.raises(Problem, match="hidden_size"):
        elements({"hidden_size": "wide"})
