"""Small model versions for the hubs' tests."""

from __future__ import annotations

from xinference.catalog.models import ModelFamily, ModelSpec, ModelVersion, Source


def version(*sources: Source, quantization: str = "Q4_0") -> ModelVersion:
    spec = ModelSpec(model_format="ggufv2", model_size_in_billions=1, quantizations=("Q4_0", "Q8_0"), sources=sources)
    family = ModelFamily(
        model_name="tiny", context_length=64, model_lang=("en",), model_ability=("chat",), model_specs=(spec,)
    )
    return ModelVersion(family=family, spec=spec, quantization=quantization)
