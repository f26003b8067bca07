"""Further options of `launch`: rarely used ones, and those of other versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import click

from xinference.cli.options.labels import labels_of
from xinference.cli.options.native_options import parse_value
from xinference.cli.options.numbers import IntegerRange, NumberRange, TokenCount

Pairs = tuple[tuple[str, str], ...]


def _as_mapping(ctx: click.Context, param: click.Parameter, pairs: Pairs) -> dict[str, str] | None:
    return dict(pairs) or None


def _as_values(ctx: click.Context, param: click.Parameter, pairs: Pairs) -> dict[str, Any] | None:
    return {key: parse_value(value) for key, value in pairs} or None


def _as_labels(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> dict[str, str] | None:
    return labels_of(texts) or None


def _as_list(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    return list(values) or None


def _refuse_image_lora(ctx: click.Context, param: click.Parameter, pairs: Pairs) -> None:
    if pairs:
        refuse("Image models are not served, and this option is for the LoRA adapters of image models.")


def refuse(reason: str) -> NoReturn:
    """Reject an option with a reason."""
    raise click.BadParameter(reason)


def further_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options, each under the name of the request's field. The server rejects those it does not support."""
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
            help="No effect: `xinference env` manages the environments of the engines."),
        click.option("--worker-ip", metavar="NODES",
            help="Use only these nodes of a cluster: ids, names or addresses, separated by commas. [default: all]"),
        click.option("--label", "labels", metavar="NAME=VALUE", multiple=True, callback=_as_labels,
            help="Use only workers of a cluster that have this label. Repeatable."),
        click.option("--n-worker", type=IntegerRange(1, 64), default=1, show_default=True,
            help="Number of workers of a cluster that compute each replica together."),
        click.option("--allow-plain-gang", is_flag=True,
            help="With --n-worker: allow unencrypted connections between workers without the label fabric=private."),
        click.option("-ev", "--env", "envs", nargs=2, multiple=True, metavar="NAME VALUE", callback=_as_mapping,
            help="Environment variable of the engine. Repeatable."),
        click.option("-qc", "--quantization-config", nargs=2, multiple=True, metavar="KEY VALUE", callback=_as_values,
            help="Option of bitsandbytes, such as load_in_4bit true, for engines that quantize with it. Repeatable."),
        click.option("--request-limits", type=IntegerRange(min=0), metavar="N",
            help="Maximum number of requests at the same time. [default: no limit]"),
        click.option("--max-output-tokens", type=TokenCount(), metavar="N",
            help="Maximum number of tokens of an answer; a request for more gets a 400. [default: the context]"),
        click.option("--max-request-seconds", type=NumberRange(0, 2**31, min_open=True), metavar="SECONDS",
            help="Maximum time of the engine for one request; a longer request gets a 504. [default: no limit]"),
        click.option("--context-length", type=TokenCount(), metavar="N",
            help="Maximum number of tokens of a prompt and its answer together, such as 32k. "
            "[default: depends on the free memory]"),
        click.option("--no-tune", "tune", flag_value=False, default=None, type=click.UNPROCESSED,
            help="Do not use the engine options that `xinference tune` has stored for the model."),
        click.option("--enable-thinking/--disable-thinking", default=None,
            help="For hybrid reasoning models: whether they think before they answer. [default: the chat template "
            "decides]"),
    ):  # fmt: skip
        command = option(command)
    return command
