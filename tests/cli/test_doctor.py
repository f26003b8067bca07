"""`doctor` says what is here and what each lack costs; a lack is no failure."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from tests.cli.canned import Answer, Canned, problem
from tests.cli.conftest import Run
from xinference.config import Settings
from xinference.control import checkup
from xinference.control.checkup import cpu_findings, gpu_findings, memory_findings
from xinference.environments.environments import EnvironmentEntry, Environments
from xinference.environments.spec import EnvironmentSpec
from xinference.hardware.cgroup import CgroupLimits
from xinference.hardware.devices import Driver, Gpu, Host

GIB = 1024**3
AVX2 = frozenset({"avx", "avx2", "fma", "f16c"})


def offline(home: Path) -> Settings:
    return Settings(home=home, offline=True)


def test_a_cpu_without_avx_512_is_told_what_it_can_not_run() -> None:
    old, new = (list(cpu_findings(Host(4, 1, 1, cpu_flags=flags))) for flags in (AVX2, AVX2 | {"avx512f"}))
    assert old[1].cost == "no AVX-512: vLLM can't run GPTQ and AWQ on this CPU"
    assert (old[1].state, new[1].state) == ("lack", "ok")


def test_each_engine_says_what_the_lack_of_vector_instructions_costs() -> None:
    without, arm = (list(cpu_findings(Host(4, 1, 1, cpu_flags=frozenset(flags))))[1] for flags in ({"sse"}, {"asimd"}))
    assert without.cost == "no AVX2: llama.cpp runs several times slower, and vLLM can't run on this CPU"
    assert (arm.state, arm.cost) == ("ok", None)


def test_an_engine_whose_package_is_not_installed_breaks_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    assert [finding.state for finding in checkup.package_findings()] == ["ok"]
    monkeypatch.setattr(checkup, "version", version)
    (broken,) = checkup.package_findings()
    assert (broken.about, broken.state) == ("llama.cpp", "broken")
    assert broken.cost == "ggufv2 and ggmlv3 models can't run"


def test_a_control_groups_limits_are_named() -> None:
    host = Host(1, 2 * GIB, GIB, limits=CgroupLimits(2 * GIB, GIB, 1.5))
    assert "the control group allows 1.5" in next(cpu_findings(host)).found
    memory = next(memory_findings(host))
    assert "limited to 2.0 GiB" in memory.found and memory.state == "lack"


def test_gpus_are_shown_with_their_driver_and_their_absence_with_its_reason() -> None:
    gpu = Gpu(0, "NVIDIA L4", 24 * GIB, 20 * GIB, (8, 9))
    shown = list(gpu_findings(Host(4, 1, 1, (gpu,), driver=Driver("550.54", (12, 4)))))
    assert "CUDA up to 12.4" in shown[0].found and "compute capability 8.9" in shown[1].found
    absent = next(gpu_findings(Host(4, 1, 1, no_gpu_reason="no driver")))
    assert (absent.state, absent.found) == ("lack", "none (no driver)")
    assert absent.cost == "SGLang can't run, and every model runs on the CPU, which is slower"


def test_the_command_prints_a_table_or_json_and_a_lack_is_no_failure(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XINFERENCE_OFFLINE", "1")
    monkeypatch.setenv("XINFERENCE_HOME", str(tmp_path))
    result = run("doctor", "--json")
    found = {finding["about"]: finding for finding in json.loads(result.stdout)}
    assert result.exit_code == 0
    assert {"processor", "instruction sets", "memory", "disk of the home", "llama.cpp"} <= found.keys()
    assert all(finding["cost"] for finding in found.values() if finding["state"] == "lack")


def test_an_outdated_environment_has_another_name_than_its_successor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = EnvironmentSpec("vLLM", "1.0", "cpu")
    found = [EnvironmentEntry(spec, GIB, tmp_path / name / "bin" / "python", name == "old") for name in ("old", "new")]
    monkeypatch.setattr(Environments, "entries", lambda _: found)
    findings = [each for each in checkup.examine(offline(tmp_path)) if each.about.startswith("environment")]
    assert [each.about for each in findings] == ["environment old", f"environment {spec.name}"]


def test_a_disk_that_can_not_be_read_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def free_bytes(folder: Path) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checkup, "free_bytes", free_bytes)
    found = {each.about: each for each in checkup.examine(offline(tmp_path))}
    home = found["disk of the home"]
    assert (home.state, home.found) == ("broken", f"{tmp_path} can't be read: Permission denied")


def test_a_home_that_cannot_be_written_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = {each.about: each for each in checkup.examine(offline(tmp_path / "file" / "home"))}["disk of the home"]
    assert (found.state, found.found) == ("broken", f"{tmp_path}/file/home: {tmp_path}/file is not a folder")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    found = {each.about: each for each in checkup.examine(offline(tmp_path / "home"))}["disk of the home"]
    assert (found.state, found.found) == ("broken", f"{tmp_path}/home: this user cannot write to it")


def test_the_settings_of_the_environment_are_named_without_their_values_and_a_wrong_one_with_the_right_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XINFERENCE_API_KEY", "secret")
    right = {each.about: each for each in checkup.examine(offline(tmp_path))}["settings"]
    assert (right.state, "XINFERENCE_API_KEY" in right.found, "secret" in right.found) == ("ok", True, False)
    monkeypatch.setenv("XINFERENCE_PROT", "1")
    wrong = {each.about: each for each in checkup.examine(offline(tmp_path))}["settings"]
    assert (wrong.state, wrong.cost) == ("lack", "XINFERENCE_PROT has no effect; did you mean XINFERENCE_PORT?")


def test_a_server_that_requires_a_key_is_recognised(
    canned: Canned, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XINFERENCE_OFFLINE", "1")
    monkeypatch.setenv("XINFERENCE_HOME", str(tmp_path))
    port = canned.url.rpartition(":")[2]
    monkeypatch.setenv("XINFERENCE_PORT", port)
    canned.answers["GET", "/status"] = problem(401, "unauthorized", "A key is needed.")
    for auth, found in (({"auth": True}, "a server runs"), ({"detail": "no"}, "another program")):
        canned.answers["GET", "/v1/cluster/auth"] = Answer(auth)
        (finding,) = [f for f in json.loads(run("doctor", "--json").stdout) if f["about"] == f"port {port}"]
        assert found in finding["found"]
