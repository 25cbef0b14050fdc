"""What every command shares: how mistakes end, lines of progress, the command as it was typed."""

import importlib
import io
import math
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from timenet_lib.errors import InputError, TimeNetError, memory_advice, shown
from timenet_lib.files import user_path, write_json

Say = Callable[[str], None]  # takes a line of progress, as say and quiet below do


class Number(click.FloatRange):
    """A float within a range; NaN, which click lets through, is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not a number", param, ctx)
        return number


class UserPath(click.Path):
    """A file or folder; ~ is the home, also where the shell leaves it as it is."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(user_path(value), param, ctx)


class Writable(click.ParamType):
    """A file that can be written, as far as can be seen before the work begins."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = user_path(value)
        if path.is_dir() or not path.absolute().parent.is_dir():
            self.fail(f"cannot write {path}: {'it is a folder' if path.is_dir() else 'its folder does not exist'}")
        return path


class OneLineErrors(click.Group):
    """Commands that print the caller's mistakes as one line and exit with 2."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        print_anything()
        try:
            with (
                warnings.catch_warnings(),
                memory_advice("timenet", "close other programs, or choose another --device"),
            ):
                warnings.filterwarnings("ignore", "Image size")  # Pillow's: what is too large is refused in our words
                return super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            echo(error.format_message())
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


def needed(module: str, *, extra: str) -> Any:
    """Import a module of another library. Raises InputError, which names the extra to install, if it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{module.split('.')[0]} is not installed: pip install '.[{extra}]'") from error


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Raise InputError, which names the extra to install, if an import inside finds no package."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: pip install '.[{name}]'") from error


@contextmanager
def resumable(how: str) -> Iterator[None]:
    """End with exit code 130 and how to go on, when Ctrl-C interrupts, or SIGTERM, by which a cluster stops jobs."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        fail(f"interrupted: {how}", 130)
    finally:
        signal.signal(signal.SIGTERM, before)


def fail(message: str, code: int) -> None:
    say(f"error: {message}")
    sys.exit(code)


def echo(message: str) -> None:
    """Print a line at once; click's own echo writes UTF-8 where ASCII is asked for."""
    print(message, flush=True)


def say(message: str) -> None:
    """Print a line of progress on stderr."""
    print(message, file=sys.stderr, flush=True)


def print_anything() -> None:
    """Let this process print what its output's encoding lacks, as names of files may hold: escaped, not refused."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def quiet(message: str) -> None:
    """Print nothing; takes say's place."""


def shown_command() -> str:
    """Quote the command as it was typed, with the program's path cut to its name."""
    return shlex.join(["timenet", *sys.argv[1:]])


def write_results(path: Path | None, results: dict[str, Any]) -> None:
    """Write results as JSON where a file was asked for."""
    if path is not None:
        write_json(path, results)


FILE = UserPath(path_type=Path)
FOLDER = UserPath(exists=True, file_okay=False, path_type=Path)
COUNT = click.IntRange(1, 10**9)
PRESETS = "the preset's"
PRESET = click.option("--preset", default="demo", metavar="NAME", help="ci, demo (a laptop) or paper (a GPU).")
SEED = click.option("--seed", default=0, type=click.IntRange(0, 2**63 - 1), help="Decides every random choice.")
DEVICE = click.option("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:N or mps.")
WEIGHTS = click.option("--weights", default="demo", metavar="NAME_OR_DIR", help="Shipped weights, or your own folder.")
EXTRACTOR = click.option(
    "--extractor-weights", default="", metavar="WHICH", show_default=PRESETS,
    help="shipped, random, timm (already on this machine), a file or a folder.",
)  # fmt: skip
DATA = click.option("--data", type=FILE, metavar="DIR", help="A folder in the layout of MVTec-AD.")
JSON = click.option("--json", "json_path", type=Writable(), metavar="FILE", help="Write the results here.")


def model_options(command: Any) -> Any:
    """Add the options that name a model and where it computes, as the decorators above do one by one."""
    return WEIGHTS(EXTRACTOR(DEVICE(command)))
