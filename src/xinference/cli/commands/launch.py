"""`xinference launch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xinference.cli.connection import Target, with_server_options
from xinference.cli.interrupts import answer_or_cancel, confirms_cancel
from xinference.cli.options.json_option import json_option
from xinference.cli.options.launch_options import further_options
from xinference.cli.options.name_argument import name_argument
from xinference.cli.options.native_options import LaunchCommand
from xinference.cli.options.numbers import IntegerRange, NumberRange
from xinference.cli.options.version_options import absolute_path, version_options
from xinference.cli.output import INTERRUPTED, note, print_json, size

if TYPE_CHECKING:
    from xinference.client import Client

Json = dict[str, Any]


def _read_n_gpu(ctx: click.Context, param: click.Parameter, text: str) -> int | str | None:
    if text.lower() in ("auto", "none"):
        return "auto" if text.lower() == "auto" else None
    if text.isdecimal():
        return int(text)
    raise click.BadParameter(f"{text!r} is not `auto`, `none` (only the CPU) or a number of GPUs.")


def _read_gpu_idx(ctx: click.Context, param: click.Parameter, text: str | None) -> list[int] | None:
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise click.BadParameter(f"{text!r} is not a list of GPU numbers, such as 0,1.")
    return [int(word) for word in words]


def _read_lora_modules(
    ctx: click.Context, param: click.Parameter, pairs: tuple[tuple[str, str], ...]
) -> dict[str, str] | None:
    modules: dict[str, str] = {}
    for name, path in pairs:
        if not name or name in modules:
            raise click.BadParameter(f"each adapter requires a unique name, and {name!r} is empty or repeated.")
        modules[name] = str(Path(path).expanduser().absolute())
    return modules or None


def _read_aliases(ctx: click.Context, param: click.Parameter, names: tuple[str, ...]) -> list[str] | None:
    return list(names) or None


_EPILOG = """Any other --key value is an option of the engine, such as --n_ctx 8192.

\b
Examples:
  xinference launch qwen2.5-instruct -s 0.5B
  xinference launch qwen2.5-instruct -s 7B -q Q8_0 --n_ctx 8192
  xinference launch org/repo:Q4_K_M
  xinference launch ./model.gguf -u mine
