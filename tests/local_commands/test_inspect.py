from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.hub.loopback import LoopbackHub, serve
from tests.fakes.hub.repositories import Content, repository
from tests.formats.gguf_writer import UINT32, Gguf, llama_pairs, scalar
from xinference.errors import Problem
from xinference.local_commands.inspect import inspect

ASSETS = Path(__file__).parent.parent / "assets"
HF = ASSETS / "tiny-llama2-chat-hf"
GGML = ASSETS / "tiny-llama2-chat-ggmlv3" / "tiny-llama2-chat.ggmlv3.q4_0.bin"


def put(folder: Path, **config: Any) -> Path:
    """The tiny model's folder with another configuration."""
    shutil.copytree(HF, folder)
    fields = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


def test_a_gguf_file_tells_everything(tmp_path: Path) -> None:
    found = inspect(str(Gguf().write(tmp_path / "m.gguf")))
    assert {key: found[key] for key in ("model_format", "architecture", "quantization", "layers", "heads")} == {
        "model_format": "ggufv2",
        "architecture": "llama",
        "quantization": "Q4_K_M",
        "layers": 2,
        "heads": 4,
    }
    assert (found["kv_heads"], found["head_dim"], found["context_length"]) == (2, 16, 128)
    assert found["kv_bytes_per_token"] == 2 * 2 * 2 * 16 * 2
    assert found["kv_bytes_full"] == 128 * found["kv_bytes_per_token"]
    assert found["chat_template"] == "{{ messages }}" and found["vocab_size"] == 3
    assert found["engines"]["llama.cpp"] is None and "ggufv2" in found["engines"]["vLLM"]


def test_the_parts_of_a_split_model_are_one(tmp_path: Path) -> None:
    pairs = llama_pairs() | {"split.count": scalar(UINT32, 2)}
    first = Gguf(pairs).write(tmp_path / "m-00001-of-00002.gguf")
    assert inspect(str(first))["engines"]["llama.cpp"] == "parts of it are missing"
    Gguf(pairs).write(tmp_path / "m-00002-of-00002.gguf")
    found = inspect(str(tmp_path))
    assert len(found["files"]) == 2 and found["size_bytes"] == 2 * first.stat().st_size
    assert found["engines"]["llama.cpp"] is None


def test_a_ggmlv3_file_tells_what_it_can(tmp_path: Path) -> None:
    found = inspect(str(GGML))
    assert (found["model_format"], found["quantization"], found["layers"]) == ("ggmlv3", "q4_0", 2)
    assert found["context_length"] is None and "convert" in found["notes"][0]


def test_a_folder_is_read_by_its_configuration_and_headers() -> None:
    found = inspect(str(HF))
    assert (found["architecture"], found["quantization"], found["context_length"]) == ("LlamaForCausalLM", "none", 4096)
    assert found["bytes_by_type"].keys() == {"F16"}
    assert "[INST]" in found["chat_template"]
    assert "not pytorch" in found["engines"]["llama.cpp"]


