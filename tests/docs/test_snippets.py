"""Every fenced block says what it is, and what no test runs says why."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.docs.snippets import PAGES, RUNNABLE, SHOWN, Snippet, snippets
from tests.support.cases import check_each
from xinference.catalog.registrations import read_registration
from xinference.catalog.registry import builtin_families

ALL = [snippet for page in PAGES for snippet in snippets(page)]


def test_a_block_has_a_known_language() -> None:
    def check(snippet: Snippet) -> None:
        assert snippet.language in RUNNABLE | SHOWN

    check_each(ALL, check, lambda snippet: snippet.place)


def test_a_block_that_is_not_run_is_a_command_and_has_a_reason() -> None:
    def check(snippet: Snippet) -> None:
        assert snippet.reason is None or (snippet.language in RUNNABLE and len(snippet.reason.split()) > 2)

    check_each(ALL, check, lambda snippet: snippet.place)


@pytest.mark.parametrize(
    "snippet", [found for found in ALL if found.language == "python"], ids=lambda snippet: snippet.place
)
def test_a_block_of_python_is_a_program(snippet: Snippet) -> None:
    compile(snippet.text, snippet.place, "exec")


@pytest.mark.process
def test_a_block_of_commands_is_a_script() -> None:
    for snippet in ALL:
        if snippet.language == "sh":
            checked = subprocess.run(["bash", "-n"], input=snippet.text, capture_output=True, text=True, check=False)
            assert checked.returncode == 0, f"{snippet.place}: {checked.stderr}"


def test_blocks_are_found_with_their_lines() -> None:
    readme = [found for found in ALL if found.page.name == "README.md"]
    assert readme
    for snippet in readme:
        assert snippet.page.read_text().splitlines()[snippet.line - 1].startswith(f"```{snippet.language}")


def test_the_registration_of_the_page_of_custom_models_is_read() -> None:
    documents = [found for found in ALL if found.page.name == "custom-models.md" and found.language == "json"]
    assert documents
    for document in documents:
        assert read_registration("LLM", document.text, builtin_families()).family.model_name == "my-model"


def test_a_page_has_no_double_backticks() -> None:
    def check(page: Path) -> None:
        assert not re.search(r"(?<!`)``(?!`)", page.read_text())

    check_each(PAGES, check, lambda page: page.name)
