"""The `atlas` command, of the extra `cli`. Nothing in the server imports this."""

from typing import Annotated

import typer

from atlas_cli.plugin import plugin
from atlas_cli.simulate import generate_trace, simulate
from atlas_plugin.version import __version__

app = typer.Typer(
    name="atlas", help="ATLAS for llama-server.", no_args_is_help=True, pretty_exceptions_enable=False
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
) -> None:
    """ATLAS for llama-server."""
