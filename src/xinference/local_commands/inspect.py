"""What weights are, wherever they lie: a file, a folder, or a repository of a hub; and which engines could run them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xinference.catalog.models import ModelSpec
from xinference.engines.registry import all_engines
from xinference.hardware.devices import read_host
from xinference.weights.reference import reference
from xinference.weights.report import Inspection
from xinference.weights.report_files import inspect_file, inspect_folder
from xinference.weights.report_repository import inspect_repository


def inspect(what: str) -> dict[str, Any]:
    """`Inspection.to_dict` of a path or a Hugging Face id, and ``engines``: name -> None (yes) or why not.

    Raises:
        Problem: 400 ``bad_weight_file`` and the like; for an id also what the hub answers.
    """
    path = Path(what).expanduser()
    if path.is_dir():
        found = inspect_folder(path)
    else:
        named = None if path.exists() else reference(what)
        if named is None or named.model_id is None:
            found = inspect_file(path)
        else:
            found = inspect_repository(named.model_id, revision=named.revision, file=named.file)
    return found.to_dict() | {"engines": engines(found)}


def engines(found: Inspection) -> dict[str, str | None]:
    """Engine -> None if it could run these weights here, else why not; by format and quantization alone."""
    if found.model_format is None or found.no_engine:
        return dict.fromkeys(all_engines(), found.no_engine or "its format is unknown")
    quantization = found.quantization or "unknown"
    spec = ModelSpec(
        model_format=found.model_format, model_size_in_billions=0, quantizations=(quantization,), sources=()
    )
    host = read_host()
    answer: dict[str, str | None] = {}
    for name, engine in all_engines().items():
        supported = engine.table.supports(spec, quantization)
        answer[name] = engine.available(spec, host).reason if supported else supported.reason
    return answer
