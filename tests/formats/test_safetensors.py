from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xinference.errors import Problem
from xinference.formats.safetensors import MAX_HEADER, MAX_TENSORS, read_safetensors

GOOD: dict[str, Any] = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]},
    "b": {"dtype": "BF16", "shape": [4], "data_offsets": [12, 20]},
    "c": {"dtype": "F16", "shape": [], "data_offsets": [20, 22]},
}


def file_of(path: Path, header: object, data: int = 22) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(data))
    return path


def refused(path: Path) -> str:
    with pytest.raises(Problem) as caught:
        read_safetensors(path)
    assert (caught.value.code, caught.value.status) == ("bad_weight_file", 400)
    return caught.value.cause


def test_tensors_are_counted_by_their_types(tmp_path: Path) -> None:
    header = read_safetensors(file_of(tmp_path / "m.safetensors", GOOD))
    assert header.bytes_by_type == {"F16": 14, "BF16": 8}
    assert (header.tensor_count, header.weights_bytes, header.metadata) == (3, 22, {"format": "pt"})


def test_a_real_file_is_read() -> None:
    header = read_safetensors(Path("tests/assets/tiny-llama2-chat-hf/model.safetensors"))
    assert header.tensor_count == 21 and set(header.bytes_by_type) == {"F16"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dtype": "F99"}, "F99"),
        ({"shape": [2, 4]}, "12 bytes of F16"),
        ({"shape": [-2, -3]}, "shape"),
        ({"shape": [1] * 30}, "shape"),
        ({"data_offsets": [0, 10]}, "10 bytes"),
        ({"data_offsets": [2, 14]}, "begins at 2 instead of 0"),
        ({"data_offsets": [0]}, "cannot be read"),
        ({"shape": "no"}, "cannot be read"),
    ],
)
def test_a_tensor_that_makes_no_sense_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    cause = refused(file_of(tmp_path / "m.safetensors", GOOD | {"a": GOOD["a"] | change}))
    assert "'a'" in cause and said in cause


def test_a_cut_file_is_truncated_and_a_longer_one_damaged(tmp_path: Path) -> None:
    assert "is truncated" in refused(file_of(tmp_path / "m.safetensors", GOOD, data=21))
    assert "is damaged" in refused(file_of(tmp_path / "m.safetensors", GOOD, data=23))


def test_the_headers_length_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", 1000) + b'{"a"')
    assert "is truncated" in refused(path)
    path.write_bytes(struct.pack("<Q", MAX_HEADER + 1) + b'{"a"')
    assert str(MAX_HEADER) in refused(path)


@pytest.mark.parametrize("raw", [b"{" * 5000, b'{"a":1}', b'{"__metadata__":{"a":1}}', b"{]}", b'{"\xff":{}}'])
def test_a_header_that_is_none_is_refused(tmp_path: Path, raw: bytes) -> None:
    refused(file_of(tmp_path / "m.safetensors", raw))


@pytest.mark.parametrize("content", [b"", b"GGUF" + bytes(20), b"PK\x03\x04" + bytes(20), b"<html>not found</html>"])
def test_other_formats_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)
    refused(tmp_path / "m.safetensors")


@given(st.binary(max_size=200), st.integers(0, 250))
def test_no_change_of_bytes_raises_anything_else(tmp_path_factory: pytest.TempPathFactory, new: bytes, at: int) -> None:
    path = file_of(tmp_path_factory.mktemp("s") / "m.safetensors", GOOD)
    data = path.read_bytes()
    path.write_bytes(data[:at] + new + data[at + len(new) :])
    try:
        read_safetensors(path)
    except Problem as problem:
        assert problem.code == "bad_weight_file"


def test_a_header_with_too_many_tensors_is_refused_before_they_are_checked(tmp_path: Path) -> None:
    header = b"{" + b",".join(b'"%d":0' % number for number in range(MAX_TENSORS + 1)) + b"}"
    assert "262,145 entries" in refused(file_of(tmp_path / "m.safetensors", header))
