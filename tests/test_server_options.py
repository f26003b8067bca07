"""The options of a server: from the command line of its starter to that of its process."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, get_type_hints

import pytest

from xinference.server_options import ServerOptions

#: A value of each type that an option has.
VALUES: dict[Any, Any] = {bool: True, int | None: 3, float | None: 2.5, str | None: "a text"}
KINDS = get_type_hints(ServerOptions)


@pytest.mark.parametrize("name", [each.name for each in fields(ServerOptions)])
def test_the_process_of_a_server_knows_each_option_of_its_starter(name: str) -> None:
    options = replace(ServerOptions(), **{name: VALUES[KINDS[name]]})
    address = [] if options.words() else [f"--{name}", str(VALUES[KINDS[name]])]  # host, port and home have other ways
    assert ServerOptions.of_words([*address, *options.words()]) == options


def test_no_option_leaves_all_to_the_settings() -> None:
    assert ServerOptions.of_words([]) == ServerOptions()
    assert set(ServerOptions().overrides().values()) == {None}


def test_the_process_of_a_server_refuses_an_unknown_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ServerOptions.of_words(["--no-such-option"])
    assert "--no-such-option" in capsys.readouterr().err
