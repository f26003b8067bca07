"""`xinference cal-model-mem`: an estimate of a model's memory, without a server."""

from __future__ import annotations

from typing import Any

import click

from xinference.cli.options.json_option import json_option
from xinference.cli.options.name_argument import name_argument
from xinference.cli.options.numbers import TokenCount
from xinference.cli.options.version_options import read_name, read_size
from xinference.cli.output import note, print_json, size
from xinference.cli.table import print_table


@click.command("cal-model-mem")
@click.option(
    "-n", "--model-name", callback=read_name, help="A model's name, a repository such as org/repo, or a path."
)
@click.option(
    "-s",
    "--size-in-billions",
    "--model-size-in-billions",
    "size_in_billions",
    callback=read_size,
    help="Billions of parameters, such as 7B or 0.5B. [default: the smallest]",
)
@click.option(
    "-f", "--model-format", help="Format of the weights, such as ggufv2 or pytorch. [default: as for a launch]"
)
@click.option("-q", "--quantization", help="Quantization, such as Q4_K_M. [default: as for a launch]")
@click.option(
    "-c",
    "--context-length",
    type=TokenCount(),
    metavar="N",
    help="Tokens of prompt and answer together, such as 32k. [default: 4096, or the model's context if it is shorter]",
)
@click.option(
    "--kv-cache-dtype",
    "kv_cache_bits",
    type=click.Choice(["8", "16", "32"]),
    default="16",
    show_default=True,
    help="Bits of one element of the KV cache.",
)
@json_option
@name_argument()
def cal_model_mem(as_json: bool, kv_cache_bits: str, **arguments: Any) -> None:
    """Estimate the memory that a model needs, for each engine that runs it.

    The estimate is for one request that fills the whole context. The total is that of the plan of a launch with this
    context and one slot (`launch --dry-run`), including the saved states of prompts.
    """
    from xinference.local_commands.memory import estimate

    estimates = estimate(**arguments, kv_cache_bits=int(kv_cache_bits))
    if as_json:
        print_json([{**vars(each), "total_bytes": each.total_bytes} for each in estimates])
        return
    print_table(
        ["Engine", "Weights", "KV cache", "Overhead", "Saved states", "Total"],
        [
            [
                each.engine,
                size(each.weights_bytes),
                size(each.kv_cache_bytes),
                size(each.overhead_bytes),
                size(each.saved_states_bytes),
                size(each.total_bytes),
            ]
            for each in estimates
        ],
    )
    if estimates:
        first = estimates[0]
        note(f"{first.version_id}, {first.context_length} tokens; source: {first.source}.")
        for devices, place in ((0, "the CPU"), (1, "one GPU")):
            if names := [each.engine for each in estimates if each.devices == devices]:
                note(f"On {place}: {', '.join(names)}.")
