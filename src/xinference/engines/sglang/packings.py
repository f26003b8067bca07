"""The packed weights that SGLang's kernels compute, and those that it packs while it loads them.

From `get_min_capability` of its quantization methods and schemes, and from its choices of ``--quantization``.
"""

from __future__ import annotations

from xinference.catalog.packing import Packing, Scheme
from xinference.engines.options.online_quantization import OnlineMethod, OnlineQuantization
from xinference.engines.packing_support import PackingTable
from xinference.engines.support import YES, Support
from xinference.hardware.devices import Host

VERSION = "0.5.23"
_TURING, _AMPERE, _ADA, _HOPPER, _BLACKWELL = (7, 5), (8, 0), (8, 9), (9, 0), (10, 0)


def _check(packing: Packing, host: Host) -> Support:
    if (packing.method, packing.scheme) != ("modelopt", Scheme.FP8):
        return YES
    if all(gpu.compute_capability is not None and gpu.compute_capability < _ADA for gpu in host.gpus):
        return Support(f"SGLang {VERSION} reads ModelOpt's 8-bit floats on GPUs from compute capability 8.9 on")
    return YES


PACKINGS = PackingTable(
    engine=f"SGLang {VERSION}",
    capabilities={
        Scheme.FP8: _AMPERE,
        Scheme.FP8_BLOCK: _AMPERE,
        Scheme.FP8_CHANNELS: _AMPERE,
        Scheme.FP8_WEIGHTS: _AMPERE,
        Scheme.MXFP8: _BLACKWELL,
        Scheme.INT8: _AMPERE,
        Scheme.W4A16: _AMPERE,
        Scheme.W8A16: _AMPERE,
        Scheme.W4AFP8: _HOPPER,
        Scheme.NVFP4: _AMPERE,
        Scheme.MXFP4: _AMPERE,
        Scheme.BITSANDBYTES: _TURING,
    },
    methods=frozenset({"quark", "auto-round"}),
    check=_check,
)
_FOR_PACKED = frozenset(
    {
        "awq", "awq_marlin", "gptq", "gptq_marlin", "modelopt", "modelopt_fp8", "modelopt_fp4", "modelopt_mixed",
        "petit_nvfp4", "w8a8_int8", "w8a8_fp8", "moe_wna16", "w4afp8", "mxfp4", "auto-round", "auto-round-int8",
        "compressed-tensors", "quark", "quark_int4fp8_moe", "quark_mxfp4",
    }
)  # fmt: skip
ONLINE = OnlineQuantization(
    engine=f"SGLang {VERSION}",
    methods={
        "fp8": OnlineMethod("fp8", 8.0, Scheme.FP8),
        "mxfp8": OnlineMethod("mxfp8", 8.25, Scheme.MXFP8),
        "nvfp4_online": OnlineMethod("nvfp4_online", 4.5, Scheme.NVFP4),
        "bitsandbytes": OnlineMethod("bitsandbytes", 4.5, Scheme.BITSANDBYTES),
    },
    for_packed=_FOR_PACKED,
)
