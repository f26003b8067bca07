"""`xinference apply`: the models of a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.canned import Answer, Canned, problem
from tests.cli.conftest import Run
from xinference.cli.commands.apply import read_launches
from xinference.errors import Problem

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
    assert read_launches(written(tmp_path, text))[0]["model_path"] == str(tmp_path / "weights" / "m.gguf")


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
    ],
)
def test_a_file_of_another_form_is_refused_with_the_reason(tmp_path: Path, text: str, cause: str) -> None:
    with pytest.raises(Problem, match=cause):
        read_launches(written(tmp_path, text))


def test_a_file_that_is_no_text_or_has_no_end_is_refused(tmp_path: Path) -> None:
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"\xff")
    with pytest.raises(Problem, match=r"latin\.toml is not UTF-8 text"):
        read_launches(latin)
    with pytest.raises(Problem, match="/dev/zero has more than"):
        read_launches(Path("/dev/zero"))


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
