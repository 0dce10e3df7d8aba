"""diffusers' own pipelines of the same weights: the same images, in turns."""

import pytest
import torch
from tiny import tiny_class_to_image, tiny_super_resolution

from latentdiff import DiffusionPipeline, InputError, UnconditionalPipeline, UNet2DConditionModel
from latentdiff.bench import against
from latentdiff.bench.against import compare_with_diffusers, stock_pipeline


@pytest.fixture
def plain_pipe(plain_folder):
    """An unconditional model with heads of one width, as diffusers' class has them."""
    pipe = DiffusionPipeline.from_pretrained(plain_folder)
    config = {**pipe.unet.config, "num_head_channels": 4, "num_attention_heads": None}
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**{name: value for name, value in config.items() if not name.startswith("_")})
    return UnconditionalPipeline(vae=pipe.vae, unet=unet.eval(), scheduler=pipe.scheduler)


@pytest.mark.thorough
@pytest.mark.parametrize(("scale", "embeddings"), [(1.0, True), (5.0, True), (None, False)])
def test_both_make_the_same_images(text_pipe, plain_pipe, scale, embeddings):
    pipe = plain_pipe if scale is None else text_pipe
    before = pipe.scheduler
    stock = stock_pipeline(pipe)
    found = compare_with_diffusers(pipe, stock, 3, batch_size=2, rounds=1, guidance_scale=scale)
    assert found.pipeline == ("LDMPipeline" if scale is None else "StableDiffusionPipeline")
    assert 0 <= found.difference < 2e-5 and found.from_embeddings is embeddings
    assert pipe.scheduler is before and type(stock.unet).__module__.startswith("diffusers.")
    with torch.no_grad():
        next(pipe.unet.parameters()).add_(1.0)  # which both share
    assert compare_with_diffusers(pipe, stock, 3, batch_size=2, rounds=1, guidance_scale=scale).difference < 2e-5


@pytest.mark.thorough
def test_they_take_turns_and_ratios_are_of_a_round(plain_pipe, monkeypatch):
    stock, order = stock_pipeline(plain_pipe), []
    for name, pipe in (("ours", plain_pipe), ("theirs", stock)):
        pipe.unet.register_forward_hook(lambda *_, name=name: order.append(name))
    seconds = {"ours": iter([1.0, 2.0, 8.0]), "theirs": iter([3.0, 10.0, 8.0])}

    def told(_device, function):
        function()
        return next(seconds[order[-1]])

    monkeypatch.setattr(against, "seconds_of", told)
    found = compare_with_diffusers(plain_pipe, stock, 1, batch_size=1, rounds=3)
    assert order == ["ours", "theirs", "ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert (found.ours, found.theirs, found.ratio) == (2.0, 8.0, 3.0)


def test_tasks_and_networks_that_diffusers_lacks_are_refused(tmp_path, text_pipe):
    for make, task in ((tiny_super_resolution, "super-resolution"), (tiny_class_to_image, "class-to-image")):
        pipe = DiffusionPipeline.from_pretrained(make(tmp_path))
        with pytest.raises(InputError, match=f"diffusers has no pipeline of the weights of a model for {task}; leave"):
            stock_pipeline(pipe)
    text_pipe.unet.register_to_config(mid_block_attention=False)
    with pytest.raises(InputError, match=r"diffusers has no network of these weights \(UNet2DConditionModel joins.*\)"):
        stock_pipeline(text_pipe)
