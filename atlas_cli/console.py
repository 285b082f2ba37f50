"""What the commands print when they cannot do what they are asked to."""

from typing import NoReturn

import typer


def fail(message: str) -> NoReturn:
    """Print the message and end with status 1."""
    typer.echo(f"atlas: {message}", err=True)
    raise typer.Exit(1)
