"""Models that see on llama.cpp: with a projector beside the weights, named, registered, wrong or missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conformance.__main__ import ASSETS, hub_environment
from tests.fakes.hub.loopback import LoopbackHub, serve
from tests.fakes.hub.repositories import repository
from tests.formats.gguf_model import write_gguf
from tests.formats.mmproj_writer import TOKENS, write_mmproj
from tests.live.pictures import data_uri, png
from tests.support.home import Home

WIDTH = json.loads((ASSETS / "config.json").read_text())["hidden_size"]
TEXT = {"type": "text", "text": "Hi"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model and its only projector."""
    folder = tmp_path_factory.mktemp("weights")
    write_gguf(ASSETS, "Q8_0", folder / "tiny.Q8_0.gguf")
    write_mmproj(folder / "mmproj-tiny-f32.gguf", WIDTH)
    return folder


@pytest.fixture(scope="module")
def alone(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with no projector beside it."""
    file = tmp_path_factory.mktemp("alone") / "tiny.Q8_0.gguf"
    file.symlink_to(weights / "tiny.Q8_0.gguf")
    return file


@pytest.fixture(scope="module")
def hub(weights: Path) -> Iterator[LoopbackHub]:
    files: dict[str, Any] = {path.name: path for path in weights.iterdir()}
    two = files | {"mmproj-tiny-f16.gguf": weights / "mmproj-tiny-f32.gguf"}
    with serve(LoopbackHub([repository("me/Sees", files, ("main",)), repository("me/Two", two, ("main",))])) as served:
        yield served


@pytest.fixture(scope="module")
def home(make_home: Callable[..., Home], hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = make_home(**hub_environment(tmp_path_factory.mktemp("caches"), hub.url))
    home.serve()
    return home


@pytest.fixture(scope="module")
def seeing(home: Home, weights: Path) -> Home:
    """The model launched by its folder alone."""
    answer = home.launch(model_name=str(weights), model_uid="seeing")
    assert answer.status_code == 200, answer.text
    return home


def picture(url: str | None = None) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_uri() if url is None else url}}


def ask(home: Home, *parts: dict[str, Any], uid: str = "seeing", **fields: Any) -> httpx2.Response:
    return home.chat(model=uid, messages=[{"role": "user", "content": list(parts)}], **fields)


def sees(home: Home, uid: str) -> bool:
    """Whether a picture costs a prompt its tokens."""
    blind, seen = ask(home, TEXT, uid=uid), ask(home, TEXT, picture(), uid=uid)
    assert (blind.status_code, seen.status_code) == (200, 200), seen.text
    abilities = httpx2.get(f"{home.url}/v1/models/{uid}", timeout=10).json()["model_ability"]
    more = seen.json()["usage"]["prompt_tokens"] - blind.json()["usage"]["prompt_tokens"]
    return bool(TOKENS <= more <= TOKENS + 4 and "vision" in abilities and seen.json()["choices"][0]["message"])


def terminate(home: Home, uid: str) -> None:
    assert httpx2.delete(f"{home.url}/v1/models/{uid}", timeout=30).status_code == 200


def test_a_projector_beside_the_weights_is_used_and_a_picture_costs_its_tokens(seeing: Home) -> None:
    assert sees(seeing, "seeing")
    two = ask(seeing, TEXT, picture(), picture()).json()["usage"]["prompt_tokens"]
    assert two >= ask(seeing, TEXT, picture()).json()["usage"]["prompt_tokens"] + TOKENS


def test_what_is_seen_changes_the_answer(seeing: Home) -> None:
    said = [
        ask(seeing, TEXT, picture(data_uri(png(colour=colour))), temperature=0, logprobs=True).json()
        for colour in ((0, 0, 0), (255, 255, 255))
    ]
    scores = [answer["choices"][0]["logprobs"]["content"][0]["logprob"] for answer in said]
    assert scores[0] != scores[1]


def test_a_picture_is_taken_on_streams_and_by_the_other_apis(seeing: Home) -> None:
    streamed = ask(seeing, TEXT, picture(), stream=True, stream_options={"include_usage": True})
    assert streamed.status_code == 200 and streamed.text.rstrip().endswith("data: [DONE]")
    source = {"type": "base64", "media_type": "image/png", "data": data_uri().partition(",")[2]}
    message = {"role": "user", "content": [TEXT, {"type": "image", "source": source}]}
    said = httpx2.post(
        f"{seeing.url}/v1/messages",
        json={"model": "seeing", "max_tokens": 4, "messages": [message]},
        headers={"anthropic-version": "2023-06-01"},
        timeout=60,
    )
    assert said.status_code == 200, said.text
    usage = said.json()["usage"]
    assert usage["input_tokens"] + usage.get("cache_read_input_tokens", 0) > TOKENS
    item = {"role": "user", "content": [{"type": "input_text", "text": "Hi"},
                                        {"type": "input_image", "image_url": data_uri()}]}  # fmt: skip
    answered = httpx2.post(
        f"{seeing.url}/v1/responses", json={"model": "seeing", "max_output_tokens": 4, "input": [item]}, timeout=60
    )
    assert answered.status_code == 200, answered.text
    assert answered.json()["usage"]["input_tokens"] > TOKENS


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/a.png", "file:///etc/hostname", data_uri(b"no picture"), "data:image/png;base64,"]
)
def test_pictures_that_are_elsewhere_or_none_are_refused(seeing: Home, url: str) -> None:
    refused = ask(seeing, TEXT, picture(url))
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["message"]
    assert ask(seeing, TEXT).status_code == 200


def test_the_projectors_bytes_are_in_the_plan(home: Home, weights: Path) -> None:
    plans = [
        json.loads(home.cli("launch", "--dry-run", "--json", "--model-name", str(weights), *words).stdout)
        for words in ((), ("--no_mmproj", "true"))
    ]
    plans = [plan.get("plan", plan) for plan in plans]
    difference = plans[0]["memory"]["weights"] - plans[1]["memory"]["weights"]
    assert difference == (weights / "mmproj-tiny-f32.gguf").stat().st_size


@pytest.mark.parametrize("name", ["mmproj", "multimodal_projector"])
def test_a_projector_is_named_by_its_path(home: Home, weights: Path, alone: Path, name: str) -> None:
    uid = f"by-{name}"
    words = ("launch", "--model-name", str(alone), "--model-uid", uid)
    launched = home.cli(*words, f"--{name}", str(weights / "mmproj-tiny-f32.gguf"))
    assert launched.returncode == 0, launched.stderr
    assert sees(home, uid)
    terminate(home, uid)


def test_a_model_without_a_projector_says_that_it_can_t_see(home: Home, alone: Path) -> None:
    assert home.launch(model_name=str(alone), model_uid="blind").status_code == 200
    refused = ask(home, TEXT, picture(), uid="blind")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported_content")
    assert "vision" not in httpx2.get(f"{home.url}/v1/models/blind", timeout=10).json()["model_ability"]
    terminate(home, "blind")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("wide", "width of 128, and this model's is 256"),
        ("cut", "is truncated"),
        ("kind", "damaged, or llama.cpp does not support its type"),
        ("model", "is not a projector but a separate model"),
        ("missing", "does not exist"),
    ],
)
def test_a_projector_that_can_t_be_used_is_named_when_the_model_is_launched(
    home: Home, weights: Path, alone: Path, tmp_path: Path, what: str, words: str
) -> None:
    file = tmp_path / f"mmproj-{what}.gguf"
    if what == "wide":
        write_mmproj(file, WIDTH // 2)
    elif what == "kind":
        write_mmproj(file, WIDTH, projector="nothing")
    elif what == "cut":
        whole = (weights / "mmproj-tiny-f32.gguf").read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
    elif what == "model":
        file.symlink_to(alone)
    refused = home.launch(model_name=str(alone), model_uid="wrong", mmproj=str(file))
    assert refused.status_code >= 400 and file.name in refused.text, refused.text
    assert words in refused.text, refused.text
    httpx2.delete(f"{home.url}/v1/models/wrong", timeout=30)


def test_a_repositorys_only_projector_is_fetched_with_its_weights(home: Home) -> None:
    assert home.launch(model_name="me/Sees", model_uid="of-hub").status_code == 200
    assert sees(home, "of-hub")
    terminate(home, "of-hub")


def test_of_a_repositorys_projectors_one_is_named(home: Home) -> None:
    told = home.cli("launch", "--dry-run", "--model-name", "me/Two").stdout
    assert "mmproj-tiny-f16.gguf, mmproj-tiny-f32.gguf" in told
    wrong = home.launch(model_name="me/Two", mmproj="mmproj-q8.gguf")
    assert wrong.status_code == 400 and "mmproj-tiny-f16.gguf" in wrong.text
    assert home.launch(model_name="me/Two", model_uid="two", mmproj="mmproj-tiny-f16.gguf").status_code == 200
    assert sees(home, "two")
    terminate(home, "two")


@pytest.mark.parametrize("place", ["folder", "hub"])
def test_a_registration_names_its_projector(home: Home, weights: Path, place: str) -> None:
    where = {"model_uri": f"file://{weights}"} if place == "folder" else {"model_id": "me/Two"}
    spec = {
        "model_format": "ggufv2",
        "model_size_in_billions": 1,
        "quantization": "Q8_0",
        "model_file_name_template": "tiny.{quantization}.gguf",
        "multimodal_projectors": ["mmproj-tiny-f32.gguf"],
        **where,
    }
    model = {
        "version": 2,
        "context_length": 2048,
        "model_name": f"sees-{place}",
        "model_lang": ["en"],
        "model_ability": ["chat", "vision"],
        "model_family": "other",
        "model_specs": [spec],
        "chat_template": "llama-2-chat",
    }
    body = {"model": json.dumps(model), "persist": False}
    kept = httpx2.post(f"{home.url}/v1/model_registrations/LLM", json=body, timeout=30)
    assert kept.status_code == 200, kept.text
    launched = home.launch(model_name=f"sees-{place}")
    assert launched.status_code == 200, launched.text
    assert sees(home, f"sees-{place}")
    terminate(home, f"sees-{place}")
