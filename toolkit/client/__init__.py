"""A served bundle asked over HTTP: ``toolkit serve``, or TensorFlow Serving. Importing this imports no framework."""

from toolkit.client.client import AsyncClient, Client
from toolkit.client.exchange import ServerError

__all__ = ["AsyncClient", "Client", "ServerError"]
