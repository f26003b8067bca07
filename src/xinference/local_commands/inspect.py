"""`xinference inspect`: reports a weight file, a folder or a hub's repository, and the engines that support it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xinference.catalog.models import ModelSpec
from xinference.engines.registry import all_engines
from xinference.hardware.devices import read_host
from xinference.local_commands.existing_file import require_file
from xinference.weights.reference import reference
from xinference.weights.report import Inspection
from xinference.weights.report_files import inspect_file, inspect_folder
from xinference.weights.report_repository import inspect_repository


def inspect(what: str) -> dict[str, Any]:
    """`Inspection.to_dict` of a path or a Hugging Face id, and ``engines``: name -> None (yes) or the reason.

    Raises:
        Problem: 400 ``model_path_not_found``, ``bad_weight_file`` and similar; for an id also the hub's problems.
    """
    path = Path(what).expanduser()
    if path.is_dir():
        inspection = inspect_folder(path)
    else:
        named = None if path.exists() else reference(what)
        if named is None or named.model_id is None:
            require_file(path, or_repository=True)
            inspection = inspect_file(path)
        else:
            inspection = inspect_repository(named.model_id, revision=named.revision, file=named.file)
    return inspection.to_dict() | {"engines": engines(inspection)}


def engines(inspection: Inspection) -> dict[str, str | None]:
    """Engine -> None if it supports these weights here, else the reason; by format and quantization alone."""
    if inspection.model_format is None or inspection.no_engine:
        return dict.fromkeys(all_engines(), inspection.no_engine or "its format is unknown")
    quantization = inspection.quantization or "unknown"
    spec = ModelSpec(
        model_format=inspection.model_format, model_size_in_billions=0, quantizations=(quantization,), sources=()
    )
    host = read_host()
    answer: dict[str, str | None] = {}
    for name, engine in all_engines().items():
        supported = engine.table.supports(spec, quantization)
        answer[name] = engine.available(spec, host).reason if supported else supported.reason
    return answer
