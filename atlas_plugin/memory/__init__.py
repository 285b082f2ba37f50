"""Saved contexts and sessions over HTTP: what the plugin `memory` is made of."""
