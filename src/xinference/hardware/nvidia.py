"""NVIDIA devices, by NVML: the driver's own library; no CUDA context is created."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Gpu:
    """One accelerator; sizes in bytes."""

    index: int
    """NVML's index, the same as in `nvidia-smi`; with CUDA_DEVICE_ORDER=PCI_BUS_ID also CUDA's."""
    name: str
    memory_total: int
    memory_free: int
    compute_capability: tuple[int, int] | None = None
    """``(8, 9)`` is Ada, ``(9, 0)`` Hopper."""
    uuid: str = ""
    mig: bool = False
    """Whether the GPU is split into MIG instances, which have their own names in CUDA: no model is placed on it."""


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver's version, and the newest CUDA version that it supports."""

    version: str
    cuda: tuple[int, int]


def read_nvidia() -> tuple[tuple[Gpu, ...], Driver | None, str | None]:
    """The devices in CUDA_VISIBLE_DEVICES, the driver, and the reason why there is no device, else None."""
    try:
        import pynvml
    except ImportError:
        return (), None, "the package nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return (), None, f"NVML: {error}"
    try:
        return _read(pynvml)
    except pynvml.NVMLError as error:  # such as a device that the bus has lost: no engine could start
        return (), None, f"NVML: {error}"
    finally:
        pynvml.nvmlShutdown()


def visible(text: str | None, uuids: Sequence[str]) -> tuple[int, ...]:
    """The devices in CUDA_VISIBLE_DEVICES, as indices into `uuids`; None: all of them.

    As in CUDA: numbers or prefixes of UUIDs; the first entry that names no device ends the list.
    https://docs.nvidia.com/cuda/cuda-c-programming-guide/#cuda-environment-variables
    """
    if text is None:
        return tuple(range(len(uuids)))
    indices: list[int] = []
    for word in text.split(","):
        index = _find_device(word.strip(), uuids)
        if index is None or index in indices:
            break
        indices.append(index)
    return tuple(indices)


def parse_cuda(number: int) -> tuple[int, int]:
    """NVML's 12040 is CUDA 12.4."""
    return number // 1000, number % 1000 // 10


def _find_device(word: str, uuids: Sequence[str]) -> int | None:
    if word.isdecimal():
        return int(word) if int(word) < len(uuids) else None
    matches = [index for index, uuid in enumerate(uuids) if word and uuid.startswith(word)]
    return matches[0] if len(matches) == 1 else None


def _read(nvml: Any) -> tuple[tuple[Gpu, ...], Driver | None, str | None]:
    driver = Driver(_text(nvml.nvmlSystemGetDriverVersion()), parse_cuda(nvml.nvmlSystemGetCudaDriverVersion_v2()))
    every = [_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    left = tuple(every[index] for index in visible(setting, [gpu.uuid for gpu in every]))
    reason = None
    if not left:
        reason = f"CUDA_VISIBLE_DEVICES is {setting!r}" if every else "the driver has no device"
    return left, driver, reason


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(
        index,
        _text(nvml.nvmlDeviceGetName(handle)),
        int(memory.total),
        int(memory.free),
        tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle)),
        _text(nvml.nvmlDeviceGetUUID(handle)),
        _is_split(nvml, handle),
    )


def _is_split(nvml: Any, handle: Any) -> bool:
    try:
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0])
    except nvml.NVMLError:  # most devices can't be split
        return False


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


def processes(pids: frozenset[int]) -> int | None:
    """Bytes of device memory of these processes, on all devices; None if NVML does not report them."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except (ImportError, pynvml.NVMLError):
        return None
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        used = [p for handle in handles for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle) if p.pid in pids]
        # In a container without the host's process ids NVML reports no size.
        sizes = [p.usedGpuMemory for p in used if p.usedGpuMemory is not None]
        return sum(sizes) if sizes else None
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
