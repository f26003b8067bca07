"""The reasons for the size, the format and the quantization that a launch request leaves open. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xinference.catalog.models import ModelVersion, same_size, written_size
from xinference.launch.match import needs_exactness
from xinference.launch.quantization_order import USUAL, has_enough_bits, same_quantization
from xinference.launch.request import LaunchRequest


@dataclass(frozen=True)
class VersionReasons:
    """Reasons of at most one line each; empty: the request names the value."""

    format: tuple[str, ...] = ()
    quantization: tuple[str, ...] = ()


def size_reason(request: LaunchRequest, version: ModelVersion, versions: Sequence[ModelVersion]) -> tuple[str, ...]:
    """The reason for the size; `versions` are all that the request allows."""
    if request.model_size_in_billions is not None:
        return ()
    every = list(dict.fromkeys(each.size for each in versions))
    size = written_size(version.size)
    if len(every) == 1:
        limited = len({each.model_size_in_billions for each in version.family.model_specs}) > 1
        return (f"size {size}: the only one{' with the values of this launch' if limited else ''}",)
    which = "the smallest" if version.size == every[0] else "the smallest that runs here"
    return (f"size {size}: {which} of {_listed(map(written_size, every))} (-s)",)


def version_reasons(
    request: LaunchRequest, version: ModelVersion, versions: Sequence[ModelVersion], too_large: str | None
) -> VersionReasons:
    """The reasons for format and quantization.

    Args:
        versions: all versions that the request allows.
        too_large: the reason against the preferred quantization; None: it is chosen.
    """
    of_size = [each for each in versions if same_size(each.size, version.size)]
    return VersionReasons(
        _format_reason(request, version, of_size), _quantization_reason(request, version, of_size, too_large)
    )


def _format_reason(request: LaunchRequest, version: ModelVersion, of_size: Sequence[ModelVersion]) -> tuple[str, ...]:
    if request.model_format is not None:
        return ()
    chosen = version.spec.model_format
    formats = list(dict.fromkeys(each.spec.model_format for each in of_size))
    if len(formats) == 1:
        return (f"format {chosen}: the only one",)
    which = "the preferred one" if chosen == formats[0] else "the first one that runs here"
    return (f"format {chosen}: {which} of {', '.join(formats)} (-f)",)


def _quantization_reason(
    request: LaunchRequest, version: ModelVersion, of_size: Sequence[ModelVersion], too_large: str | None
) -> tuple[str, ...]:
    if request.quantization is not None:
        return ()
    chosen, spec = version.quantization, version.spec
    others = [
        each.quantization
        for each in of_size
        if each.spec.model_format == spec.model_format and each.quantization != chosen
    ]
    if not others:
        return (f"quantization {chosen}: the only one in the format {spec.model_format}",)
    return (
        f"quantization {chosen}: {_why(version, others, too_large)}; others: {_listed(dict.fromkeys(others))} (-q)",
    )


def _why(version: ModelVersion, others: Sequence[str], too_large: str | None) -> str:
    chosen, spec = version.quantization, version.spec
    if too_large is not None:
        return too_large
    if spec.model_format == "pytorch":
        return "as trained" if chosen == "none" else "the most bits that run here"
    if needs_exactness(version.family, spec):
        return "the first one of 8 bits or more" if has_enough_bits(chosen) else "the most bits"
    if same_quantization(chosen, USUAL):
        return "the usual one"
    if any(same_quantization(other, USUAL) for other in others):
        return f"the one on {' or '.join(source.hub for source in spec.sources)}"
    return f"the nearest to {USUAL}"


def _listed(names: Iterable[str]) -> str:
    """At most three names, and the number of the others."""
    every = list(names)
    return ", ".join(every) if len(every) <= 4 else f"{', '.join(every[:3])} and {len(every) - 3} more"
