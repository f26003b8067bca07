from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.hubs.loopback_fetch import version_of
from tests.support.cases import in_one_test
from xinference.catalog.models import Source
from xinference.errors import Problem
from xinference.hubs.completeness import is_whole_folder
from xinference.hubs.listing import ListedFile
from xinference.hubs.selection import choose_files

SOURCE = Source(hub="huggingface", model_id="tiny/llama")
NEEDED = {"config.json", "tokenizer.json", "model.safetensors"}


def chosen(*names: str) -> set[str]:
    files = [ListedFile(name, 1) for name in names]
    return {file.name for file in choose_files(version_of("pytorch", SOURCE), SOURCE, files)}


@in_one_test(
    "copy",
    [
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "tf_model.h5",
        "flax_model.msgpack",
        "model.Q4_0.gguf",
        "onnx/model.onnx",
        "onnx/config.json",
        "original/params.json",
        "consolidated.safetensors",
        "metal/model.safetensors",
        "picture.png",
        "README.md",
        ".gitattributes",
        "optimizer.pt",
    ],
)
def test_a_second_copy_and_what_no_engine_reads_are_left_out(copy: str) -> None:
    assert chosen(*NEEDED, copy) == NEEDED


@pytest.mark.parametrize("beside", ["modeling_x.py", "merges.txt", "chat_template.jinja", "1_Pooling/config.json"])
def test_what_an_engine_reads_beside_the_weights_is_taken(beside: str) -> None:
    assert chosen(*NEEDED, beside) == NEEDED | {beside}


def test_weights_in_pytorchs_own_form_are_taken_where_there_are_no_others() -> None:
    names = {"config.json", "pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"}
    assert chosen(*names, "training_args.bin", "model.safetensors.index.json") == names


@pytest.mark.parametrize("names", [("config.json",), ("model.safetensors",)])
def test_a_folder_without_weights_or_configuration_is_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(Problem) as caught:
        chosen(*names)
    assert caught.value.code == "file_not_found"


def safetensors(length: int) -> bytes:
    header = b'{"w":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (length, length)
    return struct.pack("<Q", len(header)) + header + bytes(length)


def test_a_folder_of_unknown_origin_is_whole_only_with_every_byte_of_every_shard(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    shards = [tmp_path / f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    weights = ",".join(f'"w{i}":"{shard.name}"' for i, shard in enumerate(shards))
    (tmp_path / "model.safetensors.index.json").write_text(f'{{"weight_map":{{{weights}}}}}')
    shards[0].write_bytes(safetensors(10))
    assert not is_whole_folder(tmp_path)
    shards[1].write_bytes(safetensors(10)[:-1])
    assert not is_whole_folder(tmp_path)
    shards[1].write_bytes(safetensors(10))
    assert is_whole_folder(tmp_path)


@pytest.mark.parametrize("weight_map", ['{"w": ["a"]}', '{"w": {}}', '["a"]', "1", '{"w": 1}'])
def test_a_folder_with_a_damaged_index_is_not_whole(tmp_path: Path, weight_map: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(f'{{"weight_map": {weight_map}}}')
    assert not is_whole_folder(tmp_path)


@pytest.mark.parametrize("data", [b"", b"\xff" * 8, struct.pack("<Q", 5) + b"[[[[[", b"\x02" + bytes(7) + b"{}"])
def test_a_damaged_safetensors_header_is_not_whole(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(data)
    assert not is_whole_folder(tmp_path)
