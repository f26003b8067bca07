"""The sizes of vision projectors, which the facts lack: the number of parameters, computed from each tower's shape.

The facts' bytes of these versions are those of the weights and of one projector in 32 bits, whichever a launch uses.
"""

from __future__ import annotations

from collections.abc import Mapping

from xinference.catalog.models import ModelVersion, Source

#: Family and its size -> parameters of its vision tower.
_PARAMETERS: Mapping[tuple[str, str], int] = {
    ("qwen3.5", "0_8"): 100_500_000,
    ("qwen3.5", "2"): 331_400_000,
    ("qwen3.5", "4"): 333_500_000,
    ("qwen3.5", "9"): 455_500_000,
    ("qwen3.5", "27"): 460_200_000,
    ("qwen3.5", "35"): 446_000_000,
    ("qwen3.5", "122"): 451_000_000,
    ("qwen3.5", "397"): 455_500_000,
    ("qwen3.6", "35"): 446_000_000,
}
#: The reason why a plan has other bytes of weights than the facts.
REASON = "the facts' bytes include a projector in 32 bits; a plan includes only a projector that the launch uses"
_STORED_BYTES = 4
"""Bytes of a parameter of the projector in the facts' sum."""


def corrected_sizes() -> tuple[tuple[str, str, int], ...]:
    """Family, size, and the bytes that the facts' sums have more than the weights."""
    return tuple((family, size, count * _STORED_BYTES) for (family, size), count in _PARAMETERS.items())


def projector_bytes(version: ModelVersion, name: str) -> int | None:
    """Bytes of a projector's file, by the width in its name; None: not known."""
    parameters = _parameters(version)
    return None if parameters is None else parameters * (4 if "f32" in name.lower() else 2)


def used_projectors(source: Source) -> tuple[str, ...]:
    """The projectors that a launch from this source fetches; where there are several, it has named none of them."""
    return source.projectors if len(source.projectors) == 1 else ()


def registered_weights(version: ModelVersion, source: Source | None = None) -> int | None:
    """Bytes of a version's weights in the registry, without its projectors; None: the registry has none.

    Args:
        source: the hub whose own facts come first; None: any hub.
    """
    for each in version.spec.sources if source is None else (source,):
        facts = each.facts.get(version.quantization)
        if facts is not None and facts.size:
            return facts.size
    total = version.spec.weights_bytes.get(version.quantization)
    if total is None or not any(each.projectors for each in version.spec.sources):
        return total
    return total - (_parameters(version) or 0) * _STORED_BYTES


def projectors_bytes(version: ModelVersion, source: Source) -> int:
    """Bytes of the projectors of a launch from this source, as far as they are known."""
    return sum(projector_bytes(version, name) or 0 for name in used_projectors(source))


def _parameters(version: ModelVersion) -> int | None:
    return _PARAMETERS.get((version.family.model_name, str(version.spec.model_size_in_billions)))
