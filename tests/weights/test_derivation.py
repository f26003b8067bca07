"""Launches of files here and of repositories on a loopback hub, looked at without fetching the weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.hub.loopback import LoopbackHub, serve
from tests.fakes.hub.repositories import repository
from tests.formats.gguf_model import write_gguf
from tests.formats.gguf_writer import STRING, UINT32, Gguf, llama_pairs, scalar
from tests.support.examples import examples
from xinference.catalog.registration_store import Registrations
from xinference.config import Settings
from xinference.control.resolver import ModelResolver
from xinference.errors import Problem
from xinference.hubs.local_files import resolve_local
from xinference.hubs.registry import all_hubs
from xinference.launch.request import LaunchRequest
from xinference.weights.derivation import DerivedRequest, derive, requested_reference

HF = Path(__file__).parent.parent / "assets" / "tiny-llama2-chat-hf"
CONFIG = json.loads((HF / "config.json").read_text())


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(HF, "Q8_0", tmp_path_factory.mktemp("gguf") / "tiny-Q8_0.gguf")


@pytest.fixture(scope="module")
def hub(gguf: Path) -> Iterator[LoopbackHub]:
    folder = {path.name: path for path in HF.iterdir() if path.name != "qa.json"}
    made = [
        repository("me/Tiny-GGUF", {"tiny-Q8_0.gguf": gguf, "tiny-Q4_0.gguf": gguf}, ("main",)),
        repository("me/Tiny", folder, ("main", "v1")),
        repository("me/Both", {**folder, "tiny-Q8_0.gguf": gguf}, ("main",)),
        repository("me/Pickle", {"config.json": HF / "config.json", "pytorch_model.bin": b"x"}, ("main",)),
        repository("me/Evil", {"../../x.gguf": gguf, "config.json": b"{}"}, ("main",)),
        repository("me/Gated", {"tiny-Q8_0.gguf": gguf}, ("main",), admitted=("t",)),
    ]
    with serve(LoopbackHub(made, [repository("us/Tiny-GGUF", {"tiny-Q8_0.gguf": gguf}, ("master",))])) as served:
        yield served


@pytest.fixture(autouse=True)
def hub_settings(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    for variable in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT"):
        monkeypatch.setenv(variable, hub.url)


def look(tmp_path: Path, name: str, **asked: Any) -> DerivedRequest:
    request = LaunchRequest(model_name=name, **asked)
    what = requested_reference(request, {})
    assert what is not None
    return derive(request, what, (), all_hubs(Settings(home=tmp_path / "home")))


def test_a_gguf_file_here_is_launched_by_its_path(tmp_path: Path, gguf: Path) -> None:
    request = look(tmp_path, str(gguf)).request
    assert request.family is not None
    assert (request.model_name, request.model_format, request.quantization) == ("tiny-Q8_0", "ggufv2", "Q8_0")
    assert (request.model_path, request.asked_name) == (str(gguf), str(gguf))
    assert (request.family.context_length, request.family.model_ability) == (4096, ("chat",))


def test_a_folder_of_safetensors_is_launched_by_its_path_or_under_a_name_of_ones_own(tmp_path: Path) -> None:
    request = look(tmp_path, str(HF)).request
    assert (request.model_name, request.model_format, request.model_path) == (HF.name, "pytorch", str(HF))
    assert look(tmp_path, "mine", model_path=str(HF)).request.model_name == "mine"


def test_a_repository_is_described_by_the_first_bytes_of_the_file_that_is_meant(
    tmp_path: Path, hub: LoopbackHub
) -> None:
    found = look(tmp_path, "me/Tiny-GGUF", quantization="q8_0").request
    assert found.family is not None and found.model_path is None
    (spec,) = found.family.model_specs
    assert (spec.quantizations, spec.sources[0].hub) == (("Q4_0", "Q8_0"), "huggingface")
    assert spec.sources[0].revision == hub.huggingface["me/Tiny-GGUF"].commit
    assert spec.sources[0].parts["Q8_0"] == ("tiny-Q8_0.gguf",)
    assert not list((tmp_path / "huggingface").rglob("*.gguf"))


def test_one_file_of_a_repository_can_be_named(tmp_path: Path) -> None:
    found = look(tmp_path, "me/Tiny-GGUF/tiny-Q4_0.gguf").request
    assert (found.model_name, found.quantization) == ("tiny-Q4_0", "Q4_0")


def test_a_revision_is_the_one_that_was_asked_for(tmp_path: Path, hub: LoopbackHub) -> None:
    look(tmp_path, "me/Tiny@v1")
    assert any("/api/models/me/Tiny/revision/v1" in path for _, path, _ in hub.counters.requests)


def test_modelscope_is_asked_for_what_hugging_face_does_not_have_or_where_it_is_named(tmp_path: Path) -> None:
    for asked in ({}, {"download_hub": "modelscope"}):
        found = look(tmp_path, "us/Tiny-GGUF", **asked).request
        assert found.family is not None and found.family.model_specs[0].sources[0].hub == "modelscope"


@pytest.mark.parametrize(
    ("name", "asked", "code", "said"),
    [
        ("me/Tiny-GGUF", {"quantization": "Q2_K"}, "unknown_model", "It has Q4_0, Q8_0"),
        ("me/Both", {"model_format": "awq"}, "unknown_model", "pytorch, not awq"),
        ("me/Tiny", {"model_format": "ggufv2"}, "unknown_model", "has no GGUF file"),
        ("me/Tiny", {"model_format": "mlx"}, "invalid_request", "Format mlx"),
        ("me/Pickle", {}, "bad_weight_file", "pickle"),
        ("me/Evil", {}, "bad_weight_file", "no safetensors"),
        ("me/Gated", {}, "gated_model", "HF_TOKEN"),
        ("me/nothing", {}, "repo_not_found", "Check the id"),
        ("me/Tiny@nothing", {}, "revision_not_found", "no revision nothing"),
        ("me/Tiny@-x", {}, "invalid_request", "not a repository id"),
        ("me/Tiny", {"download_hub": "package_index"}, "unknown_hub", "huggingface, modelscope"),
        ("./models", {}, "model_path_not_found", "relative"),
        ("/nowhere/m.gguf", {}, "model_path_not_found", "/nowhere/m.gguf does not exist"),
        (str(HF / "config.json"), {}, "bad_weight_file", "not a GGUF file"),
        (str(HF.parent), {}, "model_path_not_found", "nor the folder of a model"),
    ],
)
def test_what_cannot_be_launched_says_why_and_what_to_do(
    tmp_path: Path, name: str, asked: dict[str, Any], code: str, said: str
) -> None:
    with pytest.raises(Problem) as caught:
        look(tmp_path, name, **asked)
    assert caught.value.code == code and said in str(caught.value)


def test_of_several_quantizations_the_nearest_to_the_usual_one_is_taken_and_said(tmp_path: Path) -> None:
    found = look(tmp_path, "me/Tiny-GGUF")
    assert found.request.quantization == "Q4_0"
    assert found.choices == ("quantization Q4_0: the nearest to Q4_K_M; others: Q8_0 (-q)",)
    assert found.choices[0] in found.reasons
    assert look(tmp_path, "me/Tiny-GGUF:Q8_0").choices == ()


def test_of_both_forms_the_requested_engine_decides_and_else_gguf_is_taken(tmp_path: Path) -> None:
    assert look(tmp_path, "me/Both").request.model_format == "ggufv2"
    request = LaunchRequest(model_name="me/Both", model_engine="vLLM")
    what = requested_reference(request, {})
    assert what is not None
    hubs = all_hubs(Settings(home=tmp_path / "home"))
    assert derive(request, what, (), hubs, formats={"pytorch", "gptq"}).request.model_format == "pytorch"


def test_both_forms_in_one_place_are_told_apart_by_the_quantization(tmp_path: Path) -> None:
    assert look(tmp_path, "me/Both", quantization="Q8_0").request.model_format == "ggufv2"
    assert look(tmp_path, "me/Both", quantization="none").request.model_format == "pytorch"


_INT8 = {"num_bits": 8, "type": "int"}
W8A8 = {
    "quant_method": "compressed-tensors",
    "config_groups": {"group_0": {"weights": _INT8, "input_activations": _INT8}},
}


def folder_with(tmp_path: Path, **changes: Any) -> str:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    (folder / "model.safetensors").write_bytes(b"\0" * 4_000_000)
    return str(folder)


@pytest.mark.parametrize(
    ("changes", "model_format", "quantization"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq", "Int4"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "awq", "Int4"),
        ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}, "fp8", "FP8"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "fp4", "MXFP4"),
        ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}, "fp4", "NVFP4"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bnb", "4-bit"),
        ({"quantization_config": W8A8}, "pytorch", "Int8"),
    ],
)
def test_packed_weights_are_known_by_their_quantization_config(
    tmp_path: Path, changes: dict[str, Any], model_format: str, quantization: str
) -> None:
    # Also by the names that inspecting them prints, and without a size: the bits of the weights tell it.
    named = {"model_format": model_format, "quantization": quantization}
    request = look(tmp_path, folder_with(tmp_path, **changes), **named).request
    assert request.family is not None
    spec = request.family.model_specs[0]
    assert (spec.model_format, spec.quantizations) == (model_format, (quantization,))


@pytest.mark.parametrize(
    ("architecture", "extra", "model_type"),
    [
        ("XLMRobertaForSequenceClassification", {"id2label": {"0": "LABEL_0"}}, "rerank"),
        ("BertModel", {}, "embedding"),
        ("LlamaForCausalLM", {}, "LLM"),
        ("Qwen2_5_VLForConditionalGeneration", {"vision_config": {}}, "LLM"),
    ],
)
def test_the_architecture_says_what_a_model_is_for(
    tmp_path: Path, architecture: str, extra: dict[str, Any], model_type: str
) -> None:
    request = look(tmp_path, folder_with(tmp_path, architectures=[architecture], **extra)).request
    assert request.model_type == model_type


@pytest.mark.parametrize(
    ("architecture", "extra"),
    [("WhisperForConditionalGeneration", {"num_mel_bins": 80}), ("CLIPModel", {"vision_config": {}})],
)
def test_what_hears_or_draws_is_not_taken_for_a_language_model(
    tmp_path: Path, architecture: str, extra: dict[str, Any]
) -> None:
    with pytest.raises(Problem, match=f"The purpose of the architecture {architecture} of .* is unknown"):
        look(tmp_path, folder_with(tmp_path, architectures=[architecture], **extra))


@pytest.mark.parametrize(("pooling", "model_type"), [(0, "LLM"), (1, "embedding"), (4, "rerank")])
def test_a_gguf_files_pooling_says_what_it_is_for(tmp_path: Path, pooling: int, model_type: str) -> None:
    pairs = {**llama_pairs(), "llama.pooling_type": scalar(UINT32, pooling)}
    file = Gguf(pairs=pairs).write(tmp_path / "m.gguf")
    assert look(tmp_path, str(file), model_size_in_billions=1).request.model_type == model_type


def test_a_projector_is_no_model_and_is_known_beside_one(tmp_path: Path, gguf: Path) -> None:
    (tmp_path / "m-Q8_0.gguf").symlink_to(gguf)
    clip = Gguf(pairs={**llama_pairs(), "general.architecture": scalar(STRING, "clip")})
    clip.write(tmp_path / "mmproj-f16.gguf")
    family = look(tmp_path, str(tmp_path)).request.family
    assert family is not None and family.model_specs[0].sources[0].projectors == ("mmproj-f16.gguf",)
    lone = clip.write(tmp_path / "other.gguf")
    with pytest.raises(Problem, match="a part of a model"):
        look(tmp_path, str(lone))


@pytest.mark.parametrize("content", [b"", b"GGUF", b"{" * 100, b"[]", b"\xff\xfe"])
def test_damaged_files_are_problems(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(Problem):
        look(tmp_path, str(tmp_path / "m.gguf"))
    folder = Path(folder_with(tmp_path))
    (folder / "config.json").write_bytes(content)
    with pytest.raises(Problem):
        look(tmp_path, str(folder))


FOLDER_FILES = {
    "config.json": CONFIG | {"id2label": {"0": "a"}, "auto_map": {}, "vision_config": {}, "quantization_config": {}},
    "generation_config.json": {"eos_token_id": [2, 3]},
    "tokenizer_config.json": {"chat_template": [{"name": "default", "template": "{{ messages }}"}]},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(list(FOLDER_FILES)), changes=st.dictionaries(st.integers(0, 30), JSON, min_size=1, max_size=3)
)
def test_whatever_a_models_small_files_say_it_is_described_or_refused_with_a_problem(
    tmp_path: Path, name: str, changes: dict[int, Any]
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 4096)
    for each, content in FOLDER_FILES.items():
        (tmp_path / each).write_text(json.dumps(content))
    fields = dict(FOLDER_FILES[name])
    for position, value in changes.items():
        fields[list(fields)[position % len(fields)]] = value
    (tmp_path / name).write_text(json.dumps(fields))
    try:
        found = look(tmp_path, str(tmp_path))
    except Problem as problem:
        assert problem.status == 400 and problem.hint
    else:
        assert msgspec.json.decode(msgspec.json.encode(found.request), type=LaunchRequest) == found.request


async def test_what_a_repository_was_found_to_be_is_known_when_the_hub_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolver() -> ModelResolver:
        settings = Settings(home=tmp_path / "home")
        return ModelResolver(settings, Registrations(settings.home, {}), all_hubs(settings))

    request = LaunchRequest(model_name="me/Tiny-GGUF", quantization="Q8_0", model_uid="mine")
    online = await resolver().resolve(request)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline = await resolver().resolve(request)
    assert offline.request == online.request
    assert "from the cached look-up" in offline.reasons[0]
    monkeypatch.delenv("HF_HUB_OFFLINE")
    await resolver().resolve(LaunchRequest(model_name="me/Tiny-GGUF", quantization="Q4_0"))
    assert [family.model_name for family in resolver().look_ups.families()] == ["Tiny-GGUF"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Problem, match="HF_HUB_OFFLINE is set"):
        await resolver().resolve(LaunchRequest(model_name="me/Tiny"))


async def test_the_name_of_what_runs_under_the_same_uid_is_not_looked_at_again(
    tmp_path: Path, hub: LoopbackHub
) -> None:
    settings = Settings(home=tmp_path / "home")
    resolver = ModelResolver(settings, Registrations(settings.home, {}), all_hubs(settings))
    request = LaunchRequest(model_name="me/Tiny-GGUF", quantization="Q8_0", model_uid="mine")
    first = (await resolver.resolve(request)).request
    before = len(hub.counters.requests)
    assert (await resolver.resolve(request, first)).request == first
    assert len(hub.counters.requests) == before


def test_a_gguf_file_without_the_ending_is_launched(tmp_path: Path, gguf: Path) -> None:
    blob = tmp_path / f"sha256-{'ab' * 32}"
    blob.write_bytes(gguf.read_bytes())
    request = look(tmp_path, str(blob)).request
    assert (request.model_format, request.quantization, request.model_path) == ("ggufv2", "Q8_0", str(blob))
    assert resolve_local(str(blob), "ggufv2", None) == blob


def test_a_gguf_file_without_the_ending_has_the_name_of_its_metadata(tmp_path: Path) -> None:
    blob = Gguf(pairs=llama_pairs() | {"general.name": scalar(STRING, "My Model")}).write(tmp_path / "sha256-ab")
    assert look(tmp_path, str(blob), model_size_in_billions=1).request.model_name.startswith("My")


def test_another_file_without_the_ending_is_refused_as_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "sha256-cd").write_bytes(b"no weights")
    causes = []
    for name in ("sha256-cd", "sha256-ef"):
        with pytest.raises(Problem) as caught:
            look(tmp_path, str(tmp_path / name))
        causes.append(caught.value.cause.replace(name, "x"))
    assert causes[0] == causes[1]


def test_a_file_url_is_a_path(tmp_path: Path, gguf: Path) -> None:
    odd = tmp_path / "with space.gguf"
    odd.write_bytes(gguf.read_bytes())
    for url in (f"file://{gguf}", f"file://localhost{gguf}", odd.as_uri()):
        assert look(tmp_path, url).request.model_path in (str(gguf), str(odd))
        assert resolve_local(url, "ggufv2", None) in (gguf, odd)
    assert look(tmp_path, "mine", model_path=odd.as_uri()).request.model_path == str(odd)


@pytest.mark.parametrize("present", [(2, 3), (1, 3), (1,)])
def test_a_folder_with_missing_parts_names_them(tmp_path: Path, present: tuple[int, ...]) -> None:
    for index in present:
        Gguf().write(tmp_path / f"m-Q4_0-{index:05}-of-00003.gguf")
    absent = ", ".join(f"m-Q4_0-{index:05}-of-00003.gguf" for index in (1, 2, 3) if index not in present)
    part = tmp_path / f"m-Q4_0-{present[0]:05}-of-00003.gguf"
    for name in (tmp_path, part):
        with pytest.raises(Problem) as caught:
            look(tmp_path, str(name))
        assert f"missing: {absent}." in caught.value.cause
    with pytest.raises(Problem, match="missing: "):
        resolve_local(str(tmp_path), "ggufv2", None)


def test_a_missing_file_is_refused_with_the_near_names_in_its_folder(tmp_path: Path, gguf: Path) -> None:
    (tmp_path / "tiny-Q8_0.gguf").write_bytes(gguf.read_bytes())
    (tmp_path / "tiny-secret.txt").write_text("")
    with pytest.raises(Problem) as caught:
        look(tmp_path, str(tmp_path / "tiny-Q8.gguf"))
    assert "does not exist" in caught.value.cause
    assert caught.value.hint == f"Did you mean tiny-Q8_0.gguf in {tmp_path}?"
