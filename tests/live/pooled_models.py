"""Makes tiny embedding models and cross-encoders, with answers that plain transformers computes, in the environment.

``python pooled_models.py FOLDER`` runs in the Transformers environment. It writes one folder for each model, and
``expected.json`` with the answers by the name of the model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
VOCABULARY = "a llama eats grass and the wool is warm query : how what mountain"
WORDS = [*SPECIAL, *VOCABULARY.split()]
TEXTS = ["a llama eats grass", "wool", "The WOOL is warm and the llama eats a mountain", "what"]
QUERY, DOCUMENTS = "what eats grass", ["a llama eats grass", "the wool is warm", "grass", "unknown words only"]
HIDDEN, LONGEST = 16, 24
SIZES: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": LONGEST,
}


def tokenizer() -> PreTrainedTokenizerFast:
    whole = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    whole.normalizer = normalizers.Lowercase()
    whole.pre_tokenizer = pre_tokenizers.Whitespace()
    whole.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=whole,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=LONGEST,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def make_encoder(folder: Path) -> None:
    """A model without module files."""
    BertModel(BertConfig(**SIZES)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def add_modules(folder: Path) -> None:
    """First token, a dense layer, a layer norm, unit length; a prompt before every text, which is not pooled."""
    kinds = ["Transformer", "Pooling", "Dense", "LayerNorm", "Normalize"]
    paths = ["" if n == 0 else f"{n}_{kind}" for n, kind in enumerate(kinds)]
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    write_json(folder / "modules.json", modules)
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True, "include_prompt": False}
    write_json(folder / "1_Pooling" / "config.json", pooling)
    dense = {"in_features": HIDDEN, "out_features": 6, "activation_function": "torch.nn.modules.activation.Tanh"}
    write_json(folder / "2_Dense" / "config.json", dense)
    save_file(
        {"linear.weight": torch.randn(6, HIDDEN), "linear.bias": torch.randn(6)},
        folder / "2_Dense" / "model.safetensors",
    )
    write_json(folder / "3_LayerNorm" / "config.json", {"dimension": 6})
    norm = {"norm.weight": torch.rand(6) + 0.5, "norm.bias": torch.randn(6)}
    save_file(norm, folder / "3_LayerNorm" / "model.safetensors")
    prompts = {"prompts": {"query": "query : ", "long": "the llama "}, "default_prompt_name": "query"}
    write_json(folder / "config_sentence_transformers.json", prompts)


def hidden_states(folder: Path, texts: list[str]) -> list[torch.Tensor]:
    """The tokens' vectors of each text, computed alone."""
    model, encode = AutoModel.from_pretrained(folder).eval(), tokenizer()
    with torch.no_grad():
        return [model(**encode(text, return_tensors="pt")).last_hidden_state[0] for text in texts]


def unit(vectors: list[torch.Tensor]) -> list[list[float]]:
    return [(vector / vector.norm()).tolist() for vector in vectors]


def with_modules(folder: Path, pooled: torch.Tensor) -> torch.Tensor:
    from safetensors.torch import load_file

    dense = load_file(folder / "2_Dense" / "model.safetensors")
    norm = load_file(folder / "3_LayerNorm" / "model.safetensors")
    made = torch.tanh(dense["linear.weight"] @ pooled + dense["linear.bias"])
    centred = made - made.mean()
    return centred / (centred.pow(2).mean() + 1e-5).sqrt() * norm["norm.weight"] + norm["norm.bias"]


def scores(folder: Path) -> list[float]:
    """The raw score of each document."""
    model, encode = AutoModelForSequenceClassification.from_pretrained(folder).eval(), tokenizer()
    with torch.no_grad():
        return [float(model(**encode(QUERY, each, return_tensors="pt")).logits[0, 0]) for each in DOCUMENTS]


def main(root: Path) -> None:
    torch.manual_seed(0)
    expected: dict[str, Any] = {}
    plain, modules = root / "plain", root / "modules"
    make_encoder(plain)
    states = hidden_states(plain, TEXTS)
    expected["mean"] = unit([state.mean(0) for state in states])
    expected["cls"] = unit([state[0] for state in states])
    expected["last"] = unit([state[-1] for state in states])
    expected["max"] = unit([state.max(0).values for state in states])
    make_encoder(modules)
    add_modules(modules)
    # The first three tokens are [CLS] and the prompt.
    prompted = hidden_states(modules, [f"query : {text}" for text in TEXTS])
    expected["modules"] = unit([with_modules(modules, state[3:].mean(0)) for state in prompted])
    ranker, raw = root / "ranker", root / "raw_ranker"
    for folder in (ranker, raw):
        BertForSequenceClassification(BertConfig(**SIZES, num_labels=1)).save_pretrained(folder)
        tokenizer().save_pretrained(folder)
    config = json.loads((raw / "config.json").read_text())
    write_json(
        raw / "config.json", config | {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}
    )
    expected["ranker"] = torch.sigmoid(torch.tensor(scores(ranker))).tolist()
    expected["raw_ranker"] = scores(raw)
    write_json(root / "expected.json", expected)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
