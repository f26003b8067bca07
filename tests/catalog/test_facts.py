"""The registry has every version of the fact files on every hub, except for the documented differences."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from xinference.catalog.fact_conversion import convert
from xinference.catalog.fact_differences import Difference, all_differences, table, table_of_bytes
from xinference.catalog.fact_files import FamilyFacts, read_facts
from xinference.catalog.facts import families_of, main, own_families, written
from xinference.catalog.known_projectors import corrected_sizes
from xinference.catalog.models import HubName, ModelFamily, ModelVersion
from xinference.catalog.registry import builtin_families
from xinference.errors import Problem
from xinference.hubs.selection import wanted_names
from xinference.launch.match import match
from xinference.launch.plan import LaunchDraft, ResolvedLaunch
from xinference.launch.plan_entry import plan_entry
from xinference.launch.request import LaunchRequest

ROOT = Path(__file__).parents[2]
FACTS = ROOT / "catalog"
BUILTIN = ROOT / "src" / "xinference" / "catalog" / "builtin"
Json = dict[str, Any]
REQUEST = LaunchRequest(model_name="")
FILES = ("llm.json", "embedding.json", "rerank.json")


@cache
def found_differences() -> list[Difference]:
    return all_differences(read_facts(FACTS), builtin_families())


def entries() -> Iterator[tuple[Json, Json, HubName, Json, str]]:
    """Every (family, spec, hub, facts of the hub, quantization), read without the importer."""
    for name in FILES:
        for family in json.loads((FACTS / name).read_text()):
            for spec in family["specs"]:
                for hub, facts in spec["hubs"].items():
                    for quantization in facts["quantizations"]:
                        yield family, spec, hub, facts, quantization


def expected(facts: Json, quantization: str) -> tuple[str, str | None, list[str]]:
    names: list[str] = []
    if quantization in facts.get("parts", {}):
        parts = facts["parts"][quantization]
        names = [facts["split_file"].replace("{quantization}", quantization).replace("{part}", part) for part in parts]
    elif "file" in facts:
        names = [facts["file"].replace("{quantization}", quantization)]
    return facts["id"].replace("{quantization}", quantization), facts.get("revision"), names


def version_of(family: Json, spec: Json, hub: HubName, quantization: str) -> ModelVersion | None:
    try:
        return match(
            builtin_families(),
            LaunchRequest(
                model_name=family["name"],
                model_size_in_billions=spec.get("size_in_billions"),
                model_format=spec["format"],
                quantization=quantization,
                download_hub=hub,
            ),
        )
    except Problem:
        return None


@pytest.mark.thorough
def test_every_version_on_every_hub_is_that_of_the_facts_or_is_a_documented_difference() -> None:
    documented = {each.key for each in found_differences()}
    different: set[tuple[str, str, str, str, str]] = set()
    other_bytes: set[tuple[str, str, int]] = set()
    count = 0
    for family, spec, hub, facts, quantization in entries():
        count += 1
        size = str(spec.get("size_in_billions", 0))
        key = (family["name"], spec["format"], size, quantization, hub)
        version = version_of(family, spec, hub, quantization)
        source = None if version is None else version.spec.source(hub)
        if version is None or source is None:
            different.add(key)
            continue
        names = wanted_names(version, source) or ()
        has = (source.model_id, source.revision, list(names))
        planned = plan_entry(ResolvedLaunch(LaunchDraft("", REQUEST, version, "", False, 1), source), None)
        files = [file["name"] for file in planned["files"]]
        weights, projectors = files[: len(names)], files[len(names) :]
        assert (planned["hub"], planned["model_id"], planned["revision"], weights) == (hub, *has)
        assert len(projectors) <= 1 and set(projectors) <= set(source.projectors)
        if has != expected(facts, quantization):
            different.add(key)
        metadata = spec.get("metadata_by_quantization", {}).get(quantization) or spec.get("metadata") or {}
        if "weights_bytes" in metadata and key not in documented:
            assert version.spec.weights_bytes[version.quantization] == metadata["weights_bytes"]
            if not projectors and (more := metadata["weights_bytes"] - planned["files_bytes"]):
                other_bytes.add((family["name"], size, more))
    unlisted = {key for key in different if key not in documented}
    listed_as_none = {
        (family["name"], spec["format"], str(spec["size_in_billions"]), quantization, hub)
        for family, spec, hub, facts, quantization in entries()
        if spec["format"] == "ggufv2" and quantization == "none" and "file" not in facts
    }
    assert unlisted <= listed_as_none
    assert other_bytes <= set(corrected_sizes())
    assert count > 5700


def test_the_documentation_has_the_table_of_differences() -> None:
    assert all(each.reason for each in found_differences())
    page = (ROOT / "docs" / "catalog.md").read_text()
    assert table(found_differences()) in page
    assert table_of_bytes() in page


def test_the_registry_is_what_the_facts_give(tmp_path: Path) -> None:
    main(FACTS, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        path.name: path.read_text() for path in BUILTIN.iterdir()
    }


def test_the_projects_own_versions_are_kept() -> None:
    families = families_of(FACTS)
    for name, own in own_families(FACTS).items():
        for spec in own.model_specs:
            for quantization in spec.quantizations:
                found = match(
                    families,
                    LaunchRequest(
                        model_name=name,
                        model_size_in_billions=spec.model_size_in_billions,
                        model_format=spec.model_format,
                        quantization=quantization,
                    ),
                )
                for source in spec.sources:
                    if source.has(quantization):
                        kept = found.spec.source(source.hub)
                        assert kept is not None
                        assert (kept.model_id, kept.revision) == (source.model_id, source.revision)
                        assert kept.file_name(quantization) == source.file_name(quantization)
                        assert kept.facts.get(quantization) == source.facts.get(quantization)
    assert families["llama-2-chat"] == own_families(FACTS)["llama-2-chat"]


# -- the conversion -----------------------------------------------------------------------------------------------

GGUF: Json = {
    "format": "ggufv2",
    "size_in_billions": 2,
    "activated_in_billions": "0_5",
    "hubs": {
        "huggingface": {
            "id": "me/Some-GGUF",
            "quantizations": ["Q4_0", "Q8_0"],
            "revision": "abc",
            "file": "some-{quantization}.gguf",
            "split_file": "{quantization}/some-{part}.gguf",
            "parts": {"Q8_0": ["1-of-2", "2-of-2"]},
            "projectors": "mmproj.gguf",
            "draft_id": "me/Draft",
            "draft_file": "draft-{draft_quantization}.gguf",
            "draft_quantizations": ["Q8_0"],
        }
    },
}
METADATA = {
    "vocab_size": 1000,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
}


def converted(*specs: Json, own: ModelFamily | None = None, **fields: Any) -> ModelFamily:
    facts = {"name": "some", "context_length": 4096, "languages": ["en"], "abilities": ["chat"], "specs": specs}
    return convert(msgspec.convert(facts | fields, FamilyFacts), "LLM", own)


def spec_of(
    model_format: str, model_id: str, *quantizations: str, size: int | str = 2, hub: str = "huggingface"
) -> Json:
    return {
        "format": model_format,
        "size_in_billions": size,
        "hubs": {hub: {"id": model_id, "quantizations": quantizations}},
    }


def test_files_parts_projectors_and_drafts_are_taken() -> None:
    spec = converted(GGUF).model_specs[0]
    source = spec.sources[0]
    assert (source.model_id, source.revision, source.file) == ("me/Some-GGUF", "abc", "some-{quantization}.gguf")
    assert source.parts == {"Q8_0": ("Q8_0/some-1-of-2.gguf", "Q8_0/some-2-of-2.gguf")}
    assert source.projectors == ("mmproj.gguf",)
    assert source.draft is not None and source.draft.file == "draft-{quantization}.gguf"
    assert source.draft.quantizations == ("Q8_0",)
    assert spec.activated_size_in_billions == "0_5"


def test_an_id_with_a_quantization_is_a_repository_for_each() -> None:
    specs = converted(spec_of("awq", "me/Some-{quantization}", "Int4", "Int8")).model_specs
    assert [(each.quantizations, each.sources[0].model_id) for each in specs] == [
        (("Int4",), "me/Some-Int4"),
        (("Int8",), "me/Some-Int8"),
    ]


def test_the_first_of_two_equal_versions_stays_and_another_hub_is_added() -> None:
    specs = converted(
        spec_of("pytorch", "me/First", "none"),
        spec_of("pytorch", "me/Second", "none"),
        spec_of("pytorch", "me/Third", "none", hub="modelscope"),
    ).model_specs
    assert [[(s.hub, s.model_id) for s in each.sources] for each in specs] == [
        [("huggingface", "me/First"), ("modelscope", "me/Third")]
    ]


def test_packed_weights_get_their_own_format() -> None:
    specs = converted(
        spec_of("pytorch", "me/Some", "none"),
        spec_of("pytorch", "me/Some-bnb-4bit", "none"),
        spec_of("pytorch", "me/Some-FP8", "fp8"),
    ).model_specs
    assert [(each.model_format, each.quantizations) for each in specs] == [
        ("pytorch", ("none",)),
        ("bnb", ("4-bit",)),
        ("fp8", ("fp8",)),
    ]


def test_a_dense_shape_has_the_computed_parameters() -> None:
    spec = spec_of("pytorch", "me/Some", "none", size="0_009") | {"metadata": METADATA}
    shape = converted(spec).model_specs[0].shape
    assert shape is not None
    layer = 2 * 512 * 64 * (8 + 2) + 3 * 512 * 1024 + 2 * 512
    assert shape.parameters == 1000 * 512 + 4 * layer + 512
    assert (shape.layers, shape.heads, shape.kv_heads, shape.head_dim, shape.tied) == (4, 8, 2, 64, True)


@pytest.mark.parametrize(
    ("metadata", "field", "value"),
    [
        ({"num_experts": 64, "num_experts_per_tok": 4}, "experts", 64),
        ({"full_attention_interval": 4}, "full_attention_interval", 4),
        ({"architecture_type": "mla"}, "latent_dim", 576),
        ({"architecture_type": "moe"}, "parameters", 2_000_000_000),
        ({"weights_bytes": 1000}, "parameters", 500),
    ],
)
def test_a_shape_has_its_kind_of_attention_and_experts(metadata: Json, field: str, value: int) -> None:
    spec = spec_of("pytorch", "me/Some", "none") | {"metadata": METADATA | metadata}
    assert getattr(converted(spec).model_specs[0].shape, field) == value


def test_an_entry_of_the_project_is_kept_and_completed() -> None:
    own = converted(spec_of("pytorch", "ours/Some", "none"), abilities=["chat", "tools"])
    both = converted(
        spec_of("pytorch", "theirs/Some", "none"),
        spec_of("pytorch", "theirs/Some", "none", hub="modelscope"),
        spec_of("awq", "theirs/Some-AWQ", "Int4"),
        own=own,
    )
    assert both.model_ability == ("chat", "tools")
    assert [[(s.hub, s.model_id) for s in each.sources] for each in both.model_specs] == [
        [("huggingface", "ours/Some"), ("modelscope", "theirs/Some")],
        [("huggingface", "theirs/Some-AWQ")],
    ]


def test_a_written_family_is_read_back() -> None:
    family = converted(GGUF)
    assert msgspec.json.decode(written(family), type=ModelFamily) == family
    assert "null" not in written(family)


@pytest.mark.parametrize("fault", [{"nmae": "x"}, {"specs": [{}]}, {"name": 1}])
def test_facts_of_another_form_are_refused(fault: Json, tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).write_text("[]")
    (tmp_path / "llm.json").write_text(json.dumps([{"name": "a", "specs": []} | fault]))
    with pytest.raises(msgspec.ValidationError):
        read_facts(tmp_path)
