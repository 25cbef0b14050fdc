"""What every command shares: how mistakes end, lines of progress, the command as it was typed."""

import math
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from timenet_lib.errors import InputError, TimeNetError, memory_advice, shown

Say = Callable[[str], None]  # takes a line of progress, as say and quiet below do


class Number(click.FloatRange):
    """A float within a range; NaN, which click lets through, is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not a number", param, ctx)
        return number


class OneLineErrors(click.Group):
    """Commands that print the caller's mistakes as one line and exit with 2."""

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
        except OSError as error:  # unforeseen, such as a name that is too long
            fail(f"{shown(error.filename) if error.filename else 'the system'}: {error.strerror or error}", 2)


def together(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Combine options that several commands share into one decorator."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Raise InputError, which names the extra to install, if an import inside finds no package."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: pip install '.[{name}]'") from error


def fail(message: str, code: int) -> None:
    """Print an error and exit with this code."""
    click.echo(f"error: {message}", err=True)
    sys.exit(code)


def say(message: str) -> None:
    """Print a line of progress on stderr."""
    click.echo(message, err=True)


def quiet(message: str) -> None:
    """Print nothing: what processes other than the first say."""


def shown_command() -> str:
    """Quote the command as it was typed, with the program's path cut to its name."""
    return shlex.join(["timenet", *sys.argv[1:]])


def check_writable(path: Path | None) -> None:
    """Check before the work begins. Raises InputError for a folder, and for a file whose folder does not exist."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise InputError(f"cannot write {path}: {'it is a folder' if path.is_dir() else 'its folder does not exist'}")
