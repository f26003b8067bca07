"""Weights on the server's machine: a file or a folder passed with ``--model-path``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote

from xinference.error_codes import Code
from xinference.errors import Problem, bad_request, join_names, near
from xinference.formats.gguf import read_header
from xinference.formats.sniff import SNIFF_BYTES, describe
from xinference.formats.weight_file import weight_file

#: llama.cpp's names for the parts of one model (`llama_split_path`). A name that claims a thousand parts or more is no
#: part's: anybody can give a file such a name, and each part costs time.
PART = re.compile(r"(?P<stem>.+)-(?P<index>\d{5})-of-(?P<count>00\d{3})\.gguf", re.IGNORECASE)
_SHOWN = 8
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_WEIGHT_SUFFIXES = frozenset({*_WEIGHTS, ".gguf", ".ggml"})
_CONFIG_SUFFIXES = frozenset({".json", ".jinja"})
#: The required file of each format.
_REQUIRED = {"ggufv2": "a .gguf file", "ggmlv3": "a .bin or .ggml file"}


def path_of(text: str) -> Path:
    """The path that a user wrote: ``~`` is the home folder, and ``file:///models/m.gguf`` is a path, too."""
    if text.startswith("file://"):
        text = unquote(text.removeprefix("file://").removeprefix("localhost"))
    return Path(text).expanduser()


def resolve_local(model_path: str, model_format: str, quantization: str | None) -> Path:
    """Find and check the weights at `model_path`, a file or a folder; ``~`` is the home folder.

    Returns:
        An absolute path: the file for ``ggufv2`` (the first of its parts) and ``ggmlv3``, else the folder.

    Raises:
        Problem: 400 ``model_path_not_found``, ``model_path_ambiguous`` (lists the files) or ``bad_weight_file``. For
            a path that is not a model's, the problem does not state whether a file exists.
    """
    path = path_of(model_path).absolute()
    try:
        return _resolve(path, model_format, quantization)
    except Problem:
        if is_model_path(path):
            raise
        required = _REQUIRED.get(model_format, "a folder with a config.json and weights")
        raise bad_request(
            f"`--model-path`: {path} does not exist, or has no weights.",
            hint=f"Pass {required} on the machine that the server runs on.",
            code=Code.MODEL_PATH_NOT_FOUND,
        ) from None


def is_model_path(path: Path) -> bool:
    """Whether a problem may describe `path`: its name or first bytes are those of weights, or its folder has some."""
    if path.suffix.lower() in _WEIGHT_SUFFIXES or is_gguf_file(path):
        return True
    folder = path if path.suffix.lower() not in _CONFIG_SUFFIXES else path.parent
    try:
        return any(file.suffix.lower() in _WEIGHT_SUFFIXES for file in folder.iterdir())
    except (OSError, ValueError):
        return False


def is_gguf_file(path: Path) -> bool:
    """Whether a file begins as a GGUF file does, whatever its name is: Ollama names its files by their hash."""
    try:
        if not path.is_file():
            return False
        with path.open("rb", buffering=0) as file:
            return file.read(4) == b"GGUF"
    except (OSError, ValueError):
        return False


def near_files_hint(path: Path) -> str | None:
    """A hint with the weight files in the folder of a missing file whose names are similar; None: there are none."""
    try:
        names = [file.name for file in path.parent.iterdir() if file.suffix.lower() in _WEIGHT_SUFFIXES]
    except (OSError, ValueError):
        return None
    similar = near(path.name, names)
    return f"Did you mean {join_names(similar[:3])} in {path.parent}?" if similar else None


def missing_parts(names: Iterable[str]) -> tuple[str, ...]:
    """The names of the parts that are missing of the models of which `names` has at least one part."""
    present = set(names)
    matches = (PART.fullmatch(name) for name in present)
    models = sorted({(match["stem"], int(match["count"])) for match in matches if match is not None})
    every = (_part_name(stem, index, count) for stem, count in models for index in range(1, count + 1))
    return tuple(name for name in every if name not in present)


def _part_name(stem: str, index: int, count: int) -> str:
    return f"{stem}-{index:05}-of-{count:05}.gguf"


def shown_names(names: Sequence[str]) -> str:
    """The first names of a list that may be long."""
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _resolve(path: Path, model_format: str, quantization: str | None) -> Path:
    try:
        if not path.exists():
            raise bad_request(
                f"`--model-path`: {path} does not exist.",
                hint=near_files_hint(path) or "Pass a file or folder on the machine that the server runs on.",
                code=Code.MODEL_PATH_NOT_FOUND,
            )
        if model_format == "ggufv2":
            return _gguf(path, quantization)
        return _ggml(path, quantization) if model_format == "ggmlv3" else _folder(path, model_format)
    except OSError as error:
        raise bad_request(
            f"`--model-path`: {path} cannot be read: {error.strerror}.",
            hint="Check its permissions.",
            code=Code.BAD_WEIGHT_FILE,
        ) from error


