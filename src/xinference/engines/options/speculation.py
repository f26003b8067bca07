"""Xinference's own options for speculative decoding, which have the same names on every engine. Pure.

`enable_mtp`, `draft_model_path`, `draft_quantization` and `num_speculative_tokens` are those of Xinference 4.1.0; each
engine translates them to its own options. The path names a draft model that was made for the model (multi-token
prediction), unless an option of the engine selects another method.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinference.error_codes import Code
from xinference.errors import Problem, shown

NAMES = frozenset({"enable_mtp", "draft_model_path", "draft_quantization", "num_speculative_tokens"})
_SWITCHES = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_QUANTIZATION = re.compile(r"[A-Za-z0-9_.-]{1,40}")


@dataclass(frozen=True)
class Speculation:
    """A request for speculative decoding."""

    draft: str | None
    """The path of the draft model; None: the layers for it in the model's own weights."""
    quantization: str | None
    tokens: int | None
    """Maximum number of tokens that are drafted at a time; None: the engine's default."""


def read_speculation(options: Mapping[str, Any]) -> Speculation | None:
    """The request for speculative decoding in the options of a launch; None: there is none.

    Raises:
        Problem: 400 ``bad_option``, an option has a wrong value, or has no effect without another.
    """
    is_enabled = _switch(options.get("enable_mtp"))
    draft = _path(options.get("draft_model_path"))
    quantization, tokens = _quantization(options.get("draft_quantization")), _tokens(options)
    if not is_enabled and draft is None:
        for name, value in (("draft_quantization", quantization), ("num_speculative_tokens", tokens)):
            if value is not None:
                raise bad_option(
                    f"--{name} has an effect only on speculative decoding.",
                    "Use it with --enable_mtp true or with --draft_model_path.",
                )
        return None
    if quantization is not None and draft is None:
        raise bad_option(
            "--draft_quantization is for a draft model in files of its own, and --enable_mtp uses the model's own "
            "layers: no registered model names a draft model.",
            "Name its file or folder with --draft_model_path.",
        )
    return Speculation(draft, quantization, tokens)


def without_speculation(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a launch without those of `NAMES`."""
    return {name: value for name, value in options.items() if name not in NAMES}


def refuse_speculation(options: Mapping[str, Any], engine: str, reason: str) -> dict[str, Any]:
    """The options for an engine that has no speculative decoding.

    Raises:
        Problem: 400 ``bad_option``, the options request it.
    """
    if read_speculation(options) is not None:
        name = "draft_model_path" if options.get("draft_model_path") else "enable_mtp"
        raise bad_option(f"--{name} is not supported on {engine}: {reason}", "Leave it out, or use another engine.")
    return without_speculation(options)


def refuse_both(options: Mapping[str, Any], own: str) -> None:
    """Refuse an engine's own option beside those of `NAMES` which set the same.

    Raises:
        Problem: 400 ``bad_option``.
    """
    if options.get(own) is not None:
        given = next(name for name in ("draft_model_path", "enable_mtp", *sorted(NAMES)) if options.get(name))
        raise bad_option(f"--{given} and --{own} set the same.", "Pass only one of them.")


def bad_option(cause: str, hint: str | None = None) -> Problem:
    """The refusal of an option."""
    return Problem(Code.BAD_OPTION, cause, hint=hint)


def _switch(value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    read = _SWITCHES.get(str(value).strip().lower())
    if read is None:
        raise bad_option(f"--enable_mtp is {shown(value)}, and must be true or false.")
    return read


def _path(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not Path(value).expanduser().is_absolute():
        raise bad_option(
            f"--draft_model_path is {shown(value)}, and must be the absolute path of a file or folder.",
            "The server has a working directory of its own.",
        )
    path = Path(value).expanduser()
    if not path.exists():
        raise bad_option(f"--draft_model_path: there is no file or folder {path}.")
    return str(path)


def _quantization(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _QUANTIZATION.fullmatch(value):
        raise bad_option(f"--draft_quantization is {shown(value)}, and must be the name of a quantization.")
    return value


def _tokens(options: Mapping[str, Any]) -> int | None:
    value = options.get("num_speculative_tokens")
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if value is None or value == "":
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1024:
        raise bad_option(f"--num_speculative_tokens is {shown(value)}, and must be a number from 1 to 1024.")
    return value
