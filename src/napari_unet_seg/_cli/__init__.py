"""The command line: one module per command, and the one place that turns errors into exit codes."""

from __future__ import annotations

import sys

import click
import typer

from napari_unet_seg._cli._console import EXIT_CANCELLED, EXIT_FAILED, EXIT_NOT_STARTED, complain
from napari_unet_seg._cli.train import train
from napari_unet_seg.core.errors import InputError, UNetSegError

app = typer.Typer(
    name="napari-unet-seg",
    help="Segment EM and microscopy images with a U-Net, train one, and measure how good it is.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=False,
)


@app.callback()
def _commands() -> None:
    """Segment EM and microscopy images with a U-Net, train one, and measure how good it is."""


app.command()(train)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and leave with its exit code."""
    sys.exit(exit_code(sys.argv[1:] if arguments is None else arguments))


def exit_code(arguments: list[str]) -> int:
    """Run a command; return 0 done, 2 nothing was started, 1 started and failed, 130 cancelled."""
    try:
        result = app(arguments, standalone_mode=False)
    except click.exceptions.Abort:
        return EXIT_CANCELLED
    except KeyboardInterrupt:
        complain("Cancelled.")
        return EXIT_CANCELLED
    except click.ClickException as error:
        complain(error.format_message())
        return EXIT_NOT_STARTED
    except InputError as error:
        complain(str(error))
        return EXIT_NOT_STARTED
    except UNetSegError as error:
        complain(str(error))
        return EXIT_FAILED
    return result if isinstance(result, int) else 0
