"""A LoRA adapter of another base model is refused with the names of both models, before an engine reads it."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from tests.support.cases import in_one_test
from xinference.errors import Problem
from xinference.launch.model_shape import ModelShape
from xinference.weights.adapter_files import CONFIG, WEIGHTS, check_adapters_fit

BASE = "meta-llama/Llama-2-13b-hf"
Q_PROJ = "base_model.model.model.layers.{}.self_attn.q_proj.lora_A.weight"


def write(folder: Path, tensors: dict[str, tuple[int, int]], base: object = BASE) -> dict[str, str]:
    """An adapter with these tensors, as the launch names it."""
    header, end = {}, 0
    for name, dimensions in tensors.items():
        size = 4 * dimensions[0] * dimensions[1]
        header[name] = {"dtype": "F32", "shape": dimensions, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    folder.mkdir(exist_ok=True)
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
    (folder / CONFIG).write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": base}))
    return {"mine": str(folder)}


def shape(hidden: int = 64, layers: int = 4) -> ModelShape:
    return ModelShape(1, 1, 512, 100, hidden=hidden, layers=layers)


@in_one_test(
    ("tensors", "difference"),
    [
        ({Q_PROJ.format(0): (2, 80)}, "its hidden size is 80, and that of llama-2-chat is 64"),
        ({"model.layers.0.mlp.gate_up_proj.lora_A.default.weight": (2, 32)}, "its hidden size is 32"),
        ({Q_PROJ.format(0): (2, 64), Q_PROJ.format(4): (2, 64)}, "it has a layer 4, and llama-2-chat has 4 layers"),
        ({"model.language_model.layers.9.mlp.down_proj.lora_A.weight": (2, 7)}, "it has a layer 9"),
    ],
)
def test_an_adapter_of_another_base_model_is_refused_with_both_names(
    tmp_path: Path, tensors: dict[str, tuple[int, int]], difference: str
) -> None:
    with pytest.raises(Problem) as caught:
        check_adapters_fit(write(tmp_path / "adapter", tensors), shape(), "llama-2-chat")
    assert (caught.value.code, caught.value.status) == ("bad_weight_file", 400)
    assert caught.value.cause.startswith(f"The adapter mine was trained for the model {BASE}, and does not fit llama-2")
    assert difference in caught.value.cause


@in_one_test("base", [None, "", 7, ["a"]])
def test_an_adapter_without_the_name_of_its_base_model_is_refused_as_well(tmp_path: Path, base: object) -> None:
    with pytest.raises(Problem, match="trained for another model"):
        check_adapters_fit(write(tmp_path / "adapter", {Q_PROJ.format(0): (2, 80)}, base), shape(), "llama-2-chat")


@in_one_test(
    ("tensors", "of"),
    [
        ({Q_PROJ.format(3): (2, 64)}, shape()),  # another name of the base model: a fine-tune of the same one
        ({"base_model.model.model.layers.0.self_attn.o_proj.lora_A.weight": (2, 128)}, shape()),
        ({"base_model.model.vision_tower.layers.11.self_attn.q_proj.lora_A.weight": (2, 32)}, shape()),
        ({"base_model.model.lm_head.lora_A.weight": (2, 64)}, shape()),
        ({Q_PROJ.format(70): (2, 80)}, shape(hidden=0, layers=0)),  # the header of the model has no such numbers
    ],
)
def test_an_adapter_whose_sizes_do_not_differ_is_accepted(
    tmp_path: Path, tensors: dict[str, tuple[int, int]], of: ModelShape
) -> None:
    check_adapters_fit(write(tmp_path / "adapter", tensors), of, "llama-2-chat")
