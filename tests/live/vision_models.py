"""Makes tiny vision models with random weights, and computes their answers by the server and by plain transformers.

``python vision_models.py FOLDER SERVER [NAME...]`` runs in the Transformers environment; SERVER is the folder of the
server's program. It writes one folder for each model with its real processor, the images as files, ``expected.json``
with the answers of `generate`, and ``made.json`` with those of the server's modules.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

NEW_TOKENS = 12
#: Tokens of a prompt that the server computes in one step: its own number, and one that divides every image.
PARTS = (512, 7)
CONTEXT = 1500
WORDS = (
    "what",
    "is",
    "in",
    "this",
    "image",
    "a",
    "llama",
    "eats",
    "grass",
    "who",
    "are",
    "you",
    ":",
    "user",
    "assistant",
)
MARKS = (
    "<pad>", "<unk>", "</s>", "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>",
    "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<boi>", "<eoi>", "<image_soft_token>",
    "<img>", "</img>", "<IMG_CONTEXT>", "<video>",
)  # fmt: skip
TILES = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
VOCABULARY = [*MARKS, *TILES, *WORDS, *(f"w{number}" for number in range(40))]
#: Names that tokenizers of these families give to tokens.
NAMED = {
    "image_token": "<image>",
    "boi_token": "<boi>",
    "eoi_token": "<eoi>",
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "video_token": "<video>",
}
TEXT: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 2048,
    "initializer_range": 0.6,
    "bos_token_id": None,
    "eos_token_id": VOCABULARY.index("</s>"),
    "pad_token_id": VOCABULARY.index("<pad>"),
}
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.6,
}
#: Content as a list of parts, as the templates of these families read it; a text alone is written too.
TEMPLATE = (
    "{% for message in messages %}{{ message.role }} : "
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}IMAGE{% else %}{{ part.text }}{% endif %} {% endfor %}{% endif %} \n"
    "{% endfor %}{% if add_generation_prompt %}assistant : {% endif %}"
)
#: Templates that read content only as parts.
ONLY_PARTS = (
    "{% for message in messages %}{{ message.role }} : {% for part in message.content %}"
    "{% if part.type == 'image' %}IMAGE{% else %}{{ part.text }}{% endif %} {% endfor %} \n"
    "{% endfor %}{% if add_generation_prompt %}assistant : {% endif %}"
)
#: Name of a case -> the images and the text of its one message.
CASES: dict[str, tuple[tuple[str, ...], str]] = {
    "red": (("red.png",), "what is in this image"),
    "wide": (("wide.png",), "what is in this image"),
    "both": (("red.png", "wide.png"), "who eats grass in this image"),
    "text": ((), "who are you"),
}


class NoVideos:
    """Takes the place of a video processor, which requires torchvision."""

    model_input_names: tuple[str, ...] = ()
    num_frames = fps = 1


def without_videos(kind: Any) -> Any:
    """A processor class that takes a `NoVideos`."""

    class Processor(kind):
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if isinstance(argument, NoVideos):
                return NoVideos
            return super().check_argument_for_proper_class(argument_name, argument)

    Processor.__name__ = kind.__name__
    return Processor


def identifier(mark: str) -> int:
    return VOCABULARY.index(mark)


def tokenizer(image_token: str) -> Any:
    whole = Tokenizer(models.WordLevel({word: number for number, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    whole.decoder = decoders.ByteLevel()  # the server's constraints know it
    named = NAMED | {"image_token": image_token, "image_token_id": identifier(image_token)}
    if image_token == "<IMG_CONTEXT>":
        named |= {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": image_token}
        named |= {"context_image_token_id": identifier(image_token)}
    if image_token == "<|image_pad|>":
        named |= {"video_token": "<|video_pad|>", "video_token_id": identifier("<|video_pad|>")}
    marks = {name: mark for name, mark in named.items() if isinstance(mark, str)}
    made = PreTrainedTokenizerFast(
        tokenizer_object=whole,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="</s>",
        extra_special_tokens=marks,
    )
    made.add_special_tokens({"additional_special_tokens": [*MARKS[3:], *TILES]}, replace_extra_special_tokens=False)
    return made


def clip() -> Any:
    return transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, do_convert_rgb=True
    )


def llava() -> tuple[Any, Any]:
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION, image_size=16, patch_size=4),
        text_config=transformers.LlamaConfig(**TEXT),
        image_token_id=identifier("<image>"),
        vision_feature_layer=-2,
    )
    processor = transformers.LlavaProcessor(
        clip(),
        tokenizer("<image>"),
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=ONLY_PARTS.replace("IMAGE", "<image>"),
    )
    return config, processor


def llava_next() -> tuple[Any, Any]:
    pinpoints = [[16, 32], [32, 16], [32, 32]]
    config = transformers.LlavaNextConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION, image_size=16, patch_size=4),
        text_config=transformers.LlamaConfig(**TEXT),
        image_token_id=identifier("<image>"),
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-2,
    )
    images = transformers.LlavaNextImageProcessorPil(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, image_grid_pinpoints=pinpoints
    )
    processor = transformers.LlavaNextProcessor(
        images,
        tokenizer("<image>"),
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    return config, processor


def llava_onevision() -> tuple[Any, Any]:
    pinpoints = [[16, 16], [16, 32], [32, 16], [32, 32]]
    config = transformers.LlavaOnevisionConfig(
        vision_config=transformers.SiglipVisionConfig(**VISION, image_size=16, patch_size=4, vision_use_head=False),
        text_config=transformers.Qwen2Config(**TEXT),
        image_token_id=identifier("<image>"),
        video_token_id=identifier("<video>"),
        image_grid_pinpoints=pinpoints,
    )
    images = transformers.LlavaOnevisionImageProcessorPil(
        size={"height": 16, "width": 16}, image_grid_pinpoints=pinpoints
    )
    processor = without_videos(transformers.LlavaOnevisionProcessor)(
        images,
        tokenizer("<image>"),
        NoVideos(),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    return config, processor


def idefics3() -> tuple[Any, Any]:
    config = transformers.Idefics3Config(
        vision_config={**VISION, "image_size": 16, "patch_size": 4},
        text_config=transformers.LlamaConfig(**TEXT),
        image_token_id=identifier("<image>"),
        scale_factor=2,
        pad_token_id=identifier("<pad>"),
    )
    images = transformers.Idefics3ImageProcessorPil(size={"longest_edge": 32}, max_image_size={"longest_edge": 16})
    processor = transformers.Idefics3Processor(
        images, tokenizer("<image>"), image_seq_len=4, chat_template=ONLY_PARTS.replace("IMAGE", "<image>")
    )
    return config, processor


def smolvlm() -> tuple[Any, Any]:
    config = transformers.SmolVLMConfig(
        vision_config={**VISION, "image_size": 16, "patch_size": 4},
        text_config=transformers.LlamaConfig(**TEXT),
        image_token_id=identifier("<image>"),
        scale_factor=2,
        pad_token_id=identifier("<pad>"),
    )
    images = transformers.SmolVLMImageProcessorPil(size={"longest_edge": 32}, max_image_size={"longest_edge": 16})
    from transformers.models.smolvlm import processing_smolvlm

    processing_smolvlm.num2words = str  # it names the number of a video's frames
    processor = without_videos(transformers.SmolVLMProcessor)(
        images, tokenizer("<image>"), NoVideos(), image_seq_len=4, chat_template=TEMPLATE.replace("IMAGE", "<image>")
    )
    return config, processor


def _qwen(family: str, vision: Mapping[str, Any], patch: int, **text: Any) -> tuple[Any, Any]:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = getattr(transformers, f"{family}Config")(
        vision_config=dict(vision),
        text_config=TEXT | {"rope_parameters": rope} | text,
        image_token_id=identifier("<|image_pad|>"),
        video_token_id=identifier("<|video_pad|>"),
        vision_start_token_id=identifier("<|vision_start|>"),
        vision_end_token_id=identifier("<|vision_end|>"),
    )
    images = transformers.Qwen2VLImageProcessorPil(
        patch_size=patch, merge_size=2, size={"shortest_edge": 64, "longest_edge": 1024}
    )
    if family.startswith("Qwen3"):
        kind: Any = transformers.Qwen3VLProcessor
    else:
        kind = transformers.Qwen2_5_VLProcessor if family == "Qwen2_5_VL" else transformers.Qwen2VLProcessor
    template = TEMPLATE.replace("IMAGE", "<|vision_start|> <|image_pad|> <|vision_end|>")
    return config, without_videos(kind)(images, tokenizer("<|image_pad|>"), NoVideos(), chat_template=template)


def qwen2_vl() -> tuple[Any, Any]:
    vision = {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "patch_size": 4, "mlp_ratio": 2}
    return _qwen("Qwen2VL", vision | {"initializer_range": 0.6}, 4)


def qwen2_5_vl() -> tuple[Any, Any]:
    vision = {
        "depth": 2, "hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 32, "num_heads": 2, "patch_size": 4,
        "window_size": 16, "fullatt_block_indexes": [1], "initializer_range": 0.6,
    }  # fmt: skip
    return _qwen("Qwen2_5_VL", vision, 4)


def qwen3_vl() -> tuple[Any, Any]:
    vision = {
        "depth": 3, "hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 32, "num_heads": 2, "patch_size": 4,
        "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1], "initializer_range": 0.6,
    }  # fmt: skip
    return _qwen("Qwen3VL", vision, 4)


def qwen3_vl_moe() -> tuple[Any, Any]:
    vision = {
        "depth": 3, "hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 32, "num_heads": 2, "patch_size": 4,
        "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1], "initializer_range": 0.6,
    }  # fmt: skip
    return _qwen("Qwen3VLMoe", vision, 4, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24)


def gemma3() -> tuple[Any, Any]:
    config = transformers.Gemma3Config(
        vision_config=transformers.SiglipVisionConfig(**VISION, image_size=16, patch_size=4, vision_use_head=False),
        text_config=transformers.Gemma3TextConfig(
            **TEXT, tie_word_embeddings=False, sliding_window=8, layer_types=["sliding_attention", "full_attention"]
        ),
        mm_tokens_per_image=4,
        tie_word_embeddings=False,
        boi_token_index=identifier("<boi>"),
        eoi_token_index=identifier("<eoi>"),
        image_token_index=identifier("<image_soft_token>"),
    )
    images = transformers.Gemma3ImageProcessorPil(size={"height": 16, "width": 16})
    processor = transformers.Gemma3Processor(
        images,
        tokenizer("<image_soft_token>"),
        image_seq_length=4,
        chat_template=TEMPLATE.replace("IMAGE", "<boi>"),
    )
    return config, processor


def internvl() -> tuple[Any, Any]:
    config = transformers.InternVLConfig(
        vision_config=transformers.InternVLVisionConfig(**VISION, image_size=[16, 16], patch_size=[4, 4]),
        text_config=transformers.Qwen2Config(**TEXT),
        image_token_id=identifier("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    images = transformers.GotOcr2ImageProcessorPil(
        size={"height": 16, "width": 16}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    processor = without_videos(transformers.InternVLProcessor)(
        images,
        tokenizer("<IMG_CONTEXT>"),
        NoVideos(),
        image_seq_length=4,
        chat_template=TEMPLATE.replace("IMAGE", "<IMG_CONTEXT>"),
    )
    return config, processor


MODELS: dict[str, Callable[[], tuple[Any, Any]]] = {
    each.__name__: each
    for each in (
        llava, llava_next, llava_onevision, idefics3, smolvlm, qwen2_vl, qwen2_5_vl, qwen3_vl, qwen3_vl_moe, gemma3,
        internvl,
    )
}  # fmt: skip


def make_images(folder: Path) -> None:
    """A square one and a wide one, with different pixels everywhere."""
    for name, width, height, first in (("red.png", 40, 40, (220, 20, 30)), ("wide.png", 60, 24, (20, 40, 200))):
        image = Image.new("RGB", (width, height))
        for x in range(width):
            for y in range(height):
                image.putpixel((x, y), tuple((part + 3 * x + 5 * y * n) % 256 for n, part in enumerate(first, 1)))
        image.save(folder / name)


def make_model(folder: Path, name: str) -> tuple[Any, Any]:
    """Save a model with its processor, and return both."""
    torch.manual_seed(len(name))
    config, processor = MODELS[name]()
    model = transformers.AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa")
    model.eval()
    for parameter in model.parameters():
        if not parameter.any():  # biases and some projections begin as zeros
            torch.nn.init.normal_(parameter, std=0.3)
    model.generation_config.eos_token_id = identifier("</s>")
    model.generation_config.pad_token_id = identifier("<pad>")
    model.save_pretrained(folder)
    save_processor(processor, folder)
    return model, processor


def save_processor(processor: Any, folder: Path) -> None:
    """Save the parts and the numbers of a processor, in the files that the makers of these models publish."""
    processor.image_processor.save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(processor.chat_template, encoding="utf-8")
    parameters = inspect.signature(type(processor).__init__).parameters
    numbers = {name: value for name, value in vars(processor).items() if isinstance(value, int | str)}
    kept = {name: value for name, value in numbers.items() if name in parameters and name != "chat_template"}
    named = kept | {"processor_class": type(processor).__name__}
    (folder / "processor_config.json").write_text(json.dumps(named), encoding="utf-8")


def expected(model: Any, processor: Any, images: Path, case: str) -> dict[str, Any]:
    """The answer of `generate` to one case."""
    files, text = CASES[case]
    content = [*({"type": "image"} for _ in files), {"type": "text", "text": text}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    opened = [Image.open(images / file) for file in files]
    inputs = processor(images=opened or None, text=prompt, return_tensors="pt")
    with torch.inference_mode():
        made = model.generate(
            **inputs, do_sample=False, max_new_tokens=NEW_TOKENS, output_logits=True, return_dict_in_generate=True
        )
    length = inputs["input_ids"].shape[1]
    tokens = made.sequences[0, length:].tolist()
    logprobs = [
        float(torch.log_softmax(scores[0].float(), -1)[token])
        for scores, token in zip(made.logits, tokens, strict=True)
    ]
    return {"prompt": inputs["input_ids"][0].tolist(), "tokens": tokens, "logprobs": logprobs,
            "text": processor.tokenizer.decode(tokens, skip_special_tokens=True)}  # fmt: skip


def plain(root: Path, name: str) -> dict[str, Any]:
    """Save a model, and return the answers of `generate` by case."""
    model, processor = make_model(root / name, name)
    return {case: expected(model, processor, root, case) for case in CASES}


# -- the server's modules ---------------------------------------------------------------------------------------------


def load_server(folder: Path) -> Callable[[str], Any]:
    """The import of a module of the server's program, which is a package without a place in the search path."""
    spec = importlib.util.spec_from_file_location(
        "transformers_server", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = package
    spec.loader.exec_module(package)
    return lambda name: importlib.import_module(f"transformers_server.{name}")


def request(images: Path, case: str) -> dict[str, Any]:
    """The body of a case, as the server gets it."""
    files, text = CASES[case]
    links = [f"data:image/png;base64,{base64.b64encode((images / file).read_bytes()).decode()}" for file in files]
    parts = [{"type": "image_url", "image_url": {"url": link}} for link in links]
    content = [*parts, {"type": "text", "text": text}] if parts else text
    fields = {"temperature": 0, "max_tokens": NEW_TOKENS, "logprobs": True}
    return {"model": "m", "messages": [{"role": "user", "content": content}], **fields}


def draft_of(sequence: Any, expected: Mapping[str, Any]) -> list[int]:
    """Three of the tokens that `generate` gave after those of the sequence; the last one is wrong."""
    prompt, answer = sequence.tokens[: sequence.prompt_length], sequence.tokens[sequence.prompt_length :]
    for case in expected.values():  # two cases have the same prompt, with different images
        if case["prompt"] == prompt and case["tokens"][: len(answer)] == answer:
            found = case["tokens"][len(answer) :][: min(3, sequence.max_tokens - len(answer) - 1)]
            return [*found[:2], *(0 for _ in found[2:])]
    return []


async def served(
    server: Callable[[str], Any], folder: Path, images: Path, part: int, expected: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The answers to two requests of each case, which are in one batch; prompts are computed `part` tokens a step.

    With the `expected` answers, parts of them are drafts.
    """
    server("batching").PREFILL_TOKENS = part
    params = {"model_path": str(folder), "context_length": CONTEXT, "model_type": "LLM"}
    loaded = server("loading").load(params)
    scheduler = server("scheduler").Scheduler(loaded, 16)
    if expected is not None:
        speculation = scheduler._batches[None].speculation
        speculation.propose = lambda sequences: [draft_of(sequence, expected) for sequence in sequences]
    prompts = server("prompts").Prompts(loaded, server("limited").Workers())
    generator, kind = server("generate").Generator(loaded, prompts, scheduler), server("requests").ChatRequest

    async def answer(case: str) -> dict[str, Any]:
        body = server("requests").read(json.dumps(request(images, case)).encode(), kind)
        encoded = generator.encode(body, generator.render(body))
        pieces = [piece async for _, piece in generator.run(server("generate").Job(body, encoded, None, None, 0))]
        logprobs = [each for piece in pieces for each in piece.logprobs]
        return {"case": case, "prompt": encoded[0].tokens, "tokens": [each.token for each in logprobs],
                "logprobs": [each.logprob for each in logprobs]}  # fmt: skip

    asked = asyncio.gather(*(answer(case) for case in [*CASES, *CASES]))
    await asyncio.sleep(0)  # all are submitted before the first step
    scheduler.start()
    answers = await asked
    counters = scheduler.counters
    assert expected is None or 0 < counters.spec_decode_num_accepted_tokens < counters.spec_decode_num_draft_tokens
    return answers


def main(root: Path, program: Path, names: list[str]) -> None:
    make_images(root)
    chosen = names or list(MODELS)
    answers = {name: plain(root, name) for name in chosen}
    server = load_server(program)  # from here on, templates are rendered by the server's workers
    made: dict[str, dict[Any, Any]] = {
        name: {part: asyncio.run(served(server, root / name, root, part)) for part in PARTS} for name in chosen
    }
    for name in chosen:
        made[name]["drafts"] = asyncio.run(served(server, root / name, root, PARTS[0], answers[name]))
    (root / "expected.json").write_text(json.dumps(answers), encoding="utf-8")
    (root / "made.json").write_text(json.dumps(made), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
