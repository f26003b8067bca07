from __future__ import annotations

import ctypes
import importlib.util
import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.formats import gguf_writer as w
from tests.support.examples import positions
from xinference.errors import Problem
from xinference.formats.gguf import GgufHeader, read_header
from xinference.formats.tensor_types import TENSOR_TYPES

UNCHECKED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def refused(path: Path) -> str:
    with pytest.raises(Problem) as caught:
        read_header(path)
    problem = caught.value
    assert (problem.code, problem.status) == ("bad_weight_file", 400)
    assert str(path) in problem.cause
    assert problem.hint
    return problem.cause


def read(tmp_path: Path, gguf: w.Gguf) -> GgufHeader:
    return read_header(gguf.write(tmp_path / "m.gguf"))


def refused_with(tmp_path: Path, gguf: w.Gguf) -> str:
    return refused(gguf.write(tmp_path / "m.gguf"))


@pytest.mark.parametrize("version", [2, 3])
def test_a_header_tells_what_the_model_is(tmp_path: Path, version: int) -> None:
    header = read(tmp_path, w.Gguf(version=version))
    assert header.version == version
    assert header.architecture == "llama"
    assert header.quantization == "Q4_K_M"
    assert (header.n_layers, header.n_heads, header.n_kv_heads, header.head_dim) == (2, 4, 2, 16)
    assert (header.context_length, header.embedding_length, header.vocab_size) == (128, 64, 3)
    assert header.chat_template == "{{ messages }}"
    assert not header.pooling_type


def test_weights_are_counted_from_shapes_and_types(tmp_path: Path) -> None:
    gguf = w.Gguf()
    header = read(tmp_path, gguf)
    assert header.tensor_count == 2
    assert header.bytes_by_type == {"F32": 512, "Q4_0": 54}
    assert header.weights_bytes == 566
    assert header.data_offset == len(gguf.header())


def test_kv_bytes_are_summed_over_layers(tmp_path: Path) -> None:
    header = read(tmp_path, w.Gguf())
    assert header.kv_bytes_per_token() == 2 * 2 * (16 + 16) * 2
    assert header.kv_bytes_per_token(type_bytes=1) == 128


def test_an_encoder_has_no_cache(tmp_path: Path) -> None:
    pairs = {name.replace("llama.", "bert."): value for name, value in w.llama_pairs().items()}
    header = read(tmp_path, w.Gguf(pairs=pairs | {"general.architecture": w.scalar(w.STRING, "bert")}))
    assert (header.n_layers, header.kv_bytes_per_token()) == (2, 0)


def test_key_and_value_lengths_win_over_the_division(tmp_path: Path) -> None:
    gguf = w.Gguf()
    gguf.pairs["llama.attention.key_length"] = w.scalar(w.UINT32, 24)
    gguf.pairs["llama.attention.value_length"] = w.scalar(w.UINT32, 8)
    header = read(tmp_path, gguf)
    assert (header.head_dim, header.value_dim) == (24, 8)
    assert header.kv_bytes_per_token() == 2 * 2 * 32 * 2


def test_kv_heads_may_differ_by_layer(tmp_path: Path) -> None:
    gguf = w.Gguf()
    gguf.pairs["llama.attention.head_count_kv"] = w.array(w.INT32, [0, 4])
    header = read(tmp_path, gguf)
    assert header.kv_heads_per_layer == (0, 4)
    assert header.n_kv_heads == 4
    assert header.kv_bytes_per_token() == 4 * 32 * 2


def test_without_kv_heads_every_head_has_its_own(tmp_path: Path) -> None:
    gguf = w.Gguf()
    del gguf.pairs["llama.attention.head_count_kv"]
    assert read(tmp_path, gguf).n_kv_heads == 4


def test_a_file_without_attention_needs_no_kv_cache(tmp_path: Path) -> None:
    gguf = w.Gguf(pairs={"general.architecture": w.scalar(w.STRING, "clip")})
    header = read(tmp_path, gguf)
    assert header.n_layers == 0
    assert header.kv_bytes_per_token() == 0


def test_without_a_file_type_the_commonest_tensor_type_names_the_quantization(tmp_path: Path) -> None:
    gguf = w.Gguf()
    del gguf.pairs["general.file_type"]
    assert read(tmp_path, gguf).quantization == "F32"


def test_a_guessed_file_type_keeps_its_name(tmp_path: Path) -> None:
    gguf = w.Gguf()
    gguf.pairs["general.file_type"] = w.scalar(w.UINT32, 1024 + 3)
    assert read(tmp_path, gguf).quantization == "Q4_1"


def test_pooling_marks_embedding_models_and_rerankers(tmp_path: Path) -> None:
    gguf = w.Gguf()
    gguf.pairs["llama.pooling_type"] = w.scalar(w.UINT32, 4)
    header = read(tmp_path, gguf)
    assert header.pooling_type
    assert header.is_reranker


