"""The lists of the models of one engine. Imports no engine: the gateway and the command line load this module."""

from __future__ import annotations

from xinference.engines.listing import Listing
from xinference.engines.vllm.listing import MODELS as VLLM_MODELS

LISTINGS: tuple[Listing, ...] = (VLLM_MODELS,)
