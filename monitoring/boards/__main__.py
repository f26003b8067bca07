"""Writes the boards for Grafana: python -m monitoring.boards

Each board is a list of rows; a row is a list of panels. A test runs every query against a real scrape.
"""

from __future__ import annotations

import json
from pathlib import Path

from monitoring.boards.devices import DEVICES
from monitoring.boards.grafana import as_json
from monitoring.boards.model import MODEL_BOARD
from monitoring.boards.overview import OVERVIEW

FOLDER = Path(__file__).parents[1] / "grafana"
BOARDS = {"overview": OVERVIEW, "model": MODEL_BOARD, "devices": DEVICES}


def write(folder: Path = FOLDER) -> None:
    """Write all boards."""
    folder.mkdir(exist_ok=True)
    for name, board in BOARDS.items():
        (folder / f"{name}.json").write_text(json.dumps(as_json(board), indent=2) + "\n")


if __name__ == "__main__":
    write()
