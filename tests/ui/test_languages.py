"""Each text of each page is translated, and has its Chinese.

In the language `pseudo`, the page puts each text that it translates between brackets. What is outside of brackets must
be data: a part of an answer of the server, a number with its unit, or a name that is the same in all languages.
"""

from __future__ import annotations

import re
from typing import Any

import httpx2
import pytest

from tests.support.scripted_home import ScriptedHome
from tests.ui.conftest import Open
from tests.ui.pages import PAGES, look, visit

pytestmark = [pytest.mark.browser, pytest.mark.process]
#: Names of languages in themselves, of formats, of programs and of examples.
NAMES = {
    *(
        "Xinference",
        "English",
        "中文",
        "CPU",
        "JSON",
        "CSV",
        "Python",
        "JavaScript",
        "curl",
        "top_p",
        "Anthropic",
        "OpenAI",
    ),
    *(
        "2xx",
        "499",
        "qwen",
        "my-model",
        "my-adapter",
        "n_batch",
        "OMP_NUM_THREADS",
        "Ctrl",
        "LangChain",
        "xinference",
        "openai",
        "anthropic",
        "GET",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
    ),
}
NUMBER = re.compile(
    r"[~–\-+/×·:,.()\s\d%]*((B|KiB|MiB|GiB|TiB|ms|s|min|h|d|AM|PM|GMT|UTC|Jan|Nov|Dec)[~–\-+/×·:,.()\s\d%]*)*"
)
#: Each visible text node, and each text of an attribute that people read or hear, but for code and for values of users.
TEXTS = """() => {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (node.parentElement.closest("code, pre, script, style, noscript, .mono")) continue;
    found.push(node.textContent.trim());
  }
  for (const element of document.querySelectorAll("[aria-label], [title], [placeholder], [alt]"))
    for (const name of ["aria-label", "title", "placeholder", "alt"])
      found.push((element.getAttribute(name) ?? "").trim());
  return [...new Set(found)].filter(Boolean);
}"""


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [each for key, inner in value.items() for each in (key, *strings(inner))]
    if isinstance(value, list):
        return [each for inner in value for each in strings(inner)]
    return [value] if isinstance(value, str) else []


def outside(text: str) -> str:
    """The part of a text that is in no brackets."""
    while "⟦" in text:
        text, before = re.sub(r"⟦[^⟦⟧]*⟧", " ", text), text
        if text == before:
            break
    return text.strip()


#: What the server says: each name and value in these answers is data.
ANSWERS = (
    *(
        "/v1/models/instances",
        "/v1/devices",
        "/v1/settings",
        "/status",
        "/v1/usage",
        "/openapi.json",
        "/v1/launch_history",
        "/v1/requests?limit=200",
        "/v1/virtualenvs",
        "/v1/models/shown/engine",
        "/v1/doctor",
    ),
    *("/v1/models/shown/events", "/v1/models/shown/logs", "/v1/fits?part=qwen3", "/v1/engines/LLM/qwen3?detailed=true"),
    "/v1/model_registrations/LLM?detailed=true",
)


def said(home: ScriptedHome) -> str:
    """All that the server says on these pages."""
    client = httpx2.Client(base_url=home.url, timeout=90)
    answers = [client.get(path) for path in ANSWERS]
    answers.append(client.post("/v1/models?dry_run=true", json={"model_name": "qwen3"}))
    return "\n".join(
        "\n".join(strings(each.json())) if "json" in each.headers["content-type"] else each.text for each in answers
    )


def test_every_text_is_translated(home: ScriptedHome, open_page: Open) -> None:
    assert home.post_launch("shown").status_code == 200
    page, _ = open_page(home)
    page.locator("main h1").wait_for()
    look(page, theme="light", language="pseudo")
    data = said(home)
    untranslated: dict[str, list[str]] = {}
    without_chinese: set[str] = set()
    seen = 0
    for name in PAGES:
        visit(page, name)
        texts: list[str] = page.evaluate(TEXTS)
        seen += sum("⟦" in text for text in texts)
        without_chinese.update(text for text in texts if "⟦!" in text)
        words = [word for text in texts for word in re.split(r"[\s·/|(),:;=]+", outside(text)) if word]
        unknown = [word for word in words if word not in NAMES and not NUMBER.fullmatch(word) and word not in data]
        if unknown:
            untranslated[name] = unknown
    assert seen > 200
    assert without_chinese == set()
    assert not untranslated, "\n".join(f"{name}: {words}" for name, words in untranslated.items())


def test_a_list_in_chinese_has_chinese_commas(home: ScriptedHome, open_page: Open) -> None:
    page, _ = open_page(home, "#/machine")
    page.get_by_text("Disk: home folder, weights, environments").wait_for()
    look(page, theme="light", language="zh")
    page.get_by_text("磁盘：主目录、权重、环境").wait_for()
