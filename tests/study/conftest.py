import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from latentdiff.study.study import open_study

SOURCE = Path(__file__).parents[2] / "src"
NAMES = "abcdef"
SIZE = 24


def picture(*seed, size=SIZE):
    """Pixels that no coarse mosaic looks like."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def folders(tmp_path):
    """Images of two methods, the ground truth, and inputs of a quarter of the size, as Path attributes."""
    made = SimpleNamespace(**{role: tmp_path / role for role in ("ours", "theirs", "truth", "inputs")})
    for number, folder in enumerate(vars(made).values()):
        folder.mkdir()
        for place, name in enumerate(NAMES):
            size = SIZE // 4 if folder.name == "inputs" else SIZE
            picture(number, place, size=size).save(folder / f"{name}.png")
    return made


@pytest.fixture
def study(folders):
    return open_study(folders.ours, folders.theirs, folders.truth, pairs=4, checks=2)


class Clock:
    """A clock that goes on only when it is told to; it shows seconds since 1970."""

    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


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


@pytest.fixture
def serve(tmp_path):
    """Starts a server of the words of a command line, on a free port unless they name one; ends it in the end."""
    servers = []

    def start(*words):
        if "--port" not in words:
            words = (*words, "--port", 0)
        servers.append(Server(tmp_path, *words, "--quiet"))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()
        server.process.stdout.close()
        server.process.stderr.close()
