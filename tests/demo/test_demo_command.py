"""What the command refuses before it serves anything."""

import socket

import pytest
import tiny

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
