from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.cli.conftest import Run
from xinference.cli.main import cli
from xinference.formats.gguf import read_header

GGML = Path(__file__).parents[1] / "assets" / "tiny-llama2-chat-ggmlv3" / "tiny-llama2-chat.ggmlv3.q4_0.bin"


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args], prog_name="xinference")


def test_an_inspection_needs_no_server_and_tells_each_engine() -> None:
    result = run("inspect", GGML)
    assert result.exit_code == 0 and not result.stderr
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert {"Quantization: q4_0", "Layers: 2", "llama.cpp: yes"} <= set(lines)
    assert any(line.startswith("vLLM: no: ") for line in lines)


def test_an_inspection_as_json_has_the_whole_template(tmp_path: Path) -> None:
    run("convert", GGML, tmp_path / "m.gguf", "-n", "llama-2-chat", "-s", "7")
    found = json.loads(run("inspect", tmp_path / "m.gguf", "--json").stdout)
    assert found["chat_template"].endswith("{% endfor %}") and found["context_length"] == 4096
    text = run("inspect", tmp_path / "m.gguf").stdout
    assert "Template:" in text and "for 4096 tokens" in text


def test_what_cannot_be_inspected_exits_with_1(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"<html>")
    result = run("inspect", tmp_path / "m.gguf")
    assert result.exit_code == 1 and "HTML" in result.stderr


def test_a_conversion_prints_its_result_and_says_what_was_added(tmp_path: Path) -> None:
    result = run("convert", GGML, tmp_path / "m.gguf", "--model-name", "llama-2-chat", "--size-in-billions", "7")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'm.gguf'}\n")
    assert "RMS epsilon 1e-05, with a chat template" in result.stderr
    assert read_header(tmp_path / "m.gguf").quantization == "Q4_0"


def test_facts_may_be_given_instead_of_a_model(tmp_path: Path) -> None:
    result = run("convert", GGML, tmp_path / "m.gguf", "--rms-norm-eps", "1e-6", "--context-length", "2048")
    assert result.exit_code == 0, result.stderr
    header = read_header(tmp_path / "m.gguf")
    assert header.context_length == 2048 and header.chat_template is None
    assert header.metadata["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--context-length"),
        (["--rms-norm-eps", "1e-5"], "--context-length"),
        (["-n", "llama-2-chat"], "7, 13, 70"),
        (["-n", "llama-2-cat"], "llama-2-chat"),
        (["-n", "smollm2-instruct"], "ggufv2"),
    ],
)
def test_a_conversion_without_its_facts_names_what_is_needed(tmp_path: Path, flags: list[str], said: str) -> None:
    result = run("convert", GGML, tmp_path / "m.gguf", *flags)
    assert result.exit_code == 1 and said in result.stderr
    assert not (tmp_path / "m.gguf").exists()


def test_an_existing_file_is_replaced_only_when_told_to(tmp_path: Path) -> None:
    (target := tmp_path / "m.gguf").write_text("mine")
    flags = ("-n", "llama-2-chat", "-s", "7")
    result = run("convert", GGML, target, *flags)
    assert result.exit_code == 1 and "--force" in result.stderr
    assert target.read_text() == "mine"
    assert run("convert", GGML, target, *flags, "--force").exit_code == 0
    assert read_header(target).architecture == "llama"


def test_the_hint_of_a_conversion_names_no_option_that_it_lacks(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.gguf").write_bytes(b"GGUF" + bytes(40))
    result = run("convert", str(tmp_path / "in.gguf"), str(tmp_path / "out.gguf"))
    assert result.exit_code == 1
    assert "--model-format" not in result.stderr and "xinference launch" in result.stderr


def test_a_missing_file_is_said_to_be_missing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    missing = tmp_path / "modle.gguf"
    for arguments in (["inspect", str(missing)], ["convert", str(missing), str(tmp_path / "out.gguf")]):
        result = run(*arguments)
        assert result.exit_code == 1 and f"{missing} does not exist." in result.stderr
        assert "Did you mean model.gguf" in result.stderr


@pytest.mark.parametrize(("command", "names_repositories"), [("inspect", True), ("convert", False)])
def test_the_hint_for_a_missing_file_names_repositories_where_they_are_accepted(
    run: Run, tmp_path: Path, command: str, names_repositories: bool
) -> None:
    result = run(command, str(tmp_path / "x.gguf"), *([] if names_repositories else [str(tmp_path / "out.gguf")]))
    assert ("owner/name" in result.stderr) is names_repositories


def test_a_folder_is_converted_by_the_name_of_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "my model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    result = run("convert", str(folder), str(tmp_path / "out.gguf"))
    assert result.exit_code == 1
    assert f"{folder} is a folder." in result.stderr and f"xinference launch '{folder}'" in result.stderr
    (folder / "model.bin").write_bytes(Path(GGML).read_bytes())
    result = run("convert", str(folder), str(tmp_path / "out.gguf"))
    assert f"Hint: Name the ggmlv3 file in it: {folder / 'model.bin'}." in result.stderr
