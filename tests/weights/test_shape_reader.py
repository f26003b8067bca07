"""What the planner is told of weights that are here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.engines.plans import launch_of, spec_of
from tests.formats.gguf_writer import UINT32, Gguf, llama_pairs, scalar, tensor
from tests.formats.mmproj_writer import write_mmproj
from xinference.catalog.models import ModelVersion, Source
from xinference.catalog.registry import builtin_families
from xinference.engines.base import ExtraWeightFile
from xinference.engines.registry import all_engines
from xinference.errors import Problem
from xinference.hubs.base import FetchPreview, RemoteFile
from xinference.launch.match import match
from xinference.launch.model_shape import ModelShape
from xinference.launch.request import LaunchRequest
from xinference.local_commands.inspect import inspect
from xinference.weights.derivation import derive, requested_reference
from xinference.weights.reference import Reference
from xinference.weights.remote_shape import read_remote_shape
from xinference.weights.shape_reader import UNTOLD_TOOLS, read_shape

HF = Path(__file__).parent.parent / "assets" / "tiny-llama2-chat-hf"


def split(folder: Path, parts: int = 3) -> Path:
    """A model in parts, as llama.cpp's `gguf-split` leaves them: only the first has more than its tensors."""
    for index in range(parts):
        pairs = {"split.no": scalar(UINT32, index), "split.count": scalar(UINT32, parts)}
        file = Gguf(
            pairs={**llama_pairs(), **pairs} if index == 0 else pairs, tensors=[tensor(f"w{index}", (64, 2), 0, 0)]
        )
        file.write(folder / f"m-Q4_0-{index + 1:05}-of-{parts:05}.gguf")
    return folder / f"m-Q4_0-00001-of-{parts:05}.gguf"


def test_the_weights_of_a_split_model_are_those_of_all_its_parts(tmp_path: Path) -> None:
    first = split(tmp_path)
    family = match(builtin_families(), LaunchRequest(model_name="llama-2-chat")).family
    shape, _ = read_shape(first, ModelVersion(family=family, spec=spec_of("ggufv2", "Q4_0"), quantization="Q4_0"))
    assert (shape.weights_bytes, shape.bytes_by_type) == (3 * 64 * 2 * 4, {"F32": 3 * 64 * 2 * 4})
    assert (shape.heads, shape.kv_heads, shape.trained_context) == (4, 2, 128)


def test_bytes_of_an_extra_file_count_as_weights_and_its_header_must_be_of_its_kind(tmp_path: Path) -> None:
    weights, projector = tmp_path / "m.gguf", write_mmproj(tmp_path / "mmproj.gguf", 64)
    Gguf(pairs=llama_pairs(), tensors=[tensor("w", (64, 2), 0, 0)]).write(weights)
    family = match(builtin_families(), LaunchRequest(model_name="llama-2-chat")).family
    version = ModelVersion(family=family, spec=spec_of("ggufv2", "Q4_0"), quantization="Q4_0")
    alone, _ = read_shape(weights, version)
    both, _ = read_shape(weights, version, [ExtraWeightFile(projector, "projector", "clip", "Give another.")])
    assert both.weights_bytes == alone.weights_bytes + projector.stat().st_size
    with pytest.raises(Problem, match=r"m\.gguf is not a projector but a separate model \(llama\)") as caught:
        read_shape(weights, version, [ExtraWeightFile(weights, "projector", "clip", "Give another.")])
    assert caught.value.hint == "Give another."


PLAIN, WITH_TOOLS = "{{ messages }}", "{{ tools }}{{ messages }}"


