"""Loads a model that makes vectors or scores, and computes both: its transformer, its pooling and its modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from . import packed_attention
from .errors import LoadError
from .loading import give_back, load_tokenizer, loading_arguments, of_one_type
from .module_files import ModuleFiles, Pooling, Stage, pooling_of, read_module_files
from .token_weights import load_token_weights

#: Activations of modules and scores; a file names them with their module, which is not imported from its text.
ACTIVATIONS = {
    "Identity": torch.nn.Identity,
    "Tanh": torch.nn.Tanh,
    "Sigmoid": torch.nn.Sigmoid,
    "ReLU": torch.nn.ReLU,
    "GELU": torch.nn.GELU,
    "SiLU": torch.nn.SiLU,
}
#: Architectures whose encoder alone makes vectors -> its class.
ENCODER_CLASSES = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
#: Weights that a file may lack, because no vector depends on them.
UNUSED_WEIGHTS = ("pooler.", "position_ids")


MEAN = Pooling()


@dataclass(frozen=True)
class Input:
    """The tokens of one text, or of a query with one document."""

    tokens: Sequence[int]
    types: Sequence[int] | None = None
    """Which of the two texts each token belongs to; None: the model does not read it."""
    prompt_length: int = 0
    """Number of the first tokens that belong to a prompt."""
    weighs_tokens: bool = False
    """Whether its row is the weight of each token, and not a vector."""


@dataclass(frozen=True)
class PooledModel:
    """A loaded model; `compute` makes the rows of several inputs: their vectors, or their scores."""

    model: Any
    tokenizer: Any
    device: torch.device
    dtype: torch.dtype
    scores: bool
    """Whether a row is the score of a document, not a vector."""
    context_length: int
    """Longest input in tokens."""
    vocab_size: int
    dimensions: int
    """Length of a row."""
    hidden: int
    """Width of the model."""
    pooling: Pooling = MEAN
    modules: tuple[torch.nn.Module, ...] = ()
    """Applied to the pooled vector, or to the score."""
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    token_weights: torch.nn.Linear | None = None
    """Makes the weight of a token from its vector; None: the model makes only vectors."""
    adapters: tuple[str, ...] = ()
    first_position: int | None = None
    """The position of the first token, if texts of different lengths are computed without padding; None: with it."""

    def compute(self, inputs: Sequence[Input]) -> list[Any]:
        """A row for each input, in 32 bits: its vector, its score, or the weight of each of its tokens."""
        lengths = [len(each.tokens) for each in inputs]
        if self.scores:
            return self._finished(self._scored(self._table(inputs, lengths)))
        hidden = self._hidden(inputs, lengths)
        rows = self._finished(self._pooled(hidden, torch.tensor(lengths, device=self.device), inputs))
        if self.token_weights is not None and any(each.weighs_tokens for each in inputs):
            weights = self._weighed(self.token_weights, hidden)
            rows = [
                weights[number, : lengths[number]] if each.weighs_tokens else rows[number]
                for number, each in enumerate(inputs)
            ]
        return rows

    def _hidden(self, inputs: Sequence[Input], lengths: Sequence[int]) -> Tensor:
        """The vector of each token, in a table with a row for each input."""
        if self.first_position is None or min(lengths) == max(lengths):
            table: Tensor = self.model(**self._table(inputs, lengths), **self._no_cache()).last_hidden_state
            return table
        layout = packed_attention.Layout.of(lengths, self.device)
        arguments = {"input_ids": [token for each in inputs for token in each.tokens]}
        if any(each.types for each in inputs):
            arguments["token_type_ids"] = [kind for each in inputs for kind in each.types or [0] * len(each.tokens)]
        row = {name: torch.tensor([values], device=self.device) for name, values in arguments.items()}
        positions = layout.positions(row["input_ids"][0], self.first_position)[None]
        hidden: Tensor = self.model(**row, position_ids=positions, layout=layout, **self._no_cache()).last_hidden_state
        return layout.padded(hidden[0])

    def _table(self, inputs: Sequence[Input], lengths: Sequence[int]) -> dict[str, Tensor]:
        """The model's arguments, with padding behind shorter inputs."""
        longest = max(lengths)
        arguments = {"input_ids": self._padded([each.tokens for each in inputs], longest, self._padding_token())}
        if any(each.types for each in inputs):
            arguments["token_type_ids"] = self._padded([each.types or () for each in inputs], longest, 0)
        if min(lengths) < longest:
            counts = torch.tensor(lengths, device=self.device)
            arguments["attention_mask"] = (torch.arange(longest, device=self.device) < counts[:, None]).long()
        return arguments

    def _finished(self, rows: Tensor) -> list[Any]:
        for module in self.modules:
            rows = module(rows)
        return list(rows.cpu().numpy())

    def _weighed(self, layer: torch.nn.Linear, hidden: Tensor) -> Any:
        """The weight of each token; negative ones are 0."""
        weights: Tensor = torch.relu(layer(hidden.float()))[..., 0]
        return weights.cpu().numpy()

    def _scored(self, arguments: dict[str, Tensor]) -> Tensor:
        logits: Tensor = self.model(**arguments, **self._no_cache()).logits
        return logits.float()

    def _pooled(self, hidden: Tensor, counts: Tensor, inputs: Sequence[Input]) -> Tensor:
        skipped = None
        if not self.pooling.include_prompt and any(each.prompt_length for each in inputs):
            skipped = torch.tensor([each.prompt_length for each in inputs], device=self.device)
        return pool(hidden, counts, self.pooling.modes, skipped)

    def _no_cache(self) -> dict[str, bool]:
        return {"use_cache": False} if hasattr(self.model.config, "use_cache") else {}

    def _padded(self, rows: Sequence[Sequence[int]], longest: int, filler: int) -> Tensor:
        return torch.tensor([[*row, *([filler] * (longest - len(row)))] for row in rows], device=self.device)

    def _padding_token(self) -> int:
        token = self.tokenizer.pad_token_id
        return token if isinstance(token, int) else 0


