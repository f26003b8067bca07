"""Chooses the projector file of a vision model on llama.cpp. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from xinference.catalog.models import ModelVersion, Source
from xinference.engines.base import ExtraWeightFile, FileChoice
from xinference.error_codes import Code
from xinference.errors import bad_request
from xinference.launch.plan import LaunchPlan, ResolvedLaunch

#: llama.cpp's options for the projector's file, and for a launch without a projector.
OPTION = "mmproj.path"
NONE_OPTION = "no_mmproj"
#: The architecture in a projector's header.
ARCHITECTURE = "clip"


def choose_projector(source: Source | None, version: ModelVersion, options: Mapping[str, Any]) -> FileChoice:
    """Choose the requested projector, or else the only one in the weights' repository; it is fetched with them.

    Args:
        source: the repository; None: the launch names the weights by their path.

    Raises:
        Problem: 400 ``projector_not_found``, with the available projectors.
    """
    known = _source(source, version)
    available = known.projectors if known and version.family.model_type == "LLM" else ()
    if options.get(NONE_OPTION):
        return FileChoice(_only(source, None), {k: v for k, v in options.items() if k != OPTION})
    requested = options.get(OPTION)
    if not requested:
        return _choose_default(source, available, options)
    if requested in available:
        return FileChoice(_only(source, requested), options, (f"vision projector {requested}: requested",))
    path = Path(requested).expanduser()
    if path.is_absolute():
        return FileChoice(_only(source, None), {**options, OPTION: str(path)}, (f"vision projector {path}: requested",))
    if source is None or source.hub == "local":
        return FileChoice(source, options, (f"vision projector {requested}: requested",))
    raise bad_request(
        f"{version.family.model_name} has no projector {requested!r} in the repository of its weights.",
        hint=f"It has {', '.join(available)}." if available else "Use the absolute path of a projector's file.",
        code=Code.PROJECTOR_NOT_FOUND,
    )


def extra_projector(launch: ResolvedLaunch, path: Path) -> tuple[ExtraWeightFile, ...]:
    """The projector's file, for `Engine.extra_weight_files`."""
    projector = projector_path(launch, path)
    if projector is None:
        return ()
    hint = "Use --mmproj with the model's own mmproj file, or --no_mmproj true to launch it without a projector."
    return (ExtraWeightFile(projector, "projector", ARCHITECTURE, hint),)


def projector_path(launch: ResolvedLaunch, path: Path) -> Path | None:
    """The file of a launch's projector; `path` is the path of the weights. None: it has no projector."""
    name = launch.options.get(OPTION)
    return _folder(launch, path) / str(name) if name else None


def abilities(plan: LaunchPlan) -> tuple[str, ...]:
    """The family's abilities, with vision exactly if the plan has a projector."""
    others = tuple(ability for ability in plan.version.family.model_ability if ability != "vision")
    return (*others, "vision") if plan.options.get(OPTION) else others


def _choose_default(source: Source | None, available: tuple[str, ...], options: Mapping[str, Any]) -> FileChoice:
    if len(available) == 1:
        reason = f"vision projector {available[0]}: the only one in the repository of the weights"
        return FileChoice(source, {**options, OPTION: available[0]}, (reason,))
    reason = f"no vision projector: --mmproj names none of those available, {', '.join(available)}"
    return FileChoice(_only(source, None), options, (reason,) if available else ())


def _folder(launch: ResolvedLaunch, path: Path) -> Path:
    """The folder to which file names in the source are relative: the weights' own, or one above it."""
    source = _source(launch.source, launch.version)
    quantization = launch.version.quantization
    names = (source.parts.get(quantization) or (source.file_name(quantization) or "",)) if source else ("",)
    depth = max(1, len(PurePosixPath(names[0]).parts))
    return path.parents[min(depth, len(path.parents)) - 1]


def _source(source: Source | None, version: ModelVersion) -> Source | None:
    """The source of the launch; for weights with a path, the local source of the family derived from their files."""
    return source or version.spec.source("local")


def _only(source: Source | None, name: str | None) -> Source | None:
    """The source with this projector alone, or with none."""
    return source and msgspec.structs.replace(source, projectors=() if name is None else (name,))
