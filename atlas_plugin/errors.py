"""Every exception of ATLAS.

    Exception
    ├── AtlasError                  an answer: status, type, message
    │   ├── ValidationError         400 validation_error
    │   │   ├── MethodNotAllowed    405
    │   │   └── PayloadTooLarge     413
    │   ├── AuthenticationError     401 authentication_error
    │   │   └── Forbidden           403
    │   ├── NotFoundError           404 not_found
    │   ├── RateLimitError          429 rate_limit_error
    │   ├── ServerError             500 server_error
    │   │   └── AskError            what a plugin asked of the server was refused
    │   └── UnavailableError        503 service_unavailable
    └── PluginError                 a plugin that cannot be used; carries its name

A route handler raises an AtlasError to give that answer. Any other exception is answered with a plain 500.
"""

import time
from collections.abc import Iterable, Mapping
from typing import ClassVar

from atlas_plugin import facts

_TYPES = dict(facts.ERROR_TYPES)


class AtlasError(Exception):
    """An error answer. `message` is sent to the client, so it must hold no secrets."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = _TYPES[500]

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def headers(self) -> Mapping[str, str]:
        """Response headers that belong to this error."""
        return {}

    def to_body(self) -> dict[str, dict[str, int | str]]:
        """The JSON document of the answer; `timestamp` is now, in whole seconds since 1970."""
        return {
            "error": {
                "code": self.status,
                "message": self.message,
                "type": self.type,
                "timestamp": int(time.time()),
            }
        }


class ValidationError(AtlasError):
    """The request is wrong; `field` names the part of it, such as `context_id`, where there is one."""

    status = 400
    type = _TYPES[400]

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message if field is None else f"Validation error in field '{field}': {message}")
        self.field = field


class MethodNotAllowed(ValidationError):  # noqa: N818 (the name that HTTP gives it)
    """The path exists, but not with this method; `allow` lists the methods that it has."""

    status = 405

    def __init__(self, message: str, allow: Iterable[str]) -> None:
        super().__init__(message)
        self.allow = tuple(allow)

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Allow": ", ".join(self.allow)}


class PayloadTooLarge(ValidationError):  # noqa: N818
    """The body, or a part of it, is over a limit."""

    status = 413


class AuthenticationError(AtlasError):
    """Credentials are missing or wrong."""

    status = 401
    type = _TYPES[401]


class Forbidden(AuthenticationError):  # noqa: N818
    """The credentials are right, but not enough for this."""

    status = 403


class NotFoundError(AtlasError):
    """There is no such route or object."""

    status = 404
    type = _TYPES[404]


class _RetryableError(AtlasError):
    def __init__(self, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    @property
    def headers(self) -> Mapping[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


class RateLimitError(_RetryableError):
    """Too many requests; worth trying again after `retry_after` whole seconds."""

    status = 429
    type = _TYPES[429]

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message, retry_after)


class ServerError(AtlasError):
    """Something failed on this side. The message goes to the client."""


class AskError(ServerError):
    """A plugin asked the server something, and got an error: its status is `answered`, its text `reason`."""

    def __init__(self, path: str, answered: int, reason: str) -> None:
        super().__init__(f"a plugin asked {path} and got {answered}: {reason}")
        self.answered = answered
        self.reason = reason


class UnavailableError(_RetryableError):
    """A part is off or not ready; `retry_after`, in whole seconds, is sent where waiting helps."""

    status = 503
    type = _TYPES[503]


class PluginError(Exception):
    """A plugin that cannot be used; `plugin` is its name."""

    def __init__(self, plugin: str, message: str) -> None:
        super().__init__(message)
        self.plugin = plugin
