"""`xinference web`: opens the page of the server, or prints its address."""

from __future__ import annotations

import webbrowser

import pytest

from tests.cli.canned import Answer, Canned
from tests.cli.conftest import Run


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, canned: Canned) -> list[str]:
    """The addresses that a browser is asked to open."""
    canned.answers["GET", "/v1/cluster/auth"] = Answer({"auth": False})
    addresses: list[str] = []

    def open_address(address: str) -> bool:
        addresses.append(address)
        return True

    monkeypatch.setattr(webbrowser, "open", open_address)
    return addresses


def test_the_page_is_opened(canned: Canned, run: Run, opened: list[str]) -> None:
    result = run("web")
    assert (result.exit_code, result.stdout) == (0, "")
    assert opened == [f"{canned.url}/ui/"]


def test_the_address_is_printed_where_no_browser_is_wanted_or_found(
    canned: Canned, run: Run, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("web", "--no-browser").stdout == f"{canned.url}/ui/\n"
    assert opened == []
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    result = run("web")
    assert result.stdout == f"{canned.url}/ui/\n" and "No browser" in result.stderr
