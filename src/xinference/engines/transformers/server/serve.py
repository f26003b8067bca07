"""The program: parameters as JSON in ``XINFERENCE_TRANSFORMERS_PARAMS``, the key in ``XINFERENCE_ENGINE_KEY``.

Both stay out of the process list, and are removed from the environment at the start.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from types import FrameType
from typing import Any

# Set before transformers is imported, which reads them once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# When other programs run on this machine, threads that wait by spinning occupy the processor of the other threads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
import uvicorn

from .common_routes import CommonRoutes, build_app
from .errors import LoadError

DEFAULT_SEQUENCES = 16


class QuickServer(uvicorn.Server):
    """Ends at once on a signal, without its open answers; the gateway reports their loss."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        sys.stdout.flush()
        os._exit(0)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    params = json.loads(os.environ.pop("XINFERENCE_TRANSFORMERS_PARAMS"))
    return serve(port, os.environ.pop("XINFERENCE_ENGINE_KEY"), params)


def serve(port: int, key: str, params: dict[str, Any]) -> int:
    """Load the model and serve until SIGTERM. If the load fails, this process exits with status 1."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if params.get("threads"):
        torch.set_num_threads(params["threads"])
    began = time.monotonic()
    load = _load_generating if params.get("model_type", "LLM") == "LLM" else _load_pooled
    try:
        loaded, routes = load(params)
    except (LoadError, OSError, ValueError, ImportError, RuntimeError) as error:
        print(f"transformers could not load the model: {error}", file=sys.stderr, flush=True)
        return 1
    print(
        f"loaded {type(loaded.model).__name__} as {loaded.dtype} on {loaded.device} in "
        f"{time.monotonic() - began:.1f} s; listening on 127.0.0.1:{port}",
        flush=True,
    )
    app = build_app(routes, key)
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)
    QuickServer(config).run()
    return 0


# Each kind of model imports only its own modules.


def _load_generating(params: dict[str, Any]) -> tuple[Any, CommonRoutes]:
    from .app import ModelRoutes
    from .loading import load
    from .scheduler import Scheduler
    from .speculation import MOST_DRAFTED

    loaded = load(params)
    most_drafted = params.get("prompt_lookup_num_tokens", MOST_DRAFTED)
    scheduler = Scheduler(loaded, params.get("max_num_seqs") or DEFAULT_SEQUENCES, most_drafted)
    scheduler.start()
    return loaded, ModelRoutes(loaded, params["uid"], scheduler)


def _load_pooled(params: dict[str, Any]) -> tuple[Any, CommonRoutes]:
    from .pooled_app import PooledRoutes
    from .pooled_model import load_pooled
    from .pooled_scheduler import PooledScheduler

    loaded = load_pooled(params)
    scheduler = PooledScheduler(loaded)
    scheduler.start()
    return loaded, PooledRoutes(loaded, params["uid"], scheduler)
