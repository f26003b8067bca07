"""The rest of `launch`'s options: those that few launches need, and those of other versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import click

from xinference.cli.options.native_options import parse_value

Pairs = tuple[tuple[str, str], ...]


def _as_mapping(ctx: click.Context, param: click.Parameter, pairs: Pairs) -> dict[str, str] | None:
    return dict(pairs) or None


def _as_values(ctx: click.Context, param: click.Parameter, pairs: Pairs) -> dict[str, Any] | None:
    return {key: parse_value(value) for key, value in pairs} or None


def _as_list(ctx: click.Context, param: click.Parameter, words: tuple[str, ...]) -> list[str] | None:
    return list(words) or None


def _refuse_image_lora(ctx: click.Context, param: click.Parameter, pairs: Pairs) -> None:
    if pairs:
        refuse("It says how an image model loads its LoRA adapters, and no image models are served here.")


def refuse(reason: str) -> NoReturn:
    """Refuse an option for this reason."""
    raise click.BadParameter(reason)


def further_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add them, each under the name of the request's field; what the server can't do, it says itself."""
    for option in (
        click.option("-fd", "--image-lora-fuse-kwargs", nargs=2, multiple=True, expose_value=False, hidden=True,
            callback=_refuse_image_lora),
        click.option("-ld", "--image-lora-load-kwargs", nargs=2, multiple=True, expose_value=False, hidden=True,
            callback=_refuse_image_lora),
        click.option("--virtual-env-find-link", "virtual_env_find_links", multiple=True, callback=_as_list,
            hidden=True),
        click.option("-vp", "--virtual-env-package", "virtual_env_packages", multiple=True, callback=_as_list,
            hidden=True),
        click.option("--enable-virtual-env/--disable-virtual-env", default=None,
            help="Without effect: every engine but llama.cpp runs in an environment of its own, see `xinference env`."),
        click.option("--worker-ip", help="Without effect while there is one machine."),
        click.option("--n-worker", type=click.IntRange(min=1), default=1, show_default=True,
            help="Machines for each replica; there is one."),
        click.option("-ev", "--env", "envs", nargs=2, multiple=True, metavar="NAME VALUE", callback=_as_mapping,
            help="An environment variable of the engine; may be given again."),
        click.option("-qc", "--quantization-config", nargs=2, multiple=True, metavar="KEY VALUE", callback=_as_values,
            help="For Transformers: how bitsandbytes quantizes, such as load_in_4bit true; may be given again."),
        click.option("--request-limits", type=click.IntRange(min=0), metavar="N",
            help="Maximum number of requests at the same time. [default: no limit]"),
        click.option("--enable-thinking/--disable-thinking", default=None,
            help="For hybrid models: think before the answer, or not. [default: as the model's template says]"),
    ):  # fmt: skip
        command = option(command)
    return command
