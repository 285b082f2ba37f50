"""Which handler answers which method and path."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from atlas_plugin.errors import MethodNotAllowed, NotFoundError, PluginError
from atlas_plugin.http import HandlerResult, Request

Handler = Callable[[Request], HandlerResult]
_HandlerT = TypeVar("_HandlerT", bound=Handler)

METHODS = ("DELETE", "GET", "POST")
PREFIX = "/v1/atlas/"
USER_PREFIX = "/v1/atlas/x/"

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(:path)?\}")
_LITERAL, _SEGMENT, _REST = range(3)


@dataclass(frozen=True)
class Route:
    """A handler with the method and path pattern that it answers, and the plugin it belongs to."""

    method: str
    path: str
    handler: Handler
    plugin: str
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
        self._prefix = PREFIX if builtin else USER_PREFIX
        self.collected: list[Route] = []

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Have `handler` answer `method` (GET, POST or DELETE; GET answers HEAD too) on `path`."""
        if method not in METHODS:
            raise self._error(method, path, f"the method must be one of {', '.join(METHODS)}")
        if not path.startswith(self._prefix):
            raise self._error(method, path, f"the path must start with {self._prefix}")
        if not callable(handler) or inspect.iscoroutinefunction(handler):
            raise self._error(method, path, "the handler must be a plain function, not async")
        pattern, rank = self._compile(method, path)
        self.collected.append(Route(method, path, handler, self._plugin, pattern, rank))

    def get(self, path: str) -> Callable[[_HandlerT], _HandlerT]:
        """Decorator: the function answers GET and HEAD on `path`."""
        return self._decorator("GET", path)

    def post(self, path: str) -> Callable[[_HandlerT], _HandlerT]:
        """Decorator: the function answers POST on `path`."""
        return self._decorator("POST", path)

    def delete(self, path: str) -> Callable[[_HandlerT], _HandlerT]:
        """Decorator: the function answers DELETE on `path`."""
        return self._decorator("DELETE", path)

    def _decorator(self, method: str, path: str) -> Callable[[_HandlerT], _HandlerT]:
        def decorate(handler: _HandlerT) -> _HandlerT:
            self.add(method, path, handler)
            return handler

        return decorate

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


class Router:
    """All routes. `include` is for start-up, on one thread; `match` is for any thread after it."""

    def __init__(self) -> None:
        self._routes: list[Route] = []

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
        raise NotFoundError(f"no route {method} {path}")
