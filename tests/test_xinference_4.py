"""The tables of docs/xinference-4.md: what they say of each flag, route and method is what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest
from fastapi.routing import APIRoute

from tests.api.routes import document
from xinference.api.routes import unsupported
from xinference.cli.main import COMMANDS, LazyGroup, cli
from xinference.client import Client, handles

TEXT = (Path(__file__).parents[1] / "docs" / "xinference-4.md").read_text()
SUITE = "".join(
    path.read_text() for path in (Path(__file__).parent / "third_party_clients").glob("test_xinference_client*.py")
)


def rows(section: str) -> list[list[str]]:
    """The rows of the table below a heading, without its head."""
    lines = TEXT.partition(f"\n## {section}\n")[2].partition("\n## ")[0].splitlines()
    table = [line for line in lines if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[1:]]


def anonymous(path: str) -> str:
    """A path without the names of its parameters."""
    return re.sub(r"\{[^}]*\}", "{}", path)


@pytest.fixture(scope="module")
def served() -> set[tuple[str, str]]:
    paths: dict[str, dict[str, Any]] = document()["paths"]
    return {(method.upper(), anonymous(path)) for path, each in paths.items() for method in each}


@pytest.mark.parametrize("section", ["Routes", "Routes of other servers"])
def test_a_route_is_what_the_table_says(served: set[tuple[str, str]], section: str) -> None:
    refused: set[tuple[str, str]] = {
        (method, anonymous(route.path.replace(":path", "")))
        for route in unsupported.router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    listed = rows(section)
    assert len(listed) > 5
    for route, here in listed:
        method, _, path = route.partition(" ")
        named = (method, anonymous(path.strip("`")))
        assert (named in served) is here.startswith("works"), route
        assert (named in refused) is here.startswith("501"), route
        assert here.startswith(("works", "501", "not served")), route


def test_a_method_is_what_the_table_says() -> None:
    own = (Client, *handles.SYNC.values())
    listed = rows("Methods of the client")
    assert len(listed) > 40
    for cell, here in listed:
        method = cell.strip("`")
        assert any(hasattr(kind, method) for kind in own), method
        text = next(getattr(kind, method) for kind in own if hasattr(kind, method)).__doc__
        assert text.startswith("Not supported") is here.startswith("501"), method
        assert f".{method}(" in SUITE or f'"{method}"' in SUITE, f"{method} is not called in tests/third_party_clients"


def test_every_method_of_the_suite_is_in_the_table() -> None:
    listed = {cell.strip("`") for cell, _ in rows("Methods of the client")}
    called = set(re.findall(r"\b(?:client|chat|embedding|rerank)\.([a-z]\w+)\(", SUITE)) - {"close"}
    assert called <= listed


def test_a_flag_is_what_the_table_says() -> None:
    listed = rows("Commands and flags")
    assert {"launch", "register", "cal-model-mem"} <= {word.strip("`") for row in listed for word in row[0].split(", ")}
    for commands, flags, here in listed:
        names = [name.strip("`") for name in commands.split(", ")]
        if here.startswith("refused: no such command"):
            assert not COMMANDS.keys() & set(names)
            continue
        for name in ["launch", "list"] if commands == "all" else names:
            if name.startswith("xinference-"):
                continue
            known = options(name)
            for flag in re.findall(r"`(-[^`]*)`", flags):
                # Other options reach the server as fields of the launch, or options of the engine.
                assert flag in known or (name == "launch" and flag.startswith("--")), (name, flag)


def options(name: str) -> set[str]:
    """The options of a command."""
    assert isinstance(cli, LazyGroup)
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, name
    return {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
