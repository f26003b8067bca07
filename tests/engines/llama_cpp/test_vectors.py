"""Vectors of llama.cpp in the length that a request names."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from xinference.engines.llama_cpp.vectors import cut_vectors
from xinference.protocol.errors import Refusal

VECTOR = [0.6, 0.8, 0.0, 2.0]


def answer(*vectors: Any) -> bytes:
    data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
    return json.dumps({"object": "list", "data": data, "usage": {"total_tokens": 3}}).encode()


def packed(numbers: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def test_the_first_numbers_are_scaled_to_the_length_1() -> None:
    cut = json.loads(cut_vectors(answer(VECTOR, [3.0, 4.0, 1.0, 0.0]), wanted=2, uid="m"))
    assert [item["embedding"] for item in cut["data"]] == [pytest.approx([0.6, 0.8]), pytest.approx([0.6, 0.8])]
    assert cut["usage"] == {"total_tokens": 3}


def test_base64_stays_base64() -> None:
    cut = json.loads(cut_vectors(answer(packed([3.0, 4.0, 1.0])), wanted=2, uid="m"))
    assert struct.unpack("<2f", base64.b64decode(cut["data"][0]["embedding"])) == pytest.approx((0.6, 0.8))


def test_vectors_of_this_length_are_unchanged_and_zeros_stay_zeros() -> None:
    whole = answer(VECTOR)
    assert cut_vectors(whole, wanted=4, uid="m") is whole
    assert json.loads(cut_vectors(answer([0.0, 0.0, 1.0]), wanted=2, uid="m"))["data"][0]["embedding"] == [0, 0]


@pytest.mark.parametrize("vector", [VECTOR, packed(VECTOR)], ids=["numbers", "base64"])
def test_more_numbers_than_the_model_has_are_refused_with_both(vector: Any) -> None:
    with pytest.raises(Refusal, match=r"at most 4 numbers, not 5"):
        cut_vectors(answer(vector), wanted=5, uid="m")
