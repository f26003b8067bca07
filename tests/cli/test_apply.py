"""`xinference apply`: the models of a file."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from tests.cli.canned import Answer, Canned, problem
from tests.cli.conftest import Run
from tests.support.ports import free_port
from xinference.cli.applied_set import NamedModel, stale_uids
from xinference.cli.commands.apply import read_models
from xinference.cli.main import cli
from xinference.errors import Problem
from xinference.launch.request import LaunchRequest
from xinference.store.database import Store

TWO = """
[[models]]
model_name = "smollm2-instruct"
model_size_in_billions = "0.135"
model_uid = "small"
n_ctx = 2048

[[models]]
model_name = "bge-m3"
model_type = "embedding"
replica = 2
"""


def written(folder: Path, text: str, name: str = "models.toml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_each_model_of_the_file_is_launched_with_its_fields(canned: Canned, run: Run, tmp_path: Path) -> None:
    canned.answers["POST", "/v1/models"] = Answer({"model_uid": "m", "found": None})
    result = run("apply", str(written(tmp_path, TWO)), "--no-wait")
    assert (result.exit_code, result.stdout) == (0, "m\nm\n")
    first, second = (asked.body for asked in canned.asked_for("POST", "/v1/models"))
    assert (first["model_uid"], first["model_size_in_billions"], first["n_ctx"]) == ("small", "0.135", 2048)
    assert (second["model_name"], second["model_type"], second["replica"]) == ("bge-m3", "embedding", 2)


def test_a_refused_launch_does_not_stop_the_others_and_the_command_fails(
    canned: Canned, run: Run, tmp_path: Path
) -> None:
    canned.answers["POST", "/v1/models"] = problem(400, "unknown_model", "There is no such size.")
    result = run("apply", str(written(tmp_path, TWO)), "--no-wait", "--json")
    assert result.exit_code == 1 and "Error: small: There is no such size." in result.stderr
    assert [each["model_uid"] for each in json.loads(result.stdout)] == ["small", "bge-m3"]
    assert len(canned.asked_for("POST", "/v1/models")) == 2


def test_a_model_that_runs_already_is_left_as_it_is(canned: Canned, run: Run, tmp_path: Path) -> None:
    canned.answers["POST", "/v1/models"] = Answer({"model_uid": "small", "found": "running"})
    file = written(tmp_path, json.dumps({"models": [{"model_name": "smollm2-instruct"}]}), "models.json")
    result = run("apply", str(file))
    assert (result.exit_code, result.stdout) == (0, "small\n")
    assert result.stderr == "small runs already.\n"


def test_weights_are_found_from_the_folder_of_the_file(tmp_path: Path) -> None:
    text = '[[models]]\nmodel_name = "m"\nmodel_path = "weights/m.gguf"\n'
    assert read_models(written(tmp_path, text)).launches[0]["model_path"] == str(tmp_path / "weights" / "m.gguf")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("models = ", "is not TOML"),
        ("", "is not a list of models"),
        ('[[model]]\nmodel_name = "m"', "is not a list of models"),
        ("[[models]]\nn_ctx = 1", "Model 1 of .* has no model_name"),
        ('[[models]]\nmodel_name = "m"\n[[models]]\nmodel_name = "m"', "has m more than once"),
        ('[[models]]\nmodel_name = "m"\nttl = 2026-01-01', "m in .* has a value that JSON does not have"),
        ('[[models]]\nmodel_name = "m"\nttl = inf', "m in .* has a value that JSON does not have"),
        ('[[models]]\nmodel_name = "m"\nwait_ready = true', "has wait_ready, which has no meaning there"),
        ('[[models]]\nmodel_name = "m"\napplied_from = "x"', "has applied_from, which has no meaning there"),
        ('name = ""\n[[models]]\nmodel_name = "m"', "is not a text of 1 to 200 characters"),
        ('name = 1\n[[models]]\nmodel_name = "m"', "is not a text of 1 to 200 characters"),
    ],
)
def test_a_file_of_another_form_is_refused_with_the_reason(tmp_path: Path, text: str, cause: str) -> None:
    with pytest.raises(Problem, match=cause):
        read_models(written(tmp_path, text))


def test_a_file_that_is_no_text_or_has_no_end_is_refused(tmp_path: Path) -> None:
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"\xff")
    with pytest.raises(Problem, match=r"latin\.toml is not UTF-8 text"):
        read_models(latin)
    with pytest.raises(Problem, match="/dev/zero has more than"):
        read_models(Path("/dev/zero"))


def test_a_missing_file_is_named(run: Run, tmp_path: Path) -> None:
    result = run("apply", str(tmp_path / "no.toml"))
    assert result.exit_code == 1 and "no.toml can't be read: No such file or directory." in result.stderr


def test_a_model_that_runs_with_other_fields_is_named_with_the_way_out(
    canned: Canned, run: Run, tmp_path: Path
) -> None:
    canned.answers["POST", "/v1/models"] = problem(409, "model_uid_taken", "The model UID small is taken.", hint="x")
    result = run("apply", str(written(tmp_path, TWO)))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Hint: `xinference terminate small`, and apply the file again." in result.stderr


# -- models that the file does not name any more ---------------------------------------------------------------


def stored(*launches: dict[str, Any]) -> Answer:
    """The answer of a server with these stored launches."""
    return Answer({"models": [{"launch": {"model_name": each["model_uid"], **each}} for each in launches]})


@pytest.fixture
def site(canned: Canned, tmp_path: Path) -> Path:
    """The file of two models, and a server with one of them, one that the file has started, and two others."""
    file = written(tmp_path, f'name = "all"\n{TWO}')
    canned.answers["POST", "/v1/models"] = Answer({"model_uid": "bge-m3", "found": None})
    canned.answers["GET", "/v1/autostart/models"] = stored(
        {"model_uid": "small", "applied_from": "all"},
        {"model_uid": "old", "applied_from": "all"},
        {"model_uid": "by-hand"},
        {"model_uid": "of-another-file", "applied_from": "other"},
    )
    canned.answers["DELETE", "/v1/models/old"] = Answer(None)
    return file


def test_models_that_the_file_has_started_and_no_longer_names_are_ended_after_a_question(
    canned: Canned, run: Run, site: Path
) -> None:
    result = run("apply", str(site), "--prune", "--no-wait", stdin="y\n")
    assert result.exit_code == 0, result.stderr
    assert "Not in models.toml any more, to be ended: old.\n" in result.stderr and "Ended old." in result.stderr
    assert [asked.path for asked in canned.asked if asked.method == "DELETE"] == ["/v1/models/old"]
    assert result.stdout == "bge-m3\nbge-m3\n"


def test_nothing_is_changed_if_the_question_is_answered_by_no(canned: Canned, run: Run, site: Path) -> None:
    result = run("apply", str(site), "--prune", "--no-wait", stdin="n\n")
    assert result.exit_code == 0 and "Nothing was changed." in result.stderr
    asked = [(each.method, each.query) for each in canned.asked if each.method in ("DELETE", "POST")]
    assert asked == [("POST", "dry_run=true")] * 2


def test_without_an_answer_to_the_question_nothing_is_changed_and_the_command_fails(
    canned: Canned, run: Run, site: Path
) -> None:
    assert run("apply", str(site), "--prune", "--no-wait").exit_code != 0
    assert not [each for each in canned.asked if each.method == "DELETE"]


def test_models_that_were_started_in_another_way_are_ended_only_if_all_are_to_be(
    canned: Canned, run: Run, site: Path
) -> None:
    for uid in ("by-hand", "of-another-file"):
        canned.answers["DELETE", f"/v1/models/{uid}"] = Answer(None)
    result = run("apply", str(site), "--prune-all", "--yes", "--no-wait", "--json")
    assert result.exit_code == 0, result.stderr
    actions = [(each["model_uid"], each["action"]) for each in json.loads(result.stdout)]
    ended = [("old", "end"), ("by-hand", "end"), ("of-another-file", "end")]
    assert actions == [*ended, ("bge-m3", "launch"), ("bge-m3", "launch")]


def test_nothing_is_ended_if_a_launch_of_the_file_is_refused(canned: Canned, run: Run, site: Path) -> None:
    canned.answers["POST", "/v1/models"] = problem(400, "unknown_model", "There is no such size.")
    result = run("apply", str(site), "--prune", "--yes")
    assert result.exit_code == 1 and "Error: small: There is no such size." in result.stderr
    assert "Nothing was changed." in result.stderr
    assert not [each for each in canned.asked if each.method == "DELETE"]


def test_a_model_that_does_not_fit_yet_does_not_keep_the_others_from_being_ended(
    canned: Canned, run: Run, site: Path
) -> None:
    launched = Answer({"model_uid": "bge-m3", "found": None})
    canned.answers["POST", "/v1/models"] = [problem(400, "does_not_fit", "It needs 9 GiB."), launched]
    result = run("apply", str(site), "--prune", "--yes", "--no-wait")
    assert result.exit_code == 0 and "Ended old." in result.stderr
    assert "It needs 9 GiB." not in result.stderr


def test_a_dry_run_changes_nothing_and_shows_what_would_be_ended_and_launched(
    canned: Canned, run: Run, site: Path
) -> None:
    canned.answers["POST", "/v1/models"] = Answer({"model_uid": "bge-m3", "found": "running"})
    result = run("apply", str(site), "--prune", "--dry-run")
    assert (result.exit_code, result.stdout) == (0, "end     old\nkeep    bge-m3\nkeep    bge-m3\n")
    assert {each.query for each in canned.asked if each.method == "POST"} == {"dry_run=true"}
    assert not [each for each in canned.asked if each.method == "DELETE"]


def test_a_dry_run_without_a_server_reads_the_stored_launches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("xinference.local_commands.plan.plan_launch", lambda body, settings: {"model_uid": "small"})
    monkeypatch.setenv("XINFERENCE_ENDPOINT", "")
    monkeypatch.setenv("XINFERENCE_HOME", str(tmp_path))
    monkeypatch.setenv("XINFERENCE_PORT", str(free_port()))
    with closing(Store(tmp_path / "xinference.db")) as store:
        request = LaunchRequest(model_name="old", applied_from="all")
        store.add_deployment("old", msgspec.json.encode(request).decode())
    file = written(tmp_path, 'name = "all"\n[[models]]\nmodel_name = "small"\n')
    result = CliRunner().invoke(cli, ["apply", str(file), "--prune", "--dry-run"])
    assert (result.exit_code, result.stdout) == (0, "end     old\nlaunch  small\n")


def test_a_model_whose_launch_is_refused_now_is_not_ended() -> None:
    launches = [{"model_uid": "m-1", "model_name": "m", "applied_from": "all"}]
    assert stale_uids(launches, "all", [NamedModel("m", None)], others=True) == []
    assert stale_uids(launches, "all", [NamedModel("m", "m-2")], others=False) == ["m-1"]


def test_a_file_without_a_name_is_named_by_its_host_and_path(tmp_path: Path) -> None:
    models = read_models(written(tmp_path, TWO))
    assert models.name == f"{socket.gethostname()}:{tmp_path.resolve() / 'models.toml'}"
    assert {each["applied_from"] for each in models.launches} == {models.name}
