"""Settings from the environment, and the page that documents them."""

from __future__ import annotations

import ast
import functools
import inspect
from dataclasses import fields
from pathlib import Path

import pytest

from tests.support.cases import in_one_test
from xinference.config import Settings, misspelled
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.setting_values import parse_bytes

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"


@functools.cache
def meanings() -> dict[str, str]:
    """The words below each field of `Settings`."""
    (made,) = ast.parse(inspect.getsource(Settings)).body
    assert isinstance(made, ast.ClassDef)
    fields = [n for n in made.body if isinstance(n, ast.AnnAssign)]
    below = [made.body[made.body.index(f) + 1] for f in fields]
    return {ast.unparse(f.target): ast.literal_eval(ast.unparse(b)) for f, b in zip(fields, below, strict=True)}


def test_the_page_has_every_setting_with_its_default_and_meaning() -> None:
    default = Settings()
    rows = []
    for name, meaning in meanings().items():
        value = "~/.xinference" if name == "home" else getattr(default, name)
        shown = "–" if value == "" else value
        rows.append(f"| `XINFERENCE_{name.upper()}` | {shown} | {' '.join(meaning.split()).replace('``', '`')} |")
    assert [line for line in PAGE.read_text().splitlines() if line.startswith("| `")] == rows


def test_a_setting_is_read_from_its_variable() -> None:
    settings = Settings.from_env({"XINFERENCE_DRAIN_SECONDS": "2.5", "XINFERENCE_MODEL_MEMORY": "24GiB"})
    assert (settings.drain_seconds, settings.model_memory) == (2.5, 24 * 1024**3)


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("DRAIN_SECONDS", "soon", "a number"),
        ("PORT", "9.5", "an integer"),
        ("OFFLINE", "perhaps", "a boolean"),
        ("MODEL_MEMORY", "24 apples", "a number of bytes, such as 24GiB"),
    ],
)
def test_a_wrong_value_is_refused_with_its_variable_and_kind(name: str, text: str, kind: str) -> None:
    with pytest.raises(Problem, match=f"XINFERENCE_{name} is '{text}', which is not {kind}"):
        Settings.from_env({f"XINFERENCE_{name}": text})


@pytest.mark.parametrize(("text", "size"), [("7", 7), ("1.5 kB", 1500), ("2Ki", 2048), ("24GiB", 24 * 1024**3)])
def test_a_size_may_have_a_unit(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["1" * 400, "1" * 5000, "9999999TiB", "nan", "inf"])
def test_a_size_that_no_machine_has_is_refused_and_quoted_in_part(text: str) -> None:
    with pytest.raises(Problem, match="which is not a number of bytes") as refused:
        Settings.from_env({"XINFERENCE_MODEL_MEMORY": text})
    assert len(str(refused.value)) < 250


def test_every_size_in_bytes_may_have_a_unit() -> None:
    for each in fields(Settings):
        if each.name.endswith("_bytes"):
            settings = Settings.from_env({f"XINFERENCE_{each.name.upper()}": "3MiB"})
            assert getattr(settings, each.name) == 3 << 20


@pytest.mark.parametrize("text", ["", " ", "\t\n"])
def test_a_variable_of_blanks_is_like_one_that_is_not_set(text: str) -> None:
    env = {f"XINFERENCE_{each.name.upper()}": text for each in fields(Settings)}
    assert Settings.from_env(env) == Settings()


def test_blanks_around_a_value_are_no_part_of_it() -> None:
    settings = Settings.from_env(
        {"XINFERENCE_HOME": " /h\n", "XINFERENCE_OFFLINE": "true ", "XINFERENCE_MODEL_SRC": "a "}
    )
    assert (str(settings.home), settings.offline, settings.model_src) == ("/h", True, "a")


@pytest.mark.parametrize("name", ["HOME", "HOST", "PORT", "ENDPOINT", "MODEL_SRC"])
@pytest.mark.parametrize("mark", ["'", '"'])
def test_quotation_marks_around_a_value_are_named(name: str, mark: str) -> None:
    with pytest.raises(Problem, match="with quotation marks") as refused:
        Settings.from_env({f"XINFERENCE_{name}": f"{mark}9997{mark}"})
    assert f"XINFERENCE_{name}" in refused.value.cause and "Remove them" in (refused.value.hint or "")


@pytest.mark.parametrize("host", ["", " ", "[]"])
def test_an_empty_host_is_refused_because_it_would_mean_every_address(host: str) -> None:
    with pytest.raises(Problem, match="The host is empty"):
        Settings.from_env({}, host=host)


def test_a_variable_that_resembles_a_setting_is_found_and_no_other() -> None:
    wrong = {"XINFERENCE_PROT": "XINFERENCE_PORT", "XINFERENCE_MODEL_SOURCE": "XINFERENCE_MODEL_SRC"}
    others = (
        "API_KEY",
        "JOIN_TOKEN",
        "SERVICE_HOST",
        "SERVICE_RESTART",
        "COMPLETE",
        "PORT_9997_TCP",
        "PORT_9997_TCP_ADDR",
    )
    env = dict.fromkeys([*wrong, "XINFERENCE_HOME", "HOME", *(f"XINFERENCE_{name}" for name in others)], "1")
    assert misspelled(env) == wrong


