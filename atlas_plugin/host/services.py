"""What ATLAS's own plugins get besides the hooks, from who puts a server together, and nobody else gets."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from atlas_plugin.errors import UnavailableError
from atlas_plugin.host.host import ServerCall, ServerHost
from atlas_plugin.host.manager import PluginManager
from atlas_plugin.metrics.families import Family

Answer = Callable[[Mapping[str, Any]], Any]


class ServerCalls:
    """What answers the server's own questions, by the number of `atlas_python_call`. Any thread may ask."""

    def __init__(self) -> None:
        # Without the plugin "memory" there is nothing to write.
        self._answers: dict[int, Answer] = {ServerCall.SYNC: lambda argument: {}}

    def answer(self, what: ServerCall, answer: Answer) -> None:
        """Have this answer from now on; for `startup`."""
        self._answers[what] = answer

    def ask(self, what: int, argument: Mapping[str, Any]) -> Any:
        """The answer. Raises UnavailableError where there is nobody to ask, and what the answer raises."""
        if what not in self._answers:
            raise UnavailableError("conversations are not recorded: the plugin 'memory' is not running")
        return self._answers[what](argument)


@dataclass(frozen=True)
class Services:
    """The whole server, all plugins, and the server's questions."""

    host: ServerHost
    plugins: PluginManager
    calls: ServerCalls
    families: Callable[[], Iterable[Family]]
    """What the door into Python counts; called each time that somebody asks for the metrics."""


Builtins = Callable[[Services], Mapping[str, object]]
"""Makes the plugins that come with ATLAS, by name, in load order."""
