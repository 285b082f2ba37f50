"""Which handler answers which method and path."""

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar, Unpack, overload

import msgspec

from atlas_plugin.bodies import parse_body
from atlas_plugin.errors import AtlasError, MethodNotAllowed, NotFoundError, PluginError
from atlas_plugin.http import HandlerResult, Request

Handler = Callable[[Request], HandlerResult]
_HandlerT = TypeVar("_HandlerT", bound=Handler)
_BodyT = TypeVar("_BodyT")

METHODS = ("DELETE", "GET", "POST")
PREFIX = "/v1/atlas/"
BUILTIN_PREFIX = "/v1/"
USER_PREFIX = "/v1/atlas/x/"

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(:path)?\}")
_LITERAL, _SEGMENT, _REST = range(3)


class RouteOptions(TypedDict, total=False):
    """What a route may say of itself besides its body; all but `guard` is for the description."""

    guard: Callable[[Request], None]
    """Called before the body is parsed; refuses the request by raising."""
    summary: str
    answer: Any
    """The type of the JSON that a 200 carries, or a media type such as `text/event-stream`."""
    errors: Sequence[type[AtlasError]]
    """Those that a client of this route should know of."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A method and a path pattern, whose plugin they are, and what is to be said of them."""

    method: str
    path: str
    plugin: str
    body: Any = None
    summary: str = ""
    answer: Any = None
    errors: Sequence[type[AtlasError]] = ()


