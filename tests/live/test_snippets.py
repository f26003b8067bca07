"""The commands and programs of the documentation, run as they are printed, page by page."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.snippets import PAGES, Snippet, snippets
from tests.support.home import UID, Home

#: The address that the pages name.
PRINTED = "9997"
WITH_SNIPPETS = [page for page in PAGES if any(snippet.runs for snippet in snippets(page))]


#: For one snippet: on a busy machine the small model writes a token a second.
SECONDS = 500


@pytest.mark.live
@pytest.mark.timeout(3 * SECONDS)
@pytest.mark.parametrize("page", WITH_SNIPPETS, ids=lambda page: page.name)
def test_the_snippets_of_a_page_run_in_their_order(page: Path, make_home: Callable[..., Home], tmp_path: Path) -> None:
    home = make_home()
    home.serve()
    assert home.launch(model_name=UID, quantization="Q4_1").status_code == 200
    missing = []
    try:
        for snippet in snippets(page):
            if snippet.runs:
                missing += packages_missing(snippet)
                if not packages_missing(snippet):
                    run(snippet, home, tmp_path)
    finally:
        home.clean_up()
    assert set(missing) <= {"anthropic", "langchain_openai", "llama_index"}


def run(snippet: Snippet, home: Home, folder: Path) -> None:
    shell = ["bash", "-euo", "pipefail"]
    words = shell if snippet.language == "sh" else [sys.executable, "-"]
    commands = Path(sys.executable).parent
    environment = home.environment | {"PATH": f"{commands}:{home.environment['PATH']}"}
    done = subprocess.run(
        words,
        input=snippet.text.replace(PRINTED, str(home.port)),
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{snippet.place}\n{done.stdout}\n{done.stderr}"
    if "curl" in snippet.text:
        assert '"error"' not in done.stdout, f"{snippet.place}\n{done.stdout}"


def packages_missing(snippet: Snippet) -> list[str]:
    """The packages that a program imports and this environment does not have; `make test-clients` has all of them."""
    if snippet.language != "python":
        return []
    imports = [node for node in ast.walk(ast.parse(snippet.text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [
        name.partition(".")[0]
        for node in imports
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [item.name for item in node.names])
    ]
    return [name for name in names if importlib.util.find_spec(name) is None]
