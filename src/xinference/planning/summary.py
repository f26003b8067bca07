"""The lines that a launch shows of its plan; `--dry-run` has all reasons. Pure."""

from __future__ import annotations

from xinference.catalog.models import written_size
from xinference.engines.memory_model import MemoryModel
from xinference.launch.forecast import Forecast
from xinference.launch.plan import LaunchPlan, SizedPlan
from xinference.planning.eviction import format_size
from xinference.planning.memory import written_slots
from xinference.units import MIB


def summary(plan: LaunchPlan, model: MemoryModel) -> tuple[str, ...]:
    """The version and its engine, then a line for each choice that the request leaves open."""
    version = plan.version
    name = f"{version.family.model_name} {written_size(version.size)} {version.spec.model_format}"
    draft = plan.launch.draft if isinstance(plan, SizedPlan) else plan.draft
    slots = (slots_and_context(plan, model),) if isinstance(plan, SizedPlan) else ()
    return (f"{name} {version.quantization} on {plan.engine}", *draft.choices, *slots)


def expectation(forecast: Forecast) -> str:
    """The memory and the download that are expected of weights that are not on this machine yet."""
    sizing = forecast.sizing
    download = f", {format_size(forecast.download_bytes)} to download" if forecast.download_bytes else ""
    if sizing is None:
        return f"the memory is not known before the download{download}"
    rough = " by a rough estimate" if forecast.source == "estimate" else ""
    return f"{format_size(sizing.total_bytes)} of memory{rough}{download}"


def slots_and_context(plan: SizedPlan, model: MemoryModel) -> str:
    """Slots and context with their memory, and those of the two options that the request does not have."""
    sizing = plan.sizing
    text = f"{written_slots(sizing.slots)} x {sizing.context_length} tokens of context"
    requested = plan.options.get(model.context_option)
    if requested and int(requested) > sizing.context_length + 1:  # an engine may count the answer's first token
        text += f", the model's maximum, in place of {requested}"
    if sizing.kv_cache_bytes:
        text += f": {sizing.kv_cache_bytes / MIB:,.0f} MiB of cache"
    flags = [f"--{name}" for name in (model.slots_option, model.context_option) if not plan.options.get(name)]
    return f"{text} ({', '.join(flags)})" if flags else text