def test_every_setting_has_a_parser_of_its_type() -> None:
    values = {"home": "/h", "model_memory": "1KiB"} | {
        each.name: str(getattr(Settings(), each.name)) for each in fields(Settings) if each.name != "home"
    }
    settings = Settings.from_env({f"XINFERENCE_{name.upper()}": text for name, text in values.items()})
    for each in fields(Settings):
        assert type(getattr(settings, each.name)) is type(getattr(Settings(), each.name)), each.name


def test_the_meaning_of_every_quantity_names_its_unit() -> None:
    units = {"int": ("bytes", "number", "port"), "float": ("seconds",)}
    for each in fields(Settings):
        for_type = units.get(str(each.type), ("",))
        assert any(unit in meanings()[each.name].lower() for unit in for_type), each.name


@pytest.mark.parametrize(("host", "url"), [("::1", "http://[::1]:9997"), ("[::1]", "http://[::1]:9997")])
def test_an_ipv6_address_is_in_brackets_in_a_url_only(host: str, url: str) -> None:
    settings = Settings.from_env({}, host=host)
    assert (settings.host, settings.url) == ("::1", url)


@pytest.mark.parametrize("host", ["http://127.0.0.1", "127.0.0.1:9997", "a/b", "localhost:80"])
def test_a_url_is_no_host(host: str) -> None:
    with pytest.raises(Problem, match="must be an address"):
        Settings.from_env({}, host=host)


@pytest.mark.parametrize(
    "endpoint",
    [
        *("http://h:1/v1", "http://h:1/v1/", "http://h:1/", "http://h:1", "http://h:1/v1/chat/completions"),
        *("h:1", "h:1/v1", " h:1 ", "http://h:1/ui/", "http://h:1/ui/#/models", "http://h:1/docs"),
    ],
)
def test_the_endpoint_may_be_the_url_of_openai_clients_or_of_the_page_or_a_host(endpoint: str) -> None:
    assert Settings.from_env({}, endpoint=endpoint).url == "http://h:1"


def test_a_home_that_is_a_file_is_named_as_one(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(Problem, match="can't be made: a file has this name"):
        Settings.from_env({}, home=str(tmp_path / "home")).make_home()


def test_a_home_that_cannot_be_made_is_a_problem() -> None:
    with pytest.raises(Problem, match="/dev/null/home can't be made"):
        Settings.from_env({}, home="/dev/null/home").make_home()


@pytest.mark.parametrize("name", ["HEAD_SECONDS", "BODY_SECONDS", "WRITE_SECONDS", "IDLE_SECONDS", "MAX_CONNECTIONS"])
def test_a_limit_of_connections_is_positive(name: str) -> None:
    with pytest.raises(Problem) as caught:
        Settings.from_env({f"XINFERENCE_{name}": "0"})
    assert f"XINFERENCE_{name}" in caught.value.cause


@pytest.mark.parametrize("text", ["-1", "nan"])
def test_no_number_is_negative_or_undefined(text: str) -> None:
    kinds = (int, float) if text == "-1" else (float,)
    names = [each.name for each in fields(Settings) if type(getattr(Settings(), each.name)) in kinds]
    for name in names:
        with pytest.raises(Problem, match=f"(?i){name} .*{text}") as caught:
            Settings.from_env({f"XINFERENCE_{name.upper()}": text})
        assert caught.value.code == Code.BAD_SETTING and caught.value.hint
    assert len(names) > 20


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("PORT", "65536"), ("SUPERVISOR_PORT", "65536"), ("WORKER_PORT", "65536")),
        *(("LOG_LEVEL", "loud"), ("LOG_FORMAT", "xml"), ("PREFIX_ISOLATION", "all")),
        *(("GATEWAY_WORKERS", "0"), ("GATEWAY_WORKERS", "65"), ("RAY_ADDRESS", "http://a b"), ("WRITE_SECONDS", "inf")),
    ],
)
def test_a_value_that_a_setting_cannot_have_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(Problem) as caught:
        Settings.from_env({f"XINFERENCE_{name}": text})
    assert caught.value.code == Code.BAD_SETTING and caught.value.hint
    assert f"XINFERENCE_{name}" in caught.value.cause and text in caught.value.cause


def test_an_option_that_overrides_a_variable_is_named_by_itself() -> None:
    with pytest.raises(Problem, match=r"^port is 65536\."):
        Settings.from_env({"XINFERENCE_PORT": "7"}, port=65536)


@pytest.mark.parametrize("level", ["DEBUG", "info", "WARN", "CRITICAL"])
def test_a_log_level_of_python_is_taken(level: str) -> None:
    assert Settings.from_env({"XINFERENCE_LOG_LEVEL": level}).log_level == level


@pytest.mark.parametrize(
    "setting", ["", "*", "http://localhost:3000", "https://a.b/, http://[::1]:5173", "app://obsidian.md"]
)
def test_origins_of_web_pages_are_taken(setting: str) -> None:
    assert Settings.from_env({"XINFERENCE_ALLOW_ORIGIN": setting}).allow_origin == setting


@in_one_test("setting", ["localhost:3000", "http://a.b/page", "a.b", "http://a.b,c.d", "null", "http://"])
def test_what_no_browser_sends_as_an_origin_is_refused(setting: str) -> None:
    with pytest.raises(Problem, match="is not an origin of web pages") as caught:
        Settings.from_env({"XINFERENCE_ALLOW_ORIGIN": setting})
    assert "http://localhost:3000" in (caught.value.hint or "")
