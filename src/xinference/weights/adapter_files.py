"""Checks the files of a LoRA adapter before an engine reads them: an engine reports them only in its log."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from xinference.error_codes import Code
from xinference.errors import Problem, bad_request
from xinference.files.small_file import read_small_object
from xinference.formats.safetensors import read_safetensors, read_tensor_shapes
from xinference.launch.model_shape import ModelShape

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
#: PEFT's older files, which may run a program when they are read.
PICKLES = ("adapter_model.bin", "adapter_model.pt")
FOLDER = "Pass the folder of the adapter, as PEFT writes it."
#: A configuration has about 1 KB.
MAX_CONFIG_BYTES = 1 << 20
#: A tensor in a layer of the language model, with the number of the layer; other parts have layers of their own sizes.
LAYER = re.compile(r"^(?!.*(?:vision|visual|audio|tower|encoder)).*?\.layers\.(\d+)\.")
#: The matrix that reads the hidden state: its last dimension is the model's hidden size.
READS_HIDDEN = re.compile(r"\.(?:self_attn\.(?:q|k|v|qkv)_proj|mlp\.(?:gate|up|gate_up)_proj)\.lora_A\.")


def check_adapter_files(name: str, folder: Path) -> None:
    """Check the configuration and the header of the weights in an adapter's folder. Blocks.

    Raises:
        Problem: 400, names the adapter, the file and the reason.
    """
    kind = _read_config(name, folder / CONFIG).get("peft_type")
    if kind != "LORA":
        raise _refusal(name, folder / CONFIG, f"it is an adapter of the type {kind!r:.40}, and only LORA is served")
    weights = folder / WEIGHTS
    if not weights.is_file():
        pickle = next((each for each in PICKLES if (folder / each).is_file()), None)
        if pickle is not None:
            reason = "only .safetensors files are read, because a pickle may run a program"
            raise _refusal(name, folder / pickle, reason, "Save the adapter again with PEFT's safe_serialization.")
        raise _refusal(name, weights, "the file does not exist")
    try:
        read_safetensors(weights)
    except Problem as problem:
        raise _refusal(name, weights, problem.cause.rstrip(".")) from problem


def check_adapters_fit(adapters: Mapping[str, str], shape: ModelShape, model_name: str) -> None:
    """Check that the matrices of adapters (name -> folder) have the sizes of the model. Blocks.

    The name of the base model in an adapter's configuration does not decide: it may be a path on another machine, or
    another fine-tune of the same model.

    Raises:
        Problem: 400, names the adapter, its base model, the model, and the sizes that differ.
    """
    for name, path in adapters.items():
        folder = Path(path)
        config = _read_config(name, folder / CONFIG)
        reason = next(_differences(read_tensor_shapes(folder / WEIGHTS), shape, model_name), None)
        if reason is not None:
            base = config.get("base_model_name_or_path")
            of_base = f" for the model {base:.200}" if isinstance(base, str) and base else " for another model"
            raise bad_request(
                f"The adapter {name} was trained{of_base}, and does not fit {model_name}: {reason}.",
                hint="Launch the adapter with the model that it was trained for.",
                code=Code.BAD_WEIGHT_FILE,
            )


def _differences(tensors: Mapping[str, tuple[int, ...]], shape: ModelShape, model_name: str) -> Iterator[str]:
    for name, dimensions in tensors.items():
        layer = LAYER.match(name)
        if layer is None:
            continue
        if shape.hidden and READS_HIDDEN.search(name) and dimensions[-1:] != (shape.hidden,):
            yield (
                f"its hidden size is {dimensions[-1] if dimensions else 0}, and that of {model_name} is {shape.hidden}"
            )
        if shape.layers and int(layer[1]) >= shape.layers:
            yield f"it has a layer {layer[1]}, and {model_name} has {shape.layers} layers, counted from 0"


def _read_config(name: str, config: Path) -> dict[str, object]:
    try:
        return read_small_object(config, MAX_CONFIG_BYTES)
    except OSError:
        raise _refusal(name, config, "it can't be read as a JSON object") from None


def _refusal(name: str, path: Path, reason: str, hint: str = FOLDER) -> Problem:
    return bad_request(f"The adapter {name} can't be loaded: {path}: {reason}.", hint=hint, code=Code.BAD_WEIGHT_FILE)
