"""Biases whose keys or values engines pass over, or read in different ways."""

from __future__ import annotations

import pytest

from tests.gateway.test_native_fields import CHATS, COMPLETIONS, LLAMA_CPP, refused, to_engine
from xinference.engines.dialects import DIALECTS

OTHERS = sorted(DIALECTS.keys() - {LLAMA_CPP})


@pytest.mark.parametrize("key", ["0", "5", "007", "2147483647"])
def test_the_id_of_a_token_is_passed_on(key: str) -> None:
    for engine in DIALECTS:
        assert to_engine(engine, logit_bias={key: 1})["logit_bias"] == {key: 1}


@pytest.mark.parametrize("path", [CHATS, COMPLETIONS])
@pytest.mark.parametrize("key", ["-1", " 5", "\n7", "", "2147483648"])
def test_a_key_that_only_looks_like_a_token_is_refused_with_its_value(path: str, key: str) -> None:
    for engine in DIALECTS:
        refusal = refused(engine, path, prompt="a", logit_bias={"1": 1, key: 5})
        assert refusal.param == "logit_bias" and repr(key) in refusal.cause


def test_a_text_is_passed_to_llama_cpp_only() -> None:
    assert to_engine(LLAMA_CPP, logit_bias={"hello": 1})["logit_bias"] == {"hello": 1}
    for engine in OTHERS:
        refusal = refused(engine, logit_bias={"hello": 1})
        assert "'hello'" in refusal.cause and "/tokenize" in str(refusal.hint)


def test_false_bans_a_token_on_every_engine() -> None:
    for engine in DIALECTS:
        assert to_engine(engine, logit_bias={"5": False, "6": 0})["logit_bias"] == {"5": -100, "6": 0}


def test_true_is_no_bias() -> None:
    for engine in DIALECTS:
        assert "'5'" in refused(engine, logit_bias={"5": True}).cause
