"""Writes the built-in registry from the facts: ``python -m xinference.catalog.facts FACTS_DIR [OUT]``.

Prints the tables of differences between the facts and the registry.

A tool for developers; `docs/catalog.md` describes the files. FACTS_DIR has `llm.json`, `embedding.json`, `rerank.json`
and the folder `own` with the project's own families, which are kept where both have an entry.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, cast

from xinference.catalog.check import check_family
from xinference.catalog.fact_conversion import convert
from xinference.catalog.fact_differences import all_differences, table, table_of_bytes
from xinference.catalog.fact_files import read_facts
from xinference.catalog.family_fields import fields_of
from xinference.catalog.models import ModelFamily, ModelType
from xinference.catalog.registry import read_family

BUILTIN = Path(__file__).with_name("builtin")


def families_of(folder: Path) -> dict[str, ModelFamily]:
    """Every family of the registry by its name, in the order of the names.

    Raises:
        Problem: 400 ``bad_registry_entry``.
    """
    own = own_families(folder)
    families = dict(own)
    for model_type, facts in read_facts(folder).items():
        for each in facts:
            families[each.name] = convert(each, cast(ModelType, model_type), own.get(each.name))
    for family in families.values():
        check_family(family, family.model_name)
    return dict(sorted(families.items()))


def own_families(folder: Path) -> dict[str, ModelFamily]:
    """The project's own families."""
    read = (read_family(path.read_bytes(), path.name) for path in sorted((folder / "own").glob("*.json")))
    return {family.model_name: family for family in read}


def written(family: ModelFamily) -> str:
    """The text of a family's file: one line for each field and each spec, without what is the default."""
    fields = fields_of(family)
    specs = fields.pop("model_specs")
    lines = [f"  {json.dumps(name)}: {_line(value)}" for name, value in fields.items()]
    each = ",\n".join(f"    {_line(spec)}" for spec in specs)
    return "{\n" + ",\n".join([*lines, f'  "model_specs": [\n{each}\n  ]']) + "\n}\n"


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def main(folder: Path, out: Path) -> str:
    """Write the files into `out`; returns the tables of differences."""
    families = families_of(folder)
    out.mkdir(exist_ok=True)
    names = {f"{name}.json" for name in families}
    for old in out.glob("*.json"):
        if old.name not in names:
            old.unlink()
    for name, family in families.items():
        (out / f"{name}.json").write_text(written(family), encoding="utf-8", newline="\n")
    return f"{table(all_differences(read_facts(folder), families))}\n{table_of_bytes()}"


if __name__ == "__main__":
    sys.stdout.write(main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else BUILTIN))
