"""Groups the GGUF files of a folder or repository into models: joins parts, excludes projectors. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from xinference.error_codes import Code
from xinference.errors import Problem, bad_request
from xinference.hubs.local_files import PART, shown_names
from xinference.launch.quantization_order import USUAL, nearest_first, same_quantization
from xinference.units import GIB

#: llama.cpp's names of quantizations, with the prefixes that publishers add.
_QUANTIZATION = re.compile(
    r"(?<![A-Za-z0-9])(?P<name>(?:UD-)?(?:Q\d_0_\d_\d|I?Q\d_(?:K_(?:XXL|XL|S|M|L)|K|XXS|XS|NL|S|M|[01])|TQ\d_0"
    r"|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32))(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_SHOWN = 20


@dataclass(frozen=True)
class GgufModel:
    """One model in one file or several parts."""

    quantization: str | None
    """By the names of its files or their folder; None: unknown."""
    files: tuple[str, ...]
    size_bytes: int


def gguf_models(files: Mapping[str, int]) -> list[GgufModel]:
    """The models among files, sorted by name; a model with a missing part is left out."""
    parts: dict[tuple[str, int], dict[int, str]] = {}
    for name in sorted(files):
        if not name.lower().endswith(".gguf") or is_projector(name) or _is_calibration(name):
            continue
        match = PART.fullmatch(name)
        key = (match["stem"], int(match["count"])) if match else (name, 1)
        parts.setdefault(key, {})[int(match["index"]) if match else 1] = name
    models = []
    for (stem, count), named in parts.items():
        if sorted(named) == list(range(1, count + 1)):
            names = tuple(named[index] for index in sorted(named))
            models.append(GgufModel(quantization_in(stem), names, sum(files[name] for name in names)))
    return models


def is_projector(name: str) -> bool:
    """Whether a file is the projector of a vision model, which is stored with the model."""
    return "mmproj" in PurePosixPath(name).name.lower()


def _is_calibration(name: str) -> bool:
    """Whether a file has the importance matrix with which the publisher quantized the model."""
    return "imatrix" in PurePosixPath(name).name.lower()


def quantization_in(name: str) -> str | None:
    """The quantization at the end of a file's name, or else of its folder's name.

    >>> quantization_in("some-7B-Q4_K_M.gguf")
    'Q4_K_M'
    """
    for part in reversed(PurePosixPath(name).parts):
        matches = list(_QUANTIZATION.finditer(part))
        if matches:
            return matches[-1]["name"]
    return None


def choose_model(
    models: Iterable[GgufModel],
    title: str,
    quantization: str | None,
    file: str | None,
    missing: Sequence[str] = (),
) -> GgufModel:
    """The model that the request names.

    Args:
        missing: the parts that are missing of models of which some parts are there.

    Raises:
        Problem: 400, which names the flag that decides and its values.
    """
    every = list(models)
    if file is not None:
        named = [model for model in every if file in model.files]
        if named:
            return named[0]
        if PART.fullmatch(file):
            absent = [name for name in missing if _stem_of_part(name) == _stem_of_part(file)]
            raise bad_request(
                f"{file} of {title} is one part of a model, and these parts are missing: {shown_names(absent)}.",
                hint="Put all parts into the same folder.",
                code=Code.MODEL_PATH_NOT_FOUND,
            )
        raise bad_request(f"{title} has no model {file}.", hint=_files_hint(every), code=Code.UNKNOWN_MODEL)
    matching = every
    if quantization is not None:
        matching = [m for m in every if (m.quantization or "").lower() == quantization.lower()]
        if not matching and len(every) == 1 and every[0].quantization is None:
            matching = every
    if len(matching) == 1:
        return matching[0]
    if not matching and missing:
        raise bad_request(
            f"{title} has a model in parts, and these parts are missing: {shown_names(missing)}.",
            hint="Put all parts into the same folder.",
            code=Code.MODEL_PATH_NOT_FOUND,
        )
    if not matching:
        raise bad_request(
            f"{title} has no quantization {quantization}.", hint=_quantizations_hint(every), code=Code.UNKNOWN_MODEL
        )
    raise Problem(Code.MODEL_PATH_AMBIGUOUS, f"{title} has several models.", hint=_files_hint(matching))


@dataclass(frozen=True)
class DefaultModel:
    """The model of a repository for a launch that names no quantization."""

    model: GgufModel
    reason: str
    """One line."""


def default_model(models: Iterable[GgufModel], usable_bytes: int | None) -> DefaultModel | None:
    """The model in the quantization nearest to Q4_K_M whose files fit in `usable_bytes`; if none fits, the nearest.

    None: there is nothing to choose, or the files are those of different models.
    """
    every = [model for model in models if model.quantization]
    names = [str(model.quantization).lower() for model in every]
    if len(every) < 2 or len(set(names)) < len(names) or len({_stem(model) for model in every}) > 1:
        return None
    by_name = {str(model.quantization): model for model in every}
    ordered = nearest_first(by_name, "ggufv2")
    fitting = [name for name in ordered if usable_bytes is None or by_name[name].size_bytes <= usable_bytes]
    chosen, nearest = (fitting or ordered)[0], ordered[0]
    why = "the usual one" if same_quantization(chosen, USUAL) else f"the nearest to {USUAL}"
    if chosen != nearest and usable_bytes is not None:
        size = by_name[nearest].size_bytes / GIB
        why = f"{nearest} ({size:.1f} GiB) does not fit in {usable_bytes / GIB:.1f} GiB"
    others = [name for name in ordered if name != chosen]
    listed = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
    return DefaultModel(by_name[chosen], f"quantization {chosen}: {why}; others: {listed} (-q)")


def _stem(model: GgufModel) -> str:
    """The file's name without its quantization, which is the same for all quantizations of a model."""
    name = PurePosixPath(model.files[0]).name.lower()
    parted = PART.fullmatch(name)
    stem = parted["stem"] if parted else name.removesuffix(".gguf")
    return stem.replace(str(model.quantization).lower(), "").strip("-._")


def _stem_of_part(name: str) -> str | None:
    match = PART.fullmatch(name)
    return match["stem"] if match else None


def _quantizations_hint(models: Iterable[GgufModel]) -> str:
    names = list(dict.fromkeys(model.quantization for model in models if model.quantization))
    return f"It has {', '.join(names)}." if names else "Its file names contain no quantization: name the file itself."


def _files_hint(models: Iterable[GgufModel]) -> str:
    names = [model.files[0] for model in models]
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return f"Name one file after a slash with --model-name; the files are: {shown}."
