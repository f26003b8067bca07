"""The package's own face: its names, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import xinference.client
from tests.support.cases import in_one_test
from xinference.client import AsyncClient, AsyncRESTfulClient, Client, RESTfulClient


def test_older_names_are_the_same_classes() -> None:
    assert RESTfulClient is Client and AsyncRESTfulClient is AsyncClient


@in_one_test("name", xinference.client.__all__)
def test_every_name_is_there(name: str) -> None:
    assert isinstance(getattr(xinference.client, name), type)


def test_an_unknown_name_is_an_import_error() -> None:
    with pytest.raises(ImportError):
        exec("from xinference.client import Nothing")


@pytest.mark.process
def test_importing_it_loads_nothing() -> None:
    script = "import sys, xinference.client; print([m for m in ('httpx2', 'asyncio') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"
