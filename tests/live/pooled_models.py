"""Makes tiny embedding models and cross-encoders, and computes their answers by the server and by plain transformers.

``python pooled_models.py FOLDER SERVER`` runs in the Transformers environment; SERVER is the folder of the server's
program. It writes one folder for each model, ``expected.json`` with the answers of plain transformers, ``made.json``
with those of the server's modules, and ``refused.json`` with the errors of folders that cannot be served.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
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
    RobertaConfig,
    RobertaModel,
)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
VOCABULARY = "a llama eats grass and the wool is warm query : how what mountain"
WORDS = [*SPECIAL, *VOCABULARY.split()]
TEXTS = ["a llama eats grass", "wool", "The WOOL is warm and the llama eats a mountain", "what"]
QUERY, DOCUMENTS = "what eats grass", ["a llama eats grass", "the wool is warm", "grass", "unknown words only"]
#: Tokens that count as padding, within a text.
PADDED_TEXTS = ["a [PAD] llama eats grass", "the wool [PAD] [PAD] is warm", "what"]
POOLINGS = ("mean", "cls", "last", "max")
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


def sparse(layer: dict[str, torch.Tensor], state: torch.Tensor, text: str) -> dict[str, float]:
    """The greatest weight of each word, as BGE-M3's paper defines it: the positive part of a linear layer."""
    found: dict[str, float] = {}
    for token, weight in zip(
        tokenizer()(text)["input_ids"], state @ layer["weight"][0] + layer["bias"][0], strict=True
    ):
        if token >= len(SPECIAL) and weight > 0:
            found[str(token)] = max(found.get(str(token), 0.0), float(weight))
    return found


def scores(folder: Path) -> list[float]:
    """The raw score of each document."""
    model, encode = AutoModelForSequenceClassification.from_pretrained(folder).eval(), tokenizer()
    with torch.no_grad():
        return [float(model(**encode(QUERY, each, return_tensors="pt")).logits[0, 0]) for each in DOCUMENTS]


def make_models(root: Path) -> dict[str, Any]:
    """Write the models; returns the answers of plain transformers."""
    torch.manual_seed(0)
    plain, modules, ranker, raw = (root / name for name in ("plain", "modules", "ranker", "raw_ranker"))
    make_encoder(plain)
    layer = {"weight": torch.randn(1, HIDDEN), "bias": torch.randn(1)}
    save_file(layer, plain / "sparse_linear.safetensors")
    make_encoder(modules)
    add_modules(modules)
    # Its first position is the one after that of padding.
    sizes = SIZES | {"max_position_embeddings": LONGEST + 1, "pad_token_id": 0, "type_vocab_size": 2}
    RobertaModel(RobertaConfig(**sizes)).save_pretrained(root / "roberta")
    tokenizer().save_pretrained(root / "roberta")
    for folder in (ranker, raw):
        BertForSequenceClassification(BertConfig(**SIZES, num_labels=1)).save_pretrained(folder)
        tokenizer().save_pretrained(folder)
    config = json.loads((raw / "config.json").read_text())
    config["sbert_ce_default_activation_function"] = "torch.nn.modules.linear.Identity"
    write_json(raw / "config.json", config)
    states = hidden_states(plain, TEXTS)
    # The first three tokens are [CLS] and the prompt.
    prompted = hidden_states(modules, [f"query : {text}" for text in TEXTS])
    return {
        "mean": unit([state.mean(0) for state in states]),
        "cls": unit([state[0] for state in states]),
        "last": unit([state[-1] for state in states]),
        "max": unit([state.max(0).values for state in states]),
        "sparse": [sparse(layer, state, text) for state, text in zip(states, TEXTS, strict=True)],
        "modules": unit([with_modules(modules, state[3:].mean(0)) for state in prompted]),
        "mixed": unit([state.mean(0) for state in states]),
        "roberta": unit([state.mean(0) for state in hidden_states(root / "roberta", TEXTS)]),
        "roberta_padding": unit([state.mean(0) for state in hidden_states(root / "roberta", PADDED_TEXTS)]),
        "ranker": torch.sigmoid(torch.tensor(scores(ranker))).tolist(),
        "raw_ranker": scores(raw),
    }


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


