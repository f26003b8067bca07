"""Whether two launches are the same model, and the words for what differs."""

from __future__ import annotations

import msgspec

from tests.support.cases import in_one_test
from xinference.launch.comparison import asked_fields, differences, is_same_launch
from xinference.launch.request import LaunchRequest

RUNNING = LaunchRequest(
    model_name="m", model_uid="mine", model_engine="llama.cpp", quantization="Q4_1", download_hub="h",
    options={"n_ctx": 4096}, envs={"TOKEN": "secret"},
)  # fmt: skip


def changed(**fields: object) -> LaunchRequest:
    return msgspec.structs.replace(RUNNING, **fields)


def test_names_of_the_deployment_and_of_the_original_request_do_not_matter() -> None:
    assert is_same_launch(changed(model_uid=None, asked_name="org/m", asked={"model_name": "m"}), RUNNING)


def test_a_request_that_names_no_hub_is_the_same_on_any_hub_but_not_with_a_path() -> None:
    assert is_same_launch(changed(download_hub=None), RUNNING)
    assert not is_same_launch(changed(download_hub=None, model_path="/w"), RUNNING)
    assert not is_same_launch(changed(download_hub="other"), RUNNING)


@in_one_test(
    ("fields", "text"),
    [
        ({"options": {"n_ctx": 8191}}, "n_ctx: 4096, and 8191 in this launch"),
        ({"options": {}}, "n_ctx: 4096, and not set in this launch"),
        ({"options": {"n_ctx": 4096, "flash_attn": True}}, "flash_attn: not set, and true in this launch"),
        ({"quantization": "Q8_0"}, "quantization: Q4_1, and Q8_0 in this launch"),
        ({"replica": 2}, "replica: 1, and 2 in this launch"),
        ({"gpu_idx": (0, 1)}, "gpu_idx: not set, and [0, 1] in this launch"),
    ],
)
def test_a_difference_has_both_values(fields: dict[str, object], text: str) -> None:
    assert differences(changed(**fields), RUNNING) == [text]
    assert not is_same_launch(changed(**fields), RUNNING)


def test_the_value_of_an_environment_variable_is_not_shown() -> None:
    (text,) = differences(changed(envs={"TOKEN": "another secret"}), RUNNING)
    assert text == "envs: other values of TOKEN"


def test_equal_requests_are_the_same_though_the_choices_or_the_replicas_differ_by_now() -> None:
    asked = asked_fields(LaunchRequest(model_name="m", options={"n_ctx": 4096}))
    running = msgspec.structs.replace(RUNNING, asked=asked, replica=3)
    assert is_same_launch(changed(asked=asked, quantization="Q8_0"), running)
    assert not is_same_launch(changed(asked=asked | {"replica": 2}, replica=2), running)


def test_two_requests_of_which_nothing_is_known_are_not_the_same_for_that() -> None:
    assert not is_same_launch(changed(quantization="Q8_0", asked={}), RUNNING)


def test_the_fields_that_were_asked_for_are_those_without_their_defaults() -> None:
    request = LaunchRequest(model_name="m", model_uid="u", quantization="Q4_1", gpu_idx=(0,), asked_name="x")
    assert asked_fields(request) == {"model_name": "m", "quantization": "Q4_1", "gpu_idx": [0]}
    stored = msgspec.json.decode(
        msgspec.json.encode(msgspec.structs.replace(request, asked=asked_fields(request))), type=LaunchRequest
    )
    assert stored.asked == asked_fields(request)
