"""Chooses devices, context and slots of a launch from the header of its weights. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

from xinference.engines.memory_model import MemoryModel
from xinference.error_codes import Code
from xinference.errors import bad_request
from xinference.hardware.devices import Gpu
from xinference.launch.model_shape import ModelShape
from xinference.launch.place import local_places
from xinference.launch.plan import Devices, ResolvedLaunch, SizedPlan, Sizing
from xinference.planning.eviction import HOST
from xinference.planning.memory import (
    MIN_CONTEXT,
    MemoryBudget,
    MemoryEstimate,
    chosen_context,
    longest_prompt,
    size_replica,
    written_slots,
)
from xinference.planning.occupancy import Available
from xinference.planning.placement import USABLE_SHARE as USABLE_OF_GPU
from xinference.planning.placement import GpuDemand, free_for_each, group_devices, place_replicas


def size_launch(
    launch: ResolvedLaunch,
    path: Path,
    shape: ModelShape,
    available: Available,
    model: MemoryModel,
    notes: tuple[str, ...] = (),
) -> SizedPlan:
    """Choose devices, context and slots within the available memory.

    Args:
        path: the weight file or folder.
        shape: read from the weights' header; `notes` are the notes of that reading.
        model: the engine's memory model.

    Raises:
        Problem: 400 ``does_not_fit``, with the missing memory of each device.
    """
    sizer = _Sizer(launch, shape, available, model)
    sizing, devices = sizer.size_on_gpus() if launch.use_gpu else (sizer.size_on_cpu(), ())
    if available.saves_states and (wanted := model.state_bytes(launch, sizing)):
        free = available.usable[HOST] // launch.request.replica - (0 if launch.use_gpu else sizing.total_bytes)
        sizing = msgspec.structs.replace(sizing, state_bytes=max(0, min(wanted, free)))
    return SizedPlan(launch, path, sizing, local_places(devices), notes, shape.writes_calls)


def answers_as_much(plan: SizedPlan, other: SizedPlan) -> bool:
    """Whether a plan has the context and the slots of another one, perhaps on other devices."""
    return (plan.sizing.context_length, plan.sizing.slots) == (other.sizing.context_length, other.sizing.slots)


def _with_pooling(shape: ModelShape, model_type: str) -> ModelShape:
    """The shape with its kind of answers: estimates and some headers do not have it."""
    pooled = model_type != "LLM"
    return shape if shape.pooled is pooled else msgspec.structs.replace(shape, pooled=pooled)


class _Sizer:
    """Computes the sizing of one launch."""

    def __init__(self, launch: ResolvedLaunch, shape: ModelShape, available: Available, model: MemoryModel) -> None:
        self._launch = launch
        self._shape = model.loaded_shape(
            _with_pooling(shape, launch.version.family.model_type),
            launch.version.spec.model_format,
            launch.version.quantization,
            launch.options,
            on_cpu=not launch.use_gpu,
        )
        self._available = available
        self._model = model
        self._gpus = available.gpus
        self._slots: int | None = launch.options.get(model.slots_option) or None
        self._context = _requested_context(launch, model)
        self._family = launch.version.family.context_length

    def size_on_cpu(self) -> Sizing:
        budget = MemoryBudget(
            self._available.host_bytes // self._launch.request.replica,
            usable=self._available.host_share,
            cpu_flags=self._available.cpu_flags,
            correction_bytes=self._available.correction_bytes,
        )
        return self._size(budget)

    def size_on_gpus(self) -> tuple[Sizing, Devices]:
        if self._spills():
            return self._size_with_spill()
        groups = place_replicas(self._gpus, self._demand())
        count = len(groups[0])
        each = free_for_each(self._gpus, groups)
        fraction = self._requested_fraction()
        usable = USABLE_OF_GPU
        if fraction is not None:
            each, usable = self._requested_bytes(fraction, groups, each), 1.0
        sizing = self._size(MemoryBudget(each * count, count, usable))
        return self._with_fraction(sizing, groups, fraction), groups

    def _spills(self) -> bool:
        """Whether some layers do not fit on the devices and the engine keeps them on the CPU."""
        if not self._model.spills_to_host:
            return False
        usable = int(sum(gpu.memory_free for gpu in self._gpus) * USABLE_OF_GPU)
        return self._minimum_bytes(1) * self._launch.request.replica > usable

    def _size_with_spill(self) -> tuple[Sizing, Devices]:
        request = self._launch.request
        if request.gpu_idx:
            groups = group_devices(self._gpus, request.gpu_idx, request.replica)
        else:
            groups = (tuple(gpu.index for gpu in self._gpus),) * request.replica
        free = sum(gpu.memory_free for gpu in self._gpus) + self._available.host_bytes
        sizing = self._size(MemoryBudget(free // request.replica, 1))
        reason = "layers that do not fit on the GPUs stay on the CPU"
        return msgspec.structs.replace(sizing, reasons=(*sizing.reasons, reason)), groups

    def _size(self, budget: MemoryBudget) -> Sizing:
        return size_replica(
            self._shape,
            self._model,
            budget,
            family_context=self._family,
            requested_context=self._context,
            requested_slots=self._slots,
        )

    # -- devices --------------------------------------------------------------------------------------------

    def _demand(self) -> GpuDemand:
        request = self._launch.request
        counts = self._counts() if request.gpu_idx is None else ()
        if self._context is None:
            # The minimum number of devices that hold one chosen context; if none do, all, with a shorter context.
            counts = [count for count in counts if self._fits(count)] or counts[-1:]
        return GpuDemand(
            request.replica, counts, self._minimum_bytes, self._description(), request.gpu_idx, self._check_split
        )

    def _description(self) -> str:
        requested = [written_slots(self._slots)] if self._slots else []
        requested += [f"a context of {self._context} tokens"] if self._context else []
        return self._launch.version.version_id + (f" with {' and '.join(requested)}" if requested else "")

    def _fits(self, count: int) -> bool:
        free = sorted((gpu.memory_free for gpu in self._gpus), reverse=True)[:count]
        return len(free) == count and self._chosen_bytes(count, free[-1]) <= free[-1] * USABLE_OF_GPU

    def _counts(self) -> Sequence[int]:
        """Numbers of devices over which one replica may be split, smallest first."""
        n_gpu = self._launch.request.n_gpu
        option = self._launch.options.get(self._model.parallel_option or "")
        count = option or (n_gpu if isinstance(n_gpu, int) else None)
        if count is not None:
            self._check_split(int(count))
            return [int(count)]
        return [n for n in range(1, len(self._gpus) + 1) if self._splits(n)] or [1]

    def _splits(self, count: int) -> bool:
        return self._model.splits == "layers" or self._shape.splits_over(count)

    def _check_split(self, count: int) -> None:
        if not self._splits(count):
            raise bad_request(
                f"{self._launch.engine} can't split {self._launch.version.version_id} over {count} GPUs: the "
                f"number must be a power of two and divide the model's {self._shape.heads} heads evenly.",
                hint="Use --n-gpu with 1, 2, 4 or 8.",
                code=Code.NO_SUCH_DEVICE,
            )

    def _chosen_bytes(self, count: int, free: int) -> int:
        """Bytes on each of `count` devices with one slot of the context that is chosen if each has `free` bytes."""
        estimate = MemoryEstimate(self._shape, self._model, MemoryBudget(free * count, count))
        context = chosen_context(estimate, longest_prompt(self._shape, self._family, None))
        return self._bytes_on_each(count, context)

    def _minimum_bytes(self, count: int) -> int:
        """Bytes on each of `count` devices with the requested context, or else with the minimum context."""
        maximum = longest_prompt(self._shape, self._family, self._context)
        return self._bytes_on_each(count, maximum if self._context else min(maximum, MIN_CONTEXT))

    def _bytes_on_each(self, count: int, context: int) -> int:
        estimate = MemoryEstimate(self._shape, self._model, MemoryBudget(0, count))
        return -(-estimate.total(context, self._slots or 1) // count)

    # -- fractions ------------------------------------------------------------------------------------------

    def _requested_fraction(self) -> float | None:
        name = self._model.fraction_option
        return float(self._launch.options[name]) if name and name in self._launch.options else None

    def _fraction_basis(self, gpu: Gpu) -> int:
        """Bytes of which the engine's memory fraction is a share."""
        return gpu.memory_total if self._model.fraction_of == "total" else gpu.memory_free

    def _requested_bytes(self, fraction: float, groups: Devices, each: int) -> int:
        """Bytes on each device by the requested fraction; refused if more than `each` bytes, which are free."""
        gpus = [gpu for gpu in self._gpus if gpu.index in groups[0]]
        share = int(min(self._fraction_basis(gpu) for gpu in gpus) * fraction)
        if not 0 < fraction <= 1 or share > each:
            raise bad_request(
                f"--{self._model.fraction_option} {fraction:g} is {share >> 20:,} MiB of each GPU, "
                f"and {each >> 20:,} MiB are free.",
                hint="Use a smaller fraction, or omit the option: the plan then computes it.",
                code=Code.DOES_NOT_FIT,
            )
        return share

    def _with_fraction(self, sizing: Sizing, groups: Devices, requested: float | None) -> Sizing:
        if self._model.fraction_option is None or requested is not None:
            return msgspec.structs.replace(sizing, memory_fraction=requested)
        count = len(groups[0])
        own = sizing.total_bytes
        if not self._model.fraction_covers_overhead:
            own -= sizing.overhead_bytes
        gpus = [gpu for gpu in self._gpus if any(gpu.index in group for group in groups)]
        fraction = math.ceil(own / count / min(self._fraction_basis(gpu) for gpu in gpus) * 100) / 100
        reason = (
            f"{self._model.fraction_option} {fraction:g}: the share of each device that the plan requires; "
            "the remaining memory is available to other models"
        )
        return msgspec.structs.replace(sizing, memory_fraction=fraction, reasons=(*sizing.reasons, reason))


def _requested_context(launch: ResolvedLaunch, model: MemoryModel) -> int | None:
    """The requested maximum length of a prompt: one token less than the option if the option counts the answer, too.

    An embedding model and a reranker answer without tokens.
    """
    option = launch.options.get(model.context_option)
    if not option:
        return None
    has_answer_token = model.answer_counts_in_context and launch.version.family.model_type == "LLM"
    return max(1, int(option) - 1) if has_answer_token else int(option)
