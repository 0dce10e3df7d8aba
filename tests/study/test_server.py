"""The server as a process of its own, asked by HTTP."""

import io
import re
import socket
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image
from small_studies import NAMES, Server, picture

from latentdiff.study.texts import ENGLISH

pytestmark = pytest.mark.thorough

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

QUICK = ("--look", "0")


@pytest.fixture
def words(folders):
    return folders.ours, folders.theirs, folders.truth, "--pairs", 4, "--checks", 2


def chosen_in(path):
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        query = "SELECT number, position, chosen FROM answers WHERE chosen IS NOT NULL"
        return {(number, position): chosen for number, position, chosen in connection.execute(query)}
    finally:
        connection.close()


def test_a_whole_study(serve, words, study, tmp_path, folders):
    server = serve(*words, *QUICK, "--inputs", folders.inputs, "--task", "super-resolution")
    page = server.ask("/")
    assert (page.status, page.headers["Cache-Control"]) == (200, "no-cache")
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    for name in re.findall(rb'"(/static/[\w.]+)"', page.content):
        asset = server.ask(name.decode())
        assert asset.status == 200
        assert server.ask(name.decode(), **{"If-None-Match": asset.headers["ETag"]}).status == 304
    about = server.ask("/api/study").content
    assert about.pop("texts") == ENGLISH
    assert len(about.pop("id")) == 16
    assert about == {"open": True, "task": "super-resolution", "of": 6, "look": 0, "middle": True}
    token = server.ask("/api/join", "POST").content["token"]
    assert server.ask(f"/api/s/{token}").content == {"done": 0, "of": 6}
    for position, pair in enumerate(study.pairs(0)):
        assert server.ask(f"/api/s/{token}/{position}/shown", "POST").content == {"look": 0}
        for place, role in (("left", pair.left), ("right", pair.right)):
            image = server.ask(f"/image/{token}/{position}/{place}")
            assert "immutable" in image.headers["Cache-Control"]
            with Image.open(io.BytesIO(image.content)) as shown:
                assert shown.tobytes() == study.picture(pair.name, role).tobytes()
        with Image.open(io.BytesIO(server.ask(f"/image/{token}/{position}/middle").content)) as shown:
            assert shown.size == (6, 6)
        told = server.ask(f"/api/s/{token}/{position}/right", "POST")
        assert (told.status, told.content) == (200, {"done": position + 1, "of": 6})
        assert chosen_in(tmp_path / "study.db")[0, position] == pair.right
    tag = image.headers["ETag"]
    assert server.ask(f"/image/{token}/5/right", **{"If-None-Match": tag}).status == 304
    server.end()
    assert server.process.stderr.read() == ""


def test_addresses_and_headers_of_images_tell_no_method(serve, words):
    server = serve(*words)
    token = server.ask("/api/join", "POST").content["token"]
    sent = [server.ask(f"/image/{token}/{position}/{place}") for position in range(4) for place in ("left", "right")]
    for name in ("ours", "theirs", "truth", "degraded"):
        assert not [image for image in sent if name in str(image.headers) or name.encode() in image.content]
    assert {(image.status, image.headers["Content-Type"]) for image in sent} == {(200, "image/png")}
    assert len({image.headers["ETag"] for image in sent}) == len(sent)


def test_the_look_is_kept_by_the_server(serve, words):
    server = serve(*words, "--look", 3600)
    token = server.ask("/api/join", "POST").content["token"]
    assert server.ask(f"/api/s/{token}/0/left", "POST").content == {"error": "order", "wait": 0}
    server.ask(f"/api/s/{token}/0/shown", "POST")
    early = server.ask(f"/api/s/{token}/0/left", "POST")
    assert (early.status, early.content["error"]) == (409, "early")
    assert 3000 < early.content["wait"] <= 3600
    assert server.ask(f"/api/s/{token}").content["done"] == 0


@pytest.mark.parametrize(
    ("path", "method", "status", "error"),
    [
        ("/api/s/nobody", "GET", 404, "unknown"),
        ("/api/s/nobody/0/shown", "POST", 404, "unknown"),
        ("/api/s/nobody/0/left", "POST", 404, "unknown"),
        ("/image/nobody/0/left", "GET", 404, "unknown"),
        ("/api/s/TOKEN/0/middle", "POST", 404, "nothing"),
        ("/api/s/TOKEN/6/shown", "POST", 409, "order"),
        ("/api/s/TOKEN/1/shown", "POST", 409, "order"),
        ("/image/TOKEN/6/left", "GET", 404, "nothing"),
        ("/image/TOKEN/0/middle", "GET", 404, "nothing"),
        ("/image/TOKEN/0/a", "GET", 404, "nothing"),
        ("/static/store.py", "GET", 404, "nothing"),
        ("/static/..%2Fstore.py", "GET", 404, None),
        ("/api/s/TOKEN/x/left", "POST", 404, None),
        ("/api/join", "GET", 405, None),
    ],
)
def test_what_there_is_not(shared_server, path, method, status, error):
    server, token = shared_server
    reply = server.ask(path.replace("TOKEN", token), method)
    assert reply.status == status
    if error is not None:
        assert reply.content["error"] == error


