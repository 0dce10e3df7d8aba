"""Stable Diffusion's checkpoints make whole pipelines: the tokenizer is in the package."""

import pytest
import torch
from twins import Twin, narrow_clip

from latentdiff import DiffusionPipeline
from latentdiff.conversion import networks
from latentdiff.conversion.convert import convert_original

PADDING = {"sd-1": 49407, "sd-2-base": 0, "sd-2-v": 0}


@pytest.fixture(params=PADDING)
def twin(request, monkeypatch):
    monkeypatch.setattr(networks, "make_clip", narrow_clip(networks.make_clip))
    return Twin(request.param), PADDING[request.param]


def images(pipe):
    pipe.set_progress_bar_config(disable=True)
    options = {"height": 64, "width": 64, "num_inference_steps": 2, "seed": 0, "output_type": "pt"}
    return pipe("a photo of a cat!", **options).images


def test_pipeline_without_a_given_tokenizer(tmp_path, twin):
    twin, pad = twin
    pipe = DiffusionPipeline.from_original(twin.state, twin.node)
    assert type(pipe).__name__ == "TextToImagePipeline"
    expected = "v_prediction" if "parameterization" in twin.node["params"] else "epsilon"
    assert pipe.scheduler.config.prediction_type == expected
    ids = torch.tensor([[49406, 320, 1125, 539, 320, 2368, 256, 49407, *[pad] * 69]])
    with torch.no_grad():
        context = pipe.text_encoder(ids).last_hidden_state
    assert torch.equal(pipe.encode_prompt("a photo of a cat!"), context)
    convert_original(twin.state, tmp_path / "folder", twin.node)
    again = DiffusionPipeline.from_pretrained(tmp_path / "folder")
    # Where weights lie in memory decides how products are summed, so the same weights give almost the same numbers.
    torch.testing.assert_close(images(again), images(pipe), rtol=0.0, atol=1e-5)
