"""Xinference: the name of an open language model in, an OpenAI-compatible endpoint out."""

__version__ = "0.1.0"
