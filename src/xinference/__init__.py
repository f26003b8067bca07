"""Xinference turns the name of an open language model into an OpenAI-compatible endpoint."""

__version__ = "0.1.0"
