"""Transformers: runs the server program `server/` inside the engine's environment."""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xinference.catalog.models import ModelFamily, ModelSpec, ModelVersion
from xinference.engines.base import Lack
from xinference.engines.cuda import cuda_support
from xinference.engines.options import lora
from xinference.engines.options.option_table import OptionTable
from xinference.engines.options.parsers import FORCED, unknown_form
from xinference.engines.options.speculation import refuse_speculation
from xinference.engines.options.thinking import ThinkingOption
from xinference.engines.replica_placement import (
    TORCH_CACHES,
    Placement,
    cuda_env,
)
from xinference.engines.shared_parts import (
    LoadsAdapters,
    ReadsPacked,
    SetsThinking,
    WeightsOnly,
    explanation_of,
)
from xinference.engines.static_table import StaticTable
from xinference.engines.support import Support
from xinference.engines.transformers.architectures import reads_images_of, reads_text_of
from xinference.engines.transformers.memory_model import MEMORY
from xinference.engines.transformers.option_policy import POLICY
from xinference.engines.transformers.packings import PACKINGS
from xinference.engines.transformers.variable_policy import VARIABLES
from xinference.environments.spec import EnvironmentSpec
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hardware.devices import Host
from xinference.launch.plan import LaunchPlan, SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.process.command import EngineCommand, ProgressProbe

VERSION = "5.23.0"
PLATFORM = "linux-x86_64"
PROGRAM = Path(__file__).with_name("server")
TOKENIZER_PATHS = frozenset({"/tokenize", "/detokenize"})
PATHS = {
    "LLM": TOKENIZER_PATHS | {"/v1/chat/completions", "/v1/completions", "/apply-template"},
    "embedding": TOKENIZER_PATHS | {"/v1/embeddings"},
    "rerank": TOKENIZER_PATHS | {"/v1/rerank", "/rerank"},
}
OPTIONS = OptionTable(
    engine="Transformers",
    version=VERSION,
    aliases={"max_model_len": "context_length", "n_ctx": "context_length", "dtype": "torch_dtype"},
    policy=POLICY,
    # Options of older Xinference for GPTQ and for loading; their values are now read from the model's folder.
    without_effect=frozenset(
        {"gptq_ckpt", "gptq_wbits", "gptq_groupsize", "gptq_act_order", "enable_tensorizer", "revision", "device_map"}
        | {"low_cpu_mem_usage", "use_fast", "reasoning_content"}
    ),
)
#: The forms of tool calls that `server/tools.py` reads, which are one.
TOOL_FORMS = frozenset({"hermes", "qwen", "qwen25"})
NO_SPECULATION = "its server drafts tokens only from equal earlier ones (--prompt_lookup_num_tokens)."
#: Maximum length of such a draft.
MOST_LOOKUP = 64
OF_ANSWERS = frozenset({"chat_template", "default_chat_template_kwargs", "lora_modules", "prompt_lookup_num_tokens"})
#: Options without a meaning for models of one type.
OTHER_TYPE = {
    "LLM": frozenset({"pooling_type"}),
    "embedding": OF_ANSWERS,
    "rerank": OF_ANSWERS | {"pooling_type"},
}
DEVICES = ("auto", "cpu", "cuda")
#: The values of ``pooling_type``, which replaces the pooling in the files of an embedding model.
POOLINGS = ("mean", "cls", "last", "max")
_MEMORY = "There is not enough memory: use a smaller --context_length, --max_num_seqs or model, or 8-bit or 4-bit."
#: A part of a log line, in lower case -> its explanation.
LOG_EXPLANATIONS = (
    ("there are no .safetensors files", "Only safetensors are loaded: convert the weights, or fetch such a version."),
    ("requires you to execute the configuration file", "The model contains its own code: read it, and if you trust "
     "it, launch with --trust_remote_code true."),
    ("contains custom code which must be executed", "The model contains its own code: read it, and if you trust it, "
     "launch with --trust_remote_code true."),
    ("a program of the repository, which is not executed", "The model contains its own code, which this server does "
     "not run: use another engine."),
    ("no head that ranks documents", "Launch a reranker, which is a ForSequenceClassification with one label."),
    ("does not recognize this architecture", "This version of transformers does not know the model's architecture."),
    ("not batched here", "This server batches attention layers only: use another engine for this model."),
    ("out of memory", _MEMORY),
    ("outofmemoryerror", _MEMORY),
    ("can't allocate memory", _MEMORY),
    ("address already in use", "Another program took the port during the start: launch again."),
)  # fmt: skip


