"""Chooses the projector of a launch, and finds its file."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.engines.plans import launch_of, plan_of
from xinference.catalog.models import ModelVersion, Source
from xinference.engines.base import FileChoice
from xinference.engines.llama_cpp.projector import NONE_OPTION, OPTION
from xinference.engines.registry import all_engines
from xinference.errors import Problem

ENGINES = all_engines()
VERSION: ModelVersion = plan_of().version


def hub(*projectors: str, file: str = "m.gguf") -> Source:
    return Source(hub="huggingface", model_id="a/b", file=file, projectors=projectors)


def choose(source: Source | None, *, engine: str = "llama.cpp", **options: object) -> FileChoice:
    native = {OPTION if name == "mmproj" else name: value for name, value in options.items()}
    return ENGINES[engine].choose_files(source, VERSION, native)


def test_the_only_projector_beside_the_weights_is_used() -> None:
    choice = choose(hub("mmproj.gguf"), n_ctx=512)
    assert choice.options == {"n_ctx": 512, OPTION: "mmproj.gguf"}
    assert choice.source == hub("mmproj.gguf")


def test_of_several_none_is_used_or_fetched_unless_one_is_named() -> None:
    several = hub("mmproj-f16.gguf", "mmproj-f32.gguf")
    choice = choose(several)
    assert (choice.options, choice.source) == ({}, hub())
    assert "mmproj-f16.gguf, mmproj-f32.gguf" in choice.reasons[0]
    assert choose(several, mmproj="mmproj-f32.gguf").source == hub("mmproj-f32.gguf")


def test_a_file_of_ones_own_takes_the_place_of_what_lies_beside() -> None:
    choice = choose(hub("mmproj.gguf"), mmproj="/mine.gguf")
    assert (choice.options[OPTION], choice.source) == ("/mine.gguf", hub())


def test_a_launch_can_do_without() -> None:
    choice = choose(hub("mmproj.gguf"), no_mmproj=True)
    assert (choice.options, choice.source) == ({NONE_OPTION: True}, hub())


def test_a_name_that_the_repository_has_not_is_refused_with_those_it_has() -> None:
    with pytest.raises(Problem, match="no projector") as caught:
        choose(hub("mmproj.gguf"), mmproj="other.gguf")
    assert (caught.value.code, caught.value.status) == ("projector_not_found", 400)
    assert "mmproj.gguf" in (caught.value.hint or "")


def test_beside_weights_that_are_given_by_path_any_file_can_be_named() -> None:
    assert choose(None, mmproj="x.gguf").options == {OPTION: "x.gguf"}


def test_other_engines_have_no_projector_of_ours() -> None:
    assert choose(hub("mmproj.gguf"), engine="vLLM") == FileChoice(hub("mmproj.gguf"), {})
    plan = plan_of(options={OPTION: "/mine.gguf"})
    assert ENGINES["vLLM"].extra_weight_files(plan.launch, Path("/r/m")) == ()
    assert ENGINES["vLLM"].abilities(plan) == plan.version.family.model_ability


@pytest.mark.parametrize(
    ("file", "named", "expected"),
    [
        ("m.gguf", "mmproj.gguf", "/r/mmproj.gguf"),
        ("Q8_0/m.gguf", "mmproj.gguf", "/r/mmproj.gguf"),
        ("Q8_0/m.gguf", "/mine.gguf", "/mine.gguf"),
        ("m.gguf", "", None),
    ],
)
def test_a_projectors_name_is_read_from_the_repositorys_own_folder(file: str, named: str, expected: str | None) -> None:
    launch = launch_of(options={OPTION: named}, engine="llama.cpp", origin=hub(file=file))
    files = ENGINES["llama.cpp"].extra_weight_files(launch, Path("/r") / file)
    assert [str(extra.path) for extra in files] == ([expected] if expected else [])
    assert all((extra.kind, extra.architecture) == ("projector", "clip") for extra in files)


def test_a_model_has_vision_only_with_a_projector() -> None:
    seeing = plan_of(options={OPTION: "mmproj.gguf"})
    assert "vision" in ENGINES["llama.cpp"].abilities(seeing)
    version = msgspec.structs.replace(
        VERSION, family=msgspec.structs.replace(VERSION.family, model_ability=("vision",))
    )
    assert ENGINES["llama.cpp"].abilities(launch_of(version=version)) == ()
