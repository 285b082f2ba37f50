"""What blocks the memory has, told to routers as vLLM tells it: docs/fleet.md."""
