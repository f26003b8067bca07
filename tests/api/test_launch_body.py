"""The body of a launch as the controller gets it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from xinference.api.models import LaunchBody

MINE = {"lora_name": "a", "local_path": "/x"}


def options(**fields: Any) -> dict[str, Any]:
    return LaunchBody(model_name="m", **fields).request().options


def test_a_peft_model_config_becomes_the_option_of_the_engines() -> None:
    assert options(peft_model_config={"lora_list": [MINE]}, n=1) == {"n": 1, "lora_modules": [{"a": "/x"}]}


@pytest.mark.parametrize("empty", [None, {}, {"lora_list": None}, {"lora_list": [], "image_lora_load_kwargs": {}}])
def test_an_empty_peft_model_config_says_nothing(empty: Any) -> None:
    assert options(peft_model_config=empty) == {}


@pytest.mark.parametrize("before", [{"b": "/y"}, [{"b": "/y"}]])
def test_adapters_given_both_ways_are_all_kept(before: Any) -> None:
    both = options(lora_modules=before, peft_model_config={"lora_list": [MINE]})
    assert both == {"lora_modules": [{"b": "/y"}, {"a": "/x"}]}


@pytest.mark.parametrize(
    "wrong", [{"lora_list": [{"lora_name": "a"}]}, {"loras": []}, {"image_lora_load_kwargs": {"a": 1}}]
)
def test_a_peft_model_config_of_another_form_is_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        options(peft_model_config=wrong)
