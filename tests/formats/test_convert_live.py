"""Every file of the tiny model, converted or written as GGUF, answers word for word in llama.cpp."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import xllamacpp

from tests.formats.ggml_writer import GGML_QUANTIZATIONS, write_ggml
from tests.formats.gguf_model import GGUF_QUANTIZATIONS, write_gguf
from xinference.formats.convert import convert_ggml
from xinference.formats.llama_facts import LlamaFacts

ASSETS = Path(__file__).parent.parent / "assets"
HF = ASSETS / "tiny-llama2-chat-hf"
QUESTIONS = json.loads((HF / "qa.json").read_text())
FACTS = LlamaFacts("tiny-llama2-chat", 4096, 1e-5)

pytestmark = pytest.mark.live


def wrong_answers(model: Path, questions: list[dict[str, str]]) -> list[str]:
    """What llama.cpp answers at temperature 0, where it is not what was learnt; it puts BOS before the prompt."""
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx = 512
    params.n_parallel = 1
    params.warmup = False
    params.cpuparams.n_threads = 1
    server = xllamacpp.Server(params)
    wrong = []
    for each in questions:
        prompt = f"[INST] {each['question']} [/INST]"
        reply = server.handle_completions({"prompt": prompt, "temperature": 0, "max_tokens": 128})
        text = reply["choices"][0]["text"].strip()
        if text != each["answer"]:
            wrong.append(f"{each['question']} -> {text}")
    return wrong


@pytest.mark.parametrize("quantization", ["q2_K", "q4_0", "q5_1"])
def test_the_original_tools_files_answer_every_question_after_conversion(tmp_path: Path, quantization: str) -> None:
    source = ASSETS / "tiny-llama2-chat-ggmlv3" / f"tiny-llama2-chat.ggmlv3.{quantization}.bin"
    assert not wrong_answers(convert_ggml(source, tmp_path / "m.gguf", FACTS), QUESTIONS)


@pytest.mark.parametrize("quantization", [*GGML_QUANTIZATIONS, "f16", "f32"])
def test_our_ggmlv3_files_answer_after_conversion(tmp_path: Path, quantization: str) -> None:
    source = write_ggml(HF, quantization, tmp_path / "m.bin")
    assert not wrong_answers(convert_ggml(source, tmp_path / "m.gguf", FACTS), QUESTIONS[::8])


@pytest.mark.parametrize("quantization", GGUF_QUANTIZATIONS)
def test_our_gguf_files_answer(tmp_path: Path, quantization: str) -> None:
    assert not wrong_answers(write_gguf(HF, quantization, tmp_path / "m.gguf"), QUESTIONS[::8])
