"""An `xllamacpp` that computes nothing, for an older Xinference: prepared answers, whatever the request.

A folder with this file alone is first on the PYTHONPATH of `upstream_xinference`'s server. It has the names that the
server's llama.cpp model uses of that library, and no code of either.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from types import SimpleNamespace
from typing import Any

__version__ = "0.2.6"

_COMMON: dict[str, object] = {"id": "chatcmpl-JmVY8cD6yNRZ3ndDWXVsWVXy9pzLh0Ku", "created": 1763900000}
_COMMON |= {"model": "costless", "system_fingerprint": "b7097-costless"}


def _chunk(delta: dict[str, str], finish: str | None = None) -> dict[str, object]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {**_COMMON, "object": "chat.completion.chunk", "choices": [choice]}


TOKEN = _chunk({"content": " token"})
END = _chunk({}, "stop")
ANSWER: dict[str, object] = {
    **_COMMON,
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello there."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}


class CommonParams(SimpleNamespace):
    """Accepts any parameters."""

    def __init__(self) -> None:
        super().__init__(n_ctx=0, n_batch=0, n_parallel=1, n_gpu_layers=0)
        self.model, self.mmproj = SimpleNamespace(), SimpleNamespace()
        self.cpuparams, self.cpuparams_batch = SimpleNamespace(), SimpleNamespace()


class Server:
    """Answers at once, with the requested number of chunks."""

    def __init__(self, params: CommonParams) -> None:
        pass

    def handle_chat_completions(self, data: dict[str, Any], answer: Callable[[dict[str, object]], None]) -> None:
        """Call `answer` with each chunk, or with the whole answer."""
        if not data["stream"]:
            answer(ANSWER)
            return
        answer(_chunk({"content": " token"}))  # a separate chunk: the server writes the role into it
        for _ in range(data["max_tokens"] - 1):
            answer(TOKEN)
        answer(END)


class ggml_backend_dev_type(Enum):
    """No device is of this type."""

    GGML_BACKEND_DEVICE_TYPE_GPU = 0


def get_device_info() -> list[dict[str, object]]:
    """No devices."""
    return []


def estimate_gpu_layers(**_: object) -> None:
    """Never called, as there are no devices."""
