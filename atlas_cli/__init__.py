"""The `atlas` command, of the extra `cli`. Nothing in the server imports this."""

from typing import Annotated

import typer

from atlas_cli.plugin import plugin
from atlas_cli.plugin_commands import CommandsWithPlugins
from atlas_cli.simulate import generate_trace, simulate
from atlas_plugin.version import __version__

app = typer.Typer(
    name="atlas",
    cls=CommandsWithPlugins,
    help="ATLAS for llama-server.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(simulate)
app.command()(generate_trace)
app.add_typer(plugin, name="plugin")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"atlas {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            is_eager=True,
            help="A plugin whose commands are wanted, as for the server's --atlas-plugin; repeat it. "
            "Those that are installed, and those of ATLAS_PLUGINS and ATLAS_PLUGINS_DIR, need not be named.",
        ),
    ] = None,
) -> None:
    """ATLAS for llama-server."""
