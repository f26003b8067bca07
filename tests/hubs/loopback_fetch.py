"""One hub of the loopback server, seen through our own code: what the tests of both hubs share."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.hub.loopback import LoopbackHub
from tests.fakes.hub.repositories import Content, repository
from xinference.catalog.models import HubName, ModelFamily, ModelFormat, ModelSpec, ModelVersion, Source
from xinference.config import Settings
from xinference.errors import Problem
from xinference.hubs.registry import all_hubs

COMMIT = "08751db2aca9bf2f7f80d2e516117a53d7450235"
BYTES = random.Random(1).randbytes(1_000_000)
FOLDER: dict[str, Content] = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model-00001-of-00002.safetensors": BYTES,
    "model-00002-of-00002.safetensors": BYTES[::-1],
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "pytorch_model.bin": BYTES,
    "README.md": b"# tiny",
    "original/consolidated.00.pth": BYTES,
}
CHOSEN = sorted(n for n in FOLDER if n.startswith(("config", "tokenizer", "model")))


@dataclass
class Fetching:
    """A hub's client in a temporary home, and what one fetch of it told."""

    name: HubName
    server: LoopbackHub
    home: Path
    seen: list[tuple[int, int | None, str]] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    offline: bool = False
    cancel_at: int | None = None
    """Cancels the fetch once so many bytes have arrived."""

    def serve(self, files: dict[str, Content], admitted: tuple[str, ...] | None = None, id: str = "tiny/llama") -> None:
        revisions = ("main", COMMIT) if self.name == "huggingface" else ("master", "v1.0")
        repos = self.server.huggingface if self.name == "huggingface" else self.server.modelscope
        repos[id] = repository(id, files, revisions, admitted=admitted)

    def __call__(self, version: ModelVersion) -> Path:
        hub = all_hubs(Settings(home=self.home, offline=self.offline))[self.name]
        return hub.fetch(version, version.spec.sources[0], self._progress, self.cancelled)

    def cached(self, version: ModelVersion) -> Path | None:
        hub = all_hubs(Settings(home=self.home, offline=self.offline))[self.name]
        return hub.find_cached(version, version.spec.sources[0])

    def problem(self, version: ModelVersion) -> Problem:
        """The problem that a fetch ends with."""
        try:
            path = self(version)
        except Problem as problem:
            return problem
        raise AssertionError(f"it fetched {path}")

    def version(self, file: str | None = None, revision: str | None = None, **changes: Any) -> ModelVersion:
        """The served repository's only version: one file (`ggmlv3`), or the folder (`pytorch`)."""
        fields: dict[str, Any] = {
            "hub": self.name,
            "model_id": "tiny/llama",
            "file": file,
            "revision": revision,
            **changes,
        }
        source = Source(**fields)
        return version_of("pytorch" if file is None else "ggmlv3", source)

    def _progress(self, done: int, total: int | None, file: str) -> None:
        self.seen.append((done, total, file))
        if self.cancel_at is not None and done >= self.cancel_at:
            self.cancelled.set()


def version_of(model_format: ModelFormat, *sources: Source) -> ModelVersion:
    spec = ModelSpec(model_format=model_format, model_size_in_billions=1, quantizations=("none",), sources=sources)
    family = ModelFamily(
        model_name="tiny", context_length=64, model_lang=("en",), model_ability=("chat",), model_specs=(spec,)
    )
    return ModelVersion(family=family, spec=spec, quantization="none")
