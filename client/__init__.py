"""The messenger: vault, outbox, link to the relay, and its three faces.

`saltline.client.Client` is the library; it is loaded when somebody asks for it, so that a command's
help does not load a database and its ciphers.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saltline.client.messenger import Client

__all__ = ["Client"]


def __getattr__(name: str) -> object:
    if name == "Client":
        from saltline.client.messenger import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
