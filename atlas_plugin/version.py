"""The versions that other parts compare with."""

from atlas_plugin import facts

__version__ = "0.1.0"

HOOK_API = 1
"""Of hooks and what they are given. A plugin that says `ATLAS_API = 2` is refused by a server that has 1."""

ABI_VERSION = facts.ABI_VERSION
"""Equals `ATLAS_ABI_VERSION` of the server's `atlas-abi.h`; a server with another number is refused."""
