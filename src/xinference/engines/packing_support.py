"""Which packed weights an engine's kernels compute, on which GPUs and CPUs. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from xinference.catalog.models import ModelSpec
from xinference.catalog.packing import Packing, Scheme, possible_schemes
from xinference.engines.support import YES, Support
from xinference.hardware.devices import Host

Capability = tuple[int, int]


@dataclass(frozen=True)
class PackingTable:
    """The kernels of one version of an engine."""

    engine: str
    """The engine's name and version, for reasons."""
    capabilities: Mapping[Scheme, Capability]
    """Scheme -> the least compute capability of a GPU; a scheme without an entry has no kernels."""
    instructions: Mapping[Scheme, tuple[str, ...]] = field(default_factory=dict)
    """Scheme -> the instruction sets of a CPU, by Linux's names."""
    methods: frozenset[str] = frozenset()
    """Methods of `Scheme.OTHER` that the engine has its own kernels for, on GPUs."""
    check: Callable[[Packing, Host], Support] = lambda packing, host: YES
    """A further rule of the engine."""

    def supports(self, packing: Packing, host: Host) -> Support:
        """Whether weights with this packing run on this host."""
        if not packing.stated:
            return Support(
                f"config.json does not say how the weights are packed, and their tensors are {packing.quantization}"
            )
        if packing.scheme is Scheme.OTHER:
            return self._other(packing, host)
        return self.check(packing, host) and self.supports_scheme(packing.scheme, host)

    def supports_names(self, spec: ModelSpec, host: Host) -> Support:
        """Whether one of the spec's quantizations may run on this host, by its name alone."""
        refusal = YES
        for quantization in spec.quantizations:
            schemes = possible_schemes(spec.model_format, quantization)
            refusal = self._any(schemes, host)
            if refusal:
                return YES
        return refusal

    def _any(self, schemes: Iterable[Scheme], host: Host) -> Support:
        refusals = [self.supports_scheme(scheme, host) for scheme in schemes]
        return YES if not refusals or any(refusals) else refusals[0]

    def supports_scheme(self, scheme: Scheme, host: Host) -> Support:
        """Whether there are kernels for a scheme on this host."""
        if scheme in (Scheme.GPTQ, Scheme.AWQ):
            return YES
        return self._on_gpu(scheme, host) if host.gpus else self._on_cpu(scheme, host)

    def _on_gpu(self, scheme: Scheme, host: Host) -> Support:
        least = self.capabilities.get(scheme)
        if least is None:
            return Support(f"{self.engine} has no kernels for weights packed as {scheme}")
        if all(gpu.compute_capability is not None and gpu.compute_capability < least for gpu in host.gpus):
            names = ", ".join(sorted({gpu.name for gpu in host.gpus}))
            return Support(
                f"the kernels of {self.engine} for {scheme} need compute capability {least[0]}.{least[1]}, which "
                f"{names} does not have"
            )
        return YES

    def _on_cpu(self, scheme: Scheme, host: Host) -> Support:
        needed = self.instructions.get(scheme)
        if needed is None:
            return Support(f"there is no CUDA device, and {self.engine} has no CPU kernels for {scheme}")
        missing = [flag for flag in needed if flag not in host.cpu_flags]
        if missing:
            return Support(
                f"there is no CUDA device, and the CPU kernels of {self.engine} for {scheme} need "
                f"{', '.join(missing)}, which this CPU lacks"
            )
        return YES

    def _other(self, packing: Packing, host: Host) -> Support:
        if packing.method not in self.methods:
            return Support(f"{self.engine} does not read weights that are packed by {packing.method}")
        return YES if host.gpus else Support(f"there is no CUDA device, which weights packed by {packing.method} need")
