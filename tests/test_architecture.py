"""Rules about the source that import-linter and the type checker cannot express."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import xinference
from tests.support.architecture_map import PACKAGE, PAGE, first_sentence, page_with_map
from xinference.engines.registry import all_engines

SOURCE = Path(xinference.__file__).parent
ROOT = Path(__file__).parents[1]
#: Every engine by its display name and by its folder's name.
ENGINE_NAMES = {*all_engines(), *(path.parent.name for path in SOURCE.glob("engines/*/engine.py"))}


def lines_of(*packages: str) -> Iterator[tuple[str, str]]:
    """Each line of these packages' modules, with the place where it stands."""
    for package in packages:
        for path in sorted((SOURCE / package).rglob("*.py")):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                yield f"{path.relative_to(SOURCE)}:{number}", line


def test_the_gateway_knows_no_key_of_a_models_description() -> None:
    keys = ("description.get", "description[", "model_engine")
    assert [place for place, line in lines_of("gateway") if any(key in line for key in keys)] == []


def test_no_engine_is_named_between_clients_and_engines() -> None:
    """Not even in a comment: what is known of one engine stands in its folder."""
    assert len(ENGINE_NAMES) >= 8
    named = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in ENGINE_NAMES))
    lines = lines_of("gateway", "routing", "protocol", "keys")
    assert [place for place, line in lines if named.search(line)] == []


def test_no_code_outside_of_the_engines_names_one() -> None:
    """Comments and docstrings may: they explain where a number or a form comes from."""
    # `catalog` has the packages of engines as sources of weights; llama.cpp defines the format GGUF.
    named = re.compile("|".join(re.escape(name) for name in ENGINE_NAMES), re.IGNORECASE)
    allowed = {"client/client.py vllm_models", "hubs/repositories/huggingface.py TRANSFORMERS_OFFLINE"}
    found = {
        f"{path.relative_to(SOURCE)} {text}"
        for path in SOURCE.rglob("*.py")
        if path.relative_to(SOURCE).parts[0] not in ("engines", "catalog", "formats")
        for text in texts_of_code(ast.parse(path.read_text()))
        if named.search(text)
    }
    assert found == allowed


def test_a_method_that_subclasses_define_is_abstract() -> None:
    """So that a missing one is noticed when an object of the class is made, and not when it is called."""
    assert [place for place, line in lines_of(".") if line.strip() == "raise NotImplementedError"] == []


def texts_of_code(tree: ast.Module) -> Iterator[str]:
    """The names and the texts of a module, without its docstrings and its imports."""
    docstrings = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            yield node.value.decode("latin-1") if isinstance(node.value, bytes) else str(node.value)
        elif not isinstance(node, ast.alias):
            yield from (
                text for name in ("id", "attr", "arg", "name") if isinstance(text := getattr(node, name, 0), str)
            )


def test_the_map_has_a_line_for_every_file() -> None:
    assert PAGE.read_text() == page_with_map(), "`python -m tests.support.architecture_map` writes the map"


def test_the_page_shows_the_order_of_imports_that_is_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (checked,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    block = PAGE.read_text().partition("## Packages and imports")[2].split("```")[1]
    shown = [re.split(r"\s{2,}", line)[0] for line in block.splitlines()[1:]]
    assert [packages(line) for line in shown] == [packages(line.replace("xinference.", "")) for line in checked]


def packages(line: str) -> set[str]:
    return {name.strip() for name in line.split("|")}


def test_every_module_says_what_it_is() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.name != "__init__.py":
            assert len(first_sentence(path)) > 10, path


def test_every_suppressed_finding_has_its_reason_beside_it() -> None:
    """A reason is a clause: at least three words."""
    suppressed = re.compile(r"# (?:type: ignore|noqa)")
    reasoned = re.compile(r"# (?:type: ignore\[[a-z, -]+\] +#|noqa: [A-Z0-9, ]+ --) \S+ \S+ \S+")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for folder in ("src", "tests", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(suppressed.findall(line)) > len(reasoned.findall(line))
    ]
    assert found == []


def test_every_handler_of_all_exceptions_has_its_reason_beside_it() -> None:
    """One that raises the exception again cleans up, and needs none."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in ("src", "tests", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for text in [path.read_text()]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ExceptHandler)
        and catches_all(node)
        and not any(isinstance(each, ast.Raise) and each.exc is None for each in ast.walk(node))
        and not any("#" in line for line in text.splitlines()[node.lineno - 1 : node.lineno + 1])
    ]
    assert found == []


def catches_all(handler: ast.ExceptHandler) -> bool:
    names = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(name is None or ast.unparse(name) in ("Exception", "BaseException") for name in names)


def test_every_skipped_test_names_its_reason() -> None:
    skips = re.compile(r"(?:importorskip|mark\.skip(?:if)?|mark\.xfail)\(((?:[^()]|\([^()]*\))*)\)")
    found = [
        f"{path.relative_to(ROOT)}: {arguments}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for arguments in skips.findall(path.read_text())
        if "reason=" not in arguments
    ]
    assert found == []
