"""Bodies of requests: one definition says what is valid, checks it, and describes it to clients."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from atlas_plugin.errors import ValidationError
from atlas_plugin.http import Request

_T = TypeVar("_T")


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
        raise _problem(document, kind, "") or ValidationError(_lowered(error), "body") from None


def _problem(value: Any, kind: Any, path: str) -> ValidationError | None:
    """The first thing that is wrong with a value, in the order of the document; None where nothing is."""
    try:
        msgspec.convert(value, kind)
        return None
    except msgspec.ValidationError as error:
        reason = _lowered(error)
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    found = None
    if isinstance(value, list) and get_origin(plain) is list:
        parts = (_problem(one, get_args(plain)[0], f"{path}[{i}]") for i, one in enumerate(value))
        found = next(filter(None, parts), None)
    elif isinstance(value, dict) and (fields := _fields(plain)):
        found = _problem_of_fields(value, plain, fields, path)
    return found or ValidationError(_what(kind) or reason, path or "body")


def _problem_of_fields(
    value: Mapping[str, Any], kind: Any, fields: Mapping[str, Any], path: str
) -> ValidationError | None:
    hints = get_type_hints(get_origin(kind) or kind, include_extras=True)
    inner = f"{path}." if path else ""
    for name, one in value.items():
        if (field := fields.get(name)) is not None:
            if found := _problem(one, hints[field.name], inner + name):
                return found
        elif getattr(msgspec.inspect.type_info(kind), "forbid_unknown_fields", False):
            names = "" if path else f"; the fields are {', '.join(fields)}"
            return ValidationError(f"there is no such field{names}", inner + name)
    for name, field in fields.items():
        if field.required and name not in value:
            return ValidationError(_what(hints[field.name]) or "it is missing", inner + name)
    return None


def _fields(kind: Any) -> Mapping[str, Any]:
    """The fields of a type that has some, by their names in JSON."""
    fields = getattr(msgspec.inspect.type_info(kind), "fields", ())
    return {field.encode_name: field for field in fields}


def _what(hint: Any) -> str:
    for meta in getattr(hint, "__metadata__", ()):
        if isinstance(meta, msgspec.Meta) and meta.extra and "what" in meta.extra:
            return f"value must be {meta.extra['what']}"
    return ""


def _lowered(error: Exception) -> str:
    reason = str(error)
    return f"{reason[:1].lower()}{reason[1:]}"
