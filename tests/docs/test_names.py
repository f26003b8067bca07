"""Each name in the documents exists: commands and their options, routes, targets of make, settings, metrics, files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path

import click

from tests.api.routes import document
from xinference.catalog.registry import builtin_families
from xinference.cli.main import COMMANDS, cli

ROOT = Path(__file__).parents[2]
#: The changes of former versions have their names.
PAGES = [page for page in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]) if page.name != "CHANGELOG.md"]
FENCE = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
#: Names of a user's or another program's files, and of routes that this server has not or another program has.
FOREIGN_FILES = frozenset({"own/NAME.json", "PACKAGE/catalog.json"})
FOREIGN_ROUTES = frozenset({"/v1/traces"})
#: A page about an interface of which this server has a part.
PAGE_OF_ABSENT_ROUTES = "xinference-4.md"
#: Commands that take the options of engines, too.
OPEN_COMMANDS = frozenset({"launch", "run"})


def unknown(names: Callable[[str], Iterable[str]], is_known: Callable[[str], bool]) -> dict[str, list[str]]:
    """Page -> the names in its text that are not known."""
    texts = {page: page.read_text(encoding="utf-8") for page in PAGES}
    missing = {page: sorted({name for name in names(text) if not is_known(name)}) for page, text in texts.items()}
    return {str(page.relative_to(ROOT)): found for page, found in missing.items() if found}


def code_of(text: str) -> list[str]:
    """The lines of the blocks with commands, and the code within sentences."""
    blocks = [block["text"].replace("\\\n", " ") for block in FENCE.finditer(text) if block["language"] in ("", "sh")]
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [*lines, *CODE.findall(FENCE.sub("", text))]


def sources(*folders: str) -> str:
    return "\n".join(path.read_text() for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))


# -- commands -----------------------------------------------------------------------------------------------------


def commands(text: str) -> list[str]:
    lines = [line for line in code_of(text) if line.startswith("xinference ")]
    return [re.split(r" [#|>&;]", line)[0] for line in lines]


def is_command(line: str) -> bool:
    """Whether the command exists, and its options too."""
    command: click.Command = cli
    words = words_of(line)[1:]
    names: list[str] = []
    while isinstance(command, click.Group) and words and re.fullmatch(r"[a-z][\w-]*", words[0]):
        names.append(words.pop(0))
        found = command.get_command(click.Context(command), names[-1])
        if found is None:
            return False
        command = found
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    given = {word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)}
    return names[:1] in ([name] for name in OPEN_COMMANDS) or given <= options | {"--help"}


def words_of(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # a part of a command
        return line.split()


def test_each_command_exists_with_its_options() -> None:
    assert unknown(commands, is_command) == {}


def test_a_command_or_an_option_that_does_not_exist_is_found() -> None:
    assert not is_command("xinference lunch -n m") and not is_command("xinference list --al")
    assert not is_command("xinference cluster nodez") and is_command("xinference launch --n_ctx 4096")


def test_the_readme_names_every_command_and_page_and_counts_the_models() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.partition("\n## Commands\n")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    assert set(COMMANDS) <= {code.split()[0] for cell in cells for code in CODE.findall(cell)}
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    assert {page for page in pages if page not in text} == {"docs/contributing.md"}, "CONTRIBUTING.md names it"
    assert f"({len(builtin_families())} of them)" in text


# -- routes -------------------------------------------------------------------------------------------------------


def routes(text: str) -> list[str]:
    found = re.findall(r"(?:(?:localhost|127\.0\.0\.1):\d+|(?:GET|POST|PUT|PATCH|DELETE) |`)(/v1/[^\s`\"'?,;)]*)", text)
    return [route.rstrip(".:\\") for route in found if not route.endswith(("*", "…"))]


def test_each_route_exists() -> None:
    patterns = [re.sub(r"\\\{.*?\\\}", "[^/]+", re.escape(path)) for path in document()["paths"]]
    known = re.compile("|".join(patterns))

    def is_route(path: str) -> bool:
        return path in FOREIGN_ROUTES or known.fullmatch(re.sub(r"<[^>]*>|\$\{?\w+\}?", "x", path)) is not None

    missing = unknown(routes, is_route)
    missing.pop(f"docs/{PAGE_OF_ABSENT_ROUTES}", None)
    assert missing == {}


# -- targets, settings, metrics and files -------------------------------------------------------------------------


def test_each_target_of_make_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    def names(text: str) -> Iterable[str]:
        return (name for line in code_of(text) for name in re.findall(r"^(?:\w+=\S+ )*make ([a-z][\w-]*)", line))

    assert unknown(names, targets.__contains__) == {}


def test_each_target_of_make_is_described() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    targets = set(makefile.partition("\n.PHONY:")[2].partition("\n")[0].split())
    # Parts of other targets, and what their names say.
    parts = {"build", "check-style", "check-types", "clean", "env-transformers"}
    lines = [line for page in PAGES for line in code_of(page.read_text(encoding="utf-8"))]
    described = {name for line in lines for name in re.findall(r"^make ([a-z][\w-]*)", line)}
    assert targets - described == parts


def test_each_variable_exists() -> None:
    fields = set(re.findall(r"^    (\w+): ", (ROOT / "src/xinference/config.py").read_text(), re.MULTILINE))
    text = sources("src", "tests", "benchmarks")

    def is_variable(name: str) -> bool:
        return name.removeprefix("XINFERENCE_").lower() in fields or name in text

    assert unknown(lambda page: re.findall(r"\bXINFERENCE_[A-Z0-9_]*[A-Z0-9]\b", page), is_variable) == {}


def test_each_metric_exists() -> None:
    text = sources("src")
    beginnings = {"", *re.findall(r'"(xinference_\w*)(?:\{|(?<=_)")', text)}
    texts = set(re.findall(r'["}](\w+)', text))

    def is_metric(name: str) -> bool:
        """Several metrics of one kind share their beginning, and a counter gets its end from a library."""
        rests = {short.removeprefix(begin) for begin in beginnings for short in (name, name.removesuffix("_total"))}
        return not rests.isdisjoint(texts)

    assert unknown(lambda page: re.findall(r"`(xinference_[a-z0-9_]+)`", page), is_metric) == {}


def test_each_metric_is_described() -> None:
    names = set(re.findall(r'MetricFamily\(\s*"(xinference_\w+)"', sources("src")))
    page = (ROOT / "docs/requests.md").read_text(encoding="utf-8")
    assert len(names) > 20 and {name for name in names if not re.search(rf"`{name}(_total)?`", page)} == set()


def test_each_module_and_file_exists() -> None:
    bases = [ROOT, ROOT / "src", ROOT / "src/xinference", ROOT / "tests", ROOT / "ui", ROOT / "docs"]

    def names(text: str) -> Iterable[str]:
        for code in code_of(text):
            yield from re.findall(r"(?<![\w/.<{-])((?:[\w.-]+/)+[\w-]+\.(?:py|md|json|yaml|toml))\b", code)
            modules = re.findall(r"\bpython -m ((?:xinference|tests|benchmarks)[\w.]*)", code)
            yield from (module.replace(".", "/") for module in modules)

    def exists(name: str) -> bool:
        return name in FOREIGN_FILES or any((base / f"{name}{end}").exists() for base in bases for end in ("", ".py"))

    assert unknown(names, exists) == {}
