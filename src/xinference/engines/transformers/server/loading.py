"""Loads the model and its tokenizer from a folder on this machine."""

from __future__ import annotations

import ctypes
import gc
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    BitsAndBytesConfig,
    FineGrainedFP8Config,
    GenerationConfig,
    Mxfp4Config,
)

from .errors import LoadError
from .prompt_images import ImageProcessor, load_processor
from .vision_architectures import ATTENDING_BOTH_WAYS, TOWER_MODULES, WITH_IMAGES

#: The layer by which BGE-M3 weighs tokens. Its own file is a pickle (`sparse_linear.pt`), and pickles are not opened.
SPARSE_LAYER = "sparse_linear.safetensors"
#: These implementations accept an explicit mask; the others derive theirs from the padding.
ATTENTION = ("sdpa", "eager")
#: Methods whose weights are unpacked while they are loaded.
UNPACKED_METHODS = ("fp8", "mxfp4")
#: A regular expression for the modules of a model with images that bitsandbytes does not pack.
UNPACKED_MODULES = rf"(?:.*\.)?(?:{'|'.join(TOWER_MODULES)}|lm_head)"


@dataclass(frozen=True)
class LoadedModel:
    """The loaded model with its tokenizer and its properties."""

    model: Any
    tokenizer: Any
    device: torch.device
    dtype: torch.dtype
    vocab_size: int
    """Number of scores of the model, which may be larger than the tokenizer's vocabulary."""
    layers: int
    context_length: int
    """Longest prompt in tokens."""
    window: int | None
    """Number of positions in a sliding window."""
    mixed_layers: bool
    """Whether only some layers have the window."""
    eos: tuple[int, ...]
    chat_template: str | None
    adapters: tuple[str, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """The authors' sampling defaults: ``generation_config.json``."""
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """The default variables of the chat template."""
    images: ImageProcessor | None = None
    """None: the model reads text alone."""
    images_attend_both_ways: bool = False
    """Whether the tokens of an image attend to all tokens of that image."""


def load(params: Mapping[str, Any]) -> LoadedModel:
    """Load the model of `params`.

    Raises:
        LoadError: an option or the model is not supported by this server.
    """
    path = params["model_path"]
    arguments = loading_arguments(params, path)
    tokenizer = load_tokenizer(params, path)
    architecture = _architecture(path)
    with_images = architecture in WITH_IMAGES
    loader = AutoModelForImageTextToText if with_images else AutoModelForCausalLM
    model = loader.from_pretrained(path, **arguments)
    model = of_one_type(model, path, arguments["dtype"])
    adapters = dict(params.get("lora_modules") or {})
    model = _with_adapters(model, adapters) if adapters else model
    model.eval()
    give_back()
    described = _describe(params, model, tokenizer, model.device, arguments["dtype"], tuple(adapters))
    images = load_processor(path, model) if with_images else None
    if images is None:
        return described
    template = params.get("chat_template") or images.chat_template or described.chat_template
    both_ways = architecture in ATTENDING_BOTH_WAYS
    return replace(described, images=images, chat_template=template, images_attend_both_ways=both_ways)


def _architecture(path: str) -> str:
    """The first class that config.json names; empty: it names none."""
    config = json.loads((Path(path) / "config.json").read_text())
    return str((config.get("architectures") or [""])[0])


def loading_arguments(params: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The arguments of `from_pretrained` for the weights in the folder `path`.

    Raises:
        LoadError: an option is not supported, or there are no safetensors.
    """
    device = torch.device(params.get("device", "cpu"))
    attention = params.get("attn_implementation", "sdpa")
    if attention not in ATTENTION:
        raise LoadError(f"attn_implementation is {attention!r}; this server accepts {' or '.join(ATTENTION)}")
    if not any(file.name != SPARSE_LAYER for file in Path(path).glob("*.safetensors")):
        raise LoadError(f"there are no .safetensors files in {path}, and only safetensors are loaded")
    dtype = _dtype(params, device, path)
    quantization = _quantization(params, dtype, packing_method(path), with_images=_architecture(path) in WITH_IMAGES)
    return {
        "dtype": dtype,
        # An explicit None would hide the packing in the model's config.json.
        **({} if quantization is None else {"quantization_config": quantization}),
        "attn_implementation": attention,
        # All devices that are visible to this process, whole layers on each.
        "device_map": {"": device} if device.type == "cpu" or torch.cuda.device_count() == 1 else "auto",
        "use_safetensors": True,
        "trust_remote_code": bool(params.get("trust_remote_code", False)),
        "local_files_only": True,
    }


def of_one_type(model: Any, path: str, dtype: torch.dtype) -> Any:
    """A model with unpacked weights in one type: they have that of their scales, and all others that of the file."""
    return model.to(dtype) if packing_method(path) in UNPACKED_METHODS else model


def load_tokenizer(params: Mapping[str, Any], path: str) -> Any:
    """The tokenizer in the folder `path`."""
    remote = bool(params.get("trust_remote_code", False))
    return AutoTokenizer.from_pretrained(path, trust_remote_code=remote, local_files_only=True)


def give_back() -> None:
    """Release the memory used while loading: otherwise glibc keeps the 16-bit originals of quantized weights."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _describe(
    params: Mapping[str, Any],
    model: Any,
    tokenizer: Any,
    device: torch.device,
    dtype: torch.dtype,
    names: tuple[str, ...],
) -> LoadedModel:
    config = model.config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds - {"full_attention", "sliding_attention"}:
        raise LoadError(f"{type(model).__name__} has layers of the kind {', '.join(sorted(kinds))}, not batched here")
    window = getattr(config, "sliding_window", None)
    windowed = getattr(config, "use_sliding_window", True) and (not kinds or "sliding_attention" in kinds)
    trained = getattr(config, "max_position_embeddings", None)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        device=device,
        dtype=dtype,
        vocab_size=model.get_output_embeddings().weight.shape[0],
        layers=config.num_hidden_layers,
        context_length=params.get("context_length") or (trained - 1 if trained else 2048),
        window=window if windowed else None,
        mixed_layers=len(kinds) > 1,
        eos=_eos(model.generation_config, tokenizer),
        chat_template=params.get("chat_template") or _own_template(tokenizer, params.get("family_chat_template")),
        adapters=names,
        defaults=_defaults(model.generation_config),
        template_kwargs=_template_kwargs(params.get("default_chat_template_kwargs")),
    )


