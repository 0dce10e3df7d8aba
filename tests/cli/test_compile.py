"""`--compile`, `--dtype auto` and `--quantize`."""

import shlex

import numpy as np
import pytest
import torch
import torch._inductor.config
from PIL import Image

from latentdiff import DiffusionPipeline
from latentdiff.compilation import artefacts
from latentdiff.io.generated import read_parameters
from latentdiff.pipelines import precision


@pytest.fixture
def no_compiler(tmp_path, monkeypatch):
    """A machine without a C++ compiler, and with no programs on its disk."""
    monkeypatch.setattr(artefacts, "default_programs_folder", lambda: tmp_path / "cache")
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        yield


@pytest.mark.usefixtures("no_compiler")
def test_auto_leaves_work_uncompiled_that_does_not_repay_it(run, unconditional_model):
    options = ("--model", unconditional_model, "--steps", 6, "-n", 2)
    code, out, err = run("sample", *options, "-o", "plain")
    assert (code, err) == (0, [])
    assert run("sample", *options, "-o", "auto", "--compile", "auto") == (
        0,
        [line.replace("plain", "auto") for line in out],
        [],
    )
    for seed in range(2):
        plain, auto = (read_parameters(f"{folder}/{seed:06d}.png") for folder in ("plain", "auto"))
        assert plain == auto
    # Images of a folder are the same whether they were compiled or not.
    code, out, err = run("sample", *options, "-o", "auto", "--compile", "yes")
    assert (code, out, err) == (0, ["auto: 0 made, 2 existed already"], [])


@pytest.mark.usefixtures("no_compiler")
def test_yes_is_an_error_where_nothing_can_be_compiled(fails, unconditional_model):
    fails(
        "compiling needs a C++ compiler, such as g++, and finds none",
        *("sample", "--model", unconditional_model, "--steps", 2, "-n", 1, "-o", "a.png", "--compile", "yes"),
    )


def test_auto_is_the_data_type_of_the_machine_and_recorded_so(run, unconditional_model, monkeypatch):
    options = ("sample", "--model", unconditional_model, "--steps", 2, "-n", 1, "-o", "images", "--dtype", "auto")
    for flag, dtype in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(precision, "CPU_FLAGS", ("flag",))
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flag=flag: {"flag": flag}, raising=False)
        assert run(*options, "--overwrite")[0] == 0
        assert read_parameters("images/000000.png")["dtype"] == dtype
        assert run(*options)[:2] == (0, ["images: 0 made, 1 existed already"])
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"flag": True}, raising=False)
    code, _, err = run(*options)  # would mix two precisions in one folder
    assert code == 2 and "was made of another model, input or options" in err[0]


def test_int8_is_that_of_python_and_is_made_again(run, models, tmp_path):
    options = ("generate", "a dog", "--model", models["generate"], "--steps", 2, "--seed", 5)
    assert run(*options, "-o", "plain.png")[0] == 0
    assert run(*options, "--quantize", "int8", "-o", "a.png")[0] == 0
    assert read_parameters("a.png")["quantize"] == "int8" and "quantize" not in read_parameters("plain.png")
    made = DiffusionPipeline.from_pretrained(models["generate"], quantize="int8")
    image = made("a dog", num_inference_steps=2, seed=[5]).images[0]
    assert np.array_equal(np.asarray(Image.open("a.png")), np.asarray(image))
    command = shlex.split(run("info", "a.png")[1][-1].removeprefix("command: "))
    assert run(*command[1:2], "-o", "again.png", *command[2:])[0] == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "again.png").read_bytes()


def test_int8_and_compiling(run, fails, unconditional_model):
    options = ("sample", "--model", unconditional_model, "--steps", 1, "-n", 1, "--quantize", "int8", "-o", "a")
    fails("the unet's weights are int8, which freezing would unpack", *options, "--compile", "yes")
    code, _, err = run(*options, "--compile", "auto")
    assert code == 0 and "--compile auto leaves networks as they are whose weights are int8" in err[0]
    fails("--quantize: 'int4' is given; did you mean 'int8'?", *options[:-4], "--quantize", "int4")
