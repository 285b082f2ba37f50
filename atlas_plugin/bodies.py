"""Bodies of requests: one definition says what is valid, checks it, and describes it to clients."""

import re
from typing import Any, TypeVar, get_type_hints

import msgspec

from atlas_plugin.errors import ValidationError
from atlas_plugin.http import Request

_T = TypeVar("_T")

_PLACE = re.compile(r" - at `\$\.?(.*)`$")
_MISSING = re.compile(r"Object missing required field `(.*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)


def value_must_be(what: str, **constraints: Any) -> msgspec.Meta:
    """Constraints of a field, and the words that both errors and the description use for them."""
    return msgspec.Meta(description=what, extra={"what": what}, **constraints)


def parse_body(request: Request, kind: type[_T]) -> _T:
    """The body as a `kind`, which is anything that msgspec can convert to; an empty body counts as `{}`.

    Raises ValidationError, which names the field: `state`, `items[0].name`.
    """
    document = request.json_object() if request.body else {}
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise _named(str(error), kind) from None


def _named(message: str, kind: Any) -> ValidationError:
    place = _PLACE.search(message)
    path, reason = (place[1], message[: place.start()]) if place else ("", message)
    if unknown := _UNKNOWN.match(reason):
        names = "" if path else f"; the fields are {', '.join(_hints(kind))}"
        return ValidationError(f"there is no such field{names}", _joined(path, unknown[1]))
    if missing := _MISSING.match(reason):
        what = "" if path else _what(kind, missing[1])
        return ValidationError(what or "it is missing", _joined(path, missing[1]))
    return ValidationError(_what(kind, path) or f"{reason[:1].lower()}{reason[1:]}", path or "body")


def _what(kind: Any, field: str) -> str:
    hint = _hints(kind).get(field)
    for meta in getattr(hint, "__metadata__", ()):
        if isinstance(meta, msgspec.Meta) and meta.extra and "what" in meta.extra:
            return f"value must be {meta.extra['what']}"
    return ""


def _hints(kind: Any) -> dict[str, Any]:
    kind = getattr(kind, "__origin__", kind)
    return get_type_hints(kind, include_extras=True) if isinstance(kind, type) else {}


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
