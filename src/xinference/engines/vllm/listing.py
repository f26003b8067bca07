"""The list of the models that vLLM supports, under the names of Xinference 1 and 2."""

from __future__ import annotations

from xinference.engines.listing import Listing

MODELS = Listing(engine="vLLM", path="/v1/models/vllm-supported", command="vllm-models", method="vllm_models")
