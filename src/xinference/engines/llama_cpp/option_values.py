"""Converts the values of llama.cpp's options to the types that `server.py --describe` prints. Pure."""

from __future__ import annotations

from typing import Any

from xinference.engines.options.option_table import NEEDED, missing_value
from xinference.error_codes import Code
from xinference.errors import Problem, shown

_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "list": (list,)}
#: The smallest and the largest number of llama.cpp's integers, some of which have no sign.
_LEAST, _MOST = -(2**31), 2**32 - 1
#: llama-server's and llama-cpp-python's values of options whose members have other names.
_OTHER_NAMES = {"flash_attn_type": {"ON": "ENABLED", "OFF": "DISABLED", "TRUE": "ENABLED", "FALSE": "DISABLED"}}
#: Types that llama.cpp computes a cache with; it crashes with the others.
_CACHE_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "IQ4_NL", "Q5_0", "Q5_1")
_CACHES = ("cache_type_k", "cache_type_v", "speculative.draft.cache_type_k", "speculative.draft.cache_type_v")
#: A seed of -1 asks for a random one; llama.cpp's number for it has no sign.
_SEED = "sampling.seed"


def convert(option: str, name: str, value: Any, kind: str) -> Any:
    """The value of an option in the type that llama.cpp requires.

    Args:
        option: the name in the request.
        name: llama.cpp's own name.
        kind: ``int``, ``float``, ``bool``, ``str``, ``list``, ``enum:`` with the members, separated by ``|``, or one of
            these after ``list:``.

    Raises:
        Problem: 400 ``bad_option``.
    """
    base, _, inner = kind.partition(":")
    if base == "list" and inner:
        return [convert(option, name, item, inner) for item in _items(value, inner)]
    if base == "enum":
        return _member(option, name, value, inner.split("|")) if inner else value
    allowed = _TYPES.get(base)
    if allowed is None:
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return str(value) if base == "str" else value
    elif isinstance(value, allowed) and (base == "bool" or not isinstance(value, bool)):
        return _number(option, name, value, base) if base in ("int", "float") else value
    cause = f"--{option} is {shown(value)}, and llama.cpp requires {NEEDED.get(base, base)}."
    raise Problem(Code.BAD_OPTION, cause, hint=missing_value(option, value))


def _items(value: Any, kind: str) -> list[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, str) and not kind.startswith("str"):  # as on llama-server's command line
        return [_as_number(word.strip()) for word in value.split(",")]
    return [value]


def _as_number(word: str) -> Any:
    try:
        return int(word)
    except ValueError:
        pass
    try:
        return float(word)
    except ValueError:
        return word


def _number(option: str, name: str, value: Any, base: str) -> float:
    if base == "float":
        return float(value)
    if name == _SEED and value < 0:
        return _MOST
    if not _LEAST <= value <= _MOST:
        raise Problem(Code.BAD_OPTION, f"--{option} is {value}, which is not a number of llama.cpp's range.")
    return int(value)


def _member(option: str, name: str, value: Any, members: list[str]) -> str:
    """The full name of an enum's member, by its last part (``layer``) or by its number."""
    numbers = dict(member.split("=") for member in members)
    if name in _CACHES:
        numbers = {each: n for each, n in numbers.items() if each.removeprefix("GGML_TYPE_") in _CACHE_TYPES}
    if isinstance(value, int) and not isinstance(value, bool):
        found = [each for each, number in numbers.items() if number == str(value)]
    else:
        wanted = str(value).strip().upper().replace("-", "_")
        wanted = _OTHER_NAMES.get(name, {}).get(wanted, wanted)
        found = [each for each in numbers if each == wanted or _short(each, numbers) == wanted]
    if found:
        return found[0]
    known = ", ".join(_short(each, numbers).lower() for each in numbers)
    cause = f"--{option} is {shown(value)}; llama.cpp accepts {known}."
    raise Problem(Code.BAD_OPTION, cause, hint=missing_value(option, value))


def _short(member: str, members: dict[str, str]) -> str:
    """The member's name without the beginning that all members share, up to an underscore."""
    first, last = min(members), max(members)
    shared = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return member[first.rfind("_", 0, shared) + 1 :]
