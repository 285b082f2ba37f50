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


MORE_EVENTS = ("response.function_call_arguments.done", "response.reasoning_text.done")
"""Of a stream of /v1/responses: stock leaves them out."""
_CUT_OFF = {"incomplete": "completed", "response.incomplete": "response.completed"}


def as_stock_has_it(ours: Any, stock: Any) -> Any:
    """An answer of /v1/responses without what stock leaves out, and without saying that it was cut off."""
    if isinstance(ours, dict) and isinstance(stock, dict):
        return {key: as_stock_has_it(ours.get(key), stock[key]) for key in stock}
    if isinstance(ours, list) and isinstance(stock, list):
        kept = [one for one in ours if not (isinstance(one, dict) and one.get("type") in MORE_EVENTS)]
        return [as_stock_has_it(*pair) for pair in zip(kept, stock, strict=True)]
    return _CUT_OFF.get(ours, ours) if isinstance(ours, str) else ours
