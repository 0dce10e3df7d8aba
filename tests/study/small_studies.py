"""Small studies and their servers."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

SOURCE = Path(__file__).parents[2] / "src"
NAMES = "abcdef"
SIZE = 24


def picture(*seed, size=SIZE):
    """Pixels that no coarse mosaic looks like."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


class Clock:
    """A clock that goes on only when it is told to; it shows seconds since 1970."""

    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now


class Server:
    """A server in a process of its own, as the command starts it.

    Attributes:
        address: Its address.
        links: What it prints of its page or invitations.
    """

    def __init__(self, folder, *words):
        command = [sys.executable, "-m", "latentdiff", "study", *map(str, words)]
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        first = self.process.stdout.readline()
        assert first, self.process.stderr.read()
        self.links = [first.split("\t")[0]]
        self.address = first.split("/s/")[0].split("\t")[0].rstrip("/")

    def more_links(self, count):
        self.links += [self.process.stdout.readline().split("\t")[0] for _ in range(count)]
        return self.links

    def ask(self, path, method="GET", **headers):
        """The status and the content of a reply, which is JSON or bytes, and its headers."""
        request = urllib.request.Request(self.address + path, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                status, content, sent = reply.status, reply.read(), reply.headers
        except urllib.error.HTTPError as error:
            status, content, sent = error.code, error.read(), error.headers
        if sent.get("Content-Type") == "application/json":
            content = json.loads(content)
        return SimpleNamespace(status=status, content=content, headers=sent)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        self.process.terminate()
        self.process.wait(timeout=30)
