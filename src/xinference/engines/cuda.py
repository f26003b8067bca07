"""The requirements of the engines with CUDA kernels on an NVIDIA host."""

from __future__ import annotations

from xinference.engines.support import (
    YES,
    Support,
)
from xinference.hardware.devices import Host

#: The CUDA version in the locked environments; any driver of the same major version supports it.
CUDA = (13, 0)
MIN_DRIVER = "580"
#: CUDA 13 compiles for Turing and newer.
MIN_CAPABILITY = (7, 5)


def cuda_support(engine: str, version: str, host: Host) -> Support:
    """Whether the locked packages run on one of this host's GPUs; the host must have a GPU."""
    if host.driver is not None and host.driver.cuda < CUDA:
        maximum = ".".join(map(str, host.driver.cuda))
        return Support(
            f"{engine} {version} needs CUDA {CUDA[0]} (driver {MIN_DRIVER} or newer), "
            f"and the NVIDIA driver {host.driver.version} supports CUDA {maximum} at most"
        )
    suitable = [g for g in host.gpus if g.compute_capability is None or g.compute_capability >= MIN_CAPABILITY]
    if not suitable:
        names = ", ".join(sorted({gpu.name for gpu in host.gpus}))
        return Support(f"{engine} {version} has no kernels for {names}: it needs compute capability 7.5 (Turing)")
    return YES
