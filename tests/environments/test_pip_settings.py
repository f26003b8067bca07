from __future__ import annotations

import os

import pytest

from tests.support.cases import in_one_test
from xinference.environments.pip_settings import parse, translate, uv_settings
from xinference.errors import Problem

BEST = ("--index-strategy", "unsafe-best-match")


@in_one_test(
    ("options", "flags"),
    [
        ({}, BEST),
        ({"index-url": "https://mirror/simple"}, ("--default-index", "https://mirror/simple", *BEST)),
        ({"extra-index-url": "https://a/s\nhttps://b/s"}, ("--index", "https://a/s", "--index", "https://b/s", *BEST)),
        ({"find-links": "/wheels https://c"}, (*BEST, "--find-links", "/wheels", "--find-links", "https://c")),
        ({"no-index": "true", "index-url": "https://a", "find-links": "/w"}, ("--no-index", "--find-links", "/w")),
        ({"no-index": "0"}, BEST),
        ({"trusted-host": "a b:8"}, (*BEST, "--allow-insecure-host", "a", "--allow-insecure-host", "b:8")),
        ({"constraint": "/some/file", "pre": "true"}, BEST),
    ],
)
def test_an_option_of_pip_becomes_a_flag_of_uv(options: dict[str, str], flags: tuple[str, ...]) -> None:
    assert translate(options, {}).flags == flags


@in_one_test(
    ("options", "environ", "variables"),
    [
        ({"cert": "/ca.pem"}, {"SSL_CERT_FILE": "/other.pem"}, {"SSL_CERT_FILE": "/ca.pem"}),
        ({"client-cert": "/me.pem"}, {}, {"SSL_CLIENT_CERT": "/me.pem"}),
        (
            {"proxy": "proxy:3128"},
            {},
            dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://proxy:3128"),
        ),
        ({"timeout": "60"}, {}, {"UV_HTTP_TIMEOUT": "60"}),
        ({"default-timeout": "60"}, {"UV_HTTP_TIMEOUT": "5"}, {"UV_HTTP_TIMEOUT": "5"}),
        ({"keyring-provider": "subprocess"}, {}, {"UV_KEYRING_PROVIDER": "subprocess"}),
        ({}, {"HTTPS_PROXY": "http://p", "HOME": "/h"}, {"HTTPS_PROXY": "http://p", "HOME": "/h"}),
        ({}, {"UV_CACHE_DIR": "/c", "UV_INDEX_A_PASSWORD": "p"}, {"UV_CACHE_DIR": "/c", "UV_INDEX_A_PASSWORD": "p"}),
        ({}, {"UV_CONSTRAINT": "/c", "UV_NO_VERIFY_HASHES": "1", "VIRTUAL_ENV": "/v", "PYTHONPATH": "/p"}, {}),
    ],
)
def test_what_uv_takes_from_the_environment(
    options: dict[str, str], environ: dict[str, str], variables: dict[str, str]
) -> None:
    assert translate(options, environ).variables == variables


def test_a_variable_wins_over_install_and_install_over_global() -> None:
    lines = [
        ":env:.find-links='/from-env'",
        "global.find-links='/from-global'",
        "install.find-links='/from-install'",
        "install.index-url='https://install'",
        "global.index-url='https://global'",
        "download.cert='/not-for-installing'",
    ]
    assert parse(lines) == {"find-links": "/from-env", "index-url": "https://install"}


def test_a_relative_place_is_meant_from_where_the_user_is(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert translate({"find-links": "wheels"}, {}).find_links == ("--find-links", f"{tmp_path}/wheels")


@pytest.mark.process
def test_pip_itself_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror/simple")
    assert "https://mirror/simple" in uv_settings().indexes


@pytest.mark.process
def test_a_configuration_that_pip_cannot_read_is_told_in_its_words(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = os.path.join(tmp_path, "pip.conf")
    with open(broken, "w") as file:
        file.write("no section\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", broken)
    with pytest.raises(Problem) as caught:
        uv_settings()
    assert caught.value.code == "bad_pip_configuration"
    assert caught.value.log_tail
