"""`atlas plugin new`."""

import importlib.util
import keyword
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from atlas_cli.console import fail
from atlas_plugin.builtin import make_builtins
from atlas_plugin.host.manager import PluginManager
from atlas_plugin.host.services import ServerCalls, Services
from atlas_plugin.testing import FakeHost

_TEMPLATE = Path(__file__).parent / "template"
_TEMPLATE_NAME = "my_plugin"
# Names of modules that are names of distributions too.
_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?")

plugin = typer.Typer(help="Write plugins for the server.", no_args_is_help=True)


@plugin.callback()
def main() -> None:
    """Write plugins for the server."""


@plugin.command()
def new(
    name: Annotated[
        str, typer.Argument(help="Of the plugin, its module, its package, and the directory to make.")
    ],
) -> None:
    """Make a package with a plugin: a hook, a route, and tests that pass."""
    if problem := _why_not(name):
        raise typer.BadParameter(problem, param_hint="NAME")
    directory = Path(name)
    try:
        directory.mkdir()
    except FileExistsError:
        fail(f"there is a '{name}' here already: remove it, or choose another name or directory")
    except OSError as error:
        fail(f"{name}: cannot be made: {error}")
    try:
        for path in _files():
            written = path.read_text(encoding="utf-8").replace(_TEMPLATE_NAME, name)
            (directory / path.name.replace(_TEMPLATE_NAME, name)).write_text(written, encoding="utf-8")
    except OSError as error:
        fail(f"{name}: cannot be written: {error}")
    typer.echo(f"{name}/ is ready. In the Python environment of the server:\n")
    typer.echo(f"  cd {name}\n  python -m pip install -e '.[test]'\n  python -m pytest\n")
    typer.echo("Then start the server: it loads the plugin by itself.")


def _why_not(name: str) -> str:
    """Why a plugin cannot have that name; empty: it can."""
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        return f"'{name}' is no name of a module: it is made of letters, digits and _, such as my_plugin"
    if name in _builtin_names():
        return f"'{name}' is a plugin of ATLAS's own: choose another name"
    if importlib.util.find_spec(name) is not None:
        return f"there is a module '{name}' in this environment already: choose another name"
    return ""


def _builtin_names() -> Iterable[str]:
    return make_builtins(Services(FakeHost(), PluginManager(), ServerCalls(), tuple))


def _files() -> Iterable[Path]:
    return (path for path in sorted(_TEMPLATE.iterdir()) if path.suffix in (".py", ".toml", ".md"))
