"""Writes a launch request as the command line that makes it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from xinference.catalog.models import ModelVersion
from xinference.launch.request import LaunchRequest


def launch_command(
    request: LaunchRequest,
    version: ModelVersion,
    *,
    engine: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> str:
    """The command that launches `version` with the other fields of `request`.

    Args:
        engine: another engine than that of the request.
        options: other engine options than those of the request, by any accepted name.
    """
    words = ["xinference", "launch", request.asked_name or version.family.model_name]
    if request.asked_name is None:
        size, model_format = str(version.spec.model_size_in_billions), version.spec.model_format
        words += ["-s", f"{size.replace('_', '.')}B", "-f", model_format]
    if request.asked_name is None or not _names_a_file(request.asked_name):
        words += ["-q", version.quantization]
    for flag, value in _named_fields(request, engine).items():
        words += [flag, str(value)]
    if request.on_demand:
        words.append("--on-demand")
    if request.pin:
        words.append("--pin")
    if request.enable_thinking is not None:
        words.append("--enable-thinking" if request.enable_thinking else "--disable-thinking")
    for name, value in request.envs.items():
        words += ["--env", name, value]
    return shlex.join([*words, *_option_words(request.options if options is None else options)])


def _named_fields(request: LaunchRequest, engine: str | None) -> dict[str, Any]:
    """Flag -> value of the fields that the request names."""
    gpus = "none" if request.n_gpu is None else request.n_gpu
    fields = {
        "-t": None if request.model_type == "LLM" else request.model_type,
        "-en": engine or request.model_engine,
        "-u": request.model_uid,
        "-mp": None if request.asked_name is not None else request.model_path,
        "--download-hub": request.download_hub,
        "--n-gpu": None if gpus == "auto" else gpus,
        "--gpu-idx": None if request.gpu_idx is None else ",".join(map(str, request.gpu_idx)),
        "-r": None if request.replica == 1 else request.replica,
        "--request-limits": request.request_limits,
        "--max-output-tokens": request.max_output_tokens,
        "--max-request-seconds": request.max_request_seconds,
        "--ttl": request.ttl,
        "--priority": request.priority or None,
    }
    return {flag: value for flag, value in fields.items() if value is not None}


def _option_words(options: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in options.items():
        if name == "lora_modules" and isinstance(value, Mapping):
            words += [word for pair in value.items() for word in ("--lora-modules", *map(str, pair))]
        elif value is not None:
            words += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
    return words


def _names_a_file(name: str) -> bool:
    """Whether a path or a repository's name ends with one GGUF file, which has one quantization."""
    return name.lower().endswith(".gguf")
