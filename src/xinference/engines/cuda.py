"""The requirements of the engines with CUDA kernels on an NVIDIA host."""

from __future__ import annotations

from xinference.engines.base import YES, Support
from xinference.hardware.devices import Host

#: The CUDA version in the locked environments; any driver of the same major version supports it.
CUDA = (13, 0)
MIN_DRIVER = "580"
#: CUDA 13 compiles for Turing and newer.
MIN_CAPABILITY = (7, 5)
#: Weights of 8-bit floats: computed natively from 8.9 (Ada), and unpacked by Marlin's kernels from 8.0 (Ampere).
FP8_CAPABILITY = (8, 0)


def cuda_support(engine: str, version: str, host: Host, *, least: tuple[int, int] | None = None) -> Support:
    """Whether the locked packages run on one of this host's GPUs; the host must have a GPU.

    Args:
        least: the compute capability that the format of the weights needs.
    """
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
    if least and all(g.compute_capability is not None and g.compute_capability < least for g in suitable):
        names = ", ".join(sorted({gpu.name for gpu in suitable}))
        return Support(
            f"the kernels of {engine} {version} for these weights need compute capability {least[0]}.{least[1]}, "
            f"which {names} does not have"
        )
    return YES