def test_long_arrays_and_strings_are_counted_but_not_kept(tmp_path: Path) -> None:
    gguf = w.Gguf()
    gguf.pairs["tokenizer.ggml.tokens"] = w.array(w.STRING, [f"token{i}" * (i % 7) for i in range(60_000)])
    gguf.pairs["tokenizer.ggml.scores"] = w.array(w.FLOAT32, [0.5] * 60_000)
    gguf.pairs["general.description"] = w.scalar(w.STRING, "x" * (1 << 21))
    header = read(tmp_path, gguf)
    assert header.vocab_size == 60_000
    assert header.array_lengths["tokenizer.ggml.scores"] == 60_000
    assert "tokenizer.ggml.scores" not in header.metadata
    assert "general.description" not in header.metadata
    assert header.context_length == 128


def test_one_string_longer_than_the_read_ahead_is_gone_over(tmp_path: Path) -> None:
    gguf = w.Gguf()
    gguf.pairs["tokenizer.ggml.tokens"] = w.array(w.STRING, ["a", "b" * 700_000, "c"])
    assert read(tmp_path, gguf).vocab_size == 3


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = w.Gguf().to_bytes()
    path = tmp_path / "m.gguf"
    for length in positions(len(whole)):
        path.write_bytes(whole[:length])
        refused(path)


def test_a_truncated_file_is_told_with_both_sizes(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    whole = w.Gguf().to_bytes()
    path.write_bytes(whole[:-10])
    cause = refused(path)
    assert f"promises at least {len(whole)} bytes" in cause
    assert f"has {len(whole) - 10}" in cause


def test_every_byte_set_to_its_extremes_gives_a_header_or_a_problem(tmp_path: Path) -> None:
    whole = w.Gguf().to_bytes()
    path = tmp_path / "m.gguf"
    for position in positions(len(w.Gguf().header())):
        for mask in (0x01, 0x80, 0xFF):
            flipped = bytearray(whole)
            flipped[position] ^= mask
            path.write_bytes(flipped)
            _header_or_problem(path)


@UNCHECKED
@given(changes=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=8))
def test_any_changed_bytes_give_a_header_or_a_problem(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    data = bytearray(w.Gguf().to_bytes())
    for position, value in changes:
        data[position] = value
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    _header_or_problem(path)


@UNCHECKED
@given(tail=st.binary(max_size=400))
def test_any_bytes_after_the_magic_give_a_header_or_a_problem(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF\x03\0\0\0" + tail)
    _header_or_problem(path)


def _header_or_problem(path: Path) -> None:
    try:
        header = read_header(path)
    except Problem as problem:
        assert problem.code == "bad_weight_file"
    else:
        assert header.quantization is None or isinstance(header.quantization, str)
        assert header.kv_bytes_per_token() >= 0


@pytest.mark.parametrize(
    ("gguf", "says"),
    [
        (w.Gguf(version=1), "version 1"),
        (w.Gguf(version=4), "version 4"),
        (w.Gguf(version=3 << 24), "big-endian"),
        (w.Gguf(tensor_count=1 << 60), "tensors"),
        (w.Gguf(pair_count=1 << 60), "metadata entries"),
        (w.Gguf(tensors=[w.tensor("w", (1,) * 5, 0, 0)]), "5 dimensions"),
        (w.Gguf(tensors=[w.tensor("w", (64,), 4, 0)]), "type 4"),
        (w.Gguf(tensors=[w.tensor("w", (33,), 2, 0)]), "[33]"),
        (w.Gguf(tensors=[w.tensor("w", (64, 0), 0, 0)]), "[64, 0]"),
        (w.Gguf(tensors=[w.tensor("w", (64,), 0, 5)]), "offset"),
        (w.Gguf(tensors=[w.tensor("w", (64,), 0, 1024)]), "truncated"),
        (w.Gguf(tensors=[w.tensor("v", (64,), 0, 0), w.tensor("w", (64,), 0, 0)]), "tensor 'w' begins at 0, before"),
        (w.Gguf(tensors=[w.tensor("v", (64,), 0, 256), w.tensor("w", (64,), 0, 0)]), "the tensor before it, 512"),
        (w.Gguf(tensors=[w.tensor("w", (1 << 62, 1 << 62), 0, 0)]), "claims"),
        (w.Gguf(pairs={}), "architecture"),
        (w.Gguf(pairs={"general.architecture": w.scalar(w.UINT32, 7)}), "architecture"),
        (w.Gguf(pairs={"k" * 2000: w.scalar(w.UINT32, 7)}), "2000"),
    ],
)
def test_impossible_values_are_named(tmp_path: Path, gguf: w.Gguf, says: str) -> None:
    assert says in refused_with(tmp_path, gguf)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("general.alignment", w.scalar(w.UINT32, 12), "alignment is 12"),
        ("general.alignment", w.scalar(w.STRING, "32"), "alignment is '32'"),
        ("llama.context_length", w.scalar(w.STRING, "long"), "llama.context_length is 'long'"),
        ("llama.block_count", w.scalar(w.INT32, -1), "llama.block_count is -1"),
        ("llama.block_count", w.scalar(w.UINT32, 1 << 30), "llama.block_count"),
        ("llama.attention.head_count_kv", w.array(w.INT32, [1, 2, 3]), "3 numbers for 2 layers"),
        ("x", struct.pack("<I", 77), "unknown value type 77"),
        ("x", struct.pack("<IIQ", w.ARRAY, w.ARRAY, 1), "arrays as elements"),
        ("x", struct.pack("<IIQ", w.ARRAY, 99, 1), "unknown type 99"),
        ("x", struct.pack("<IIQ", w.ARRAY, w.STRING, 1 << 60), "strings"),
        ("x", struct.pack("<IIQ", w.ARRAY, w.UINT64, 1 << 61), "claims"),
        ("x", struct.pack("<IIQQ", w.ARRAY, w.STRING, 2, 1 << 63), "claims"),
        ("x", struct.pack("<IQ", w.STRING, (1 << 64) - 1), "claims"),
    ],
)
def test_wrong_metadata_is_named(tmp_path: Path, key: str, value: bytes, says: str) -> None:
    gguf = w.Gguf()
    gguf.pairs[key] = value
    assert says in refused_with(tmp_path, gguf)


