"""The names that a launch may take."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.routing.routes import route
from xinference.control.model_names import PATH_NAMES, check_adapters, check_free, uid_for
from xinference.errors import Problem
from xinference.gateway.auth.permissions import READ
from xinference.launch.request import LaunchRequest
from xinference.routing.table import with_adapters

ROUTES = with_adapters({"base": route(uid="base", adapters=("mine", "other")), "other": route(uid="other")})


@pytest.mark.parametrize(
    ("uid", "adapters", "said"),
    [
        ("new", ["base"], "base is taken by a model"),
        ("new", ["mine"], "mine is taken by an adapter of base"),
        ("new", ["soon"], "soon is taken by a model"),
        ("new", ["new"], "has the name of the model"),
        ("mine", [], "The model UID mine is taken by an adapter of base"),
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
    (tmp_path / "adapter_config.json").write_text("{}")
    check_adapters("LLM", {"mine": str(tmp_path)})


def test_a_uid_is_no_fixed_path() -> None:
    paths = {path for path in READ if path.startswith("/v1/models/") and "{" not in path}
    assert {path.removeprefix("/v1/models/") for path in paths} == PATH_NAMES
    for name in PATH_NAMES:
        with pytest.raises(Problem, match="is the name of a route") as caught:
            uid_for(LaunchRequest(model_name="a", model_uid=name), (), ())
        assert caught.value.status == 400
        assert uid_for(LaunchRequest(model_name=name), (), ()).startswith(f"{name}-")