def pool(hidden: Tensor, counts: Tensor, modes: Sequence[str], skipped: Tensor | None = None) -> Tensor:
    """One vector in 32 bits for each row of `hidden`, whose first `counts` tokens are not padding.

    Args:
        modes: the parts of the vector, which are joined.
        skipped: the number of first tokens of each row that do not count; None: all tokens count.
    """
    hidden = hidden.float()
    places = torch.arange(hidden.shape[1], device=hidden.device)
    counted = places < counts[:, None]
    if skipped is not None:
        counted &= places >= skipped[:, None]
    parts = [_part(mode, hidden, counted, places) for mode in modes]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def _part(mode: str, hidden: Tensor, counted: Tensor, places: Tensor) -> Tensor:
    rows = torch.arange(hidden.shape[0], device=hidden.device)
    match mode:
        case "cls":
            return hidden[rows, counted.int().argmax(dim=1)]
        case "lasttoken":
            return hidden[rows, (places * counted).argmax(dim=1)]
        case "max":
            return hidden.masked_fill(~counted[..., None], float("-inf")).amax(dim=1)
        case "weightedmean":
            weights = counted * (places + 1.0)
        case _:
            weights = counted.float()
    # As a product of matrices: without a copy of the tokens' vectors.
    summed = torch.bmm(weights[:, None], hidden)[:, 0]
    total = weights.sum(dim=1, keepdim=True).clamp(min=1e-9)
    return summed / (total.sqrt() if mode == "mean_sqrt_len_tokens" else total)


class Normalize(torch.nn.Module):
    """Scales each vector to the length 1."""

    def forward(self, vectors: Tensor) -> Tensor:
        return torch.nn.functional.normalize(vectors, dim=-1)


class Dense(torch.nn.Module):
    """A linear layer with an activation, as in sentence-transformers' module of this name."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__()
        inner, outer = int(options["in_features"]), int(options["out_features"])
        self.linear = torch.nn.Linear(inner, outer, bias=options.get("bias", True) is not False)
        self.activation = activation(options.get("activation_function"), "Tanh")
        self.has_residual = options.get("use_residual") is True
        self.residual = torch.nn.Linear(inner, outer, bias=False) if self.has_residual and inner != outer else None

    def forward(self, vectors: Tensor) -> Tensor:
        made: Tensor = self.activation(self.linear(vectors))
        if not self.has_residual:
            return made
        return made + (vectors if self.residual is None else self.residual(vectors))


class LayerNorm(torch.nn.Module):
    """A layer norm, as in sentence-transformers' module of this name."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(int(options["dimension"]))

    def forward(self, vectors: Tensor) -> Tensor:
        normed: Tensor = self.norm(vectors)
        return normed


def activation(name: object, default: str) -> torch.nn.Module:
    """The activation that a file names, such as ``torch.nn.modules.activation.Tanh``.

    Raises:
        LoadError: it is not one of `ACTIVATIONS`.
    """
    text = default if name is None else str(name)
    kind = ACTIVATIONS.get(text.rpartition(".")[2]) if text == default or text.startswith("torch.") else None
    if kind is None:
        raise LoadError(f"the activation {text!r} is not one of {', '.join(ACTIVATIONS)}")
    return kind()


def load_pooled(params: Mapping[str, Any]) -> PooledModel:
    """Load the embedding model or the cross-encoder of `params`.

    Raises:
        LoadError: an option or the model is not supported by this server.
    """
    scores = params["model_type"] == "rerank"
    loaded = _load_scoring(params) if scores else _load_embedding(params)
    give_back()
    return loaded


