"""Devices, context and slots of a plan, once the weights' header is known. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from xinference.engines.memory_model import MemoryModel
from xinference.errors import bad_request
from xinference.hardware.devices import Gpu, Host
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import LaunchPlan, Sizing
from xinference.planning.memory import LEAST_CONTEXT, Need, Room, promised, size_replica
from xinference.planning.occupancy import NOTHING_ELSE, Occupancy, gpus_with, host_memory
from xinference.planning.placement import USABLE_SHARE as USABLE_OF_GPU
from xinference.planning.placement import Groups, check_chosen, chosen, free_for_each, place, usable_gpus


def settle(
    plan: LaunchPlan,
    path: Path,
    shape: ModelShape,
    host: Host,
    model: MemoryModel,
    told: tuple[str, ...] = (),
    around: Occupancy = NOTHING_ELSE,
) -> LaunchPlan:
    """The plan with its devices and its sizing.

    Raises:
        Problem: 400 ``does_not_fit``, with each device and what it lacks.
    """
    settling = _Settling(plan, shape, host, model, around)
    sizing, groups = settling.on_gpus() if plan.use_gpu else (settling.on_cpu(), ())
    return plan.with_weights(path, sizing, told, groups)


class _Settling:
    """One plan's numbers."""

    def __init__(self, plan: LaunchPlan, shape: ModelShape, host: Host, model: MemoryModel, around: Occupancy) -> None:
        self._plan = plan
        self._shape = model.loaded(
            shape, plan.version.spec.model_format, plan.version.quantization, plan.options, on_cpu=not plan.use_gpu
        )
        self._host = host
        self._around = around
        self._model = model
        self._gpus = usable_gpus(gpus_with(host.gpus, around.returned), around.promised)
        self._slots: int | None = plan.options.get(model.slots_option) or None
        self._context = _wanted_context(plan, model)
        self._family = plan.version.family.context_length

    def on_cpu(self) -> Sizing:
        free, usable = host_memory(self._host, self._around)
        room = Room(
            free // self._plan.request.replica,
            usable=usable,
            cpu_flags=self._host.cpu_flags,
            correction_bytes=self._around.correction_bytes,
        )
        return self._size(room)

    def on_gpus(self) -> tuple[Sizing, Groups]:
        if self._spills():
            return self._spilled()
        groups = self._groups()
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
        return self._least(1) * self._plan.request.replica > together

    def _spilled(self) -> tuple[Sizing, Groups]:
        request = self._plan.request
        every = tuple(gpu.index for gpu in self._gpus)
        groups = chosen(self._gpus, request.gpu_idx, request.replica) if request.gpu_idx else (every,) * request.replica
        free = sum(gpu.memory_free for gpu in self._gpus) + host_memory(self._host, self._around)[0]
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

    def _groups(self) -> Groups:
        request, what = self._plan.request, self._what()
        if request.gpu_idx is not None:
            groups = chosen(self._gpus, request.gpu_idx, request.replica)
            self._check_split(len(groups[0]))
            check_chosen(self._gpus, groups, self._least, what)
            return groups
        counts = self._counts()
        if self._context is None:
            # As few devices as hold one whole context; if none do, as many as may be had, with a shorter one.
            whole = [count for count in counts if self._fits(count)]
            counts = whole or counts[-1:]
        return place(self._gpus, replicas=request.replica, counts=counts, need=self._least, what=what)

    def _what(self) -> str:
        asked = [f"{self._slots} slots"] if self._slots else []
        asked += [f"a context of {self._context} tokens"] if self._context else []
        return self._plan.version.version_id + (f" with {' and '.join(asked)}" if asked else "")

    def _fits(self, count: int) -> bool:
        free = sorted((gpu.memory_free for gpu in self._gpus), reverse=True)[:count]
        return len(free) == count and self._whole(count) <= free[-1] * USABLE_OF_GPU

    def _counts(self) -> Sequence[int]:
        """Numbers of devices that one replica may be split over."""
        wanted, most = self._plan.request.n_gpu, len(self._gpus)
        given = self._plan.options.get(self._model.parallel_option or "")
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
                f"{self._plan.engine} can't split {self._plan.version.version_id} over {count} GPUs: it cuts its "
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
        return float(self._plan.options[name]) if name and name in self._plan.options else None

    def _basis(self, gpu: Gpu) -> int:
        return gpu.memory_total if self._model.fraction_of == "total" else gpu.memory_free

    def _kept(self, fraction: float, groups: Groups, each: int) -> int:
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

    def _with_fraction(self, sizing: Sizing, groups: Groups, given: float | None) -> Sizing:
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


def _wanted_context(plan: LaunchPlan, model: MemoryModel) -> int | None:
    """The longest prompt that was asked for; one token of the option's is the answer's where it counts that, too."""
    given = plan.options.get(model.context_option)
    if not given:
        return None
    return max(1, int(given) - 1) if model.answer_counts_in_context else int(given)
