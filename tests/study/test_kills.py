"""A server that is killed while people answer loses no answer that it has acknowledged."""

import contextlib
import http.client
import json
import random
import sqlite3
import threading
import time
import urllib.error
import urllib.request

import pytest
from small_studies import picture

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

LOOK = "0.01"  # seconds


def reply(address, method):
    """The status and the content of a reply."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method=method), timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


class EndedError(Exception):
    """The test is over."""


class Participant(threading.Thread):
    """Answers as a page does: each request is repeated until the server replies.

    Attributes:
        acknowledged: The place of a pair to the side that the server has confirmed.
        fault: What the server said that it should not have.
    """

    def __init__(self, address, token):
        super().__init__(daemon=True)
        self.address = f"{address}/api/s/{token}"
        self.acknowledged = {}
        self.fault = None
        self.ended = threading.Event()

    def ask(self, path, method="POST"):
        while not self.ended.is_set():
            try:
                status, told = reply(self.address + path, method)
            except (OSError, http.client.HTTPException, ValueError):
                status, told = None, None  # the server was killed before it replied, or while it did
            if status == 200:
                return told
            if status is not None and status < 500 and told["error"] != "early":
                self.fault = f"{method} {path}: {told}"
                break
            time.sleep(0.02)
        raise EndedError

    def run(self):
        with contextlib.suppress(EndedError):
            self.take_part()

    def take_part(self):
        rng = random.Random(self.address)
        state = self.ask("", "GET")
        while state["done"] < state["of"]:
            position = state["done"]
            self.ask(f"/{position}/shown")
            side = rng.choice(["left", "right"])
            state = self.ask(f"/{position}/{side}")  # also asked again until the look is over
            self.acknowledged[position] = side
            if state["done"] != position + 1:
                self.fault = f"{state} after pair {position}"
                break


def stored(path):
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        query = "SELECT number, position, left_role, right_role, chosen FROM answers WHERE chosen IS NOT NULL"
        return {
            (number, position): {left: "left", right: "right"}[chosen]
            for number, position, left, right, chosen in connection.execute(query)
        }
    finally:
        connection.close()


@pytest.mark.parametrize(
    "kills", [pytest.param(3, marks=pytest.mark.thorough), pytest.param(50, marks=pytest.mark.slow)]
)
def test_no_acknowledged_answer_is_lost(serve, folders, tmp_path, kills):
    images = max(30, 6 * kills)
    for number, folder in enumerate((folders.ours, folders.theirs, folders.truth)):
        for place in range(images):
            picture(number, place, size=10).save(folder / f"{place}.png")
    words = (folders.ours, folders.theirs, folders.truth, "--pairs", 3 * images, "--look", LOOK, "--invite", 2)
    server = serve(*words)
    port = server.address.rpartition(":")[2]
    tokens = [link.rpartition("/")[2] for link in server.more_links(1)]
    people = [Participant(server.address, token) for token in tokens]
    for person in people:
        server.ask(f"/api/s/{person.address.rpartition('/')[2]}")  # so that numbers follow this order
        person.start()
    rng = random.Random(0)
    for _ in range(kills):
        before = sum(len(person.acknowledged) for person in people)
        while sum(len(person.acknowledged) for person in people) < before + 4:
            assert server.process.poll() is None, server.process.stderr.read()
            assert [person.fault for person in people] == [None, None]
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.05))
        server.kill()
        confirmed = [dict(person.acknowledged) for person in people]
        kept = stored(tmp_path / "study.db")
        for number, answers in enumerate(confirmed):
            assert answers == {position: kept.get((number, position)) for position in answers}
        server = serve(*words, "--port", port)
    for person in people:
        person.ended.set()
        person.join(timeout=30)
    server.end()
    kept = stored(tmp_path / "study.db")
    for number, person in enumerate(people):
        assert person.fault is None
        assert len(person.acknowledged) > kills
        assert person.acknowledged == {
            position: side for (of, position), side in kept.items() if of == number and position in person.acknowledged
        }
        assert {position for of, position in kept if of == number} - set(person.acknowledged) <= {
            len(person.acknowledged)
        }
