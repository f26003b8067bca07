"""Speculative decoding on llama.cpp: Xinference's own options as llama.cpp's. Reads folders, but no files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xinference.engines.base import ExtraWeightFile
from xinference.engines.options.speculation import Speculation, bad_option, read_speculation
from xinference.launch.plan import ResolvedLaunch

TYPES, DRAFT, TOKENS = "speculative.types", "speculative.draft.mparams.path", "speculative.draft.n_max"
_PREFIX = "COMMON_SPECULATIVE_TYPE_"
_MTP = f"{_PREFIX}DRAFT_MTP"
#: The architecture of the draft model for a method; llama.cpp crashes with another one, or drafts nothing.
_ARCHITECTURES = {
    f"{_PREFIX}DRAFT_EAGLE3": "eagle3",
    f"{_PREFIX}DRAFT_DFLASH": "dflash",
    f"{_PREFIX}DRAFT_DSPARK": "dflash",
}
_HINT = "Use a draft model of this method, or --speculative.types DRAFT_SIMPLE for a small model of the same family."


def with_speculation(options: Mapping[str, Any], checked: Mapping[str, Any]) -> dict[str, Any]:
    """The checked options with those of Xinference under llama.cpp's names.

    Args:
        options: the options of the launch.
        checked: the other ones, by llama.cpp's own names.

    Raises:
        Problem: 400 ``bad_option``, also for a method that needs a draft model, and has none.
    """
    speculation = read_speculation(options)
    merged = {**checked, **(_own_options(speculation, checked) if speculation else {})}
    _check_draft(merged)
    return merged


def reasons(options: Mapping[str, Any]) -> tuple[str, ...]:
    """What the plan says of a launch that drafts tokens.

    Args:
        options: by llama.cpp's own names.
    """
    if any(name != f"{_PREFIX}NONE" for name in options.get(TYPES) or ()):
        return ("speculative decoding: llama.cpp reports a log probability of 0 for each token that was drafted",)
    return ()


def draft_file(launch: ResolvedLaunch) -> tuple[ExtraWeightFile, ...]:
    """The file of the draft model, for `Engine.extra_weight_files`."""
    path = launch.options.get(DRAFT)
    if not path:
        return ()
    needed = (_ARCHITECTURES[name] for name in launch.options.get(TYPES) or () if name in _ARCHITECTURES)
    architecture = next(needed, None)
    kind = f"draft model of the architecture {architecture}"
    return (ExtraWeightFile(Path(path), kind, architecture, _HINT, has_cache=True),)


def _own_options(speculation: Speculation, checked: Mapping[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = {TYPES: checked.get(TYPES) or [_MTP]}
    if speculation.draft is not None:
        own[DRAFT] = str(_gguf(Path(speculation.draft), speculation.quantization))
    else:
        own["load_mtp"] = True
    if speculation.tokens is not None:
        own[TOKENS] = speculation.tokens
    return own


def _check_draft(options: Mapping[str, Any]) -> None:
    """Refuse a method without the layers or the model that drafts."""
    for name in options.get(TYPES) or ():
        if not name.startswith(f"{_PREFIX}DRAFT_") or options.get(DRAFT):
            continue
        if name != _MTP:
            raise bad_option(
                f"--{TYPES} {name.removeprefix(_PREFIX)} needs a draft model.",
                "Name its file with --draft_model_path.",
            )
        if not options.get("load_mtp"):
            raise bad_option(
                f"--{TYPES} DRAFT_MTP needs a draft model, or the model's own layers for it.",
                "Use --enable_mtp true instead, or name a draft model with --draft_model_path.",
            )


def _gguf(path: Path, quantization: str | None) -> Path:
    """The file of the draft model: the path itself, or the file of this quantization in the folder."""
    if not path.is_dir():
        if quantization is not None:
            raise bad_option(f"--draft_quantization selects a file in a folder, and {path} is a file.", "Leave it out.")
        return path
    files = sorted(each for each in path.rglob("*.gguf") if each.is_file())
    if quantization is not None:
        files = [each for each in files if quantization.lower() in each.name.lower()]
    if len(files) == 1:
        return files[0]
    what = f" of quantization {quantization}" if quantization else ""
    if not files:
        raise bad_option(f"--draft_model_path: there is no GGUF file{what} in {path}.")
    listed = ", ".join(each.name for each in files[:10])
    raise bad_option(
        f"--draft_model_path: {path} has {len(files)} GGUF files{what}: {listed}.",
        "Name one of them, or its quantization with --draft_quantization.",
    )
