"""What the command refuses before it serves anything."""

import os
import re
import runpy
import signal
import socket
import tempfile
from importlib.metadata import version

import pytest
import tiny
import yaml
from forked import Forked, wait_for

from latentdiff import __version__
from latentdiff.cli.main import main


@pytest.fixture
def fails(capsys):
    def call(message, *words):
        assert main(["demo", *map(str, words)]) == 2
        printed = capsys.readouterr()
        assert (printed.out, len(printed.err.splitlines())) == ("", 1)
        assert message in printed.err

    return call


def test_without_gradio(fails, monkeypatch):
    monkeypatch.setattr("latentdiff.cli.commands.demo.find_spec", lambda name: None)
    fails("latentdiff demo needs gradio; install latentdiff[demo]")


def test_wrong_words(fails):
    pytest.importorskip("gradio")
    fails("--port", "--port", 65536)
    fails("unknown model 'emoji'", "emoji")
    fails("--dtype", "--dtype", "float8")


def test_a_model_of_a_task_without_controls(fails, tmp_path):
    pytest.importorskip("gradio")
    from latentdiff import ImageToImagePipeline

    ImageToImagePipeline.from_pipe(tiny.unconditional(tmp_path)).save_pretrained(tmp_path / "i2i")
    message = "has ImageToImagePipeline, which the page has no controls for; give a model of text-to-image"
    fails(message, tmp_path / "i2i")


def test_a_port_that_is_taken(fails, tmp_path):
    pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        fails(f"can't listen on port {port}", "--quiet", tiny.tiny_unconditional(tmp_path), "--port", port)


@pytest.mark.thorough
def test_a_tunnel_that_can_not_be_opened(tmp_path):
    pytest.importorskip("gradio")
    model = str(tiny.tiny_unconditional(tmp_path))

    def run():
        from gradio import networking

        def fail(*_):
            raise OSError("no internet")

        networking.setup_tunnel = fail
        return main(["demo", model, "--port", "0", "--share"])

    ended = Forked(run, folder=tmp_path).ended()
    assert ended.returncode == 2
    assert ended.stderr.endswith(
        "the tunnel of --share could not be opened; look for the internet, or leave --share out\n"
    )


@pytest.mark.thorough
def test_a_server_that_is_ended_leaves_nothing(tmp_path):
    pytest.importorskip("gradio")
    model, place = str(tiny.tiny_unconditional(tmp_path)), tmp_path / "temporary"
    place.mkdir()

    def run():
        tempfile.tempdir = str(place)
        return main(["demo", model, "--port", "0", "--quiet"])

    server = Forked(run, folder=tmp_path)
    wait_for(lambda: os.fstat(server.files[0].fileno()).st_size, server)
    assert len(list(place.iterdir())) == 1
    os.kill(server.pid, signal.SIGTERM)
    ended = server.ended()
    assert (ended.returncode, ended.stderr, list(place.iterdir())) == (143, "", [])
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\n", ended.stdout)


def test_a_space(fails, tmp_path, capsys):
    pytest.importorskip("gradio")
    space = tmp_path / "space"
    assert main(["demo", "builtin:emoji", "someone/cats", "--export-space", str(space), "--dtype", "auto"]) == 0
    written = capsys.readouterr().out.splitlines()
    assert written == [str(space / name) for name in ("README.md", "app.py", "requirements.txt")]
    _, header, text = (space / "README.md").read_text(encoding="utf-8").split("---\n")
    asked = yaml.safe_load(header)
    assert (asked["sdk"], asked["sdk_version"], asked["app_file"]) == ("gradio", version("gradio"), "app.py")
    assert asked["models"] == ["someone/cats"]
    assert "builtin:emoji, someone/cats" in text
    assert (space / "requirements.txt").read_text() == f"latentdiff[demo]=={__version__}\n"
    called = []
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("latentdiff.cli.main.main", called.append)
        runpy.run_path(str(space / "app.py"))
    assert called == [["demo", "builtin:emoji", "someone/cats", "--host", "0.0.0.0", "--dtype", "auto"]]
    fails("README.md exists already", "--export-space", space)


def test_a_space_can_not_reach_a_folder(fails, tmp_path):
    pytest.importorskip("gradio")
    fails("neither a built-in model nor one of the hub", tmp_path, "--export-space", tmp_path / "space")
    fails("leave --host, --port and --share out", "--share", "--export-space", tmp_path / "space")
    assert not (tmp_path / "space").exists()
