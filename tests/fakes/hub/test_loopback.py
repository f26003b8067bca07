from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.fakes.hub.llama2 import llama2_hub
from tests.fakes.hub.loopback import serve
from xinference.catalog.models import ModelVersion
from xinference.catalog.registry import builtin_families
from xinference.config import Settings
from xinference.hubs.registry import all_hubs

ASSETS = Path(__file__).parents[2] / "assets" / "tiny-llama2-chat-hf"


def test_every_file_of_the_page_is_served_under_its_real_name(tmp_path: Path) -> None:
    hub = llama2_hub(ASSETS, tmp_path)
    names = [name for repo in hub.huggingface.values() for name in repo.files]
    assert sum(".ggmlv3." in name for name in names) == 42
    assert sum(name.endswith(".gguf") for name in names) == 34
    assert "llama-2-70b-chat.Q5_K_M.gguf" in hub.huggingface["TheBloke/Llama-2-70B-Chat-GGUF"].files
    assert list(hub.modelscope["Xorbits/Llama-2-7b-Chat-GGUF"].revisions) == ["master", "v0.0.1"]


@pytest.mark.thorough
def test_the_real_clients_fetch_the_page_models_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = builtin_families()["llama-2-chat"]
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    with serve(llama2_hub(ASSETS, tmp_path / "made")) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
        hubs = all_hubs(Settings(home=tmp_path / "home"))
        for spec in family.model_specs:
            for source in spec.sources:
                quantization = (source.quantizations or spec.quantizations)[0]
                version = ModelVersion(family=family, spec=spec, quantization=quantization)
                if spec.model_format in ("gptq", "awq") or version.size != "7":
                    continue
                path = hubs[source.hub].fetch(version, source, lambda *_: None, threading.Event())
                assert path.is_dir() == (spec.model_format == "pytorch")
                assert hubs[source.hub].find_cached(version, source) == path


@pytest.mark.process
def test_it_runs_as_a_program(tmp_path: Path) -> None:
    arguments = ["--assets", str(ASSETS), "--made", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.hub.loopback", *arguments],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        host, _, port = process.stdout.readline().strip().removeprefix("http://").partition(":")
        socket.create_connection((host, int(port))).close()
    finally:
        process.kill()
        process.communicate()
