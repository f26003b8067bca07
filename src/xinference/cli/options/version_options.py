"""The options that choose a version of a model."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import click

from xinference.cli.options.completion import complete_engine, complete_model, complete_quantization

_SIZE = re.compile(r"(\d{1,6}(?:[._]\d{1,6})?)\s*([bm]?)", re.IGNORECASE)


def read_size(ctx: click.Context, param: click.Parameter, text: str | None) -> int | str | None:
    """Billions of parameters: an integer, or a text such as ``1_8`` or ``1.8``.

    ``7B``, ``0.5b`` and ``135M`` are taken, too.
    """
    if text is None:
        return None
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is not a size in billions, such as 7, 7B, 1_8, 0.5B or 135M.")
    number, unit = match.groups()
    if unit.lower() == "m":
        number = f"{float(number.replace('_', '.')) / 1000:g}"
    return number if "_" in number or "." in number else int(number)


def absolute_if_exists(path: str | None) -> str | None:
    """Make an existing path absolute, because the server has another working directory."""
    if path is None:
        return None
    local = Path(path).expanduser()
    return str(local.absolute()) if local.exists() else path


def absolute_path(path: str | None) -> str | None:
    """An absolute path, also of a missing file, so that the server names the path that the user meant."""
    return path if path is None or path.startswith("file://") else str(Path(path).expanduser().absolute())


def read_name(ctx: click.Context, param: click.Parameter, name: str | None) -> str | None:
    """A model's name or a repository id unchanged; a path through `absolute_if_exists`."""
    if name is None:
        return None
    if name.startswith((".", "/", "~")) or ("/" not in name and name.lower().endswith(".gguf")):
        return str(Path(name).expanduser().absolute())  # also if it is missing, so that the server names the path
    return (absolute_if_exists(name) or name) if "/" in name else name


def version_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `launch` and `download` that choose a version, each under the name of the request's field."""
    for option in (
        click.option("--download-hub", "--download_hub", "download_hub",
            help="Hub: huggingface, modelscope, package_index or local. [default: the server chooses]"),
        click.option("-q", "--quantization", shell_complete=complete_quantization,
            help="Quantization, such as Q4_K_M."),
        click.option("-f", "--model-format", help="Format of the weights, such as ggufv2 or pytorch."),
        click.option("-s", "--size-in-billions", "--model-size-in-billions", "model_size_in_billions",
            callback=read_size, help="Billions of parameters, such as 7B or 0.5B."),
        click.option("-t", "--model-type", default="LLM", show_default=True, help="LLM, embedding or rerank."),
        click.option("-en", "--model-engine", shell_complete=complete_engine,
            help="Engine (see `xinference engine`). [default: the server chooses]"),
        click.option("-n", "--model-name", "--model_name", "model_name",
            callback=read_name, shell_complete=complete_model,
            help="A model's name (see `xinference registrations`), a repository such as org/repo, or a path."),
    ):  # fmt: skip
        command = option(command)
    return command
