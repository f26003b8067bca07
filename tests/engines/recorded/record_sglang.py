"""Records the values that SGLang's command line and parsers accept, from its sources, without importing them.

    python -m tests.engines.recorded.record_sglang FOLDER > tests/engines/recorded/sglang-VERSION.json

FOLDER has the unpacked wheel: its folder ``sglang`` is read. SGLang can't be installed on a machine without a GPU.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path


def names(file: Path, variable: str) -> list[str]:
    """The text items of a list, or the text keys of a dictionary, that are assigned to a name in a file."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        else:
            continue
        if any(isinstance(target, ast.Name) and target.id == variable for target in targets):
            assert node.value is not None
            items = node.value.keys if isinstance(node.value, ast.Dict) else getattr(node.value, "elts", [])
            return sorted({str(item.value) for item in items if isinstance(item, ast.Constant)})
    raise LookupError(f"{file} has no {variable}")


def main(folder: Path) -> None:
    sources = folder / "sglang" / "srt"
    choices = sources / "arg_groups" / "choices.py"
    recorded = {
        "quantization": names(choices, "QUANTIZATION_CHOICES"),
        "load_format": names(choices, "LOAD_FORMAT_CHOICES"),
        "tool_call_parser": names(sources / "function_call" / "function_call_parser.py", "ToolCallParserEnum"),
        "reasoning_parser": names(sources / "parser" / "reasoning_parser.py", "DetectorMap"),
    }
    sys.stdout.write(json.dumps(recorded, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
