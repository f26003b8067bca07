"""Images on the Transformers server: tiny models of each architecture give the tokens of transformers' `generate`."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.live.pictures import data_uri, png
from tests.live.transformers_engine import UID, RunningEngine, engine, python_of_environment
from tests.support.built_environments import require_environment
from tests.support.home import Home
from xinference.engines.transformers.engine import PROGRAM
from xinference.engines.transformers.server.vision_architectures import WITH_IMAGES

pytestmark = pytest.mark.timeout(600)
MODELS = Path(__file__).with_name("vision_models.py")
NAMES = (
    "llava", "llava_next", "llava_onevision", "idefics3", "smolvlm", "qwen2_vl", "qwen2_5_vl", "qwen3_vl",
    "qwen3_vl_moe", "gemma3", "internvl",
)  # fmt: skip
QUESTION = "what is in this image"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny models, with the answers of plain transformers and of the server's modules."""
    folder = tmp_path_factory.mktemp("vision-models")
    words = [str(word) for word in (python_of_environment(), "-I", MODELS, folder, PROGRAM)]
    ended = subprocess.run(words, timeout=500, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder


def read(made: Path, name: str) -> Any:
    return json.loads((made / name).read_text(encoding="utf-8"))


def test_each_architecture_that_the_server_takes_has_a_tiny_model(made: Path) -> None:
    configs = [json.loads((made / name / "config.json").read_text(encoding="utf-8")) for name in NAMES]
    assert {config["architectures"][0] for config in configs} == WITH_IMAGES


@pytest.mark.parametrize("name", NAMES)
def test_the_tokens_of_a_batch_are_those_of_generate_alone(made: Path, name: str) -> None:
    """One image, another with the same token ids, two in one prompt, and text, each twice at the same moment."""
    expected = read(made, "expected.json")[name]
    assert len({tuple(case["tokens"]) for case in expected.values()}) == len(expected), "the images change the answer"
    for answers in read(made, "made.json")[name].values():
        assert len(answers) == 2 * len(expected)
        for answer in answers:
            case = expected[answer["case"]]
            assert (answer["prompt"], answer["tokens"]) == (case["prompt"], case["tokens"]), answer["case"]
            assert answer["logprobs"] == pytest.approx(case["logprobs"], abs=1e-3)


# -- one of them over HTTP -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llava(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    log = tmp_path_factory.mktemp("engine") / "log"
    with engine(log, model_path=str(made / "llava"), context_length=60) as running:
        yield running


def link(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def ask(running: RunningEngine, *urls: str, text: str = QUESTION, **fields: Any) -> httpx2.Response:
    content = [*map(link, urls), {"type": "text", "text": text}]
    body = {"model": UID, "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 12}
    return running.post("/v1/chat/completions", **body | fields)


def uri(made: Path, name: str) -> str:
    return f"data:image/png;base64,{base64.b64encode((made / name).read_bytes()).decode()}"


def content_of(answer: httpx2.Response) -> str:
    assert answer.status_code == 200, answer.text
    content: str = answer.json()["choices"][0]["message"]["content"]
    return content


def test_streams_and_whole_answers_at_the_same_time_are_those_of_generate(llava: RunningEngine, made: Path) -> None:
    expected = read(made, "expected.json")["llava"]
    cases = {"red": ("red.png",), "wide": ("wide.png",), "text": ()}

    def whole(case: str) -> str:
        urls = [uri(made, name) for name in cases[case]]
        return content_of(ask(llava, *urls, text=QUESTION if urls else "who are you"))

    def streamed(case: str) -> str:
        content = [*(link(uri(made, name)) for name in cases[case]), {"type": "text", "text": QUESTION}]
        text = content if cases[case] else "who are you"
        chunks = llava.stream("/v1/chat/completions", messages=[{"role": "user", "content": text}], max_tokens=12)
        return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1])

    with ThreadPoolExecutor(6) as pool:
        answers = [(case, pool.submit(way, case)) for case in cases for way in (whole, streamed)]
        assert all(answer.result() == expected[case]["text"] for case, answer in answers)


def test_usage_and_tokenize_count_the_tokens_of_images(llava: RunningEngine, made: Path) -> None:
    expected = read(made, "expected.json")["llava"]["both"]["prompt"]
    urls = [uri(made, name) for name in ("red.png", "wide.png")]
    text = "who eats grass in this image"
    assert ask(llava, *urls, text=text).json()["usage"]["prompt_tokens"] == len(expected)
    messages = [{"role": "user", "content": [*map(link, urls), {"type": "text", "text": text}]}]
    assert llava.post("/tokenize", model=UID, messages=messages).json()["tokens"] == expected
    prompt = llava.post("/apply-template", model=UID, messages=messages).json()["prompt"]
    assert prompt.count("<image>") == 2


def test_two_choices_of_one_image_are_the_same(llava: RunningEngine, made: Path) -> None:
    choices = ask(llava, uri(made, "red.png"), n=2).json()["choices"]
    assert {choice["message"]["content"] for choice in choices} == {read(made, "expected.json")["llava"]["red"]["text"]}


def test_images_that_do_not_fit_the_context_are_a_400_with_both_numbers(llava: RunningEngine) -> None:
    refused = ask(llava, *[data_uri()] * 4)
    error = refused.json()["error"]
    assert (refused.status_code, error["type"], error["n_ctx"]) == (400, "exceed_context_size_error", 60)
    assert error["n_prompt_tokens"] > 4 * 16


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://example.com/a.png", "a data: URL is expected"),
        ("data:image/png,abc", "base64 is expected"),
        ("data:text/html;base64,PGI+", "'text/html' is not one of"),
        ("data:image/svg+xml;base64,PHN2Zy8+", "'image/svg+xml' is not one of"),
        ("data:image/png;base64,", "the image has no data"),
        ("data:image/png;base64,@@@@", "not base64"),
        (data_uri(b"no image"), "not a PNG, JPEG, WebP or GIF image"),
        (data_uri(b"BM" + bytes(60)), "not a PNG, JPEG, WebP or GIF image"),
        (data_uri(png(200, 200)[:-60]), "damaged or truncated"),
        (data_uri(png(9000, 9000)), "9000 x 9000 pixels are too many"),
        (data_uri(png(70000, 1)), "a side of 70000 pixels is longer than 65535"),
        (data_uri(png(1, 201)), "of 1 x 201 pixels, one side is more than 200 times as long as the other"),
    ],
)
def test_a_wrong_image_is_a_400_that_names_its_part(llava: RunningEngine, url: str, words: str) -> None:
    refused = ask(llava, data_uri(), url)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "invalid_media"), refused.text
    assert error["param"] == "messages[0].content[1].image_url" and words in error["message"]
    assert error["message"].startswith("messages[0].content[1].image_url: ")


