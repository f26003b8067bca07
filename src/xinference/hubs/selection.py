"""Selects the files of a repository that a version needs, from the hub's file list. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import PurePosixPath

from xinference.catalog.models import ModelVersion, Source
from xinference.catalog.safe_names import is_inside
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hubs.listing import ListedFile

#: llama.cpp reads such parts itself (`llama_split_path`); every other kind of part is joined.
_READ_IN_PARTS = re.compile(r".+-\d{5}-of-\d{5}\.gguf")
#: Folders with copies of the same weights in the formats of other programs.
_OTHER_FORMS = frozenset({"original", "onnx", "openvino", "coreml", "gguf", "ggml", "metal", "runs", "assets"})
_SMALL_FILES = frozenset({".json", ".txt", ".model", ".jinja", ".tiktoken", ".py"})
#: Files of the training in the folder of the weights.
_TRAINING = re.compile(r"training_args|optimizer|scheduler|scaler|rng_state|trainer_state")


def wanted_names(version: ModelVersion, source: Source) -> tuple[str, ...] | None:
    """The names of the version's files, parts in order; None: `choose_files` selects files of the folder."""
    if parts := source.parts.get(version.quantization):
        return parts
    name = source.file_name(version.quantization)
    return None if name is None else (name,)


def must_join(names: Sequence[str]) -> bool:
    """Whether these files are parts of one file."""
    return len(names) > 1 and not _READ_IN_PARTS.fullmatch(PurePosixPath(names[0]).name)


def joined_name(version: ModelVersion, source: Source) -> str:
    """The name of the file that is joined from the parts."""
    name = source.file_name(version.quantization)
    if name is not None and name not in source.parts.get(version.quantization, ()):
        return PurePosixPath(name).name
    suffix = "bin" if version.spec.model_format == "ggmlv3" else "gguf"
    return f"{source.model_id.rpartition('/')[2]}.{version.quantization}.{suffix}"


def choose_files(version: ModelVersion, source: Source, listed: Iterable[ListedFile]) -> tuple[ListedFile, ...]:
    """The files that the version's quantization needs, without second copies of them.

    Raises:
        Problem: 404 ``file_not_found``, which names the file, the existing files, and a hub that has it;
            502 ``unsafe_file_name``.
    """
    by_name = {file.name: file for file in listed}
    names = wanted_names(version, source)
    if names is not None and len(source.projectors) == 1 and not must_join(names):
        names = (*names, *source.projectors)
    chosen = (
        _select_folder(version, source, by_name) if names is None else _select_named(version, source, by_name, names)
    )
    for file in chosen:
        if not is_inside(file.name):
            raise Problem(
                Code.UNSAFE_FILE_NAME,
                f"{source.hub} lists a file {file.name!r} in {source.model_id}, whose path is outside its folder.",
                hint="Do not use this repository.",
            )
    return chosen


def _select_named(
    version: ModelVersion, source: Source, by_name: dict[str, ListedFile], names: Sequence[str]
) -> tuple[ListedFile, ...]:
    missing = [name for name in names if name not in by_name]
    if missing:
        raise _missing_file(version, source, ", ".join(missing), get_close_matches(missing[0], by_name, 4, 0.6))
    return tuple(by_name[name] for name in names)


def _select_folder(version: ModelVersion, source: Source, by_name: dict[str, ListedFile]) -> tuple[ListedFile, ...]:
    files = {name: file for name, file in by_name.items() if not _is_other_form(name)}
    weights = _weights(files)
    if not weights:
        raise _missing_file(version, source, "a weight file (*.safetensors)", sorted(files)[:8])
    if "config.json" not in files:
        raise _missing_file(version, source, "config.json", sorted(files)[:8])
    small = [name for name in files if PurePosixPath(name).suffix in _SMALL_FILES]
    # An engine loads all files of an index, so an index of files that are not fetched is left out.
    suffixes = {PurePosixPath(name).suffix for name in weights}
    small = [n for n in small if not n.endswith(".index.json") or PurePosixPath(n[:-11]).suffix in suffixes]
    return tuple(files[name] for name in sorted({*weights, *small}))


def _weights(names: Iterable[str]) -> list[str]:
    """The weights in the best available format: safetensors, then PyTorch's own."""
    names = [name for name in names if not _TRAINING.search(name)]
    for suffixes in ((".safetensors",), (".bin",), (".pt", ".pth")):
        weights = [name for name in names if PurePosixPath(name).suffix in suffixes]
        if weights:
            return weights
    return []


def _is_other_form(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") and part != ".." for part in path.parts)
    return hidden or not _OTHER_FORMS.isdisjoint(path.parts[:-1]) or path.name.startswith(("consolidated", "params."))


def _missing_file(version: ModelVersion, source: Source, what: str, near: Sequence[str]) -> Problem:
    others = [s.hub for s in version.spec.sources if s.hub != source.hub and s.has(version.quantization)]
    hint = f"The repository has {', '.join(near)}. " if near else ""
    hint += f"Use --download-hub {others[0]}, which has it." if others else "Correct the model's entry."
    where = f"{source.model_id} on {source.hub}" + (f" (revision {source.revision})" if source.revision else "")
    return Problem(Code.FILE_NOT_FOUND, f"{what} is not in {where}.", hint=hint)
