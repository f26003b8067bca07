"""The body of a launch as the controller gets it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from xinference.api.launch_body import LaunchBody
from xinference.error_codes import Code
from xinference.errors import Problem

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


def test_a_launch_for_several_machines_is_refused_with_the_way_out() -> None:
    with pytest.raises(Problem, match="n_worker is 2, but this server has no cluster"):
        LaunchBody(model_name="m", n_worker=2).request()
    assert LaunchBody(model_name="m", n_worker=2).request(is_cluster=True).n_worker == 2


def test_labels_are_for_workers_and_never_ignored() -> None:
    body = LaunchBody(model_name="m", labels={"gpu": "h100"})
    assert body.request(is_cluster=True).labels == {"gpu": "h100"}
    with pytest.raises(Problem, match="gpu=h100, but this server has no cluster") as refused:
        body.request()
    assert refused.value.status == 400
    assert LaunchBody(model_name="m", labels={}).request() == LaunchBody(model_name="m").request()


@pytest.mark.parametrize("wrong", [["gpu"], {"gpu": 1}, {"": "x"}, {str(n): "x" for n in range(33)}])
def test_labels_of_another_form_are_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError, match="labels"):
        LaunchBody.model_validate({"model_name": "m", "labels": wrong})


@pytest.mark.parametrize("wrong", [0, -1, 65, "two"])
def test_a_number_of_machines_that_cannot_be_is_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError, match="n_worker"):
        LaunchBody(model_name="m", n_worker=wrong)


@pytest.mark.parametrize("field", ["virtual_env_packages", "virtual_env_find_links"])
def test_packages_for_a_locked_environment_are_refused(field: str) -> None:
    with pytest.raises(Problem, match=field):
        LaunchBody.model_validate({"model_name": "m", field: ["x"]}).request()


def test_a_field_without_effect_on_one_machine_is_a_warning() -> None:
    body = LaunchBody(model_name="m", worker_ip="10.0.0.7:1", enable_virtual_env=True, allow_plain_gang=True)
    named = [warning.split()[0] for warning in body.warnings()]
    assert named == ["worker_ip", "allow_plain_gang", "enable_virtual_env"]
    assert body.model_copy(update={"allow_plain_gang": False}).request() == LaunchBody(model_name="m").request()


def test_a_gang_without_encryption_has_no_effect_on_replicas_of_one_machine_in_a_cluster_either() -> None:
    body = LaunchBody(model_name="m", allow_plain_gang=True)
    assert [warning.split()[0] for warning in body.warnings(is_cluster=True)] == ["allow_plain_gang"]
    assert body.model_copy(update={"n_worker": 2}).warnings(is_cluster=True) == []


def test_the_places_of_replicas_become_their_devices_in_turn() -> None:
    config = [{"devices": [{"worker_ip": "here", "gpu_idx": group}]} for group in ([0, 1], [2, 3])]
    body = LaunchBody.model_validate({"model_name": "m", "replica_config": config})
    request = body.request()
    assert (request.replica, request.gpu_idx) == (2, (0, 2, 1, 3))
    assert len(body.warnings()) == 1
    with pytest.raises(Problem, match="both name devices"):
        body.model_copy(update={"gpu_idx": 0}).request()


@pytest.mark.parametrize("limits", [-1, 2**63, "many"])
def test_request_limits_that_are_no_count_are_refused(limits: Any) -> None:
    with pytest.raises(ValidationError):
        LaunchBody(model_name="m", request_limits=limits)
    assert LaunchBody(model_name="m", request_limits=0).request().request_limits == 0


@pytest.mark.parametrize(
    "limits",
    [
        {"max_output_tokens": 0},
        {"max_output_tokens": 2**31},
        {"max_request_seconds": 0},
        {"max_request_seconds": "inf"},
    ],
)
def test_limits_of_one_answer_that_are_out_of_range_are_refused(limits: Any) -> None:
    with pytest.raises(ValidationError):
        LaunchBody(model_name="m", **limits)


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("replicas", "Did you mean the field replica? See the list."),
        ("engine", "Did you mean the field model_engine? See the list."),
        ("banana", "See the list."),
    ],
)
def test_an_unknown_option_is_compared_with_the_fields_of_a_launch(key: str, hint: str) -> None:
    body = LaunchBody.model_validate({"model_name": "m", key: 2})
    with pytest.raises(Problem) as refused, body.naming_similar_fields():
        raise Problem(Code.UNKNOWN_OPTION, f"llama.cpp has no option --{key}.", hint="See the list.")
    assert refused.value.hint == hint
