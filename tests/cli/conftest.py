import pytest
from tiny import (
    tiny_class_to_image,
    tiny_inpaint,
    tiny_layout_to_image,
    tiny_semantic_to_image,
    tiny_super_resolution,
    tiny_text_to_image,
    tiny_unconditional,
)

from latentdiff.cli.main import main


@pytest.fixture(scope="session")
def text_model(tmp_path_factory):
    return str(tiny_text_to_image(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="session")
def unconditional_model(tmp_path_factory):
    return str(tiny_unconditional(tmp_path_factory.mktemp("model")))


TASK_MODELS = {
    "class": tiny_class_to_image,
    "layout": tiny_layout_to_image,
    "semantic": tiny_semantic_to_image,
    "upscale": tiny_super_resolution,
    "inpaint": tiny_inpaint,
}


@pytest.fixture(scope="session")
def models(text_model, unconditional_model, tmp_path_factory):
    """A command's name to a model for it."""
    made = {name: str(make(tmp_path_factory.mktemp("model"))) for name, make in TASK_MODELS.items()}
    return {**made, "generate": text_model, "img2img": text_model, "sample": unconditional_model}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the command in an empty folder; returns its exit code, and the lines of stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*argv):
        code = main([str(word) for word in argv])
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), printed.err.splitlines()

    return call


@pytest.fixture
def fails(run, tmp_path):
    """Runs the command, which must fail with one line that holds `message` and change no file."""

    def call(message, *argv):
        before = sorted(tmp_path.rglob("*"))
        code, out, err = run(*argv)
        assert (code, out, len(err)) == (2, [], 1)
        assert err[0].startswith("latentdiff: error: ")
        assert message in err[0]
        assert sorted(tmp_path.rglob("*")) == before

    return call
