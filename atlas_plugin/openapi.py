"""The OpenAPI 3.1 description of the routes, from the definitions that check their requests."""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Generic, Literal, TypeVar

import msgspec

from atlas_plugin import errors
from atlas_plugin.routing import Operation
from atlas_plugin.version import __version__

Json = dict[str, Any]
_T = TypeVar("_T")

COMPLETIONS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/completion",
    "/infill",
    "/v1/responses",
    "/v1/messages",
)
"""The routes of llama-server that take an `atlas` object."""

_COMPLETION_ERRORS = (errors.ValidationError, errors.RateLimitError, errors.UnavailableError)
_EVERYWHERE = (errors.AuthenticationError, errors.Forbidden, errors.RateLimitError)
_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
}
_PATH_PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")


@dataclass(frozen=True, kw_only=True)
class Success(Generic[_T]):
    """The answer of what succeeded, of ATLAS's own routes."""

    status: Literal["success"]
    data: _T


def success_of(data: Any) -> Any:
    """The type of an answer whose data are of this type."""
    return Success[data]


class ErrorDetail(msgspec.Struct):
    """`code` is the HTTP status, `timestamp` in seconds since 1970, `param` what of the request is wrong."""

    code: int
    message: str
    type: str
    timestamp: int
    param: str | msgspec.UnsetType = msgspec.UNSET


class ErrorBody(msgspec.Struct):
    """What every error of ATLAS is answered with."""

    error: ErrorDetail


def describe(operations: Iterable[Operation], completion: Mapping[str, Any]) -> Json:
    """The document. `completion` has the schemas `request` and `answer` of the `atlas` object."""
    operations = sorted(operations, key=lambda operation: (operation.path, operation.method))
    kinds = [kind for one in operations for kind in (one.body, one.answer) if _is_type(kind)]
    schemas, components = msgspec.json.schema_components(
        [ErrorBody, *kinds], ref_template="#/components/schemas/{name}"
    )
    for kind, schema in zip(kinds, schemas[1:], strict=True):
        if extra := getattr(kind, "json_schema", None):
            components[schema["$ref"].rpartition("/")[2]].update(extra)
    found = iter(schemas[1:])
    paths: dict[str, Json] = {}
    for one in operations:
        body = next(found) if _is_type(one.body) else None
        answer = next(found) if _is_type(one.answer) else None
        # Two patterns may differ only in how much a parameter takes; the more literal one stands for both.
        item = paths.setdefault(_PATH_PARAMETER.sub(r"{\1}", one.path), {})
        item.setdefault(one.method.lower(), _operation(one, body, answer))
    for path in COMPLETIONS:
        paths.setdefault(path, {})["post"] = _completion()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ATLAS for llama-server",
            "version": __version__,
            "description": "The routes of ATLAS, and what it adds to the server's own.",
        },
        "security": [{}, *({name: []} for name in _SECURITY)],
        "paths": paths,
        "components": {
            "schemas": {
                **components,
                "AtlasRequest": completion["request"],
                "AtlasAnswer": completion["answer"],
            },
            "responses": {kind.__name__: _error_response(kind) for kind in _error_types()},
            "securitySchemes": _SECURITY,
        },
    }


def _operation(operation: Operation, body: Json | None, answer: Json | None) -> Json:
    kinds = [*operation.errors, *_EVERYWHERE]
    described: Json = {
        "tags": [operation.plugin],
        "responses": {"200": _answer(operation.answer, answer), **_errors(kinds)},
    }
    if operation.summary:
        described["summary"] = operation.summary
    if names := [match[1] for match in _PATH_PARAMETER.finditer(operation.path)]:
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if body is not None:
        described["requestBody"] = {"required": not _takes_nothing(operation.body), "content": _json(body)}
        described["responses"].update(_errors([errors.ValidationError]))
    return described


def _answer(declared: Any, schema: Json | None) -> Json:
    if schema is not None:
        return {"description": "Done.", "content": _json(schema)}
    return {"description": "Done.", **({"content": {declared: {}}} if isinstance(declared, str) else {})}


def _completion() -> Json:
    def with_atlas(name: str) -> Json:
        return {"type": "object", "properties": {"atlas": {"$ref": f"#/components/schemas/{name}"}}}

    done = {"description": "llama-server's own answer; `atlas` stands in it when it was in the request."}
    return {
        "tags": ["llama-server"],
        "summary": "llama-server's own route; only what ATLAS adds is described",
        "requestBody": {"required": True, "content": _json(with_atlas("AtlasRequest"))},
        "responses": {
            "200": {**done, "content": {**_json(with_atlas("AtlasAnswer")), "text/event-stream": {}}},
            **_errors([*_COMPLETION_ERRORS, *_EVERYWHERE]),
        },
    }


def _errors(kinds: Sequence[type[errors.AtlasError]]) -> Json:
    statuses = {str(kind.status): {"$ref": f"#/components/responses/{kind.__name__}"} for kind in kinds}
    return {**statuses, "default": {"$ref": "#/components/responses/AtlasError"}}


def _error_response(kind: type[errors.AtlasError]) -> Json:
    phrase = "Any other error" if kind is errors.AtlasError else HTTPStatus(kind.status).phrase
    return {
        "description": f"{phrase}. {inspect.getdoc(kind)}",
        "content": _json({"$ref": f"#/components/schemas/{ErrorBody.__name__}"}),
    }


def _error_types() -> list[type[errors.AtlasError]]:
    public = (kind for name, kind in vars(errors).items() if not name.startswith("_"))
    return [kind for kind in public if inspect.isclass(kind) and issubclass(kind, errors.AtlasError)]


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _is_type(kind: Any) -> bool:
    return kind is not None and not isinstance(kind, str)


def _takes_nothing(body: Any) -> bool:
    if hasattr(body, "json_schema"):
        return False  # it asks for more than its fields do
    try:
        msgspec.convert({}, body)
    except msgspec.ValidationError:
        return False
    return True
