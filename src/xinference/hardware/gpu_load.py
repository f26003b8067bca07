"""The load of NVIDIA devices at this moment, by NVML. Blocks for some milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class GpuLoad:
    """One device. None: the device does not report it."""

    uuid: str
    utilization: float | None = None
    """Share of the last moment in which it computed, 0 to 1."""
    temperature: float | None = None
    """Degrees Celsius."""
    power: float | None = None
    """Watts."""
    index: int = 0
    """NVML's index, as in `hardware.nvidia.Gpu`."""
    memory: float | None = None
    """Bytes in use."""


def read_gpu_loads() -> tuple[GpuLoad, ...]:
    """The load of all devices; none if there is no driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError:
        return ()
    except pynvml.NVMLError:
        return ()
    try:
        return tuple(_read(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def _read(nvml: Any, index: int) -> GpuLoad:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    uuid = nvml.nvmlDeviceGetUUID(handle)

    def read(value: Callable[[], float]) -> float | None:
        try:
            return value()
        except nvml.NVMLError:  # such as the power of a laptop's device
            return None

    return GpuLoad(
        uuid if isinstance(uuid, str) else uuid.decode(),
        read(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100),
        read(lambda: float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))),
        read(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000),
        index,
        read(lambda: float(nvml.nvmlDeviceGetMemoryInfo(handle).used)),
    )
