import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from latentdiff import __version__
from latentdiff.cli.commands import DATA_COMMANDS, EVALUATE_COMMANDS, IMAGE_COMMANDS, MODEL_COMMANDS
from latentdiff.cli.main import make_app
from latentdiff.cli.messages import FLAGS, commands_of, with_flags
from latentdiff.io.generated import write_image
from latentdiff.tasks import TASKS

HEAVY = "torch", "diffusers", "transformers", "accelerate"
VERY_LIGHT = (*HEAVY, "numpy", "PIL", "huggingface_hub")


def commands(app, words=()):
    """The words of every command, those of groups included."""
    yield words
    for name in app:
        if not name.startswith("-"):
            yield from commands(app[name], (*words, name))


def imported(code, modules, tmp_path):
    """Which of the modules a Python process has imported after `code`, which may leave by SystemExit."""
    script = (
        f"try:\n    {code}\nfinally:\n    import sys; print('IMPORTED', [m for m in {modules!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)
    return done.stdout.splitlines()[-1].removeprefix("IMPORTED ")


LIGHT = [
    ["--version"],
    *([*words, "--help"] for words in commands(make_app())),
    ["generat"],
    ["generate", "x", "--steps", "0"],
    ["train", "diffusion", "--optimizer.learning_rat", "1"],
]
EACH = f"""
import contextlib, json, os, sys
from latentdiff.cli.main import main

found = {{}}
for argv in json.loads(sys.argv[1]):
    reading, writing = os.pipe()
    if not os.fork():
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1), os.dup2(1, 2)
        with contextlib.suppress(SystemExit):
            main(argv)
        os.write(writing, json.dumps([name for name in {VERY_LIGHT} if name in sys.modules]).encode())
        os._exit(0)
    os.close(writing)
    os.wait()
    found[" ".join(argv)] = os.read(reading, 1000).decode()
print(json.dumps(found))
"""


@pytest.mark.thorough
def test_help_and_option_errors_are_light():
    """Of an interpreter that has imported nothing but the command, forked for each."""
    done = subprocess.run([sys.executable, "-c", EACH, json.dumps(LIGHT)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {" ".join(argv): "[]" for argv in LIGHT}


def test_the_package_itself_is_light(tmp_path):
    assert imported("import latentdiff; latentdiff.__version__", VERY_LIGHT, tmp_path) == "[]"


@pytest.mark.thorough
def test_info_needs_no_torch(tmp_path, text_model):
    write_image(Image.new("RGB", (4, 4)), tmp_path / "a.png", {"prompt": "x"})
    for target in (text_model, "a.png"):
        assert imported(f"from latentdiff.cli.main import main; main(['info', {target!r}])", HEAVY, tmp_path) == "[]"


def test_python_m_latentdiff_is_the_command(tmp_path):
    command = [sys.executable, "-m", "latentdiff"]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == f"latentdiff {__version__}\n"
    done = subprocess.run([*command, "nothing"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_a_reader_that_goes_away_is_no_error(tmp_path, text_model):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "latentdiff", "info", text_model]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, cwd=tmp_path, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_help_lists_commands_and_schedulers(run):
    code, out, err = run("--help")
    assert (code, err) == (0, [])
    assert all(name in "\n".join(out) for name in (*IMAGE_COMMANDS, "info", "train"))
    assert "dpmpp_2m" in "\n".join(run("generate", "--help")[1])


@pytest.mark.parametrize("group", [[], ["data"], ["evaluate"]], ids=str)
def test_the_list_of_commands_says_what_each_does(run, group):
    listed, whole = make_app(), make_app({*IMAGE_COMMANDS, *MODEL_COMMANDS, *DATA_COMMANDS, *EVALUATE_COMMANDS})
    for word in group:
        listed, whole = listed[word], whole[word]
    names = commands_of(listed)
    assert names and all(whole[name].help for name in names)
    assert [listed[name].help for name in names] == [whole[name].help.partition("\n")[0] for name in names]
    lines = [line.strip("│ ").split(maxsplit=1) for line in run(*group, "--help")[1]]
    assert set(names) <= {line[0] for line in lines if len(line) == 2 and line[1]}


def test_a_command_shows_its_whole_text(run):
    assert "Each image depends on its prompt" in " ".join(run("generate", "--help")[1])


@pytest.mark.parametrize(
    ("message", "argv"),
    [
        ("required: COMMAND", []),
        ("did you mean 'generate' or 'convert'?", ["generat", "x"]),
        ("known: bench, class, convert, data, demo, ema, encode, evaluate, generate, img2img, info,", ["zzz"]),
        ("did you mean '--seed'", ["generate", "x", "--sead", "3"]),
        ("unknown argument '--foo'", ["--foo", "info", "x"]),
        ("quotes", ["info", "a", "b"]),
        ("did you mean 'diffusion'?", ["train", "difusion", "r.yaml"]),
        ("required: TARGET", ["info"]),
        (
            "--unet takes the whole mapping as JSON: --unet '{\"sample_size\": ...}' (",
            ["train", "diffusion", "--unet.sample_size", "8"],
        ),
        ('as JSON: --model \'{"a": {"b": ...}}\' (', ["train", "first-stage", "--model.a.b=8"]),
        ("did you mean '--seed'", ["train", "diffusion", "--seed.a", "8"]),
        ("did you mean '--conditioning.dropout'", ["train", "diffusion", "--conditioning.dropou", "8"]),
    ],
)
def test_a_wrong_command_line_is_one_line(fails, message, argv):
    fails(message, *argv)


def test_every_task_has_its_command():
    assert set(IMAGE_COMMANDS) == {spec.command for spec in TASKS.values()} - {None}


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("num_inference_steps is 0; it must be at least 1", "--steps is 0; it must be at least 1"),
        ("height is 7; it must be a multiple of 8", "the height of --size is 7; it must be a multiple of 8"),
        ("windows: size 15 is too large", "--window: size 15 is too large"),
        ("seed is -1; it must be positive", "--seed is -1; it must be positive"),
        ("negative_prompt has no effect at guidance_scale 1", "--negative-prompt has no effect at --guidance-scale 1"),
        ("Euler has no eta, but 1 was given", "Euler has no --eta, but 1 was given"),
        ("a seed of 3, a height and /data/eta/num_inference_steps.png", None),
        ("unknown class 'guidance_scale'", None),
    ],
)
def test_messages_name_flags(message, told):
    assert with_flags(message) == (told or message)


def test_the_flags_in_messages_exist():
    known = set()
    for name in (*IMAGE_COMMANDS, "bench"):
        known |= {flag for argument in make_app()[name].assemble_argument_collection() for flag in argument.names}
    assert {flag.rpartition(" ")[2] for flag in FLAGS.values()} <= known


@pytest.mark.thorough
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed(run, tmp_path, monkeypatch, shell):
    monkeypatch.setenv("HOME", str(tmp_path))
    code, _, err = run("--install-completion", "--shell", shell, "--output", tmp_path / "completion")
    assert (code, err) == (0, [])
    script = (tmp_path / "completion").read_text()
    assert all(word in script for word in ("generate", "guidance-scale", "optimizer.learning", "float16"))