def test_more_images_than_allowed_are_a_400_that_names_the_first_of_them(llava: RunningEngine) -> None:
    error = ask(llava, *[data_uri()] * 17).json()["error"]
    assert error["param"] == "messages[0].content[16].image_url" and "at most 16 images" in error["message"]


def test_the_mark_of_an_image_in_the_text_is_no_image(llava: RunningEngine) -> None:
    assert ask(llava, data_uri(), text="what is <image> in this").status_code == 400
    assert ask(llava, text="what is <image> in this").status_code == 200


def test_the_token_of_an_image_in_the_text_is_refused_where_the_mark_is_another(made: Path, tmp_path: Path) -> None:
    with engine(tmp_path / "log", model_path=str(made / "gemma3"), context_length=60) as running:
        refused = ask(running, data_uri(), text="what is <image_soft_token> in this")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_media"), refused.text
        assert "<image_soft_token>" in refused.json()["error"]["message"]
        content_of(ask(running, data_uri()))


def test_sound_and_an_image_without_an_address_are_refused(llava: RunningEngine) -> None:
    for part, words in (
        ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, "accepts only text and images"),
        ({"type": "image_url"}, "image_url.url is required"),
    ):
        messages = [{"role": "user", "content": [part]}]
        refused = llava.post("/v1/chat/completions", model=UID, messages=messages)
        assert refused.status_code == 400 and words in refused.json()["error"]["message"]


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (1, 200)])
def test_images_of_few_pixels_are_read(llava: RunningEngine, size: tuple[int, int]) -> None:
    content_of(ask(llava, data_uri(png(*size))))


def test_a_transparent_image_is_on_white(llava: RunningEngine) -> None:
    transparent, white, black = (
        ask(llava, data_uri(png(colour=colour)), logprobs=True).json()["choices"][0]["logprobs"]
        for colour in ((0, 0, 0, 0), (255, 255, 255), (0, 0, 0))
    )
    assert transparent == white != black