@pytest.mark.parametrize(
    ("quantization", "wanted"),
    [
        ({"quant_method": "gptq", "bits": 4}, ("gptq", "Int4")),
        ({"quant_method": "awq", "bits": 4}, ("awq", "Int4")),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, ("bnb", "4-bit")),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, ("bnb", "8-bit")),
        ({"quant_method": "fp8"}, ("fp8", "FP8")),
        ({"quant_method": "mxfp4"}, ("fp4", "MXFP4")),
    ],
)
def test_a_folder_tells_how_it_is_quantized(
    tmp_path: Path, quantization: dict[str, Any], wanted: tuple[str, str]
) -> None:
    found = inspect(str(put(tmp_path / "m", quantization_config=quantization)))
    assert (found["model_format"], found["quantization"]) == wanted


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = put(tmp_path / "m")
    index = {"weight_map": {"a": "model.safetensors", "b": "other.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert inspect(str(folder))["engines"]["vLLM"] == "other.safetensors is missing"


@pytest.mark.parametrize("weight_map", [["a"], "a", {}, {"w": ["a"]}])
def test_an_index_without_names_of_files_is_named(tmp_path: Path, weight_map: Any) -> None:
    folder = put(tmp_path / "m")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert inspect(str(folder))["engines"]["vLLM"] == "model.safetensors.index.json is missing"


def test_a_template_in_the_configuration_of_a_processor_is_shown(tmp_path: Path) -> None:
    folder = put(tmp_path / "m")
    (folder / "tokenizer_config.json").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert inspect(str(folder))["chat_template"] == "{{ messages }}"


def test_pickles_are_named_and_not_opened(tmp_path: Path) -> None:
    folder = put(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02 anything")
    found = inspect(str(folder))
    assert found["files"] == [{"name": "pytorch_model.bin", "size_bytes": 11}]
    assert "pickle" in found["notes"][0]
    assert "pickle" in inspect(str(folder / "pytorch_model.bin"))["notes"][0]


def test_latent_attention_keeps_less(tmp_path: Path) -> None:
    found = inspect(str(put(tmp_path / "m", kv_lora_rank=64, qk_rope_head_dim=8)))
    assert found["kv_bytes_per_token"] == 2 * 72 * 2


@pytest.mark.parametrize("config", [b"", b"[]", b"\xff", b'{"num_hidden_layers": "2"}', b'{"hidden_size": -1}'])
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, config: bytes) -> None:
    (tmp_path / "config.json").write_bytes(config)
    with pytest.raises(Problem) as caught:
        inspect(str(tmp_path))
    assert caught.value.code == "bad_weight_file"


def test_a_folder_with_several_models_lists_them(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        Gguf().write(tmp_path / name)
    with pytest.raises(Problem, match=r"a\.gguf, b\.gguf"):
        inspect(str(tmp_path))


def test_what_is_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="does not exist"):
        inspect(str(tmp_path / "none.gguf"))


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"a.Q4_0.gguf": b"x" * 10, "a.Q8_0.gguf": b"x" * 20}, ("ggufv2", 30, None)),
        ({"a.ggmlv3.q4_0.bin": b"x" * 10, "config.json": b"{}"}, ("ggmlv3", 10, None)),
        ({"config.json": HF / "config.json", "m.safetensors": b"x" * 9}, ("pytorch", 9, "LlamaForCausalLM")),
        ({"README.md": b""}, (None, 0, None)),
    ],
)
def test_a_repository_is_told_by_its_list_and_small_files(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, Content],
    wanted: tuple[str | None, int, str | None],
) -> None:
    with serve(LoopbackHub([repository("o/tiny", files, ("main",))])) as hub:
        monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.chdir(tmp_path)
        found = inspect("o/tiny")
        assert (found["model_format"], found["size_bytes"], found["architecture"]) == wanted
        assert not hub.counters.of("safetensors") and not hub.counters.of("gguf")


def test_one_file_of_a_repository_is_told_by_its_header_at_the_revision_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    whole = Gguf(data_bytes=8 << 20).to_bytes()
    hub = LoopbackHub([repository("me/tiny", {"tiny-Q4_0.gguf": whole, "tiny-Q8_0.gguf": whole}, ("main", "v1"))])
    with serve(hub) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        found = inspect("me/tiny/tiny-Q8_0.gguf@v1")
        assert (found["what"], found["architecture"], found["layers"]) == ("me/tiny/tiny-Q8_0.gguf", "llama", 2)
        assert found["size_bytes"] == len(whole) and found["engines"]["llama.cpp"] is None
        assert served.counters.sent["tiny-Q8_0.gguf"] < len(whole)
        assert "tiny-Q4_0.gguf" not in served.counters.sent


def test_a_repository_is_not_asked_for_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XINFERENCE_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Problem) as caught:
        inspect("o/tiny")
    assert caught.value.code == "offline"
