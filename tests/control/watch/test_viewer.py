"""Who may follow what."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xinference.control.watch.viewer import TOPICS, Viewer, current_viewer
from xinference.errors import Problem
from xinference.keys.key import Key
from xinference.keys.table import table_of


def key(*scopes: str, models: str | None = None, expires: float | None = None) -> Key:
    return Key("k", "k", b"k", frozenset(scopes), None if models is None else frozenset(models), expires)


OWN = {"models", "launches", "requests", "events"}


@pytest.mark.parametrize(
    ("holder", "topics"),
    [
        (None, set(TOPICS)),
        (key("manage"), set(TOPICS)),
        (key("monitor"), set(TOPICS)),
        (key("use"), OWN | {"stats", "devices"}),
        (key("use", models="a"), OWN),
        (key("use", "monitor", models="a"), set(TOPICS)),
    ],
)
def test_the_topics_of_a_key(holder: Key | None, topics: set[str]) -> None:
    viewer = Viewer(holder)
    assert set(viewer.topics(None)) == topics
    for topic in set(TOPICS) - topics:
        with pytest.raises(Problem, match=topic) as raised:
            viewer.topics(f"models,{topic}")
        assert raised.value.status == 403


@pytest.mark.parametrize("names", ["", " , ", "model", "models,x", "log"])
def test_unknown_topics_are_refused_with_the_known_ones(names: str) -> None:
    with pytest.raises(Problem) as raised:
        Viewer(None).topics(names)
    assert raised.value.status == 400 and "launches" in (raised.value.hint or "")


def test_a_key_sees_its_models_and_its_requests() -> None:
    viewer = Viewer(key("use", models="a"))
    assert viewer.sees("a", None) and not viewer.sees("b", None)
    assert viewer.sees(None, "k") and not viewer.sees(None, "other") and not viewer.sees("a", "other")
    assert not viewer.sees(None, "")  # requests without a key
    for scope in ("manage", "monitor"):
        assert Viewer(key(scope, models="a")).sees("b", None) and Viewer(key(scope)).sees(None, "other")


def test_a_viewer_ends_with_its_key() -> None:
    mine = key("use", expires=10.0)
    table = table_of([mine], required=True)
    assert current_viewer(mine, table, 9.0) == Viewer(mine)
    assert current_viewer(mine, table, 10.0) is None
    assert current_viewer(mine, table_of([], required=True), 9.0) is None
    wider = key("manage")
    assert current_viewer(mine, table_of([wider], required=True), 9.0) == Viewer(wider)
    assert current_viewer(None, table_of([], required=False), 9.0) == Viewer(None)
    assert current_viewer(None, table, 9.0) is None


def test_a_viewer_ends_with_its_session() -> None:
    own = key("manage")
    session = replace(own, digest=b"s", session="session-1")
    assert current_viewer(session, table_of([own, session], required=True), 9.0) == Viewer(session)
    assert current_viewer(session, table_of([own], required=True), 9.0) is None