def _load_embedding(params: Mapping[str, Any]) -> PooledModel:
    files = read_module_files(Path(params["model_path"]))
    pooling = pooling_of(params["pooling_type"]) if params.get("pooling_type") else files.pooling
    path = str(files.transformer)
    arguments = loading_arguments(params, path)
    config = transformers.AutoConfig.from_pretrained(path, **_config_arguments(arguments))
    kind: Any = getattr(transformers, ENCODER_CLASSES.get(config.model_type, "AutoModel"))
    model = _whole(kind, path, arguments, "the weights are not those of a model that makes vectors")
    modules = tuple(_module(stage, model.device) for stage in files.stages)
    hidden = model.config.get_text_config().hidden_size
    return PooledModel(
        model=model,
        tokenizer=load_tokenizer(params, path),
        device=model.device,
        dtype=arguments["dtype"],
        scores=False,
        context_length=_context_length(params, files, model),
        vocab_size=model.get_input_embeddings().weight.shape[0],
        dimensions=_width(modules, len(pooling.modes) * hidden),
        hidden=hidden,
        pooling=pooling,
        modules=modules,
        lower_case=files.lower_case,
        prompts=files.prompts,
        default_prompt=files.default_prompt,
        token_weights=load_token_weights(files.transformer, hidden, model.device),
        first_position=packed_attention.prepare(model),
    )


def _load_scoring(params: Mapping[str, Any]) -> PooledModel:
    folder = Path(params["model_path"])
    if (folder / "modules.json").is_file():
        read_module_files(folder)  # refuses modules other than a transformer
    arguments = loading_arguments(params, str(folder))
    config = transformers.AutoConfig.from_pretrained(str(folder), **_config_arguments(arguments))
    if config.num_labels != 1:
        raise LoadError(f"the model has {config.num_labels} labels, and a model that ranks has one")
    kind = transformers.AutoModelForSequenceClassification
    model = _whole(kind, str(folder), arguments, "the weights have no head that ranks documents")
    tokenizer = load_tokenizer(params, str(folder))
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    if model.config.pad_token_id is None:
        raise LoadError("the tokenizer has no padding token, by which the model finds the end of each text")
    return PooledModel(
        model=model,
        tokenizer=tokenizer,
        device=model.device,
        dtype=arguments["dtype"],
        scores=True,
        context_length=_context_length(params, ModuleFiles(folder), model),
        vocab_size=model.get_input_embeddings().weight.shape[0],
        dimensions=1,
        hidden=model.config.get_text_config().hidden_size,
        modules=(activation(_score_activation(config), "Sigmoid"),),
    )


def _score_activation(config: Any) -> object:
    """The activation of a cross-encoder's score, in the field of new files or in that of old ones."""
    own = getattr(config, "sentence_transformers", None)
    name = own.get("activation_fn") if isinstance(own, dict) else None
    return name or getattr(config, "sbert_ce_default_activation_function", None)


def _config_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: arguments[name] for name in ("trust_remote_code", "local_files_only")}


def _whole(kind: Any, path: str, arguments: Mapping[str, Any], otherwise: str) -> Any:
    """The model of the class `kind`; weights that are not in the files would be random."""
    model, info = kind.from_pretrained(path, output_loading_info=True, **arguments)
    model = of_one_type(model, path, arguments["dtype"])
    missing = [name for name in info["missing_keys"] if not any(part in name for part in UNUSED_WEIGHTS)]
    if missing:
        raise LoadError(f"{otherwise}: {', '.join(sorted(missing)[:3])} is missing in the files")
    return model.eval()


def _module(stage: Stage, device: torch.device) -> torch.nn.Module:
    """A module after the pooling, with its weights."""
    if stage.kind == "Normalize":
        return Normalize()
    from safetensors.torch import load_file

    file = stage.folder / "model.safetensors"
    if not file.is_file():
        raise LoadError(f"there are no .safetensors files in {stage.folder}, and only safetensors are loaded")
    try:
        module = (Dense if stage.kind == "Dense" else LayerNorm)(stage.options)
        module.load_state_dict(load_file(str(file)))
    except (KeyError, TypeError, ValueError) as error:
        raise LoadError(f"the module in {stage.folder} is not valid: {error}") from None
    return module.float().to(device).eval()


def _width(modules: Sequence[torch.nn.Module], width: int) -> int:
    """Length of a vector after the modules."""
    return next((m.linear.out_features for m in reversed(modules) if isinstance(m, Dense)), width)


def _context_length(params: Mapping[str, Any], files: ModuleFiles, model: Any) -> int:
    """The planned length, which the limits in the files bound already when the plan is made."""
    planned = params.get("context_length")
    if planned:
        return int(planned)
    trained = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(min(limit for limit in (files.max_length, trained or 512) if limit))
