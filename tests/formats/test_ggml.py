from __future__ import annotations

import os
import random
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.formats.ggml_writer import GGML_QUANTIZATIONS, minimal_ggml, write_ggml
from tests.support.examples import positions
from xinference.errors import Problem
from xinference.formats.ggml import GgmlHeader, read_ggml
from xinference.formats.gguf import read_header

ASSETS = Path(__file__).parent.parent / "assets"
HF = ASSETS / "tiny-llama2-chat-hf"
ORIGINALS = {
    q: ASSETS / "tiny-llama2-chat-ggmlv3" / f"tiny-llama2-chat.ggmlv3.{q}.bin" for q in ("q2_K", "q4_0", "q5_1")
}
UNCHECKED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.bin"


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(Problem) as caught:
        read_ggml(path)
    problem = caught.value
    assert (problem.code, problem.status) == ("bad_weight_file", 400)
    assert str(path) in problem.cause
    assert problem.hint
    return problem.cause


def read_or_refuse(path: Path, data: bytes) -> GgmlHeader | None:
    path.write_bytes(data)
    try:
        return read_ggml(path)
    except Problem as problem:
        assert (problem.code, problem.status) == ("bad_weight_file", 400)
        assert str(path) in problem.cause
        assert problem.hint
        return None


@pytest.mark.parametrize("quantization", ORIGINALS)
def test_a_header_tells_what_an_original_file_holds(quantization: str) -> None:
    header = read_ggml(ORIGINALS[quantization])
    assert header.quantization == quantization
    assert (header.n_vocab, header.n_embd, header.n_layers, header.n_ff) == (1024, 256, 2, 768)
    assert (header.n_head, header.n_kv_heads, header.head_dim) == (4, 4, 64)
    assert len(header.tensors) == 21
    assert header.tensors[-1].offset + header.tensors[-1].size == header.file_size
    assert header.weights_bytes == sum(header.bytes_by_type.values())
    assert header.kv_bytes_per_token() == 2 * 2 * 256 * 2


@pytest.mark.parametrize("quantization", ORIGINALS)
def test_our_writer_writes_what_the_original_tool_wrote(path: Path, quantization: str) -> None:
    """But for K-quants, whose quantizer was improved afterwards: there type and place are compared."""
    ours, original = read_ggml(write_ggml(HF, quantization, path)), read_ggml(ORIGINALS[quantization])
    assert ours.tensors == original.tensors
    data, wanted = path.read_bytes(), ORIGINALS[quantization].read_bytes()
    assert len(data) == len(wanted)
    start = 0
    for tensor in ours.tensors:
        assert data[start : tensor.offset] == wanted[start : tensor.offset]
        start = tensor.offset + tensor.size
        if tensor.type < 10:
            assert data[tensor.offset : start] == wanted[tensor.offset : start]


@pytest.mark.parametrize("quantization", GGML_QUANTIZATIONS)
def test_every_quantization_is_named(path: Path, quantization: str) -> None:
    assert read_ggml(write_ggml(HF, quantization, path)).quantization == quantization


def test_grouped_heads_are_read_from_the_shapes(path: Path) -> None:
    path.write_bytes(minimal_ggml(heads=8, kv_heads=2))
    assert read_ggml(path).n_kv_heads == 2


def test_heads_that_cannot_be_shared_are_refused(path: Path) -> None:
    assert "6 rows" in refused(path, minimal_ggml(heads=4, kv_heads=3))


@pytest.mark.parametrize(
    ("magic", "words"),
    [
        (b"lmgg" + bytes(40), "'ggml' layout"),
        (b"fmgg" + struct.pack("<I", 1) + bytes(40), "'ggmf' layout"),
        (b"tjgg" + struct.pack("<I", 1) + bytes(40), "'ggjt' layout of version 1"),
        (b"tjgg" + struct.pack("<I", 2) + bytes(40), "'ggjt' layout of version 2"),
        (b"algg" + bytes(40), "LoRA"),
        (b"GGUF" + bytes(40), "is GGUF"),
        (b"<html>" + bytes(40), "HTML"),
        (b"", "is empty"),
        (b"abcd", "is not ggml"),
        (b"tjgg" + struct.pack("<I", 4) + bytes(40), "version at byte 4 is 4"),
    ],
)
def test_another_format_is_named(path: Path, magic: bytes, words: str) -> None:
    assert words in refused(path, magic)


