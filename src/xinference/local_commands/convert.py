"""`xinference convert`: converts a ggmlv3 file to GGUF, with missing facts from a family or the user."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from xinference.catalog.known_models import catalog_of
from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request
from xinference.formats.convert import convert_ggml
from xinference.formats.ggml import read_ggml
from xinference.formats.llama_facts import LlamaFacts, disagreements, facts_for
from xinference.launch.match import match
from xinference.launch.request import LaunchRequest
from xinference.local_commands.existing_file import require_file

_ONLY = "Only ggmlv3 files are converted."
#: Number of files of a folder that are read in search of one that can be converted.
_FILES_READ = 100
Progress = Callable[[int, int | None, str], None]


def convert(
    source: Path,
    target: Path,
    progress: Progress,
    *,
    model_name: str | None = None,
    size: int | str | None = None,
    rms_norm_eps: float | None = None,
    context_length: int | None = None,
    force: bool = False,
) -> tuple[str, ...]:
    """Convert `source` to `target`; returns the notes for the user.

    Args:
        model_name: a family with ggmlv3 specs; the other arguments override its facts.
        size: billions of parameters; needed where the family has several.
        context_length: tokens.
        force: replace a `target` that exists.

    Raises:
        Problem: 409 ``exists``; 400 ``ggml_facts_missing``, ``model_not_found``, ``model_path_not_found`` or
            ``bad_weight_file``; and as `convert_ggml`.
    """
    if target.exists() and not force:
        raise Problem(Code.EXISTS, f"{target} exists already.", hint="Name another file, or replace it with --force.")
    require_file(source)
    _require_regular_file(source)
    try:
        header = read_ggml(source)
    except Problem as problem:
        if "--model-format" not in (problem.hint or ""):
            raise
        # The hint is for a launch; this command has no such option.
        hint = f"{_ONLY} Launch a GGUF file, or the folder of the model, as it is: "
        raise problem.replace(hint=f"{hint}`xinference launch {source}`.") from None
    facts = _facts(source, model_name, size, rms_norm_eps, context_length)
    convert_ggml(source, target, facts, progress, threading.Event())
    template = "with" if facts.chat_template else "without"
    return (
        f"context {facts.context_length}, RMS epsilon {facts.rms_norm_eps:g}, {template} a chat template",
        *(disagreements(header, facts) if model_name else ()),
    )


def _require_regular_file(source: Path) -> None:
    """The problem of a folder names the files in it that can be converted."""
    if source.is_file():
        return
    if not source.is_dir():
        raise bad_request(f"{source} is not a regular file.", hint=_ONLY, code=Code.BAD_WEIGHT_FILE)
    files = [file for file in islice(_files(source), _FILES_READ) if _is_ggml(file)]
    hint = (
        f"Name the ggmlv3 file in it: {', '.join(str(file) for file in sorted(files)[:3])}."
        if files
        else f"{_ONLY} The folder has none; launch a folder as it is: `xinference launch {shlex.quote(str(source))}`."
    )
    raise bad_request(f"{source} is a folder.", hint=hint, code=Code.BAD_WEIGHT_FILE)


def _files(folder: Path) -> Iterator[Path]:
    try:
        yield from (entry for entry in folder.iterdir() if entry.is_file())
    except OSError as error:
        raise bad_request(f"{folder} can't be read: {error.strerror}.", code=Code.BAD_WEIGHT_FILE) from error


def _is_ggml(file: Path) -> bool:
    try:
        read_ggml(file)
    except Problem:
        return False
    return True


def _facts(
    source: Path, model_name: str | None, size: int | str | None, rms_norm_eps: float | None, context: int | None
) -> LlamaFacts:
    if model_name is not None:
        facts = _of_family(model_name, size)
        eps = facts.rms_norm_eps if rms_norm_eps is None else rms_norm_eps
        return replace(facts, rms_norm_eps=eps, context_length=context or facts.context_length)
    if rms_norm_eps is None or context is None:
        raise bad_request(
            f"{source} does not contain the model's RMS epsilon, its context length and its chat template.",
            hint="Name the model, such as --model-name llama-2-chat --size-in-billions 7, or pass both "
            "--rms-norm-eps (1e-5 for Llama 2, 1e-6 for the first LLaMA) and --context-length.",
            code=Code.GGML_FACTS_MISSING,
        )
    return LlamaFacts(name=source.stem, context_length=context, rms_norm_eps=rms_norm_eps)


def _of_family(model_name: str, size: int | str | None) -> LlamaFacts:
    request = LaunchRequest(model_name=model_name, model_size_in_billions=size, model_format="ggmlv3")
    version = match(catalog_of(Settings.from_env().home).families, request)
    sizes = [str(s.model_size_in_billions) for s in version.family.model_specs if s.model_format == "ggmlv3"]
    if size is None and len(sizes) > 1:
        raise bad_request(
            f"{version.family.model_name} has several sizes: {', '.join(sizes)}.",
            hint="Choose one with --size-in-billions.",
        )
    return facts_for(version)
