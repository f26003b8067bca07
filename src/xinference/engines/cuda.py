"""What vLLM and SGLang ask of an NVIDIA host."""

from __future__ import annotations

from xinference.engines.base import YES, Support
from xinference.hardware.devices import Host

#: The CUDA that both locks bring; any driver of the same major version runs it.
CUDA = (13, 0)
LEAST_DRIVER = "580"
#: CUDA 13 compiles for Turing and newer.
LEAST_CAPABILITY = (7, 5)


def cuda_support(engine: str, version: str, host: Host) -> Support:
    """Whether the locked packages run on one of this host's GPUs; it has some."""
    if host.driver is not None and host.driver.cuda < CUDA:
        have = ".".join(map(str, host.driver.cuda))
        return Support(
            f"{engine} {version} needs CUDA {CUDA[0]} (driver {LEAST_DRIVER} or newer), "
            f"and the NVIDIA driver {host.driver.version} runs CUDA {have} at most"
        )
    able = [g for g in host.gpus if g.compute_capability is None or g.compute_capability >= LEAST_CAPABILITY]
    if not able:
        names = ", ".join(sorted({gpu.name for gpu in host.gpus}))
        return Support(f"{engine} {version} has no kernels for {names}: it needs compute capability 7.5 (Turing)")
    return YES
