"""The versions that other parts compare with."""

__version__ = "0.1.0"

ABI_VERSION = 5
"""Equals `ATLAS_ABI_VERSION` of the server's `atlas-abi.h`; a server with another number is refused."""
