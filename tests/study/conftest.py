from types import SimpleNamespace

import pytest
from small_studies import NAMES, SIZE, Clock, Server, picture

from latentdiff.study.study import open_study


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


@pytest.fixture
def clock():
    return Clock()


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