class Transformers(LoadsAdapters, ReadsPacked, SetsThinking, WeightsOnly):
    """The engine for every safetensors model that transformers supports, on CPUs and NVIDIA GPUs."""

    table = StaticTable(
        engine="Transformers",
        formats={"pytorch": ("none", "8-bit", "4-bit"), "bnb": ("8-bit", "4-bit"), "fp8": None, "fp4": None},
        model_types=("LLM", "embedding", "rerank"),
        loads_adapters=True,
        # The engines of older Xinference for embedding and rerank models.
        aliases=("sentence_transformers", "flag", "FlagEmbedding"),
    )
    memory = MEMORY
    packings = PACKINGS
    thinking = ThinkingOption("default_chat_template_kwargs")
    variables = VARIABLES
    #: Its options are shipped with Xinference, because its environment may not be installed yet.
    describe_argv: tuple[str, ...] = ()

    package = None

    def lacks(self, host: Host) -> tuple[Lack, ...]:
        return ()

    def reads(self, family: ModelFamily) -> Support:
        return reads_text_of(family)

    def available(self, spec: ModelSpec, host: Host) -> Support:
        if sysconfig.get_platform() != PLATFORM:
            return Support(f"Transformers {VERSION} is packed for {PLATFORM}, and this is {sysconfig.get_platform()}")
        if host.gpus:
            return cuda_support("Transformers", VERSION, host) and PACKINGS.supports_names(spec, host)
        if "avx2" not in host.cpu_flags:
            return Support("there is no CUDA device, and torch's CPU kernels need avx2, which this CPU lacks")
        return PACKINGS.supports_names(spec, host)

    def open_options(self, known: Mapping[str, str]) -> Mapping[str, str]:
        return OPTIONS.open_kinds

    def check_options(self, options: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
        checked = OPTIONS.check(refuse_speculation(options, "Transformers", NO_SPECULATION))
        for name in ("context_length", "max_num_seqs"):
            if checked.get(name, 1) < 1:
                raise Problem(Code.BAD_OPTION, f"--{name} is {checked[name]}, and must be positive.")
        drafted = checked.get("prompt_lookup_num_tokens", 0)
        if not 0 <= drafted <= MOST_LOOKUP:
            cause = (
                f"--prompt_lookup_num_tokens is {drafted}, and must be a number from 0 (no drafts) to {MOST_LOOKUP}."
            )
            raise Problem(Code.BAD_OPTION, cause)
        if checked.get("device", "auto") not in DEVICES:
            raise Problem(
                Code.BAD_OPTION, f"--device is {checked['device']!r}; Transformers accepts {', '.join(DEVICES)}."
            )
        if checked.get("pooling_type", "mean") not in POOLINGS:
            cause = f"--pooling_type is {checked['pooling_type']!r}; Transformers accepts {', '.join(POOLINGS)}."
            raise Problem(Code.BAD_OPTION, cause)
        if "lora_modules" in checked:
            checked["lora_modules"] = lora.read_modules("lora_modules", checked["lora_modules"])
            dotted = next((name for name in checked["lora_modules"] if "." in name), None)
            if dotted is not None:  # PEFT makes modules of these names
                raise Problem(Code.BAD_OPTION, f"The adapter's name {dotted!r} has a dot, which PEFT does not accept.")
        return checked

    def complete_options(
        self, version: ModelVersion, request: LaunchRequest, options: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        _check_model_type(version.family.model_type, options)
        return super().complete_options(version, request, options)

    def tool_refusal(self, plan: LaunchPlan) -> str | None:
        family = plan.version.family
        if family.tool_parser in TOOL_FORMS:
            return None
        form = (
            unknown_form(family)
            if family.tool_parser is None
            else (f"Transformers has no parser for tool calls in the form {family.tool_parser!r}.")
        )
        return f"{form} {FORCED}"

    def abilities(self, plan: LaunchPlan) -> tuple[str, ...]:
        family = plan.version.family
        if reads_images_of(family.architectures):
            return family.model_ability
        return tuple(ability for ability in family.model_ability if ability != "vision")

    def paths(self, plan: LaunchPlan) -> frozenset[str]:
        return PATHS[plan.version.family.model_type]

    def environment(self, host: Host) -> EnvironmentSpec | None:
        return EnvironmentSpec("Transformers", VERSION, "cuda" if host.gpus else "cpu")

    def command(self, plan: SizedPlan, api_key: str, placement: Placement) -> EngineCommand:
        params: dict[str, Any] = {
            "threads": plan.threads,
            **plan.options,
            "uid": plan.uid,
            "model_type": plan.version.family.model_type,
            "model_path": str(plan.path),
            "quantization": plan.version.quantization,
            "context_length": plan.sizing.context_length,
            "max_num_seqs": plan.sizing.slots,
            "device": "cuda" if placement.devices and plan.options.get("device") != "cpu" else "cpu",
            # Used if the tokenizer has no template.
            "family_chat_template": plan.version.family.chat_template,
        }
        return EngineCommand(
            argv=(str(placement.python), "-I", str(PROGRAM), "--port", "{port}"),
            env={
                "XINFERENCE_TRANSFORMERS_PARAMS": json.dumps(params).replace("{port}", "{ port}"),
                "XINFERENCE_ENGINE_KEY": api_key,
                "HF_HUB_OFFLINE": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1",
                # Log lines are stored and shown as text, without progress bars.
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "TQDM_DISABLE": "1",
                **cuda_env(placement),
            },
            model_name=plan.uid,
            api_key=api_key,
            cache_variables=TORCH_CACHES,
            progress=ProgressProbe("/progress", one_thread=not placement.devices and params["threads"] == 1),
        )

    def explain(self, log_tail: Sequence[str]) -> str | None:
        return explanation_of(log_tail, LOG_EXPLANATIONS)


def _check_model_type(model_type: str, options: Mapping[str, Any]) -> None:
    """Refuse options that have no effect on a model of this type."""
    wrong = sorted(OTHER_TYPE[model_type] & options.keys())
    if wrong:
        raise Problem(Code.UNSUPPORTED_OPTION, f"--{wrong[0]} has no effect on {model_type} models.", hint="Omit it.")
