"""A display for a process on a machine that has none: Xvfb, an X server that draws into memory."""

from __future__ import annotations

import atexit
import os
import selectors
import shutil
import subprocess
import sys

from napari_unet_seg.core.errors import InputError

_SCREEN = "1600x1200x24"
_START_S = 20.0


def has_display() -> bool:
    """Whether windows can be shown: always outside of Linux, there where X11 or Wayland is named."""
    return not sys.platform.startswith("linux") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )


def start_private_display(*, outlives_clients: bool = False) -> None:
    """Start Xvfb on a number that is free and make it this process's display until the process ends.

    Parameters
    ----------
    outlives_clients
        It stays when a window's process has ended, for the next one; else it ends with its only client, even
        when that is killed.

    Raises
    ------
    InputError
        It is not installed, or does not start.
    """
    program = shutil.which("Xvfb")
    if program is None:
        raise InputError(
            "There is no display, and Xvfb, which would stand in for one, is not installed: "
            "install it (on Debian and Ubuntu: apt-get install xvfb)."
        )
    ending = [] if outlives_clients else ["-terminate"]
    # Its own session, so that Ctrl-C in the terminal does not take it away before the window is closed.
    server = subprocess.Popen(  # noqa: S603 - a fixed program with fixed arguments
        [program, "-displayfd", "1", "-screen", "0", _SCREEN, "-nolisten", "tcp", *ending],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    atexit.register(server.terminate)
    number = _first_line(server)
    if not number.isdecimal():
        raise InputError(
            "There is no display, and Xvfb, which would stand in for one, does not start: try `xvfb-run`."
        )
    os.environ["DISPLAY"] = f":{number}"
    os.environ["QT_QPA_PLATFORM"] = "xcb"  # Qt's offscreen platform draws no canvas


def _first_line(server: subprocess.Popen[bytes]) -> str:
    """What the server says first: its number; empty when it says nothing in time."""
    if server.stdout is None:
        raise AssertionError("started with a pipe")
    with selectors.DefaultSelector() as waiting:
        waiting.register(server.stdout, selectors.EVENT_READ)
        if not waiting.select(_START_S):
            return ""
    return server.stdout.readline().decode().strip()
