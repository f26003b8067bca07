from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from tests.support.cases import in_one_test
from xinference.catalog.check import ABILITIES
from xinference.catalog.models import number_of_billions
from xinference.catalog.registration_store import Registrations
from xinference.catalog.registry import FamilyFolder, builtin_families, read_family
from xinference.errors import Problem
from xinference.launch.match import match
from xinference.launch.request import LaunchRequest

Json = dict[str, Any]
SHA = "0" * 64
ENTRY: Json = {
    "model_name": "some-chat",
    "context_length": 4096,
    "model_lang": ["en"],
    "model_ability": ["chat"],
    "model_specs": [
        {
            "model_format": "ggufv2",
            "model_size_in_billions": "1_8",
            "quantizations": ["Q4_0", "Q8_0"],
            "sources": [
                {"hub": "huggingface", "model_id": "owner/Some-GGUF", "file": "some.{quantization}.gguf"},
            ],
        },
        {
            "model_format": "pytorch",
            "model_size_in_billions": 7,
            "quantizations": ["4-bit", "none"],
            "sources": [{"hub": "modelscope", "model_id": "owner/Some", "revision": "v1.0.2"}],
        },
    ],
}


def read(**changes: Any) -> Any:
    """Read the entry with values replaced at paths such as ``model_specs/0/quantizations``."""
    entry = copy.deepcopy(ENTRY)
    for path, value in changes.items():
        *way, last = path.split("/")
        node: Any = entry
        for step in way:
            node = node[int(step) if isinstance(node, list) else step]
        node[int(last) if isinstance(node, list) else last] = value
    return read_family(json.dumps(entry).encode(), "some.json")


def spec(**fields: Any) -> Json:
    return {f"model_specs/0/{name}": value for name, value in fields.items()}


def source(**fields: Any) -> Json:
    return {f"model_specs/0/sources/0/{name}": value for name, value in fields.items()}


