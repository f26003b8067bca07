"""The table of docs/engines.md with the forms of tool calls is that of the families and the engines' parsers."""

from __future__ import annotations

from pathlib import Path

from tests.engines.recorded.llama_cpp_streams import FORMS
from xinference.catalog.models import ModelFamily
from xinference.catalog.registry import builtin_families
from xinference.engines.sglang.parsers import PARSERS as SGLANG
from xinference.engines.transformers.engine import TOOL_FORMS
from xinference.engines.vllm.parsers import PARSERS as VLLM

PAGE = Path(__file__).parents[2] / "docs" / "engines.md"
HEAD = "| form | families | llama.cpp | vLLM | SGLang | Transformers |\n|---|---|---|---|---|---|\n"


def table() -> str:
    families = [each for each in builtin_families().values() if each.model_type == "LLM" and each.tool_parser]
    calling = [family for family in families if "tools" in family.model_ability]
    forms = sorted({str(family.tool_parser) for family in calling})
    return HEAD + "".join(_row(form, [each for each in calling if each.tool_parser == form]) for form in forms)


def _row(form: str, families: list[ModelFamily]) -> str:
    in_gguf = any(spec.model_format == "ggufv2" for family in families for spec in family.model_specs)
    cells = (
        f"`{form}`",
        str(len(families)),
        ("yes" if form in FORMS else "no") if in_gguf else "no GGUF",
        _named(VLLM.tool_parser(families[0])),
        _named(SGLANG.tool_parser(families[0])),
        "yes" if form in TOOL_FORMS else "no",
    )
    return f"| {' | '.join(cells)} |\n"


def _named(parser: str | None) -> str:
    return f"`{parser}`" if parser else "no"


def test_the_page_has_the_table_of_forms() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), table()
