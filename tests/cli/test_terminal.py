"""What a person at a terminal sees: soon something, warnings above the bars, and where a model comes from."""

import contextlib
import io
import logging
import shutil
import subprocess
import sys
import warnings

import pytest
from tqdm.auto import tqdm

from latentdiff.cli import console
from latentdiff.errors import LatentDiffWarning

FIRST_WORDS = """
import sys
from latentdiff.cli.main import main

class Terminal:
    encoding = "utf-8"
    def isatty(self): return True
    def flush(self): pass
    def write(self, text):
        print(text.strip(), "torch" in sys.modules)
        sys.stdout.flush()
        raise SystemExit

sys.stderr = Terminal()
main(sys.argv[1:])
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("line", "argv"),
    [
        ("loading builtin:emoji", ["generate", "a dog", "-o", "a.png"]),
        ("loading faces", ["sample", "--model", "faces"]),
        ("reading faces", ["info", "faces"]),
        ("reading faces", ["convert", "faces", "new"]),
        ("reading the recipe, and loading what trains it", ["train", "diffusion", "recipe.yaml"]),
        ("reading photos", ["data", "check", "photos"]),
    ],
)
def test_something_is_on_the_screen_before_torch_is_imported(tmp_path, line, argv):
    command = [sys.executable, "-c", FIRST_WORDS, *argv]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"latentdiff: {line} False\n"


class FakeTerminal(io.StringIO):
    def isatty(self):
        return True

    def screen(self):
        """Its lines as a person sees them: a return goes back to the line's begin."""
        lines = []
        for line in self.getvalue().split("\n"):
            shown = ""
            for part in line.split("\r"):
                shown = part + shown[len(part) :]
            lines.append(shown.rstrip())
        return lines


@pytest.fixture
def terminal():
    """A terminal in the place of stderr, once it is entered: pytest puts its own there before each test."""
    return contextlib.redirect_stderr(FakeTerminal())


def test_warnings_and_errors_stand_above_the_bar(terminal):
    with terminal as stream, console.quiet_libraries(False) as complain, tqdm(total=10, desc="training") as bar:
        bar.update(3)
        warnings.warn(LatentDiffWarning("3 images are small"), stacklevel=1)
        bar.update(3)
        complain("a.png is damaged")
        bar.update(4)
    screen = stream.screen()
    assert screen[:2] == ["latentdiff: warning: 3 images are small", "latentdiff: error: a.png is damaged"]
    assert screen[2].startswith("training: 100%|")


def test_libraries_are_not_heard_beside_the_bar(terminal):
    with terminal as stream, console.quiet_libraries(False):
        logging.getLogger("transformers").error("a line of a library")
        logging.getLogger("diffusers").warning("another")
        warnings.warn("a library's warning", FutureWarning, stacklevel=1)
    assert stream.getvalue() == ""


def test_nothing_is_announced_where_nobody_watches_or_wants_to(terminal):
    with terminal as stream:
        console.announce("loading", quiet=True)
    with contextlib.redirect_stderr(io.StringIO()) as pipe:
        console.announce("loading")
    assert stream.getvalue() == pipe.getvalue() == ""


def test_one_of_several_processes_announces(terminal, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with terminal as stream:
        monkeypatch.setenv("RANK", "1")
        console.announce("loading")
        monkeypatch.setenv("RANK", "0")
        console.announce("loading faces")
    assert stream.screen() == ["latentdiff: loading faces", ""]


@pytest.fixture
def finished_run(models, tmp_path):
    """The folder of a training run: its log, a checkpoint, and the pipeline that it has written."""
    shutil.copytree(models["sample"], tmp_path / "runs" / "x" / "pipeline")
    (tmp_path / "runs" / "x" / "log.jsonl").write_text("{}\n")
    (tmp_path / "runs" / "x" / "checkpoint-10").mkdir()
    return "runs/x"


def test_the_folder_of_a_run_names_its_pipeline(run, finished_run):
    assert run("sample", "--model", finished_run, "-n", 1, "--steps", 1, "-o", "a")[0] == 0
    assert run("info", finished_run)[1][0] == "pipeline: UnconditionalPipeline"
    assert run("convert", finished_run, "new")[0] == 0
    assert run("sample", "--model", f"{finished_run}/pipeline", "-n", 1, "--steps", 1, "-o", "b")[0] == 0


@pytest.mark.parametrize("file", ["log.jsonl", "checkpoint-4/manifest.json"])  # a short run has no line to log
def test_the_folder_of_a_first_stages_run_names_that(run, models, tmp_path, file):
    shutil.copytree(f"{models['sample']}/vae", tmp_path / "runs" / "first" / "vae")
    code, _, err = run("info", "runs/first")
    assert code == 2 and "runs/first holds no model_index.json" in err[0]  # it may be a damaged pipeline
    (tmp_path / "runs" / "first" / file).parent.mkdir(exist_ok=True)
    (tmp_path / "runs" / "first" / file).write_text("{}\n")
    assert run("info", "runs/first")[1][0] == "class: AutoencoderKL"
    code, _, err = run("sample", "--model", "runs/first")
    assert code == 2 and "runs/first/vae holds no model_index.json" in err[0]


def test_a_run_that_has_made_no_model_yet_and_a_damaged_model(run, finished_run, models, tmp_path):
    shutil.rmtree(tmp_path / finished_run / "pipeline")
    code, _, err = run("sample", "--model", finished_run)
    assert code == 2 and "runs/x holds no model_index.json" in err[0]
    damaged = shutil.copytree(models["sample"], tmp_path / "damaged")
    (damaged / "model_index.json").unlink()
    code, _, err = run("info", "damaged")
    assert code == 2 and "damaged holds no model_index.json" in err[0]
