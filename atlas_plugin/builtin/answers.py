"""The form of the answers of built-in routes."""

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Success(Generic[_T]):
    """The answer of what succeeded."""

    status: Literal["success"]
    data: _T


def success_of(data: Any) -> Any:
    """The type of an answer whose data are of this type."""
    return Success[data]