def served(server: Callable[[str], Any], folder: Path, model_type: str, **params: Any) -> list[Any]:
    """The rows of all inputs, computed together."""
    loaded = server("pooled_model").load_pooled({"model_path": str(folder), "model_type": model_type, **params})
    encoder, requests = server("input_encoder").InputEncoder(loaded), server("requests")
    if model_type == "rerank":
        inputs = encoder.pairs(requests.RerankRequest(model="m", query=QUERY, documents=DOCUMENTS))
    else:
        inputs = encoder.texts(requests.EmbeddingRequest(model="m", input=TEXTS))
    with torch.inference_mode():
        rows = [torch.tensor(row) for row in loaded.compute(inputs)]
    assert {len(row) for row in rows} == {loaded.dimensions}
    return [float(row[0]) for row in rows] if model_type == "rerank" else unit(rows)


def served_together(server: Callable[[str], Any], folder: Path, texts: list[str], *, mixed: bool) -> list[list[float]]:
    """The vectors of all texts, computed together; `mixed`: every second one as tokens, which have no types."""
    loaded = server("pooled_model").load_pooled({"model_path": str(folder), "model_type": "embedding"})
    inputs = (
        server("input_encoder").InputEncoder(loaded).texts(server("requests").EmbeddingRequest(model="m", input=texts))
    )
    assert any(each.types for each in inputs)
    if mixed:
        inputs = [dataclasses.replace(each, types=None) if n % 2 else each for n, each in enumerate(inputs)]
    with torch.inference_mode():
        return unit([torch.tensor(row) for row in loaded.compute(inputs)])


def served_sparse(server: Callable[[str], Any], folder: Path) -> list[dict[str, float]]:
    """The weights of the words, computed together with vectors of the same texts."""
    loaded = server("pooled_model").load_pooled({"model_path": str(folder), "model_type": "embedding"})
    encoder, request = server("input_encoder").InputEncoder(loaded), server("requests").EmbeddingRequest
    dense = encoder.texts(request(model="m", input=TEXTS))
    with torch.inference_mode():
        rows = loaded.compute([*dense, *(dataclasses.replace(each, weighs_tokens=True) for each in dense)])
    assert {len(row) for row in rows[: len(dense)]} == {loaded.dimensions}
    pairs, special = zip(dense, rows[len(dense) :], strict=True), loaded.tokenizer.all_special_ids
    return [server("sparse").weights_by_token(each.tokens, row, special) for each, row in pairs]


def refusals(server: Callable[[str], Any], root: Path) -> dict[str, str]:
    """The errors of copies of the plain model that cannot be served."""
    changes: dict[str, tuple[str, Callable[[Path], object]]] = {
        "pickle": ("embedding", lambda folder: (folder / "model.safetensors").rename(folder / "model.bin")),
        "program": ("embedding", lambda folder: write_json(folder / "modules.json", [{"type": "own.Net"}])),
        "no head": ("rerank", lambda folder: None),
        "two labels": ("rerank", lambda folder: write_json(folder / "config.json", BertConfig(**SIZES).to_dict())),
    }
    found = {}
    for name, (model_type, change) in changes.items():
        folder = root / name
        shutil.copytree(root / "plain", folder)
        config = json.loads((folder / "config.json").read_text())
        write_json(folder / "config.json", config | {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}})
        change(folder)
        try:
            served(server, folder, model_type)
        except server("errors").LoadError as error:
            found[name] = str(error)
    return found


def main(root: Path, program: Path) -> None:
    write_json(root / "expected.json", make_models(root))
    server = load_server(program)
    made = {pooling: served(server, root / "plain", "embedding", pooling_type=pooling) for pooling in POOLINGS}
    made |= {name: served(server, root / name, "embedding") for name in ("modules", "roberta")}
    made |= {name: served(server, root / name, "rerank") for name in ("ranker", "raw_ranker")}
    made["mixed"] = served_together(server, root / "plain", TEXTS, mixed=True)
    made["roberta_padding"] = served_together(server, root / "roberta", PADDED_TEXTS, mixed=False)
    made["sparse"] = served_sparse(server, root / "plain")
    write_json(root / "made.json", made)
    write_json(root / "refused.json", refusals(server, root))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
