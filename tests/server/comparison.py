"""Answers of two servers, made comparable."""

from typing import Any

# What differs between two runs of stock itself: identifiers, clocks and what is measured.
VARYING = {
    "call_id",
    "completed_at",
    "created",
    "created_at",
    "id",
    "is_done",
    "item_id",
    "media_marker",
    "modified_at",
    "started_at",
    "timings",
    "total_bytes",
}


def normalised(value: Any) -> Any:
    """The value with what varies replaced by its type. Keys keep their order."""
    if isinstance(value, dict):
        return {
            key: type(item).__name__ if key in VARYING else normalised(item) for key, item in value.items()
        }
    return [normalised(item) for item in value] if isinstance(value, list) else value