@pytest.mark.parametrize(
    ("files", "is_told"),
    [
        ({}, True),  # the engine writes the prompt in its own way
        ({"chat_template.jinja": WITH_TOOLS}, True),
        ({"chat_template.jinja": PLAIN}, False),
        ({"chat_template.jinja": PLAIN, "additional_chat_templates/tool_use.jinja": WITH_TOOLS}, True),
        ({"tokenizer_config.json": json.dumps({"chat_template": WITH_TOOLS})}, True),
        ({"tokenizer_config.json": json.dumps({"chat_template": PLAIN})}, False),
        ({"tokenizer_config.json": "[]"}, True),
        ({"chat_template.jinja": ""}, True),
        ({"chat_template.json": json.dumps({"chat_template": PLAIN})}, False),
        ({"chat_template.json": json.dumps({"chat_template": WITH_TOOLS})}, True),
        (
            {
                "tokenizer_config.json": json.dumps(
                    {
                        "chat_template": [
                            {"name": n, "template": t} for n, t in (("default", PLAIN), ("tool_use", WITH_TOOLS))
                        ]
                    }
                )
            },
            True,
        ),
    ],
)
def test_a_plan_says_that_a_chat_template_has_no_place_for_tools(
    tmp_path: Path, files: dict[str, str], is_told: bool
) -> None:
    shutil.copytree(HF, tmp_path / "model")
    (tmp_path / "model" / "tokenizer_config.json").unlink()
    for name, text in files.items():
        file = tmp_path / "model" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    version = match(builtin_families(), LaunchRequest(model_name="qwen2.5-instruct", model_format="pytorch"))
    assert read_shape(tmp_path / "model", version)[1] == (() if is_told else (UNTOLD_TOOLS,))


def test_a_split_model_is_inspected_and_launched_by_any_of_its_parts(tmp_path: Path) -> None:
    first = split(tmp_path)
    assert inspect(str(first))["bytes_by_type"] == {"F32": 3 * 64 * 2 * 4}
    for name in (first, first.with_name("m-Q4_0-00002-of-00003.gguf"), tmp_path):
        request = LaunchRequest(model_name=str(name), model_size_in_billions=1)
        what = requested_reference(request, {})
        assert what is not None
        found = derive(request, what, (), {}).request
        assert (found.model_path, found.quantization) == (str(first), "Q4_0")


def test_the_longest_input_of_an_embedding_model_is_read_from_all_its_files(tmp_path: Path) -> None:
    config = {"architectures": ["BertModel"], "model_type": "bert", "max_position_embeddings": 512}
    files = {
        "config.json": config | {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 9},
        "sentence_bert_config.json": {"max_seq_length": 256},
        "tokenizer_config.json": {"model_max_length": 512},
        "modules.json": [{"path": "", "type": "sentence_transformers.models.Transformer"}],
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "model.safetensors").write_bytes(bytes(64))
    derived = derive(LaunchRequest(model_name=str(tmp_path)), Reference(path=str(tmp_path)), (), {}).request
    assert derived.family is not None
    assert (derived.model_type, derived.family.context_length, derived.family.dimensions) == ("embedding", 256, 8)
    version = match({derived.family.model_name: derived.family}, derived)
    shape, _ = read_shape(tmp_path, version)
    assert (shape.trained_context, shape.architecture) == (256, "BertModel")


CONFIG = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 8, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 100, "max_position_embeddings": 512, "torch_dtype": "bfloat16"}  # fmt: skip
#: Bytes of one token's keys and values in one layer: two heads of 16, two of each, in 16 bits.
LAYER = 2 * 16 * 2 * 2


