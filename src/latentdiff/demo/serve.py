"""The server's process: the page's address, and that nothing is asked of or told to other machines."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence

# gradio asks for its own latest version, and tells that it was started, unless it is told not to before the import.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

from latentdiff.demo.app import Demo
from latentdiff.demo.drawing import MOST_BYTES
from latentdiff.demo.models import Model
from latentdiff.errors import InputError
from latentdiff.study.serve import address, listen

ORANGE = "#9a3412"  # on which white can be read
FONTS = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]  # the system's: gradio's are fetched
STYLE = ".min_value, .max_value { color: var(--body-text-color) !important; }"  # gradio's are too pale to be read


def start(models: Sequence[Model], host: str, port: int, share: bool = False) -> tuple[Demo, str]:
    """Serve the page, in threads of their own.

    Args:
        models: The models to choose from.
        host: The name or number of an address of this machine.
        port: The port; 0 takes a free one.
        share: Whether the page can also be reached from the internet, by a tunnel of gradio's.

    Returns:
        The page, and its address.

    Raises:
        InputError: If there is no such address, the port is taken, or the tunnel can't be opened.
    """
    with listen(host, port) as listening:
        free, place = listening.getsockname()[1], address(host, listening)
    demo = Demo(models)
    demo.page.queue(default_concurrency_limit=None)
    _, _, shared = demo.page.launch(
        server_name=host,
        server_port=free,
        share=share,
        prevent_thread_lock=True,
        quiet=True,
        inbrowser=False,
        max_file_size=MOST_BYTES,
        theme=gr.themes.Default(primary_hue="orange", font=FONTS[0], font_mono=FONTS[1]).set(
            button_primary_background_fill=ORANGE,
            button_primary_background_fill_dark=ORANGE,
            button_primary_background_fill_hover=ORANGE,
            button_primary_background_fill_hover_dark=ORANGE,
        ),
        css=STYLE,
        footer_links=[],
        ssr_mode=False,
        enable_monitoring=False,
        run_history=False,
        pwa=False,
        mcp_server=False,
    )
    if share and shared is None:
        demo.page.close(verbose=False)
        raise InputError("the tunnel of --share could not be opened; look for the internet, or leave --share out")
    return demo, shared or place


def serve(models: Sequence[Model], host: str, port: int, share: bool, say: Callable[[str], None]) -> None:
    """Serve the page until the process is told to end, by Ctrl-C or SIGTERM.

    Args:
        models: The models to choose from.
        host: As for `start`.
        port: As for `start`.
        share: As for `start`.
        say: Hears the address.

    Raises:
        InputError: As `start`.
    """
    signal.signal(signal.SIGTERM, _end)
    with tempfile.TemporaryDirectory(prefix="latentdiff-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # where uploads go; by default all programs with gradio share one
        demo, place = start(models, host, port, share)
        say(f"{place}/" if not place.endswith("/") else place)
        try:
            demo.page.server.thread.join()
        finally:
            demo.page.close(verbose=False)


def _end(number: int, frame: object) -> None:
    """End the process as Ctrl-C does, so that nothing is left behind."""
    sys.exit(128 + number)
