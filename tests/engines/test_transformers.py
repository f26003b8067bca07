"""What the Transformers adapter takes, refuses and starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engines.plans import host_of, plan_of, spec_of
from xinference.engines.base import Placement
from xinference.engines.transformers.engine import VERSION, Transformers
from xinference.errors import Problem
from xinference.process.command import ProgressProbe

ENGINE = Transformers()


def params_of(devices: tuple[int, ...] = (), **options: Any) -> dict[str, Any]:
    plan = plan_of(options=ENGINE.check_options(options, {}))
    command = ENGINE.command(plan, "secret", Placement(Path("/env/bin/python"), devices))
    params: dict[str, Any] = json.loads(command.env["XINFERENCE_TRANSFORMERS_PARAMS"])
    return params


def test_it_is_available_on_a_cpu_with_avx2_and_says_what_another_lacks() -> None:
    spec = spec_of("pytorch", "none")
    assert ENGINE.available(spec, host_of())
    assert "avx2" in (ENGINE.available(spec, host_of(flags=frozenset())).reason or "")


def test_a_driver_that_is_too_old_is_named() -> None:
    reason = ENGINE.available(spec_of("pytorch", "none"), host_of(gpus=1, cuda=(12, 4))).reason
    assert reason is not None and "550.54" in reason


@pytest.mark.parametrize("gpus", [0, 1])
def test_its_environment_has_a_lock(gpus: int) -> None:
    spec = ENGINE.environment(host_of(gpus=gpus))
    assert spec is not None and spec.version == VERSION
    locks = Path(__file__).parents[2] / "src" / "xinference" / "environments" / "locks"
    assert (locks / f"{spec.name}.toml").is_file()


def test_context_and_slots_are_the_plans() -> None:
    params = params_of()
    assert (params["context_length"], params["max_num_seqs"], params["uid"]) == (4095, 4, "mine")


def test_the_key_and_the_parameters_stay_out_of_the_process_list() -> None:
    command = ENGINE.command(plan_of(), "secret", Placement(Path("/env/bin/python")))
    assert "secret" not in " ".join(command.argv) and "/weights/here" not in " ".join(command.argv)


def test_it_runs_on_the_gpus_it_was_given_unless_the_cpu_is_asked_for() -> None:
    assert params_of(devices=(0,))["device"] == "cuda"
    assert params_of(devices=(0,), device="cpu")["device"] == params_of()["device"] == "cpu"


def test_remote_code_is_off_unless_asked_for_by_name() -> None:
    assert "trust_remote_code" not in params_of()
    assert params_of(trust_remote_code=True)["trust_remote_code"] is True


def test_options_of_an_older_xinference_are_taken_without_effect() -> None:
    assert ENGINE.check_options({"gptq_wbits": 16, "enable_tensorizer": False, "gptq_ckpt": None}, {}) == {}


def test_adapters_are_given_as_objects_or_as_words() -> None:
    both = ENGINE.check_options({"lora_modules": [{"a": "/x"}, "b=/y"]}, {})
    assert both == {"lora_modules": {"a": "/x", "b": "/y"}}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_num_seq": 4}, "no option --max_num_seq"),
        ({"max_num_seqs": "four"}, "--max_num_seqs is 'four'"),
        ({"context_length": 0}, "must be positive"),
        ({"device": "tpu"}, "--device is 'tpu'"),
        ({"lora_modules": ["x"]}, "NAME=PATH"),
        ({"port": 1}, "is reserved: Xinference sets it"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(Problem) as caught:
        ENGINE.check_options(options, {})
    assert said in caught.value.cause


def test_last_words_are_explained() -> None:
    hint = ENGINE.explain(["transformers could not load the model: there are no .safetensors files in /x"])
    assert hint is not None and "safetensors" in hint
    assert ENGINE.explain(["all is well"]) is None


def test_its_progress_is_shown_by_its_computing_thread() -> None:
    made = ENGINE.command(plan_of(), "secret", Placement(Path("/env/bin/python")))
    assert made.progress == ProgressProbe("/progress") and made.extra_bytes == 0
    single = plan_of(options={"threads": 1})
    assert ENGINE.command(single, "secret", Placement(Path("/env/bin/python"))).progress == ProgressProbe(
        "/progress", one_thread=True
    )
