"""The command line: one module per command, and the one place that turns errors into exit codes.

Nothing here imports torch or napari before a command needs it, so that `--help` and `models` answer at once.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import Annotated, Final

import typer
from typer.main import get_command

from napari_unet_seg import __version__
from napari_unet_seg._cli._console import EXIT_CANCELLED, EXIT_FAILED, EXIT_NOT_STARTED, Cancelled, say
from napari_unet_seg._cli.demo import demo
from napari_unet_seg._cli.evaluate import evaluate
from napari_unet_seg._cli.models import models
from napari_unet_seg._cli.predict import predict
from napari_unet_seg._cli.train import train
from napari_unet_seg._cli.weight_map import weight_map
from napari_unet_seg.core.errors import InputError, UNetSegError

NAME: Final = "napari-unet-seg"
DEBUG_VARIABLE: Final = "NAPARI_UNET_SEG_DEBUG"

_UNREACHABLE: Final = {errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP}
"""What the system says of names that cannot even be looked at, which is done before anything is started."""

# By version, Typer brings its own click or uses the installed one: its BadParameter descends from either's.
_ClickException: Final[type[Exception]] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)

app = typer.Typer(
    name=NAME,
    help="Segment EM and microscopy images with a U-Net, train one, and measure how good it is.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        sys.stdout.write(f"{NAME} {__version__}\n")
        raise typer.Exit


@app.callback()
def _commands(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Segment EM and microscopy images with a U-Net, train one, and measure how good it is."""


for _command in (demo, models, predict, train, evaluate, weight_map):
    app.command()(_command)


def main() -> None:
    """Run the command of `sys.argv` and leave with its exit code."""
    sys.exit(exit_code(sys.argv[1:]))


def exit_code(arguments: list[str]) -> int:
    """Run a command; return 0 done, 2 nothing was started, 1 started and failed, 130 cancelled.

    The last line on stderr is the sentence that matters.
    """
    try:
        return _run(arguments)
    except (KeyboardInterrupt, typer.Abort):
        say("Cancelled.")
        return EXIT_CANCELLED
    except Cancelled as cancelled:
        say(str(cancelled))
        return EXIT_CANCELLED
    except _ClickException as error:
        say(_usage_sentence(error))
        return EXIT_NOT_STARTED
    except InputError as error:
        say(str(error))
        return EXIT_NOT_STARTED
    except UNetSegError as error:
        say(str(error))
        return EXIT_FAILED
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001 - the edge: even for our own mistakes a person gets a sentence and a code
        return _code_of_unexpected(error)


def _code_of_unexpected(error: Exception) -> int:
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    if isinstance(error, OSError) and error.filename is not None:
        say(f"'{error.filename}' cannot be used ({error.strerror}): check its name and who may read it.")
        return EXIT_NOT_STARTED if error.errno in _UNREACHABLE else EXIT_FAILED
    say(_sentence_about_a_bug(error))
    return EXIT_FAILED


def _run(arguments: list[str]) -> int:
    """Parse and run; not by the application's own `main`, as what that does on Ctrl-C differs by version."""
    command = get_command(app)
    try:
        with command.make_context(NAME, list(arguments)) as context:
            command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    return 0


def _usage_sentence(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    sentence = " ".join(message.split()).rstrip(".")
    return f"{sentence}: see '{context.command_path if context else NAME} --help'."


def _sentence_about_a_bug(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "There is not enough memory: close other programs, or work on a smaller part of the image."
    kind = type(error).__name__
    return (
        f"This is a bug in {NAME}, please report it ({kind}: {error}); "
        f"set {DEBUG_VARIABLE}=1 to see where it happened."
    )