def test_texts_of_another_language(shared_server):
    server, _ = shared_server
    assert server.ask("/api/study").content["texts"] == {**ENGLISH, "language": "de", "question.general": "Welches?"}


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    for number, method in enumerate(("ours", "theirs")):
        (folder / method).mkdir()
        for place, name in enumerate(NAMES):
            picture(number, place).save(folder / method / f"{name}.png")
    (folder / "german.json").write_text('{"language": "de", "question.general": "Welches?"}')
    words = ("ours", "theirs", "--pairs", 4, "--checks", 2, "--texts", "german.json", "--port", 0, "--quiet")
    server = Server(folder, *words)
    yield server, server.ask("/api/join", "POST").content["token"]
    server.kill()
    server.process.stdout.close()
    server.process.stderr.close()


def test_two_at_once_get_their_own_orders(serve, words, study, tmp_path):
    server = serve(*words, *QUICK)

    def take_part(side):
        token = server.ask("/api/join", "POST").content["token"]
        seen = []
        for position in range(len(study)):
            seen.append([server.ask(f"/image/{token}/{position}/{place}").content for place in ("left", "right")])
            server.ask(f"/api/s/{token}/{position}/shown", "POST")
            assert server.ask(f"/api/s/{token}/{position}/{side}", "POST").content["done"] == position + 1
        return seen

    with ThreadPoolExecutor(2) as threads:
        seen = list(threads.map(take_part, ["left", "right"]))
    plans = [
        [[study.png(pair.name, role) for role in (pair.left, pair.right)] for pair in study.pairs(number)]
        for number in (0, 1)
    ]
    assert seen in (plans, plans[::-1])
    assert plans[0] != plans[1]
    chosen = chosen_in(tmp_path / "study.db")
    first_on_left = seen == plans
    for number in (0, 1):
        on_left = (number == 0) == first_on_left
        for position, pair in enumerate(study.pairs(number)):
            assert chosen[number, position] == (pair.left if on_left else pair.right)


def test_invitations(serve, words, tmp_path):
    server = serve(*words, *QUICK, "--invite", 3)
    links = server.more_links(2)
    assert len(set(links)) == 3
    tokens = [link.rpartition("/")[2] for link in links]
    assert server.ask("/api/study").content["open"] is False
    assert server.ask("/api/join", "POST").content["error"] == "closed"
    server.ask(f"/api/s/{tokens[1]}")
    server.ask(f"/api/s/{tokens[1]}/0/shown", "POST")
    server.ask(f"/api/s/{tokens[1]}/0/left", "POST")
    server.end()
    again = serve(*words, *QUICK)  # without --invite there are still those
    assert [link.rpartition("/")[2] for link in again.more_links(2)] == tokens
    assert [again.ask(f"/api/s/{token}").content["done"] for token in tokens] == [0, 1, 0]


def test_the_server_outlives_an_image_that_is_gone(serve, words, study, folders):
    server = serve(*words)
    token = server.ask("/api/join", "POST").content["token"]
    pair = study.pairs(0)[0]
    there = (folders.ours, folders.theirs, folders.truth)
    for folder in there:
        folder.rename(folder.with_name(f"{folder.name}-gone"))
    reply = server.ask(f"/image/{token}/0/left")
    assert (reply.status, reply.content) == (503, {"error": "image"})
    for folder in there:
        folder.with_name(f"{folder.name}-gone").rename(folder)
    assert server.ask(f"/image/{token}/0/left").content == study.png(pair.name, pair.left)
    server.end()
    assert f"{pair.name}.png" in server.process.stderr.read()


def test_the_server_outlives_a_database_that_is_held(serve, words, tmp_path):
    server = serve(*words, *QUICK)
    token = server.ask("/api/join", "POST").content["token"]
    server.ask(f"/api/s/{token}/0/shown", "POST")
    connection = sqlite3.connect(tmp_path / "study.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    reply = server.ask(f"/api/s/{token}/0/left", "POST")
    connection.execute("ROLLBACK")
    connection.close()
    assert (reply.status, reply.content) == (503, {"error": "storage"})
    assert server.ask(f"/api/s/{token}/0/left", "POST").content["done"] == 1


def test_a_request_that_breaks_off_or_is_none(serve, words):
    server = serve(*words)
    host, port = server.address.removeprefix("http://").split(":")
    for content in (b"POST /api/join HTTP/1.1\r\nContent-Length: 99", b"\x16\x03\x01 no http\r\n\r\n", b""):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(content)
    assert server.ask("/api/study").status == 200


def fails(message, folder, *words):
    """Runs the command, which must end with one line."""
    command = [sys.executable, "-m", "latentdiff", "study", *map(str, words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("latentdiff: error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr


def test_a_port_and_a_database_that_are_in_use(serve, words, tmp_path):
    server = serve(*words)
    port = server.address.rpartition(":")[2]
    fails(f"can't listen on port {port} of 127.0.0.1 (Address already in use)", tmp_path, *words, "--port", port)
    fails("another server has study.db; end it, or give another --database", tmp_path, *words, "--port", 0)
    fails("--host is nowhere.invalid, which is no address here", tmp_path, *words, "--host", "nowhere.invalid")
    assert server.ask("/api/study").status == 200


def test_the_server_needs_no_torch(words, tmp_path):
    code = (
        "import sys, latentdiff.study.serve as module; module.serve = lambda *a: print('torch' in sys.modules); "
        f"from latentdiff.cli.main import main; sys.exit(main({['study', *map(str, words), '--port', '0']}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