def test_a_template_that_writes_texts_alone_gets_the_mark_of_the_image(made: Path, tmp_path: Path) -> None:
    template = "{% for message in messages %}{{ message.role }} : {{ message.content }}{% endfor %}"
    with engine(tmp_path / "log", model_path=str(made / "llava"), chat_template=template) as running:
        with_image, without = ask(running, data_uri()), ask(running)
        assert content_of(with_image) and content_of(without)
    more = with_image.json()["usage"]["prompt_tokens"] - without.json()["usage"]["prompt_tokens"]
    assert more == 16  # the places of its one tile


def test_a_folder_without_a_processor_serves_text_alone(made: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for file in (made / "llava").iterdir():
        if file.name not in ("preprocessor_config.json", "processor_config.json"):
            (tmp_path / "model" / file.name).symlink_to(file)
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    params = {"model_path": str(tmp_path / "model"), "chat_template": template}
    with engine(tmp_path / "log", **params) as running:
        assert content_of(ask(running, text="who are you"))
        refused = ask(running, data_uri())
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "unsupported_content")
    assert error["message"] == "messages[0].content[0]: this model accepts only text."


# -- the whole server ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(make_home: Callable[..., Home], made: Path) -> Home:
    home = make_home()
    require_environment(home.path, "Transformers")
    home.serve()
    words = ("--model-engine", "Transformers", "--model-name", str(made / "llava"), "--context_length", "200")
    launched = home.cli("launch", *words, "--model-uid", UID, seconds=300)
    assert launched.returncode == 0, launched.stderr
    return home


def test_each_api_reads_the_image_and_counts_its_tokens(home: Home, made: Path) -> None:
    expected = read(made, "expected.json")["llava"]["red"]
    count, url = len(expected["prompt"]), uri(made, "red.png")
    chat = home.chat(
        model=UID,
        messages=[{"role": "user", "content": [link(url), {"type": "text", "text": QUESTION}]}],
        temperature=0,
        max_tokens=12,
    )
    assert (content_of(chat), chat.json()["usage"]["prompt_tokens"]) == (expected["text"], count)
    parts = [{"type": "input_image", "image_url": url}, {"type": "input_text", "text": QUESTION}]
    body = {"model": UID, "input": [{"role": "user", "content": parts}], "temperature": 0, "max_output_tokens": 12}
    response = httpx2.post(f"{home.url}/v1/responses", json=body, timeout=60)
    assert response.status_code == 200, response.text
    assert response.json()["output"][0]["content"][0]["text"] == expected["text"]
    assert response.json()["usage"]["input_tokens"] == count
    source = {"type": "base64", "media_type": "image/png", "data": url.partition(",")[2]}
    content = [{"type": "image", "source": source}, {"type": "text", "text": QUESTION}]
    body = {"model": UID, "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 12}
    version = {"anthropic-version": "2023-06-01"}
    message = httpx2.post(f"{home.url}/v1/messages", json=body, headers=version, timeout=60)
    assert message.status_code == 200, message.text
    assert message.json()["content"][0]["text"] == expected["text"]
    assert message.json()["usage"]["input_tokens"] == count
    body.pop("max_tokens")
    counted = httpx2.post(f"{home.url}/v1/messages/count_tokens", json=body, headers=version, timeout=60)
    assert (counted.status_code, counted.json().get("input_tokens")) == (200, count), counted.text


def test_a_wrong_image_is_named_by_the_servers_own_code(home: Home) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "x"}, link(data_uri(b"no image"))]}]
    refused = home.chat(model=UID, messages=messages)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "invalid_media"), refused.text
    assert error["param"] == "messages[0].content[1].image_url"


def test_the_model_is_listed_with_vision_and_its_plan_counts_the_tower(home: Home, made: Path) -> None:
    assert "vision" in httpx2.get(f"{home.url}/v1/models/{UID}", timeout=10).json()["model_ability"]
    words = ("launch", "--dry-run", "--json", "--model-engine", "Transformers", "--context_length", "200")
    plan = json.loads(home.cli(*words, "--model-name", str(made / "llava")).stdout)
    memory = plan.get("plan", plan)["memory"]
    assert memory["weights"] == (made / "llava" / "model.safetensors").stat().st_size
    assert memory["overhead"] > 17 * 64_000_000
