"""What fits is the plan of a launch: the same bytes, the same refusals, for all versions at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from xinference.catalog.registry import builtin_families
from xinference.config import Settings
from xinference.engines.registry import all_engines
from xinference.hardware.devices import Gpu, Host
from xinference.launch.request import LaunchRequest
from xinference.local_commands.plan import HomePlanner
from xinference.planning.fits import Fit, FitFinder, Memory
from xinference.planning.occupancy import Occupancy, available
from xinference.units import GIB

CPU = Host(8, 64 * GIB, 48 * GIB, cpu_flags=frozenset({"avx2", "avx512f", "avx512_bf16", "amx_int8"}))


def gpu(index: int, free: int = 70 * GIB) -> Gpu:
    return Gpu(index, "Test", 80 * GIB, free, compute_capability=(9, 0))


def find(host: Host, memory: Memory | None = None, names: tuple[str, ...] = ()) -> list[Fit]:
    families = [family for name, family in builtin_families().items() if not names or name in names]
    memory = memory or Memory(available(host, Occupancy()))
    return list(FitFinder(all_engines()).find(families, host, memory))


@pytest.mark.parametrize("host", [CPU, replace(CPU, memory_available=9 * GIB)], ids=["48 GiB", "9 GiB"])
@pytest.mark.thorough
async def test_the_bytes_are_those_of_a_dry_run(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))
    monkeypatch.setattr("xinference.nodes.local.read_host", lambda: host)
    settings = Settings(home=tmp_path / "home", offline=True)
    home = HomePlanner(settings)
    memory = Memory(available(host, Occupancy(saves_states=settings.saves_states)))
    fitting = [fit for fit in find(host, memory) if fit.state == "now" and fit.plan is not None]
    chosen = fitting[:: len(fitting) // 20][:20]
    assert len({fit.engine for fit in chosen}) > 1
    for fit in chosen:
        spec = fit.version.spec
        request = LaunchRequest(
            model_name=fit.version.family.model_name,
            model_type=fit.version.family.model_type,
            model_engine=fit.engine,
            model_size_in_billions=spec.model_size_in_billions,
            model_format=spec.model_format,
            quantization=fit.version.quantization,
        )
        plan = await home.plan(request)
        assert fit.plan is not None
        sizing = fit.plan.sizing
        assert (plan["version"], plan["engine"]) == (fit.version.version_id, fit.engine)
        assert plan["memory"]["total"] == sizing.total_bytes, fit.version.version_id
        assert (plan["context_length"], plan["slots"]) == (sizing.context_length, sizing.slots)


def test_every_version_has_an_entry_and_each_that_never_fits_has_a_reason() -> None:
    found = find(CPU)
    versions = {fit.version.version_id for fit in found}
    specs = (spec for family in builtin_families().values() for spec in family.model_specs)
    assert len(versions) <= sum(len(spec.quantizations) for spec in specs)
    assert {fit.version.family.model_name for fit in found} == set(builtin_families())
    assert all((fit.reason is None) is (fit.state != "never") for fit in found)
    assert all((fit.code is None) is (fit.state != "never") for fit in found)


def test_a_model_fits_after_the_smallest_model_that_suffices_is_unloaded() -> None:
    names = ("qwen2.5-instruct",)
    free = {(): 2, ("small",): 6, ("large",): 30, ("small", "large"): 34}
    now, *after = [
        (uids, available(replace(CPU, memory_available=count * GIB), Occupancy())) for uids, count in free.items()
    ]
    found = find(CPU, Memory(now[1], after), names)
    states = {(fit.version.size, fit.version.quantization.upper()): fit for fit in found if fit.engine == "llama.cpp"}
    assert states["0_5", "Q4_K_M"].state == "now" and states["0_5", "Q4_K_M"].unload == ()
    assert states["3", "Q4_K_M"].unload == ("small",)
    assert states["14", "Q4_K_M"].unload == ("large",)
    huge = states["72", "Q4_K_M"]
    assert (huge.state, huge.code, huge.plan) == ("never", "does_not_fit", None)
    assert huge.reason is not None and "34,816 MiB are free" in huge.reason


@pytest.mark.thorough
def test_what_is_kept_for_the_next_moment_changes_nothing() -> None:
    finder, families = FitFinder(all_engines()), list(builtin_families().values())[:40]
    hosts = [CPU, replace(CPU, memory_available=GIB), replace(CPU, gpus=(gpu(0), gpu(1))), CPU,
             replace(CPU, gpus=(gpu(0, GIB), gpu(1)))]  # fmt: skip
    for host in hosts:
        memory = Memory(available(host, Occupancy()))
        again = [fit.to_dict() for fit in finder.find(families, host, memory)]
        assert again == [fit.to_dict() for fit in FitFinder(all_engines()).find(families, host, memory)]


def test_a_model_on_gpus_has_its_devices() -> None:
    found = find(replace(CPU, gpus=(gpu(0), gpu(1))), names=("qwen2.5-instruct",))
    by_name = {
        (fit.version.spec.model_format, fit.version.size, fit.version.quantization, fit.engine): fit for fit in found
    }
    assert by_name["pytorch", "7", "none", "vLLM"].to_dict()["devices"] == ((0,),)
    assert len(by_name["pytorch", "32", "none", "vLLM"].to_dict()["devices"][0]) <= 2


def test_a_measured_correction_counts() -> None:
    memory = Memory(available(CPU, Occupancy()))
    plain = {(f.version.version_id, f.engine): f for f in find(CPU, memory, ("qwen2.5-instruct",)) if f.plan}
    key = "qwen2.5-instruct--0_5B--ggufv2--q4_k_m", "llama.cpp"
    corrected = replace(memory, corrected={key: 1000})
    found = {(f.version.version_id, f.engine): f for f in find(CPU, corrected, ("qwen2.5-instruct",)) if f.plan}
    assert key in plain
    changed = {each for each, fit in found.items() if fit.to_dict() != plain[each].to_dict()}
    assert changed == {key}
    before, after = plain[key].plan, found[key].plan
    assert before is not None and after is not None and after.sizing.correction_bytes == 1000