def _template_kwargs(value: Any) -> Mapping[str, Any]:
    """An object, or its JSON as a text."""
    kwargs = json.loads(value) if isinstance(value, str) else value
    if kwargs is not None and not isinstance(kwargs, dict):
        raise LoadError(f"default_chat_template_kwargs is {value!r:.100}, and must be an object")
    return kwargs or {}


def _dtype(params: Mapping[str, Any], device: torch.device, path: str) -> torch.dtype:
    """By default float32 on a CPU and the weights' type on a GPU; bfloat16 with bitsandbytes on a CPU."""
    requested = str(params.get("torch_dtype") or "auto").removeprefix("torch.")
    requested = {"half": "float16", "float": "float32", "fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}.get(
        requested, requested
    )
    quantized = params.get("quantization", "none") != "none" or packing_method(path) is not None
    if quantized and device.type == "cpu":
        # With float32 or float16 the CPU kernels of bitsandbytes do not finish; unpacked weights have 16 bits.
        return torch.bfloat16
    if requested == "auto":
        if device.type == "cpu":
            return torch.float32
        config = json.loads((Path(path) / "config.json").read_text())
        requested = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
        requested = "bfloat16" if requested == "float32" else requested
    dtype = getattr(torch, requested, None)
    if dtype not in (torch.float16, torch.bfloat16, torch.float32):
        raise LoadError(f"torch_dtype is {requested!r}; it must be auto, float32, bfloat16 or float16")
    return dtype


def packing_method(path: str) -> str | None:
    """The method by which the weights in a folder are packed, by its config.json; None: they are not."""
    config = json.loads((Path(path) / "config.json").read_text())
    given = config.get("quantization_config")
    return str(given.get("quant_method")).lower() if isinstance(given, dict) else None


def _quantization(params: Mapping[str, Any], dtype: torch.dtype, method: str | None, *, with_images: bool) -> Any:
    # The kernels for these floats are programs that transformers would fetch from a hub.
    if method == "fp8":
        return FineGrainedFP8Config(dequantize=True)
    if method == "mxfp4":
        return Mxfp4Config(dequantize=True)
    more = {"llm_int8_skip_modules": [UNPACKED_MODULES]} if with_images and method is None else {}
    more |= params.get("quantization_config") or {}
    match params.get("quantization", "none"):
        case "8-bit":
            return BitsAndBytesConfig(**({"load_in_8bit": True} | more))
        case "4-bit":
            return BitsAndBytesConfig(**({"load_in_4bit": True, "bnb_4bit_compute_dtype": dtype} | more))
        case _:
            return BitsAndBytesConfig(**more) if params.get("quantization_config") else None


def _with_adapters(model: Any, adapters: Mapping[str, str]) -> Any:
    from peft import PeftModel

    wrapped: Any = None
    for name, path in adapters.items():
        if wrapped is None:
            wrapped = PeftModel.from_pretrained(model, path, adapter_name=name, local_files_only=True)
        else:
            wrapped.load_adapter(path, adapter_name=name, local_files_only=True)
    return wrapped


def _eos(generation: GenerationConfig | None, tokenizer: Any) -> tuple[int, ...]:
    """All tokens that end an answer: chat models often have one for the turn and one for the text."""
    eos = generation.eos_token_id if generation is not None else None
    ids = eos if isinstance(eos, list) else [eos]
    return tuple(dict.fromkeys(i for i in (*ids, tokenizer.eos_token_id) if isinstance(i, int)))


def _own_template(tokenizer: Any, family: str | None) -> str | None:
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    return own or family


def _defaults(generation: GenerationConfig | None) -> dict[str, Any]:
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    values = {name: getattr(generation, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None}
