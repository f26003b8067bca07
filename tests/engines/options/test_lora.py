"""The adapters of a launch, in every form that they are given in and for every engine."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engines.plans import plan_of
from tests.support.cases import in_one_test
from xinference.engines.options.lora import read_modules
from xinference.engines.registry import all_engines
from xinference.errors import Problem

ENGINES = all_engines()


@pytest.mark.parametrize("given", ["a=/x", ["a=/x"], {"a": "/x"}, [{"a": "/x"}]])
def test_every_form_is_a_table_of_names_and_paths(given: Any) -> None:
    assert read_modules("lora_modules", given) == {"a": "/x"}


def test_a_path_is_made_absolute() -> None:
    assert read_modules("lora_modules", "a=x")["a"].startswith("/")


@in_one_test("given", [["a=/x", {"a": "/y"}], 7, "a", "a=", {"a": 1}, {"a": ""}])
def test_what_is_no_table_of_adapters_is_refused(given: Any) -> None:
    with pytest.raises(Problem, match="--lora_modules"):
        read_modules("lora_modules", given)


@pytest.mark.parametrize(("name", "served"), [("Transformers", "a"), ("vLLM", "a"), ("SGLang", "mine:a")])
def test_an_engine_says_by_what_name_it_serves_an_adapter(name: str, served: str) -> None:
    plan = plan_of(options=ENGINES[name].check_options({"lora_modules": {"a": "/x"}}, {}))
    assert ENGINES[name].lora_names(plan) == (served,)
    assert ENGINES[name].adapters(plan) == {"a": "/x"}


@pytest.mark.parametrize("name", ["Transformers", "vLLM", "SGLang", "llama.cpp"])
def test_without_adapters_there_are_no_further_names(name: str) -> None:
    assert ENGINES[name].lora_names(plan_of()) == ()
    assert ENGINES[name].adapters(plan_of()) == {}


def test_llama_cpp_takes_no_adapters_and_says_what_does() -> None:
    with pytest.raises(Problem, match="not with GGUF") as caught:
        ENGINES["llama.cpp"].check_options({"lora_modules": {"a": "/x"}}, {})
    assert caught.value.status == 400 and "Transformers" in str(caught.value.hint)


def test_transformers_takes_no_dot_in_an_adapters_name() -> None:
    with pytest.raises(Problem, match="has a dot"):
        ENGINES["Transformers"].check_options({"lora_modules": {"a.b": "/x"}}, {})
