"""llama.cpp: runs its own HTTP server from the `xllamacpp` wheel in a separate process."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xinference.catalog.models import ModelFamily, ModelSpec, ModelVersion, Source
from xinference.engines.base import (
    ExtraWeightFile,
    FileChoice,
    Lack,
)
from xinference.engines.llama_cpp import chat_form, pooling, projector, prompt_cache, shared_states, speculation, tuning
from xinference.engines.llama_cpp.memory_model import BATCH, CELL_PADDING, MEMORY, SMALL_WEIGHTS, small_micro_batch
from xinference.engines.llama_cpp.option_policy import POLICY
from xinference.engines.llama_cpp.option_values import convert
from xinference.engines.llama_cpp.variable_policy import VARIABLES
from xinference.engines.options import reasoning
from xinference.engines.options import speculation as speculation_options
from xinference.engines.options.option_table import check_repeated, near_options
from xinference.engines.options.reasoning import read_reasoning
from xinference.engines.options.thinking import ThinkingOption
from xinference.engines.replica_placement import (
    Placement,
    cuda_env,
)
from xinference.engines.shared_parts import (
    SetsThinking,
    explanation_of,
    lacks_avx2,
)
from xinference.engines.static_table import StaticTable
from xinference.engines.support import (
    YES,
    Support,
)
from xinference.environments.spec import EnvironmentSpec
from xinference.error_codes import Code
from xinference.errors import Problem, join_names
from xinference.hardware.devices import Host
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import LaunchPlan, ResolvedLaunch, SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.process.command import EngineCommand, ProgressProbe

PROGRAM = Path(__file__).with_name("server.py")
TOKENIZER_PATHS = frozenset({"/tokenize", "/detokenize"})
EMBEDDING_PATHS = frozenset({"/v1/embeddings"})
RERANK_PATHS = frozenset({"/v1/rerank", "/rerank"})
PATHS = TOKENIZER_PATHS | {
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/apply-template",
    "/infill",
}
#: Option names of llama-server, llama-cpp-python and older Xinference -> llama.cpp's names.
ALIASES = {
    "context_length": "n_ctx",
    "max_model_len": "n_ctx",
    "ctx_size": "n_ctx",
    "parallel": "n_parallel",
    "threads": "n_threads",
    "batch_size": "n_batch",
    "ubatch_size": "n_ubatch",
    "flash_attn": "flash_attn_type",
    "gpu_layers": "n_gpu_layers",
    "embeddings": "embedding",
    "pooling": "pooling_type",
    "seed": "sampling.seed",
    "n_threads": "cpuparams.n_threads",
    "n_threads_batch": "cpuparams_batch.n_threads",
    "mmproj": "mmproj.path",
    "multimodal_projector": "mmproj.path",
}
#: llama-cpp-python's options whose values are now read from the file or fixed; and GGUF contains no code to trust.
WITHOUT_EFFECT = frozenset(
    {"n_parts", "n_gqa", "rms_norm_eps", "f16_kv", "logits_all", "vocab_only", "low_vram", "verbose"}
    | {"trust_remote_code"}
)
#: Number of requests that its HTTP server takes at the same time, each with a thread. Measured with 1,200 streams; with
#: 300, it answered /slots within 40 ms.
HTTP_REQUESTS = 1024
#: A part of a log line, in lower case -> its explanation.
LOG_EXPLANATIONS = (
    ("unknown model architecture", "This llama.cpp does not know the model's architecture: update xllamacpp."),
    ("failed to allocate", "There is not enough memory: use a smaller --n_ctx, --n_parallel or quantization."),
    ("unable to allocate", "There is not enough memory: use a smaller --n_ctx, --n_parallel or quantization."),
    ("not within the file bounds", "The weight file is incomplete: fetch it again."),
    ("failed to create mtp context", "The weights have no layers for MTP, which --enable_mtp and --draft_model_path "
     "need. Leave them out, or use --speculative.types DRAFT_SIMPLE with a small model of the same family."),
    ("failed to load draft model", "llama.cpp can't load the draft model of --draft_model_path."),
    ("unknown pre-tokenizer", "This llama.cpp does not know the model's tokenizer: update xllamacpp."),
    ("address already in use", "Another program took the port during the start: launch again."),
)  # fmt: skip
_PROJECTOR_FAILED = re.compile(r"failed to load multimodal model, '(.+)'")
_WIDTHS = re.compile(r"text model \(n_embd = (\d+)\) and mmproj \(n_embd = (\d+)\)")
_REFUSED_VALUE = re.compile(r"llama\.cpp does not take .+ for --.+")


class LlamaCpp(SetsThinking):
    """The engine of the base install: GGUF on the CPU, and on GPUs for which its build has kernels."""

    table = StaticTable(
        engine="llama.cpp",
        formats={"ggufv2": None, "ggmlv3": None},
        model_types=("LLM", "embedding", "rerank"),
        ranks_refusal="its servers for further machines use neither keys nor encryption, and its authors advise "
        "against their use on a network",
    )
    memory = MEMORY
    thinking = ThinkingOption("default_template_kwargs", json.dumps)
    variables = VARIABLES
    describe_argv = (sys.executable, "-I", str(PROGRAM), "--describe")

    package = "xllamacpp"
    _found = False

    def lacks(self, host: Host) -> tuple[Lack, ...]:
        return (Lack("AVX2", "llama.cpp runs several times slower"),) if lacks_avx2(host) else ()

    def reads(self, family: ModelFamily) -> Support:
        return YES

    def available(self, spec: ModelSpec, host: Host) -> Support:
        # Asked for every version of the catalog: a package that was found once is there.
        self._found = self._found or importlib.util.find_spec(self.package) is not None
        if not self._found:
            return Support(f"the package {self.package} is not installed (`pip install {self.package}`)")
        return YES

    def open_options(self, known: Mapping[str, str]) -> Mapping[str, str]:
        return {name: kind for name, kind in known.items() if name in POLICY.available}

    def check_options(self, options: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
        if options.get("lora_modules"):
            raise Problem(
                Code.ENGINE_UNSUPPORTED,
                "LoRA adapters in PEFT's form work with weights of the format pytorch, gptq or awq, not with GGUF.",
                hint="Add --model-format pytorch (`model_format`): Transformers and vLLM run such a version.",
            )
        checked: dict[str, Any] = {}
        if read_reasoning(options, "reasoning_format") is False:
            checked["reasoning_format"] = "COMMON_REASONING_FORMAT_NONE"
        names: dict[str, str] = {}
        for option, value in options.items():
            if option in WITHOUT_EFFECT or option in speculation_options.NAMES or option == reasoning.NAME:
                continue
            if value is None:
                continue
            if option in ("use_mmap", "use_mlock"):
                checked["load_mode"] = _load_mode(options)
                continue
            name = ALIASES.get(option, option)
            if name not in known:
                POLICY.refuse(option, name)
                raise _unknown_option(option, known)
            POLICY.check(option, name, value, options)
            converted = convert(option, name, value, known[name])
            check_repeated(names, checked, option, name, converted)
            checked[name] = converted
        for name in ("n_ctx", "n_parallel"):
            if checked.get(name, 1) < (0 if name == "n_ctx" else 1):
                raise Problem(Code.BAD_OPTION, f"--{name} is {checked[name]}, and must be positive.")
        return speculation.with_speculation(options, checked)

    def complete_options(
        self, version: ModelVersion, request: LaunchRequest, options: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        completed, reasons = super().complete_options(version, request, options)
        return completed, (*reasons, *chat_form.reasons(version.family), *speculation.reasons(completed))

    def paths(self, plan: LaunchPlan) -> frozenset[str]:
        model_type = plan.version.family.model_type
        if model_type == "LLM":
            return PATHS | EMBEDDING_PATHS if plan.options.get("embedding") else PATHS
        return TOKENIZER_PATHS | (EMBEDDING_PATHS if model_type == "embedding" else RERANK_PATHS)

    def choose_files(self, source: Source | None, version: ModelVersion, options: Mapping[str, Any]) -> FileChoice:
        return projector.choose_projector(source, version, options)

    def extra_weight_files(self, launch: ResolvedLaunch, path: Path) -> tuple[ExtraWeightFile, ...]:
        return projector.extra_projector(launch, path) + speculation.draft_file(launch)

    def check_weights(self, launch: ResolvedLaunch, shape: ModelShape) -> None:
        pooling.check_pooling(launch, shape)

    def tool_refusal(self, plan: LaunchPlan) -> str | None:
        return chat_form.tool_refusal(plan)

    def check_packing(self, launch: ResolvedLaunch, shape: ModelShape, host: Host) -> None:
        """All types of GGUF are read, on every device."""

    def abilities(self, plan: LaunchPlan) -> tuple[str, ...]:
        return projector.abilities(plan)

    def adapters(self, plan: LaunchPlan) -> Mapping[str, str]:
        return {}

    def lora_names(self, plan: LaunchPlan) -> tuple[str, ...]:
        return ()

    def environment(self, host: Host) -> EnvironmentSpec | None:
        return None

    def command(self, plan: SizedPlan, api_key: str, placement: Placement) -> EngineCommand:
        params, extra_bytes = _parameters(plan, placement)
        return EngineCommand(
            argv=(str(placement.python), "-I", str(PROGRAM), "--port", "{port}"),
            env={
                "XINFERENCE_LLAMA_PARAMS": json.dumps(params).replace("{port}", "{ port}"),
                "XINFERENCE_ENGINE_KEY": api_key,
                # Otherwise a debugger's backtrace hides the message of a failed assertion.
                "GGML_NO_BACKTRACE": "1",
                **cuda_env(placement),
            },
            model_name=plan.uid,
            api_key=api_key,
            progress=ProgressProbe(
                "/slots",  # answered by the loop that computes, between two batches
                one_thread=not plan.use_gpu and params.get("cpuparams.n_threads") == 1,
                max_in_flight=HTTP_REQUESTS,
            ),
            extra_bytes=extra_bytes,
        )

    def option_changes(self, host: Host, slots: int, *, any_answers: bool) -> Sequence[Sequence[Mapping[str, Any]]]:
        return tuning.groups(host, slots, any_answers=any_answers)

    def explain(self, log_tail: Sequence[str]) -> str | None:
        log = "\n".join(log_tail)
        if refused := _REFUSED_VALUE.search(log):
            return f"{refused[0]}."
        if failed := _PROJECTOR_FAILED.search(log):
            return _explain_projector_failure(failed[1], log)
        return explanation_of(log_tail, LOG_EXPLANATIONS)


def _parameters(plan: SizedPlan, placement: Placement) -> tuple[dict[str, Any], int | None]:
    """The parameters of llama.cpp's server, and the bytes of memory that they add to the plan; None: no limit."""
    sizing = plan.sizing
    params: dict[str, Any] = {
        "cpuparams.n_threads": plan.threads,
        "cpuparams_batch.n_threads": plan.threads,
        prompt_cache.OPTION: prompt_cache.cache_mib(sizing, is_llm=plan.version.family.model_type == "LLM"),
        # Threads of the HTTP server at its start: each open stream occupies one.
        "n_threads_http": 64,
        "ui": False,
        "endpoint_metrics": True,
        **plan.options,
        "model_alias": plan.uid,
        "model_path": str(plan.path),
        # A unified cache for `slots` whole contexts: every slot can use its whole context at the same time, and
        # the limit of one slot is exact (llama.cpp needs one cell more than the prompt).
        "n_ctx": 0,
        "n_parallel": sizing.slots,
        "kv_unified": True,
        "kv_unified_per_slot": sizing.context_length + 1,
    }
    _set_batches(params, plan)
    if plan.request.n_gpu is None:
        # Otherwise it uses every device that its build finds, also devices that planning does not count.
        params["n_gpu_layers"] = 0
        params["mmproj_use_gpu"] = False
    if projector_file := projector.projector_path(plan.launch, plan.path):
        params[projector.OPTION] = str(projector_file)
    extra_bytes = prompt_cache.extra_bytes(params, sizing)
    if placement.states is not None:
        params |= shared_states.parameters(placement.states, sizing)
    template = plan.version.family.chat_template
    if template is not None:
        params.setdefault("chat_template", template)
    if stops := plan.version.family.stop_texts:  # a request's own `stop` replaces these
        params.setdefault("antiprompt", list(stops))
    return params, extra_bytes


