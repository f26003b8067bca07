"""`xinference apply`: launch the models of a file that do not run yet."""

from __future__ import annotations

import contextlib
import json
import socket
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from xinference.cli.applied_set import NamedModel, stale_uids
from xinference.cli.commands.launch import begin, follow_begun, note_found, plan_of
from xinference.cli.connection import Target, with_server_options
from xinference.cli.given_file import as_text, read_named
from xinference.cli.options.json_option import json_option
from xinference.cli.output import note, print_json, show_problem
from xinference.client.client import Client
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request

Json = dict[str, Any]
#: Maximum length of the name of a set.
MAX_NAME = 200
#: Problems of a launch that may be over once other models are ended, or that concern only this model.
_TOLERATED = (Code.DOES_NOT_FIT, Code.NO_ROOM, Code.MODEL_UID_TAKEN)
_NAME_HINT = "The name says which models `--prune` may end. Without it, the path of the file does."
_EXAMPLE = 'Its form: [[models]] and model_name = "qwen2.5-instruct" below it, for each model.'


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--prune", is_flag=True, help="End the models that this file has started and does not name any more.")
@click.option("--prune-all", is_flag=True, help="End all models that the file does not name.")
@click.option("-y", "--yes", is_flag=True, help="End models without confirmation.")
@click.option("--dry-run", is_flag=True, help="Show what would be launched and ended, and change nothing.")
@click.option("--no-wait", is_flag=True, help="Return before the models are ready.")
@json_option
@with_server_options
def apply(
    target: Target, file: Path, prune: bool, prune_all: bool, yes: bool, dry_run: bool, no_wait: bool, as_json: bool
) -> None:
    """Launch the models of FILE that do not run yet.

    FILE is TOML, or JSON if its name ends in .json. Each table `[[models]]` has the fields of `POST /v1/models`, such
    as model_name and replica, and options of the engine. Models that run already with the same fields stay as they
    are. Models that FILE does not name are not changed, except with --prune.

    \b
    Example:
      [[models]]
      model_name = "qwen2.5-instruct"
      model_size_in_billions = "0.5"
      model_uid = "assistant"
      n_ctx = 8192
    """
    models = read_models(file)
    if dry_run:
        results = _plans(target, models, prunes=prune or prune_all, others=prune_all)
        _print(results, as_json, lambda each: f"{each['action']:<6}  {each['model_uid']}")
        return
    results = []
    with target.connect(start=True) as client:
        if prune or prune_all:
            plans = [_plan(target, launch, shown=_is_refusal) for launch in models.launches]
            if refused := [each for each in plans if each["problem"] and each["problem"]["code"] not in _TOLERATED]:
                note("Nothing was changed.")
                _print(refused, as_json, lambda each: None)
            stale = _stale(models, plans, _stored(client), others=prune_all)
            if stale and not _may_end(stale, models, yes):
                return
            results += [_end(client, uid) for uid in stale]
        results += [_launch(client, launch, no_wait) for launch in models.launches]
    _print(results, as_json, lambda each: None if each["action"] == "end" else each["model_uid"])


def _print(results: list[Json], as_json: bool, line: Callable[[Json], str | None]) -> None:
    """Print the results; the command fails if one of them is a problem."""
    if as_json:
        print_json(results)
    else:
        for each in results:
            if each["problem"] is None and (text := line(each)) is not None:
                click.echo(text)
    if any(each["problem"] is not None for each in results):
        raise SystemExit(1)


def _result(uid: str, action: str, problem: Problem | None = None, *, is_shown: bool = True) -> Json:
    """The result for one model; its problem is printed if `is_shown`."""
    if problem is not None and is_shown:
        show_problem(problem.replace(cause=f"{uid}: {problem.cause}"))
    return {"model_uid": uid, "action": action, "problem": None if problem is None else problem.to_dict()}


def _launch(client: Client, launch: Json, no_wait: bool) -> Json:
    """Launch one model; the problem of a launch does not stop the others."""
    uid = _uid(launch)
    try:
        begun = begin(client, launch)
        if begun.get("found") == "running":
            uid = str(begun["model_uid"])
            note(f"{uid} runs already.")
            return _result(uid, "keep")
        uid = note_found(begun)
        if not no_wait:
            follow_begun(client, begun)
    except Problem as problem:
        return _result(uid, "launch", _with_way_out(problem, uid))
    return _result(uid, "launch")


def _uid(launch: Json) -> str:
    return str(launch.get("model_uid") or launch["model_name"])


def _with_way_out(problem: Problem, uid: str) -> Problem:
    if problem.code != Code.MODEL_UID_TAKEN:
        return problem
    return problem.replace(hint=f"`xinference terminate {uid}`, and apply the file again.")