WRONG: Mapping[str, tuple[Json, str]] = {
    "a name with a slash": ({"model_name": "a/b"}, "model_name 'a/b'"),
    "a name with a backslash": ({"model_name": "a\\b"}, "model_name"),
    "a name with a zero byte": ({"model_name": "a\x00b"}, "model_name"),
    "an empty name": ({"model_name": ""}, "model_name ''"),
    "no context": ({"context_length": 0}, "context_length 0"),
    "an unknown ability": ({"model_ability": ["chat", "fly"]}, "model_ability 'fly'"),
    "no ability": ({"model_ability": []}, "model_ability is empty"),
    "a negative stop token": ({"stop_token_ids": [-1]}, "stop_token_ids has -1"),
    "no spec": ({"model_specs": []}, "model_specs is empty"),
    "an unknown field": ({"model_nmae": "x"}, "model_nmae"),
    "an unknown model type": ({"model_type": "film"}, "film"),
    "an unknown format": (spec(model_format="gguf"), "gguf"),
    "a size in words": (spec(model_size_in_billions="seven"), r"model_specs\[1\]: model_size_in_billions 'seven'"),
    "a size of nothing": (spec(model_size_in_billions="0_0"), "model_size_in_billions '0_0'"),
    "a negative size": (spec(model_size_in_billions=-7), "model_size_in_billions -7"),
    "no quantization": (spec(quantizations=[]), "quantizations is empty"),
    "no source": (spec(sources=[]), "sources is empty"),
    "an empty quantization": (spec(quantizations=[""]), "quantizations has ''"),
    "a quantization with a slash": (spec(quantizations=["a/b"]), "quantizations has 'a/b'"),
    "a quantization with a backslash": (spec(quantizations=["a\\b"]), "quantizations has"),
    "a quantization that climbs": (spec(quantizations=["a..b"]), r"quantizations has 'a\.\.b'"),
    "a quantization with a line break": (spec(quantizations=["a\nb"]), "quantizations has"),
    "a quantization like an option": (spec(quantizations=["-f"]), "quantizations has '-f'"),
    "a quantization twice, in another case": (
        spec(quantizations=["Q4_0", "q4_0"]),
        "repeats ggufv2 1_8 q4_0 of an earlier spec",
    ),
    "a spec twice, its size written in another way": (
        {"model_specs/1": ENTRY["model_specs"][0] | {"model_size_in_billions": "1.8"}},
        r"model_specs\[2\]: quantizations repeats ggufv2 1\.8 Q4_0",
    ),
    "a hub twice": (spec(sources=[ENTRY["model_specs"][0]["sources"][0]] * 2), "hub 'huggingface' more than once"),
    "an unknown hub": (source(hub="gitlab"), "gitlab"),
    "an id of three parts": (source(model_id="a/b/c"), "source huggingface: model_id 'a/b/c'"),
    "an id that climbs": (source(model_id="../b"), "model_id"),
    "an id with a space": (source(model_id="a/b c"), "model_id 'a/b c'"),
    "an empty id": (source(model_id=""), "model_id ''"),
    "a modelscope id without owner": (source(hub="modelscope", model_id="b"), "source modelscope: model_id 'b'"),
    "a distribution with a slash": (source(hub="package_index", model_id="a/b"), "model_id 'a/b'"),
    "a revision like an option": (source(revision="--upload-pack=x"), "revision"),
    "a revision that climbs": (source(revision="a/../b"), "revision"),
    "an empty revision": (source(revision=""), "revision ''"),
    "a file outside of the folder": (source(file="../{quantization}.gguf"), "is outside the model's folder"),
    "an absolute file": (source(file="/tmp/{quantization}.gguf"), "is outside the model's folder"),
    "a file on another drive": (source(file="c:{quantization}.gguf"), "is outside the model's folder"),
    "a file with backslashes": (source(file="..\\{quantization}.gguf"), "is outside the model's folder"),
    "an empty file": (source(file=""), "file"),
    "a file with an unknown placeholder": (source(file="{quantization}{size}.gguf"), "only placeholder"),
    "a file with a control character": (source(file="{quantization}\n.gguf"), "only placeholder"),
    "no file for a format of files": (source(file=None), "file is missing"),
    "one file for two quantizations": (source(file="some.gguf"), "file 'some.gguf' has no placeholder {quantization}"),
    "a part outside of the folder": (source(parts={"Q4_0": ["a", "../b"]}), r"parts: the file name '\.\./b'"),
    "no parts": (source(parts={"Q4_0": []}), "parts of Q4_0 is empty"),
    "parts of an unknown quantization": (source(parts={"Q1": ["a"]}), "parts names quantization 'Q1'"),
    "a hub with an unknown quantization": (source(quantizations=["Q1"]), "quantizations names quantization 'Q1'"),
    "a hub with no quantization": (source(quantizations=[]), "quantizations is empty"),
    "facts of an unknown quantization": (source(facts={"Q1": {}}), "facts names quantization 'Q1'"),
    "a hash that is none": (source(facts={"Q4_0": {"sha256": "abc"}}), "facts of Q4_0: sha256 'abc'"),
    "a file of no bytes": (source(facts={"Q4_0": {"size": 0}}), "facts of Q4_0: size 0"),
    "a wheel's hash on another hub": (source(archive_sha256=SHA), "archive_sha256"),
}

RIGHT: Mapping[str, Json] = {
    "the entry itself": {},
    "a size with a point": spec(model_size_in_billions="0.5"),
    "a size as a whole number": spec(model_size_in_billions=70),
    "every ability": {"model_ability": list(ABILITIES)},
    "an old id without owner": source(model_id="gpt2"),
    "a fixed file for one quantization": source(file="some.gguf", quantizations=["Q4_0"]),
    "a file in a folder": source(file="{quantization}/some-{quantization}.gguf"),
    "parts in place of a file": source(file=None, parts={"Q4_0": ["a", "b"], "Q8_0": ["c"]}),
    "parts of one, a file for the other": source(parts={"Q4_0": ["some.gguf-split-a", "some.gguf-split-b"]}),
    "a package index with its hash": source(
        hub="package_index", model_id="some-model", revision="0.1.2", archive_sha256=SHA
    ),
    "no description, hub facts": source(facts={"Q4_0": {"size": 1, "sha256": SHA}}),
}


