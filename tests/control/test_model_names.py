"""The names that a launch may take."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.formats.lora_writer import write_lora
from tests.routing.routes import route
from tests.support.cases import in_one_test
from xinference.control.model_names import MAX_ALIASES, PATH_NAMES, check_adapters, check_aliases, check_free, uid_for
from xinference.errors import Problem
from xinference.gateway.auth.permissions import READ
from xinference.launch.request import LaunchRequest
from xinference.routing.table import with_other_names
from xinference.weights.adapter_files import CONFIG, WEIGHTS

HF = Path(__file__).parent.parent / "assets" / "tiny-llama2-chat-hf"
ROUTES = with_other_names(
    {"base": route(uid="base", adapters=("mine", "other"), aliases=("gpt",)), "other": route(uid="other")}
)


@in_one_test(
    ("uid", "adapters", "said"),
    [
        ("new", ["base"], "base is taken by a model"),
        ("new", ["mine"], "mine is taken by an adapter of base"),
        ("new", ["soon"], "soon is taken by a model"),
        ("new", ["new"], "has the name of the model"),
        ("mine", [], "The model UID mine is taken by an adapter of base"),
        ("gpt", [], "The model UID gpt is taken by an alias of base"),
        ("new", ["gpt"], "gpt is taken by an alias of base"),
    ],
)
def test_a_launch_with_a_taken_name_is_refused(uid: str, adapters: list[str], said: str) -> None:
    with pytest.raises(Problem, match=said) as caught:
        check_free(uid, adapters, ROUTES, {uid, "soon"})
    assert caught.value.status == 409


def test_a_launch_in_place_of_its_own_uid_may_keep_its_adapters() -> None:
    check_free("base", ["mine", "more"], ROUTES, {"base"})


@pytest.mark.parametrize(
    ("model_type", "name", "path", "said"),
    [
        ("LLM", "a b", "here", "'a b' is invalid"),
        ("LLM", "", "here", "'' is invalid"),
        ("LLM", "mine", "gone", "gone of the adapter mine does not exist"),
        ("embedding", "mine", "here", "type is embedding"),
    ],
)
def test_an_adapter_that_cannot_be_loaded_is_refused(
    tmp_path: Path, model_type: str, name: str, path: str, said: str
) -> None:
    (tmp_path / "here").mkdir()
    with pytest.raises(Problem, match=said) as caught:
        check_adapters(model_type, {name: str(tmp_path / path)})
    assert caught.value.status == 400


def test_an_adapter_that_is_here_may_be_loaded(tmp_path: Path) -> None:
    check_adapters("LLM", {"mine": str(write_lora(tmp_path / "mine", HF, scale=0.1))})


@in_one_test(
    ("change", "said"),
    [
        (lambda folder: (folder / CONFIG).write_text("{"), "can't be read as a JSON object"),
        (lambda folder: (folder / CONFIG).write_text("[]"), "can't be read as a JSON object"),
        (lambda folder: (folder / CONFIG).write_text('{"peft_type": "IA3"}'), "type 'IA3'"),
        (lambda folder: (folder / WEIGHTS).unlink(), "does not exist"),
        (
            lambda folder: (folder / WEIGHTS).rename(folder / "adapter_model.bin"),
            "adapter_model.bin: only .safetensors",
        ),
        (lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:200]), WEIGHTS),
    ],
)
def test_an_adapter_whose_files_are_wrong_is_refused_by_the_file(
    tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    folder = write_lora(Path(tempfile.mkdtemp(dir=tmp_path)) / "mine", HF, scale=0.1)
    change(folder)
    with pytest.raises(Problem, match=re.escape(said)) as caught:
        check_adapters("LLM", {"mine": str(folder)})
    assert (caught.value.code, caught.value.status) == ("bad_weight_file", 400)


def test_a_uid_is_no_fixed_path() -> None:
    paths = {path for path in READ if path.startswith("/v1/models/") and "{" not in path}
    assert {path.removeprefix("/v1/models/") for path in paths} == PATH_NAMES
    for name in PATH_NAMES:
        with pytest.raises(Problem, match="is the name of a route") as caught:
            uid_for(LaunchRequest(model_name="a", model_uid=name), (), ())
        assert caught.value.status == 400
        assert uid_for(LaunchRequest(model_name=name), (), ()).startswith(f"{name}-")


@in_one_test(
    ("alias", "said", "status"),
    [
        ("base", "base is taken by a model", 409),
        ("mine", "mine is taken by an adapter of base", 409),
        ("gpt", "gpt is taken by an alias of base", 409),
        ("soon", "soon is taken by a model", 409),
        ("a b", "'a b' is invalid", 400),
        ("instances", "'instances' is invalid", 400),
        ("new", "is the model's own uid", 400),
    ],
)
def test_an_alias_that_is_taken_or_invalid_is_refused(alias: str, said: str, status: int) -> None:
    with pytest.raises(Problem, match=said) as caught:
        check_aliases("new", [alias], ROUTES, {"new", "soon"})
    assert caught.value.status == status


def test_a_model_keeps_its_own_aliases_and_has_a_limited_number() -> None:
    check_aliases("base", ["gpt", "claude"], ROUTES, {"base"})
    with pytest.raises(Problem, match="at most"):
        check_aliases("base", [f"a{n}" for n in range(MAX_ALIASES + 1)], ROUTES, ())
