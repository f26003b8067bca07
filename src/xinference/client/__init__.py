"""Python client of the REST interface."""

from xinference.client.client import Client

__all__ = ["Client"]
