"""The commands that plugins bring, by the hook `register_commands`."""

import logging
import os
from collections.abc import Collection, Iterable
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from atlas_cli.console import warn
from atlas_plugin import facts
from atlas_plugin.host.hooks import last_line
from atlas_plugin.host.plugin_set import LoadedPlugin, PluginSet
from atlas_plugin.host.settings import Settings


class CommandsWithPlugins(TyperGroup):
    """ATLAS's commands, and those of plugins, which are imported only where none of ATLAS's is meant."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, or None."""
        return super().get_command(ctx, cmd_name) or self._of_plugins(ctx).get(cmd_name)

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, for the help and for completion."""
        return [*super().list_commands(ctx), *self._of_plugins(ctx)]

    def _of_plugins(self, ctx: Any) -> dict[str, Any]:
        found: dict[str, Any] | None = getattr(self, "_found", None)
        if found is None:
            self._found = found = commands_of(ctx.params.get("plugin") or (), self.commands)
        return found


def commands_of(named: Iterable[str], taken: Collection[str]) -> dict[str, Any]:
    """What plugins bring: those installed, those of the environment, and those `named` as for the server.

    What fails, or has a name that is `taken`, is left out with a warning.
    """
    # What goes wrong is said here, in a line.
    logging.getLogger("atlas").addHandler(logging.NullHandler())
    plugins = PluginSet()
    plugins.load(_settings(named), {})
    for plugin in plugins.plugins:
        if plugin.info.state == "failed":
            warn(f"plugin '{plugin.info.name}' is left out: {plugin.info.error}")
    found: dict[str, Any] = {}
    for plugin in plugins.active():
        try:
            brought = _commands_of(plugins, plugin)
        except (Exception, SystemExit) as error:
            warn(f"the commands of plugin '{plugin.info.name}' are left out: {last_line(error)}")
            continue
        for name, command in brought.items():
            if name in taken or name in found:
                warn(f"plugin '{plugin.info.name}' has a command '{name}', as there is one already: left out")
            else:
                found[name] = command
    return found


def _commands_of(plugins: PluginSet, plugin: LoadedPlugin) -> dict[str, Any]:
    commands = typer.Typer()
    plugins.hooks.call_one(plugin.module, "register_commands", commands=commands)
    return dict(get_group(commands).commands)


def _settings(named: Iterable[str]) -> Settings:
    values = {
        "plugins": [word.strip() for word in os.environ.get("ATLAS_PLUGINS", "").split(",") if word.strip()],
        "plugins_dir": os.environ.get("ATLAS_PLUGINS_DIR", ""),
    }
    values["plugins"] = [*dict.fromkeys([*values["plugins"], *named])]
    return Settings([{**row, "value": values.get(row["name"], row["default"])} for row in facts.SETTINGS])
