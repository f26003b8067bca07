"""Checks the files of a LoRA adapter before an engine reads them: an engine reports them only in its log."""

from __future__ import annotations

import json
from pathlib import Path

from xinference.error_codes import Code
from xinference.errors import Problem, bad_request
from xinference.formats.safetensors import read_safetensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
#: PEFT's older files, which may run a program when they are read.
PICKLES = ("adapter_model.bin", "adapter_model.pt")
FOLDER = "Pass the folder of the adapter, as PEFT writes it."
#: A configuration has about 1 KB.
MAX_CONFIG_BYTES = 1 << 20


def check_adapter_files(name: str, folder: Path) -> None:
    """Check the configuration and the header of the weights in an adapter's folder. Blocks.

    Raises:
        Problem: 400, names the adapter, the file and the reason.
    """
    kind = _peft_type(name, folder / CONFIG)
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


def _peft_type(name: str, config: Path) -> object:
    try:
        with config.open("rb") as file:
            document = json.loads(file.read(MAX_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise _refusal(name, config, "it can't be read as a JSON object")
    return document.get("peft_type")


def _refusal(name: str, path: Path, reason: str, hint: str = FOLDER) -> Problem:
    return bad_request(f"The adapter {name} can't be loaded: {path}: {reason}.", hint=hint, code=Code.BAD_WEIGHT_FILE)
