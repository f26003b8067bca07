"""A repository on Hugging Face, by its list of files and its small ones; no weights are fetched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from xinference.config import Settings
from xinference.formats.model_config import MAX_CONFIG, read_config
from xinference.formats.tokenizer_config import MAX_TOKENIZER_CONFIG, template_in
from xinference.hubs.repositories.huggingface import HuggingFaceHub
from xinference.weights.file_source import HubPlace
from xinference.weights.gguf_models import choose_model, gguf_models
from xinference.weights.report import PICKLES, Inspection, from_config
from xinference.weights.report_files import of_headers


def inspect_repository(
    model_id: str, settings: Settings | None = None, *, revision: str | None = None, file: str | None = None
) -> Inspection:
    """A repository on Hugging Face: its weight files and sizes, and what its small files say; or one GGUF `file` of it.

    Raises:
        Problem: ``offline``, ``repo_not_found``, ``gated_model``, ``hub_unreachable``.
    """
    hub = HuggingFaceHub(settings or Settings.from_env())
    listing = hub.listing(model_id, revision)
    if file is not None:
        return _one_file(HubPlace(hub, model_id, listing), file)
    sizes = {file.name: file.size for file in listing.files}
    ggufs = tuple((name, size) for name, size in sizes.items() if name.endswith(".gguf"))
    ggmls = tuple((name, size) for name, size in sizes.items() if name.endswith(".bin") and "ggml" in name.lower())
    if single := ggufs or ggmls:
        return Inspection(
            what=model_id,
            model_format="ggufv2" if ggufs else "ggmlv3",
            size_bytes=sum(size for _, size in single),
            files=single,
            notes=("each file is a model or a part of one; fetch one to see more",),
        )
    safetensors = tuple((name, size) for name, size in sizes.items() if name.endswith(".safetensors"))
    pickles = tuple((name, size) for name, size in sizes.items() if name.endswith(PICKLES))
    data = hub.small_file(model_id, listing, "config.json", MAX_CONFIG)
    if data is None:
        return Inspection(
            what=model_id,
            model_format=None,
            size_bytes=sum(size for _, size in safetensors or pickles),
            files=safetensors or pickles,
            no_engine="it has neither a config.json nor a GGUF file",
        )
    found = from_config(model_id, read_config(data, Path("config.json")), safetensors or pickles)
    text = hub.small_file(model_id, listing, "chat_template.jinja", MAX_TOKENIZER_CONFIG)
    if text is not None:
        return replace(found, chat_template=text.decode("utf-8", "replace"))
    data = hub.small_file(model_id, listing, "tokenizer_config.json", MAX_TOKENIZER_CONFIG)
    try:
        config = msgspec.json.decode(data or b"{}", type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        config = {}
    return replace(found, chat_template=template_in(config))


def _one_file(place: HubPlace, file: str) -> Inspection:
    model = choose_model(gguf_models(place.files), place.title, None, file)
    headers = [place.gguf(name) for name in model.files]
    return of_headers(f"{place.model_id}/{file}", headers[0], headers)
