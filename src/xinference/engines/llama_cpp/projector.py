"""The projector of a vision model on llama.cpp: which file it is, and where. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from xinference.catalog.models import ModelVersion, Source
from xinference.engines.base import ExtraWeightFile, FileChoice
from xinference.errors import bad_request
from xinference.launch.plan import LaunchPlan, ResolvedLaunch

#: llama.cpp's own name of the option, and of the one by which there shall be none.
OPTION = "mmproj.path"
NONE_OPTION = "no_mmproj"
#: The architecture that a projector's header names.
ARCHITECTURE = "clip"


def choose_projector(source: Source | None, version: ModelVersion, options: Mapping[str, Any]) -> FileChoice:
    """The projector that is named, or the only one that lies beside the weights; it is fetched with them.

    Args:
        source: None: the weights were given by their path.

    Raises:
        Problem: 400 ``projector_not_found``, with those that there are.
    """
    known = _source(source, version)
    available = known.projectors if known and version.family.model_type == "LLM" else ()
    if options.get(NONE_OPTION):
        return FileChoice(_only(source, None), {k: v for k, v in options.items() if k != OPTION})
    named = options.get(OPTION)
    if not named:
        return _unnamed(source, available, options)
    if named in available:
        return FileChoice(_only(source, named), options, (f"sees with {named}: asked for",))
    path = Path(named).expanduser()
    if path.is_absolute():
        return FileChoice(_only(source, None), {**options, OPTION: str(path)}, (f"sees with {path}: asked for",))
    if source is None or source.hub == "local":
        return FileChoice(source, options, (f"sees with {named}: asked for",))
    raise bad_request(
        f"{version.family.model_name} has no projector {named!r} beside its weights.",
        hint=f"It has {', '.join(available)}." if available else "Give the absolute path of a projector's file.",
        code="projector_not_found",
    )


def extra_projector(launch: ResolvedLaunch, path: Path) -> tuple[ExtraWeightFile, ...]:
    """The projector's file as `Engine.extra_weight_files` names it."""
    projector = projector_path(launch, path)
    if projector is None:
        return ()
    hint = "Give the mmproj file of the model with --mmproj, or --no_mmproj true to launch it without one."
    return (ExtraWeightFile(projector, "projector", ARCHITECTURE, hint),)


def projector_path(launch: ResolvedLaunch, path: Path) -> Path | None:
    """The file of a launch's projector, the weights being at `path`; None: it has none."""
    named = launch.options.get(OPTION)
    return _folder(launch, path) / str(named) if named else None


def abilities(plan: LaunchPlan) -> tuple[str, ...]:
    """The family's, but vision with a projector only."""
    others = tuple(ability for ability in plan.version.family.model_ability if ability != "vision")
    return (*others, "vision") if plan.options.get(OPTION) else others


def _unnamed(source: Source | None, available: tuple[str, ...], options: Mapping[str, Any]) -> FileChoice:
    if len(available) == 1:
        reason = f"sees with {available[0]}: the projector beside the weights"
        return FileChoice(source, {**options, OPTION: available[0]}, (reason,))
    reason = f"sees nothing: it has the projectors {', '.join(available)}, and --mmproj names none of them"
    return FileChoice(_only(source, None), options, (reason,) if available else ())


def _folder(launch: ResolvedLaunch, path: Path) -> Path:
    """The folder that names in the source mean: the weights' own, or as far above it as their name says."""
    source = _source(launch.source, launch.version)
    quantization = launch.version.quantization
    names = (source.parts.get(quantization) or (source.file_name(quantization) or "",)) if source else ("",)
    depth = max(1, len(PurePosixPath(names[0]).parts))
    return path.parents[min(depth, len(path.parents)) - 1]


def _source(source: Source | None, version: ModelVersion) -> Source | None:
    """Weights that are given by their path are a source's, too, where their own files described them."""
    return source or version.spec.source("local")


def _only(source: Source | None, name: str | None) -> Source | None:
    return source and msgspec.structs.replace(source, projectors=() if name is None else (name,))
