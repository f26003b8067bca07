from __future__ import annotations

from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cases import in_one_test
from xinference.cli.options.native_options import parse_value, similar_options, split
from xinference.cli.options.version_options import read_size

OWN = {"-n": True, "--model-name": True, "--model-path": True, "--dry-run": False, "-en": True}


@in_one_test(
    ("text", "value"),
    [
        ("None", None),
        ("none", None),
        ("True", True),
        ("false", False),
        ("7", 7),
        ("-1", -1),
        ("0.5", 0.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1_8", "1_8"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("1e999", "1e999"),
        ('{"a": [1, null]}', {"a": [1, None]}),
        ("[1, 2]", [1, 2]),
        ("{not json", "{not json"),
        ("q8_0", "q8_0"),
        ("", ""),
        ("TRUE", "TRUE"),
    ],
)
def test_a_value_is_what_it_looks_like(text: str, value: Any) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@in_one_test(
    ("args", "own", "native"),
    [
        (["-n", "m", "--n-ctx", "512"], ["-n", "m"], {"n_ctx": 512}),
        (["--n_ctx=512", "-n", "m"], ["-n", "m"], {"n_ctx": 512}),
        (["--mlock", "-n", "m"], ["-n", "m"], {"mlock": True}),
        (["--mlock", "--seed", "-1"], [], {"mlock": True, "seed": -1}),
        (["--mlock"], [], {"mlock": True}),
        (["--rope=-yes"], [], {"rope": "-yes"}),
        (["--empty="], [], {"empty": ""}),
        (["--model_path", "p", "--dry_run", "--a", "b"], ["--model-path", "p", "--dry-run"], {"a": "b"}),
        (["--model_path=p"], ["--model-path=p"], {}),
        (["-n", "--odd"], ["-n", "--odd"], {}),
        (["-en", "vLLM"], ["-en", "vLLM"], {}),
        (["-n"], ["-n"], {}),
    ],
)
def test_native_options_are_parted_from_ours(args: list[str], own: list[str], native: dict[str, Any]) -> None:
    assert split(args, OWN) == (own, native)


@pytest.mark.parametrize("args", [["stray"], ["--a", "1", "stray"], ["-n", "m", "stray"]])
def test_a_stray_word_is_refused(args: list[str]) -> None:
    with pytest.raises(click.UsageError, match="Options of the engine are written --KEY VALUE"):
        split(args, OWN)


@pytest.mark.parametrize("word", ["-ngl", "-x", "--", "-n=m", "---a"])
def test_an_option_of_unclear_form_is_refused(word: str) -> None:
    with pytest.raises(click.UsageError, match="No such option"):
        split([word, "1"], OWN)


@given(st.dictionaries(st.from_regex(r"[a-z][a-z_]{2,10}", fullmatch=True), st.integers() | st.booleans()))
def test_what_is_written_with_an_equals_sign_is_read_back(options: dict[str, Any]) -> None:
    options = {f"x{name}": value for name, value in options.items()}
    assert split([f"--{name.replace('_', '-')}={value}" for name, value in options.items()], OWN) == ([], options)


def test_a_name_is_taken_where_the_command_has_an_argument() -> None:
    assert split(["m", "--n-ctx", "512"], OWN, 1) == (["m"], {"n_ctx": 512})
    assert split(["--n-ctx", "512", "m", "--dry-run"], OWN, 1) == (["m", "--dry-run"], {"n_ctx": 512})
    with pytest.raises(click.UsageError, match="Unexpected argument"):
        split(["m", "n"], OWN, 1)


@in_one_test(
    ("text", "size"),
    [("7", 7), ("7B", 7), ("0.5b", "0.5"), ("1_8", "1_8"), ("1.8", "1.8"), ("135M", "0.135"), ("0_135", "0_135")],
)
def test_a_size_is_taken_as_people_write_it(text: str, size: Any) -> None:
    context, parameter = click.Context(click.Command("x")), click.Option(["-s"])
    assert read_size(context, parameter, text) == size
    with pytest.raises(click.BadParameter):
        read_size(context, parameter, "seven")


@in_one_test(
    ("word", "options"),
    [
        ("quant", ["--quantization"]),
        ("engine", ["--model-engine"]),
        ("size", ["--size-in-billions"]),
        ("replicas", ["--replica"]),
        ("quantisation", ["--quantization"]),
        ("zzz", []),
    ],
)
def test_an_unknown_option_is_compared_with_those_of_the_command(word: str, options: list[str]) -> None:
    own = ["--quantization", "--model-engine", "--model_name", "--size-in-billions", "--replica", "--alias"]
    assert similar_options(word, own) == options


@pytest.mark.parametrize(
    ("word", "meant"), [("-c", "--n_ctx"), ("-ngl", "--n_gpu_layers"), ("-hf", "--model-name"), ("-c=4096", "--n_ctx")]
)
def test_a_short_option_of_an_engine_is_refused_with_its_name_here(word: str, meant: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        split([word, "4096"], OWN, arguments=1)
    assert caught.value.message == f"No such option: {word}. Did you mean {meant}?"
