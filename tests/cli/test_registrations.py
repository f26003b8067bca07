from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.canned import Answer, Canned, problem
from tests.cli.conftest import Run
from tests.support.ports import free_port

TEXT = '{"version": 1, "model_name": "mine"}'
ALL = "/v1/model_registrations/LLM"
SPECS = [
    {"model_format": "ggufv2", "model_size_in_billions": 7},
    {"model_format": "pytorch", "model_size_in_billions": 7},
    {"model_format": "pytorch", "model_size_in_billions": 13},
]


def test_a_file_is_registered_as_it_is(canned: Canned, run: Run, tmp_path: Path) -> None:
    canned.answers["POST", ALL] = Answer(None)
    (tmp_path / "mine.json").write_text(TEXT)
    assert run("register", "-f", str(tmp_path / "mine.json"), "-w", "10.0.0.1", "-p").exit_code == 0
    assert canned.asked[0].body == {"model": TEXT, "persist": True, "worker_ip": "10.0.0.1"}


def test_a_description_can_be_piped_in(canned: Canned, run: Run) -> None:
    canned.answers["POST", "/v1/model_registrations/embedding"] = Answer(None)
    result = run("register", "--model-type", "embedding", "--file", "-", stdin=TEXT)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "--persist keeps it" in result.stderr
    assert canned.asked[0].body == {"model": TEXT, "persist": False, "worker_ip": None}


def test_a_file_that_is_not_there_is_a_usage_error(canned: Canned, run: Run) -> None:
    assert run("register", "-f", "/no/such.json").exit_code == 2
    assert run("register").exit_code == 2
    assert canned.asked == []


def test_a_description_that_the_server_refuses_is_an_error(canned: Canned, run: Run) -> None:
    canned.answers["POST", ALL] = problem(400, "invalid_model", "model_specs: missing.")
    result = run("register", "-f", "-", stdin="{}")
    assert result.exit_code == 1 and "model_specs: missing." in result.stderr


def test_a_model_is_unregistered_by_name(canned: Canned, run: Run) -> None:
    canned.answers["DELETE", f"{ALL}/mine"] = Answer(None)
    assert run("unregister", "-n", "mine").exit_code == 0
    assert len(canned.asked) == 1


def fit(name: str, size: float | str, state: str, **fields: object) -> dict[str, object]:
    return {
        "model_name": name,
        "model_size_in_billions": size,
        "model_format": "ggufv2",
        "quantization": "Q4_K_M",
        "engine": "llama.cpp",
        "fits": state,
        "unload": [],
        "memory_bytes": None if state == "never" else 3 << 30,
        "weights_bytes": 2 << 30,
        "reason": "too large" if state == "never" else None,
        "code": "does_not_fit" if state == "never" else None,
        **fields,
    }


def test_fits_are_a_table_of_the_version_to_launch_for_each_size(canned: Canned, run: Run) -> None:
    found = [
        fit("qwen3", 4, "never", quantization="Q8_0", weights_bytes=9 << 30),
        fit("qwen3", 4, "after_unloading", unload=["a", "b"], quantization="Q6_K"),
        fit("qwen3", 4, "now"),
        fit("qwen3", 4, "now", quantization="Q2_K"),
        fit("qwen3", "0_6", "after_unloading", unload=["a"]),
        fit("qwen3", 235, "never", quantization="none", engine="vLLM", weights_bytes=400 << 30),
        fit("qwen3", 235, "never", weights_bytes=90 << 30),
        fit("qwen3", 9, "never", code="engine_unavailable", weights_bytes=1 << 30),
    ]
    canned.answers["GET", "/v1/fits"] = Answer(found)
    result = run("registrations", "qwen", "--fits", "-t", "LLM")
    assert canned.asked[0].query == "model_type=LLM&part=qwen"
    lines = [line.split("  ") for line in result.stdout.splitlines()[2:]]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells == [
        ["qwen3", "4B", "now", "3.0 GiB", "llama.cpp", "ggufv2", "Q4_K_M"],
        ["qwen3", "0.6B", "after unloading a", "3.0 GiB", "llama.cpp", "ggufv2", "Q4_K_M"],
        ["qwen3", "235B", "never", "> 90.0 GiB", "llama.cpp", "ggufv2", "Q4_K_M"],
        ["qwen3", "9B", "never", "-", "llama.cpp", "ggufv2", "Q4_K_M"],
    ]
    assert "Of 4 sizes, 1 fit now, 1 fit after models are unloaded" in result.stderr
    assert "too large" in run("registrations", "--fits", "--wide").stdout
    assert json.loads(run("registrations", "--fits", "--json").stdout) == found


