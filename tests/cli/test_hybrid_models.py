"""Models of several conditions, which are called in Python, and what the commands say of them."""

import pytest
from tiny import tiny_hybrid

from latentdiff import DiffusionPipeline, InputError
from latentdiff.bench.inputs import example_inputs
from latentdiff.cli.commands.evaluate.conditions import read_conditions


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory):
    return str(tiny_hybrid(tmp_path_factory.mktemp("model")))


def test_commands_that_need_another_model_say_so(fails, hybrid):
    wrong = "has HybridPipeline, which is called in Python; latentdiff class needs ClassToImagePipeline"
    fails(wrong, "class", "dog", "--model", hybrid, "-o", "out.png")
    fails("of no command of latentdiff; call latentdiff.tune_steps in Python", "tune-steps", hybrid, "--steps", "2")
    with pytest.raises(InputError, match="can't be sampled here; fill a folder with Python, and evaluate that"):
        read_conditions(hybrid, None, None, None)


def test_it_is_described_and_measured(run, hybrid):
    code, out, _ = run("info", hybrid)
    assert code == 0 and any("hybrid" in line for line in out)
    pipe = DiffusionPipeline.from_pretrained(hybrid)
    pipe.set_progress_bar_config(disable=True)
    images = pipe(**example_inputs(pipe, 2), num_inference_steps=1, seed=0).images
    assert len(images) == 2 and images[0].size == (16, 16)
