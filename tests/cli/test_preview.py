"""`--preview` and `--preview-file`: what images are becoming, in the terminal and in a file."""

import io
import re
import sys

import pytest
import torch
from PIL import Image

from latentdiff import DiffusionPipeline, TinyDecoder
from latentdiff.cli.batch.preview import MARK, Screen


class Terminal(io.StringIO):
    """A terminal of 40 by 20 characters, of which it is known what stands where."""

    def isatty(self):
        return True

    @property
    def encoding(self):
        return "utf-8"

    def screen(self):
        """The lines that are seen at the end, blocks as they are, and the line and column of the cursor."""
        lines, row, column = [[]], 0, 0
        for code in re.findall(r"\x1b\[[\d;]*[A-Za-z]|.|\n|\r", self.getvalue()):
            if code == "\n":
                row += 1
                lines += [[] for _ in range(row + 1 - len(lines))]
            elif code == "\r":
                column = 0
            elif code.endswith("A") and code.startswith("\x1b"):
                row -= int(code[2:-1])
                assert row >= 0
            elif code == "\x1b[K":
                del lines[row][column:]
            elif code == "\x1b[J":
                del lines[row][column:], lines[row + 1 :]
            elif not code.startswith("\x1b"):
                lines[row] += " " * (column + 1 - len(lines[row]))
                lines[row][column] = code
                column += 1
        return ["".join(line).rstrip() for line in lines], (row, column)


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "20")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def test_one_picture_takes_the_place_of_the_other_and_nothing_stays(terminal):
    terminal.write("a line before\n")
    screen = Screen(terminal)
    screen.show(Image.new("RGB", (6, 8)))
    assert terminal.screen() == (["a line before", "", *["▀" * 6] * 4, ""], (1, 0))
    screen.show(Image.new("RGB", (4, 2)))
    assert terminal.screen() == (["a line before", "", "▀" * 4, ""], (1, 0))
    terminal.write("an image is written\n")
    screen.show(Image.new("RGB", (100, 100)))
    lines, cursor = terminal.screen()
    assert lines[:2] == ["a line before", "an image is written"] and cursor == (2, 0)
    assert lines[3:] == ["▀" * 36] * 18 + [""]  # as high as the terminal, but for two lines
    screen.clear()
    assert terminal.screen() == (["a line before", "an image is written", ""], (2, 0))


@pytest.mark.thorough
@pytest.mark.parametrize("command", ["generate", "sample", "class", "img2img"])
def test_every_command_previews(models, run, tmp_path, command):
    inputs = {"generate": ["a dog"], "class": ["dog"], "img2img": ["photo.png", "--prompt", "a dog"]}.get(command, [])
    Image.new("RGB", (16, 16), "red").save(tmp_path / "photo.png")
    options = ["--model", models[command], "--steps", 4, "--seed", 0, "-o", "out", "-n", 2]
    assert run(command, *inputs, *options, "--preview-file", "previews/x0.png")[0] == 0
    with Image.open(tmp_path / "previews" / "x0.png") as picture:
        assert picture.size == (2 * 16 + 3, 16 + 2) and MARK in picture.info
    with_preview = [path.read_bytes() for path in sorted((tmp_path / "out").rglob("*.png"))]
    options[-3] = "plain"
    assert run(command, *inputs, *options)[0] == 0
    assert with_preview == [path.read_bytes() for path in sorted((tmp_path / "plain").rglob("*.png"))]


def test_a_terminal_shows_pictures_while_images_are_made(unconditional_model, terminal, tmp_path, monkeypatch):
    from latentdiff.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", terminal)
    options = ["--model", unconditional_model, "--steps", "4", "-n", "1", "-o", "out"]
    assert main(["sample", *options, "--preview", "--preview-every", "2"]) == 0
    assert terminal.getvalue().count("\x1b[5A") == 0
    assert terminal.getvalue().count("\x1b[6A") == 3  # steps 0, 2 and 3: 10 rows of pixels, and the line after
    assert terminal.screen()[0] == ["out/000000.png\tseed 0", ""]


@pytest.mark.parametrize("why", ["no terminal", "no colours", "ASCII"])
def test_where_nothing_can_be_shown_a_line_says_so(unconditional_model, run, terminal, monkeypatch, tmp_path, why):
    stream = io.StringIO() if why == "no terminal" else terminal
    if why == "no colours":
        monkeypatch.setenv("NO_COLOR", "1")
    elif why == "ASCII":
        monkeypatch.setattr(Terminal, "encoding", "ascii")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", stream)
    errors = io.StringIO()
    monkeypatch.setattr(sys, "stderr", errors)
    from latentdiff.cli.main import main

    assert main(["sample", "--model", unconditional_model, "--steps", "2", "-n", "1", "-o", "out", "--preview"]) == 0
    assert "\x1b" not in stream.getvalue()
    assert "--preview shows nothing, as stdout is no terminal with colours" in errors.getvalue()


def test_without_previews_no_callback_is_given(unconditional_model, run, monkeypatch):
    given = []
    called = DiffusionPipeline._callbacks
    monkeypatch.setattr(
        DiffusionPipeline, "_callbacks", lambda self, *args: given.append(called(self, *args)) or given[-1]
    )
    assert run("sample", "--model", unconditional_model, "--steps", 2, "-n", 1, "-o", "out")[0] == 0
    assert given == [(None, None)]


def test_files_that_are_no_previews_stay(unconditional_model, fails, run, tmp_path):
    sample = ["sample", "--model", unconditional_model, "--steps", 2, "-n", 1, "-o", "out"]
    Image.new("RGB", (4, 4)).save(tmp_path / "photo.png")
    (tmp_path / "text.png").write_text("text")
    for name in ("photo.png", "text.png"):
        before = (tmp_path / name).read_bytes()
        fails(
            f"--preview-file is {name}, which is there and no preview; give another name",
            *sample,
            "--preview-file",
            name,
        )
        assert (tmp_path / name).read_bytes() == before
    for _ in range(2):
        assert run(*sample, "--overwrite", "--preview-file", "x0.png")[0] == 0


def test_a_tiny_decoder_serves_a_weaker_model_of_the_same_first_stage(unconditional_model, run, tmp_path):
    tiny = {"latent_channels": 4, "block_out_channels": [8, 8], "layers_per_block": 1}
    TinyDecoder(**tiny).save_pretrained(tmp_path / "tiny")
    sample = ["sample", "--model", unconditional_model, "--steps", 2, "-n", 1, "--decoder", "tiny", "--autoguidance"]
    assert run(*sample, unconditional_model, "-o", "out")[0] == 0
    other = DiffusionPipeline.from_pretrained(unconditional_model)
    with torch.no_grad():
        other.vae.encoder.conv_in.weight.add_(1)
    other.save_pretrained(tmp_path / "other")
    code, _, errors = run(*sample, "other", "-o", "more")
    assert code == 2 and "the guiding model has another vae than the guided one" in errors[-1]


def test_options_that_do_not_fit_are_one_line(unconditional_model, fails):
    sample = ["sample", "--model", unconditional_model, "-n", 1]
    fails("--preview-every is given without --preview or --preview-file", *sample, "--preview-every", 2)
    fails("--preview-every", *sample, "--preview-file", "a.png", "--preview-every", 0)
    fails("--preview and --quiet are both given", *sample, "--preview", "--quiet")
    fails("--preview-file is x0.jpg; it must be a .png file", *sample, "--preview-file", "x0.jpg")
    fails("--preview-file and --output are both a.png", *sample, "--preview-file", "a.png", "-o", "a.png")
