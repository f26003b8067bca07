"""The bytes that only images use, from the headers of a folder's files."""

from __future__ import annotations

import json
from pathlib import Path

from tests.engines.plans import launch_of, spec_of
from xinference.catalog.models import ModelVersion
from xinference.engines.transformers.server.vision_architectures import TOWER_MODULES
from xinference.weights.shape_reader import VISION_MODULES, read_shape

CONFIG = {
    "architectures": ["LlavaForConditionalGeneration"],
    "text_config": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64},
    "vision_config": {"hidden_size": 4},
}


def write_weights(file: Path, **bytes_of: int) -> None:
    """A file with tensors of these names, in which two underscores stand for a dot."""
    entries, end = {}, 0
    for name, size in bytes_of.items():
        entry = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
        entries[name.replace("__", ".")], end = entry, end + size
    header = json.dumps(entries).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(end))


def test_the_bytes_of_a_tower_are_those_of_its_modules_in_all_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    write_weights(tmp_path / "model-1.safetensors", vision_tower__layers__weight=100, model__norm__weight=7, visual=9)
    write_weights(tmp_path / "model-2.safetensors", model__visual__bias=30, multi_modal_projector__linear_1__weight=5)
    family = launch_of().version.family
    version = ModelVersion(family=family, spec=spec_of("pytorch", "none"), quantization="none")
    shape, _ = read_shape(tmp_path, version)
    assert (shape.vision_bytes, shape.vision_elements) == (135, 4)


def test_the_engine_leaves_the_same_modules_unpacked() -> None:
    assert set(TOWER_MODULES) == VISION_MODULES
