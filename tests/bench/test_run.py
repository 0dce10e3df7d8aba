"""All measurements of a loaded pipeline, which is left as it was; which guidance scale a model has."""

import pytest
import torch
from diffusers import PNDMScheduler
from tiny import tiny_text_super_resolution

from latentdiff import ClassEmbedder, DiffusionPipeline, InputError
from latentdiff.bench.inputs import solver_of
from latentdiff.bench.run import Bench, guidance_of
from latentdiff.schedulers.select import scheduler_name


def test_a_loaded_pipeline_is_left_as_it_was(plain_pipe):
    plain_pipe.set_progress_bar_config(desc="mine")
    before = plain_pipe.scheduler
    calls = []
    plain_pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    bench = Bench(plain_pipe, solvers=["heun"], steps=[3], rounds=1, batch_size=2)
    assert not calls  # everything is checked, and nothing computed yet
    report = bench.measure()
    assert plain_pipe.scheduler is before and plain_pipe._progress_bar_config == {"desc": "mine"}
    assert (report.facts["solver"], report.facts["steps"], report.facts["task"]) == ("heun", 3, "unconditional")
    assert report.facts["guidance_scale"] is None and report.facts["size"] == "16x16"
    assert report.speed.load_seconds is None and report.speed.network_calls == 5
    assert report.against is None and report.quality is None
    assert len(calls) == 5 * (1 + 1 + 1 + 1) + 1 + 2 + 1  # first, single, memory, batch; then the counts of DDIM


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": torch.bfloat16}, "dtype is torch.bfloat16, but the model is loaded already; leave it out"),
        ({"revision": "main"}, "revision is main, but the model is loaded already"),
        ({"rounds": 0}, "rounds is 0; it must be an integer of at least 1"),
        ({"batch_size": 0}, "batch_size is 0; it must be an integer of at least 1"),
        ({"steps": []}, "solvers or steps is empty"),
        ({"steps": [2, 0]}, "steps is 0; it must be an integer of at least 1"),
        ({"solvers": []}, "solvers or steps is empty"),
        ({"against": "original"}, "against is 'original'; known: diffusers"),
        ({"guidance_scale": 1.0}, "guidance_scale is 1, but this model has no condition to drop"),
    ],
)
def test_what_is_not_valid_is_refused(plain_pipe, options, message):
    with pytest.raises(InputError, match=message):
        Bench(plain_pipe, **options)


def test_the_models_own_solver_keeps_its_options(plain_pipe):
    plain_pipe.set_scheduler("dpmpp_2m", use_karras_sigmas=True)
    before = plain_pipe.scheduler
    for solver in (None, "dpmpp_2m"):
        with solver_of(plain_pipe, solver):
            assert plain_pipe.scheduler is before
    with solver_of(plain_pipe, "unipc"):
        assert scheduler_name(plain_pipe.scheduler) == "unipc"
    assert plain_pipe.scheduler is before
    plain_pipe.set_scheduler(PNDMScheduler)
    with solver_of(plain_pipe, scheduler_name(plain_pipe.scheduler)):
        assert type(plain_pipe.scheduler) is PNDMScheduler


def test_guidance_scales(text_pipe, class_folder, plain_pipe, tmp_path):
    classes = DiffusionPipeline.from_pretrained(class_folder)
    large = DiffusionPipeline.from_pretrained(tiny_text_super_resolution(tmp_path))
    assert [guidance_of(pipe, None) for pipe in (text_pipe, large, classes, plain_pipe)] == [5.0, 5.0, 3.0, None]
    assert guidance_of(text_pipe, 2.5) == 2.5
    classes.register_modules(class_embedder=ClassEmbedder(num_classes=5, embed_dim=16))
    assert guidance_of(classes, None) == 1.0
