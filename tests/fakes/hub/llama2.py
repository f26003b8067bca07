"""All of llama-2-chat under its real ids and file names, made from the tiny model when it is asked for."""

from __future__ import annotations

import threading
from collections import defaultdict
from functools import partial
from pathlib import Path

from tests.fakes.hub.loopback import LoopbackHub
from tests.fakes.hub.repositories import Content, Repository, repository
from xinference.catalog.models import ModelSpec, Source
from xinference.catalog.registry import builtin_families

_making = threading.Lock()


def llama2_hub(assets: Path, made: Path) -> LoopbackHub:
    """The repositories of every spec on both hubs.

    `assets` is the tiny model's folder as on Hugging Face; `made` keeps the quantized files, which all sizes share.
    """
    files: dict[tuple[str, str], dict[str, Content]] = defaultdict(dict)
    revisions: dict[tuple[str, str], tuple[str, ...]] = {}
    for spec in builtin_families()["llama-2-chat"].model_specs:
        for source in spec.sources:
            key = (source.hub, source.model_id)
            default = "main" if source.hub == "huggingface" else "master"
            revisions[key] = (default, *([source.revision] if source.revision else []))
            files[key] |= _files(spec, source, assets, made)
    made_of: dict[str, list[Repository]] = {"huggingface": [], "modelscope": []}
    for (hub, model_id), contents in files.items():
        made_of[hub].append(repository(model_id, contents, revisions[hub, model_id]))
    return LoopbackHub(made_of["huggingface"], made_of["modelscope"])


def _files(spec: ModelSpec, source: Source, assets: Path, made: Path) -> dict[str, Content]:
    if source.file is None:
        paths = [path for path in assets.iterdir() if path.name != "qa.json"]
        if spec.model_format == "pytorch":
            return {path.name: path for path in paths}
        return {path.name: partial(_make_packed, spec.model_format, path.name, assets, made) for path in paths}
    contents: dict[str, Content] = {"README.md": source.model_id.encode(), "config.json": assets / "config.json"}
    for quantization in spec.quantizations:
        if source.has(quantization):
            whole = partial(_make, spec.model_format, quantization, assets, made)
            for name in source.parts.get(quantization, ()) or (source.file_name(quantization),):
                assert name is not None
                contents[name] = whole
    return contents


def _make(model_format: str, quantization: str, assets: Path, made: Path) -> Path:
    from tests.formats.ggml_writer import write_ggml
    from tests.formats.gguf_model import write_gguf

    out = made / f"tiny.{model_format}.{quantization}"
    with _making:
        if not out.exists():
            made.mkdir(parents=True, exist_ok=True)
            partial_out = out.with_name(f".{out.name}.partial")
            (write_ggml if model_format == "ggmlv3" else write_gguf)(assets, quantization, partial_out)
            partial_out.replace(out)
    return out


def _make_packed(model_format: str, name: str, assets: Path, made: Path) -> Path:
    """One file of the tiny model's GPTQ or AWQ folder."""
    from tests.formats.awq_writer import write_awq
    from tests.formats.gptq_writer import write_gptq

    out = made / f"tiny.{model_format}"
    with _making:
        if not out.exists():
            partial_out = out.with_name(f".{out.name}.partial")
            (write_gptq if model_format == "gptq" else write_awq)(assets, partial_out)
            partial_out.replace(out)
    return out / name