@in_one_test("fault", WRONG)
def test_an_entry_is_refused_with_its_file_field_and_value(fault: str) -> None:
    changes, words = WRONG[fault]
    with pytest.raises(Problem, match=words) as caught:
        read(**changes)
    assert (caught.value.code, caught.value.status) == ("bad_registry_entry", 400)
    assert caught.value.cause.startswith("some.json: ")


@in_one_test("form", RIGHT)
def test_an_entry_is_taken(form: str) -> None:
    read(**RIGHT[form])


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b'{"model_name": 1}'])
def test_what_is_no_entry_is_one_problem(text: bytes) -> None:
    with pytest.raises(Problem, match=r"some\.json: "):
        read_family(text, "some.json")


def test_there_are_families_for_every_model_type() -> None:
    types = [family.model_type for family in builtin_families().values()]
    assert len(types) >= 25
    assert set(types) == {"LLM", "embedding", "rerank"}


def test_every_built_in_version_has_a_size_so_that_its_memory_is_planned_before_a_download() -> None:
    without = [
        (name, spec.model_format)
        for name, family in builtin_families().items()
        for spec in family.model_specs
        if number_of_billions(spec.model_size_in_billions) == 0
    ]
    assert without == []


def test_every_built_in_file_is_a_family_of_that_name() -> None:
    folder = resources.files("xinference.catalog") / "builtin"
    assert {file.name for file in folder.iterdir()} == {f"{name}.json" for name in builtin_families()}
    assert all(name == family.model_name for name, family in builtin_families().items())


def test_the_readme_has_the_number_of_families() -> None:
    assert f"({len(builtin_families())} of them)" in (Path(__file__).parents[2] / "README.md").read_text()


def test_no_two_names_differ_only_in_their_case() -> None:
    assert len({name.lower() for name in builtin_families()}) == len(builtin_families())


def test_a_family_is_read_at_its_first_use_and_then_kept(tmp_path: Path) -> None:
    (tmp_path / "some-chat.json").write_text(json.dumps(ENTRY))
    (tmp_path / "other.json").write_text("no family")
    families = FamilyFolder(tmp_path)
    assert list(families) == ["other", "some-chat"] and "other" in families and len(families) == 2
    assert families["some-chat"] is families["some-chat"]
    with pytest.raises(Problem, match=r"other\.json: "):
        families["other"]
    with pytest.raises(KeyError):
        families["third"]


def test_a_file_of_another_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Some-Chat.json").write_text(json.dumps(ENTRY))
    with pytest.raises(Problem, match="is not the name of the file"):
        FamilyFolder(tmp_path)["Some-Chat"]


def test_a_registered_family_joins_the_built_in_ones_and_none_is_read_for_it(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("no family")
    registrations = Registrations(tmp_path / "home", FamilyFolder(tmp_path))
    registrations.load()
    fields = {name: value for name, value in ENTRY.items() if name != "model_specs"}
    spec = {"model_format": "pytorch", "model_size_in_billions": 7, "quantization": "none", "model_id": "a/b"}
    text = json.dumps({**fields, "model_name": "my-chat", "model_family": "other", "model_specs": [spec]})
    registrations.add("LLM", text, persist=False)
    assert list(registrations.families) == ["broken", "my-chat"] and len(registrations.families) == 2
    assert registrations.families["my-chat"].model_name == "my-chat"
    assert match(registrations.families, LaunchRequest(model_name="MY-chat")).family.model_name == "my-chat"


def test_every_built_in_family_is_described_and_names_numbered_splits_as_parts() -> None:
    for family in builtin_families().values():
        assert family.model_description.endswith(".") and "\n" not in family.model_description
        assert not any("-of-" in (source.file or "") for spec in family.model_specs for source in spec.sources)
