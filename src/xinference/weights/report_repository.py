"""Inspects a repository on Hugging Face by its file list and its small files; fetches no weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from xinference.config import Settings
from xinference.formats.model_config import MAX_CONFIG, read_config
from xinference.formats.packing import QUANT_CONFIG_FILE
from xinference.hubs.repositories.huggingface import HuggingFaceHub
from xinference.weights.file_source import RepositorySource
from xinference.weights.gguf_models import choose_model, gguf_models
from xinference.weights.report import PICKLES, Inspection, from_config
from xinference.weights.report_files import of_headers
from xinference.weights.small_files import read_template, small_object


def inspect_repository(
    model_id: str, settings: Settings | None = None, *, revision: str | None = None, file: str | None = None
) -> Inspection:
    """A repository on Hugging Face: its weight files with sizes, and the facts in its small files; or one GGUF `file`.

    Raises:
        Problem: ``offline``, ``repo_not_found``, ``gated_model``, ``hub_unreachable``.
    """
    hub = HuggingFaceHub(settings or Settings.from_env())
    listing = hub.listing(model_id, revision)
    source = RepositorySource(hub, model_id, listing)
    if file is not None:
        return _one_file(source, file)
    sizes = {file.name: file.size for file in listing.files}
    ggufs = tuple((name, size) for name, size in sizes.items() if name.endswith(".gguf"))
    ggmls = tuple((name, size) for name, size in sizes.items() if name.endswith(".bin") and "ggml" in name.lower())
    if single := ggufs or ggmls:
        return Inspection(
            what=model_id,
            model_format="ggufv2" if ggufs else "ggmlv3",
            size_bytes=sum(size for _, size in single),
            files=single,
            notes=("each file is a model or a part of one; inspect one file for its details",),
        )
    safetensors = tuple((name, size) for name, size in sizes.items() if name.endswith(".safetensors"))
    pickles = tuple((name, size) for name, size in sizes.items() if name.endswith(PICKLES))
    data = source.small("config.json", MAX_CONFIG)
    if data is None:
        return Inspection(
            what=model_id,
            model_format=None,
            size_bytes=sum(size for _, size in safetensors or pickles),
            files=safetensors or pickles,
            no_engine="it has neither a config.json nor a GGUF file",
        )
    config = read_config(data, Path("config.json"), small_object(source, QUANT_CONFIG_FILE))
    inspection = from_config(model_id, config, safetensors or pickles)
    return replace(inspection, chat_template=read_template(source))


def _one_file(source: RepositorySource, file: str) -> Inspection:
    model = choose_model(gguf_models(source.files), source.title, None, file)
    headers = [source.gguf(name) for name in model.files]
    return of_headers(f"{source.model_id}/{file}", headers[0], headers)
