"""Computes answers with and without drafts by the server's modules, with models of random weights.

``python -m tests.live.draft_cases FOLDER SERVER`` runs in the Transformers environment; SERVER is the folder of the
server's program. It writes ``made.json``: for each model, each way of drafting and each case, the tokens, the text, the
finish reason and the log probabilities, with the counts of drafted and accepted tokens.

The drafts do not depend on what a model repeats: they are the answer without drafts, with a wrong token at some places.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peft
import torch
import transformers

from tests.live.vision_models import load_server

NEW_TOKENS = 24
CONTEXT = 39
VOCABULARY = 97
WINDOW = 8
#: Every so many tokens of a draft are wrong; 0: none; 1: all.
WRONG = {"right": 0, "partly": 5, "wrong": 1}
SMALL = {"vocab_size": VOCABULARY, "num_hidden_layers": 3, "num_attention_heads": 4, "initializer_range": 0.4}
LLAMA = SMALL | {"hidden_size": 32, "intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 40}
#: Every kind of layer and of positions: full attention, a sliding window, both, and positions from a table.
MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)),
    "mistral": lambda: transformers.MistralForCausalLM(transformers.MistralConfig(**LLAMA, sliding_window=WINDOW)),
    "gemma3": lambda: transformers.Gemma3ForCausalLM(
        transformers.Gemma3TextConfig(
            **LLAMA | {"num_hidden_layers": 4, "head_dim": 8}, sliding_window=WINDOW, sliding_window_pattern=2
        )
    ),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=VOCABULARY, n_positions=40, n_embd=32, n_layer=3, n_head=4, initializer_range=0.4
        )
    ),
}
#: Case -> parameters of the sampler, and fields of the sequence.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "greedy": ({"temperature": 0}, {}),
    "sampled": ({"temperature": 1.2, "seed": 7}, {}),
    "top": ({"temperature": 0.9, "seed": 8, "top_p": 0.9, "top_k": 30, "min_p": 0.01}, {}),
    "penalties": (
        {"temperature": 0.8, "seed": 9, "presence_penalty": 0.7, "frequency_penalty": 0.5, "repetition_penalty": 1.2},
        {},
    ),
    "bias": ({"temperature": 0, "logit_bias": {5: 0.02, 6: -3.0}}, {}),
    "logprobs": ({"temperature": 0, "logprobs": 3}, {}),
    "limit": ({"temperature": 0}, {"max_tokens": 11}),
    "one token": ({"temperature": 0}, {"max_tokens": 1}),
    "whole context": ({"temperature": 1.0, "seed": 3, "logprobs": 0}, {"max_tokens": CONTEXT}),
    "end of the context": ({"temperature": 1.0, "seed": 11}, {"max_tokens": CONTEXT, "prompt": 30}),
    "stop token": ({"temperature": 1.0, "seed": 4}, {"stop_at": 13}),
    "stop string": ({"temperature": 1.0, "seed": 5}, {"stop_across": 15}),
    "constraint": ({"temperature": 1.0, "seed": 10}, {"constraint": 19}),
    "constraint without a next token": ({"temperature": 0}, {"constraint": -15}),
    "cancelled": ({"temperature": 1.0, "seed": 6}, {"cancel_at": 9}),
}


class Rule:
    """A constraint that allows every third token, which one depends on the number of tokens before."""

    def __init__(self, error: type[Exception], tokens: int) -> None:
        """`tokens`: their number, after which the answer is complete; negative: after which no token is allowed."""
        self._error, self._tokens, self._accepted = error, tokens, 0

    @property
    def is_finished(self) -> bool:
        return self._accepted == self._tokens

    def allowed_tokens(self) -> torch.Tensor:
        if self._accepted == -self._tokens:
            raise self._error("no token is allowed")
        return torch.arange(VOCABULARY) % 3 == self._accepted % 3

    def accept(self, token: int) -> None:
        assert token % 3 == self._accepted % 3
        self._accepted += 1


class Server:
    """The modules of the server, with drafts that are the expected answer with wrong tokens."""

    def __init__(self, program: Path) -> None:
        self.module = load_server(program)
        self.expected: dict[tuple[str | None, str], list[int]] = {}
        """Adapter and case -> the tokens of the answer without drafts and without an early end."""

    def batch(self, loaded: Any, adapter: str | None, wrong: int | None) -> Any:
        """A batch; `wrong` None: without drafts."""
        batch = self.module("batching").Batch(loaded, adapter, 0)

        def propose(sequences: Sequence[Any]) -> list[list[int]]:
            # Each row has a draft of another length, and some have none.
            return [
                self.draft(sequence, (row + sequence.generated) % 7, wrong) for row, sequence in enumerate(sequences)
            ]

        if wrong is not None:
            batch.speculation.propose = propose
        return batch

    def draft(self, sequence: Any, length: int, wrong: int | None) -> list[int]:
        """The next tokens of the expected answer, of which some are wrong, as far as the limit of tokens allows."""
        begin, room = sequence.generated, sequence.max_tokens - sequence.generated - 1
        found = self.expected[sequence.adapter, sequence.name][begin : begin + min(length, room)]
        bad = [bool(wrong) and (begin + place) % wrong == 0 for place in range(len(found))]
        return [(token + 1) % VOCABULARY if is_bad else token for token, is_bad in zip(found, bad, strict=True)]

    def sequence(self, loaded: Any, adapter: str | None, name: str, pieces: list[Any]) -> Any:
        """The sequence of a case; its stop token and stop string are parts of the expected answer, if there is one."""
        sampling, fields = CASES[name]
        number = list(CASES).index(name)
        generator = torch.Generator().manual_seed(number)
        prompt = torch.randint(
            3, VOCABULARY, (fields.get("prompt", 5 + 3 * number % 14),), generator=generator
        ).tolist()
        known = self.expected.get((adapter, name), [])
        stop_tokens = known[fields["stop_at"] :][:1] if "stop_at" in fields else []
        stops = [decode(known[fields["stop_across"] :][:3])[2:-1]] if "stop_across" in fields else []
        limit, rule = fields.get("max_tokens", NEW_TOKENS), fields.get("constraint")
        modules = self.module("sampling"), self.module("text")
        made = self.module("sequence").Sequence(
            tokens=list(prompt),
            sampler=modules[0].Sampler(modules[0].SamplingParams(**sampling), prompt, loaded.vocab_size, loaded.device),
            detokenizer=modules[1].Detokenizer(decode),
            deliver=pieces.append,
            max_tokens=min(CONTEXT + 1 - len(prompt), limit),
            stops=modules[1].StopStrings(stops),
            stop_tokens=frozenset(stop_tokens),
            constraint=None if rule is None else Rule(self.module("constraints").ConstraintError, rule),
            adapter=adapter,
        )
        made.name = name
        return made

    def run(self, loaded: Any, adapter: str | None, rows: int, wrong: int | None) -> dict[str, Any]:
        """The answers to all cases, at most `rows` of them at once."""
        batch = self.batch(loaded, adapter, wrong)
        pieces: dict[str, list[Any]] = {name: [] for name in CASES}
        sequences = {name: self.sequence(loaded, adapter, name, pieces[name]) for name in CASES}
        for each in sequences.values():
            batch.add(each)
        while batch.busy:
            batch.step(rows - len(batch))
            for name, each in sequences.items():
                each.cancelled = each.generated >= CASES[name][1].get("cancel_at", CONTEXT)
        answers = {name: answer(sequences[name], pieces[name]) for name in CASES}
        return {"answers": answers, "drafted": batch.speculation.drafted, "accepted": batch.speculation.accepted}

    def ways(self, loaded: Any, adapter: str | None) -> dict[str, Any]:
        """The answers by the way of drafting and the number of answers at once."""
        self.expected = {}
        first = self.run(loaded, adapter, 8, None)["answers"]
        self.expected = {(adapter, name): each["tokens"] for name, each in first.items()}
        made = {"without": self.run(loaded, adapter, 8, None), "alone": self.run(loaded, adapter, 1, WRONG["partly"])}
        return made | {way: self.run(loaded, adapter, 8, wrong) for way, wrong in WRONG.items()}


def decode(tokens: Sequence[int]) -> str:
    return "".join(f"<{token}>" for token in tokens)


def answer(sequence: Any, pieces: list[Any]) -> dict[str, Any]:
    """What a client gets, and the tokens."""
    return {
        "tokens": sequence.tokens[sequence.prompt_length :],
        "text": "".join(piece.text for piece in pieces),
        "finish": pieces[-1].finish,
        "stop": pieces[-1].stop,
        "generated": pieces[-1].generated,
        "logprobs": [[each.token, each.logprob] for piece in pieces for each in piece.logprobs],
    }


def load(server: Server, name: str) -> Any:
    """A model with random weights; the Llama has two adapters, too."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    adapters = ("first", "second") if name == "llama" else ()
    for adapter in adapters:
        config = peft.LoraConfig(r=4, init_lora_weights=False, target_modules=["q_proj", "v_proj", "up_proj"])
        model = peft.get_peft_model(model, config, adapter) if adapter == "first" else model
        if adapter != "first":
            model.add_adapter(adapter, config)
    tokenizer = SimpleNamespace(eos_token_id=None, chat_template=None)
    params = {"context_length": CONTEXT}
    return server.module("loading")._describe(
        params, model.eval(), tokenizer, torch.device("cpu"), torch.float32, adapters
    )


def main(folder: Path, program: Path) -> None:
    torch.set_num_threads(1)
    server = Server(program)
    made = {}
    with torch.inference_mode():
        for name in MODELS:
            loaded = load(server, name)
            for adapter in (None, *loaded.adapters):
                made[f"{name} {adapter or ''}".strip()] = server.ways(loaded, adapter)
    (folder / "made.json").write_text(json.dumps(made), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