def folder(path: Path, weights: int, **changes: object) -> Path:
    """A model's folder with as many bytes of weights."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG | changes))
    with (path / "model.safetensors").open("wb") as file:
        file.truncate(weights)
    return path


def safetensors(dtype: str, count: int, width: int) -> bytes:
    """A file with one tensor of zeros."""
    entry = {"dtype": dtype, "shape": [count], "data_offsets": [0, count * width]}
    header = json.dumps({"w": entry}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(count * width)


@pytest.mark.parametrize(("stored", "width"), [("F32", 4), ("BF16", 2)])
def test_the_type_of_weights_whose_configuration_names_none_is_that_of_their_file(
    tmp_path: Path, stored: str, width: int
) -> None:
    path = folder(tmp_path / "model", 0, torch_dtype=None)
    (path / "model.safetensors").write_bytes(safetensors(stored, 1000, width))
    version = ModelVersion(family=builtin_families()["llama-2-chat"], spec=spec_of("pytorch"), quantization="none")
    here, _ = read_shape(path, version)
    files = tuple(RemoteFile(each.name, each.stat().st_size) for each in path.iterdir())
    on_hub = read_remote_shape(
        FetchPreview(files, {}, open=lambda name: (path / name).open("rb")),
        version,
        Source(hub="huggingface", model_id="o/m"),
    )
    assert here.element_bytes == width
    assert on_hub is not None and on_hub.element_bytes == width


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        ("vLLM", {"speculative_config": {"method": "eagle3", "model": "DRAFT", "num_speculative_tokens": 3}}),
        ("vLLM", {"speculative_config": json.dumps({"method": "draft_model", "model": "DRAFT"})}),
        ("vLLM", {"spec_model": "DRAFT", "spec_method": "eagle"}),
        ("SGLang", {"speculative_algorithm": "EAGLE3", "speculative_draft_model_path": "DRAFT"}),
        ("SGLang", {"speculative_algorithm": "STANDALONE", "speculative_draft_model_path": "DRAFT"}),
    ],
)
def test_the_weights_and_the_cache_of_a_draft_model_are_planned(
    tmp_path: Path, engine: str, options: dict[str, object]
) -> None:
    weights, draft = folder(tmp_path / "m", 10_000), folder(tmp_path / "d", 700, num_hidden_layers=1)
    given = json.loads(json.dumps(options).replace("DRAFT", str(draft)))
    shape = shape_with(engine, weights, given)
    assert (shape.weights_bytes, shape.kv_bytes_per_token) == (10_700, 9 * LAYER)


@pytest.mark.parametrize("field", ["num_nextn_predict_layers", "mtp_num_hidden_layers"])
@pytest.mark.parametrize(
    ("engine", "options"),
    [
        ("vLLM", {"speculative_config": {"method": "mtp", "num_speculative_tokens": 1}}),
        ("SGLang", {"speculative_algorithm": "NEXTN"}),
    ],
)
def test_the_cache_of_the_models_own_layers_that_draft_is_planned(
    tmp_path: Path, engine: str, options: dict[str, object], field: str
) -> None:
    weights = folder(tmp_path / "m", 10_000, **{field: 2})
    shape = shape_with(engine, weights, options)
    assert (shape.weights_bytes, shape.kv_bytes_per_token) == (10_000, 10 * LAYER)
    assert shape_with(engine, weights, {}).kv_bytes_per_token == 8 * LAYER


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        ("vLLM", {}),
        ("vLLM", {"speculative_config": {"method": "ngram", "num_speculative_tokens": 4}}),
        ("vLLM", {"speculative_config": "no JSON"}),
        ("SGLang", {"speculative_algorithm": "NGRAM"}),
        ("SGLang", {"speculative_algorithm": "EAGLE", "speculative_draft_model_path": "owner/name"}),
    ],
)
def test_a_method_without_weights_on_this_machine_adds_nothing(
    tmp_path: Path, engine: str, options: dict[str, object]
) -> None:
    weights = folder(tmp_path / "m", 10_000, num_nextn_predict_layers=1)
    shape = shape_with(engine, weights, options)
    assert (shape.weights_bytes, shape.kv_bytes_per_token) == (10_000, 8 * LAYER)


def test_the_cache_of_a_draft_model_on_llama_cpp_is_planned(tmp_path: Path) -> None:
    weights, draft = tmp_path / "m.gguf", tmp_path / "d.gguf"
    for path in (weights, draft):
        Gguf(pairs=llama_pairs(), tensors=[tensor("w", (64, 2), 0, 0)]).write(path)
    launch = launch_of(engine="llama.cpp", options={"speculative.draft.mparams.path": str(draft)})
    extra = all_engines()["llama.cpp"].extra_weight_files(launch, weights)
    alone, _ = read_shape(weights, launch.version)
    both, _ = read_shape(weights, launch.version, extra)
    assert both.weights_bytes == alone.weights_bytes + draft.stat().st_size
    assert both.kv_bytes_per_token == 2 * alone.kv_bytes_per_token > 0


def shape_with(engine: str, weights: Path, options: dict[str, object]) -> ModelShape:
    launch = launch_of(version=PYTORCH, engine=engine, options=options)
    return read_shape(weights, launch.version, all_engines()[engine].extra_weight_files(launch, weights))[0]


PYTORCH = match(builtin_families(), LaunchRequest(model_name="llama-2-chat", model_format="pytorch"))
