from __future__ import annotations

import pytest

from tests.hubs.versions import version
from tests.support.cases import in_one_test
from xinference.catalog.models import HubName, Source
from xinference.errors import Problem
from xinference.hubs.choice import choose_hub

HF, MS, PI = "huggingface", "modelscope", "package_index"


def sources(*hubs: HubName, quantizations: tuple[str, ...] | None = None) -> list[Source]:
    return [Source(hub=hub, model_id="org/tiny", quantizations=quantizations) for hub in hubs]


ALL = sources("package_index", "modelscope", "huggingface")


@in_one_test(
    ("asked", "setting", "cached", "reachable", "locale", "hub", "reason"),
    [
        (PI, MS, {HF: True}, {PI: False}, None, PI, "requested"),
        (None, MS, {HF: True}, {MS: False}, None, MS, "XINFERENCE_MODEL_SRC names it"),
        (None, "", {PI: True, HF: False}, None, None, PI, "already cached"),
        (None, None, {PI: True, MS: True}, None, None, MS, "already cached"),
        (None, None, {}, None, None, HF, "first of huggingface, modelscope, package_index"),
        (None, None, {}, {HF: True, MS: True}, None, HF, "first of"),
        (None, None, {}, {HF: False}, None, MS, "that can be reached"),
        (None, None, {}, {HF: False, MS: False}, None, PI, "that can be reached"),
        (None, None, {}, {HF: False, MS: False, PI: False}, None, HF, "answered"),
        (None, None, {}, None, "zh_CN.UTF-8", MS, "locale zh_CN"),
        (None, "local", {}, None, None, HF, "XINFERENCE_MODEL_SRC is local, which does not have this version"),
    ],
)
def test_the_first_rule_that_decides_names_its_reason(
    asked: str | None,
    setting: str | None,
    cached: dict[str, bool],
    reachable: dict[str, bool] | None,
    locale: str | None,
    hub: str,
    reason: str,
) -> None:
    choice = choose_hub(
        version(*ALL), requested=asked, setting=setting, cached=cached, reachable=reachable, locale=locale
    )
    assert choice.source.hub == hub
    assert reason in choice.reason


def test_the_only_hub_is_taken_even_if_it_is_silent() -> None:
    choice = choose_hub(version(*sources("modelscope")), cached={}, reachable={MS: False})
    assert choice.source.hub == MS
    assert "only hub" in choice.reason


def test_a_registered_folder_goes_before_the_hubs() -> None:
    assert choose_hub(version(*ALL, *sources("local")), cached={}).source.hub == "local"


def test_a_hub_without_the_quantization_does_not_count() -> None:
    both = version(*sources("huggingface", quantizations=("Q8_0",)), *sources("modelscope"))
    assert choose_hub(both, cached={HF: True}).source.hub == MS


def test_a_hub_that_was_asked_for_in_vain_names_those_that_have_it() -> None:
    with pytest.raises(Problem) as caught:
        choose_hub(version(*sources("package_index", "modelscope")), requested=HF, cached={})
    assert (caught.value.code, caught.value.status) == ("not_on_hub", 400)
    assert caught.value.hint == "It is on: modelscope, package_index."
    assert "tiny--1B--ggufv2--Q4_0" in caught.value.cause


@pytest.mark.parametrize(("asked", "setting"), [("github", None), (None, "github")])
def test_a_name_that_is_no_hub_is_refused_with_the_names(asked: str | None, setting: str | None) -> None:
    with pytest.raises(Problem, match="huggingface, modelscope, package_index") as caught:
        choose_hub(version(*ALL), requested=asked, setting=setting, cached={})
    assert caught.value.code == "unknown_hub"
    assert "'github'" in caught.value.cause


@pytest.mark.parametrize("asked", [None, HF])
def test_a_version_that_no_hub_has_is_told(asked: str | None) -> None:
    with pytest.raises(Problem, match="--model-path") as caught:
        choose_hub(version(), requested=asked, cached={})
    assert caught.value.code == "not_on_hub"
