"""SGLang: runs its own OpenAI server on NVIDIA GPUs; its kernels are for CUDA only."""

from __future__ import annotations

import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xinference.catalog.models import ModelFamily, ModelSpec
from xinference.engines.base import Lack
from xinference.engines.cuda import cuda_support
from xinference.engines.options import lora
from xinference.engines.options.option_table import OptionTable
from xinference.engines.options.thinking import ThinkingOption
from xinference.engines.options.value_rules import is_template
from xinference.engines.parser_engine import ParserEngine, drop_no_parser
from xinference.engines.replica_placement import (
    TORCH_CACHES,
    Placement,
    Rank,
    cuda_env,
    rank_env,
)
from xinference.engines.sglang.memory_model import MEMORY
from xinference.engines.sglang.option_policy import POLICY
from xinference.engines.sglang.own_options import draft_files, own_options
from xinference.engines.sglang.packings import ONLINE, PACKINGS, VERSION
from xinference.engines.sglang.parsers import PARSERS
from xinference.engines.sglang.variable_policy import VARIABLES
from xinference.engines.shared_parts import explanation_of
from xinference.engines.static_table import StaticTable
from xinference.engines.support import Support
from xinference.engines.torch_memory import offloaded_bytes
from xinference.environments.spec import EnvironmentSpec
from xinference.hardware.devices import Host
from xinference.launch.plan import LaunchPlan, SizedPlan, Sizing
from xinference.process.command import EngineCommand, ProgressProbe

PLATFORM = "linux-x86_64"
PROGRAM = Path(__file__).with_name("server.py")
PATHS = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"}
    | {"/tokenize", "/detokenize"}
)
#: The policies of waiting requests that SGLang combines with priorities; the first one is its default.
PRIORITY_POLICIES = ("fcfs", "lof")
OPTIONS = OptionTable(
    engine="SGLang",
    version=VERSION,
    aliases={
        "tensor_parallel_size": "tp_size",
        "attention_reduce_in_fp32": "triton_attention_reduce_in_fp32",
        "max_model_len": "context_length",
        "n_ctx": "context_length",
        "lora_modules": "lora_paths",
        "model_quantization": "quantization",
    },
    policy=POLICY,
    without_effect=frozenset(),
)
_MEMORY = "There is not enough device memory: use a smaller --context_length, model or --mem_fraction_static."
#: A part of a log line, in lower case -> its explanation.
LOG_EXPLANATIONS = (
    ("no kernel image is available", "This build of SGLang has no kernels for this GPU: it is too old for its CUDA."),
    ("driver version is insufficient", "The NVIDIA driver is too old for this build of SGLang: update the driver."),
    ("not enough memory", _MEMORY),
    ("out of memory", _MEMORY),
    ("outofmemoryerror", _MEMORY),
    ("no accelerator", "SGLang found no CUDA device: see `xinference doctor`."),
    ("could not find nvcc", "SGLang compiles kernels at its first start, and the CUDA compiler (nvcc) is missing."),
    ("is greater than the derived context length", "The model was trained on fewer tokens: use a smaller "
     "--context_length."),
    ("address already in use", "Another program took the port during the start: launch again."),
)  # fmt: skip


