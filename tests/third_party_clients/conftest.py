"""One server with a chat, an embedding and a rerank model, launched once for every client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.formats.gguf_model import write_gguf
from tests.live.conftest import weights_cache
from tests.support.home import UID, Home
from tests.support.ports import free_port
from tests.third_party_clients.asking import CHAT, CONTEXT, EMBED, RERANK

__all__ = ["weights_cache"]
#: Threads of llama.cpp wait for each other at every step of a token by spinning: on a machine with more to do than
#: cores, two threads take minutes for the few tokens that one takes seconds for.
ONE_THREAD = {"n_threads": 1}
HF = Path(__file__).parent.parent / "assets" / "tiny-llama2-chat-hf"


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 3 MB: what it says means little, but it says it as a large one would."""
    return write_gguf(HF, "Q8_0", tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, weights_cache: Path, tiny_gguf: Path) -> Iterator[Home]:
    path = tmp_path_factory.mktemp("home")
    # The numbers of the poolings are llama.cpp's: 1 is the mean, 4 a score.
    ranker = write_gguf(HF, "Q8_0", path / "ranker.gguf", {"llama.pooling_type": 4})
    (path / "cache").symlink_to(weights_cache)
    home = Home(path, free_port())
    try:
        home.serve()
        options = {"n_ctx": 8191, "n_parallel": 4} | ONE_THREAD
        launched = home.launch(model_name=UID, quantization="Q4_1", model_uid=CHAT, **options)
        assert launched.status_code == 200, launched.text
        tiny = {"model_format": "ggufv2", "model_path": str(tiny_gguf), "n_ctx": CONTEXT} | ONE_THREAD
        # The tiny model's file names no pooling, which a real embedding model's does.
        vectors = {"model_name": "bge-m3", "model_type": "embedding", "model_uid": EMBED, "pooling_type": "mean"}
        order = {
            "model_name": "bge-reranker-v2-m3",
            "model_type": "rerank",
            "model_uid": RERANK,
            "model_path": str(ranker),
        }
        for fields in (vectors, order):
            launched = home.launch(**tiny | fields)
            assert launched.status_code == 200, launched.text
        yield home
    finally:
        home.clean_up()


@pytest.fixture
def url(home: Home) -> str:
    return home.url
