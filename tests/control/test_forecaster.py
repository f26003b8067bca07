"""The memory of a launch without its weights equals that with them, and no weights are fetched for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.plans import host_of, launch_of
from tests.fakes.hub.loopback import LoopbackHub, serve
from tests.fakes.hub.repositories import Content, Padded, repository
from tests.support.examples import positions
from tests.weights import real_sizes
from xinference.catalog.facts import own_families
from xinference.catalog.models import ModelShapeFacts, ModelVersion, Source
from xinference.config import Settings
from xinference.control.forecaster import Forecaster
from xinference.engines.registry import all_engines
from xinference.hubs.base import FetchPreview
from xinference.hubs.registry import all_hubs
from xinference.hubs.selection import wanted_names
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import SizedPlan
from xinference.planning.gguf_makers import are_early, stored_shape
from xinference.planning.occupancy import Available
from xinference.planning.sizing import size_launch
from xinference.weights.cache import versions_of
from xinference.weights.shape_reader import UNWRITTEN_CALLS, read_shape
from xinference.work_threads import LongWork

TIB = 1 << 40
#: The project's own families whose shape is in the registry.
OWN = own_families(Path(__file__).parents[2] / "catalog")
WITH_SHAPE = [name for name, family in OWN.items() if any(s.shape for s in family.model_specs)]
#: Quantizations of the other families that are compared; of llama-2-chat all are.
SOME = {"none", "4-bit", "int4", "q4_k_m", "q8_0"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with serve(LoopbackHub()) as hub:
        monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no token"))
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield hub


def forecaster(home: Path, *, offline: bool = False) -> Forecaster:
    settings = Settings(home=home, offline=offline)
    return Forecaster(settings, all_hubs(settings), all_engines(), LongWork())


def versions(name: str) -> list[ModelVersion]:
    """The versions on Hugging Face of one family."""
    every = versions_of([OWN[name]])
    return [version for version in every if source_of(version) is not None]


def source_of(version: ModelVersion) -> Source | None:
    return next((s for s in version.spec.sources if s.hub == "huggingface" and s.has(version.quantization)), None)


def publish(hub: LoopbackHub, version: ModelVersion, facts: ModelShapeFacts, folder: Path) -> Path:
    """Put the header of a version on the hub; returns the path of the same weights on this machine."""
    source = source_of(version)
    assert source is not None
    context, model_format = version.family.context_length, version.spec.model_format
    names = wanted_names(version, source)
    files: dict[str, Content]
    if names is None:
        size = real_sizes.folder_bytes(facts, version)
        config = real_sizes.config_json(facts, context, version)
        files = {"config.json": config, "model.safetensors": Padded(b"", size)}
        (folder / "config.json").write_bytes(config)
        sparse(folder / "model.safetensors", b"", size)
        path = folder
    elif model_format == "ggmlv3":
        path = folder / "model.bin"
        head = real_sizes.write_ggml(facts, version.quantization, path)
        files = {names[0]: Padded(head, path.stat().st_size)}
    else:
        file = real_sizes.gguf_file(facts, context, version.quantization, early=are_early(version))
        path = sparse(folder / "model.gguf", file.head, len(file))
        # The parts of a file that is joined after the fetch.
        share = -(-len(file) // len(names))
        files = {
            n: Padded(file.head if i == 0 else b"", min(share, len(file) - i * share)) for i, n in enumerate(names)
        }
    hub.huggingface[source.model_id] = repository(source.model_id, files, ("main", *filter(None, [source.revision])))
    return path


def sparse(path: Path, head: bytes, size: int) -> Path:
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)
    return path


def plan(version: ModelVersion, shape: ModelShape) -> SizedPlan:
    engine = next(e for e in all_engines().values() if e.table.supports(version.spec, version.quantization))
    launch = launch_of(version=version, engine=engine.table.engine)
    return size_launch(launch, Path(), shape, Available(64 * TIB, 0.9), engine.memory)


QUICK = frozenset({"qwen3", "qwen2.5-instruct"})


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.thorough) for name in sorted(WITH_SHAPE)]
)
async def test_the_plan_without_weights_is_within_5_percent_of_the_plan_with_them(
    name: str, hub: LoopbackHub, tmp_path: Path
) -> None:
    online, offline = forecaster(tmp_path / "home"), forecaster(tmp_path / "home", offline=True)
    every = [v for v in versions(name) if v.spec.shape and (name == "llama-2-chat" or v.quantization.lower() in SOME)]
    compared = 0
    for number in positions(len(every)):
        version = every[number]
        source, facts = source_of(version), stored_shape(version)
        assert source is not None and facts is not None
        folder = tmp_path / str(number)
        folder.mkdir()
        path = publish(hub, version, facts, folder)
        with_weights = plan(version, read_shape(path, version)[0]).sizing
        launch = launch_of(version=version, engine="llama.cpp", origin=source)
        for each, origin in ((online, "file header"), (offline, "registry")):
            expected = await each.expect(launch, source, host_of())
            assert expected.source == origin, (version.version_id, expected.notes)
            without = plan(version, expected.shape).sizing
            assert without.total_bytes == pytest.approx(with_weights.total_bytes, rel=0.05), (
                version.version_id,
                origin,
            )
            assert without.kv_cache_bytes == with_weights.kv_cache_bytes, version.version_id
        compared += 1
    assert compared
    assert sum(hub.counters.sent.values()) < compared * (2 << 20), "headers only"


def test_more_than_twenty_other_families_are_compared() -> None:
    assert len(WITH_SHAPE) > 30


class SilentHub:
    """A hub that does not answer until the test ends."""

    def __init__(self) -> None:
        self.end = threading.Event()

    def preview(self, version: ModelVersion, source: Source) -> FetchPreview:
        self.end.wait()
        raise AssertionError("the test has ended")


async def test_the_plan_says_before_a_download_that_the_chat_template_writes_no_calls(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    version = next(each for each in versions("qwen2.5-instruct") if each.spec.model_format == "ggufv2")
    source, facts = source_of(version), stored_shape(version)
    assert source is not None and facts is not None
    publish(hub, version, facts, tmp_path)
    expected = await forecaster(tmp_path / "home").expect(
        launch_of(version=version, engine="llama.cpp", origin=source), source, host_of()
    )
    assert (expected.source, expected.notes) == ("file header", (UNWRITTEN_CALLS,))


async def test_a_hub_that_does_not_answer_in_time_is_replaced_by_the_registry(tmp_path: Path) -> None:
    version = versions("llama-2-chat")[0]
    source = source_of(version)
    assert source is not None
    hub, settings = SilentHub(), Settings(home=tmp_path, hub_seconds=0.01)
    silent = Forecaster(settings, {"huggingface": hub}, all_engines(), LongWork())  # type: ignore[dict-item]  # only one method of a hub is called
    try:
        expected = await silent.expect(launch_of(version=version, engine="llama.cpp"), source, host_of())
    finally:
        hub.end.set()
    assert expected.source == "registry"
    assert "did not answer" in expected.notes[0]