"""


@click.command(cls=LaunchCommand, epilog=_EPILOG)
@version_options
@click.option("-u", "--model-uid", help="Name of the model in requests. [default: the model's name]")
@click.option("-mp", "--model-path", help="File or folder that has the weights; nothing is downloaded.")
@click.option(
    "-lm",
    "--lora-modules",
    nargs=2,
    multiple=True,
    metavar="NAME PATH",
    callback=_read_lora_modules,
    help="LoRA adapter: its name in requests, and its folder. Repeatable.",
)
@click.option(
    "--n-gpu",
    default="auto",
    callback=_read_n_gpu,
    help="auto, none (CPU only) or the number of GPUs for each replica. [default: auto]",
)
@click.option(
    "--gpu-idx",
    callback=_read_gpu_idx,
    help="Indexes of the GPUs to use, such as 0,1. They are divided among the replicas.",
)
@click.option(
    "-r", "--replica", type=IntegerRange(min=1), default=1, show_default=True, help="Number of replicas to run."
)
@further_options
@click.option("--on-demand", is_flag=True, help="Load the model at its first request, and unload it when it is idle.")
@click.option(
    "--ttl",
    type=NumberRange(min=0),
    help="With --on-demand: unload the model after this many idle seconds (0: only when another model needs the "
    "memory). [default: 300]",
)
@click.option("--pin", is_flag=True, help="With --on-demand: do not unload the model for another model.")
@click.option(
    "--priority",
    type=int,
    help="When memory is short, on-demand models with the lowest priority are unloaded first. [default: 0]",
)
@click.option(
    "--alias",
    "aliases",
    multiple=True,
    metavar="NAME",
    callback=_read_aliases,
    help="Another name of the model in requests, such as gpt-4o. Repeatable.",
)
@click.option("--new", is_flag=True, help="Launch a copy, even if the same model already runs.")
@click.option("--dry-run", is_flag=True, help="Show the plan and its reasons, and launch nothing.")
@click.option("--no-wait", is_flag=True, help="Return before the model is ready.")
@json_option
@with_server_options
@name_argument()
@click.pass_context
def launch(
    ctx: click.Context, /, target: Target, dry_run: bool, no_wait: bool, as_json: bool, **arguments: Any
) -> None:
    """Launch a model, and print its uid when it is ready."""
    if "wait_ready" in ctx.obj:
        raise click.UsageError("--wait-ready is the default; --no-wait returns before the model is ready.")
    own = {name: value for name, value in arguments.items() if value is not None or name == "n_gpu"}
    request = {**ctx.obj, **own, "model_path": absolute_path(arguments["model_path"])}
    if isinstance(draft := request.get("draft_model_path"), str):
        request["draft_model_path"] = absolute_path(draft)
    if dry_run:
        plan = plan_of(target, request)
        from xinference.cli.plan_text import plan_text

        print_json(plan) if as_json else click.echo(plan_text(plan))
        return
    with target.connect(start=True) as client:
        begun = begin(client, request)
        uid = note_found(begun)
        if no_wait:
            if begun.get("found") != "running":
                _note_background(uid)
            print_json({"model_uid": uid}) if as_json else click.echo(uid)
            return
        _wait(client, begun, as_json)


#: The state of an earlier, equal launch -> the line about it.
_FOUND = {
    "running": "{uid} is already running (launched earlier with the same choices); --new launches a copy.",
    "launching": "{uid} is already being launched; --new launches a copy.",
    "unloaded": "{uid} was unloaded; loading it again.",
    "failed": "{uid} has failed; launching it again.",
}


def begin(client: Client, request: Json) -> Json:
    """Begin a launch; the server may look up the model on a hub before it answers with the uid."""

    def cancel(begun: Json) -> None:
        uid = note_found(begun)
        if begun.get("found") != "running":  # a model that ran before stays
            client.terminate_model(uid)
            note(f"Cancelled the launch of {uid}.")

    continues = "The launch may continue on the server: `xinference list` shows it, `xinference terminate UID` ends it."
    return answer_or_cancel(lambda: client.begin_launch(**request), "Cancel the launch?", cancel, continues)


def note_found(begun: Json) -> str:
    """The uid of a launch that has begun, after a line about the earlier launch that was found."""
    uid = str(begun["model_uid"])
    if (line := _FOUND.get(str(begun.get("found")))) is not None:
        note(line.format(uid=uid))
    return uid


def plan_of(target: Target, request: Json) -> Json:
    """The plan of the running server, or, without one, of this process, which starts none."""
    if target.answers:
        with target.connect() as client:
            return client.plan_launch(**request)
    from xinference.client import launch_requests
    from xinference.local_commands.plan import plan_launch

    body = launch_requests.launch_model(**request).body
    assert body is not None
    return plan_launch(body, target.settings)


def _wait(client: Client, begun: Json, as_json: bool) -> None:
    uid = str(begun["model_uid"])
    description = follow_begun(client, begun)
    if description is None:
        print_json({"model_uid": uid}) if as_json else click.echo(uid)
        return
    counts = [description.get(name) for name in ("memory_used_bytes", "gpu_memory_used_bytes")]
    facts = {
        "context length": description.get("context_length"),
        "engine": description.get("model_engine"),
        "memory": " and on GPUs ".join(size(count) for count in counts if count),
    }
    # A model on demand may have no engine yet; the launch is complete all the same.
    unloaded = description.get("status") == "UNLOADED"
    start = "Launched; the first request loads the model. Endpoint:" if unloaded else "Ready at"
    note(f"{start} {client.base_url}/v1" + "".join(f", {name} {fact}" for name, fact in facts.items() if fact))
    print_json(description) if as_json else click.echo(uid)


def follow_begun(client: Client, begun: Json) -> Json | None:
    """As `follow`, but without the stages of a launch that was complete before."""
    uid = str(begun["model_uid"])
    return client.describe_model(uid) if begun.get("found") == "running" else follow(client, uid)


def follow(client: Client, uid: str) -> Json | None:
    """Show a launch until the model is ready; returns its description, or None if the launch continues without us."""
    from xinference.cli.progress import follow_launch

    try:
        return follow_launch(client, uid) or client.describe_model(uid)
    except KeyboardInterrupt:
        if confirms_cancel("Cancel the launch?"):
            client.terminate_model(uid)
            note(f"Cancelled the launch of {uid}.")
            raise SystemExit(INTERRUPTED) from None
        _note_background(uid)
        return None


def _note_background(uid: str) -> None:
    note(
        f"{uid} is loading in the background; see `xinference list` or `xinference logs -f {uid}`. "
        f"`xinference terminate {uid}` cancels the launch."
    )