# -- models that the file does not name any more ---------------------------------------------------------------


def _end(client: Client, uid: str) -> Json:
    try:
        client.terminate_model(uid)
    except Problem as problem:
        return _result(uid, "end", problem)
    note(f"Ended {uid}.")
    return _result(uid, "end")


def _may_end(uids: list[str], models: AppliedModels, yes: bool) -> bool:
    note(f"Not in {models.file.name} any more, to be ended: {', '.join(uids)}.")
    if yes or click.confirm("Do you want to end them?", err=True):
        return True
    note("Nothing was changed.")
    return False


def _stale(models: AppliedModels, plans: list[Json], launches: list[Json], *, others: bool) -> list[str]:
    """The models to end; `plans` has the result of `_plan` for each model of the file."""
    named = [
        NamedModel(launch["model_name"], launch.get("model_uid") or (None if plan["problem"] else plan["model_uid"]))
        for launch, plan in zip(models.launches, plans, strict=True)
    ]
    return stale_uids(launches, models.name, named, others=others)


def _stored(client: Client) -> list[Json]:
    """The stored launches of the server."""
    return [each["launch"] for each in client.get_autostart_config()["models"]]


def _plans(target: Target, models: AppliedModels, *, prunes: bool, others: bool) -> list[Json]:
    """What the command would do, of the running server or, without one, of this process."""
    with contextlib.ExitStack() as opened:
        client = opened.enter_context(target.connect()) if target.answers else None
        results = [_plan(target, launch) for launch in models.launches]
        if not prunes:
            return results
        if client is None:
            from xinference.local_commands.stored_requests import stored_launches

            launches = stored_launches(target.settings)
        else:
            launches = _stored(client)
    return [*(_result(uid, "end") for uid in _stale(models, results, launches, others=others)), *results]


def _is_refusal(problem: Problem) -> bool:
    """Whether a launch of the file stays refused once other models are ended."""
    return problem.code not in _TOLERATED


def _plan(target: Target, launch: Json, shown: Callable[[Problem], bool] = lambda problem: True) -> Json:
    """What a launch would do; its problem is printed if it is one of those `shown`."""
    uid = _uid(launch)
    try:
        plan = plan_of(target, launch)
    except Problem as problem:
        return _result(uid, "launch", _with_way_out(problem, uid), is_shown=shown(problem))
    action = "keep" if plan.get("found") in ("running", "launching", "stored") else "launch"
    return _result(str(plan["model_uid"]), action)


# -- the file ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AppliedModels:
    """The models of a file."""

    file: Path
    name: str
    """The set that they belong to: the `name` in the file, or else the host and the path of the file."""
    launches: list[Json]


def read_models(file: Path) -> AppliedModels:
    """The models of a file; relative paths of weights are below its folder.

    Raises:
        Problem: 400, the file cannot be read, or has another form.
    """
    document = _read(file)
    models, name = document.get("models"), document.get("name")
    if document.keys() - {"models", "name"} or not isinstance(models, list) or not models:
        raise bad_request(f"{file} is not a list of models.", hint=_EXAMPLE)
    if name is not None and (not isinstance(name, str) or not 0 < len(name) <= MAX_NAME):
        raise bad_request(f"The name in {file} is not a text of 1 to {MAX_NAME} characters.", hint=_NAME_HINT)
    launches = [_checked(file, number, each) for number, each in enumerate(models, 1)]
    uids = [_uid(each) for each in launches]
    if twice := sorted({uid for uid in uids if uids.count(uid) > 1}):
        raise bad_request(f"{file} has {twice[0]} more than once.", hint="Give each model its own model_uid.")
    name = name or f"{socket.gethostname()}:{file.resolve()}"
    return AppliedModels(file, name, [{**each, "applied_from": name} for each in launches])


def _read(file: Path) -> Json:
    text = as_text(read_named(file, hint=_EXAMPLE), file, hint=_EXAMPLE)
    try:
        document = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        form = "JSON" if file.suffix == ".json" else "TOML"
        raise bad_request(f"{file} is not {form}: {str(error).rstrip('.')}.", hint=_EXAMPLE) from None
    return document if isinstance(document, dict) else {}


def _checked(file: Path, number: int, launch: Any) -> Json:
    name = launch.get("model_name") if isinstance(launch, dict) else None
    if not isinstance(name, str) or not name:
        raise bad_request(f"Model {number} of {file} has no model_name.", hint=_EXAMPLE)
    if not_allowed := sorted(launch.keys() & {"new", "wait_ready", "applied_from"}):
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
