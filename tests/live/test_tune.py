"""`xinference tune` on a real llama.cpp, and launches that use what it has measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from typing import Any

import psutil
import pytest

from tests.support.home import Home
from xinference.hardware.devices import read_host
from xinference.launch.tuning import Tuning, machine_of
from xinference.launch.tuning_file import read_tunings, write_tunings

VERSION = "llama-2-chat--7B--ggufv2--Q8_0"
FIGURES = {"prefill", "1 stream", "4 streams", "8 streams", "edits"}

pytestmark = pytest.mark.timeout(1200)


def words(tiny: dict[str, Any]) -> list[str]:
    named = {"-en": "model_engine", "-f": "model_format", "-s": "model_size_in_billions", "-q": "quantization"}
    given = [word for option, field in named.items() for word in (option, str(tiny[field]))]
    return [tiny["model_name"], *given, "-mp", tiny["model_path"]]


@pytest.mark.long
def test_what_is_measured_is_kept_and_can_be_forgotten(make_home: Callable[..., Home], tiny: dict[str, Any]) -> None:
    home = make_home()
    for minutes in ("0.1", "0.5", "2", "4"):  # on a busy machine, nothing is compared in a short time
        done = home.cli("tune", *words(tiny), "--minutes", minutes, "--json", seconds=500)
        if "is too short" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    (kept,) = read_tunings(home.path)
    assert (told["version"], told["options"]) == (kept.version_id, kept.options)
    assert set(kept.ratios) in (FIGURES, set())
    assert "trying cpuparams.n_threads" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(home.cli("tune", tiny["model_name"], "--forget", "--json").stdout) == {
        "forgotten": [kept.version_id]
    }
    assert read_tunings(home.path) == []


def test_a_launch_uses_it_unless_told_otherwise(make_home: Callable[..., Home], tiny: dict[str, Any]) -> None:
    home = make_home()
    machine, release = machine_of(read_host()), metadata.version("xllamacpp")
    options = {"n_ubatch": 64, "cpuparams.n_threads": 1}
    write_tunings(home.path, [Tuning(VERSION, "llama.cpp", release, machine, options, {"prefill": 1.25})])

    plan = json.loads(home.cli("launch", *words(tiny), "--dry-run", "--json").stdout)
    assert plan["options"] == options
    assert any("tuned on this machine" in reason and "prefill 1.25" in reason for reason in plan["reasons"])
    plan = json.loads(home.cli("launch", *words(tiny), "--dry-run", "--json", "--no-tune").stdout)
    assert plan["options"] == {}
    home.serve()
    answer = home.launch(**tiny, model_uid="m")
    assert answer.status_code == 200, answer.text
    params = json.loads(psutil.Process(home.engine_pid("m")).environ()["XINFERENCE_LLAMA_PARAMS"])
    assert {name: params[name] for name in options} == options


def test_an_engine_that_is_not_measured_is_refused(make_home: Callable[..., Home]) -> None:
    done = make_home().cli("tune", "qwen2.5-instruct", "-s", "0_5", "-f", "pytorch", "--json")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
