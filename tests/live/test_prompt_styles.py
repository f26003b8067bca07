"""What llama.cpp makes of a conversation by the template of each prompt style."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.__main__ import ASSETS
from tests.formats.gguf_model import write_gguf
from xinference.catalog.prompt_styles import STYLES, PromptStyle, template_of

TALK = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "It's \\o/"},
]
SYSTEM = {"role": "system", "content": "Be kind."}
#: Renders each template (a JSON list on stdin) for both conversations, one server after the other.
PROGRAM = """
import json, os, sys, urllib.request
import xllamacpp
answers = []
for template in json.load(sys.stdin):
    params = xllamacpp.CommonParams()
    params.hostnames, params.port, params.model.path = ["127.0.0.1"], 0, sys.argv[1]
    params.n_ctx, params.warmup, params.chat_template, params.use_jinja = 256, False, template, True
    params.n_parallel = 1
    server = xllamacpp.Server(params)
    said = []
    for messages in json.loads(sys.argv[2]):
        body = json.dumps({"messages": messages}).encode()
        request = urllib.request.Request(
            f"{server.listening_address}/apply-template", body, {"Content-Type": "application/json"}
        )
        said.append(json.load(urllib.request.urlopen(request))["prompt"])
    answers.append(said)
print("ANSWERS" + json.dumps(answers), flush=True)
os._exit(0)
"""
COLON: dict[str, Any] = {"roles": ("USER", "BOT"), "intra_message_sep": "\n", "inter_message_sep": "</s>"}
CASES: list[tuple[PromptStyle, str, str]] = [
    (
        PromptStyle("ADD_COLON_SINGLE", "A chat.", **COLON),
        "A chat.\nUSER: Hi\nBOT: Yes?\nUSER: It's \\o/\nBOT:",
        "Be kind.\nUSER: Hi\nBOT: Yes?\nUSER: It's \\o/\nBOT:",
    ),
    (
        PromptStyle("ADD_COLON_TWO", "A chat.", **COLON),
        "A chat.\nUSER: Hi\nBOT: Yes?</s>USER: It's \\o/\nBOT:",
        "Be kind.\nUSER: Hi\nBOT: Yes?</s>USER: It's \\o/\nBOT:",
    ),
    (
        PromptStyle("NO_COLON_SINGLE", "", **COLON),
        "USERHi\nBOTYes?\nUSERIt's \\o/\nBOT",
        "Be kind.\nUSERHi\nBOTYes?\nUSERIt's \\o/\nBOT",
    ),
    (
        PromptStyle("NO_COLON_TWO", "", **COLON),
        "USERHi\nBOTYes?</s>USERIt's \\o/\nBOT",
        "Be kind.\nUSERHi\nBOTYes?</s>USERIt's \\o/\nBOT",
    ),
    (
        PromptStyle("ADD_NEW_LINE_SINGLE", "", **COLON),
        "USER\nHi\nBOT\nYes?\nUSER\nIt's \\o/\nBOT\n",
        "Be kind.\nUSER\nHi\nBOT\nYes?\nUSER\nIt's \\o/\nBOT\n",
    ),
    (
        PromptStyle("ALPACA"),
        "### Instruction:\nHi\n\n### Response:\nYes?\n\n### Instruction:\nIt's \\o/\n\n### Response:\n",
        "Be kind.\n\n### Instruction:\nHi\n\n### Response:\nYes?\n\n### Instruction:\nIt's \\o/\n\n### Response:\n",
    ),
    (PromptStyle("INSTRUCTION", "Do: {0}\nDone:"), "Do: It's \\o/\nDone:", "Do: It's \\o/\nDone:"),
    (
        PromptStyle("LLAMA2", "<s>[INST] <<SYS>>\nA chat.\n<</SYS>>\n\n", ("[INST]", "[/INST]")),
        "[INST] <<SYS>>\nA chat.\n<</SYS>>\n\nHi [/INST] Yes? </s><s>[INST] It's \\o/ [/INST]",
        "[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST] Yes? </s><s>[INST] It's \\o/ [/INST]",
    ),
    (
        PromptStyle("LLAMA3"),
        "".join(f"<|start_header_id|>{m['role']}<|end_header_id|>\n\n{m['content']}<|eot_id|>" for m in TALK)
        + "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "".join(f"<|start_header_id|>{m['role']}<|end_header_id|>\n\n{m['content']}<|eot_id|>" for m in [SYSTEM, *TALK])
        + "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    (
        PromptStyle("MIXTRAL_V01"),
        " [INST] Hi [/INST]Yes? </s><s> [INST] It's \\o/ [/INST]",
        " [INST] Be kind.\n\nHi [/INST]Yes? </s><s> [INST] It's \\o/ [/INST]",
    ),
    (
        PromptStyle(
            "CHATML", "<|im_start|>system\nA chat.", ("<|im_start|>user", "<|im_start|>assistant"), "<|im_end|>"
        ),
        "<|im_start|>system\nA chat.<|im_end|>\n"
        + "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in TALK)
        + "<|im_start|>assistant\n",
        "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in [SYSTEM, *TALK])
        + "<|im_start|>assistant\n",
    ),
    (
        PromptStyle("PHI3"),
        "<|user|>\nHi<|end|>\n<|assistant|>\nYes?<|end|>\n<|user|>\nIt's \\o/<|end|>\n<|assistant|>\n",
        "<|system|>\nBe kind.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nYes?<|end|>\n<|user|>\nIt's \\o/<|end|>\n"
        "<|assistant|>\n",
    ),
    (
        PromptStyle("GEMMA"),
        "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nYes?<end_of_turn>\n<start_of_turn>user\nIt's \\o/"
        "<end_of_turn>\n<start_of_turn>model\n",
        "<start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n<start_of_turn>model\nYes?<end_of_turn>\n"
        "<start_of_turn>user\nIt's \\o/<end_of_turn>\n<start_of_turn>model\n",
    ),
]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Style -> the prompt without and with a system message, as llama.cpp renders them."""
    model = write_gguf(ASSETS, "Q4_0", tmp_path_factory.mktemp("model") / "tiny.gguf")
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(model), json.dumps([TALK, [SYSTEM, *TALK]])],
        input=json.dumps([template_of(style) for style, _, _ in CASES]),
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    line = next((each for each in ended.stdout.splitlines() if each.startswith("ANSWERS")), None)
    assert line is not None, ended.stderr[-2000:]
    said = json.loads(line.removeprefix("ANSWERS"))
    return {style.style_name: answers for (style, _, _), answers in zip(CASES, said, strict=True)}


@pytest.mark.parametrize(("style", "plain", "with_system"), CASES, ids=[style.style_name for style, _, _ in CASES])
def test_a_conversation_is_written_as_the_style_has_it(
    prompts: dict[str, list[str]], style: PromptStyle, plain: str, with_system: str
) -> None:
    said = [prompt.removeprefix("<s>") for prompt in prompts[style.style_name]]
    assert said == [plain, with_system]


def test_every_style_is_tried() -> None:
    assert {style.style_name for style, _, _ in CASES} == STYLES.keys() - {"QWEN"}  # CHATML's other name