@pytest.mark.parametrize("key", ["tokenizer.chat_template", "tokenizer.chat_template.tool_use"])
def test_a_template_that_no_model_has_is_refused_and_other_long_strings_are_not(tmp_path: Path, key: str) -> None:
    long = w.scalar(w.STRING, "x" * ((1 << 20) + 1))
    gguf = w.Gguf()
    gguf.pairs |= {"general.description": long}
    (tmp_path / "m.gguf").write_bytes(gguf.to_bytes())
    assert "general.description" not in read_header(tmp_path / "m.gguf").metadata
    gguf.pairs[key] = long
    assert f"metadata '{key}' claims 1048577 bytes" in refused_with(tmp_path, gguf)


def test_a_key_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    pair = w.text("a") + w.scalar(w.UINT32, 1)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + pair + pair)
    assert "twice" in refused(path)


def test_a_tensor_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    gguf = w.Gguf()
    gguf.tensors.append(gguf.tensors[0])
    assert "occurs twice" in refused_with(tmp_path, gguf)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"lmgg" + bytes(40), "older ggml format (ggml)"),
        (b"tjgg\x03\0\0\0" + bytes(40), "older ggml format (ggjt)"),
        (b"PK\x03\x04" + bytes(40), "zip archive"),
        (b"\x80\x02}q\x00.", "pickle"),
        (struct.pack("<Q", 20) + b'{"a":{"dtype":"F32"}' + bytes(9), "safetensors"),
        (b"\n<!DOCTYPE html><html>", "HTML page"),
        (b'{"error": "not found"}', "JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git-lfs pointer"),
        (bytes(600), "zero bytes"),
        (b"hello world", "is not GGUF"),
    ],
)
def test_a_foreign_file_is_told_by_its_name(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    assert says in refused(path)


def test_ggml_files_are_pointed_to_their_format(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    path.write_bytes(b"tjgg" + bytes(8))
    with pytest.raises(Problem, match="--model-format ggmlv3"):
        read_header(path)


def test_missing_files_folders_and_pipes_are_named(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "none.gguf")
    folder = tmp_path / "folder.gguf"
    folder.mkdir()
    assert "is a folder" in refused(folder)
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    assert "not a regular file" in refused(pipe)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    path = w.Gguf().write(tmp_path / "m.gguf")
    path.chmod(0)
    assert "Permission denied" in refused(path)


def test_type_table_agrees_with_the_ggml_that_runs_the_models() -> None:
    ggml = _ggml()
    for number, (name, block, block_bytes) in TENSOR_TYPES.items():
        assert ggml.ggml_type_name(number).decode().upper() == name.upper()
        assert (ggml.ggml_blck_size(number), ggml.ggml_type_size(number)) == (block, block_bytes)


def _ggml() -> ctypes.CDLL:
    spec = importlib.util.find_spec("xllamacpp")
    assert spec is not None and spec.submodule_search_locations
    library = next(Path(next(iter(spec.submodule_search_locations))).glob("xllamacpp*.so"))
    ggml = ctypes.CDLL(str(library))
    ggml.ggml_type_name.restype = ctypes.c_char_p
    ggml.ggml_blck_size.restype = ctypes.c_int64
    ggml.ggml_type_size.restype = ctypes.c_size_t
    return ggml