def test_fits_need_no_server(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XINFERENCE_ENDPOINT")
    monkeypatch.setenv("XINFERENCE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XINFERENCE_PORT", str(free_port()))
    found = json.loads(run("registrations", "qwen2.5-instruct-1m", "--fits", "--json").stdout)
    assert {each["model_name"] for each in found} == {"qwen2.5-instruct-1m"}
    assert {each["engine"] for each in found} >= {"vLLM", "SGLang", "Transformers"}
    assert run("registrations", "--fits", "-t", "image").exit_code == 1


def test_registrations_are_a_table_or_json(canned: Canned, run: Run) -> None:
    families = [
        {
            "model_name": "llama",
            "is_builtin": True,
            "model_lang": ["en"],
            "model_ability": ["chat", "tools"],
            "context_length": 4096,
            "model_specs": SPECS,
        }
    ]
    canned.answers["GET", ALL] = Answer(families)
    assert run("registrations").stdout.splitlines()[2].split() == ["llama", "7B,", "13B", "chat,", "tools", "4096", "-"]
    canned.answers["GET", "/v1/cache/models"] = Answer({"list": [{"model_name": "llama", "complete": True}]})
    row = run("registrations", "--wide").stdout.splitlines()[2]
    assert row.split() == ["LLM", "llama", "7B,", "13B", "chat,", "tools", "en", "4096", "built-in", "yes"]
    assert json.loads(run("registrations", "--json").stdout) == families


def test_registrations_are_found_by_a_part_of_their_name(canned: Canned, run: Run) -> None:
    names = ("qwen3", "Qwen3-Coder", "llama")
    canned.answers["GET", ALL] = Answer([{"model_name": name, "is_builtin": True} for name in names])
    found = json.loads(run("registrations", "QWEN3", "--json").stdout)
    assert [each["model_name"] for each in found] == ["qwen3", "Qwen3-Coder"]
    nothing = run("registrations", "lama3")
    assert nothing.exit_code == 0 and "Did you mean llama" in nothing.stderr


def test_a_registration_names_the_model_also_as_json(canned: Canned, run: Run) -> None:
    canned.answers["POST", ALL] = Answer(None)
    result = run("register", "-f", "-", "--persist", "--json", stdin=TEXT)
    assert json.loads(result.stdout) == {"model_name": "mine", "model_type": "LLM", "persist": True}
    assert result.stderr == "Registered mine.\n"


def test_a_description_that_is_no_text_is_an_error(canned: Canned, run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_bytes(b"\xff{}")
    result = run("register", "-f", str(tmp_path / "mine.json"))
    assert (result.exit_code, canned.asked) == (1, [])
    assert "is not UTF-8 text" in result.stderr


def test_the_models_are_listed_without_a_server(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XINFERENCE_ENDPOINT")
    monkeypatch.setenv("XINFERENCE_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("XINFERENCE_PORT", str(free_port()))
    folder = tmp_path / "model" / "llm"
    folder.mkdir(parents=True)
    (folder / "broken.json").write_text("{")
    listed = json.loads(run("registrations", "--json").stdout)
    assert {"qwen3", "llama-2-chat", "broken"} <= {each["model_name"] for each in listed}
    table = run("registrations", "broken")
    assert "broken can't be launched" in table.stderr
    assert "bge-m3" in run("registrations", "-t", "embedding", "bge").stdout
    monkeypatch.setenv("XINFERENCE_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    assert "No server answers" in run("registrations").stderr


def test_a_description_that_is_not_json_is_named_with_the_place_of_the_fault(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "model.json"
    file.write_text("{,}")
    result = run("register", "--file", str(file))
    assert result.exit_code == 1 and f"{file} is not JSON: " in result.stderr and "line 1 column 2" in result.stderr