def _gguf(path: Path, quantization: str | None) -> Path:
    file = _one_of(path, (".gguf",), quantization) if path.is_dir() else path
    first, *others = parts_of(file)
    missing = [part.name for part in (first, *others) if not part.is_file()]
    if missing and file.is_file():
        raise bad_request(
            f"`--model-path`: {file} is one part of a model, and these parts are missing: {shown_names(missing)}.",
            hint="Put all parts into the same folder.",
            code=Code.MODEL_PATH_NOT_FOUND,
        )
    return read_header(first).path


def parts_of(file: Path) -> list[Path]:
    """All parts of the model that `file` belongs to, in order; only `file` if the model is not split."""
    match = PART.fullmatch(file.name)
    if match is None:
        return [file]
    count = int(match["count"])
    return [file.with_name(_part_name(match["stem"], i, count)) for i in range(1, count + 1)] or [file]


def _ggml(path: Path, quantization: str | None) -> Path:
    file = _one_of(path, (".bin", ".ggml"), quantization) if path.is_dir() else path
    with weight_file(file, "the weight file itself") as (opened, size):
        head = opened.read(SNIFF_BYTES)
    if head[:4] not in (b"lmgg", b"fmgg", b"tjgg"):
        is_gguf = head.startswith(b"GGUF")
        raise bad_request(
            f"`--model-path`: {file} is not in the older ggml format"
            + (" but GGUF." if is_gguf else f": it {describe(head, size, 'ggml').what}."),
            hint="Use --model-format ggufv2." if is_gguf else "Pass the weight file itself.",
            code=Code.BAD_WEIGHT_FILE,
        )
    return file


def _one_of(folder: Path, suffixes: tuple[str, ...], quantization: str | None) -> Path:
    """The folder's only model in this format, or the only one that has the quantization in its name."""
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in suffixes and _is_first_of_a_model(f))
    named = [f for f in files if quantization and _names(f.name, quantization)]
    if len(files) > 1 and len(named) == 1:
        return named[0]
    if len(files) == 1:
        return files[0]
    if missing := missing_parts(f.name for f in folder.iterdir()):
        raise bad_request(
            f"`--model-path`: {folder} has a model in parts, and these are missing: {shown_names(missing)}.",
            hint="Put all parts into the same folder.",
            code=Code.MODEL_PATH_NOT_FOUND,
        )
    if not files:
        raise bad_request(
            f"`--model-path`: {folder} has no {' or '.join(suffixes)} file.",
            hint="Pass the weight file itself, or another --model-format.",
            code=Code.MODEL_PATH_NOT_FOUND,
        )
    raise bad_request(
        f"`--model-path`: {folder} has several models: {', '.join(f.name for f in named or files)}.",
        hint="Pass the file itself" + ("." if quantization else ", or a --quantization."),
        code=Code.MODEL_PATH_AMBIGUOUS,
    )


def _is_first_of_a_model(file: Path) -> bool:
    """Whether the file is neither a later part nor the projector of a vision model in the same folder."""
    match = PART.fullmatch(file.name)
    return (match is None or int(match["index"]) == 1) and "mmproj" not in file.name.lower()


def _names(file_name: str, quantization: str) -> bool:
    """Whether the name contains the quantization as a whole word: Q4_K is not in ``m.Q4_K_M.gguf``."""
    return bool(re.search(rf"(?<![a-z0-9]){re.escape(quantization)}(?![a-z0-9_])", file_name, re.IGNORECASE))


def _folder(path: Path, model_format: str) -> Path:
    if not path.is_dir():
        raise bad_request(
            f"`--model-path`: {path} is a file, and {model_format} needs a folder.",
            hint=f"Pass {path.parent}, or another --model-format.",
            code=Code.BAD_WEIGHT_FILE,
        )
    if not (path / "config.json").is_file():
        raise bad_request(
            f"`--model-path`: {path} has no config.json, which a {model_format} model needs.",
            hint="Pass the folder that contains it, or another --model-format.",
            code=Code.BAD_WEIGHT_FILE,
        )
    if not any(f.suffix in _WEIGHTS for f in path.iterdir()):
        raise Problem(
            Code.BAD_WEIGHT_FILE,
            f"`--model-path`: {path} has a config.json but no weights ({', '.join(_WEIGHTS)}).",
            hint="Download the model's weights into the same folder.",
        )
    return path
