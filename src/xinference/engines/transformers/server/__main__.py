"""``python -I <this folder> --port 8080`` starts the server."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

NAME = "transformers_server"
FOLDER = Path(__file__).parent


def load_package() -> None:
    """Make this folder importable as the package `NAME`, without adding a folder to the module search path.

    A folder there would shadow packages of the environment: `engines/` has a `transformers`, and this one a `cache`.
    """
    del sys.path[0]  # this folder: Python adds it when it runs a folder
    spec = importlib.util.spec_from_file_location(
        NAME, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    load_package()
    sys.exit(importlib.import_module(f"{NAME}.serve").main())
