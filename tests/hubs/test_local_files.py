from __future__ import annotations

from pathlib import Path

import pytest

from tests.formats.gguf_writer import Gguf
from xinference.errors import Problem
from xinference.hubs.local_files import missing_parts, resolve_local


def refused(path: Path, model_format: str, quantization: str | None = None) -> Problem:
    with pytest.raises(Problem) as caught:
        resolve_local(str(path), model_format, quantization)
    assert caught.value.status == 400
    assert caught.value.hint
    assert str(path) in caught.value.cause
    return caught.value


def ggufs(folder: Path, *names: str) -> None:
    for name in names:
        Gguf().write(folder / name)


def test_a_gguf_file_is_taken_as_it_is(tmp_path: Path) -> None:
    ggufs(tmp_path, "m.gguf")
    assert resolve_local(str(tmp_path / "m.gguf"), "ggufv2", None) == tmp_path / "m.gguf"


def test_the_only_gguf_of_a_folder_is_taken(tmp_path: Path) -> None:
    ggufs(tmp_path, "m.Q8_0.gguf", "mmproj-f16.gguf")
    (tmp_path / "README.md").write_text("")
    assert resolve_local(str(tmp_path), "ggufv2", "Q4_0").name == "m.Q8_0.gguf"


def test_the_quantization_decides_among_several(tmp_path: Path) -> None:
    ggufs(tmp_path, "m.Q4_K_M.gguf", "m.q4_k.gguf", "m.Q8_0.gguf")
    assert resolve_local(str(tmp_path), "ggufv2", "Q4_K").name == "m.q4_k.gguf"
    assert resolve_local(str(tmp_path), "ggufv2", "Q4_K_M").name == "m.Q4_K_M.gguf"


@pytest.mark.parametrize("quantization", [None, "Q5_0"])
def test_several_candidates_are_listed(tmp_path: Path, quantization: str | None) -> None:
    ggufs(tmp_path, "a.gguf", "b.gguf")
    problem = refused(tmp_path, "ggufv2", quantization)
    assert problem.code == "model_path_ambiguous"
    assert "a.gguf, b.gguf" in problem.cause


def test_a_split_model_is_its_first_part(tmp_path: Path) -> None:
    ggufs(tmp_path, "m-00001-of-00002.gguf", "m-00002-of-00002.gguf")
    first = tmp_path / "m-00001-of-00002.gguf"
    assert resolve_local(str(tmp_path), "ggufv2", None) == first
    assert resolve_local(str(tmp_path / "m-00002-of-00002.gguf"), "ggufv2", None) == first


def test_missing_parts_are_listed(tmp_path: Path) -> None:
    ggufs(tmp_path, "m-00001-of-00003.gguf")
    assert "m-00002-of-00003.gguf, m-00003-of-00003.gguf" in refused(tmp_path, "ggufv2").cause


@pytest.mark.parametrize(("claimed", "missing"), [("00999", 998), ("01000", 0), ("99999", 0)])
def test_a_name_that_claims_a_thousand_parts_is_no_parts_name(claimed: str, missing: int) -> None:
    """Each of the claimed parts costs time, and a repository may have a thousand such names."""
    assert len(missing_parts([f"m-00001-of-{claimed}.gguf"])) == missing


def test_missing_parts_in_a_subfolder_have_its_name() -> None:
    assert missing_parts(["q8/m-00002-of-00002.gguf", "README.md"]) == ("q8/m-00001-of-00002.gguf",)


def test_a_damaged_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF\x03\0\0\0")
    assert refused(tmp_path, "ggufv2").code == "bad_weight_file"


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    problem = refused(tmp_path / "none", "ggufv2")
    assert problem.code == "model_path_not_found"
    assert problem.cause.startswith("`--model-path`: ")


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    problem = refused(tmp_path, "ggufv2")
    assert "no weights" in problem.cause and ".gguf" in str(problem.hint)


def test_tilde_and_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ggufs(tmp_path, "m.gguf")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert resolve_local("~/m.gguf", "ggufv2", None) == tmp_path / "m.gguf"
    assert resolve_local("m.gguf", "ggufv2", None) == tmp_path / "m.gguf"


def test_a_transformers_folder_needs_a_config_and_weights(tmp_path: Path) -> None:
    assert "config.json" in str(refused(tmp_path, "pytorch").hint)
    (tmp_path / "config.json").write_text("{}")
    assert "no weights" in refused(tmp_path, "pytorch").cause
    (tmp_path / "config.json").rename(tmp_path / "config.txt")
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert "has no config.json" in refused(tmp_path, "pytorch").cause
    (tmp_path / "config.txt").rename(tmp_path / "config.json")
    assert resolve_local(str(tmp_path), "pytorch", None) == tmp_path


def test_a_file_is_no_transformers_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert "needs a folder" in refused(tmp_path / "config.json", "gptq").cause


def test_an_older_ggml_file_is_told_by_its_magic(tmp_path: Path) -> None:
    good = tmp_path / "m.ggmlv3.q4_0.bin"
    good.write_bytes(b"tjgg\x03\0\0\0")
    assert resolve_local(str(tmp_path), "ggmlv3", "q4_0") == good
    good.write_bytes(b"GGUF\x03\0\0\0")
    assert "ggufv2" in str(refused(good, "ggmlv3"))
    good.write_bytes(b"")
    assert "empty" in refused(good, "ggmlv3").cause
