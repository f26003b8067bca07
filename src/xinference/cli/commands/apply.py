"""`xinference apply`: launch the models of a file that do not run yet."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import click

from xinference.cli.commands.launch import follow_begun, note_found
from xinference.cli.connection import Target, with_server_options
from xinference.cli.given_file import read_given
from xinference.cli.options.json_option import json_option
from xinference.cli.output import note, print_json, show_problem
from xinference.client.client import Client
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request

Json = dict[str, Any]
_EXAMPLE = 'Its form: [[models]] and model_name = "qwen2.5-instruct" below it, for each model.'


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--no-wait", is_flag=True, help="Return before the models are ready.")
@json_option
@with_server_options
def apply(target: Target, file: Path, no_wait: bool, as_json: bool) -> None:
    """Launch the models of FILE that do not run yet.

    FILE is TOML, or JSON if its name ends in .json. Each table `[[models]]` has the fields of `POST /v1/models`, such
    as model_name and replica, and options of the engine. Models that run already with the same fields stay as they
    are; models that FILE does not name are not changed.

    \b
    Example:
      [[models]]
      model_name = "qwen2.5-instruct"
      model_size_in_billions = "0.5"
      model_uid = "assistant"
      n_ctx = 8192
    """
    launches = read_launches(file)
    results: list[Json] = []
    with target.connect(start=True) as client:
        for launch in launches:
            results.append(_launch(client, launch, no_wait))
    if as_json:
        print_json(results)
    else:
        for each in results:
            if each["problem"] is None:
                click.echo(each["model_uid"])
    if any(each["problem"] is not None for each in results):
        raise SystemExit(1)


def _launch(client: Client, launch: Json, no_wait: bool) -> Json:
    """Launch one model; the problem of a launch does not stop the others."""
    uid = str(launch.get("model_uid") or launch["model_name"])
    try:
        begun = client.begin_launch(**launch)
        if begun.get("found") == "running":
            uid = str(begun["model_uid"])
            note(f"{uid} runs already.")
        else:
            uid = note_found(begun)
            if not no_wait:
                follow_begun(client, begun)
    except Problem as problem:
        if problem.code == Code.MODEL_UID_TAKEN:
            problem = problem.replace(hint=f"`xinference terminate {uid}`, and apply the file again.")
        show_problem(problem.replace(cause=f"{uid}: {problem.cause}"))
        return {"model_uid": uid, "problem": problem.to_dict()}
    return {"model_uid": uid, "problem": None}


def read_launches(file: Path) -> list[Json]:
    """The launches of a file; relative paths of weights are below its folder.

    Raises:
        Problem: 400, the file cannot be read, or has another form.
    """
    try:
        with file.open(encoding="utf-8") as opened:
            text = read_given(opened, hint=_EXAMPLE)
        document = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise bad_request(f"{file} can't be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        form = "JSON" if file.suffix == ".json" else "TOML"
        raise bad_request(f"{file} is not {form}: {str(error).rstrip('.')}.", hint=_EXAMPLE) from None
    models = document.get("models") if isinstance(document, dict) and set(document) == {"models"} else None
    if not isinstance(models, list) or not models:
        raise bad_request(f"{file} is not a list of models.", hint=_EXAMPLE)
    launches = [_checked(file, number, each) for number, each in enumerate(models, 1)]
    uids = [each.get("model_uid") or each["model_name"] for each in launches]
    if twice := sorted({uid for uid in uids if uids.count(uid) > 1}):
        raise bad_request(f"{file} has {twice[0]} more than once.", hint="Give each model its own model_uid.")
    return launches


def _checked(file: Path, number: int, launch: Any) -> Json:
    name = launch.get("model_name") if isinstance(launch, dict) else None
    if not isinstance(name, str) or not name:
        raise bad_request(f"Model {number} of {file} has no model_name.", hint=_EXAMPLE)
    if not_allowed := sorted(launch.keys() & {"new", "wait_ready"}):
        raise bad_request(f"{name} in {file} has {not_allowed[0]}, which has no meaning there.")
    try:
        json.dumps(launch, allow_nan=False)
    except (TypeError, ValueError) as error:  # a date, a time or `inf` of TOML
        raise bad_request(f"{name} in {file} has a value that JSON does not have: {error}.") from None
    checked: Json = dict(launch)
    path = checked.get("model_path")
    if isinstance(path, str) and not path.startswith("file://"):
        checked["model_path"] = str(file.absolute().parent / Path(path).expanduser())
    return checked
