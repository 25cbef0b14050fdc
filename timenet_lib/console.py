"""What every command shares: how mistakes end, lines of progress, the command as it was typed."""

import math
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from timenet_lib.errors import InputError, TimeNetError, memory_advice, shown

Say = Callable[[str], None]  # takes a line of progress, as say and quiet below do


class Number(click.FloatRange):
    """A float within a range; NaN, which click lets pass, lies in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not a number", param, ctx)
        return number


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
        except OSError as error:  # that nobody foresaw, such as a name that is too long
            fail(f"{shown(error.filename) if error.filename else 'the system'}: {error.strerror or error}", 2)


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