def test_gguf_is_sent_to_ggufv2(path: Path) -> None:
    path.write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(Problem, match="ggufv2"):
        read_ggml(path)


def test_a_ggml_file_is_sent_to_ggmlv3(path: Path) -> None:
    path.write_bytes(minimal_ggml())
    with pytest.raises(Problem, match="ggmlv3"):
        read_header(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.bin")
    (tmp_path / "folder.bin").mkdir()
    kinds = {"folder.bin": "is a folder", "pipe.bin": "regular", "none.bin": "exist"}
    for path, words in [(tmp_path / name, words) for name, words in kinds.items()]:
        with pytest.raises(Problem, match=words):
            read_ggml(path)
    with pytest.raises(Problem, match="null"):
        read_ggml(tmp_path / "a\0b.bin")


def test_every_truncation_of_a_minimal_file_is_refused(path: Path) -> None:
    data = minimal_ggml()
    for length in positions(len(data)):
        refused(path, data[:length])


def test_a_cut_between_two_tensors_names_the_one_that_is_missing(path: Path) -> None:
    data = ORIGINALS["q4_0"].read_bytes()
    header = read_ggml(ORIGINALS["q4_0"])
    for done, tensor in enumerate(header.tensors[:-1], 1):
        cause = refused(path, data[: tensor.offset + tensor.size])
        assert f"after {done} of 21 tensors" in cause
        refused(path, data[: tensor.offset + tensor.size - 1])
        refused(path, data[: tensor.offset])


def test_bytes_after_the_last_tensor_are_refused(path: Path) -> None:
    refused(path, minimal_ggml() + b"\0")


def test_a_byte_flipped_anywhere_is_refused_or_leaves_a_valid_header(path: Path) -> None:
    data = minimal_ggml(vocab=3)
    weights: set[int] = set()
    path.write_bytes(data)
    for tensor in read_ggml(path).tensors:
        weights.update(range(tensor.offset, tensor.offset + tensor.size))
    fields = sorted(set(range(len(data))) - weights)
    for position in (fields[number] for number in positions(len(fields))):
        for mask in (0x01, 0x10, 0x80, 0xFF):
            read_or_refuse(path, data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :])


@pytest.mark.parametrize("position", [*range(8, 36, 4), 36, 36 + 4 + 5 + 4])
@pytest.mark.parametrize("value", [0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_absurd_numbers_are_refused_at_once_and_in_little_memory(path: Path, position: int, value: int) -> None:
    data = bytearray(minimal_ggml())
    struct.pack_into("<I", data, position, value)
    tracemalloc.start()
    try:
        read_or_refuse(path, bytes(data))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_tensor_that_occurs_twice_is_refused(path: Path) -> None:
    data = minimal_ggml()
    start = data.index(b"layers.0.attention.wk.weight") - 20
    end = data.index(b"layers.0.attention.wv.weight") - 20
    assert "twice" in refused(path, data + data[start:end])


def test_a_score_that_is_no_number_is_refused(path: Path) -> None:
    data = bytearray(minimal_ggml())
    struct.pack_into("<f", data, 36 + 4 + 5, float("nan"))
    assert "score" in refused(path, bytes(data))


@UNCHECKED
@given(st.binary(max_size=400))
def test_no_bytes_after_the_magic_bring_it_down(path: Path, tail: bytes) -> None:
    read_or_refuse(path, b"tjgg" + struct.pack("<I", 3) + tail)


@UNCHECKED
@given(seed=st.integers(0, 2**32))
def test_several_changed_bytes_are_refused_or_leave_a_valid_header(path: Path, seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(minimal_ggml())
    for _ in range(chance.randint(1, 8)):
        data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    read_or_refuse(path, bytes(data))


def test_a_large_vocabulary_is_gone_through_in_little_memory(path: Path) -> None:
    write_ggml(HF, "q4_0", path)
    tracemalloc.start()
    try:
        read_ggml(path)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
