"""What the commands print when something goes wrong."""

from typing import NoReturn

import typer


def warn(message: str) -> None:
    """Print what goes wrong beside what was asked for."""
    typer.echo(f"atlas: warning: {message}", err=True)


def fail(message: str) -> NoReturn:
    """Print the message and end with status 1."""
    typer.echo(f"atlas: {message}", err=True)
    raise typer.Exit(1)
