"""Devices, context and slots of a plan, once the weights' header is known. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from xinference.engines.memory_model import MemoryModel
from xinference.errors import bad_request
from xinference.hardware.devices import Gpu
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import Devices, ResolvedLaunch, SizedPlan, Sizing
from xinference.planning.memory import LEAST_CONTEXT, Need, Room, promised, size_replica
from xinference.planning.occupancy import Available
from xinference.planning.placement import USABLE_SHARE as USABLE_OF_GPU
from xinference.planning.placement import Demand, chosen, free_for_each, place_replicas


def size_launch(
    launch: ResolvedLaunch,
    path: Path,
    shape: ModelShape,
    there: Available,
    model: MemoryModel,
    notes: tuple[str, ...] = (),
) -> SizedPlan:
    """Choose devices, context and slots for what is available.

    Args:
        path: where the weights are.
        shape: what their header says, and `notes` what reading it showed.
        model: the engine's.

    Raises:
        Problem: 400 ``does_not_fit``, with each device and what it lacks.
    """
    sizer = _Sizer(launch, shape, there, model)
    sizing, devices = sizer.on_gpus() if launch.use_gpu else (sizer.on_cpu(), ())
    return SizedPlan(launch, path, sizing, devices, notes)


class _Sizer:
    """The numbers of one launch."""

    def __init__(self, launch: ResolvedLaunch, shape: ModelShape, there: Available, model: MemoryModel) -> None:
        self._launch = launch
        self._shape = model.loaded(
            shape,
            launch.version.spec.model_format,
            launch.version.quantization,
            launch.options,
            on_cpu=not launch.use_gpu,
        )
        self._there = there
        self._model = model
        self._gpus = there.gpus
        self._slots: int | None = launch.options.get(model.slots_option) or None
        self._context = _wanted_context(launch, model)
        self._family = launch.version.family.context_length

    def on_cpu(self) -> Sizing:
        room = Room(
            self._there.host_bytes // self._launch.request.replica,
            usable=self._there.host_share,
            cpu_flags=self._there.cpu_flags,
            correction_bytes=self._there.correction_bytes,
        )
        return self._size(room)

    def on_gpus(self) -> tuple[Sizing, Devices]:
        if self._spills():
            return self._spilled()
        groups = place_replicas(self._gpus, self._demand())
        count = len(groups[0])
        each = free_for_each(self._gpus, groups)
        fraction = self._given_fraction()
        usable = USABLE_OF_GPU
        if fraction is not None:
            each, usable = self._kept(fraction, groups, each), 1.0
        sizing = self._size(Room(each * count, count, usable))
        return self._with_fraction(sizing, groups, fraction), groups

    def _spills(self) -> bool:
        """Whether some layers find no room on devices and the engine leaves them on the CPU."""
        if not self._model.spills_to_host:
            return False
        together = int(sum(gpu.memory_free for gpu in self._gpus) * USABLE_OF_GPU)
        return self._least(1) * self._launch.request.replica > together

    def _spilled(self) -> tuple[Sizing, Devices]:
        request = self._launch.request
        every = tuple(gpu.index for gpu in self._gpus)
        groups = chosen(self._gpus, request.gpu_idx, request.replica) if request.gpu_idx else (every,) * request.replica
        free = sum(gpu.memory_free for gpu in self._gpus) + self._there.host_bytes
        sizing = self._size(Room(free // request.replica, 1))
        reason = "layers that the GPUs can't hold stay on the CPU"
        return replace(sizing, reasons=(*sizing.reasons, reason)), groups

    def _size(self, room: Room) -> Sizing:
        return size_replica(
            self._shape,
            self._model,
            room,
            family_context=self._family,
            wanted_context=self._context,
            wanted_slots=self._slots,
        )

    # -- devices --------------------------------------------------------------------------------------------

    def _demand(self) -> Demand:
        request = self._launch.request
        counts = self._counts() if request.gpu_idx is None else ()
        if self._context is None:
            # As few devices as hold one whole context; if none do, as many as may be had, with a shorter one.
            counts = [count for count in counts if self._fits(count)] or counts[-1:]
        return Demand(request.replica, counts, self._least, self._what(), request.gpu_idx, self._check_split)

    def _what(self) -> str:
        asked = [f"{self._slots} slots"] if self._slots else []
        asked += [f"a context of {self._context} tokens"] if self._context else []
        return self._launch.version.version_id + (f" with {' and '.join(asked)}" if asked else "")

    def _fits(self, count: int) -> bool:
        free = sorted((gpu.memory_free for gpu in self._gpus), reverse=True)[:count]
        return len(free) == count and self._whole(count) <= free[-1] * USABLE_OF_GPU

    def _counts(self) -> Sequence[int]:
        """Numbers of devices that one replica may be split over."""
        wanted, most = self._launch.request.n_gpu, len(self._gpus)
        given = self._launch.options.get(self._model.parallel_option or "")
        count = given or (wanted if isinstance(wanted, int) else None)
        if count is not None:
            self._check_split(int(count))
            return [int(count)]
        return [n for n in range(1, most + 1) if self._splits(n)] or [1]

    def _splits(self, count: int) -> bool:
        return self._model.splits == "layers" or self._shape.splits_over(count)

    def _check_split(self, count: int) -> None:
        if not self._splits(count):
            raise bad_request(
                f"{self._launch.engine} can't split {self._launch.version.version_id} over {count} GPUs: it cuts its "
                f"{self._shape.heads} heads into equal parts, of a power of two.",
                hint="Use --n-gpu with 1, 2, 4 or 8.",
                code="no_such_device",
            )

    def _whole(self, count: int) -> int:
        """Bytes on each of `count` devices with one whole context."""
        return self._on_each(count, promised(self._shape, self._family, self._context, []))

    def _least(self, count: int) -> int:
        """Bytes on each of `count` devices with the shortest context that is still offered."""
        most = promised(self._shape, self._family, self._context, [])
        return self._on_each(count, most if self._context else min(most, LEAST_CONTEXT))

    def _on_each(self, count: int, context: int) -> int:
        return -(-Need(self._shape, self._model, Room(0, count)).total(context, self._slots or 1) // count)

    # -- fractions ------------------------------------------------------------------------------------------

    def _given_fraction(self) -> float | None:
        name = self._model.fraction_option
        return float(self._launch.options[name]) if name and name in self._launch.options else None

    def _basis(self, gpu: Gpu) -> int:
        return gpu.memory_total if self._model.fraction_of == "total" else gpu.memory_free

    def _kept(self, fraction: float, groups: Devices, each: int) -> int:
        """Bytes on each device under a fraction that the user gave; refused if they are not free."""
        named = [gpu for gpu in self._gpus if gpu.index in groups[0]]
        share = int(min(self._basis(gpu) for gpu in named) * fraction)
        if not 0 < fraction <= 1 or share > each:
            raise bad_request(
                f"--{self._model.fraction_option} {fraction:g} is {share >> 20:,} MiB of each GPU, "
                f"and {each >> 20:,} MiB are free.",
                hint="Take a smaller fraction, or leave it out: the plan then chooses it.",
                code="does_not_fit",
            )
        return share

    def _with_fraction(self, sizing: Sizing, groups: Devices, given: float | None) -> Sizing:
        if self._model.fraction_option is None or given is not None:
            return replace(sizing, memory_fraction=given)
        count = len(groups[0])
        own = sizing.total_bytes
        if not self._model.fraction_covers_overhead:
            own -= sizing.overhead_bytes
        named = [gpu for gpu in self._gpus if any(gpu.index in group for group in groups)]
        fraction = math.ceil(own / count / min(self._basis(gpu) for gpu in named) * 100) / 100
        reason = (
            f"{self._model.fraction_option} {fraction:g}: what the plan needs of each device; "
            "the rest is left for other models"
        )
        return replace(sizing, memory_fraction=fraction, reasons=(*sizing.reasons, reason))


def _wanted_context(launch: ResolvedLaunch, model: MemoryModel) -> int | None:
    """The longest prompt that was asked for; one token of the option's is the answer's where it counts that, too."""
    given = launch.options.get(model.context_option)
    if not given:
        return None
    return max(1, int(given) - 1) if model.answer_counts_in_context else int(given)