def _set_batches(params: dict[str, Any], plan: SizedPlan) -> None:
    """Set how many tokens are computed together, where the launch leaves that open, and the pooling of vectors."""
    sizing, model_type = plan.sizing, plan.version.family.model_type
    if model_type != "LLM":
        # Pooling needs the whole prompt in one batch.
        batch = -(-(sizing.context_length + 1) // CELL_PADDING) * CELL_PADDING
        params |= {"embedding": True, "n_batch": batch, "n_ubatch": batch}
    if model_type == "rerank":
        params["pooling_type"] = "LLAMA_POOLING_TYPE_RANK"
    elif not plan.use_gpu and projector.OPTION not in params:
        if sizing.weights_bytes < SMALL_WEIGHTS:
            params.setdefault("n_ubatch", small_micro_batch(sizing.slots))
        if model_type == "LLM":
            params.setdefault("n_batch", max(BATCH, params.get("n_ubatch", BATCH), sizing.slots))


def _explain_projector_failure(file: str, log: str) -> str:
    """The reason why llama.cpp can't use a projector, and the options that avoid it."""
    widths = _WIDTHS.search(log)
    reason = (
        f"The projector {file} is for an embedding width of {widths[2]}, and this model's is {widths[1]}"
        if widths
        else f"llama.cpp can't use the projector {file}: it is damaged, or llama.cpp does not support its type"
    )
    return f"{reason}. Use the model's own with --mmproj, or --no_mmproj true to launch it without a projector."


def _load_mode(options: Mapping[str, Any]) -> str:
    mmap, mlock = options.get("use_mmap", True), options.get("use_mlock", False)
    names = {(True, True): "MMAP_MLOCK", (True, False): "MMAP", (False, True): "MLOCK", (False, False): "NONE"}
    return f"LLAMA_LOAD_MODE_{names[bool(mmap), bool(mlock)]}"


def _unknown_option(name: str, known: Mapping[str, str]) -> Problem:
    available = known.keys() & POLICY.available
    close = near_options(name, available, ALIASES)
    return Problem(
        Code.UNKNOWN_OPTION,
        f"llama.cpp has no option --{name}.",
        hint=f"Did you mean {join_names([f'--{each}' for each in close])}?"
        if close
        else f"Its {len(available)} options are the fields of llama.cpp's common_params; see docs/engines.md.",
    )
