"""The order in which a launch prefers quantizations: the nearest to Q4_K_M first. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

#: The quantization that most publishers recommend: the answers are close to those of 8 bits, in 60 % of the memory.
USUAL = "Q4_K_M"
#: Bits of a weight with which vectors and scores are nearly those of the weights as trained.
ENOUGH_BITS = 8
#: Bits of a weight, the nearest to 4 first. With less than 4 bits the answers get worse fast, so 8 bits come before 2.
_BITS = (4, 5, 6, 3, 8, 2, 16, 32, 1)
#: The variants of one number of bits, the nearest to `USUAL` first.
_VARIANTS = ("k_m", "k_s", "k_l", "k_xl", "k", "1", "nl", "xs", "0")
_NAME = re.compile(r"(?P<by>ud_)?(?P<kind>iq|tq|q|int|bf|fp|f|mxfp|nvfp)?(?P<bits>\d{1,2})_?(?P<variant>\w*)")


def nearest_first(quantizations: Iterable[str], model_format: str) -> list[str]:
    """The quantizations of one spec in the order of preference; equal ones keep their order.

    Weights of the format ``pytorch`` are stored with 16 bits, which is ``none``: the nearest is the one with the most
    bits.

    >>> nearest_first(["Q2_K", "Q8_0", "Q4_0", "Q5_K_M", "Q4_K_S"], "ggufv2")
    ['Q4_K_S', 'Q4_0', 'Q5_K_M', 'Q8_0', 'Q2_K']
    >>> nearest_first(["4-bit", "8-bit", "none"], "pytorch")
    ['none', '8-bit', '4-bit']
    """
    if model_format == "pytorch":
        return sorted(quantizations, key=lambda name: -_bits_of(name, 16))
    return sorted(quantizations, key=_distance)


def same_quantization(left: str, right: str) -> bool:
    """Whether two names are equal except for their case, dashes and underscores: ``q4-k-m`` and ``Q4_K_M``."""
    return _plain(left) == _plain(right)


@lru_cache(maxsize=1024)
def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_")


def _bits_of(name: str, otherwise: int) -> int:
    match = _NAME.fullmatch(_plain(name))
    return int(match["bits"]) if match else otherwise


def has_enough_bits(quantization: str) -> bool:
    """Whether vectors and scores are nearly those of the weights as trained."""
    return _bits_of(quantization, ENOUGH_BITS) >= ENOUGH_BITS


def inexactness(name: str) -> tuple[int, int]:
    """The order for a small model whose answers are vectors or scores, which suffer more from few bits than a text.

    Quantizations of at least 8 bits are equal; after them the one with the most bits is first.

    >>> sorted(["Q2_K", "Q4_0", "Q4_K_M", "Q6_K", "Q8_0", "F16"], key=inexactness)
    ['Q8_0', 'F16', 'Q6_K', 'Q4_K_M', 'Q4_0', 'Q2_K']
    """
    bits = _bits_of(name, ENOUGH_BITS)
    return (-bits, _distance(name)[1]) if bits < ENOUGH_BITS else (-ENOUGH_BITS, 0)


@lru_cache(maxsize=1024)
def _distance(name: str) -> tuple[int, int, bool]:
    match = _NAME.fullmatch(_plain(name))
    if match is None:
        return len(_BITS), 0, False
    bits, variant = int(match["bits"]), match["variant"]
    place = _BITS.index(bits) if bits in _BITS else len(_BITS)
    kind = match["kind"] or ""
    if kind.startswith("iq"):  # slower on the CPU than the others of the same number of bits
        return place, len(_VARIANTS) + 1, bool(match["by"])
    return place, _VARIANTS.index(variant) if variant in _VARIANTS else len(_VARIANTS), bool(match["by"])
