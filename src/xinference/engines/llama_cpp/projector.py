"""The projector with which llama.cpp sees: which file it is, and where. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from xinference.catalog.models import ModelVersion, Source
from xinference.errors import bad_request
from xinference.launch.plan import LaunchPlan

ENGINE = "llama.cpp"
#: llama.cpp's own name of the option, and of the one by which there shall be none.
OPTION = "mmproj.path"
NONE_OPTION = "no_mmproj"


@dataclass(frozen=True)
class Choice:
    """What a launch sees with."""

    source: Source | None
    """With that projector as its only one, so that it is fetched with the weights."""
    options: Mapping[str, Any]
    reasons: tuple[str, ...] = field(default=())


def choose_projector(
    engine: str, source: Source | None, version: ModelVersion, options: Mapping[str, Any], *, by_path: bool
) -> Choice:
    """The projector that is named, or the only one that lies beside the weights; `by_path`: the weights are here.

    Raises:
        Problem: 400 ``projector_not_found``, with those that there are.
    """
    if engine != ENGINE:
        return Choice(source, options)
    known = _source(source, version)
    beside = known.projectors if known and version.family.model_type == "LLM" else ()
    if options.get(NONE_OPTION):
        return Choice(_only(source, None), {k: v for k, v in options.items() if k != OPTION})
    named = options.get(OPTION)
    if not named:
        if len(beside) == 1:
            return Choice(
                source, {**options, OPTION: beside[0]}, (f"sees with {beside[0]}: the projector beside the weights",)
            )
        reason = f"sees nothing: it has the projectors {', '.join(beside)}, and --mmproj names none of them"
        return Choice(_only(source, None), options, (reason,) if beside else ())
    if named in beside:
        return Choice(_only(source, named), options, (f"sees with {named}: asked for",))
    path = Path(named).expanduser()
    if path.is_absolute():
        return Choice(_only(source, None), {**options, OPTION: str(path)}, (f"sees with {path}: asked for",))
    if by_path or (source is not None and source.hub == "local"):
        return Choice(source, options, (f"sees with {named}: asked for",))
    raise bad_request(
        f"{version.family.model_name} has no projector {named!r} beside its weights.",
        hint=f"It has {', '.join(beside)}." if beside else "Give the absolute path of a projector's file.",
        code="projector_not_found",
    )


def projector_path(plan: LaunchPlan) -> Path | None:
    """Where the projector of a plan is, whose weights are here; None: it has none."""
    named = plan.options.get(OPTION) if plan.engine == ENGINE else None
    if not named or plan.path is None:
        return None
    return _folder(plan) / str(named)


def _folder(plan: LaunchPlan) -> Path:
    """The folder that names in the source mean: the weights' own, or as far above it as their name says."""
    assert plan.path is not None
    source = _source(plan.source, plan.version)
    quantization = plan.version.quantization
    names = (source.parts.get(quantization) or (source.file_name(quantization) or "",)) if source else ("",)
    depth = max(1, len(PurePosixPath(names[0]).parts))
    return plan.path.parents[min(depth, len(plan.path.parents)) - 1]


def _source(source: Source | None, version: ModelVersion) -> Source | None:
    """Weights that are given by their path are a source's, too, where their own files described them."""
    return source or version.spec.source("local")


def _only(source: Source | None, name: str | None) -> Source | None:
    return source and msgspec.structs.replace(source, projectors=() if name is None else (name,))
