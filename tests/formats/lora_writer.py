"""Writes a LoRA adapter by hand in PEFT's own file format: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import json
import random
import struct
from array import array
from pathlib import Path

RANK = 2
PROJECTIONS = ("q_proj", "v_proj")


def write_lora(folder: Path, base: Path, *, scale: float, seed: int = 0) -> Path:
    """An adapter of the llama in `base`, whose weights are uniform in ±`scale`; returns `folder`."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    numbers = random.Random(seed)
    size: int = config["hidden_size"]
    header: dict[str, dict[str, object]] = {}
    data = bytearray()
    for layer in range(config["num_hidden_layers"]):
        for projection in PROJECTIONS:
            for matrix, shape in (("lora_A", [RANK, size]), ("lora_B", [size, RANK])):
                values = array("f", (numbers.uniform(-scale, scale) for _ in range(RANK * size)))
                begin = len(data)
                data += values.tobytes()
                name = f"base_model.model.model.layers.{layer}.self_attn.{projection}.{matrix}.weight"
                header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    folder.mkdir(parents=True)
    adapter = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(PROJECTIONS),
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(adapter), encoding="utf-8")
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder
