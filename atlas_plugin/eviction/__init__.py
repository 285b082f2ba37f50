"""Decides which entries of a tier are worth keeping. Pure computing: no host, no threads, no files."""

from atlas_plugin.eviction.policy import LayerPolicy
from atlas_plugin.eviction.records import Eviction, Kind, Strategy, Touch
from atlas_plugin.eviction.state import StateError

__all__ = ["Eviction", "Kind", "LayerPolicy", "StateError", "Strategy", "Touch"]