@dataclass(frozen=True, kw_only=True)
class Route(Operation):
    """An operation with the handler that performs it."""

    handler: Handler
    pattern: re.Pattern[str]
    rank: tuple[tuple[int, str], ...]
    """A kind and a literal for each segment. Equal ranks match the same paths; lower ones are tried first."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Routes:
    """Collects the routes of one plugin, for the time of its `register_routes`.

    A path is literal but for segments `{name}`, which match one segment, and a last one `{name:path}`, which
    matches the rest. Plugins add theirs under /v1/atlas/x/. Handlers are plain functions, called on HTTP
    threads, several at once. Raises PluginError for a path, method or handler that cannot work.
    """

    def __init__(self, plugin: str, *, builtin: bool = False) -> None:
        self._plugin = plugin
        self._prefix = BUILTIN_PREFIX if builtin else USER_PREFIX
        self.collected: list[Route] = []

    def add(
        self,
        method: str,
        path: str,
        handler: Callable[..., HandlerResult],
        *,
        body: Any = None,
        **options: Unpack[RouteOptions],
    ) -> None:
        """Have `handler` answer `method` (GET, POST or DELETE; GET answers HEAD too) on `path`.

        `body`, for POST, is a type that msgspec knows, such as a Struct: the body is checked against it, and
        the handler gets the object as its second argument.
        """
        if method not in METHODS:
            raise self._error(method, path, f"the method must be one of {', '.join(METHODS)}")
        if not path.startswith(self._prefix):
            raise self._error(method, path, f"the path must start with {self._prefix}")
        if not callable(handler) or inspect.iscoroutinefunction(handler):
            raise self._error(method, path, "the handler must be a plain function, not async")
        if body is not None and method != "POST":
            raise self._error(method, path, "only POST has a body")
        for kind in (body, options.get("answer")):
            self._check_type(method, path, kind)
        pattern, rank = self._compile(method, path)
        self.collected.append(
            Route(
                method=method,
                path=path,
                plugin=self._plugin,
                body=body,
                summary=options.get("summary", ""),
                answer=options.get("answer"),
                errors=options.get("errors", ()),
                handler=_guarded(handler, options.get("guard"), body),
                pattern=pattern,
                rank=rank,
            )
        )

    def get(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[_HandlerT], _HandlerT]:
        """Decorator: the function answers GET and HEAD on `path`."""
        return self._decorator("GET", path, options)

    @overload
    def post(
        self, path: str, *, body: None = None, **options: Unpack[RouteOptions]
    ) -> Callable[[_HandlerT], _HandlerT]: ...

    @overload
    def post(
        self, path: str, *, body: type[_BodyT], **options: Unpack[RouteOptions]
    ) -> Callable[
        [Callable[[Request, _BodyT], HandlerResult]], Callable[[Request, _BodyT], HandlerResult]
    ]: ...

    def post(self, path: str, *, body: Any = None, **options: Unpack[RouteOptions]) -> Any:
        """Decorator: the function answers POST on `path`, and with `body` gets the checked one too."""
        return self._decorator("POST", path, options, body)

    def delete(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[_HandlerT], _HandlerT]:
        """Decorator: the function answers DELETE on `path`."""
        return self._decorator("DELETE", path, options)

    def _decorator(
        self, method: str, path: str, options: RouteOptions, body: Any = None
    ) -> Callable[[_HandlerT], _HandlerT]:
        def decorate(handler: _HandlerT) -> _HandlerT:
            self.add(method, path, handler, body=body, **options)
            return handler

        return decorate

    def _check_type(self, method: str, path: str, kind: Any) -> None:
        if kind is not None and not isinstance(kind, str):
            try:
                msgspec.json.schema(kind)
            except TypeError as error:
                raise self._error(method, path, f"{kind!r} has no JSON schema: {error}") from None

    def _compile(self, method: str, path: str) -> tuple[re.Pattern[str], tuple[tuple[int, str], ...]]:
        expressions: list[str] = []
        rank: list[tuple[int, str]] = []
        names: set[str] = set()
        for segment in path.split("/"):
            if rank and rank[-1][0] == _REST:
                raise self._error(method, path, "nothing can follow a {name:path} segment")
            parameter = _PARAMETER.fullmatch(segment)
            if parameter is None:
                if "{" in segment or "}" in segment:
                    raise self._error(method, path, f"segment {segment!r} is neither a literal nor {{name}}")
                expressions.append(re.escape(segment))
                rank.append((_LITERAL, segment))
                continue
            name, rest = parameter.groups()
            if name in names:
                raise self._error(method, path, f"the name {name!r} stands in it twice")
            names.add(name)
            expressions.append(f"(?P<{name}>{'.+' if rest else '[^/]+'})")
            rank.append((_REST if rest else _SEGMENT, ""))
        return re.compile("/".join(expressions), re.DOTALL), tuple(rank)

    def _error(self, method: str, path: str, reason: str) -> PluginError:
        return PluginError(self._plugin, f"cannot add route {method} {path}: {reason}")


def _guarded(
    handler: Callable[..., HandlerResult], guard: Callable[[Request], None] | None, body: Any
) -> Handler:
    if guard is None and body is None:
        return handler

    def handle(request: Request) -> HandlerResult:
        if guard is not None:
            guard(request)
        return handler(request) if body is None else handler(request, parse_body(request, body))

    return handle


class Router:
    """All routes. `include` is for start-up, on one thread; `match` is for any thread after it."""

    def __init__(self) -> None:
        self._routes: list[Route] = []

    @property
    def routes(self) -> Sequence[Route]:
        """All of them, the most literal paths first."""
        return self._routes

    def include(self, routes: Routes) -> None:
        """Take all routes of a plugin, or none: raises PluginError when one is taken already."""
        taken = {(route.method, route.rank): route for route in self._routes}
        for route in routes.collected:
            other = taken.setdefault((route.method, route.rank), route)
            if other is not route:
                both = f"plugin '{route.plugin}' and plugin '{other.plugin}'"
                raise PluginError(route.plugin, f"route {route} is taken by {other}: {both} want it")
        # Sorted, a literal segment wins over a parameter, and a parameter over the rest of a path.
        self._routes = sorted(taken.values(), key=lambda route: route.rank)

    def match(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The route and its path parameters. Raises NotFoundError, or MethodNotAllowed for another method."""
        allow: set[str] = set()
        for route in self._routes:
            if match := route.pattern.fullmatch(path):
                if route.method == method:
                    return route, match.groupdict()
                allow.update(("GET", "HEAD") if route.method == "GET" else (route.method,))
        if allow:
            methods = sorted(allow)
            raise MethodNotAllowed(
                f"{path} does not answer {method}; it answers {', '.join(methods)}", methods
            )
        raise NotFoundError(f"no route {method} {path}; GET {PREFIX}openapi.json lists what there is")
