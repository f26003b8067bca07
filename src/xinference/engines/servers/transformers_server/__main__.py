"""``python -I <this folder> --port 8080`` starts the server."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

# Started by path, Python puts this folder itself on the path, where a module of ours would hide a package's name.
sys.path[0] = str(Path(__file__).parent.parent)

if __name__ == "__main__":
    sys.exit(importlib.import_module("transformers_server.serve").main())
