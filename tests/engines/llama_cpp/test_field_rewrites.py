"""llama.cpp's own fields whose faults its server passes over are refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.cases import in_one_test
from xinference.engines.llama_cpp.field_rewrites import SAMPLERS, rewrite_native
from xinference.protocol.errors import Refusal


@in_one_test(
    ("samplers", "param", "said"),
    [
        (["zzz"], "samplers[0]", "invalid value 'zzz', expected one of penalties, dry, "),
        (["top_k", "tfs_z"], "samplers[1]", "'tfs_z'"),
        (["typical_p"], "samplers[0]", "'typical_p'"),
        ([""], "samplers[0]", "''"),
        ([" top_k"], "samplers[0]", "' top_k'"),
        (["to-pk"], "samplers[0]", "'to-pk'"),
        ("kz", "samplers", "'z' is no sampler"),
        ("top_k", "samplers", "'o' is no sampler"),
        ("K", "samplers", "'K' is no sampler"),
    ],
)
def test_a_sampler_that_llama_cpp_does_not_know_is_refused(samplers: Any, param: str, said: str) -> None:
    with pytest.raises(Refusal) as caught:
        rewrite_native({"samplers": samplers}, True)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert said in caught.value.cause and caught.value.hint


def test_the_sampler_of_a_field_of_another_name_is_said() -> None:
    with pytest.raises(Refusal) as caught:
        rewrite_native({"samplers": ["typical_p"]}, True)
    assert caught.value.hint == "Use typ_p."


@in_one_test(
    "samplers",
    [
        list(SAMPLERS), [], "", "edskypmxtia",
        ["top-k", "top-n-sigma", "topk", "TOP_K", "Nucleus", "temp", "typ", "minp"],
    ],
)  # fmt: skip
def test_each_name_that_llama_cpp_reads_is_passed_on(samplers: Any) -> None:
    assert rewrite_native({"samplers": samplers}, True) == {}
