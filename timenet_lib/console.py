"""What every command shares: how mistakes end, lines of progress, the command as it was typed."""

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from timenet_lib.errors import InputError, TimeNetError, memory_advice


class OneLineErrors(click.Group):
    """Prints the caller's mistakes as one line and exits with 2, whoever noticed them."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            with memory_advice("timenet", "close other programs, or choose another --device"):
                return super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            sys.exit(2)
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            where = context.command_path if context else "timenet"
            fail(f"{' '.join(error.format_message().split())} (see {where} --help)", 2)
        except click.Abort:
            fail("interrupted", 130)
        except TimeNetError as error:
            fail(str(error), 2)


def fail(message: str, code: int) -> None:
    """Print an error and leave."""
    click.echo(f"error: {message}", err=True)
    sys.exit(code)


def say(message: str) -> None:
    """Print a line of progress on stderr."""
    click.echo(message, err=True)


def quiet(message: str) -> None:
    """Say nothing."""


def shown_command() -> str:
    """Return the command as it was typed, the program's path cut to its name."""
    return shlex.join(["timenet", *sys.argv[1:]])


def check_writable(path: Path | None) -> None:
    """Refuse a file to be written whose folder does not exist, before the work begins."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise InputError(f"cannot write {path}: {'it is a folder' if path.is_dir() else 'its folder does not exist'}")
