"""A server of the page with a tiny model of every task, and the built-in one, in a process of its own."""

import sys
import tempfile
import time
from pathlib import Path

import tiny
from forked import PATIENCE, Forked

MAKERS = {
    "text": tiny.tiny_text_to_image,
    "unconditional": tiny.tiny_unconditional,
    "class": tiny.tiny_class_to_image,
    "layout": tiny.tiny_layout_to_image,
    "semantic": tiny.tiny_semantic_to_image,
    "super": tiny.tiny_super_resolution,
    "inpaint": tiny.tiny_inpaint,
}
SLOW = "builtin:emoji"  # of which many steps take seconds


class DemoServer(Forked):
    """The page of the models in a folder, which are named by their paths in it.

    Attributes:
        address: Its address.
    """

    def __init__(self, folder):
        self.place = Path(folder, "address")
        self.asked = Path(folder, "asked")  # has a line for each address that the server asks something of
        super().__init__(self.serve, folder=folder, environment={"TMPDIR": folder})
        end = time.monotonic() + PATIENCE
        while not self.place.exists():
            assert self.is_alive(), self.ended().stderr
            assert time.monotonic() < end
            time.sleep(0.02)
        self.address = self.place.read_text()

    def serve(self):
        from latentdiff.cli.options import ModelOptions
        from latentdiff.demo.models import load_model
        from latentdiff.demo.serve import serve

        def hear(event, arguments):
            if event in ("socket.connect", "socket.getaddrinfo"):
                with self.asked.open("a") as file:
                    file.write(f"{arguments[1 if event == 'socket.connect' else 0]}\n")

        sys.addaudithook(hear)
        tempfile.tempdir = None  # has been looked up before

        def tell(address):
            aside = self.place.with_suffix(".new")
            aside.write_text(address)
            aside.rename(self.place)

        serve([load_model(ModelOptions(model=name)) for name in (*MAKERS, SLOW)], "127.0.0.1", 0, False, tell)