class SGLang(ParserEngine):
    """The engine with a prefix cache: on NVIDIA GPUs only."""

    table = StaticTable(
        engine="SGLang",
        formats={
            "pytorch": ("none", "fp8", "int4", "int8", *sorted(PACKINGS.methods)),
            "gptq": ("4-bit", "8-bit"),
            "awq": ("4-bit", "8-bit"),
            "fp8": None,
            "fp4": None,
            "bnb": ("4-bit", "8-bit"),
        },
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
    adapters_option = "lora_paths"

    def lacks(self, host: Host) -> tuple[Lack, ...]:
        return () if host.gpus else (Lack("GPU", "SGLang can't run"),)

    def available(self, spec: ModelSpec, host: Host) -> Support:
        if sysconfig.get_platform() != PLATFORM:
            return Support(f"SGLang {VERSION} is packed for {PLATFORM}, and this is {sysconfig.get_platform()}")
        if not host.gpus:
            reason = f" ({host.no_gpu_reason})" if host.no_gpu_reason else ""
            return Support(f"SGLang has kernels for CUDA only, and there is no CUDA device{reason}")
        return cuda_support("SGLang", VERSION, host) and PACKINGS.supports_names(spec, host)

    def paths(self, plan: LaunchPlan) -> frozenset[str]:
        return PATHS

    def lora_names(self, plan: LaunchPlan) -> tuple[str, ...]:
        # SGLang reads an adapter's name after a colon; any other name is that of the base model.
        return tuple(f"{plan.uid}:{name}" for name in self.adapters(plan))

    def environment(self, host: Host) -> EnvironmentSpec | None:
        return EnvironmentSpec("SGLang", VERSION, "cuda")

    def command(self, plan: SizedPlan, api_key: str, placement: Placement) -> EngineCommand:
        settings = self._settings(plan, placement)
        template = _take_template(settings, plan.version.family)
        return EngineCommand(
            argv=(str(placement.python), "-I", str(PROGRAM), "--port", "{port}", *OPTIONS.argv(settings)),
            env=_environment(api_key, placement, template),
            model_name=plan.uid,
            api_key=api_key,
            cache_variables=TORCH_CACHES,
            answers=placement.answers,
            # Computes a token, and succeeds as well if any other token was computed meanwhile; otherwise it is a 503.
            progress=ProgressProbe("/health_generate") if placement.answers else None,
            extra_bytes=_extra_bytes(plan.options),
        )

    def _settings(self, plan: SizedPlan, placement: Placement) -> dict[str, Any]:
        """The options of the program; those of the launch replace those before them."""
        family = plan.version.family
        settings: dict[str, Any] = {
            "model_path": str(plan.path),
            "served_model_name": plan.uid,
            "host": "127.0.0.1",
            "log_level_http": "warning",
            "enable_metrics": True,
            # Usage has the tokens of the prompt that were in the prefix cache.
            **({"enable_cache_report": True} if family.model_type == "LLM" else {}),
            **_parser_settings(family),
            **_priority_options(plan),
            **plan.options,
            **_sizing_options(plan.sizing),
            **_rank_options(placement.rank),
        }
        drop_no_parser(settings)
        if modules := self.adapters(plan):
            settings |= {"lora_paths": lora.words(modules), "enable_lora": True}
        return settings

    def explain(self, log_tail: Sequence[str]) -> str | None:
        return explanation_of(log_tail, LOG_EXPLANATIONS)


def _take_template(settings: dict[str, Any], family: ModelFamily) -> str | None:
    """The text of the chat template, which is removed from `settings`; None: a name or a file, or the weights' own.

    SGLang needs the name of a template or its file: `server.py` writes the text to a file.
    """
    template: str | None = settings.get("chat_template", family.chat_template)
    if template is None or not (is_template(template) or "chat_template" not in settings):
        return None
    settings.pop("chat_template", None)
    return template


def _environment(api_key: str, placement: Placement, template: str | None) -> dict[str, str]:
    return {
        "XINFERENCE_ENGINE_KEY": api_key,
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "NO_COLOR": "1",
        **cuda_env(placement),
        **rank_env(placement.rank),
        **({} if template is None else {"XINFERENCE_CHAT_TEMPLATE": template.replace("{port}", "{ port}")}),
    }


def _extra_bytes(options: Mapping[str, Any]) -> int | None:
    # The default size of the cache in host memory is a multiple of that on the devices.
    if options.get("enable_hierarchical_cache") and not options.get("hicache_size"):
        return None
    return offloaded_bytes(options, ("cpu_offload_gb", "hicache_size"))


def _priority_options(plan: SizedPlan) -> dict[str, Any]:
    """The options with which waiting requests are ordered by their priority, unless the launch orders them itself.

    Requests without a priority keep the order of their arrival, and no request that is computed is interrupted.
    """
    policy = plan.options.get("schedule_policy", PRIORITY_POLICIES[0])
    if plan.version.family.model_type != "LLM" or policy not in PRIORITY_POLICIES:
        return {}
    if plan.options.get("enable_priority_scheduling") is False:
        return {}
    return {
        "enable_priority_scheduling": True,
        "schedule_low_priority_values_first": True,
        "default_priority_value": 0,
        "disable_priority_preemption": True,
    }


def _sizing_options(sizing: Sizing) -> dict[str, Any]:
    """The options that the planner decides; they override the user's, which the planner has considered."""
    settings: dict[str, Any] = {
        # A prompt must be shorter than SGLang's context; `context_length` is the maximum length of a prompt.
        "context_length": sizing.context_length + 1,
        "max_running_requests": sizing.slots,
        "tp_size": sizing.tensor_parallel,
    }
    if sizing.memory_fraction is not None:
        settings["mem_fraction_static"] = sizing.memory_fraction
    return settings


def _rank_options(rank: Rank | None) -> dict[str, Any]:
    """The options of one of several nodes: each node has some of the layers, and splits them over its devices."""
    if rank is None:
        return {}
    host = f"[{rank.head_address}]" if ":" in rank.head_address else rank.head_address
    return {
        "nnodes": rank.count,
        "node_rank": rank.number,
        "dist_init_addr": f"{host}:{rank.head_port}",
        "pp_size": rank.count,
    }


def _parser_settings(family: ModelFamily) -> dict[str, Any]:
    settings: dict[str, Any] = {"tool_call_parser": PARSERS.tool_parser(family) or PARSERS.schema_parser}
    if reasoning := PARSERS.reasoning_parser(family):
        settings["reasoning_parser"] = reasoning
    return settings
